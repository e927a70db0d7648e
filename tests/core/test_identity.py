"""An identity depends on values, not on how they were written."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.core.files import hashed
from nas.core.space import Architecture


@dataclass(frozen=True)
class Widths:
    widths: Any = (1, 2)


@dataclass(frozen=True)
class Depths:
    widths: Any = (1, 2)


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ([2, 4, 6], [2.0, 4.0, 6.0]),
        ([2, 4], (2, 4)),
        ((2, (4,)), [2.0, [np.int64(4)]]),
        ([0.5, 1.0], np.array([0.5, 1.0])),
        (0.0, -0.0),
        (True, np.bool_(True)),
        (0.1, np.float64(0.1)),
        ({"a": 1, "b": 2}, {"b": np.int32(2), "a": 1.0}),
        ({"a": {3: 1}}, {"a": {3.0: 1}}),
        (Path("a/b"), "a/b"),
        (Widths((1, 2)), Widths([1.0, np.int8(2)])),
    ],
)
def test_equal_values_are_hashed_alike(value: object, same: object):
    assert hashed(value, 16) == hashed(same, 16)
    assert hashed([{"x": value}], 16) == hashed(({"x": same},), 16)


def test_other_values_are_hashed_otherwise():
    values = [
        None,
        True,
        False,
        0,
        1,
        0.5,
        "1",
        "",
        "nan",
        float("nan"),
        float("inf"),
        -float("inf"),
        [],
        [1],
        [[1]],
        {},
        {"a": None},
        [1, 2],
        [12],
        Widths(),
        Depths(),
        1 << 60,
        (1 << 60) + 1,
    ]
    for one, other in itertools.combinations(values, 2):
        assert hashed(one, 16) != hashed(other, 16), (one, other)


def test_what_json_has_no_form_for_is_refused():
    with pytest.raises(TypeError, match="object"):
        hashed([object()], 16)


def test_an_arch_id_is_the_same_in_every_release():
    # Ledgers, measurements and exported networks are found by it.
    assert Architecture("x", (1, 2)).arch_id == "0dd46a7c94cb"
    assert Architecture("x", (np.int64(1), 2)).arch_id == "0dd46a7c94cb"
    assert Architecture("x", (12,)).arch_id != "0dd46a7c94cb"
