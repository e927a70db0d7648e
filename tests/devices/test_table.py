"""Devices that are columns of a published table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

import nas.devices
from nas import tables
from nas.core.errors import ConfigError, DeviceError
from nas.core.measurement import Device

TABLE = tables.get("nasbench201")


@pytest.fixture
def device() -> Device:
    return nas.devices.get("table", hardware="raspi4")


def test_it_has_the_published_latencies(device: Device):
    assert device.published_ms is not None
    published = device.published_ms(TABLE.genotypes)
    np.testing.assert_array_equal(published, TABLE.latency_ms("raspi4"))


def test_it_says_whose_numbers_these_are(device: Device):
    identity = device.identity()
    assert identity["hardware"] == "raspi4"
    assert identity["unit"] == "ms"
    assert identity["latency_ms"] == "published latency on raspi4, measured"
    assert "HW-NAS-Bench" in identity["source"]
    fpga = nas.devices.get("table", hardware="fpga")
    assert fpga.published["latency_ms"] == "published latency on fpga, estimated"


def test_it_measures_nothing(device: Device, tmp_path: Path):
    with pytest.raises(DeviceError, match="raspi4 is a column of the published table"):
        device.measure(nn.Identity(), (3, 32, 32))
    with pytest.raises(DeviceError, match="choose a device that is there"):
        device.measure_files([tmp_path / "model.onnx"], (3, 32, 32))


def test_an_unknown_device_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"device\.hardware: got 'pixel9'.*eyeriss.*raspi4"):
        nas.devices.get("table", hardware="pixel9")


def test_another_device_publishes_nothing():
    cpu = nas.devices.get("cpu")
    assert cpu.published_ms is None
    assert not cpu.published
