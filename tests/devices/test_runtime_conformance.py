"""Every runtime that is installed, held against PyTorch."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fast_device import cpu, installed
from torch import nn

from nas.core.errors import ConfigError, DeviceError
from nas.core.measurement import Device
from nas.devices import runtimes
from nas.devices.measuring.runtime import random_images

SHAPE = (3, 16, 16)
OWN_SETTINGS = {
    "allow_spinning": True,
    "graph_optimization": "basic",
    "provider": "cpu",
    "compiled": True,
}
HEAVY = ("torch", "onnx", "psutil", "pandas", "ray", "nas.network")
LOAD = """
import json, sys
from pathlib import Path
from nas.devices import runtimes
from nas.devices.measuring.runtime import random_images
from nas.devices.measuring.runtime import SENTINEL_SHAPE, Execution
path, name, settings = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
runtime = runtimes.get(name, **settings)
runtime.start()
images = random_images((1, 3, 16, 16))
execution = Execution(threads=int(sys.argv[4]))
network = runtime.load(path, images, execution)
first = network.run(images).tolist()
for _ in range(5):
    network.infer()
sentinel = runtime.sentinel(execution)
print("RESULT" + json.dumps({
    "first": first,
    "last": network.run(images).tolist(),
    "facts": network.inspect(),
    "sentinel": list(sentinel.run(random_images((1, *SENTINEL_SHAPE))).shape),
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(params=runtimes.names())
def runtime(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Return what mobile networks consist of, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    with torch.no_grad():
        built(torch.randn(64, *SHAPE))
    return built.eval()


def prepare(device: Device, network: nn.Module, folder: Path) -> Path:
    (prepared,) = device.prepare([network], SHAPE, folder)
    assert prepared.size_mb == prepared.path.stat().st_size / 1e6
    return prepared.path


def load(path: Path, name: str, threads: int = 1, **settings: Any) -> dict[str, Any]:
    """Run a file in a process of its own, as a measurement does."""
    command = [sys.executable, "-c", LOAD, str(path), name, json.dumps(settings), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return dict(json.loads(lines[0].removeprefix("RESULT")))


def expected_logits(network: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(random_images((1, *SHAPE)))).numpy()


@pytest.fixture(scope="module", params=runtimes.names())
def loaded(
    request: pytest.FixtureRequest, network: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Run a file with every runtime, under a name that says nothing of its form."""
    runtime, folder = installed(request.param), tmp_path_factory.mktemp("loaded")
    path = prepare(cpu(runtime=runtime), network, folder).rename(folder / "0123456789abcdef")
    return load(path, runtime, threads=2) | {"package": runtimes.component(runtime).package}


def test_logits_are_those_of_the_network_and_stay_so(loaded: dict[str, Any], network: nn.Module):
    logits = expected_logits(network)
    np.testing.assert_allclose(loaded["first"], logits, atol=1e-4 * np.abs(logits).max())
    np.testing.assert_allclose(loaded["last"], loaded["first"], rtol=1e-5)
    assert loaded["facts"]["threads"] == 2
    assert loaded["facts"]["provider"]
    assert loaded["sentinel"] == [1, 16, 32, 32]


def test_outputs_are_those_of_each_image(runtime: str, network: nn.Module, tmp_path: Path):
    device = cpu(runtime=runtime)
    images = random_images((5, *SHAPE))
    outputs = list(device.outputs(prepare(device, network, tmp_path), [images[:3], images[3:]]))
    assert [len(batch) for batch in outputs] == [3, 2]
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(
        np.concatenate(outputs), expected, atol=1e-4 * np.abs(expected).max()
    )
    with pytest.raises(DeviceError, match="shape"):
        list(device.outputs(prepare(device, network, tmp_path), [images[:, :, :8]]))


def test_measuring_needs_nothing_but_the_runtime(loaded: dict[str, Any]):
    heavy = [name for name in HEAVY if name in loaded["modules"]]
    # ExecuTorch's tensors are PyTorch's.
    own = {"executorch": "torch"}.get(loaded["package"], loaded["package"])
    assert [name for name in heavy if name != own] == []


def test_network_is_measured_whole(runtime: str, network: nn.Module):
    before = copy.deepcopy(network.state_dict())
    device = cpu(runtime=runtime, threads=2)
    measurement = device.measure(network, SHAPE)
    assert min(measurement.samples_ms) > 0
    assert measurement.peak_memory_mb is None or measurement.peak_memory_mb >= 0
    # Ten thousand bytes of weights are in the file, whatever its form.
    assert 0.002 < measurement.model_size_mb < 0.2
    assert measurement.device["runtime"] == runtime
    assert measurement.device["threads"] == 2
    assert measurement.environment["runtime"] == runtime
    assert measurement.environment["runtime_version"] == runtimes.component(runtime).version()
    assert measurement.environment["provider"]
    assert measurement.environment["threads"] == 2
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())


def test_identity_is_the_settings_the_hardware_and_the_version(runtime: str):
    identity = cpu(runtime=runtime).identity()
    assert identity == json.loads(json.dumps(identity)) == cpu(runtime=runtime).identity()
    assert identity["runtime"] == runtime
    assert identity["runtime_version"] == runtimes.component(runtime).version()
    assert identity["cpu_model"]
    assert identity != cpu(runtime=runtime, threads=2).identity()
    assert "timeout_seconds" not in identity


def test_settings_that_the_runtime_does_not_have_are_refused(runtime: str):
    record = cpu(runtime=runtime).identity()
    for name, value in OWN_SETTINGS.items():
        settings = {"name": runtime, name: value}
        if name in record:
            assert cpu(runtime=settings).identity()[name] == value
        else:
            with pytest.raises(ConfigError, match=rf"device.runtime '{runtime}'.*{name}"):
                cpu(runtime=settings)
        with pytest.raises(ConfigError, match=name):
            cpu(**{name: value})


def test_garbage_is_one_line_and_leaves_nothing_behind(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    takes = runtimes.component(runtime).takes
    garbage = tmp_path / f"garbage.{takes}"
    garbage.write_bytes(b"this is not a model" * 10)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with pytest.raises(DeviceError, match="garbage") as caught:
        cpu(runtime=runtime).measure_many([garbage], SHAPE, memory=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    # The lease's folder stays, and ONNX Runtime leaves the number of its session.
    left = {each.name for each in temporary.iterdir() if not each.name.startswith("hwnas-lease")}
    assert left <= {".ses"}


def test_other_input_is_one_line(runtime: str, network: nn.Module, tmp_path: Path):
    path = prepare(cpu(runtime=runtime), network, tmp_path)
    with pytest.raises(DeviceError, match=r"has shape \[1, 3, 16, 16\], expected \[1, 3, 8, 8\]"):
        cpu(runtime=runtime).measure_files([path], (3, 8, 8))


def test_torch_refuses_onnx_files_and_says_what_it_takes(network: nn.Module, tmp_path: Path):
    path = prepare(cpu(), network, tmp_path)
    with pytest.raises(DeviceError, match=r"expected the network as an nn.Module, or a .pt2 file"):
        cpu(runtime="torch").measure(path, SHAPE)


@pytest.mark.slow
def test_torch_compiles(network: nn.Module, tmp_path: Path):
    path = prepare(cpu(runtime="torch"), network, tmp_path)
    result = load(path, "torch", compiled=True)
    logits = expected_logits(network)
    np.testing.assert_allclose(result["first"], logits, atol=1e-4 * np.abs(logits).max())
    assert result["facts"]["provider"] == "inductor"


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, network: nn.Module):
    own = {"onnxruntime": "agent", "torch": "search"}
    extras = own | {name: name for name in ("openvino", "mnn", "ncnn")}
    for name, extra in extras.items():
        package = runtimes.component(name).package
        monkeypatch.setattr(runtimes.component(name), "package", f"{package}_is_missing")
        with pytest.raises(DeviceError, match=rf"not installed; pip install 'hwnas\[{extra}\]'"):
            cpu(runtime=name).measure(network, SHAPE)


def test_unknown_runtime_lists_those_there_are():
    with pytest.raises(
        ConfigError,
        match=f"device.runtime: got 'tflite', expected one of {', '.join(runtimes.names())}",
    ):
        cpu(runtime="tflite")


def test_precision_that_a_runtime_lacks_is_refused():
    for name in ("torch", "mnn", "ncnn"):
        with pytest.raises(
            ConfigError, match=r"device.precision: got 'int8', expected one of fp32"
        ):
            cpu(runtime=name, precision="int8")


OWN = """
from dataclasses import dataclass
from nas.devices.runtimes import register
from nas.devices.runtimes.onnxruntime import OnnxRuntime

@register("my_runtime")
@dataclass(frozen=True, kw_only=True)
class MyRuntime(OnnxRuntime):
    \"\"\"A runtime of a user's own.\"\"\"
"""


def test_runtime_of_ones_own_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: nn.Module
):
    (tmp_path / "my_runtime.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(runtimes.registry, "_classes", dict(runtimes.registry._classes))
    importlib.import_module("my_runtime")
    measurement = cpu(runtime="my_runtime").measure(network, SHAPE)
    assert measurement.device["runtime"] == "my_runtime"
