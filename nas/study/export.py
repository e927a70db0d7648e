"""Export one architecture of a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from nas.core.errors import ConfigError, HwnasError
from nas.core.measurement import Measurement
from nas.core.records import NUMBER, check_kinds, decoding, read_json
from nas.core.task import DETAILS
from nas.export.folder import verify, write
from nas.network.trained import FACTS, TrainedNetwork
from nas.results.columns import columns_of, metric_units
from nas.results.study import StudyResults
from nas.study.folder import StudyFolder
from nas.study.recorded_space import recorded_space


def export(
    study: StudyResults,
    pick: str,
    out: Path,
    *,
    refit: bool = False,
    pixels: bool = False,
    dynamic_batch: bool = False,
    allow_imports: bool = False,
) -> tuple[Path, float]:
    """Write a verified architecture of `study` into the folder `out`, and check it there.

    Args:
        study: A finalised study.
        pick: `knee`, `best`, `fastest`, a condition, a goal or an `arch_id`; see
            `StudyResults.pick`.
        out: New, empty or a former export.
        refit: Whether to take the network that was trained on train and validation images together,
            which `finalise.refit` makes of the front's picks.
        pixels: Whether to write `pixels.onnx` as well, which takes uint8 pixels as they are and has
            the names of the outputs in its metadata.
        dynamic_batch: Whether to write `batches.onnx` as well, which takes any number of images, in
            fp32.
        allow_imports: Whether to import the modules that the study names, which runs their code. A
            study of the platform's own search spaces needs none.

    Returns:
        The folder, and the largest absolute difference between PyTorch and ONNX Runtime.

    Raises:
        ConfigError: There is no such architecture, or it was not verified; a study of published
            numbers has nothing that was.
        HwnasError: The study needs modules that are not imported yet, and `allow_imports` is not
            given, or they lie in the study's own folder.
        ExportError: The folder holds something else, or the export does not run on its own.
    """
    parts, network = verified(study, pick, refit=refit, allow_imports=allow_imports)
    fix = f"restore it from a copy, or delete {parts} and run the same search again"
    with decoding(parts / "measurement.json", fix):
        measurement = Measurement.from_dict(read_json(parts / "measurement.json", fix=fix))
    deployed = parts / read_json(parts / "deployment.json", {"file": str}, fix)["file"]
    for file in (deployed, *deployed.rglob("*")):
        if not file.resolve().is_relative_to(parts.resolve()):
            line = f"names {file}, which lies outside of the study"
            raise HwnasError(f"{parts / 'deployment.json'}: {line}; restore it from a copy")
    written = write(
        out,
        network,
        measurement=measurement,
        deployed=None if deployed.name == "model.onnx" else deployed,
        details=_details(parts / DETAILS, fix),
        labels={name: column.label() for name, column in columns_of(study.record).items()},
        pixels=pixels,
        dynamic_batch=dynamic_batch,
    )
    return written, verify(written)


def verified(
    study: StudyResults, pick: str, *, refit: bool = False, allow_imports: bool = False
) -> tuple[Path, TrainedNetwork]:
    """Return the folder of a verified architecture, and its network; see `export`.

    Raises:
        ConfigError: There is no such architecture, or it was not verified.
        HwnasError: The network cannot be loaded, or needs modules that may not be imported.
    """
    row = study.pick(pick)
    folder = StudyFolder(study.path)
    verified_in = folder.refitted if refit else folder.finalised
    parts = verified_in / str(row["arch_id"])
    if not (parts / "result.json").is_file():
        if study.published:
            raise ConfigError(
                "study",
                study.name,
                "one whose networks were trained",
                f"its numbers are a table's ({study.published['source']}), it has no weights",
            )
        known = ", ".join(sorted(p.parent.name for p in verified_in.glob("*/result.json")))
        kind = "refitted" if refit else "verified"
        raise ConfigError("--pick", pick, f"a {kind} architecture: {known or 'there is none'}")
    return parts, _trained(study, row, parts, allow_imports)


def _details(path: Path, fix: str) -> dict[str, Any]:
    """Return what the task told of the test split beside its metrics; see `Task.details`."""
    found = read_json(path, fix=fix) if path.is_file() else {}
    with decoding(path, fix):
        recall = found.get("recall_percent", {})
        check_kinds({"recall_percent": recall}, {"recall_percent": dict})
        check_kinds(recall, dict.fromkeys(recall, NUMBER | None))
    return found


def _trained(
    study: StudyResults, row: pd.Series[Any], parts: Path, allow_imports: bool
) -> TrainedNetwork:
    """Return the network in the folder `parts`, with all that is known of it."""
    space = recorded_space(study, allow_imports)
    if space.architecture(row["genotype"]).arch_id != row["arch_id"]:
        line = f"study {study.name!r}: architecture {row['arch_id']} is another one by now"
        fix = "export with the release and the modules that the study was searched with"
        raise HwnasError(f"{line}: the code of the search space has changed; {fix}")
    network = TrainedNetwork.load(parts, space.build(row["genotype"]))
    with decoding(parts / FACTS):
        facts = dict(network.provenance)
        if facts["arch_id"] != row["arch_id"]:
            raise ValueError(f"it is of architecture {facts['arch_id']}")
        # Former releases have not written it.
        facts.setdefault("task", study.record["task"].get("name", ""))
        facts["training"] |= {**facts.pop("recipe"), "seed": facts.pop("seed")}
    result = read_json(parts / "result.json")
    return dataclasses.replace(
        network, provenance=facts, metrics=_figures(metric_units(study.record), row, result)
    )


def _figures(
    metrics: Collection[str], row: pd.Series[Any], result: dict[str, Any]
) -> dict[str, float]:
    """Return what is known of the network itself, and of its architecture from the search."""
    own = [f"{name}_{split}" for name in metrics for split in ("test", "final")]
    of_network = (
        *(f"{name}{arithmetic}" for name in own for arithmetic in ("", "_fp32")),
        "test_images",
        "validation_images",
        "latency_ms_measured_fp32",
        "latency_ms_measured_fp32_ci",
    )
    figures = {n: float(result[n]) for n in of_network if result.get(n) is not None}
    counted = (*metrics, "params_m", "macs_m", "counted_memory_mb")
    predicted = ("latency_ms", "peak_memory_mb", "sram_kb", "flash_kb")
    of_search = (*counted, *(f"{name}_predicted" for name in predicted))
    return figures | {n: float(row[n]) for n in of_search if n in row and pd.notna(row[n])}
