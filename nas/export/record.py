"""`architecture.json`: what an exported network is, as plain JSON values."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nas import __version__
from nas.core.errors import ExportError
from nas.core.files import json_values
from nas.core.measurement import Measurement
from nas.core.space import Architecture
from nas.network.module import Network
from nas.network.trained import TrainedNetwork

FORMAT = "hwnas-export-5"
"""Marks a folder as an export; a later layout gets another name."""

DEPLOYED = "deployed"
"""Name of a deployed file or folder; its suffix is that of the runtime's files."""

_IDENTITY = ("arch_id", "space", "genotype", "choices")
"""Facts of the provenance that stand at the top of the record."""

_LIBRARIES = ("torch", "onnx", "onnxruntime", "safetensors", "numpy")


def architecture_record(
    trained: TrainedNetwork,
    max_abs_difference: float,
    measurement: Measurement | None,
    deployed: Path | None,
) -> dict[str, Any]:
    """Return the content of `architecture.json`.

    Args:
        trained: The network and the facts about it.
        max_abs_difference: Between the outputs of the network and of its ONNX file.
        measurement: On the device.
        deployed: The file or folder that was measured, where that is not the ONNX file.

    Raises:
        ExportError: A fact is not a plain JSON value.
    """
    preprocessing, facts = trained.preprocessing, dict(trained.provenance)
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    record: dict[str, Any] = {
        "format": FORMAT,
        **{name: facts.pop(name) for name in _IDENTITY if name in facts},
        "blocks": _blocks(trained),
        "input_shape": preprocessing.input_shape,
        "outputs": trained.outputs,
        "task": facts.pop("task", ""),
        "reading": facts.pop("reading", ""),
        "preprocessing": {
            "formula": "(pixels / scale - mean) / std",
            "scale": preprocessing.scale,
            "mean": preprocessing.mean,
            "std": preprocessing.std,
        },
        "figures": {
            name: float(value) for name, value in trained.metrics.items() if math.isfinite(value)
        },
        "onnx_max_abs_difference": max_abs_difference,
        "deployed": deployed
        and {"file": f"{DEPLOYED}{deployed.suffix}", "sha256": sha256(deployed)},
        "provenance": facts,
        "versions": {"hwnas": __version__, "python": platform.python_version(), **libraries},
    }
    if measurement is not None:
        record["measurement"] = measurement.to_dict()
    try:
        plain: dict[str, Any] = json_values(record)
    except TypeError as error:
        raise ExportError(f"architecture.json: {error}; hand in plain JSON values") from error
    return plain


def _blocks(trained: TrainedNetwork) -> list[dict[str, Any]]:
    if not isinstance(trained.module, Network):
        children = trained.module.named_children()
        return [{"name": name, "class": type(child).__qualname__} for name, child in children]
    return [
        {
            "name": block.name,
            "class": f"{block.module.__module__}.{block.module.__name__}",
            "inputs": block.inputs,
            "input_shapes": block.input_shapes,
            "arguments": dict(block.arguments),
        }
        for block in trained.module.placed_blocks
    ]


def sha256(deployed: Path) -> str:
    """Return the digest of a file, or of the names and contents of a folder's files."""
    if deployed.is_file():
        return hashlib.sha256(deployed.read_bytes()).hexdigest()
    files = sorted(path for path in deployed.rglob("*") if path.is_file())
    listed = [f"{path.relative_to(deployed).as_posix()} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def title(record: Mapping[str, Any]) -> str:
    """Return the family and the `arch_id` of a record's network, as far as they are known."""
    family = str(record.get("space", {}).get("class", "Network"))
    family = family.rpartition(".")[2].removesuffix("Space")
    return f"{family} {record.get('arch_id', '')}".strip()


def check_record(record: dict[str, Any]) -> None:
    """Check that a record is consistent in itself.

    Raises:
        ExportError: It is of another format, or its `arch_id` is not that of its genotype.
    """
    if record.get("format") != FORMAT:
        raise ExportError(
            f"architecture.json: format is {record.get('format')!r}, expected {FORMAT!r}; "
            "export the network again"
        )
    if "genotype" not in record:
        return
    arch_id = Architecture(record["space"]["space_id"], tuple(record["genotype"])).arch_id
    if arch_id != record["arch_id"]:
        raise ExportError(
            f"architecture.json: arch_id is {record['arch_id']!r}, expected {arch_id!r} for its "
            "space and genotype; the file was changed, export the network again"
        )
