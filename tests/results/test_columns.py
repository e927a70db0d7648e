from __future__ import annotations

from typing import Any

import pytest
from made_up_studies import TASK

from nas.results.columns import columns_of, device_label, verified_names

RECORD = {"task": TASK, "columns": {}}


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


def test_every_metric_of_the_task_has_columns() -> None:
    metrics = [{"name": "error", "unit": "%"}, {"name": "pixel_error", "unit": "px"}]
    record = {"task": {"name": "segmentation", "metrics": metrics}, "columns": {}}
    of_task = columns_of(record)
    assert of_task["pixel_error_test"].label() == "test pixel error (px)"
    assert of_task["error_final_fp32"].table_heading() == "val. error fp32 %"
    assert of_task["latency_ms_measured"] == columns_of(RECORD)["latency_ms_measured"]
    assert columns_of(RECORD)["error"].label() == "validation error in the search (%)"
    # Tables show, besides the error, the metrics that the study is about.
    assert not of_task["pixel_error_test"].table_heading()
    sought = columns_of({**record, "columns": {"pixel_error": "pixel_error"}})
    assert sought["pixel_error_test"].table_heading() == "test pixel error px"


def test_labels_say_what_a_number_is() -> None:
    known = columns_of(RECORD)
    measured = known["latency_ms_measured_fp32"]
    assert measured.label("cpu, 1 thread") == "measured latency in fp32 on cpu, 1 thread (ms)"
    assert known["params_m"].label("cpu") == "parameters (M)"
    assert known["latency_ms_predicted"].table_heading() == "predicted ms"
    assert {"error_test_refit", "latency_ms_measured_ci", "model_size_mb"} <= set(
        verified_names(RECORD)
    )
    assert "error" not in verified_names(RECORD)
