"""Which networks are trained in a step of the weights that they share."""

from __future__ import annotations

from dataclasses import dataclass

from nas.core.errors import ConfigError, UnknownNameError

STRATEGIES = ("sandwich", "uniform", "fair", "shrinking")


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Which networks are trained in every step of a supernet.

    Attributes:
        strategy: `sandwich` trains the largest network on the targets, and the smallest and some
            random ones on its outputs (BigNAS, Yu et al., ECCV 2020); `uniform` one random network
            (SPOS, Guo et al., ECCV 2020); `fair` as many random networks as a gene has choices, so
            that each choice of a gene is in as many of them (strict fairness, FairNAS, Chu et al.,
            ICCV 2021); `shrinking` is `sandwich` among choices that are allowed one after another,
            the largest first (progressive shrinking, Once-for-All, Cai et al., ICLR 2020). Empty
            for the search space's own.
        random_networks: Of a step of `sandwich` and `shrinking`.
        shrinking_order: Last names of ordinal genes, such as `kernel`, whose smaller choices are
            allowed one name after another; empty for all ordinal genes at once.
        shrinking_from: Share of the training before which the largest choices alone are allowed.
        shrinking_until: Share of the training from which all choices are allowed.
        split: Name of a gene of which every choice has shared weights of its own (few-shot NAS,
            Zhao et al., ICML 2021); empty for none.
    """

    strategy: str = ""
    random_networks: int = 2
    shrinking_order: tuple[str, ...] = ()
    shrinking_from: float = 0.2
    shrinking_until: float = 0.7
    split: str = ""

    def __post_init__(self) -> None:
        if self.strategy and self.strategy not in STRATEGIES:
            raise UnknownNameError("evaluation.strategy", self.strategy, STRATEGIES)
        if self.random_networks < 0:
            raise ConfigError("evaluation.random_networks", self.random_networks, "0 or more")
        start, end = self.shrinking_from, self.shrinking_until
        if not 0 <= start < end <= 1:
            got = f"{start} and {end}"
            expected = "shares of the training from 0 to 1, the first one smaller"
            raise ConfigError("evaluation.shrinking_from, _until", got, expected)
