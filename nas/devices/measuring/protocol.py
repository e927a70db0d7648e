"""The order in which networks are timed, and when enough has been timed.

Nothing here reads a clock or runs a network: `run_rounds` is given a function that times one
block. The defaults come from `experiments/measurement_noise`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas.core.errors import ConfigError
from nas.core.measurement import QUIET_PERCENTILE

CONFIDENCE = 0.95
FEWEST_ROUNDS = 36
"""Fewer samples give the 10th percentile no lower bound at 95 %: 0.9^n must be below 2.5 %."""


@dataclass(frozen=True, kw_only=True)
class ProtocolSettings:
    """Settings of the measuring protocol.

    Attributes:
        relative_ci: A network is done when the half width of the 95 % confidence interval of its
            quiet estimate, relative to the estimate, is this small.
        max_seconds_per_model: Timed inference after which a network is done in any case (but not
            before `min_rounds`).
        min_rounds: Rounds that every network takes part in.
        min_seconds: Timed inference of a whole run, so that a run outlasts the slow phases of a
            shared machine.
        warmup_seconds: Untimed inference of every network before the first round.
        block_ms: Length of a timed block; every block has at least one timed inference.
        sentinel_drift: A round is repeated when its sentinel block takes longer, by this share,
            than the quiet estimate of all sentinel blocks so far.
        max_repeated_share: Share of all rounds that may be repeated ones.
    """

    relative_ci: float = 0.01
    max_seconds_per_model: float = 2.0
    min_rounds: int = 40
    min_seconds: float = 3.0
    warmup_seconds: float = 0.1
    block_ms: float = 2.0
    sentinel_drift: float = 0.1
    max_repeated_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("relative_ci", "max_seconds_per_model", "block_ms", "sentinel_drift"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"device.{name}", getattr(self, name), "a number above 0")
        for name in ("warmup_seconds", "min_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"device.{name}", getattr(self, name), "0 or more seconds")
        if self.min_rounds < FEWEST_ROUNDS:
            expected = f"{FEWEST_ROUNDS} or more, below which there is no confidence interval"
            raise ConfigError("device.min_rounds", self.min_rounds, expected)
        if not 0 <= self.max_repeated_share < 1:
            raise ConfigError(
                "device.max_repeated_share", self.max_repeated_share, "0 or more and below 1"
            )


@dataclass
class Rounds:
    """What was timed.

    Attributes:
        samples_ms: Of every network, the samples of the rounds that were kept, in their order.
        sentinel_ms: The sentinel's sample of every round, repeated ones included.
        repeated: Number of rounds that were repeated.
    """

    samples_ms: list[list[float]]
    sentinel_ms: list[float] = field(default_factory=list)
    repeated: int = 0

    @property
    def kept(self) -> int:
        """Number of rounds that were kept."""
        return len(self.sentinel_ms) - self.repeated


def run_rounds(
    run_block: Callable[[int], float],
    inferences: Sequence[int],
    settings: ProtocolSettings,
    *,
    seed: int,
) -> Rounds:
    """Time all networks in rounds, each round in a new random order, until each one is done.

    Args:
        run_block: Times one block of the network with the given index; returns milliseconds per
            inference.
        inferences: Number of timed inferences in a block of every network; the last entry is the
            sentinel's, which takes part in every round.
        settings: The protocol's settings.
        seed: Of the orders.
    """
    sentinel = len(inferences) - 1
    rounds = Rounds(samples_ms=[[] for _ in range(sentinel)])
    spent_seconds = np.zeros(len(inferences))
    rng = np.random.default_rng(seed)
    active = list(range(sentinel))
    while active:
        order = [int(index) for index in rng.permutation([*active, sentinel])]
        block_ms = {index: run_block(index) for index in order}
        for index, milliseconds in block_ms.items():
            spent_seconds[index] += milliseconds * inferences[index] / 1000
        rounds.sentinel_ms.append(block_ms[sentinel])
        if _must_repeat(rounds, settings):
            rounds.repeated += 1
            continue
        for index in active:
            rounds.samples_ms[index].append(block_ms[index])
        total_seconds = float(spent_seconds.sum())
        active = [
            index
            for index in active
            if not _done(rounds.samples_ms[index], spent_seconds[index], total_seconds, settings)
        ]
    return rounds


def _must_repeat(rounds: Rounds, settings: ProtocolSettings) -> bool:
    if rounds.repeated + 1 > settings.max_repeated_share * len(rounds.sentinel_ms):
        return False
    quiet_ms = np.percentile(rounds.sentinel_ms, QUIET_PERCENTILE)
    return bool(rounds.sentinel_ms[-1] > (1 + settings.sentinel_drift) * quiet_ms)


def _done(
    samples_ms: Sequence[float],
    spent_seconds: float,
    total_seconds: float,
    settings: ProtocolSettings,
) -> bool:
    if len(samples_ms) < settings.min_rounds:
        return False
    if spent_seconds >= settings.max_seconds_per_model:
        return True
    return total_seconds >= settings.min_seconds and relative_ci(samples_ms) <= settings.relative_ci


def relative_ci(samples_ms: Sequence[float]) -> float:
    """Return the half width of the quiet estimate's confidence interval, relative to it.

    The interval lies between two order statistics, whose ranks follow from the binomial
    distribution whatever the samples' own distribution is (Le Boudec, Performance Evaluation of
    Computer and Communication Systems, 2010, theorem 2.1; used for benchmarks by Hoefler and
    Belli, Scientific Benchmarking of Parallel Computing Systems, SC 2015). It takes the samples
    as independent: a drift of the whole machine that outlasts the run does not show in it.

    Args:
        samples_ms: At least `FEWEST_ROUNDS` samples.
    """
    lower, upper = _interval_ranks(len(samples_ms))
    ordered = np.sort(samples_ms)
    quiet_ms = np.percentile(ordered, QUIET_PERCENTILE)
    return float((ordered[upper] - ordered[lower]) / (2 * quiet_ms))


@functools.cache
def _interval_ranks(n: int) -> tuple[int, int]:
    """Return the zero-based ranks, among `n` samples, that bound the percentile at `CONFIDENCE`."""
    share, tail = QUIET_PERCENTILE / 100, (1 - CONFIDENCE) / 2
    k = np.arange(n + 1)
    log_factorial = np.array([math.lgamma(each + 1) for each in k])
    log_choices = log_factorial[n] - log_factorial - log_factorial[::-1]
    log_pmf = log_choices + k * math.log(share) + (n - k) * math.log(1 - share)
    cdf = np.cumsum(np.exp(log_pmf))
    # The k-th smallest sample is above the percentile exactly if fewer than k samples are below.
    lower = int(np.searchsorted(cdf, tail, side="right")) - 1
    upper = int(np.searchsorted(cdf, 1 - tail, side="left"))
    if lower < 0:
        raise ValueError(f"got {n} samples, expected {FEWEST_ROUNDS} or more")
    return lower, upper
