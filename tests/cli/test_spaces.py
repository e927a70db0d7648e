"""`nas spaces` and `nas show`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nas_command import Ended
from PIL import Image

import search_spaces

Here = Callable[..., Ended]


def test_every_preset_is_listed_with_its_size(here: Here):
    records = json.loads(here("spaces", "--json").stdout)
    assert {record["space"] for record in records} == set(search_spaces.names())
    for record in records:
        cls = search_spaces.component(record["space"])
        if cls.pretrained:
            assert record["size"] is None
            continue
        presets = {preset.name: preset.settings for preset in cls.presets()}
        space = search_spaces.get(record["space"], **presets[record["preset"]])
        assert record["size"] == space.size
        assert record["references"] == sorted(space.references())
    table = here("spaces").stdout
    assert all(record["preset"] in table for record in records)


def test_a_network_is_printed_and_drawn(here: Here, tmp_path: Path):
    drawing = tmp_path / "network.png"
    ended = here("show", "mobilenet", "mobilenet_v2", "--out", str(drawing))
    assert ended.returncode == 0, ended.stderr
    assert "3,504,872" in ended.stdout
    assert "300,774,272" in ended.stdout
    assert ended.stdout.splitlines()[-1] == str(drawing)
    width, height = Image.open(drawing).size
    assert min(width, height) > 300


def test_a_network_as_a_record(here: Here):
    ended = here("show", "mobilenet", "mobilenet_v2", "--json")
    record = json.loads(ended.stdout)
    assert sum(block["params"] for block in record["blocks"]) == 3_504_872
    assert record["params_m"] == 3.504872
    text = ",".join(map(str, record["genotype"]))
    again = here("show", "mobilenet", text, "--preset", "mobilenet_v2", "--json")
    assert json.loads(again.stdout) == record
    first = here("show", "mobilenet", text, "--json")  # of the first preset with so many genes
    assert json.loads(first.stdout)["genotype"] == record["genotype"]


def test_settings_change_the_space(here: Here):
    ended = here("show", "nasbench201", "0,1,2,3,4,3", "num_classes=7", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["blocks"][-1]["output_shape"] == [7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nets", "0"), "search space: got 'nets', expected one of "),
        (("show", "mobilenet", "v9"), "network of mobilenet: got 'v9', expected a reference ("),
        (("show", "nasbench201", "0,1"), "genotype: got 2 genes, expected 6"),
        (("show", "nasbench201", "0,1,2,3,4,9"), "got 9, expected an index 0..4 into ['none'"),
        (("show", "nasbench201", "0,0,0,0,0,0", "--preset", "x"), "preset of nasbench201: got 'x'"),
        (("show", "nasbench201", "0,0,0,0,0,0", "colour=3"), "search_space.colour: got 3"),
        (("show", "nasbench201", "0,0,0,0,0,0", "colour"), "setting: got 'colour', expected NAME="),
        (
            ("show", "nasbench201", "0,0,0,0,0,0", "widths=[1"),
            "setting: got 'widths=[1', expected NAME=",
        ),
        (("show", "nasbench201", "0,0,0,0,0,0", "--import", "not_there"), "imports: got"),
        (("show", "nasbench201", "1,1,1,1,1,1", "--out", "no/where.png"), "no/where.png: cannot"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(here: Here, arguments: tuple[str, ...], message: str):
    ended = here(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("nas: ")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
