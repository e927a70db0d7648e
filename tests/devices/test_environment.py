"""What is recorded of a machine, against the files of the Linux kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas import devices
from nas.core.host import usable_cores
from nas.devices.machines import RemoteDevice
from nas.devices.measuring import environment

X86 = """\
processor\t: 0
model name\t: AMD EPYC 7763 64-Core Processor
cpu MHz\t\t: 2445.424

processor\t: 1
model name\t: another
cpu MHz\t\t: 1500.000
"""
RASPBERRY = """\
processor\t: 0
BogoMIPS\t: 108.00
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment, "_CPUFREQ", tmp_path / "cpufreq")
    return tmp_path


def test_first_core_speaks_for_the_machine(machine: Path):
    (machine / "cpuinfo").write_text(X86)
    assert environment.cpu_model() == "AMD EPYC 7763 64-Core Processor"
    assert environment.cpu_mhz() == 2445.424
    assert environment.describe_host()["governor"] is None


def test_cpufreq_is_read_where_there_is_one(machine: Path):
    (machine / "cpuinfo").write_text(RASPBERRY)
    (machine / "cpufreq").mkdir()
    (machine / "cpufreq" / "scaling_cur_freq").write_text("1500000\n")
    (machine / "cpufreq" / "scaling_governor").write_text("ondemand\n")
    facts = environment.describe_host()
    assert facts["cpu_model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert facts["cpu_mhz"] == 1500.0
    assert facts["governor"] == "ondemand"


def test_machine_that_tells_nothing_has_none(machine: Path):
    facts = environment.describe_host()
    assert facts["cpu_model"]
    assert facts["cpu_mhz"] is None
    assert facts["governor"] is None
    assert facts["logical_cores"] == os.cpu_count()
    assert facts["usable_cores"] == usable_cores()


def test_threads_without_a_core_make_another_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "usable_cores", lambda: 2)
    one, two = (devices.get("cpu", threads=threads) for threads in (1, 2))
    free = [one.identity(), two.identity()]
    assert [environment.threads_line(device) for device in (one, two)] == [None, None]
    monkeypatch.setattr(environment, "usable_cores", lambda: 1)
    assert one.identity() == free[0]
    assert two.identity() not in free
    assert environment.threads_line(one) is None
    assert (environment.threads_line(two) or "").startswith("device.threads: got 2")


def test_the_cores_of_another_machine_are_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "usable_cores", lambda: 1)
    there = devices.get("cpu", threads=2).identity()
    monkeypatch.setattr(environment, "usable_cores", lambda: 64)
    monkeypatch.setattr(RemoteDevice, "_described", {"hardware": there, "runtime_version": "1"})
    line = environment.threads_line(devices.get("remote", command="ssh pi@board", threads=2))
    assert (line or "").startswith("device.threads: got 2")
