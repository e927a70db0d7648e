"""`MODEL_CARD.md`: the facts about an exported network on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nas.core.measurement import QUIET_PERCENTILE, Measurement
from nas.core.task import DETAILS
from nas.export.record import title

_SECTIONS = {"dataset": "data", "training": "training", "teacher": "teacher", "study": "study"}
_MOST_OUTPUTS_LISTED = 20
_MOST_CLASSES_LISTED = 10

_LOADING = """\
## Loading

What the network sees in images, with NumPy, ONNX Runtime and Pillow:

    python predict.py IMAGE ...

{files}| ONNX file | inputs | outputs |
| --- | --- | --- |
{interfaces}

ONNX Runtime, one image at a time:

```python
import numpy as np
import onnxruntime

pixels = np.zeros((1, {shape}), np.uint8)  # the image
mean = np.array({mean}, np.float32).reshape(1, -1, 1, 1)
std = np.array({std}, np.float32).reshape(1, -1, 1, 1)
images = (pixels.astype(np.float32) / np.float32({scale}) - mean) / std
session = onnxruntime.InferenceSession("{onnx}", providers=["CPUExecutionProvider"])
outputs = session.run(["outputs"], {{"images": images}})[0]
```

PyTorch, any number of images, in this folder:

```python
import torch

import model

pixels = torch.zeros(1, {shape}, dtype=torch.uint8)  # the images
with torch.inference_mode():
    outputs = model.load()(model.preprocess(pixels))
```

{reading}"""

_DEPLOYED = """\
`{file}` is what the device runs: latency, memory and errors above are of it.
`model.onnx` is the network in fp32. So is `model.py`, unless layers have a precision of their own:
then it rounds as they do.

