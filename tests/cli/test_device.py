"""`nas device list` and `nas device measure`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from nas_command import Ended
from torch import nn

import nas.devices
from nas.core.measurement import Measurement
from nas.devices import runtimes
from nas.network.onnx import export_onnx

Here = Callable[..., Ended]
FAST = ("min_rounds=36", "min_seconds=0", "relative_ci=1", "block_ms=0.5", "warmup_seconds=0.01")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    return export_onnx(network, (3, 8, 8), tmp_path_factory.mktemp("model") / "small.onnx")


def test_list_says_what_is_here_and_what_installs_the_rest(
    here: Here, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runtimes.component("openvino"), "package", "openvino_is_missing")
    record = json.loads(here("device", "list", "--json").stdout)
    assert {each["device"] for each in record["devices"]} == set(nas.devices.names())
    by_name = {each["runtime"]: each for each in record["runtimes"]}
    assert set(by_name) == set(runtimes.names())
    assert by_name["onnxruntime"]["version"] == onnxruntime.__version__
    assert "cpu" in by_name["onnxruntime"]["providers"]
    assert by_name["onnxruntime"]["precisions"] == ["fp32", "int8"]
    assert by_name["torch"]["precisions"] == ["fp32"]
    assert by_name["openvino"]["version"] is None
    assert "pip install 'hwnas[openvino]'" in by_name["openvino"]["install"]
    assert record["host"]["cpu_model"]
    table = here("device", "list").stdout
    assert all(name in table for name in (*runtimes.names(), *nas.devices.names()))
    assert "pip install 'hwnas[openvino]'" in table


def test_measure_prints_a_measurement(here: Here, model: Path):
    ended = here("device", "measure", str(model), "threads=2", *FAST)
    assert ended.returncode == 0, ended.stderr
    facts = dict(line.split(None, 1) for line in ended.stdout.splitlines() if len(line.split()) > 1)
    for name in ("median_ms", "p95_ms", "peak_memory_mb", "model_size_mb"):
        assert float(facts[name]) >= 0
    assert "95 % interval" in facts["latency_ms"]
    assert facts["threads"].strip() == "2"
    assert facts["provider"].strip() == "CPUExecutionProvider"
    assert float(facts["model_size_mb"]) == pytest.approx(model.stat().st_size / 1e6, rel=1e-3)


def test_measure_as_json_is_a_measurement(here: Here, model: Path):
    ended = here("device", "measure", str(model), "precision=int8", *FAST, "--json")
    measurement = Measurement.from_dict(json.loads(ended.stdout))
    assert measurement.device["precision"] == "int8"
    assert measurement.environment["calibration"] == "16 random images"


def test_mistakes_are_one_line(here: Here, model: Path, tmp_path: Path):
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"this is not a model")
    dynamic = tmp_path / "dynamic.onnx"
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        nn.Conv2d(3, 4, 3),
        (torch.zeros(2, 3, 8, 8),),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        verbose=False,
    ).save(str(dynamic))
    for arguments, expected in (
        (["missing.onnx"], "missing.onnx: cannot be read (No such file or directory)"),
        ([str(garbage)], "garbage.onnx: is no ONNX file"),
        ([str(dynamic)], "export it with fixed sizes and batch 1"),
        ([str(model), "thread=2"], "device.thread"),
        ([str(model), "threads=two"], "device.threads: got 'two', expected a whole number"),
        ([str(model), "threads"], "NAME=VALUE"),
        ([str(model), "runtime=tflite"], "device.runtime: got 'tflite'"),
        (
            [str(model), "runtime.provider=cuda"],
            "device.runtime.provider: got 'cuda', expected one of",
        ),
        ([str(model), "runtime=torch"], "expected the network as an nn.Module"),
        ([str(model), "--device", "toaster"], "device: got 'toaster', expected one of cpu, "),
    ):
        ended = here("device", "measure", *arguments)
        assert ended.returncode == 2, arguments
        assert expected in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert ended.stdout == ""
