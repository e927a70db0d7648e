"""Export one architecture of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch

import search_spaces
from nas.core.errors import ConfigError
from nas.core.measurement import Measurement
from nas.export import package
from nas.export.exported import ExportedModel, Preprocessing
from nas.results.study import StudyResults
from nas.study.checking import component
from nas.study.folder import StudyFolder
from nas.study.imports import import_modules


def export(study: StudyResults, pick: str, out: Path) -> tuple[Path, float]:
    """Write a verified architecture of `study` into the folder `out`, and check it there.

    Args:
        study: A finalised study.
        pick: `knee`, `best`, `fastest` or an `arch_id`.
        out: New, empty or a former export.

    Returns:
        The folder, and the largest absolute difference between PyTorch and ONNX Runtime.

    Raises:
        ConfigError: There is no such architecture, or it was not retrained; a study of published
            numbers has nothing that was.
        ExportError: The folder holds something else, or the export does not run on its own.
    """
    row = study.pick(pick)
    folder = StudyFolder(study.path)
    parts = folder.verified(str(row["arch_id"]))
    if not (parts / "result.json").is_file():
        if study.published:
            raise ConfigError(
                "study",
                study.name,
                "one whose networks were trained",
                f"its numbers are a table's ({study.published['source']}), it has no weights",
            )
        verified = ", ".join(sorted(p.parent.name for p in parts.parent.glob("*/result.json")))
        raise ConfigError(
            "--pick", pick, "a verified architecture", f"the verified ones: {verified or 'none'}"
        )
    written = package.write(out, _exported(study, folder.record(), row, parts))
    return written, package.verify(written)


def _exported(
    study: StudyResults, record: dict[str, Any], row: pd.Series[Any], parts: Path
) -> ExportedModel:
    import_modules(record["imports"])
    space = component(search_spaces.registry, record["space"], "space")
    network = space.build(row["genotype"])
    network.load_state_dict(safetensors.torch.load_file(parts / "weights.safetensors"))
    training = json.loads((parts / "training.json").read_text("utf-8"))
    measurement = json.loads((parts / "measurement.json").read_text("utf-8"))
    return ExportedModel(
        space=space,
        genotype=row["genotype"],
        network=network.eval(),
        class_names=tuple(record["class_names"]),
        preprocessing=Preprocessing(mean=tuple(training["mean"]), std=tuple(training["std"])),
        figures=_figures(row, training),
        measurement=Measurement.from_dict(measurement),
        provenance={
            "dataset": record["data"],
            "training": training["recipe"],
            "study": {"name": study.name, "seed": record["seed"], **record["versions"]},
        },
    )


def _figures(row: pd.Series[Any], training: dict[str, Any]) -> dict[str, float]:
    counted = ("error", "params_m", "macs_m", "counted_memory_mb")
    names = (*counted, "latency_ms_predicted", "peak_memory_mb_predicted")
    figures = {name: float(row[name]) for name in names if name in row and pd.notna(row[name])}
    return figures | {name: training[name] for name in ("error_test", "test_images")}