"""


def model_card(
    record: Mapping[str, Any],
    measurement: Measurement | None,
    labels: Mapping[str, str],
    details: Mapping[str, Any],
    files: Mapping[str, tuple[str, str]],
) -> str:
    """Return the model card as Markdown; facts that were not handed in are left out.

    `record` is the network's `architecture.json`, `labels` say what a figure is, with its unit,
    `details` are those of the test split; see `Task.details`. `files` are inputs and outputs of the
    ONNX files, by name.
    """
    figures = record["figures"]
    parts = [f"# {title(record)}", _opening(record)]
    parts += [text for text in (_summary(figures, measurement),) if text]
    parts += [_loading(record, files), _limits(record)]
    if figures:
        parts.append("## Figures\n\n" + _table(figures, labels))
    if "recall_percent" in details:
        parts.append("## Classes on the test split\n\n" + _classes(details))
    if measurement is not None:
        measured = [*_measured(measurement), *_against_fp32(measurement, figures)]
        what = "estimated" if measurement.estimated_by else "measured"
        parts.append(f"## Latency and memory, {what}\n\n" + _list(measured))
    for key, value in record["provenance"].items():
        parts.append(f"## Appendix: {_SECTIONS.get(key, key)}\n\n" + "\n".join(_bullets(value)))
    if measurement is not None:
        how = "what was estimated" if measurement.estimated_by else "how latency was measured"
        parts.append(f"## Appendix: {how}\n\n" + _list(_protocol(measurement)))
    return "\n\n".join(parts) + "\n"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _summary(figures: Mapping[str, float], measurement: Measurement | None) -> str:
    """Return in sentences how well and how fast the network is, as far as that is known."""
    sentences = []
    if (error := figures.get("error_test")) is not None:
        images = figures.get("test_images")
        of = "" if images is None else f" of {images:.0f} images"
        sentences.append(f"Its error on the test split{of} is {error:.2f} %.")
    if measurement is not None and measurement.estimated_by:
        sentences += _estimated(measurement)
    elif measurement is not None:
        facts = measurement.environment
        where = facts.get("cpu_model") or measurement.device.get("name") or "the device"
        by = f", by {facts['runtime']}" if facts.get("runtime") else ""
        latency = f"{measurement.latency_ms:.4g} ms ± {measurement.ci_ms:.2g} ms"
        sentences.append(f"One image takes {latency} on {where}{by}.")
    return " ".join(sentences)


def _opening(record: Mapping[str, Any]) -> str:
    channels, height, width = record["input_shape"]
    names = record["outputs"]
    listed = ", ".join(names) if len(names) <= _MOST_OUTPUTS_LISTED else "see architecture.json"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"Network found by hardware-aware architecture search. Input: {channels} x "
        f"{height} x {width} (channels, height, width). Output: {len(names)} numbers ({listed}).\n"
        f"\nExported with {versions}."
    )


def _against_fp32(measurement: Measurement, figures: Mapping[str, float]) -> Iterator[str]:
    """Yield the latency before quantisation, and whether that was lower."""
    fp32_ms = figures.get("latency_ms_measured_fp32")
    if fp32_ms is None:
        return
    ci_ms = figures["latency_ms_measured_fp32_ci"]
    slower = measurement.latency_ms - measurement.ci_ms > fp32_ms + ci_ms
    verdict = ": **slower quantised than in fp32**" if slower else ""
    yield f"in fp32 on the same device: {fp32_ms:.4g} ms ± {ci_ms:.2g} ms{verdict}"


def _estimated(measurement: Measurement) -> Iterator[str]:
    """Yield what a tool has said, as sentences."""
    place = f"{measurement.device['name']}, as {measurement.estimated_by} estimates"
    texts = {
        "latency_ms_estimated": "One image takes {:.4g} ms on {}.",
        "sram_kb_estimated": "It takes {:.4g} KiB of SRAM on {}.",
        "flash_kb_estimated": "It takes {:.4g} KiB of flash on {}.",
    }
    for name, value in measurement.columns.items():
        if value is not None:
            yield texts[name].format(value, place)


def _measured(measurement: Measurement) -> Iterator[str]:
    if measurement.estimated_by:
        yield from _estimated(measurement)
        return
    yield (
        f"latency of one image: {measurement.latency_ms:.4g} ms ± {measurement.ci_ms:.2g} ms "
        f"(percentile {QUIET_PERCENTILE} of {len(measurement.samples_ms)} samples, "
        "95 % confidence interval)"
    )
    yield f"median {measurement.median_ms:.4g} ms, 95th percentile {measurement.p95_ms:.4g} ms"
    if measurement.peak_memory_mb is not None:
        yield f"peak memory above the runtime's own: {measurement.peak_memory_mb:.4g} MB"


def _protocol(measurement: Measurement) -> Iterator[str]:
    for name in ("device", "protocol", "environment"):
        facts = _flat(getattr(measurement, name))
        if facts:
            yield f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts)


def _table(figures: Mapping[str, float], labels: Mapping[str, str]) -> str:
    named = ((labels.get(name, name.replace("_", " ")), value) for name, value in figures.items())
    rows = [f"| {label} | {value:.6g} |" for label, value in named]
    return "\n".join(["| figure | value |", "| --- | ---: |", *rows])


def _classes(details: Mapping[str, Any]) -> str:
    """Return the recall of the classes, the worst ones first."""
    recall = details["recall_percent"]
    known = sorted((value, name) for name, value in recall.items() if value is not None)
    listed = known[:_MOST_CLASSES_LISTED]
    rows = [f"| {name} | {value:.2f} |" for value, name in listed]
    lines = ["| class | recall (%) |", "| --- | ---: |", *rows, ""]
    if len(listed) < len(known):
        lines.append(f"These are the {len(listed)} worst of {len(known)} classes.")
    if absent := [name for name, value in recall.items() if value is None]:
        lines.append(f"Without test images: {', '.join(absent[:_MOST_CLASSES_LISTED])}.")
    return "\n".join([*lines, f"`{DETAILS}` has all of it, and the confusion matrix."])


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


def _loading(record: Mapping[str, Any], files: Mapping[str, tuple[str, str]]) -> str:
    preprocessing = record["preprocessing"]
    deployed = record["deployed"] and record["deployed"]["file"]
    return _LOADING.format(
        files=_DEPLOYED.format(file=deployed) if deployed else "",
        interfaces="\n".join(f"| `{file}` | {' | '.join(ends)} |" for file, ends in files.items()),
        onnx=deployed if deployed and deployed.endswith(".onnx") else "model.onnx",
        shape=", ".join(map(str, record["input_shape"])),
        mean=preprocessing["mean"],
        std=preprocessing["std"],
        scale=preprocessing["scale"],
        reading=record["reading"],
    )


def _limits(record: Mapping[str, Any]) -> str:
    channels, height, width = record["input_shape"]
    difference = record["onnx_max_abs_difference"]
    lines = [
        f"- Images have {channels} x {height} x {width} values; bring others to that size as the "
        "training images were. ONNX files take as many a call as the table says.",
        "- `images` are pixels that are preprocessed as above; `pixels` are not preprocessed.",
        f"- Outputs of `model.onnx` and `model.py` differ by {difference:.2g} at most on the images"
        f" that were compared{', without quantisation' if record['deployed'] else ''}.",
    ]
    if "measurement" in record:
        lines.append("- Latency and memory hold for the device and protocol of the appendix alone.")
    return "## Limits\n\n" + "\n".join(lines)
