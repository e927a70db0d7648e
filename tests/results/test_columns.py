from __future__ import annotations

from typing import Any

import pytest
from made_up_studies import TASK

from nas.results.columns import VERIFIED, columns_of, device_label


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (None, ""),
        ("cpu", "cpu"),
        ({"name": "cpu", "threads": 1}, "cpu, 1 thread"),
        ({"name": "cpu", "threads": 4}, "cpu, 4 threads"),
        (
            {"name": "remote", "command": "ssh pi@board", "threads": 4},
            "remote (ssh pi@board), 4 threads",
        ),
        (
            {"name": "ray_node", "node": "pi", "address": "auto", "threads": 1},
            "ray_node (pi), 1 thread",
        ),
    ],
)
def test_a_device_is_named_with_its_place(device: Any, expected: str) -> None:
    assert device_label(device) == expected


def test_the_columns_of_errors_are_those_of_the_task() -> None:
    metric = {"name": "pixel error", "unit": "px", "larger_is_better": False, "about": ""}
    of_task = columns_of({"task": {"name": "segmentation", "metrics": [metric], "trivial": 1.0}})
    assert of_task["error_test"].label() == "test pixel error (px)"
    assert of_task["error_final_fp32"].table_heading() == "val. pixel error fp32 px"
    assert of_task["latency_ms_measured"] == columns_of({"task": TASK})["latency_ms_measured"]
    assert columns_of({"task": TASK})["error"].label() == "validation error in the search (%)"


def test_labels_say_what_a_number_is() -> None:
    known = columns_of({"task": TASK})
    measured = known["latency_ms_measured_fp32"]
    assert measured.label("cpu, 1 thread") == "measured latency in fp32 on cpu, 1 thread (ms)"
    assert known["params_m"].label("cpu") == "parameters (M)"
    assert known["latency_ms_predicted"].table_heading() == "predicted ms"
    assert {"error_test_refit", "latency_ms_measured_ci", "model_size_mb"} <= set(VERIFIED)
    assert "error" not in VERIFIED
