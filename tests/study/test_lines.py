"""Lines for people: what a number counts, where an interval has no end, what was meant."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nas.core.errors import HwnasError, UnknownNameError, counted, did_you_mean
from nas.core.output import tell
from nas.core.records import decoding
from nas.search.adaptive_measurement import MeasuredCandidate
from nas.study.calibration import adaptive_measurement_line


@pytest.mark.parametrize("low_ms", [0.0, 0.5])
def test_an_interval_without_an_end_is_none(low_ms: float) -> None:
    candidate = MeasuredCandidate(
        number=0,
        genotype=(0,),
        arch_id="a1",
        reason="constraint",
        predicted_ms=1.25,
        low_ms=low_ms,
        high_ms=math.inf,
        failure="no answer",
    )
    line = adaptive_measurement_line(candidate)
    assert "1.25 ms" in line
    assert "inf" not in line


def test_one_is_no_plural() -> None:
    assert counted(1, "network") == "1 network"
    assert counted(0.25, "network") == "0.25 networks"
    assert counted(1_000_000, "network") == "1000000 networks"


def test_a_similar_name_is_offered_and_no_other() -> None:
    assert did_you_mean("evaluation", ["evaluations", "stop"]) == "did you mean 'evaluations'?"
    assert did_you_mean("colour", ["evaluations", "stop"]) == ""
    error = UnknownNameError("search.evaluation", "evaluation", ["evaluations"], got=3)
    assert "got 3" in str(error)
    assert "'evaluations'" in str(error)


def test_an_error_is_one_line_of_printable_text(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\nb\x00c\x1b[31mé")
    assert capsys.readouterr().err == "nas: a b\\x00c\\x1b[31mé\n"


@pytest.mark.parametrize("path", [Path("study.json"), Path("../study.json")])
def test_a_file_of_a_relative_folder_is_named(path: Path) -> None:
    with pytest.raises(HwnasError) as refused, decoding(path):
        raise HwnasError("got 0.5 ..., expected 1")
    assert str(refused.value).startswith(f"{path}: got 0.5")
