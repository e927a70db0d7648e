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
        name: dict(_settings_of_study(study))
        for name, study in zip(distinct_names(studies), studies, strict=True)
    }
    table = pd.DataFrame(columns, dtype=object)
    differs = [len(set(map(repr, row))) > 1 for row in table.to_numpy()]
    return table[differs].drop(index=list(OWN), errors="ignore")


def outcomes(studies: Sequence[StudyResults]) -> pd.DataFrame:
    """Return what studies found: a column for each study.

    Fronts are those that `StudyResults.pareto` returns. Their hypervolume is a share of the box up
    to the largest of the studies' reference points; NaN where the fronts are judged by different
    columns, such as measured and predicted latency.

    Raises:
        HwnasError: A study cannot be read.
    """
    found, judged_by, points = {}, [], []
    for name, study in zip(distinct_names(studies), studies, strict=True):
        trials = study.trials()
        front = study.pareto(trials=trials)
        columns = study.front_columns(front)
        verified = "verified" if front["verified"].any() else "not verified"
        outside_s = study.record.get("seconds_outside_search")
        found[name] = {
            "state": study.status,
            "complete trials": int((trials["status"] == "complete").sum()),
            "failed trials": int((trials["status"] == "failed").sum()),
            "seconds of search": trials["ended_s"].max(),
            "seconds before and after": np.nan if outside_s is None else float(outside_s),
            "front": f"{len(front)}, {verified}",
            **{f"least {column}": front[column].min() for column in columns},
        }
        judged_by.append(columns)
        points.append(front[columns].to_numpy(dtype=float))
    same = all(columns == judged_by[0] for columns in judged_by)
    reference = np.max([study.reference_point for study in studies], axis=0) if same else None
    for name, own in zip(found, points, strict=True):
        found[name]["hypervolume"] = (
            np.nan if reference is None else hypervolume(own, reference) / reference.prod()
        )
    return pd.DataFrame(found, dtype=object)


def _settings_of_study(study: StudyResults) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a study by their names, such as `search.evaluations`."""
    path = study.path / "config.yaml"
    with decoding(path):
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(one_line(error)) from error
    yield from _by_dotted_name("", settings)


def _by_dotted_name(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _by_dotted_name(f"{name}.{key}" if name else str(key), part)
    else:
        yield name, value
