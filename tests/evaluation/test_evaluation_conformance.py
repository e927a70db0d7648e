"""What every evaluator's settings must keep; a new one is tested because it is registered."""

from __future__ import annotations

import pytest

from nas import evaluation
from nas.core.errors import ConfigError
from nas.core.recipe import Recipe
from nas.evaluation import EvaluationSettings


@pytest.fixture(params=evaluation.names())
def settings(request: pytest.FixtureRequest) -> EvaluationSettings:
    return evaluation.get(request.param)


def test_settings_lead_back(settings: EvaluationSettings):
    stored = evaluation.registry.settings(settings)
    # A recipe is no component of its own; whoever reads settings builds it.
    for name in {"recipe", "stand_alone"} & stored.keys():
        stored[name] = Recipe.of(**stored[name])
    assert evaluation.get(**stored) == settings


def test_a_cluster_that_is_not_there_is_refused(settings: EvaluationSettings):
    expected = r"ray\.address: got 'nonsense'"
    with pytest.raises(ConfigError, match=expected), settings.connected("nonsense"):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 0),
        ("threads_per_worker", 0),
        ("time_limit_s", 0.0),
        ("gpus_per_worker", -0.5),
        ("gpus_per_worker", 1.5),
    ],
)
def test_a_wrong_setting_of_training_is_named(name: str, value: float):
    with pytest.raises(ConfigError, match=rf"evaluation\.{name}: got {value}"):
        evaluation.get("training", **{name: value})


def test_gpus_are_shared_or_whole():
    for gpus in (0, 0.25, 1, 2.0):
        assert evaluation.get("training", gpus_per_worker=gpus).gpus_per_worker == gpus
