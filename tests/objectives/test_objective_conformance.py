"""What every objective must keep; a new one is tested because it is registered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from whole_costs import costs_of

import search_spaces
from nas import objectives
from nas.core.objective import Facts, Objective
from nas.core.prediction import FloatArray, LatencyPredictor, MemoryPredictor, Prediction
from nas.core.space import Genotype
from nas.network.space import SearchSpace

METRICS = {"error": 12.5, "stored_size_mb": 0.4}


class PerGene(LatencyPredictor):
    """A hundredth of a millisecond for every choice beyond the first."""

    def predict(self, genotypes: Sequence[Genotype]) -> Prediction:
        mean_ms = np.array([0.1 + 0.01 * sum(genotype) for genotype in genotypes])
        return Prediction(mean_ms=mean_ms, std_ms=0.02 * mean_ms)

    def held_out_errors(self) -> FloatArray:
        return np.zeros(1)

    def save(self, path: Path) -> None:
        pass  # objectives never save a predictor


class MemoryPerGene(MemoryPredictor):
    """A tenth of a megabyte for every choice beyond the first."""

    def predict_mb(self, genotypes: Sequence[Genotype]) -> FloatArray:
        return np.array([1 + 0.1 * sum(genotype) for genotype in genotypes])

    def held_out_errors(self) -> FloatArray:
        return np.zeros(1)

    def save(self, path: Path) -> None:
        pass  # objectives never save a predictor


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return search_spaces.get("mobilenet", input_shape=(1, 8, 8), num_classes=10)


@pytest.fixture(scope="module")
def genotypes(space: SearchSpace) -> list[Genotype]:
    rng = np.random.default_rng(0)
    largest = space.canonical([n - 1 for n in space.cardinalities])
    return [space.canonical([0] * len(space.genes)), space.sample(rng), largest]


@pytest.fixture
def facts(space: SearchSpace) -> Facts:
    memory = MemoryPerGene()
    return Facts(space.costs, PerGene(), memory, published_ms, sram=memory, flash=memory)


def published_ms(genotypes: Sequence[Genotype]) -> FloatArray:
    """A hundredth of a millisecond for every choice beyond the first."""
    return PerGene().predict(genotypes).mean_ms


@pytest.fixture(params=objectives.names())
def objective(request: pytest.FixtureRequest) -> Objective:
    return objectives.get(request.param)


def test_values_come_before_or_after_training_and_never_both(
    objective: Objective, facts: Facts, genotypes: list[Genotype]
):
    before = objective.before_training(genotypes, facts)
    if before is None:
        assert np.isfinite(objective.after_training(METRICS))
    else:
        assert before.shape == (3,)
        assert np.isfinite(before).all()
        assert (before > 0).all()
        with pytest.raises(KeyError, match="known before training"):
            objective.after_training(METRICS)


def test_costs_grow_with_the_architecture(
    objective: Objective, facts: Facts, genotypes: list[Genotype]
):
    before = objective.before_training(genotypes, facts)
    if before is not None:
        assert before[0] < before[1] < before[2]


def test_names_say_what_is_predicted(objective: Objective):
    name = objectives.registry.settings(objective)["name"]
    assert objective.unit
    assert objective.column.startswith(name)
    assert objective.column in (name, f"{name}_predicted")
    if objective.needs_calibration:
        assert objective.column == f"{name}_predicted"


def test_no_two_objectives_share_a_column():
    columns = [objectives.get(name).column for name in objectives.names()]
    assert len(set(columns)) == len(columns)


def test_an_objective_that_needs_a_predictor_or_a_table_says_so(
    objective: Objective, space: SearchSpace, genotypes: list[Genotype]
):
    alone = Facts(space.costs, None)
    if objective.needs_calibration:
        with pytest.raises(TypeError, match="predictor"):
            objective.before_training(genotypes, alone)
    elif objective.needs_table:
        with pytest.raises(TypeError, match="table"):
            objective.before_training(genotypes, alone)
    else:
        objective.before_training(genotypes, alone)


def test_units(space: SearchSpace, facts: Facts, genotypes: list[Genotype]):
    def value(name: str) -> float:
        values = objectives.get(name).before_training(genotypes[1:2], facts)
        assert values is not None
        return float(values[0])

    costs = costs_of(space, genotypes[1])
    assert value("params_m") == costs.params / 1e6
    assert value("macs_m") == costs.macs / 1e6
    nbytes = costs.model_bytes + costs.peak_activation_bytes
    assert value("peak_memory_mb") == pytest.approx(1 + 0.1 * sum(genotypes[1]))
    assert value("counted_memory_mb") == pytest.approx(nbytes / 1e6, rel=1e-12)
    for name in ("sram_kb", "flash_kb"):
        assert value(name) == pytest.approx(value("peak_memory_mb") * 1e6 / 1024)
    assert value("latency_ms") == pytest.approx(0.1 + 0.01 * sum(genotypes[1]))
    assert objectives.get("error").after_training(METRICS) == 12.5
