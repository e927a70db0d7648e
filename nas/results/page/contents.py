"""What the page shows of a study, as plain JSON values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nas.core.files import json_values
from nas.core.records import decoding, read_json
from nas.core.space import Gene, Graph
from nas.core.task import DETAILS
from nas.core.trial import FULL
from nas.results.columns import Column, columns_of, device_label
from nas.results.frame import measured_in_search
from nas.results.hypervolume import hypervolume, non_dominated
from nas.results.layout import is_chain, node_positions, without_empty
from nas.results.report import caption, report_frame, shown_columns
from nas.results.study import StudyResults

DIGITS = 6
"""Significant digits of numbers."""

MOST_CLASSES = 40
"""Of which a confusion matrix is shown."""

TAKEN_FOR = 3
"""Classes that are named for which another is taken."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What a search space says about the networks of a study's front.

    Attributes:
        genes: Of the space; empty where the space could not be asked.
        graphs: By `arch_id`, as `SearchSpace.graphs` returns them.
        why_not: Why nothing is drawn.
    """

    genes: Sequence[Gene] = ()
    graphs: Mapping[str, Mapping[str, Graph]] = field(default_factory=dict)
    why_not: str = ""


def study_contents(study: StudyResults, name: str, networks: Networks) -> dict[str, Any]:
    """Return what the page shows of a study.

    Args:
        study: The study.
        name: That tells it from others of the page.
        networks: Of its front.

    Raises:
        HwnasError: The study cannot be read.
    """
    trials, front = study.trials(), report_frame(study)
    searched = study.pareto(objectives=list(study.columns.values()), trials=trials)
    drawn = trials[(trials["status"] == "complete") & (trials["fidelity"] == FULL)]
    whole = report_frame(study, drawn) if len(drawn) else drawn
    known = columns_of(study.record, [*study.columns.values(), *study.verified_columns.values()])
    contents: dict[str, Any] = {
        "name": name,
        "export": shlex.join(["nas", "export", str(study.path), "--pick"]),
        "note": caption(study, front),
        "objectives": [
            {
                "name": objective,
                "search": study.columns[objective],
                "verified": study.verified_columns[objective],
                "unit": known[study.columns[objective]].unit,
            }
            for objective in study.columns
        ],
        "columns": {
            column.name: {
                "label": column.label(),
                "unit": column.unit,
                "format": column.number_format,
            }
            for column in known.values()
            if column.name in whole and pd.api.types.is_float_dtype(whole[column.name])
        },
        "table": [
            {"name": column.name, "heading": column.table_heading()}
            for column in shown_columns(study, front)
        ],
        "trials": _values_by_column(whole, known),
        "front": _row_positions(whole, front),
        "knee": _row_positions(whole, front[front["knee"]]),
        "verified": bool(front["verified"].any()),
        "search_front": _row_positions(whole, searched),
        "progress": progress(study, trials),
        "preferences": list(preferences(whole, front, study.record["genes"], networks.genes)),
        "drawings": {
            arch_id: [_drawing(name, graph) for name, graph in graphs.items()]
            for arch_id, graphs in networks.graphs.items()
        },
        "why_no_drawings": networks.why_not,
        "classes": {arch_id: classes(study, arch_id) for arch_id in front["arch_id"]},
        "facts": facts(study, trials),
        "times": times(study, trials),
        "learned": _seen_by_the_predictor(study, whole),
        "predictors": _errors_of_predictors(study),
        "settings": _settings_text(study),
        "environment": {
            **(study.record.get("hardware") or {}),
            **(study.record.get("versions") or {}),
        },
    }
    found: dict[str, Any] = json_values(contents)
    return found


def _values_by_column(frame: pd.DataFrame, known: Mapping[str, Column]) -> dict[str, list[Any]]:
    """Return the columns that have a value, in the order of `known`, `DIGITS` digits each."""
    found: dict[str, list[Any]] = {"number": frame["number"].tolist()}
    found["arch_id"] = frame["arch_id"].tolist()
    found["genotype"] = [list(genotype) for genotype in frame["genotype"]]
    order = {name: i for i, name in enumerate(known)}
    for name in sorted(map(str, frame.columns), key=lambda name: order.get(name, len(order))):
        if pd.api.types.is_float_dtype(frame[name]) and frame[name].notna().any():
            values = frame[name].tolist()
            found[name] = [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]
    return found


def _row_positions(whole: pd.DataFrame, rows: pd.DataFrame) -> list[int]:
    """Return where rows of a frame stand in it."""
    places = {number: place for place, number in enumerate(whole["number"].tolist())}
    return [places[number] for number in rows["number"].tolist() if number in places]


def progress(study: StudyResults, trials: pd.DataFrame) -> list[dict[str, float]]:
    """Return after how many trials and seconds the hypervolume of the search grew, and to what.

    It is that of the values that the search saw, as a share of the box between zero and the
    reference point. All trials count, in the order in which they ended.
    """
    reference = np.array(study.reference_point)
    trials = trials.sort_values("ended_s", kind="stable")
    points = trials[list(study.columns.values())].to_numpy(dtype=float)
    counts = (trials["feasible"] & (trials["fidelity"] == FULL)) & np.isfinite(points).all(axis=1)
    front, share, rows = np.empty((0, len(reference))), 0.0, list[dict[str, float]]()
    ended = trials["ended_s"].tolist()
    for i, (point, counted) in enumerate(zip(points, counts, strict=True)):
        grows = counted and not (front <= point).all(axis=1).any()
        if grows:
            front = np.vstack([front, point])
            front = front[non_dominated(front)]
            share = hypervolume(front, reference) / reference.prod()
        if grows or i == len(points) - 1:
            rows.append({"trials": i + 1, "seconds": ended[i], "hypervolume": share})
    return rows


def preferences(
    trials: pd.DataFrame, front: pd.DataFrame, names: Sequence[str], genes: Sequence[Gene]
) -> Iterator[dict[str, Any]]:
    """Yield how often each choice of each gene is made on the front and in all trials.

    The genes come first in which both differ most (total variation distance).
    """
    if front.empty:
        return
    every, best = (np.array(frame["genotype"].tolist()) for frame in (trials, front))
    rows = []
    for place, name in enumerate(names):
        count = int(max(every[:, place].max(), best[:, place].max())) + 1
        shares = [np.bincount(x[:, place], minlength=count) / len(x) for x in (best, every)]
        choices = genes[place].choices if genes else tuple(range(count))
        rows.append(
            {
                "gene": name,
                "place": place,
                "choices": [str(choice) for choice in choices[:count]],
                "front": shares[0].round(4).tolist(),
                "trials": shares[1].round(4).tolist(),
                "distance": float(np.abs(shares[0] - shares[1]).sum() / 2),
            }
        )
    yield from sorted(rows, key=lambda row: -row["distance"])


def facts(study: StudyResults, trials: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what a study is, in words."""
    record = study.record
    data, space = record.get("data") or {}, record.get("space") or {}
    failed = int((trials["status"] == "failed").sum())
    partial = int((trials["fidelity"] != FULL).sum())
    counts = f"{len(trials)}" + (f", {partial} of them partial" if partial else "")
    found = {
        "state": study.status,
        "begun (UTC)": study.created_utc,
        "finished (UTC)": record.get("finished_utc"),
        "data": data.get("name"),
        "search space": space.get("name"),
        "device": device_label(record.get("device")),
        "objectives": ", ".join(study.columns),
        "limits": ", ".join(record.get("constraints") or []),
        "trials": counts + (f", {failed} failed" if failed else ""),
        "ended by": (record.get("stop") or {}).get("detail"),
        "seed": record.get("seed"),
        **{f"published {what}": source for what, source in study.published.items()},
        **{f"estimated {what}": source for what, source in study.estimated.items()},
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def times(study: StudyResults, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Return where the time went: of the whole study, and of the workers within the search."""
    record = study.record
    rows = [
        {
            "what": stage,
            "of": "study",
            "seconds": times.get("took_s"),
            "planned": times["planned_s"],
        }
        for stage, times in (record.get("stages") or {}).items()
    ]
    for what, chosen in (
        ("complete trials", trials["status"] == "complete"),
        ("failed trials", trials["status"] == "failed"),
    ):
        seconds = float(trials[chosen]["seconds"].sum())
        if seconds:
            rows.append({"what": what, "of": "workers", "seconds": seconds})
    measured = record.get("adaptive_measurement") or {}
    if measured.get("seconds"):
        rows.append(
            {"what": "measuring candidates", "of": "workers", "seconds": measured["seconds"]}
        )
    return [row for row in rows if row["seconds"] is not None]


def classes(study: StudyResults, arch_id: str) -> dict[str, Any] | None:
    """Return how a verified network does on each class of the test split, where that is known.

    `rows` has the classes, those of least recall first: `name`, `images`, `recall` in percent, and
    `taken_for`, pairs of the classes that it is most often taken for and how often. `names` and
    `matrix` are the confusion matrix, where there are at most `MOST_CLASSES`.
    """
    path = study.path / "finalised" / arch_id / DETAILS
    details = read_json(path) if path.is_file() else {}
    if "confusion_matrix" not in details:
        return None
    with decoding(path):
        names, matrix = list(map(str, details["classes"])), np.array(details["confusion_matrix"])
        if matrix.shape != (len(names), len(names)) or matrix.dtype.kind != "i":
            raise ValueError(f"confusion_matrix: expected whole numbers, {len(names)} a class")
        not_finite = details.get("outputs_not_finite") or [0] * len(names)
        rows = list[dict[str, Any]]()
        for number, (name, counts) in enumerate(zip(names, matrix, strict=True)):
            images = int(counts.sum()) + int(not_finite[number])
            others = [i for i in np.argsort(-counts, kind="stable") if counts[i] and i != number]
            rows.append(
                {
                    "name": name,
                    "images": images,
                    "recall": 100 * int(counts[number]) / images if images else None,
                    "taken_for": [(names[i], int(counts[i])) for i in others[:TAKEN_FOR]],
                }
            )
    rows.sort(key=lambda row: np.inf if row["recall"] is None else row["recall"])
    whole = {"names": names, "matrix": matrix.tolist()} if len(names) <= MOST_CLASSES else {}
    return {"rows": rows, **whole}


def _drawing(name: str, graph: Graph) -> dict[str, Any]:
    """Return a graph with the places of its nodes."""
    graph = without_empty(graph)
    return {
        "name": name,
        "operations": graph.operations,
        "edges": graph.edges,
        "places": node_positions(graph),
        "chain": is_chain(graph),
    }


def _seen_by_the_predictor(study: StudyResults, whole: pd.DataFrame) -> list[int]:
    """Return the rows of what the search measured: the predictor has learned from these."""
    measured = measured_in_search(study.path)
    return [i for i, arch_id in enumerate(whole["arch_id"]) if arch_id in measured]


def _errors_of_predictors(study: StudyResults) -> dict[str, float]:
    """Return by predictor the root mean square of its relative error, in cross-validation, %."""
    path = study.path / "predictor" / "predictor.json"
    if not path.is_file():
        return {}
    found = read_json(path).get("compared") or {}
    with decoding(path):
        return {str(name): 100 * float(value) for name, value in found.items()}


def _settings_text(study: StudyResults) -> str:
    try:
        return (study.path / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
