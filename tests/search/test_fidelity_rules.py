"""Promotions by hand: the errors of a rung are given, latency is the same for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from additive import AdditiveSpace, problem

from nas.core.errors import ConfigError
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.search import fidelity
from nas.search.fidelity import FidelityRule, Proposal

AT = problem(AdditiveSpace(), objectives="loss")


def started(name: str, **settings: object) -> FidelityRule:
    return fidelity.get(name, **{"rungs": (0.1, 0.5, 1.0), "eta": 2.0, **settings}).start(AT)


def trial(genotype: Genotype, at: float, loss: float, *, failed: bool = False) -> Trial:
    return Trial(
        number=0,
        genotype=genotype,
        arch_id=str(genotype),
        seed=0,
        fidelity=at,
        values={} if failed else {"loss": loss},
        failure="crashed: so" if failed else None,
    )


def tell(rule: FidelityRule, at: float, losses: Sequence[float], first: int = 0) -> None:
    """Tell a rung's results one by one; genotypes count from `first`."""
    for i, loss in enumerate(losses):
        rule.tell([trial((first + i,), at, loss)])


def promotions(rule: FidelityRule, **how: bool) -> list[Proposal]:
    found = []
    while (proposal := rule.promotion(**how)) is not None:
        found.append(proposal)
    return found


def test_asha_promotes_the_best_share_once():
    rule = started("mo_asha", looks=1)
    assert rule.enter((0,)) == 0.1
    tell(rule, 0.1, [5.0])
    assert promotions(rule) == []
    tell(rule, 0.1, [4.0, 3.0, 6.0], first=1)
    assert promotions(rule) == [Proposal((2,), 0.5), Proposal((1,), 0.5)]
    assert promotions(rule) == []


def test_asha_looks_at_the_highest_rung_first():
    rule = started("mo_asha", looks=1)
    tell(rule, 0.1, [5.0, 4.0, 3.0, 6.0])
    tell(rule, 0.5, [2.0, 1.0], first=1)
    assert promotions(rule)[0] == Proposal((2,), 1.0)


def test_asha_waits_for_a_second_look():
    rule = started("mo_asha", looks=2)
    tell(rule, 0.1, [5.0, 4.0])
    assert promotions(rule) == []  # among the best for the first time
    tell(rule, 0.1, [3.0], first=2)
    assert promotions(rule) == []  # another one took its place
    tell(rule, 0.1, [9.0], first=3)
    assert promotions(rule) == [Proposal((2,), 0.5)]
    tell(rule, 0.1, [9.0], first=4)
    assert promotions(rule) == [Proposal((1,), 0.5)]  # got its place back, and kept it


def test_asha_trains_everything_further_where_nothing_new_comes():
    rule = started("mo_asha", looks=9)
    tell(rule, 0.1, [5.0, 4.0])
    assert promotions(rule) == []
    assert promotions(rule, exhausted=True) == [Proposal((1,), 0.5), Proposal((0,), 0.5)]


def test_what_failed_counts_and_is_never_promoted():
    rule = started("mo_asha", looks=1)
    rule.tell([trial((0,), 0.1, 0, failed=True), trial((1,), 0.1, 3.0)])
    assert promotions(rule) == [Proposal((1,), 0.5)]
    hyperband = started("mo_hyperband")
    for genotype in range(4):
        hyperband.enter((genotype,))
        hyperband.tell([trial((genotype,), 0.1, 0, failed=True)])
    assert promotions(hyperband) == []


def test_hyperband_s_brackets_are_those_of_the_paper():
    """Of three rungs and eta 3: ceil(3 / (s + 1) * 3^s) = 9, 5 and 3 begin, each a rung higher."""
    rule = started("mo_hyperband", eta=3.0)
    begun = [rule.enter((i,)) for i in range(9 + 5 + 3 + 9)]
    assert begun == [0.1] * 9 + [0.5] * 5 + [1.0] * 3 + [0.1] * 9


def test_hyperband_promotes_when_a_rung_is_complete():
    rule = started("mo_hyperband", eta=3.0)
    for i in range(10):
        rule.enter((i,))
    tell(rule, 0.1, [9, 8, 7, 1, 2, 3, 4, 5])
    assert promotions(rule) == []
    tell(rule, 0.1, [6], first=8)
    assert promotions(rule) == [Proposal((i,), 0.5) for i in (3, 4, 5)]
    tell(rule, 0.5, [3, 2], first=3)
    assert promotions(rule) == []
    tell(rule, 0.5, [1], first=5)
    assert promotions(rule) == [Proposal((5,), 1.0)]


def test_hyperband_ends_a_bracket_that_nothing_fills():
    rule = started("mo_hyperband", eta=3.0)
    for i in range(3):
        rule.enter((i,))
    tell(rule, 0.1, [3, 1, 2])
    assert promotions(rule) == []
    assert promotions(rule, exhausted=True) == [Proposal((1,), 0.5)]


@pytest.mark.parametrize("name", [n for n in fidelity.names() if n != "full"])
def test_promotions_do_not_depend_on_how_results_are_grouped(name: str):
    losses = np.random.default_rng(0).permutation(30)
    found = []
    for size in (1, 7, 30):
        rule = started(name)
        begun = [rule.enter((i,)) for i in range(30)]
        results = [trial((i,), begun[i], float(loss)) for i, loss in enumerate(losses)]
        for start in range(0, 30, size):
            rule.tell(results[start : start + size])
        found.append(set(promotions(rule)))
    assert found[0] == found[1] == found[2] != set()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rungs": (1.0,)}, r"fidelity.rungs: got \[1.0\], expected two rising shares"),
        ({"rungs": (0.5, 0.2, 1.0)}, "fidelity.rungs"),
        ({"rungs": (0.0, 1.0)}, "fidelity.rungs"),
        ({"rungs": (0.1, 0.9)}, "the last 1"),
        ({"eta": 1.0}, "fidelity.eta: got 1.0, expected more than 1"),
        ({"noise": {"loss": -1.0}}, "fidelity.noise.loss"),
        ({"noise": {"speed": 1.0}}, "expected one of search.objectives: loss"),
        ({"looks": 0}, "fidelity.looks"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        started("mo_asha", **settings)
