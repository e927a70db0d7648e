"""Settings of a space: mistyped ones are refused at once, the others when the data are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from bases import required
from omegaconf import DictConfig

import search_spaces
from nas.core.errors import ConfigError
from nas.core.registry import Registry, nested
from nas.core.space import Gene
from nas.network.blocks import Block
from nas.network.space import SearchSpace
from nas.study.checking import completed_component
from nas.study.composition import compose
from nas.study.reading import read, read_calibration
from nas.study.settings import StudySettings, space_of


@dataclass(frozen=True, kw_only=True)
class Colours(SearchSpace):
    """Takes images of three channels; one setting has no default."""

    depth: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_shape[0] != 3:
            raise ConfigError("data", self.input_shape, "images of three channels")

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (Gene("depth", tuple(range(self.depth))),)

    def blocks(self) -> Sequence[Block]:
        return []


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search_spaces.registry._classes, "colours", Colours)


def composed(*overrides: str) -> DictConfig:
    return compose(["name=here", *overrides])


def settings(node: dict[str, object]) -> StudySettings:
    config = composed()
    config.search_space = node
    return read(config)


def test_widths_that_differ_only_on_large_images_are_accepted():
    read_in = settings({"name": "mobilenet", "widths": [0.98, 1.0]})
    assert read_in.space((3, 224, 224), 10).widths == (0.98, 1.0)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"search_space\.widths"):
        read_in.space((1, 32, 32), 10)


def test_a_space_of_one_network_is_refused():
    chosen = {"name": "compressed", **required("compressed", (1, 12, 12), 3)}
    chosen |= {"channels": [1.0], "precisions": ["fp32"]}
    with pytest.raises(ConfigError, match="no choice"):
        space_of({"search_space": chosen}, (1, 12, 12), 3)


@pytest.mark.usefixtures("colours")
def test_a_space_that_needs_three_channels_is_accepted():
    read_in = settings({"name": "colours", "depth": 3})
    assert read_in.space((3, 8, 8), 5).cardinalities == (3,)


@pytest.mark.parametrize(
    ("node", "named"),
    [
        ({"name": "mobilenet", "widhts": [1.0]}, r"search_space\.widhts: .* widths"),
        ({"name": "mobilenet", "max_depth": "deep"}, r"search_space\.max_depth: got 'deep'"),
        ({"name": "mobilenet", "kernels": 3}, r"search_space\.kernels: got 3"),
        ({"name": "colours"}, r"search_space\.depth: got None"),
        ({"name": "mobilnet"}, "mobilnet"),
    ],
)
@pytest.mark.usefixtures("colours")
def test_a_mistyped_setting_is_refused_before_data_are_known(node: dict[str, object], named: str):
    with pytest.raises(ConfigError, match=named):
        settings(node)


def test_a_calibration_refuses_it_before_it_reads_data(tmp_path: Path):
    config = composed("data=image_folder", f"data.path={tmp_path / 'none'}")
    config.search_space = {"name": "mobilenet", "widhts": [1.0]}
    with pytest.raises(ConfigError, match=r"search_space\.widhts"):
        read_calibration(config)


@dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 1


PARTS: Registry[Part] = Registry("part", "nas.tables")
PARTS.register("part")(Part)


@dataclass(frozen=True, kw_only=True)
class Whole:
    later: int
    count: int = 1
    part: Part = nested(PARTS, "part")

    def __post_init__(self) -> None:
        raise AssertionError("it was built")


WHOLES: Registry[Whole] = Registry("whole", "nas.tables")
WHOLES.register("whole")(Whole)


@pytest.mark.parametrize(
    ("changes", "later", "argument"),
    [
        ({}, ["later"], None),
        ({}, [], "x.later"),
        ({"count": "two"}, ["later"], "x.count"),
        ({"part": {"name": "part", "size": "large"}}, ["later"], "x.part.size"),
        ({"other": 1}, ["later"], "x.other"),
    ],
)
def test_a_component_is_checked_and_not_built(
    changes: dict[str, object], later: list[str], argument: str | None
):
    node = {"name": "whole", "count": 2, "part": {"name": "part", "size": 3}, **changes}
    if argument is None:
        complete = completed_component(WHOLES, node, "x", later)
        assert complete == {"name": "whole", "count": 2, "part": {"name": "part", "size": 3}}
        return
    with pytest.raises(ConfigError) as caught:
        completed_component(WHOLES, node, "x", later)
    assert caught.value.argument == argument
