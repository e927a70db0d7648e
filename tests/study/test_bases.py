"""The network that a search space changes, as a configuration names it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nas import data
from nas.core.errors import ConfigError
from nas.core.files import write_json_atomically
from nas.study.bases import check_base, with_base

TASK = data.get("digits").search_splits().task


def base_in(folder: Path, outputs: list[str], mean: float = 0.3) -> SimpleNamespace:
    preprocessing = {"mean": [mean], "std": [0.4], "image_size": [8, 8], "scale": 16.0}
    record = {"outputs": outputs, "preprocessing": preprocessing}
    write_json_atomically(folder / "network.json", record)
    return SimpleNamespace(base=str(folder))


def test_a_base_of_other_classes_is_refused(tmp_path: Path) -> None:
    classes = list(TASK.output_names)
    assert check_base(base_in(tmp_path, classes), TASK, (0.3,), (0.4,)) is None
    for others in (classes[::-1], classes[1:]):
        with pytest.raises(ConfigError, match="classes"):
            check_base(base_in(tmp_path, others), TASK, (0.3,), (0.4,))


def test_it_is_said_that_a_base_has_seen_other_images(tmp_path: Path) -> None:
    said = check_base(base_in(tmp_path, list(TASK.output_names), 0.5), TASK, (0.3,), (0.4,))
    assert said is not None
    assert "0.500" in said


def test_the_module_of_a_base_is_imported() -> None:
    values = {"search_space": {"name": "compressed", "base": "bases:net"}, "imports": ["mine"]}
    assert with_base(values) == values
    assert "bases" in sys.modules
    with pytest.raises(ConfigError, match=r"search_space\.base"):
        with_base({"search_space": {"base": "there_is_none:net"}})
    assert with_base({"search_space": {"name": "vit"}}) == {"search_space": {"name": "vit"}}
