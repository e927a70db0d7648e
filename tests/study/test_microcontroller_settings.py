"""Which objectives a device that a tool estimates may have."""

from __future__ import annotations

import pytest

from nas.core.errors import ConfigError
from nas.study.composition import compose
from nas.study.reading import read
from nas.study.settings import StudySettings


def read_with(*overrides: str) -> StudySettings:
    return read(compose(["data=digits", *overrides]))


@pytest.mark.parametrize(
    ("device", "objective"),
    [
        ("mcu", "latency_ms"),  # which says no time
        ("mcu", "peak_memory_mb"),
        ("ethos_u", "peak_memory_mb"),
        ("cpu", "sram_kb"),
        ("cpu", "flash_kb"),
        ("table", "flash_kb"),
    ],
)
def test_what_a_device_does_not_tell_is_refused(device: str, objective: str) -> None:
    with pytest.raises(ConfigError, match=rf"search\.objectives: got '{objective}'"):
        read_with(f"device={device}", f"search.objectives=[error,{objective}]")


@pytest.mark.parametrize("device", ["mcu", "ethos_u"])
def test_memory_and_flash_are_predicted_in_a_search_and_estimated_at_its_end(device: str) -> None:
    limits = "search.constraints=['flash_kb <= 1024']"
    used = read_with(f"device={device}", "search.objectives=[error,sram_kb]", limits).used
    for name in ("sram_kb", "flash_kb"):
        assert used[name].column == f"{name}_predicted"
        assert used[name].verified_column == f"{name}_estimated"
        assert used[name].needs_calibration


def test_estimated_latency_is_the_objective_where_a_tool_tells_it() -> None:
    objective = read_with("device=ethos_u").objectives["latency_ms"]
    assert objective.column == "latency_ms_predicted"
    assert objective.measured_column == objective.verified_column == "latency_ms_estimated"
    assert read_with("device=cpu").objectives["latency_ms"].verified_column == (
        "latency_ms_measured"
    )
