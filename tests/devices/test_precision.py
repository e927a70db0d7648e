"""Eight-bit networks, which must run in eight bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from fast_device import cpu, installed
from onnx import helper
from onnx_files import SHAPE, ModelFactory

from nas.core.errors import DeviceError
from nas.core.measurement import Deployable
from nas.devices import runtimes
from nas.devices.measuring.runtime import Execution, random_images

QUANTISED_KERNELS = {"onnxruntime": {"QLinearConv"}, "openvino": {"Convolution i8"}}


@pytest.fixture(params=QUANTISED_KERNELS)
def runtime(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


def test_quantised_kernels_really_run(runtime: str, conv_model: ModelFactory):
    device = cpu(runtime=runtime, precision="int8")
    (measurement,) = device.measure_many([conv_model(3)], SHAPE, memory=True)
    assert measurement.environment["operators"].keys() >= QUANTISED_KERNELS[runtime] or (
        any("Convolution u8" in each for each in measurement.environment["operators"])
    )
    assert measurement.device["precision"] == "int8"
    assert measurement.environment["calibration"] == "16 random images"
    assert measurement.latency_ms > 0


def test_given_images_are_used_and_recorded(runtime: str, conv_model: ModelFactory):
    images = np.random.default_rng(0).standard_normal((5, *SHAPE), dtype=np.float32)
    device = cpu(runtime=runtime, precision="int8")
    (measurement,) = device.measure_many([conv_model(3)], SHAPE, images=images)
    assert measurement.environment["calibration"] == "5 images that were given"


def test_file_that_is_deployed_is_the_small_one(linear_model: ModelFactory):
    model = linear_model(4.0)
    (full,) = cpu().measure_many([model], SHAPE)
    (small,) = cpu(precision="int8").measure_many([model], SHAPE)
    assert full.model_size_mb == pytest.approx(model.stat().st_size / 1e6)
    assert small.model_size_mb == pytest.approx(full.model_size_mb / 4, rel=0.05)


def test_fp32_file_under_the_name_of_int8_is_refused(conv_model: ModelFactory, runtime: str):
    """A file that comes from elsewhere is checked where it is measured."""
    device = cpu(runtime=runtime, precision="int8")
    with pytest.raises(
        DeviceError, match=r"conv2.onnx: runs no quantised operator.*precision fp32"
    ):
        device.measure_files([conv_model(2)], SHAPE)


def test_network_without_anything_to_quantise_is_refused(tmp_path: Path):
    graph = helper.make_graph(
        [helper.make_node("Sin", ["images"], ["logits"])],
        "model",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, (1, *SHAPE))],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "sin.onnx")
    with pytest.raises(
        DeviceError, match=r"sin.onnx: has no operator that can be .*\(it has Sin\)"
    ):
        cpu(precision="int8").measure_many([tmp_path / "sin.onnx"], SHAPE)


def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, conv_model: ModelFactory, unknown_operator_model: Path
):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is not a model")
    dynamic = conv_model(1, ("batch", *SHAPE), name="dynamic.onnx")
    for path, expected in (
        (broken, "ONNX Runtime refuses it"),
        (unknown_operator_model, "Frobnicate"),
        (dynamic, r"has inputs of shape .*'batch'.*expected one of the fixed shape"),
    ):
        with pytest.raises(
            DeviceError, match=rf"{path.name}: cannot be quantised.*{expected}"
        ) as e:
            cpu(precision="int8").measure_many([path], SHAPE)
        assert "\n" not in str(e.value)


def test_images_of_another_shape_are_refused(conv_model: ModelFactory):
    images = np.zeros((4, 1, 2, 2), np.float32)
    with pytest.raises(
        DeviceError, match=r"calibration images: got shape \(4, 1, 2, 2\), expected"
    ):
        cpu(precision="int8").measure_many([conv_model(1)], SHAPE, images=images)


def test_quantised_logits_are_close(conv_model: ModelFactory, tmp_path: Path):
    model = conv_model(3)
    images = np.random.default_rng(1).standard_normal((32, *SHAPE), dtype=np.float32)
    (prepared,) = cpu(precision="int8").prepare([model], SHAPE, tmp_path, images)
    image = random_images((1, *SHAPE))
    logits = [
        runtimes.get("onnxruntime").load(file, image, Execution()).run(image).ravel()
        for file in (model, prepared.path)
    ]
    assert np.corrcoef(*logits)[0, 1] > 0.99
    assert not np.array_equal(*logits)


def test_quantised_file_is_not_quantised_again(conv_model: ModelFactory, tmp_path: Path):
    device = cpu(precision="int8")
    (once,) = device.prepare([conv_model(2)], SHAPE, tmp_path)
    assert device.prepare([once.path], SHAPE, tmp_path) == [once]


def test_quantised_file_from_elsewhere_is_measured_as_it_is(
    runtime: str, conv_model: ModelFactory, tmp_path: Path
):
    device = cpu(runtime=runtime, precision="int8")
    model = onnx.load(device.prepare([conv_model(2)], SHAPE, tmp_path)[0].path)
    model.ClearField("metadata_props")
    onnx.save(model, tmp_path / "elsewhere.onnx")
    (measurement,) = device.measure_many([tmp_path / "elsewhere.onnx"], SHAPE)
    assert measurement.environment["calibration"] == "not said in the file"


PRECISIONS = ("fp32", "int8")


@pytest.mark.parametrize("genotype", [(0, 1), (1, 0)])
def test_precision_may_be_a_gene(
    runtime: str, genotype: tuple[int, ...], conv_model: ModelFactory, tmp_path: Path
):
    """A network's own choices stand before the device's settings, in every record of it."""
    models = [
        Deployable(conv_model(layers), {"precision": PRECISIONS[gene]})
        for layers, gene in zip((2, 3), genotype, strict=True)
    ]
    device = cpu(runtime=runtime)
    prepared = device.prepare(models, SHAPE, tmp_path)
    for gene, measurement in zip(genotype, device.measure_files(prepared, SHAPE), strict=True):
        assert measurement.device["precision"] == PRECISIONS[gene]
        assert ("calibration" in measurement.environment) == bool(gene)
    batch = random_images((2, *SHAPE))
    outputs = [next(device.outputs(each, [batch])) for each in prepared]
    (plain,) = device.prepare([conv_model((2, 3)[genotype.index(1)])], SHAPE, tmp_path)
    [exact] = device.outputs(plain, [batch])
    assert not np.array_equal(outputs[genotype.index(1)], exact)


@pytest.mark.parametrize("choices", [{"precision": "int3"}, {"exits": 2}, {"threads": 2}])
def test_choice_that_a_device_lacks_is_refused(
    choices: dict[str, object], conv_model: ModelFactory
):
    (name,) = choices
    with pytest.raises(DeviceError, match=rf"conv1.onnx: .*{name}.*expected one of"):
        cpu().measure_many([Deployable(conv_model(1), choices)], SHAPE)
