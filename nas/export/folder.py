"""The exported folder: written whole or not at all, and verified on its own."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from nas.core.errors import ConfigError, ExportError, last_lines
from nas.core.files import temporary_folder, write_json_atomically
from nas.core.measurement import ImageArray, Measurement
from nas.core.task import DETAILS
from nas.export import fresh_process, predict
from nas.export.card import model_card
from nas.export.parity import TOLERANCE, check_parity, onnx_outputs
from nas.export.pixels import PIXELS, write_from_pixels
from nas.export.record import DEPLOYED, architecture_record, check_record, sha256, title
from nas.export.source import PLAIN_PACKAGES, module_source
from nas.network.onnx import export_onnx, interface
from nas.network.trained import Preprocessing, TrainedNetwork

FILES = (
    "model.onnx",
    "model.safetensors",
    "model.py",
    "predict.py",
    "architecture.json",
    "MODEL_CARD.md",
)
"""What an export consists of; the device may run another file, `deployed` with its own suffix."""

BATCHES = "batches.onnx"
"""Name in an export of the ONNX file that takes several images at a time."""

PROJECT_PACKAGES = ("nas", "search_spaces", "latency_predictors")
"""What an exported network must run without."""

_COMPARED_IMAGES = 4
_BYTECODE = "__pycache__"
_TIMEOUT_SECONDS = 600


def write(
    folder: Path,
    trained: TrainedNetwork,
    *,
    measurement: Measurement | None = None,
    deployed: Path | None = None,
    details: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    pixels: bool = False,
    dynamic_batch: bool = False,
) -> Path:
    """Export a network into a folder and return the folder.

    The files are written beside `folder` and moved there when all of them are complete and the
    ONNX file was found to compute what the network computes, so `folder` never holds a part of
    an export. A former export is replaced.

    Args:
        folder: New, empty or a former export.
        trained: The network, on the processor, and the facts about it. Of its provenance
            `dataset`, `training` and `study` become sections of the model card, and `reading`
            (see `Task.reading`) says there how outputs are read.
        measurement: Latency and peak memory as measured on the device, where they were.
        deployed: The file or folder that was measured, where that is not the network's ONNX file.
        details: Of the test split; see `Task.details`. They become `test_details.json`.
        labels: What the numbers of `trained.metrics` are, with their units, by name.
        pixels: Whether to write the ONNX file that takes pixels as they are as well.
        dynamic_batch: Whether to write one that takes any number of images as well, in fp32.

    Raises:
        ConfigError: The network has another number of outputs than names of them.
        ExportError: The folder holds other files, the network needs something that cannot be
            carried over, the ONNX file computes something else, or the disk is full.
    """
    folder = folder.absolute()
    former = folder.with_name(f".{folder.name}.former")
    _check_target(folder)
    _check_target(former)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if former.exists() and not folder.exists():
            former.rename(folder)  # a killed export has moved it away
        with temporary_folder(folder.parent) as beside:
            new = beside / "new"
            new.mkdir()
            record = _write_files(new, trained, measurement, deployed, details or {})
            if pixels:
                run = new / f"{DEPLOYED}.onnx"
                model = run if run.is_file() else new / "model.onnx"
                write_from_pixels(model, trained.preprocessing, trained.outputs, new / PIXELS)
            if dynamic_batch:
                _write_for_batches(trained, new / BATCHES)
            files = {path.name: interface(path) for path in sorted(new.glob("*.onnx"))}
            card = model_card(record, measurement, labels or {}, details or {}, files)
            (new / "MODEL_CARD.md").write_text(card, "utf-8")
            if former.exists():
                former.rename(beside / "older")
            if folder.exists():
                folder.rename(former)
            try:
                new.rename(folder)
            except OSError:
                if former.exists():
                    former.rename(folder)
                raise
            if former.exists():
                former.rename(beside / "former")
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error}); choose another place") from error
    return folder


def verify(folder: Path) -> float:
    """Run an export in a fresh interpreter that can import nothing of this project.

    There `model.py` loads the weights and runs on images of a fixed seed, and so does the ONNX
    file; what both are is compared with `architecture.json`.

    Returns:
        The largest absolute difference between the outputs of both.

    Raises:
        ExportError: A file is missing, damaged or contradicts another, `model.py` imports more
            than it may, or the outputs differ by more than `TOLERANCE`.
    """
    folder = folder.absolute()
    record = _read_record(folder)
    check_record(record)
    _check_deployed(folder, record["deployed"])
    _check_imports(folder / "model.py")
    own = {b["class"].partition(".")[0] for b in record["blocks"] if "." in b["class"]}
    difference = _difference_alone(folder, sorted({*PROJECT_PACKAGES, *own} - PLAIN_PACKAGES))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{folder}: outputs of model.py and model.onnx differ by {difference:.3g}, expected "
            f"{TOLERANCE:g} or less; export the network again"
        )
    return difference


def _check_target(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder}: is a file, expected a folder; choose another name")
    names = {path.name for path in folder.iterdir()} - {_BYTECODE}
    deployed = {name for name in names if Path(name).stem == DEPLOYED}
    others = sorted(names - deployed - {*FILES, DETAILS, PIXELS, BATCHES})
    if others or (names and not names.issuperset(FILES)):
        found = ", ".join(others or sorted(names))
        raise ExportError(
            f"{folder}: holds {found}, expected a new or empty folder or a former export; "
            "choose another folder"
        )


def _write_files(
    folder: Path,
    trained: TrainedNetwork,
    measurement: Measurement | None,
    deployed: Path | None,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Write all but the model card and what is asked for; return `architecture.json`'s content."""
    preprocessing = trained.preprocessing
    path = export_onnx(trained.module, preprocessing.input_shape, folder / "model.onnx")
    images = _random_images(preprocessing)
    number = onnx_outputs(path, images[:1]).shape[1]
    if number != len(trained.outputs):
        raise ConfigError("outputs", len(trained.outputs), f"{number} names")
    difference = check_parity(trained.module, path, images)
    record = architecture_record(trained, difference, measurement, deployed)
    source = module_source(trained.module, header=_header(record), preprocessing=preprocessing)
    (folder / "model.safetensors").write_bytes(save(trained.weights()))
    (folder / "model.py").write_text(source, "utf-8")
    shutil.copyfile(predict.__file__, folder / "predict.py")
    if deployed is not None:
        copy = shutil.copytree if deployed.is_dir() else shutil.copyfile
        copy(deployed, folder / record["deployed"]["file"])
    write_json_atomically(folder / "architecture.json", record)
    if details:
        write_json_atomically(folder / DETAILS, details)
    return record


