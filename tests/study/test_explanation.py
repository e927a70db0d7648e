"""What a change of one gene would do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import search_spaces
from nas.core.errors import HwnasError
from nas.core.files import write_json_atomically
from nas.core.trial import Trial
from nas.network.space import SearchSpace
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.results.study import StudyResults
from nas.study.explanation import _changes, explain, place

SPACE = search_spaces.get("nasbench201", input_shape=(3, 16, 16), num_classes=10)
COLUMNS = {"error": "error", "params_m": "params_m", "macs_m": "macs_m"}
Build = Callable[..., StudyResults]


@pytest.fixture
def study(tmp_path: Path) -> Build:
    """Build a study of errors and parameters, whose trials are random networks."""

    def build(n: int = 12, *constraints: str, fidelity: float = 1.0) -> StudyResults:
        folder = tmp_path / "small"
        folder.mkdir()
        url = sqlite_url(folder / "ledger.db")
        objectives = ("error", "params_m")
        record = {
            "name": "small",
            "created_utc": "2030-01-02T03:04:05Z",
            "seed": 0,
            "task": {"name": "classification", "metrics": [{"name": "error", "unit": "%"}]},
            "space": search_spaces.registry.settings(SPACE),
            "objectives": list(objectives),
            "columns": COLUMNS,
            "verified_columns": COLUMNS | {"error": "error_final"},
            "constraints": list(constraints),
            "reference_point": {"error": 100.0, "params_m": 9.0},
            "genes": [gene.name for gene in SPACE.genes],
            "device": {"name": "cpu", "threads": 1},
            "ledger_url": url,
        }
        write_json_atomically(folder / "study.json", record)
        ledger = Ledger.open(url, "small", objectives, SPACE.genes)
        rng = np.random.default_rng(0)
        genotypes = list(dict.fromkeys(SPACE.sample(rng) for _ in range(2 * n)))[:n]
        costs = SPACE.costs(genotypes)
        for number, genotype in enumerate(genotypes):
            params_m = float(costs["params_m"][number])
            ledger.append(
                Trial(
                    number=number,
                    genotype=genotype,
                    arch_id=SPACE.architecture(genotype).arch_id,
                    seed=number,
                    values={"error": float(rng.uniform(0.01, 5.0)), "params_m": params_m},
                    facts={"macs_m": float(costs["macs_m"][number])},
                    seconds=1.0,
                    fidelity=fidelity if number == 0 else 1.0,
                )
            )
        return StudyResults(folder)

    return build


@pytest.mark.parametrize("name", ["nasbench201", "mobilenet"])
def test_a_change_is_of_the_gene_that_is_named(name: str) -> None:
    space: SearchSpace = search_spaces.get(name, input_shape=(3, 16, 16), num_classes=10)
    names = [gene.name for gene in space.genes]
    rng = np.random.default_rng(0)
    for start in (space.sample(rng) for _ in range(10)):
        changes = _changes(space, start)
        assert set(changes) == set(space.neighbours(start))
        places = [names.index(gene) for gene, _ in changes.values()]
        assert places == sorted(places)
        for changed, (gene, choice) in changes.items():
            i = names.index(gene)
            number = space.genes[i].choices.index(choice)
            assert space.canonical([*start[:i], number, *start[i + 1 :]]) == changed


def test_what_is_counted_is_known_and_what_is_learned_has_a_deviation(study: Build) -> None:
    opened = study()
    found, own = explain(opened, "best"), opened.pick("best")
    changes = _changes(SPACE, own["genotype"])
    assert found["params_m"].tolist() == SPACE.costs(list(changes))["params_m"].tolist()
    assert (found["params_m_std"] == 0).all()
    assert ((found["error_std"] == 0) == found["tried"]).all()
    assert (found["error"] >= 0).all()
    np.testing.assert_allclose(found["error_change"], found["error"] - own["error"])


def test_what_breaks_a_limit_is_not_on_the_front(study: Build) -> None:
    # MACs are limited and are no objective.
    opened = study(12, "macs_m < 10")
    found, own = explain(opened, "best"), opened.pick("best")
    macs_m = SPACE.costs(list(_changes(SPACE, own["genotype"])))["macs_m"].to_numpy()
    assert (macs_m >= 10).any()
    assert not found["on_front"][macs_m >= 10].any()
    front = opened.pareto(objectives=["error", "params_m"])[["error", "params_m"]].to_numpy()
    points = found[["error", "params_m"]].to_numpy()
    dominated = np.array(
        [((front <= p).all(axis=1) & (front < p).any(axis=1)).any() for p in points]
    )
    assert not dominated[macs_m >= 10].all(), "the limit excludes nothing"
    assert found["on_front"].tolist() == ((macs_m < 10) & ~dominated).tolist()


def test_a_partial_training_is_compared_with_no_full_one(study: Build) -> None:
    opened = study(fidelity=0.5)
    partial = str(opened.trials()["arch_id"][0])
    assert "not trained fully" in place(opened, partial)
    assert not explain(opened, partial).empty


def test_few_trials_teach_nothing(study: Build) -> None:
    with pytest.raises(HwnasError, match="4 full trials"):
        explain(study(4))
