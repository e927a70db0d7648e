"""Whether errors are told from chance, as often as the levels of the tests say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.core.trial import Trial
from nas.study.noise import (
    LEVEL,
    agreement_line,
    chance_line,
    errors_percent,
    front_noise_line,
)


def test_only_networks_that_were_trained_fully_are_judged():
    trial = Trial(number=0, genotype=(0,), arch_id="a", seed=0, values={"error": 5.0})
    trials = [
        trial,
        replace(trial, fidelity=0.5),
        replace(trial, values={}, failure="diverged: nan"),
        replace(trial, values={"params_m": 1.0}, facts={"error": 7.0}),
        replace(trial, values={"params_m": 1.0}),
    ]
    assert errors_percent(trials) == [5.0, 7.0]


@pytest.mark.parametrize(("images", "trivial"), [(200, 90.0), (1000, 50.0), (3000, 5.0)])
def test_guessing_passes_for_learning_as_rarely_as_the_level_says(images: int, trivial: float):
    rng = np.random.default_rng(0)
    errors = 100 * rng.binomial(images, trivial / 100, (2000, 12)) / images
    passed = np.mean([chance_line(row.tolist(), images, trivial) is None for row in errors])
    # Three standard errors of 2000 draws above the level; the test is exact, so often below it.
    assert passed <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 2000)


def test_learning_is_told_from_guessing():
    errors = [90.1, 89.7, 82.0]
    assert chance_line(errors, 1000, 90.0) is None
    assert chance_line(errors, 30, 90.0) is not None
    assert chance_line(errors[:2], 1000, 90.0) is not None
    # The more are looked at, the better the best of them is by chance.
    assert chance_line([87.9], 1000, 90.0) is None
    assert chance_line([87.9] * 8, 1000, 90.0) is not None


def test_where_there_is_nothing_to_judge_nothing_is_said():
    assert chance_line([], 100, 90.0) is None
    assert chance_line([90.0], 0, 90.0) is None
    assert front_noise_line([], 100, "finalise.recipe") is None
    assert front_noise_line([5.0], 100, "finalise.recipe") is None
    assert front_noise_line([5.0, 50.0], 0, "finalise.recipe") is None


@pytest.mark.parametrize("members", [2, 8])
@pytest.mark.parametrize("error", [5.0, 50.0])
def test_equal_networks_pass_for_different_as_rarely_as_the_level_says(members: int, error: float):
    rng = np.random.default_rng(1)
    errors = 100 * rng.binomial(2000, error / 100, (2000, members)) / 2000
    passed = np.mean(
        [front_noise_line(row.tolist(), 2000, "finalise.recipe") is None for row in errors]
    )
    assert passed <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 2000)


def test_a_front_of_different_networks_is_told_from_one_of_noise():
    assert front_noise_line([10.0, 11.0, 20.0], 1000, "finalise.recipe") is None
    assert front_noise_line([10.0, 11.0, 12.0], 200, "finalise.recipe") is not None
    assert front_noise_line([0.0, 0.0], 200, "finalise.recipe") is not None


def test_partial_trainings_are_compared_with_full_ones_of_the_same_architecture():
    def trials(partial: list[float], full: list[float]) -> list[Trial]:
        one = Trial(number=0, genotype=(0,), arch_id="", seed=0)
        judged = [
            replace(one, arch_id=str(i), fidelity=0.1, values={"error": error})
            for i, error in enumerate(partial)
        ]
        trained = [
            replace(one, arch_id=str(i), values={"error": error}) for i, error in enumerate(full)
        ]
        return [*judged, *trained]

    errors = [float(i) for i in range(12)]
    alike = agreement_line(trials(errors, errors), "error")
    assert alike is not None
    assert "12 architectures is 1.00" in alike
    opposite = agreement_line(trials(errors, errors[::-1]), "error")
    assert opposite is not None
    assert "is -1.00" in opposite
    # One exchange of neighbours: tau is 1 - 4 / (12 * 11), and its interval is Fieller's.
    exchanged = agreement_line(trials(errors, [1.0, 0.0, *errors[2:]]), "error")
    assert exchanged is not None
    low, high = np.tanh(np.arctanh(1 - 4 / 132) + np.array([-1, 1]) * 1.96 * np.sqrt(0.437 / 8))
    assert f"0.97 (95 % interval {low:.2f} to {high:.2f})" in exchanged
    # Not judged before, failed, or too few.
    assert agreement_line(trials([], errors), "error") is None
    assert agreement_line(trials(errors, errors[:7]), "error") is None
    failed = [
        replace(t, values={}, failure="diverged: nan") if t.full else t
        for t in trials(errors, errors)
    ]
    assert agreement_line(failed, "error") is None
