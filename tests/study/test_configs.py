"""Every component has a configuration file that names its settings, and the other way round."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import latency_predictors
import search_spaces
from nas import data, devices, evaluation, tables
from nas.cli.search import config_folder
from nas.core.errors import HwnasError
from nas.core.recipe import Recipe
from nas.core.registry import Registry, nested_registries
from nas.search import algorithms, fidelity
from nas.study.settings import (
    FinaliseSettings,
    GeneralSettings,
    SearchSettings,
    StudySettings,
    read,
)

REGISTRIES: dict[str, Registry[Any]] = {
    "search_space": search_spaces.registry,
    "data": data.registry,
    "device": devices.registry,
    "latency_predictor": latency_predictors.registry,
    "search": algorithms.registry,
    "fidelity": fidelity.registry,
    "evaluation": evaluation.registry,
}
GIVEN = {"input_shape", "num_classes"}
"""What the data says of every search space."""
OTHERWISE = {
    "evaluation.recipe.epochs",
    "finalise.recipe.epochs",
    "evaluation.table",
    "evaluation.dataset",
}
"""Settings whose default in the files is another one: a recipe does not know what it is for, and
what a table answers for is what the data says."""

COMPONENTS = [(group, name) for group, registry in REGISTRIES.items() for name in registry.names()]


def load(path: str) -> dict[str, Any]:
    return dict(yaml.safe_load((config_folder() / path).read_text("utf-8")))


def composed(group: str, name: str) -> dict[str, Any]:
    """Return a file of a group with the files that it is composed of."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(f"{group}/{name}")
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))[group]


def default(spec: dataclasses.Field[Any]) -> Any:
    """Return a field's default in plain values; what must be given is `???` in Hydra's files."""
    if spec.default is not dataclasses.MISSING:
        return plain(spec.default)
    if spec.default_factory is not dataclasses.MISSING:
        return plain(spec.default_factory())
    return "???"


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def defaults(cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    held = {
        field: registry.settings(next(f for f in fields if f.name == field).default_factory())
        for field, registry in nested_registries(cls).items()
    }
    return {f.name: default(f) for f in fields if f.init and f.name not in GIVEN} | held


def leaves(node: Any, path: str) -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {path: node}
    pairs = [leaves(value, f"{path}.{key}") for key, value in node.items()]
    return {key: value for pair in pairs for key, value in pair.items()}


def assert_same(node: dict[str, Any], expected: dict[str, Any], path: str) -> None:
    got, wanted = leaves(node, path), leaves(expected, path)
    assert set(got) == set(wanted)
    assert {k: v for k, v in got.items() if k not in OTHERWISE} == {
        k: v for k, v in wanted.items() if k not in OTHERWISE
    }


# Taken before any test runs, because some register components of their own.
SHIPPED = {group: set(registry.names()) for group, registry in REGISTRIES.items()}


@pytest.mark.parametrize("group", REGISTRIES)
def test_files_and_components_are_the_same(group: str) -> None:
    files = {path.stem for path in (config_folder() / group).glob("*.yaml")}
    assert files == SHIPPED[group]


@pytest.mark.parametrize(("group", "name"), COMPONENTS)
def test_a_file_names_the_settings_of_its_component(group: str, name: str) -> None:
    node = composed(group, name)
    if group == "search":
        own = node.pop("algorithm")
        expected = defaults(SearchSettings)
        del expected["algorithm"]
        assert_same(node, expected, "search")
        node = own
    assert node.pop("name") == name
    assert_same(node, defaults(REGISTRIES[group].component(name)), group)


def test_what_belongs_to_no_component() -> None:
    node = load("config.yaml")
    assert_same(node["finalise"], defaults(FinaliseSettings), "finalise")
    assert set(node["finalise"]["recipe"]) == {f.name for f in dataclasses.fields(Recipe)}
    general = defaults(GeneralSettings)
    # The name of a study is that of its data unless it is given.
    assert general.pop("name") == "???"
    assert_same({key: node[key] for key in general}, general, "")


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_an_experiment_is_composed_and_names_only_what_there_is(path: Path) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=[f"experiment={path.stem}"])
        settings = read(config)
    assert settings.name == path.stem
    plain_config = load("config.yaml")
    allowed = {*plain_config, *REGISTRIES} - {"hydra"}
    assert set(load(f"experiment/{path.name}")) <= allowed


