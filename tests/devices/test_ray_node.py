"""Measuring on a node of a Ray cluster, here the only one, which carries the resource."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from fast_device import FAST
from onnx_files import SHAPE, ModelFactory

import nas.devices
from nas.core.errors import ConfigError, DeviceError
from nas.core.measurement import Device
from nas.devices.measuring.runtime import random_images


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=1,
        resources={"device:board": 1, "device:other": 1},
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def node(**fields: Any) -> Device:
    return nas.devices.get("ray_node", **({"node": "board"} | FAST | fields))


def failure(device: Device, files: list[Path]) -> str:
    with pytest.raises(DeviceError) as caught:
        device.measure_files(files, SHAPE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("cluster")
def test_a_measurement_on_a_node_is_the_device_there(conv_model: ModelFactory) -> None:
    device = node(threads=2)
    taken = device.measure_files([conv_model(1), conv_model(3)], SHAPE, memory=True, seed=5)
    assert all(len(m.samples_ms) >= 36 and m.peak_memory_mb is not None for m in taken)
    assert all(m.device["threads"] == 2 and m.protocol["seed"] == 5 for m in taken)
    here = nas.devices.get("cpu", **FAST, threads=2)
    assert device.identity() == here.identity() | {"name": "ray_node"}


@pytest.mark.usefixtures("cluster")
def test_outputs_are_those_of_the_node(conv_model: ModelFactory) -> None:
    batches = [random_images((2, *SHAPE)), random_images((1, *SHAPE))]
    there = list(node().outputs(conv_model(2), batches))
    here = list(nas.devices.get("cpu", **FAST).outputs(conv_model(2), batches))
    for got, expected in zip(there, here, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_the_device_is_one_line(conv_model: ModelFactory) -> None:
    line = failure(node(node="elsewhere"), [conv_model(1)])
    got = "got a cluster whose nodes carry device:board, device:other, expected device:elsewhere"
    assert line.startswith(f"Ray node elsewhere: {got}; run ray start --address=HEAD:PORT ")
    assert """--resources='{"device:elsewhere": 1}' there""" in line


@pytest.mark.usefixtures("cluster")
def test_a_bad_network_is_named_as_it_is_called_here(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is not a model")
    assert failure(node(), [broken]).startswith(f"Ray node board: {broken}: onnxruntime cannot")


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_fails_the_measurement(conv_model: ModelFactory) -> None:
    failed = threading.Event()

    def kill() -> None:
        # The first one found may be that of an earlier test, which has not ended yet.
        while not failed.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                if (process.info["cmdline"] or [""])[0].startswith("ray::MeasuringProcess"):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    line = failure(node(min_rounds=1_000_000), [conv_model(1)])
    failed.set()
    killer.join(30)
    assert line.startswith("Ray node board: ")
    assert "lost during" in line
    assert node().measure_files([conv_model(1)], SHAPE)


@pytest.mark.parametrize("name", ["", "a b", "device:x", "../x"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"device\.node: got"):
        node(node=name)


def test_no_cluster_is_one_line_and_ray_loads_only_then(conv_model: ModelFactory) -> None:
    code = (
        "import sys, pathlib, nas.devices\n"
        "device = nas.devices.get('ray_node', node='board', address='127.0.0.1:1')\n"
        "assert 'ray' not in sys.modules\n"
        "try:\n"
        f"    device.measure_files([pathlib.Path({str(conv_model(1))!r})], (8, 16, 16))\n"
        "except nas.core.errors.ConfigError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ran.stdout.startswith("ray.address: got '127.0.0.1:1', expected the address of a")
    assert (ran.stdout.count("\n"), ran.stderr) == (1, "")
