from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fast_device import cpu
from onnx_files import SHAPE, ModelFactory
from torch import nn

import nas.devices
from nas.core.errors import ConfigError
from nas.core.host import LEASE_FOLDER_VARIABLE
from nas.core.measurement import Device, Measurement


def test_devices_are_the_files_of_the_room():
    assert set(nas.devices.names()) >= {"cpu", "gpu"}
    assert all(issubclass(nas.devices.component(name), Device) for name in nas.devices.names())


def test_torch_network_is_measured_whole(tmp_path: Path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    )
    measurement = cpu().measure(network, (3, 8, 8))
    assert network.training
    assert len(measurement.samples_ms) >= 36
    assert min(measurement.samples_ms) > 0
    assert measurement.latency_ms <= measurement.median_ms <= measurement.p95_ms
    assert measurement.relative_ci >= 0
    assert measurement.device == {
        "name": "cpu",
        "runtime": "onnxruntime",
        "provider": "cpu",
        "threads": 1,
        "allow_spinning": False,
        "graph_optimization": "all",
        "precision": "fp32",
        "execution_mode": "sequential",
        "inter_op_threads": 1,
    }
    assert measurement.protocol["latency_percentile"] == 10
    assert measurement.protocol["rounds"] == len(measurement.samples_ms)
    assert measurement.protocol["inferences_per_block"] >= 1
    environment = measurement.environment
    assert environment["provider"] == "CPUExecutionProvider"
    assert environment["threads"] == 1
    assert environment["logical_cores"] == os.cpu_count()
    for fact in ("cpu_model", "os", "hostname", "timestamp_utc", "runtime_version", "python"):
        assert environment[fact]
    assert {"cpu_mhz", "governor", "load_before", "load_after"} < set(environment)
    restored = Measurement.from_dict(json.loads(json.dumps(measurement.to_dict())))
    assert restored == measurement


def test_ten_times_the_work_is_slower(conv_model: ModelFactory):
    models = [conv_model(2), conv_model(20)]
    small, large = cpu().measure_many(models, SHAPE)
    assert large.latency_ms > 2 * small.latency_ms
    assert small.peak_memory_mb is None


def test_measure_takes_a_path_as_text(conv_model: ModelFactory):
    assert cpu().measure(str(conv_model(1)), list(SHAPE)).latency_ms > 0


def test_settings_reach_the_record(conv_model: ModelFactory):
    device = cpu(threads=2, runtime={"allow_spinning": True, "graph_optimization": "basic"})
    (measurement,) = device.measure_many([conv_model(1)], SHAPE, seed=7)
    assert measurement.device["threads"] == 2
    assert measurement.device["allow_spinning"] is True
    assert measurement.device["graph_optimization"] == "basic"
    assert measurement.protocol["seed"] == 7


def test_nothing_to_measure_is_nothing():
    assert cpu().measure_many([], SHAPE) == []


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_the_peak_memory_of_a_tiny_network_holds_nothing_else(conv_model: ModelFactory):
    """What the process loads for its own use (NumPy's generator, 2.9 MB) is not the network's."""
    [measured] = cpu().measure_many([conv_model(1)], SHAPE, memory=True)
    assert 0 <= (measured.peak_memory_mb or 0.0) < 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_grows_with_the_weights_and_repeats(linear_model: ModelFactory):
    small, large = linear_model(1.0), linear_model(11.0)
    measured = cpu().measure_many([small, large, large], SHAPE, memory=True)
    small_mb, large_mb, again_mb = (m.peak_memory_mb or 0.0 for m in measured)
    assert small_mb > 0
    assert large_mb - small_mb >= 9.5
    assert abs(large_mb - again_mb) <= 0.1 * large_mb
    assert measured[0].environment["memory_method"].startswith("VmHWM")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "int4"),
        ("threads", 0),
        ("runtime", {"graph_optimization": "most"}),
        ("relative_ci", 0),
    ],
)
def test_wrong_settings_are_named(field: str, value: Any):
    with pytest.raises(ConfigError, match=f"device.{field}"):
        nas.devices.get("cpu", **{field: value})


HOLDER = """
from nas.core.host import training_step
with training_step():
    print("held", flush=True)
    input()
"""


@pytest.mark.skipif(os.name != "posix", reason="the lease needs flock")
def test_measurement_waits_for_a_training_step(
    conv_model: ModelFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(LEASE_FOLDER_VARIABLE, str(tmp_path / "lease"))
    model, done = conv_model(1), threading.Event()

    def measure() -> None:
        cpu().measure_many([model], SHAPE)
        done.set()

    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        thread = threading.Thread(target=measure)
        thread.start()
        assert not done.wait(4)
        holder.communicate("\n")
    thread.join(120)
    assert done.is_set()


def test_input_is_the_same_every_time():
    from nas.devices.measuring.runtime import random_images

    assert np.array_equal(random_images((1, 3, 4, 4)), random_images((1, 3, 4, 4)))
