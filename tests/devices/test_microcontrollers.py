"""Microcontrollers: what tools say without the hardware, and that it is never called measured."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nas.devices
import search_spaces
from nas.core.errors import ConfigError, DeviceError, ExportError
from nas.core.files import json_values
from nas.core.measurement import Deployable, Device, ImageArray, Measurement, PreparedNetwork
from nas.core.space import Genotype
from nas.devices import tflm
from nas.devices.cortex_m_project import method, write_project
from nas.devices.measuring import runtime
from nas.network.space import SearchSpace

SHAPE = (3, 16, 16)
U85 = {"accelerator": "ethos-u85-256", "system_config": "Ethos_U85_SYS_Flash_High"}


@pytest.mark.parametrize(
    ("name", "fields", "setting"),
    [
        ("mcu", {"code_kb": -1.0}, "code_kb"),
        ("ethos_u", {"accelerator": "ethos-u99-1"}, "accelerator"),
        ("ethos_u", {"accelerator": "ethos-u85-256"}, "system_config"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    name: str, fields: dict[str, object], setting: str
) -> None:
    with pytest.raises(ConfigError, match=f"device.{setting}"):
        nas.devices.get(name, **fields)


@pytest.mark.parametrize("name", ["mcu", "ethos_u"])
def test_a_package_that_is_missing_is_asked_for_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_installed_version", lambda package: None)
    with pytest.raises(DeviceError, match=r"pip install 'hwnas\[mcu\]'"):
        nas.devices.get(name).identity()


def test_qemu_asks_for_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"device\.tflm: got .*a clone of"):
        nas.devices.get("qemu_cortex_m", tflm=str(tmp_path))
    (tmp_path / "tensorflow/lite/micro").mkdir(parents=True)
    device = nas.devices.get("qemu_cortex_m", tflm=str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="make is not installed; apt-get install make"):
        device.identity()
    assert set(device.estimated) == {"latency_ms", "sram_kb", "flash_kb"}
    assert "one instruction a cycle" in device.estimated["latency_ms"]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("CONV_2D", "Conv2D"),
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2D"),
        ("FULLY_CONNECTED", "FullyConnected"),
        ("ADD", "Add"),
    ],
)
def test_operators_are_called_as_the_resolver_calls_them(operator: str, expected: str) -> None:
    assert method(operator) == expected


def test_a_project_holds_the_network_and_replaces_only_a_project(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    image = np.zeros((1, 2, 2, 1), np.int8)
    for model in (b"\x01\x02", b"\x03\xff"):
        write_project(model, ["MEAN", "CONV_2D", "CONV_2D"], 1000, image, folder)
    assert "3, 255};" in (folder / "model.cc").read_text()
    main, makefile = ((folder / name).read_text() for name in ("main.cc", "Makefile"))
    assert "MicroMutableOpResolver<2>" in main
    assert "resolver.AddConv2D();" in main
    assert "KERNELS := conv reduce kernel_util" in makefile
    assert "$(wildcard $(MICRO)/*.cc" in makefile
    (folder / "mine.txt").write_text("")
    with pytest.raises(ExportError, match=r"holds mine\.txt"):
        write_project(b"", [], 1, image, folder)


def test_they_say_what_they_tell_and_by_which_tool() -> None:
    mcu, ethos_u = nas.devices.get("mcu", code_kb=64.0), nas.devices.get("ethos_u", **U85)
    assert set(mcu.estimated) == {"sram_kb", "flash_kb"}
    assert set(ethos_u.estimated) == {"latency_ms", "sram_kb", "flash_kb"}
    assert not mcu.times
    assert ethos_u.times
    assert nas.devices.get("cpu").times
    assert "64 KB" in mcu.estimated["flash_kb"]
    for text in ethos_u.estimated.values():
        assert "Vela" in text
    assert "Ethos_U85_SYS_Flash_High" in ethos_u.estimated["latency_ms"]


def test_what_is_no_network_in_8_bits_is_one_line(tmp_path: Path) -> None:
    device = nas.devices.get("mcu")
    with pytest.raises(DeviceError, match=r"a \.tflite file"):
        device.measure_files([tmp_path / "model.onnx"], SHAPE)
    with pytest.raises(
        DeviceError, match="choice 'precision': got 'fp32', expected precision int8"
    ):
        device.prepare([Deployable(nn.Identity(), {"precision": "fp32"})], SHAPE, tmp_path)


def test_measured_and_estimated_share_no_column() -> None:
    common = {"relative_ci": 0.0, "protocol": {}, "device": {}, "environment": {}}
    figures = {"samples_ms": (2.0,), "peak_memory_mb": 1.024, "flash_mb": 2.048}
    measured = Measurement(**common, **figures)
    estimated = Measurement(**common, **figures, estimated_by="vela 5.2.0")
    assert not measured.columns.keys() & estimated.columns.keys()
    assert estimated.columns == {
        "latency_ms_estimated": 2.0,
        "sram_kb_estimated": 1000.0,
        "flash_kb_estimated": 2000.0,
    }


def test_an_estimate_without_time_is_kept() -> None:
    common = {"relative_ci": 0.0, "protocol": {}, "device": {}, "environment": {}}
    told = Measurement(**common, samples_ms=(), peak_memory_mb=0.1, estimated_by="tflite-micro 1")
    assert math.isnan(told.latency_ms)
    assert told.columns["latency_ms_estimated"] is None
    record = json.loads(json.dumps(json_values(told.to_dict())))
    assert Measurement.from_dict(record) == told
    # What is measured has samples, and older records do not know of estimates.
    with pytest.raises(KeyError):
        Measurement.from_dict(record | {"estimated_by": ""})
    older = {n: x for n, x in record.items() if n not in ("flash_mb", "estimated_by")}
    assert Measurement.from_dict(older | {"samples_ms": [1.0]}).estimated_by == ""


class TestTools:
    """One network, converted and given to both tools."""

    pytestmark = pytest.mark.slow

    @pytest.fixture(scope="class")
    def space(self) -> SearchSpace:
        sizes = {"stage_channels": (16, 24), "stage_strides": (1, 2), "max_depth": 1}
        return search_spaces.get(
            "mobilenet", input_shape=SHAPE, num_classes=10, resolutions=(16,), **sizes
        )

    @pytest.fixture(scope="class")
    def genotype(self, space: SearchSpace) -> Genotype:
        return space.canonical([n - 1 for n in space.cardinalities])

    @pytest.fixture(scope="class")
    def images(self) -> ImageArray:
        return np.random.default_rng(0).standard_normal((8, *SHAPE), dtype=np.float32)

    @pytest.fixture(scope="class")
    def network(self, space: SearchSpace, genotype: Genotype, images: ImageArray) -> nn.Module:
        """An untrained network, whose batch statistics are those of the images."""
        torch.manual_seed(0)
        network = space.build(genotype)
        with torch.no_grad():
            for _ in range(50):
                network.train()(torch.from_numpy(images))
        return network.eval()

    @pytest.fixture(scope="class")
    def file(
        self, network: nn.Module, images: ImageArray, tmp_path_factory: pytest.TempPathFactory
    ) -> PreparedNetwork:
        try:
            nas.devices.get("ethos_u").identity()
        except DeviceError as error:
            pytest.skip(str(error))
        folder = tmp_path_factory.mktemp("prepared")
        return nas.devices.get("mcu").prepare([network], SHAPE, folder, images)[0]

    def test_the_head_of_the_arena_is_as_planned(
        self, space: SearchSpace, genotype: Genotype, file: PreparedNetwork
    ) -> None:
        arena = tflm.arena(file.path, SHAPE)
        assert arena.head_bytes == 1024 * space.arena_kb([genotype])[0]
        assert arena.tail_bytes > 0

    def test_memory_and_flash_of_a_microcontroller(self, file: PreparedNetwork) -> None:
        (told,) = nas.devices.get("mcu", code_kb=50.0).measure_files([file], SHAPE)
        arena = tflm.arena(file.path, SHAPE)
        assert told.columns == {
            "latency_ms_estimated": None,
            "sram_kb_estimated": pytest.approx((arena.head_bytes + arena.tail_bytes) / 1024),
            "flash_kb_estimated": pytest.approx(file.path.stat().st_size / 1024 + 50),
        }
        assert told.estimated_by.startswith("tflite-micro")

    @pytest.mark.parametrize("fields", [{}, U85], ids=["u55", "u85"])
    def test_vela_says_the_same_every_time(
        self, file: PreparedNetwork, fields: dict[str, str]
    ) -> None:
        device: Device = nas.devices.get("ethos_u", **fields)
        first, again = device.measure_files([file, file], SHAPE)
        assert first.columns == again.columns
        assert all(value is not None and value > 0 for value in first.columns.values())
        assert first.environment["nn_macs"] > 0

    def test_it_answers_as_pytorch_does(
        self, file: PreparedNetwork, network: nn.Module, images: ImageArray
    ) -> None:
        (found,) = nas.devices.get("mcu").outputs(file, [images])
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        assert 0 < np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()

    def test_in_qemu_it_answers_as_tensorflow_lite_micro_does(
        self, file: PreparedNetwork, tmp_path: Path
    ) -> None:
        if "HWNAS_TFLM" not in os.environ:
            pytest.skip("HWNAS_TFLM names no clone of tensorflow/tflite-micro")
        from tflite_micro.python.tflite_micro.runtime import Interpreter

        device = nas.devices.get("qemu_cortex_m", tflm=os.environ["HWNAS_TFLM"])
        image = np.random.default_rng(1).integers(-128, 128, (1, 16, 16, 3)).astype(np.int8)
        interpreter = Interpreter.from_file(str(file.path), arena_size=1 << 24)
        interpreter.set_input(image, 0)
        interpreter.invoke()
        arena = tflm.arena(file.path, SHAPE)
        found, flash_bytes = device.answer(file.path, image, 1 << 20)
        assert found["outputs"] == interpreter.get_output(0)[0].tolist()
        # With pointers of 32 bits the tail is smaller.
        assert arena.head_bytes < found["arena_used_bytes"]
        assert found["arena_used_bytes"] < arena.head_bytes + arena.tail_bytes
        assert flash_bytes > file.path.stat().st_size
        first, again = device.measure_files([file, file], SHAPE)
        assert first.columns == again.columns
        assert first.environment["instructions"] > first.environment["ticks"] > 0

    def test_images_of_another_shape_are_refused(self, file: PreparedNetwork) -> None:
        with pytest.raises(DeviceError, match=r"takes int8 of shape \[1, 16, 16, 3\]"):
            nas.devices.get("mcu").measure_files([file], (3, 8, 8))
