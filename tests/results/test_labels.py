from __future__ import annotations

from typing import Any

import pytest

from nas.results.labels import device_label


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (None, ""),
        ("cpu", "cpu"),
        ({"name": "cpu", "threads": 1}, "cpu, 1 thread"),
        ({"name": "cpu", "threads": 4}, "cpu, 4 threads"),
        (
            {"name": "remote", "address": "pi:7000", "target": {"name": "cpu", "threads": 4}},
            "cpu, 4 threads at pi:7000",
        ),
        (
            {"name": "ray_node", "node": "pi", "address": "auto", "target": {"name": "gpu"}},
            "gpu at pi",
        ),
    ],
)
def test_a_device_is_named_with_its_place(device: Any, expected: str) -> None:
    assert device_label(device) == expected
