"""What a study found: its trials, its Pareto front and its hypervolume."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas.core.errors import ConfigError, HwnasError, LedgerError, UnknownNameError, did_you_mean
from nas.core.objective import Constraint
from nas.core.records import check_kinds, decoding
from nas.core.trial import FULL
from nas.results import RECORD
from nas.results.columns import metric_units
from nas.results.database import (
    decoding_ledger,
    engine_url,
    shown,
    sqlite_file,
    sqlite_url,
    translated,
)
from nas.results.frame import trials_frame
from nas.results.hypervolume import hypervolume, knee, non_dominated
from nas.results.ledger import Ledger
from nas.results.query import Mask, columns_in, matching, with_goal
from nas.results.record import NEEDED, read_record

PICKS = ("knee", "best", "fastest")
"""Names of architectures of a front."""

LEDGER_URL = "HWNAS_LEDGER_URL"
"""Environment variable with the URL at which ledgers outside of their study's folder are read."""

_FASTEST = (
    "latency_ms_measured",
    "latency_ms_estimated",
    "latency_ms_predicted",
    "latency_ms_published",
)


class StudyResults:
    """A study's folder, for reading; every call sees what the search has written until then.

    Attributes:
        path: The study's folder.
        record: What `study.json` holds.
    """

    def __init__(self, path: Path, ledger_url: str | None = None) -> None:
        """Open the study in the folder `path`.

        Args:
            path: The study's folder.
            ledger_url: Of the ledger, with its password; `None` for the file in the study's folder
                that `study.json` names, or, where that names a server or another file, for the
                environment's `LEDGER_URL`: a study's folder may come from anybody, and does not say
                which server is sent a password, or which file is opened.

        Raises:
            HwnasError: `study.json` is missing or cannot be read.
        """
        self.path = path
        self._given_ledger_url = ledger_url
        self.record: dict[str, Any] = read_record(path / RECORD)
        missing = [key for key in NEEDED if key not in self.record]
        with decoding(path / RECORD):
            missing += [] if missing else self._unusable()
        if missing:
            raise HwnasError(
                f"{path / RECORD}: lacks {', '.join(missing)}; it is no hwnas study of this release"
            )

    def __repr__(self) -> str:
        """Return the study, its state and its objectives on one line."""
        objectives = ", ".join(self.columns)
        return f"StudyResults({self.name!r}, {self.status}, minimises {objectives}: {self.path})"

    def _repr_html_(self) -> str:
        """Return the front as notebooks show it."""
        from nas.results.report import html_table

        return html_table(self)

    @property
    def name(self) -> str:
        """Name of the study's folder, by which commands find it."""
        return self.path.resolve().name

    @property
    def created_utc(self) -> str:
        """When the study was started, in ISO 8601."""
        return str(self.record["created_utc"])

    @property
    def status(self) -> str:
        """One of "searching", "searched", "finalised"."""
        return str(self.record.get("status", "searching"))

    @property
    def published(self) -> dict[str, str]:
        """What numbers are that others have published, by `error`, `latency_ms`, `seconds`.

        With `source`, who published them. Empty where all numbers are the study's own.
        """
        return dict(self.record.get("published") or {})

    @property
    def estimated(self) -> dict[str, str]:
        """What a tool estimated of the device, by objective; empty where it was measured."""
        return dict(self.record.get("estimated") or {})

    @property
    def columns(self) -> dict[str, str]:
        """Column of every objective in `trials`, by the objective's name, in their order."""
        return {name: self.record["columns"][name] for name in self.record["objectives"]}

    @property
    def metric(self) -> str:
        """The first metric of the task among the objectives; `error` where none is."""
        known = metric_units(self.record)
        return next((name for name in self.columns if name in known), "error")

    @property
    def verified_columns(self) -> dict[str, str]:
        """Column of every objective's value of a verified architecture, by the objective's name.

        It holds the final training's validation error in place of that of the search, and what was
        measured in place of what was predicted.
        """
        return {name: self.record["verified_columns"][name] for name in self.record["objectives"]}

    @property
    def constraints(self) -> list[Constraint]:
        """Limits on the objectives, and on what only a limit refers to."""
        with decoding(self.path / RECORD):
            limits = [Constraint.parse(text) for text in self.record.get("constraints", [])]
            for limit in limits:
                if limit.objective not in self.record["columns"]:
                    raise UnknownNameError("constraint on", limit.objective, self.record["columns"])
        return limits

    @property
    def reference_point(self) -> list[float]:
        """Reference point of the hypervolume, a value for every objective, in their order."""
        return [float(self.record["reference_point"][name]) for name in self.record["objectives"]]

    def front_columns(self, frame: pd.DataFrame) -> list[str]:
        """Return the columns of the default front of `frame`, rows of `trials`.

        A study with verified architectures is judged by what is handed over, another one by what
        its search saw.
        """
        columns = self.verified_columns if frame["verified"].any() else self.columns
        return list(columns.values())

    def trials(self) -> pd.DataFrame:
        """Return all trials, one row each, ordered by number.

        Columns: `number`, `arch_id`, `genotype` (tuple), `status` ("complete" or "failed"),
        `failure`, `seed`, `fidelity` (share of the full training), `seconds`, `ended_s` (seconds
        that the search had run by its end); the objectives under the names in `columns` (`error`:
        validation error in the search, %); further facts; `verified`; `feasible`, whether a
        complete trial keeps the study's constraints.

        Of verified architectures, else NaN: `error_final` (validation error, %) and `error_test`
        (%) after the final training; `error_test_refit` (%) where it was trained again on both
        splits; `error_final_mean`, `error_final_std`, `error_test_mean` and `error_test_std` (%)
        where it was trained with several `seeds`, as many as have ended; the same of every other
        metric of the task, such as `balanced_error_test`; `latency_ms_measured`,
        `latency_ms_measured_ci` (half width of the 95 % interval), `latency_ms_median`,
        `latency_ms_p95`, `peak_memory_mb_measured`, `model_size_mb` and, where it is counted,
        `energy_mj_measured`. All are of what the device runs: where that is quantised,
        `error_final_fp32`, `error_test_fp32` and `latency_ms_measured_fp32` are of the network
        before. Architectures that were measured during the search have a measured latency too.

        Raises:
            HwnasError: The ledger or a verified architecture's record cannot be read.
        """
        ledger, limits = self._ledger, self.constraints
        trials = ledger.trials()
        with decoding_ledger(ledger.url):
            return trials_frame(self.path, self.record, trials, limits)

    def pareto(
        self,
        where: str | None = None,
        objectives: Sequence[str] | None = None,
        sort: str | None = None,
        fidelity: float = FULL,
        *,
        trials: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Return the Pareto front: feasible architectures that no other one dominates.

        A front has trials of one fidelity, so that no half trained network competes with others.

        Args:
            where: Condition on the columns, applied first; see `nas.results.query.matching`. The
                name of an objective that is no column, such as `latency_ms`, stands for the column
                by which the front is judged.
            objectives: Columns of numbers, or names of the study's objectives, all minimised.
                Rows without a value in one of them are left out. By default, a study with
                verified architectures gives the front of these by `verified_columns`; another
                study gives the front of its own objectives.
            sort: Column to sort by, ascending; the first objective by default.
            fidelity: Of the trials.
            trials: What the method `trials` has returned, where it need not be read again.

        Returns:
            Rows of `trials`, one per architecture.

        Raises:
            ConfigError: `where`, an objective, `sort` or `fidelity` cannot be used.
            HwnasError: The study cannot be read.
        """
        frame = self.trials() if trials is None else trials
        verified = _verified(frame, fidelity, objectives)
        names = self.front_columns(frame[verified]) if objectives is None else list(objectives)
        chosen = [self._numeric(frame, name) for name in names]
        if not chosen:
            raise ConfigError("objectives", objectives, "one column or more")
        order = self._column(frame, sort, "sort") if sort is not None else chosen[0]
        kept = _competing(frame, fidelity, objectives)
        if where is not None:
            kept &= matching(where, frame, self._aliases(frame, verified))
        front = frame[kept].drop_duplicates("arch_id").dropna(subset=chosen)
        front = front[non_dominated(front[chosen].to_numpy(dtype=float))]
        return front.sort_values([order, "number"], ignore_index=True)

    def _aliases(self, frame: pd.DataFrame, verified: pd.Series[bool]) -> dict[str, str]:
        """Return what names of objectives that are no columns stand for in a condition."""
        columns = self.verified_columns if verified.any() else self.columns
        return {name: column for name, column in columns.items() if name not in frame.columns}

    def reach(
        self, where: str, objectives: Sequence[str] | None = None, fidelity: float = FULL
    ) -> dict[str, tuple[float, float]]:
        """Return how far the values go that a condition is about; arguments as of `pareto`.

        Returns:
            Least and largest value of every column of numbers in the condition, over the
            architectures that compete for the front; empty where none does.
        """
        frame = self.trials()
        verified = _verified(frame, fidelity, objectives)
        names = columns_in(where, frame, self._aliases(frame, verified))
        values = frame[_competing(frame, fidelity, objectives)][names].select_dtypes("number")
        known = values.dropna(axis="columns", how="all")
        return {str(name): (float(c.min()), float(c.max())) for name, c in known.items()}

    def pick(self, text: str, objectives: Sequence[str] | None = None) -> pd.Series[Any]:
        """Return one architecture's row of `trials`.

        Args:
            text: Of the front, "knee", "best" (least `metric`) or "fastest"; a condition such as
                "latency_ms_measured < 1", for the best architecture that meets it, see `pareto`;
                what is to be smallest or largest of a front, "max params_m", with a condition
                before it or without: "error_final < 10, min latency_ms"; or the first digits of
                the `arch_id` of any complete trial; of an architecture's trials, the one of the
                highest fidelity.
            objectives: Of the front, see `pareto`.

        Raises:
            ConfigError: There is no such architecture, or several.
        """
        if text in PICKS:
            return self._pick_of_front(text, None, None, objectives)
        where, goal = with_goal(text)
        if goal is not None or set(text) & set("<>="):
            return self._pick_of_front(text if goal else "best", where, goal, objectives)
        frame = self.trials().sort_values("fidelity", ascending=False, kind="stable")
        frame = frame.drop_duplicates("arch_id").sort_values("number")
        found = frame[frame["arch_id"].str.startswith(text)] if text else frame
        if len(found) != 1:
            known = "none" if found.empty else ", ".join(found["arch_id"].head(5))
            expected = (
                f"{', '.join(PICKS)}, a condition, 'min COLUMN' or the beginning of one arch_id"
            )
            fix = did_you_mean(text, PICKS) or f"it fits {known}"
            raise ConfigError("architecture", text, expected, fix)
        row = found.iloc[0]
        if row["status"] != "complete":
            raise ConfigError("architecture", text, "a complete trial", str(row["failure"]))
        return row

    def hypervolume(self, front: pd.DataFrame | None = None) -> float:
        """Return the hypervolume of a front, by default the one that `pareto` gives by default.

        It is measured from the stored `reference_point`, in the product of the objectives' units.

        Raises:
            HwnasError: The study cannot be read.
        """
        front = self.pareto() if front is None else front
        points = front[self.front_columns(front)].to_numpy(dtype=float)
        return hypervolume(points, self.reference_point)

    def hypervolume_share(self, front: pd.DataFrame | None = None) -> float:
        """Return `hypervolume` as a share of the box between zero and the reference point.

        It lies in 0..1 and has no unit; 1 would be an architecture that costs and errs nothing.
        """
        return self.hypervolume(front) / math.prod(self.reference_point)

    def _pick_of_front(
        self,
        text: str,
        where: str | None,
        goal: tuple[str, str] | None,
        objectives: Sequence[str] | None,
    ) -> pd.Series[Any]:
        front = self.pareto(where, objectives)
        if front.empty:
            limits = ", ".join(str(limit) for limit in self.constraints)
            fix = f"no trial keeps {limits}" if limits else "no trial is complete"
            if where is not None and (reach := self.reach(where, objectives)):
                ends = [f"{name} is {low:.4g} to {high:.4g}" for name, (low, high) in reach.items()]
                raise ConfigError("architecture", where, "what one keeps", "; ".join(ends))
            raise ConfigError("architecture", where or text, "a study with a front", fix)
        if text == "knee":
            names = self.front_columns(front) if objectives is None else list(objectives)
            return front.iloc[knee(front[names].to_numpy(dtype=float))]
        if goal is not None:
            way, name = goal
            name = self._aliases(front, front["verified"]).get(name, name)
            values = front[self._numeric(front, name, "architecture")].to_numpy(dtype=float)
            if np.isnan(values).all():
                raise ConfigError("architecture", text, f"a study that knows {name}")
            return front.iloc[int(np.nanargmin(values if way == "min" else -values))]
        by = _FASTEST if text == "fastest" else (f"{self.metric}_final", self.metric)
        known = [name for name in by if name in front and front[name].notna().all()]
        if not known:
            raise ConfigError("architecture", text, f"a study that knows {by[-1]}")
        return front.iloc[int(np.nanargmin(front[known[0]].to_numpy(dtype=float)))]

    def _numeric(self, frame: pd.DataFrame, name: str, argument: str = "objectives") -> str:
        column = self._column(frame, name, argument)
        if not pd.api.types.is_float_dtype(frame[column]):
            raise ConfigError(argument, name, "a column of measured or predicted numbers")
        return column

    def _column(self, frame: pd.DataFrame, name: str, argument: str) -> str:
        column = self.columns.get(name, name)
        if column not in frame.columns:
            raise UnknownNameError(argument, name, {*map(str, frame.columns), *self.columns})
        return column

    def _unusable(self) -> list[str]:
        """Return which parts of the record a study cannot be read without and has not."""
        columns, reference = self.record["columns"], self.record["reference_point"]
        names = self.record["objectives"]
        for metric in self.record["task"]["metrics"]:
            check_kinds(metric, {"name": str, "unit": str})
        for texts in (columns, self.record["verified_columns"]):
            check_kinds(texts, dict.fromkeys([*names, *texts], str))
        lacking = [f"the column of {name}" for name in names if name not in columns]
        positive = (isinstance(reference.get(n), int | float) and reference[n] > 0 for n in names)
        good = zip(names, positive, strict=True)
        return lacking + [f"a positive reference_point of {name}" for name, ok in good if not ok]

    @property
    def ledger_elsewhere(self) -> bool:
        """Whether the ledger is on a database server, or a file outside of the study's folder.

        Raises:
            LedgerError: `study.json` names neither.
        """
        url = str(self.record["ledger_url"])
        if sqlite_file(url) is not None:
            return self._own_file is None
        with translated(url):
            if engine_url(url).get_backend_name() == "sqlite":
                raise LedgerError(f"{self.path / RECORD}: ledger {url} is no file")
        return True

    @property
    def _ledger_url(self) -> str:
        if self._given_ledger_url is not None:
            return self._given_ledger_url
        if not self.ledger_elsewhere and self._own_file is not None:
            return sqlite_url(self._own_file)
        url = os.environ.get(LEDGER_URL)
        if url is None:
            recorded = str(self.record["ledger_url"])
            line = "lies outside of the study's folder, which may come from anybody"
            fix = f"if you trust it, name it: {LEDGER_URL}=sqlite:///FILE"
            raise LedgerError(
                f"{self.path / RECORD}: ledger {shown(recorded)} {line}; {fix} or "
                "postgresql://USER@HOST/DATABASE, its password in PGPASSWORD or ~/.pgpass"
            )
        return url

    @property
    def _own_file(self) -> Path | None:
        """The SQLite file in the study's folder, wherever that was moved; `None` if elsewhere."""
        recorded = sqlite_file(str(self.record["ledger_url"]))
        if recorded is None:
            return None
        beside = self.path / recorded.name
        if beside.exists():
            # A link may lead out of the folder.
            inside = beside.resolve().is_relative_to(self.path.resolve())
        else:
            # Nothing is looked up where the record points: that alone may mount what lies there.
            owner = str(self.record.get("ledger_owner", ""))
            begun_in = (self.path.absolute(), self.path.resolve())
            inside = recorded.parent in begun_in or owner.endswith(f":{recorded.parent}")
        return beside if inside else None

    @cached_property
    def _ledger(self) -> Ledger:
        # The folder may have been renamed since the ledger was begun.
        ledger = Ledger.load(
            self._ledger_url, str(self.record["name"]), self.record.get("ledger_owner")
        )
        if ledger.objectives != tuple(self.record["objectives"]):
            got, expected = ", ".join(ledger.objectives), ", ".join(self.record["objectives"])
            raise LedgerError(
                f"ledger {shown(ledger.url)}: got objectives {got}, expected {expected} as in "
                f"{self.path / RECORD}; restore both from one copy"
            )
        return ledger


def distinct_names(studies: Sequence[StudyResults]) -> list[str]:
    """Return the names of studies, or their folders where several have the same name."""
    names = [study.name for study in studies]
    return names if len(set(names)) == len(names) else [str(study.path) for study in studies]


def _verified(
    frame: pd.DataFrame, fidelity: float, objectives: Sequence[str] | None
) -> pd.Series[bool]:
    """Return which trials are of verified architectures, where a front is of these."""
    return frame["verified"] & (fidelity == FULL) & (objectives is None)


def _competing(frame: pd.DataFrame, fidelity: float, objectives: Sequence[str] | None) -> Mask:
    """Return which trials compete for a front."""
    kept = frame["feasible"] & _at(frame, fidelity)
    verified = _verified(frame, fidelity, objectives)
    return (kept & verified if verified.any() else kept).to_numpy(copy=True)


def _at(frame: pd.DataFrame, fidelity: float) -> pd.Series[bool]:
    """Return which trials are of a fidelity; refuse one below the full that none has."""
    chosen = frame["fidelity"] == fidelity
    if fidelity != FULL and not chosen.any():
        known = ", ".join(f"{value:g}" for value in sorted({FULL, *frame["fidelity"]}))
        raise ConfigError("fidelity", fidelity, f"one of the study's fidelities: {known}")
    return chosen
