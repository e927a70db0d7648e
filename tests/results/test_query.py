from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nas.core.errors import ConfigError, UnknownNameError
from nas.results.query import matching

FRAME = pd.DataFrame(
    {
        "arch_id": ["a1", "b2", None, "d4"],
        "error": [5.0, 10.0, 15.0, np.nan],
        "params_m": [1.0, 0.25, 0.5, 0.1],
        "number": [0, 1, 2, 3],
        "feasible": [True, False, True, False],
        "genotype": [(0,), (1,), (2,), (3,)],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("error < 10", [0]),
        ("error <= 10 and params_m < 0.5", [1]),
        ("error < 6 or number == 3", [0, 3]),
        ("5 < error <= 15", [1, 2]),
        ("not (error < 10)", [1, 2, 3]),
        ("error == error", [0, 1, 2]),
        ("error != 5", [1, 2]),
        ("-1 < +1 > params_m", [1, 2, 3]),
        ("-1 < params_m < error", [0, 1, 2]),
        ('arch_id == "b2"', [1]),
        ('"d4" == arch_id or arch_id == "a1"', [0, 3]),
        ("arch_id == arch_id", [0, 1, 3]),
        ("feasible == 1", [0, 2]),
        ("(((number)) >= 2)", [2, 3]),
        ("1 < 2", [0, 1, 2, 3]),
        ("error < 1e999", [0, 1, 2]),
        ("accuracy_loss < 10", [0]),
        ("error < 8\n", [0]),
    ],
)
def test_matching(where: str, rows: list[int]) -> None:
    mask = matching(where, FRAME, {"accuracy_loss": "error"})
    assert np.flatnonzero(mask).tolist() == rows


@pytest.mark.parametrize(
    "where",
    [
        "",
        "error",
        "error <",
        "error < 1; error",
        "__import__('os').system('true') == 0",
        "error.__class__ == 1",
        "error[0] < 1",
        "(lambda: 1)() < 2",
        "error < 9**9**9**9",
        "error + 1 < 2",
        "error < 1 if 1 else 2",
        "[x for x in error] == 1",
        "(error := 3) < 4",
        "error in (1, 2)",
        "error is 1",
        "error < True",
        "error < None",
        "error < 1j",
        'error < "a"',
        'arch_id < "b"',
        'arch_id != "b"',
        "arch_id == 1",
        'arch_id == b"a1"',
        'arch_id == f"{error}"',
        "error < --1",
        "error \x00",
        "~(error < 1)",
        "error < " + "9" * 400,
        "not " * 120 + "error",
        "(" * 240 + "error" + ")" * 240,
        "-" * 480 + "1 < 2",
        "error < 1 " * 1000,
        "@error < 1",
        "error < 1 & number < 2",
    ],
)
def test_everything_else_is_refused_in_one_line(where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        matching(where, FRAME)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_unknown_column_lists_the_columns() -> None:
    with pytest.raises(UnknownNameError, match=r"'latency'.*error.*params_m"):
        matching("latency < 1", FRAME)


def test_empty_frame() -> None:
    assert matching("error < 1", FRAME[:0]).tolist() == []