def _write_for_batches(trained: TrainedNetwork, path: Path) -> None:
    """Write the ONNX file that takes any number of images, and compare it at one and at several."""
    export_onnx(trained.module, trained.preprocessing.input_shape, path, dynamic_batch=True)
    images = _random_images(trained.preprocessing)
    for batch in (1, len(images) - 1, len(images)):  # one leaves a last batch that is smaller
        check_parity(trained.module, path, images, batch)


def _random_images(preprocessing: Preprocessing) -> ImageArray:
    shape = (_COMPARED_IMAGES, *preprocessing.input_shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return preprocessing(torch.from_numpy(pixels)).numpy()


def _header(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{title(record)}: found by hardware-aware architecture search. Plain PyTorch: needs torch "
        "and safetensors, and model.safetensors beside this file. "
        f"Exported with {versions}."
    )


def _read_record(folder: Path) -> dict[str, Any]:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ExportError(f"{folder}: {', '.join(missing)} missing, expected a complete export")
    path = folder / "architecture.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ExportError(f"{path}: {error}, expected JSON; export the network again") from error
    if not isinstance(record, dict):
        raise ExportError(f"{path}: got a {type(record).__name__}, expected a JSON object")
    return record


def _check_deployed(folder: Path, deployed: dict[str, str] | None) -> None:
    """Check that the file or folder that was measured lies in the export as it was."""
    if deployed is None:
        return
    file = folder / deployed["file"]
    if not file.exists() or sha256(file) != deployed["sha256"]:
        raise ExportError(
            f"{file}: missing or changed, expected the file that was measured; "
            "export the network again"
        )


def _check_imports(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        else:
            continue
        for module in modules:
            if module.partition(".")[0] not in PLAIN_PACKAGES:
                raise ExportError(
                    f"{path}: line {node.lineno} imports {module!r}, expected torch, safetensors "
                    "or the standard library; export the network again"
                )


def _difference_alone(folder: Path, packages: list[str]) -> float:
    # -I leaves out PYTHONPATH and the working directory; -B leaves no bytecode in the folder.
    command = [sys.executable, "-I", "-B", fresh_process.__file__, str(folder), *packages]
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{folder}: did not run within {_TIMEOUT_SECONDS} s in a fresh process; "
            "try again on a quieter machine"
        ) from error
    if child.returncode != 0:
        why = last_lines(child.stderr, 1) or f"exit status {child.returncode}"
        raise ExportError(f"{folder}: does not run on its own: {why}")
    return float(child.stdout.strip().splitlines()[-1])
