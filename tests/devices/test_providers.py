"""ONNX Runtime's wheel for processors has one other provider, which runs none of our operators."""

from __future__ import annotations

import onnxruntime
import pytest
from fast_device import FAST, cpu
from onnx_files import SHAPE, ModelFactory

import nas.devices
from nas.core.errors import DeviceError

OTHERS = {
    name.removesuffix("ExecutionProvider").lower() for name in onnxruntime.get_all_providers()
}
AVAILABLE = {
    name.removesuffix("ExecutionProvider").lower() for name in onnxruntime.get_available_providers()
}


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "coreml", "xnnpack", "qnn"])
def test_provider_that_the_build_lacks_is_refused_with_those_it_has(
    provider: str, conv_model: ModelFactory
):
    assert provider in OTHERS
    if provider in AVAILABLE:
        pytest.skip(f"the installed ONNX Runtime has {provider}")
    expected = f"device.runtime.provider: got '{provider}', expected one of .*cpu.*onnxruntime"
    with pytest.raises(DeviceError, match=expected):
        cpu(runtime={"provider": provider}).measure_many([conv_model(1)], SHAPE)


@pytest.mark.skipif("azure" not in AVAILABLE, reason="the installed ONNX Runtime has no azure")
def test_silent_fall_back_to_the_processor_is_an_error(conv_model: ModelFactory):
    expected = r"no operator runs on AzureExecutionProvider \(.* on CPUExecutionProvider\)"
    with pytest.raises(DeviceError, match=expected) as caught:
        cpu(runtime={"provider": "azure"}).measure_many([conv_model(1)], SHAPE)
    assert "conv1.onnx" in str(caught.value)


def test_gpu_asks_for_cuda(conv_model: ModelFactory):
    device = nas.devices.get("gpu", **FAST)
    assert device.identity()["provider"] == "cuda"
    assert "gpu" in device.identity()
    if "cuda" not in AVAILABLE:
        with pytest.raises(DeviceError, match=r"device.runtime.provider: got 'cuda'"):
            device.measure_many([conv_model(1)], SHAPE)


def test_provider_of_another_runtime_is_refused(conv_model: ModelFactory):
    pytest.importorskip("openvino")
    with pytest.raises(DeviceError, match=r"provider: got 'npu', expected one of .*cpu"):
        cpu(runtime={"name": "openvino", "provider": "npu"}).measure_many([conv_model(1)], SHAPE)
