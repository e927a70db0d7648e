"""Every registered component is composed with its defaults; wrong settings are named."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas import devices
from nas.cli.search import explained, meanings
from nas.core.errors import HwnasError
from nas.core.registry import nested_registries
from nas.study.checking import resolved
from nas.study.composition import GROUPS, compose, config_folder, sweep
from nas.study.reading import (
    COMPONENTS,
    SECTIONS,
    completed_configuration,
    read,
    with_presets,
)
from nas.study.settings import IMAGES, StudySettings

# Taken before any test runs, because some register components of their own.
SHIPPED = [(group, name) for group, registry in GROUPS.items() for name in registry.names()]


def read_with(*overrides: str) -> StudySettings:
    return read(compose(overrides))


def required(cls: type) -> list[str]:
    return [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in IMAGES
    ]


def assert_has_defaults(cls: type, values: dict[str, Any]) -> None:
    registries = nested_registries(cls)
    for field in dataclasses.fields(cls):
        if field.name in IMAGES or not field.init:
            continue
        value = values[field.name]
        if field.name in registries:
            assert value["name"] in registries[field.name].names()
        elif field.default is not dataclasses.MISSING:
            default = field.default
            assert value == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize("experiment", ["quickstart", "fashion_mnist", "nasbench201"])
@pytest.mark.parametrize(
    "given",
    [
        ["search.reference_point={error: 30, latency_ms: 1}"],
        ["search.reference_point.error=30", "search.reference_point.latency_ms=1"],
        ["++search.reference_point.error=30", "+search.reference_point.latency_ms=1"],
    ],
)
def test_names_that_are_no_fields_are_set_under_an_experiment(
    experiment: str, given: list[str]
) -> None:
    settings = read_with(f"experiment={experiment}", *given)
    assert settings.search.reference_point == {"error": 30.0, "latency_ms": 1.0}


@pytest.mark.parametrize(("group", "name"), SHIPPED)
def test_a_component_is_composed_with_its_defaults(group: str, name: str) -> None:
    cls = GROUPS[group].component(name)
    # What must be given is text in every component that there is.
    given = {f"{group}.{field}": "board" for field in required(cls)}
    given |= {key: ["there"] for key in given if key.endswith(".sources")}
    config = compose([f"{group}={name}"], settings=given)
    complete = completed_configuration(resolved(config))
    node = complete["search"]["algorithm"] if group == "search" else complete[group]
    assert node["name"] == name
    if not given:
        assert_has_defaults(cls, node)


def test_every_setting_is_printed_with_its_meaning() -> None:
    config = compose()
    text = explained(config)
    printed = yaml.safe_load(text)
    assert printed == completed_configuration(with_presets(resolved(config)))
    for name, registry in COMPONENTS.items():
        cls = registry.component(printed[name]["name"])
        for field in printed[name]:
            if field != "name":
                assert field in meanings(cls)
    for name, cls in SECTIONS.items():
        assert set(printed[name]) == set(meanings(cls)) == {f.name for f in dataclasses.fields(cls)}
    [line] = [line for line in text.splitlines() if line.startswith("  evaluations: null")]
    assert "Full trainings at which the search ends" in line


GIVEN = {"compression": ["search_space.base=there"]}
"""Settings that an experiment leaves to its user."""


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_an_experiment_is_composed(path: Path) -> None:
    assert read_with(f"experiment={path.stem}", *GIVEN.get(path.stem, [])).name == path.stem


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_what_is_saved_of_a_study_composes_to_the_same(path: Path) -> None:
    config = read_with(f"experiment={path.stem}", *GIVEN.get(path.stem, [])).config
    again = compose([f"experiment={path.stem}"], settings=config)
    assert read(again).config == config


def test_a_folder_of_the_users_own_adds_options(tmp_path: Path) -> None:
    mine = tmp_path / "data" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("name: digits\nsplit_seed: 5\n")
    config = read(compose(["data=mine", "name=x"], config_dir=tmp_path)).config
    assert config["data"].items() >= {"name": "digits", "split_seed": 5}.items()


def test_a_sweep_is_all_combinations() -> None:
    jobs = sweep(["a=1,2", "b=x", "c=[1,2],[3]"], multirun=True)
    assert len(jobs) == 4
    assert jobs[0] == ["a=1", "b=x", "c=[1,2]"]
    with pytest.raises(HwnasError, match="multirun"):
        sweep(["a=1,2"], multirun=False)


def test_a_nested_component_is_set_within_its_holder() -> None:
    settings = read_with("device.runtime.name=openvino", "device.threads=4")
    record = devices.registry.settings(settings.device)
    assert record["runtime"]["name"] == "openvino"
    assert devices.get(**record) == settings.device


@pytest.mark.parametrize(
    ("override", "setting", "got"),
    [
        ("device.runtime.allow_spinning=many", "device.runtime.allow_spinning", "'many'"),
        ("device.runtime.legs=4", "device.runtime.legs", "4"),
        ("device.runtime.name=cow", "device.runtime", "'cow'"),
    ],
)
def test_a_wrong_setting_of_a_nested_component_is_named(
    override: str, setting: str, got: str
) -> None:
    with pytest.raises(HwnasError) as caught:
        read_with(override)
    assert str(caught.value).startswith(f"{setting}: got {got}")


def test_a_setting_without_a_default_must_be_given() -> None:
    with pytest.raises(HwnasError, match=r"device\.node"):
        read_with("device=ray_node")


@pytest.mark.parametrize("hardware", ["raspi4", "2080ti_32"])
def test_the_hardware_of_a_table_is_a_setting(hardware: str) -> None:
    device = read_with("experiment=nasbench201", f"device.hardware={hardware}").device
    assert device == devices.get("table", hardware=hardware)


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
    # The evaluator answers for the data set that is chosen.
    assert (
        read_with("experiment=nasbench201", "data.dataset=cifar100").config["evaluation"]["dataset"]
        == "cifar100"
    )
    assert read_with(
        "experiment=nasbench201", "fidelity=mo_asha", "fidelity.rungs=[0.06,1.0]"
    ).fidelity.fidelities == (0.06, 1.0)


@pytest.mark.parametrize(
    ("data", "flip"),
    [
        ({"name": "digits"}, False),
        ({"name": "fashion_mnist"}, True),
        ({"name": "image_folder", "path": "photos"}, True),
        ({"name": "npz", "path": "a.npz", "mirrors": False}, False),
    ],
)
def test_a_data_set_says_whether_its_images_may_be_mirrored(
    data: dict[str, Any], flip: bool
) -> None:
    values = with_presets(resolved(compose()) | {"data": data})
    search, final = (values[s]["recipe"]["augmentation"] for s in ("evaluation", "finalise"))
    assert search["flip"] == final["flip"] == flip
    # What makes a long training better makes a short one worse.
    assert (search["shift"], final["shift"]) == (0.0, 0.125)


def test_a_folder_in_place_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HwnasError, match=r"data=image_folder data\.path=photos"):
        read_with("data=photos")


@pytest.mark.parametrize(
    ("mistaken", "meant"),
    [
        ("path=a.npz", "data.path"),
        ("evaluations=9", "search.evaluations"),
        ("threads=2", "device.threads"),
    ],
)
def test_a_setting_without_its_section(mistaken: str, meant: str) -> None:
    with pytest.raises(HwnasError, match=rf"did you mean '{meant}'"):
        read_with("data=npz", mistaken)


def test_a_list_that_cannot_be_read_is_quoted_as_a_list() -> None:
    with pytest.raises(HwnasError) as raised:
        compose(["search.constraints=[latency_ms <= 2, params_m < 1]"])
    (suggested,) = shlex.split(str(raised.value).partition("characters: ")[2])
    constraints = read_with("search.objectives=[error,params_m]", suggested).constraints
    assert [str(limit) for limit in constraints] == ["latency_ms <= 2", "params_m < 1"]
