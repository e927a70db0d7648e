"""`architecture.json`: what an exported network is, as plain JSON values."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from nas import __version__
from nas.core.errors import ExportError
from nas.core.files import json_values
from nas.core.space import Architecture
from nas.export.exported import ExportedModel

FORMAT = "hwnas-export-3"
"""Marks a folder as an export; a later layout gets another name."""

_LIBRARIES = ("torch", "onnx", "onnxruntime", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python, this project and the libraries that an export depends on."""
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    return {"hwnas": __version__, "python": platform.python_version(), **libraries}


def architecture_record(exported: ExportedModel, max_abs_difference: float) -> dict[str, Any]:
    """Return the content of `architecture.json`.

    Args:
        exported: The network and the facts about it.
        max_abs_difference: Between the logits of the network and of its ONNX file.

    Raises:
        ExportError: A fact is not a plain JSON value.
    """
    space, architecture = exported.space, exported.architecture
    record: dict[str, Any] = {
        "format": FORMAT,
        "arch_id": architecture.arch_id,
        "space": {
            "class": f"{type(space).__module__}.{type(space).__name__}",
            "settings": dataclasses.asdict(space),
            "space_id": architecture.space_id,
        },
        "genotype": architecture.genotype,
        "choices": space.decode(architecture.genotype),
        "blocks": [
            {
                "name": block.name,
                "class": f"{block.module.__module__}.{block.module.__name__}",
                "inputs": block.inputs,
                "input_shapes": block.input_shapes,
                "arguments": dict(block.arguments),
            }
            for block in space.place(architecture.genotype)
        ],
        "input_shape": space.input_shape,
        "class_names": exported.class_names,
        "preprocessing": {
            "formula": "(pixels / scale - mean) / std",
            "scale": exported.preprocessing.scale,
            "mean": exported.preprocessing.mean,
            "std": exported.preprocessing.std,
        },
        "figures": {
            name: float(value) for name, value in exported.figures.items() if math.isfinite(value)
        },
        "onnx_max_abs_difference": max_abs_difference,
        "deployed": _deployed(exported),
        "provenance": dict(exported.provenance),
        "versions": versions(),
    }
    if exported.measurement is not None:
        record["measurement"] = exported.measurement.to_dict()
    try:
        plain: dict[str, Any] = json_values(record)
    except TypeError as error:
        raise ExportError(f"architecture.json: {error}; hand in plain JSON values") from error
    return plain


def _deployed(exported: ExportedModel) -> dict[str, str] | None:
    if exported.deployed is None or exported.deployed_name is None:
        return None
    digest = hashlib.sha256(exported.deployed.read_bytes()).hexdigest()
    return {"file": exported.deployed_name, "sha256": digest}


def title(record: Mapping[str, Any]) -> str:
    """Return the family and the `arch_id` of a record's network."""
    family = str(record["space"]["class"]).rpartition(".")[2].removesuffix("Space")
    return f"{family} {record['arch_id']}"


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
    genotype = tuple(record["genotype"])
    arch_id = Architecture(record["space"]["space_id"], genotype).arch_id
    if arch_id != record["arch_id"]:
        raise ExportError(
            f"architecture.json: arch_id is {record['arch_id']!r}, expected {arch_id!r} for its "
            "space and genotype; the file was changed, export the network again"
        )
