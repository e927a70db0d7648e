from __future__ import annotations

import math

import pytest

from nas.core.errors import ConfigError
from nas.core.objective import Constraint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency_ms <= 2", ("latency_ms", "<=", 2.0)),
        ("  latency_ms<2.5  ", ("latency_ms", "<", 2.5)),
        ("params_m >= 1e-3", ("params_m", ">=", 1e-3)),
        ("macs_m > -1", ("macs_m", ">", -1.0)),
        ("error_top5 <= +.5", ("error_top5", "<=", 0.5)),
    ],
)
def test_parse(text: str, expected: tuple[str, str, float]):
    constraint = Constraint.parse(text)
    assert (constraint.objective, constraint.relation, constraint.limit) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latency_ms",
        "latency_ms <=",
        "<= 2",
        "latency_ms = 2",
        "latency_ms == 2",
        "latency_ms <= two",
        "latency_ms <= nan",
        "latency_ms <= inf",
        "latency_ms <= 1e999",
        "latency_ms <= 2 ms",
        "2 >= latency_ms",
        "latency_ms <= 1 <= 2",
        "latency_ms <= --2",
        "latency ms <= 2",
    ],
)
def test_what_cannot_be_read_is_shown_with_the_form_expected(text: str):
    with pytest.raises(ConfigError) as caught:
        Constraint.parse(text)
    assert repr(text) in str(caught.value)
    assert "OBJECTIVE <=|<|>=|> NUMBER" in str(caught.value)


@pytest.mark.parametrize("relation", ["<=", "<", ">=", ">"])
def test_a_violation_is_positive_exactly_where_the_limit_is_not_met(relation: str):
    constraint = Constraint("x", relation, 2.0)
    for value in (1.0, math.nextafter(2.0, 0), 2.0, math.nextafter(2.0, 3), 3.0):
        kept = {"<=": value <= 2, "<": value < 2, ">=": value >= 2, ">": value > 2}[relation]
        assert constraint.met(value) == (constraint.violation(value) <= 0) == kept


def test_a_violation_grows_with_the_distance():
    assert Constraint.parse("x <= 2").violation(5) == 3
    assert Constraint.parse("x >= 2").violation(-1) == 3
    assert not Constraint.parse("x <= 2").met(math.nan)


@pytest.mark.parametrize("limit", [2.0, 0.1, 1.23456789012, 1e-9, 12345678.9, -3.0])
def test_text_reads_back_as_the_same_constraint(limit: float):
    constraint = Constraint("latency_ms", "<=", limit)
    assert Constraint.parse(str(constraint)) == constraint


def test_text_is_short():
    assert str(Constraint.parse("latency_ms<=2.0")) == "latency_ms <= 2"
