"""What differs between studies: their settings and what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from nas.core.errors import one_line
from nas.core.records import decoding
from nas.results.hypervolume import hypervolume
from nas.results.study import StudyResults, distinct_names

OWN = ("name", "runs", "measurements", "ledger.url")
"""Settings of where a study stands, which differ between any two."""


def settings_that_differ(studies: Sequence[StudyResults]) -> pd.DataFrame:
    """Return the settings in which studies differ, a row each and a column for each study.

    A value that a study has not is NaN.

    Raises:
        HwnasError: A study's `config.yaml` cannot be read.
    """
    columns = {
        name: dict(_settings(study))
        for name, study in zip(distinct_names(studies), studies, strict=True)
    }
    table = pd.DataFrame(columns, dtype=object)
    differs = [len(set(map(repr, row))) > 1 for row in table.to_numpy()]
    return table[differs].drop(index=list(OWN), errors="ignore")


def outcomes(studies: Sequence[StudyResults]) -> pd.DataFrame:
    """Return what studies found: a column for each study.

    The hypervolume is that of the fronts that `StudyResults.pareto` returns, as a share of the box
    up to the largest of the studies' reference points; NaN where their objectives differ. Rows
    with `least` in their names are of these fronts.

    Raises:
        HwnasError: A study cannot be read.
    """
    objectives = list(studies[0].columns)
    same = all(list(study.columns) == objectives for study in studies)
    reference = np.max([study.reference_point for study in studies], axis=0) if same else None
    columns = {}
    for name, study in zip(distinct_names(studies), studies, strict=True):
        trials = study.trials()
        front = study.pareto(trials=trials)
        points = front[study.front_columns(front)].to_numpy(dtype=float)
        verified = bool(front["verified"].any())
        stages = study.record.get("stages") or {}
        spent = [stage["took_s"] for stage in stages.values() if stage.get("took_s") is not None]
        columns[name] = {
            "state": study.status,
            "complete trials": int((trials["status"] == "complete").sum()),
            "failed trials": int((trials["status"] == "failed").sum()),
            "seconds": round(sum(spent), 1) if spent else np.nan,
            "front": f"{len(front)}, {'verified' if verified else 'not verified'}",
            **{f"least {column}": front[column].min() for column in study.front_columns(front)},
            "hypervolume": np.nan
            if reference is None
            else hypervolume(points, reference) / reference.prod(),
        }
    return pd.DataFrame(columns, dtype=object)


def _settings(study: StudyResults) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a study by their names, such as `search.evaluations`."""
    path = study.path / "config.yaml"
    with decoding(path):
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(one_line(error)) from error
    yield from _flat("", settings)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), part)
    else:
        yield name, value
