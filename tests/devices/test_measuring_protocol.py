from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from nas.core.errors import ConfigError
from nas.devices.measuring.protocol import (
    FEWEST_ROUNDS,
    ProtocolSettings,
    relative_ci,
    run_rounds,
)


def settings(**values: float) -> ProtocolSettings:
    return ProtocolSettings(**({"min_seconds": 0.0, "min_rounds": 40} | values))


class Recorder:
    """Answers blocks by a function of the model and of how often it ran; keeps the order."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.order: list[int] = []
        self.counts: Counter[int] = Counter()

    def __call__(self, index: int) -> float:
        self.order.append(index)
        self.counts[index] += 1
        return self.answer(index, self.counts[index])


def test_quiet_networks_stop_after_the_fewest_rounds():
    block = Recorder(lambda index, count: 1.0 + index)
    rounds = run_rounds(block, [1, 1, 1], settings(), seed=0)
    assert rounds.samples_ms == [[1.0] * 40, [2.0] * 40]
    assert rounds.repeated == 0
    assert rounds.kept == 40


def test_a_network_goes_on_until_its_interval_is_narrow():
    rng = np.random.default_rng(0)
    noise = rng.lognormal(sigma=0.05, size=10_000)
    block = Recorder(lambda index, count: noise[count] if index == 0 else 1.0)
    rounds = run_rounds(block, [1, 1, 1], settings(max_seconds_per_model=1e9), seed=0)
    noisy, quiet = rounds.samples_ms
    assert len(quiet) == 40
    assert len(noisy) > 40
    assert relative_ci(noisy) <= 0.01 < relative_ci(noisy[:-1])


def test_time_limit_ends_a_network_that_stays_noisy():
    rng = np.random.default_rng(0)
    noise = rng.uniform(1, 10, size=100_000)
    block = Recorder(lambda index, count: noise[count] if index == 0 else 1.0)
    limits = settings(max_seconds_per_model=2.0, relative_ci=1e-9)
    (samples,) = run_rounds(block, [5, 1], limits, seed=0).samples_ms
    spent = 5 * sum(samples) / 1000
    assert 2.0 <= spent < 2.0 + 5 * 10 / 1000
    assert relative_ci(samples) > 1e-9


def test_fewest_rounds_come_before_the_time_limit():
    block = Recorder(lambda index, count: 1000.0)
    (samples,) = run_rounds(block, [1, 1], settings(max_seconds_per_model=1.0), seed=0).samples_ms
    assert len(samples) == 40


def test_a_run_lasts_its_least_time():
    block = Recorder(lambda index, count: 1.0)
    (samples,) = run_rounds(block, [1, 1], settings(min_seconds=1.0), seed=0).samples_ms
    assert len(samples) == 500  # two networks of 1 ms a round


def test_drifting_sentinel_repeats_the_round():
    # In the blocks 101 to 120 the whole machine is half as fast.
    slow = range(101, 121)
    block = Recorder(lambda index, count: 1.5 if count in slow else 1.0)
    rounds = run_rounds(block, [1, 1], settings(min_rounds=200), seed=0)
    assert rounds.repeated == 20
    assert rounds.kept == 200
    assert rounds.samples_ms == [[1.0] * 200]
    assert sum(ms > 1 for ms in rounds.sentinel_ms) == 20


def test_sentinel_within_its_tolerance_repeats_nothing():
    block = Recorder(lambda index, count: 1.09 if count % 3 == 0 else 1.0)
    assert run_rounds(block, [1, 1], settings(), seed=0).repeated == 0


def test_repeated_rounds_have_a_limit():
    # The sentinel grows for ever slower, so that every round looks disturbed.
    block = Recorder(lambda index, count: 1.2**count if index == 1 else 1.0)
    limits = settings(max_repeated_share=0.5)
    rounds = run_rounds(block, [1, 1], limits, seed=0)
    assert rounds.kept == 40
    assert 0 < rounds.repeated <= 40
    assert run_rounds(block, [1, 1], settings(max_repeated_share=0.0), seed=0).repeated == 0


def test_every_round_runs_every_network_once_in_a_seeded_random_order():
    def order(seed: int) -> list[int]:
        block = Recorder(lambda index, count: 1.0)
        run_rounds(block, [1] * 6, settings(), seed=seed)
        return block.order

    orders = np.reshape(order(3), (40, 6))
    assert all(sorted(each) == list(range(6)) for each in orders)
    assert len({tuple(each) for each in orders}) > 20
    assert order(3) == order(3)
    assert order(3) != order(4)


def test_interval_covers_the_percentile_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=(2000, 60)) + 1
    truth = 1 - math.log(0.9)  # 10th percentile of the shifted exponential
    from nas.devices.measuring.protocol import _interval_ranks

    lower, upper = _interval_ranks(60)
    ordered = np.sort(samples, axis=1)
    covered = np.mean((ordered[:, lower] <= truth) & (truth <= ordered[:, upper]))
    assert 0.945 < covered < 0.995


def test_fewest_rounds_is_where_an_interval_begins_to_exist():
    assert 0.9**FEWEST_ROUNDS <= 0.025 < 0.9 ** (FEWEST_ROUNDS - 1)
    assert relative_ci(np.arange(1.0, FEWEST_ROUNDS + 1)) > 0
    with pytest.raises(ValueError, match="36 or more"):
        relative_ci([1.0] * (FEWEST_ROUNDS - 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("relative_ci", 0.0),
        ("max_seconds_per_model", float("nan")),
        ("min_rounds", 35),
        ("max_repeated_share", 1.0),
        ("block_ms", -1.0),
        ("warmup_seconds", -0.1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float):
    with pytest.raises(ConfigError, match=f"device.{name}"):
        ProtocolSettings(**{name: value})