def read_with(*overrides: str) -> StudySettings:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return read(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize(
    "place", [["device=remote", "device.address=board:7000"], ["device=ray_node", "device.node=a"]]
)
def test_a_device_elsewhere_is_composed_with_the_one_that_stands_there(place: list[str]) -> None:
    settings = read_with(
        *place, "device@device.target=cpu", "device.target.threads=4", "device.job_seconds=9"
    )
    record = devices.registry.settings(settings.device)
    assert record["target"] == devices.registry.settings(devices.get("cpu", threads=4))
    assert record["job_seconds"] == 9
    assert devices.get(**record) == settings.device


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "device.target.threads=many",
            "device.target.threads: got 'many', expected a whole number",
        ),
        ("device.target.threads=0", "device.target.threads: got 0, expected 1 or more"),
        ("+device.target.legs=4", "device.target.legs: got 4, expected one of the settings"),
        ("device.target.name=cow", "device: got 'cow', expected one of"),
        ("device.address=board", "device.address: got 'board', expected HOST:PORT"),
    ],
)
def test_a_wrong_setting_of_a_component_within_is_named(override: str, expected: str) -> None:
    with pytest.raises(HwnasError) as caught:
        read_with("device=remote", "device.address=board:7000", override)
    assert str(caught.value).startswith(expected)


def test_a_device_elsewhere_needs_its_place() -> None:
    with pytest.raises(HwnasError, match=r"device\.address"):
        read_with("device=remote")


def test_every_device_of_a_table_has_a_file() -> None:
    files = {path.stem for path in (config_folder() / "device" / "table").glob("*.yaml")}
    assert files == set(tables.get("nasbench201").devices)
    for name in ("raspi4", "2080ti_32"):
        device = read_with("experiment=nasbench201", f"device=table/{name}").device
        assert device == devices.get("table", hardware=name)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["finalise.limit=2"], "finalise.limit: got 2, expected 0"),
        (["data=digits"], "data: got 'digits', expected published"),
        (["evaluation=training"], "evaluation: got 'training', expected tabular"),
        (["evaluation.dataset=cifar100"], "evaluation.dataset: got 'cifar100', expected cifar10"),
        (
            ["search_space=darts", "~search_space.merge_equal"],
            "search_space: got 'darts', expected nasbench201",
        ),
        (["search.objectives=[error,peak_memory_mb]"], "search.objectives: got 'peak_memory_mb'"),
        (
            ["device=cpu", "search.objectives=[error,latency_ms_published]"],
            "search.objectives: got",
        ),
        (["fidelity=mo_asha"], "fidelity.rungs: got 0.1, expected shares of 200 epochs"),
    ],
)
def test_what_a_table_cannot_answer_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(HwnasError) as caught:
        read_with("experiment=nasbench201", *overrides)
    assert str(caught.value).startswith(expected)


def test_published_latency_is_the_objective_where_the_device_is_a_table() -> None:
    settings = read_with("experiment=nasbench201", 'search.constraints=["latency_ms <= 9"]')
    assert settings.objectives["latency_ms"].column == "latency_ms_published"
    own = read_with("experiment=nasbench201", "device=cpu")
    assert own.objectives["latency_ms"].column == "latency_ms_predicted"
    assert read_with(
        "experiment=nasbench201", "fidelity=mo_asha", "fidelity.rungs=[0.06,1.0]"
    ).fidelity.fidelities == (0.06, 1.0)
