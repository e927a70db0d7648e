from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import search_spaces
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.network.space import SearchSpace
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger
from nas.study.composition import compose
from nas.study.folder import StudyFolder
from nas.study.reading import read
from nas.study.record import warm_start
from nas.study.settings import StudySettings

SHAPE = {"input_shape": (3, 32, 32), "num_classes": 10}


@pytest.fixture
def space() -> SearchSpace:
    return search_spaces.get("nasbench201", **SHAPE)


def settings(runs: Path, *names: str) -> StudySettings:
    overrides = [
        "data=digits",
        "search_space=nasbench201",
        f"runs={runs}",
        f"search.warm_start=[{','.join(names)}]",
    ]
    return read(compose(overrides))


def write_former(folder: Path, space: SearchSpace, found: dict[Genotype, tuple[float, float]]):
    folder.mkdir(parents=True)
    url = sqlite_url(folder / "ledger.db")
    ledger = Ledger.open(url, folder.name, ["error", "params_m"], space.genes)
    for number, (genotype, (error, params_m)) in enumerate(found.items()):
        values = {"error": error, "params_m": params_m}
        arch_id = space.architecture(genotype).arch_id
        ledger.append(
            Trial(number=number, genotype=genotype, arch_id=arch_id, seed=0, values=values)
        )
    record = {
        "name": folder.name,
        "created_utc": "2030-01-02T03:04:05Z",
        "task": {"name": "classification", "metrics": [{"name": "error", "unit": "%"}]},
        "space": search_spaces.registry.settings(space),
        "objectives": ["error", "params_m"],
        "columns": {"error": "error", "params_m": "params_m"},
        "verified_columns": {"error": "error_final", "params_m": "params_m"},
        "reference_point": {"error": 90.0, "params_m": 2.0},
        "ledger_url": url,
    }
    write_json_atomically(folder / "study.json", record)


def test_published_networks_and_the_front_of_a_former_study(tmp_path: Path, space: SearchSpace):
    fast, good, dominated = (space.canonical(g) for g in [(1,) * 6, (3,) * 6, (2,) * 6])
    # The classes are others, the genes are the same.
    former = search_spaces.get("nasbench201", **SHAPE | {"num_classes": 7})
    found = {fast: (40.0, 0.1), good: (6.0, 1.5), dominated: (41.0, 0.2)}
    write_former(tmp_path / "former", former, found)
    given = settings(tmp_path, "residual", "former")
    folder = StudyFolder(tmp_path / "new")
    expected = [space.references()["residual"], good, fast]
    assert warm_start(given, space, folder) == expected
    by_path = settings(tmp_path / "elsewhere", "residual", str(tmp_path / "former"))
    assert warm_start(by_path, space, folder) == expected


def test_the_neighbours_of_a_published_network(tmp_path: Path, space: SearchSpace):
    given = settings(tmp_path, "residual", '"neighbours:residual"')
    found = warm_start(given, space, StudyFolder(tmp_path / "new"))
    start = space.references()["residual"]
    assert found[0] == start
    assert len(found) == len(set(found))
    every = {space.canonical([*start[:i], c, *start[i + 1 :]]) for i in range(6) for c in range(5)}
    assert set(found) == every
    few = dataclasses.replace(given, search=dataclasses.replace(given.search, evaluations=10))
    assert warm_start(few, space, StudyFolder(tmp_path / "new")) == found[:5]


def test_references_are_all_published_networks(tmp_path: Path, space: SearchSpace):
    found = warm_start(settings(tmp_path, "references"), space, StudyFolder(tmp_path / "new"))
    assert found == [space.canonical(genotype) for genotype in space.references().values()]


def test_a_study_keeps_what_the_names_stood_for(tmp_path: Path, space: SearchSpace):
    folder = StudyFolder(tmp_path / "new")
    folder.path.mkdir()
    write_json_atomically(folder.record_path, {"warm_start": [[3] * 6]})
    assert warm_start(settings(tmp_path, "gone"), space, folder) == [(3,) * 6]


def test_an_unknown_name_lists_what_there_is(tmp_path: Path, space: SearchSpace):
    with pytest.raises(ConfigError) as caught:
        warm_start(settings(tmp_path, "resdual"), space, StudyFolder(tmp_path / "new"))
    assert str(caught.value).startswith(
        "search.warm_start: got 'resdual', expected a published network of the space (best_cifar10"
    )


def test_a_study_of_another_space_is_refused(tmp_path: Path, space: SearchSpace):
    other = search_spaces.get("darts", **SHAPE)
    write_former(tmp_path / "former", other, {other.references()["darts_v2"]: (5.0, 3.0)})
    with pytest.raises(ConfigError, match="got 'former', expected a study of the same search"):
        warm_start(settings(tmp_path, "former"), space, StudyFolder(tmp_path / "new"))
