"""The reader of energy counters, against folders laid out as the kernel documents them."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import pytest
from fast_device import cpu
from onnx_files import SHAPE, ModelFactory

from nas.devices.measuring import resources
from nas.devices.measuring.resources import gpu_name, read_energy, read_nvml, read_rapl

RANGE_UJ = 262_143_328_850
"""`max_energy_range_uj` of the example in the kernel's powercap.rst."""


def zone(powercap: Path, folder: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> None:
    path = powercap / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, with what is part of them and what is more than them."""
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl" / "enabled").write_text("1\n")
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 600_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 100_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_packages_are_counted_once(powercap: Path):
    before = read_rapl(powercap)
    zone(powercap, "intel-rapl:0", "package-0", 1_500_000)
    zone(powercap, "intel-rapl:0:0", "core", 900_000)
    zone(powercap, "intel-rapl:1", "package-1", 2_250_000)
    zone(powercap, "intel-rapl:2", "psys", 12_000_000)
    after = read_rapl(powercap)
    assert before is not None
    assert after is not None
    assert after.source == "RAPL"
    assert after.since(before) == pytest.approx(750.0)


def test_counter_that_wraps_goes_on(powercap: Path):
    zone(powercap, "intel-rapl:0", "package-0", RANGE_UJ - 200_000)
    before = read_rapl(powercap)
    zone(powercap, "intel-rapl:0", "package-0", 300_000)
    after = read_rapl(powercap)
    assert before is not None
    assert after is not None
    assert after.since(before) == pytest.approx(500.0)


def test_part_of_the_counters_is_none(powercap: Path):
    """Only root may read `energy_uj` since the PLATYPUS attack (CVE-2020-8694)."""
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert read_rapl(powercap) is None
    assert read_rapl(powercap / "no_such_folder") is None


class Nvml:
    """NVML's C interface with GPUs of our making; every function returns 0 for success."""

    def __init__(self, gpus: int, energy_mj: int, code: int = 0) -> None:
        self.gpus, self.energy_mj, self.code, self.open = gpus, energy_mj, code, 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        self.open += 1
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.open -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, count) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle) -> int:  # noqa: N802
        assert index == 0
        handle._obj.value = 7
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, energy) -> int:  # noqa: N802
        assert handle.value == 7
        energy._obj.value = self.energy_mj
        return self.code

    def nvmlDeviceGetName(self, handle, name, length: int) -> int:  # noqa: N802
        name.value = b"NVIDIA H100"
        return 0


def test_nvml_counts_the_only_gpu():
    before, after = read_nvml(Nvml(1, 5_000)), read_nvml(Nvml(1, 5_400))
    assert before is not None
    assert after is not None
    assert after.since(before) == 400.0
    assert gpu_name(Nvml(1, 0)) == "NVIDIA H100"


@pytest.mark.parametrize("nvml", [Nvml(0, 1), Nvml(2, 1), Nvml(1, 1, code=3)])
def test_no_gpu_several_or_one_that_does_not_count_is_none(nvml: Nvml):
    assert read_nvml(nvml) is None
    assert nvml.open == 0


def test_driver_that_is_not_here_is_none():
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        assert read_nvml() is None
        assert gpu_name() is None
    else:
        pytest.skip("there is a driver")


def test_provider_without_a_counter_is_none():
    assert read_energy("coreml") is None


def test_measurement_has_energy_only_where_it_is_counted(conv_model: ModelFactory):
    (measurement,) = cpu().measure_many([conv_model(1)], SHAPE, memory=True)
    counted = read_rapl() is not None
    assert (measurement.energy_mj is not None) == counted
    assert measurement.environment["energy_source"] == ("RAPL" if counted else None)


def test_worker_divides_what_was_counted_by_the_inferences(
    conv_model: ModelFactory, powercap: Path, monkeypatch: pytest.MonkeyPatch
):
    from nas.devices.measuring.worker import Worker

    worker = Worker(contextlib.ExitStack(), notice=print)
    worker.start("nas.devices.runtimes.onnxruntime", "onnxruntime", {}, {})
    worker.load(str(conv_model(1)), list(SHAPE), {})
    runs = []

    def run_for(seconds: float) -> list[float]:
        zone(powercap, "intel-rapl:0", "package-0", 1_000_000 + 40_000)
        runs.append(seconds)
        return [1.0] * 8

    monkeypatch.setattr(worker._networks[0], "run_for", run_for)
    monkeypatch.setitem(resources.ENERGY_READERS, "cpu", lambda: read_rapl(powercap))
    assert worker.energy(0, 0.5, "cpu") == {"mj": pytest.approx(5.0), "source": "RAPL"}
    assert runs == [0.5]
