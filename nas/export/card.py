"""`MODEL_CARD.md`: the facts about an exported network on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nas.core.measurement import QUIET_PERCENTILE, Measurement
from nas.export.record import title

_LABELS = {
    "error_test": "error on the test split (%)",
    "error_test_fp32": "error on the test split in fp32 (%)",
    "test_images": "images of the test split",
    "error_final": "error on the validation split (%)",
    "error_final_fp32": "error on the validation split in fp32 (%)",
    "validation_images": "images of the validation split",
    "error": "error on the validation split after the search's training, not of these weights (%)",
    "params_m": "parameters (10^6)",
    "macs_m": "multiply-accumulate operations per image (10^6)",
    "model_size_mb": "size of the weights (10^6 bytes)",
    "peak_activation_mb": "peak memory of the activations, counted (10^6 bytes)",
    "latency_ms_predicted": "latency, predicted and not measured (ms)",
    "counted_memory_mb": "memory of weights and activations, counted (10^6 bytes)",
    "peak_memory_mb_predicted": "peak memory above the runtime's own, predicted (10^6 bytes)",
    "latency_ms_measured": "latency, measured (ms)",
    "latency_ms_measured_fp32": "latency in fp32, measured (ms)",
    "latency_ms_measured_fp32_ci": "half width of its 95 % confidence interval (ms)",
    "peak_memory_mb_measured": "peak memory above the runtime's own, measured (10^6 bytes)",
}
_SECTIONS = {"dataset": "Data", "training": "Training", "study": "Study"}
_MOST_OUTPUTS_LISTED = 20

_LOADING = """\
## Loading

{files}ONNX Runtime, one image at a time:

```python
import numpy as np
import onnxruntime

pixels = np.zeros((1, {shape}), np.uint8)  # the image
mean = np.array({mean}, np.float32).reshape(1, -1, 1, 1)
std = np.array({std}, np.float32).reshape(1, -1, 1, 1)
images = (pixels.astype(np.float32) / np.float32({scale}) - mean) / std
session = onnxruntime.InferenceSession("{onnx}", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {{"images": images}})[0]
```

PyTorch, any number of images, in this folder:

```python
import torch

import model

pixels = torch.zeros(1, {shape}, dtype=torch.uint8)  # the images
with torch.inference_mode():
    logits = model.load()(model.preprocess(pixels))
```"""

_DEPLOYED = """\
`{file}` is what the device runs: latency, memory and errors above are of this file.
`model.onnx` and `model.py` are the network in fp32.

"""


def model_card(record: Mapping[str, Any], measurement: Measurement | None) -> str:
    """Return the model card as Markdown; facts that were not handed in are left out.

    Args:
        record: The network's `architecture.json`.
        measurement: On the device, where there is one.
    """
    parts = [f"# {title(record)}", _summary(record)]
    figures = record["figures"]
    accuracy = _accuracy(figures)
    if accuracy:
        parts.append(f"## Accuracy\n\n{accuracy}")
    if measurement is not None:
        measured = [*_measured(measurement), *_against_fp32(measurement, figures)]
        lines = "\n".join(f"- {line}" for line in measured)
        parts.append(f"## Latency and memory, measured\n\n{lines}")
    if figures:
        parts.append("## Figures\n\n" + _table(figures))
    for key, value in record["provenance"].items():
        parts.append(f"## {_SECTIONS.get(key, key)}\n\n" + "\n".join(_bullets(value)))
    parts += [_loading(record), _limits(record)]
    return "\n\n".join(parts) + "\n"


def _summary(record: Mapping[str, Any]) -> str:
    channels, height, width = record["input_shape"]
    names = record["outputs"]
    listed = ", ".join(names) if len(names) <= _MOST_OUTPUTS_LISTED else "see architecture.json"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"Network found by hardware-aware architecture search. Input: {channels} x "
        f"{height} x {width} (channels, height, width). Output: {len(names)} numbers ({listed}).\n"
        f"\nExported with {versions}."
    )


def _accuracy(figures: Mapping[str, float]) -> str:
    if "error_test" not in figures:
        return ""
    count = f" of {figures['test_images']:.0f} images" if "test_images" in figures else ""
    accuracy = f"{100 - figures['error_test']:.2f} % on the test split{count}"
    if "error_test_fp32" not in figures:
        return f"{accuracy}."
    fp32 = f"{100 - figures['error_test_fp32']:.2f} %"
    return f"{accuracy}, as the device runs it; {fp32} in fp32 in PyTorch."


def _against_fp32(measurement: Measurement, figures: Mapping[str, float]) -> Iterator[str]:
    """Yield the latency before quantisation, and whether that was lower."""
    fp32_ms = figures.get("latency_ms_measured_fp32")
    if fp32_ms is None:
        return
    ci_ms = figures["latency_ms_measured_fp32_ci"]
    low_ms = measurement.latency_ms * (1 - measurement.relative_ci)
    verdict = ": **slower quantised than in fp32**" if low_ms > fp32_ms + ci_ms else ""
    yield f"in fp32 on the same device: {fp32_ms:.4g} ms ± {ci_ms:.2g} ms{verdict}"


def _measured(measurement: Measurement) -> Iterator[str]:
    latency = measurement.latency_ms
    yield (
        f"latency of one image: {latency:.4g} ms ± {latency * measurement.relative_ci:.2g} ms "
        f"(percentile {QUIET_PERCENTILE} of {len(measurement.samples_ms)} samples, "
        "95 % confidence interval)"
    )
    yield f"median {measurement.median_ms:.4g} ms, 95th percentile {measurement.p95_ms:.4g} ms"
    if measurement.peak_memory_mb is not None:
        yield f"peak memory above the runtime's own: {measurement.peak_memory_mb:.4g} MB"
    for name in ("device", "protocol", "environment"):
        facts = _flat(getattr(measurement, name))
        if facts:
            yield f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts)


def _table(figures: Mapping[str, float]) -> str:
    rows = [f"| {_LABELS.get(name, name)} | {value:.6g} |" for name, value in figures.items()]
    return "\n".join(["| figure | value |", "| --- | ---: |", *rows])


def _bullets(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [f"- {key}: {fact}" for key, fact in _flat(value)]
    return [str(value)]


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Return nested facts as dotted names and values, without those that are unknown."""
    flat: list[tuple[str, object]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat.append((prefix + name, value))
    return flat


def _loading(record: Mapping[str, Any]) -> str:
    preprocessing = record["preprocessing"]
    deployed = record["deployed"] and record["deployed"]["file"]
    return _LOADING.format(
        files=_DEPLOYED.format(file=deployed) if deployed else "",
        onnx=deployed if deployed and deployed.endswith(".onnx") else "model.onnx",
        shape=", ".join(map(str, record["input_shape"])),
        mean=preprocessing["mean"],
        std=preprocessing["std"],
        scale=preprocessing["scale"],
    )


def _limits(record: Mapping[str, Any]) -> str:
    channels, height, width = record["input_shape"]
    lines = [
        f"- The ONNX file takes one image of {channels} x {height} x {width} a call; bring others "
        "to that size as the training images were.",
        "- Pixels must be preprocessed as above; every image is assigned to a known class.",
        "- The ONNX file's logits differ from PyTorch's by "
        f"{record['onnx_max_abs_difference']:.2g} at most on the images that were compared.",
    ]
    if "measurement" in record:
        lines.append("- Latency and memory hold for the device and protocol above, for no other.")
    return "## Limits\n\n" + "\n".join(lines)
