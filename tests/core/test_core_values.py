from __future__ import annotations

import dataclasses
import json
import pickle
import re

import numpy as np
import pytest

from nas.core.errors import CandidateFailure, ConfigError, HwnasError, UnknownNameError
from nas.core.measurement import Measurement
from nas.core.recipe import (
    FAMILIES,
    PRESETS,
    SCALINGS,
    SCHEDULES,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
)
from nas.core.trial import Trial, full_trainings


def test_a_config_error_says_what_got_expected_and_fix():
    error = ConfigError("search.evaluations", 0, "1 or more", "raise it")
    assert str(error) == "search.evaluations: got 0, expected 1 or more; raise it"
    assert str(ConfigError("a", "b", "c")) == "a: got 'b', expected c"
    assert isinstance(error, HwnasError)


def test_an_unknown_name_lists_the_valid_ones_sorted():
    error = UnknownNameError("device", "board", ["npu", "cpu"])
    assert str(error) == "device: got 'board', expected one of cpu, npu"


def test_an_error_travels_between_processes_with_its_class_and_line():
    error = UnknownNameError("device", "board\n", ["npu", "cpu"])
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(arrived) is UnknownNameError
    assert (str(arrived), arrived.argument) == (str(error), "device")


def test_a_candidate_s_failure_travels_between_processes():
    failure = pickle.loads(pickle.dumps(CandidateFailure("timeout", "after 3 s")))  # noqa: S301
    assert (failure.cause, failure.detail, str(failure)) == (
        "timeout",
        "after 3 s",
        "timeout: after 3 s",
    )
    assert not isinstance(failure, HwnasError)
    with pytest.raises(ValueError, match="'bored' is not one of"):
        CandidateFailure("bored", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1),
        ("train_samples", 0),
        ("batch_size", 0),
        ("patience", 0),
        ("ema", 1.0),
        ("balance", "some"),
        ("preset", "slow"),
        ("optimizer.name", "adam"),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.momentum", 1.0),
        ("optimizer.weight_decay", -1e-4),
        ("optimizer.layer_decay", 0.0),
        ("optimizer.clip_norm", 0.0),
        ("schedule.name", "step"),
        ("schedule.warmup", 1.0),
        ("augmentation.policy", "auto"),
        ("augmentation.shift", 1.0),
        ("augmentation.crop", 0.0),
        ("augmentation.mixup", -0.1),
        ("augmentation.erase", 1.1),
        ("regularisation.label_smoothing", 1.0),
        ("regularisation.drop_path", 1.0),
        ("teacher.weight", 0.0),
        ("teacher.temperature", 0.0),
        ("teacher.temperature", 1e-30),
        ("teacher.temperature", 1e30),
        ("compute.precision", "fp8"),
        ("compute.accumulate", 0),
    ],
)
def test_a_wrong_recipe_is_named(name: str, value: object):
    part, _, field = name.rpartition(".")
    values = {field: value, **({"source": "space:largest"} if part == "teacher" else {})}
    with pytest.raises(ConfigError, match=re.escape(f"recipe.{name}: got {value!r}")):
        Recipe.of(**({part: values} if part else values))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leads_back(preset: str, family: str):
    recipe = Recipe.of(preset, family)
    assert Recipe.of(**dataclasses.asdict(recipe)) == recipe


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_learning_rate_rises_to_its_peak_and_falls_to_nothing(name: str):
    schedule = ScheduleSettings(name=name, warmup=0.2)
    shares = [schedule.share(i / 1000) for i in range(1001)]
    peak = shares.index(max(shares))
    assert max(shares) == pytest.approx(1)
    assert 190 <= peak <= 210
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[-1] == pytest.approx(0, abs=1e-9)


def test_learning_rates_grow_with_the_batch_as_they_are_told():
    rates = [OptimizerSettings(learning_rate=0.1, scaling=s).rate(256) for s in SCALINGS]
    assert rates == pytest.approx([0.4, 0.2, 0.1])


def test_a_measurement_reports_the_quiet_percentile_and_the_rest_beside_it():
    samples = tuple(np.random.default_rng(0).permutation(np.arange(1.0, 102.0)))
    measurement = Measurement(
        samples_ms=samples,
        relative_ci=0.01,
        peak_memory_mb=None,
        protocol={"rounds": 5},
        device={"name": "cpu"},
        environment={"load": None},
    )
    assert (measurement.latency_ms, measurement.median_ms, measurement.p95_ms) == (11, 51, 96)
    assert measurement.relative_iqr == pytest.approx(50 / 51)
    stored = json.loads(json.dumps(measurement.to_dict()))
    assert stored["latency_ms"] == 11
    assert Measurement.from_dict(stored) == measurement


def test_a_trial_is_complete_unless_it_failed():
    trial = Trial(number=0, genotype=(), arch_id="x", seed=0)
    assert trial.complete
    assert not Trial(number=0, genotype=(), arch_id="x", seed=0, failure="crashed: y").complete


def test_a_training_that_goes_on_costs_the_difference():
    made = [("a", 0.1), ("b", 0.1), ("a", 0.33), ("a", 1.0), ("c", 1.0)]
    trials = [
        Trial(number=number, genotype=(), arch_id=arch_id, seed=0, fidelity=fidelity)
        for number, (arch_id, fidelity) in enumerate(made)
    ]
    assert full_trainings(trials) == pytest.approx(2.1)
    assert [trial.full for trial in trials] == [False, False, False, True, True]
