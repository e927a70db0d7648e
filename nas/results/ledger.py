"""The durable record of a study's trials: an Optuna study in a database.

A ledger belongs to one study, and one process at a time writes it. The database itself sees to it:
the first owner that is written stays, whoever opens the ledger for writing leaves a token that
others find before they write, and an index refuses a second trial of the same number.

SQLite keeps its default rollback journal. A write-ahead log saves about 2 of the 25 ms that a
trial costs, but the ledger would be three files while it is open, could not lie in a network
folder, and could not be read where the folder is read-only; all three happen to studies.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import IntegrityError

import nas
from nas.core.errors import LedgerError
from nas.core.space import Gene
from nas.core.trial import FULL, RunSegment, Trial
from nas.results.database import (
    UNIQUE_NUMBER,
    engine_url,
    open_storage,
    prepared_storage,
    quiet_optuna,
    shown,
    translated,
)

_LOST = "restore it, or delete the study's folder or choose another `name` to start anew"
_OTHER = "choose another `name`, or go on in the folder in which the study began"
_OWNED_ONCE = """
    INSERT INTO study_user_attributes (study_id, "key", value_json)
    SELECT study_id, 'owner', :owner FROM studies WHERE study_name = :name
    ON CONFLICT DO NOTHING
"""


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who opens a ledger for writing.

    Attributes:
        owner: Identity of the study that the ledger belongs to; it stays when the study moves.
        place: Where the study lies, for messages.
        begun: Whether the study has begun before, so that there must be a ledger of it.
    """

    owner: str = ""
    place: str = ""
    begun: bool = False


class Ledger:
    """The trials of one study.

    One search writes a ledger; any number of processes may read it meanwhile. No connection stays
    open between calls.

    Attributes:
        url: Database URL.
        objectives: Names, in the order of Optuna's objective values; all are minimised.
    """

    def __init__(
        self, url: str, storage: RDBStorage, study: optuna.Study, token: str | None = None
    ) -> None:
        """Wrap an Optuna study; use `open` or `load`."""
        self.url = url
        self._storage = storage
        self._study = study
        self._token = token
        attributes = study.user_attrs
        self.objectives: tuple[str, ...] = tuple(attributes["objectives"])
        self._distributions = {
            name: CategoricalDistribution(choices) for name, choices in attributes["genes"].items()
        }

    @classmethod
    def open(
        cls,
        url: str,
        study_name: str,
        objectives: Sequence[str],
        genes: Sequence[Gene],
        writer: Writer | None = None,
    ) -> Ledger:
        """Open a ledger for writing: create it, or continue it.

        Who opens it takes it over: a process that has opened it before can write no more.

        Args:
            url: `sqlite:///FILE` or `postgresql://...`.
            study_name: Name of the study in the database.
            objectives: Names of the study's objectives, all minimised.
            genes: Of the search space.
            writer: For which study; `None` for a ledger that belongs to none.

        Raises:
            LedgerError: The database cannot be opened or written; the ledger belongs to another
                study, or is missing though the study has begun; or it holds a study of other
                objectives or genes.
        """
        identity = {
            "genes": {gene.name: list(gene.choices) for gene in genes},
            "objectives": list(objectives),
        }
        writer = writer or Writer()
        with translated(url), quiet_optuna():
            if writer.begun:
                cls.load(url, study_name, writer.owner).close()
            storage = prepared_storage(url)
            study = optuna.create_study(
                storage=storage,
                study_name=study_name,
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            _own(study, storage, writer, url)
            _claim(study, identity, url)
            token = secrets.token_hex(8)
            study.set_user_attr("writer", {"token": token, "place": writer.place})
            return cls(url, storage, study, token)

    @classmethod
    def load(cls, url: str, study_name: str, owner: str | None = None) -> Ledger:
        """Open a ledger that exists, for reading; nothing is written, not even a table.

        Args:
            url: Database URL.
            study_name: Name of the study in the database.
            owner: Identity of the study that the ledger belongs to; `None` for any.

        Raises:
            LedgerError: There is no such ledger, it belongs to another study, or it cannot be
                read.
        """
        with translated(url), quiet_optuna():
            parsed = engine_url(url)
            file = parsed.database if parsed.get_backend_name() == "sqlite" else None
            # Neither a pipe nor a device, which a record from elsewhere may name.
            if file and not Path(file).is_file():
                wrong = "is no file" if Path(file).exists() else "the file does not exist"
                raise LedgerError(f"ledger {file}: {wrong}; {_LOST}")
            storage = open_storage(url, skip_table_creation=True)
            try:
                study = optuna.load_study(storage=storage, study_name=study_name)
            except KeyError as error:
                known = ", ".join(optuna.get_all_study_names(storage)) or "none"
                line = f"got study {study_name!r}, expected one that it holds: {known}"
                raise LedgerError(f"ledger {shown(url)}: {line}; {_LOST}") from error
            if "objectives" not in study.user_attrs:
                raise LedgerError(f"ledger {shown(url)}: study {study_name!r} is not one of hwnas")
            if owner is not None:
                _check_owner(study, owner, url)
            return cls(url, storage, study)

    def append(self, trial: Trial) -> None:
        """Write one trial; on return it survives the end of the process and of the machine.

        A trial that the ledger holds already is left as it is. Optuna numbers its trials in the
        order of their arrival; a trial's own number is an attribute.

        Raises:
            LedgerError: The database cannot be written (everything appended before stays
                readable), another process has opened the ledger for writing since, the trial's
                number belongs to another trial, or its values or genes are not those of the study.
        """
        frozen = self._frozen(trial)
        with translated(self.url):
            self._check_writer()
            try:
                self._study.add_trial(frozen)
            except IntegrityError:
                held = [f for f in self._finished() if f.user_attrs["number"] == trial.number]
                if not held:
                    raise
                self._check_same(held[0], frozen)

    def trials(self) -> list[Trial]:
        """Return all trials, ordered by number; of a number the one that was written first.

        Raises:
            LedgerError: The database cannot be read.
        """
        with translated(self.url):
            trials = [self._thawed(frozen) for frozen in self._finished()]
        first = {trial.number: trial for trial in reversed(trials)}
        return sorted(first.values(), key=lambda trial: trial.number)

    def segments(self) -> list[RunSegment]:
        """Return the segments of an asynchronous search, in their order.

        Raises:
            LedgerError: The database cannot be read.
        """
        with translated(self.url):
            held = self._study.user_attrs.get("segments", [])
        return [RunSegment(**segment) for segment in held]

    def set_segments(self, segments: Sequence[RunSegment]) -> None:
        """Write the segments of an asynchronous search, in place of those before.

        Raises:
            LedgerError: The database cannot be written, or another process has opened the ledger
                for writing since.
        """
        with translated(self.url):
            self._check_writer()
            self._study.set_user_attr(
                "segments", [dataclasses.asdict(segment) for segment in segments]
            )

    def close(self) -> None:
        """Release the database."""
        self._storage.remove_session()

    def _finished(self) -> list[FrozenTrial]:
        # Optuna's cache asks the database only for what has come since the last call. A trial that
        # somebody queued in a dashboard has no number.
        trials = self._study.get_trials(deepcopy=False)
        return [frozen for frozen in trials if "number" in frozen.user_attrs]

    def _check_writer(self) -> None:
        writer = self._study.user_attrs.get("writer", {})
        if self._token is None:
            raise LedgerError(f"ledger {shown(self.url)}: it is open for reading only")
        if writer.get("token") != self._token:
            at = f" at {writer['place']}" if writer.get("place") else ""
            raise LedgerError(
                f"ledger {shown(self.url)}: another process{at} has taken over this study; "
                "let that one go on, or end it and start the same command again"
            )

    def _check_same(self, held: FrozenTrial, got: FrozenTrial) -> None:
        """Check that the trial which the ledger holds is the one that was to be written."""
        old, new = self._thawed(held), self._thawed(got)
        if (old.arch_id, old.fidelity) != (new.arch_id, new.fidelity):
            line = (
                f"got architecture {new.arch_id} at fidelity {new.fidelity:g}, "
                f"expected {old.arch_id} at {old.fidelity:g}, which it holds"
            )
        # NaN does not equal itself; the attributes hold it as text.
        elif (held.values, held.user_attrs) != (got.values, got.user_attrs):
            line = "was recorded by another process meanwhile"
        else:
            return
        raise LedgerError(
            f"ledger {shown(self.url)}: trial {new.number} {line}; "
            "one search at a time may write a ledger, start the same command again to go on"
        )

    def _frozen(self, trial: Trial) -> FrozenTrial:
        attributes: dict[str, Any] = {
            "number": trial.number,
            UNIQUE_NUMBER: f"{self._study.study_name}/{trial.number}",
            "arch_id": trial.arch_id,
            "genotype": list(trial.genotype),
            "seed": trial.seed,
            "fidelity": trial.fidelity,
            "seconds": _encode(trial.seconds),
            "ended_s": _encode(trial.ended_s),
            "failure": trial.failure,
            "facts": {name: _encode(value) for name, value in trial.facts.items()},
        }
        state, values = TrialState.FAIL, None
        if trial.complete:
            if set(trial.values) != set(self.objectives):
                raise LedgerError(
                    f"ledger {shown(self.url)}: trial {trial.number} got values of "
                    f"{sorted(trial.values)}, expected {sorted(self.objectives)}"
                )
            values = [float(trial.values[name]) for name in self.objectives]
            state = TrialState.COMPLETE
            if any(math.isnan(value) for value in values):
                # Optuna has no complete trial with NaN; the attribute keeps what was measured.
                attributes["values"] = [_encode(value) for value in values]
                state, values = TrialState.FAIL, None
        return create_trial(
            state=state,
            values=values,
            params=self._params(trial),
            distributions=self._distributions,  # type: ignore[arg-type]  # dict is invariant
            user_attrs=attributes,
        )

    def _params(self, trial: Trial) -> dict[str, Any]:
        genes = self._distributions
        fits = len(trial.genotype) == len(genes) and all(
            0 <= index < len(gene.choices)
            for index, gene in zip(trial.genotype, genes.values(), strict=True)
        )
        if not fits:
            raise LedgerError(
                f"ledger {shown(self.url)}: trial {trial.number} got genotype {trial.genotype}, "
                f"expected one of {len(genes)} genes of the study's space"
            )
        chosen = zip(trial.genotype, genes.items(), strict=True)
        return {name: gene.choices[index] for index, (name, gene) in chosen}

    def _thawed(self, frozen: FrozenTrial) -> Trial:
        held = frozen.user_attrs
        values = held.get("values", frozen.values or ())
        return Trial(
            number=held["number"],
            genotype=tuple(held["genotype"]),
            arch_id=held["arch_id"],
            seed=held["seed"],
            fidelity=float(held.get("fidelity", FULL)),
            values={n: float(v) for n, v in zip(self.objectives, values, strict=False)},
            facts={name: float(value) for name, value in held["facts"].items()},
            seconds=float(held["seconds"]),
            ended_s=float(held.get("ended_s", 0.0)),
            failure=held["failure"],
        )


def _own(study: optuna.Study, storage: RDBStorage, writer: Writer, url: str) -> None:
    """Write the owner of a new Optuna study, or check that of one that exists."""
    owned = {"owner": json.dumps(writer.owner), "name": study.study_name}
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text(_OWNED_ONCE), owned)
    _check_owner(study, writer.owner, url)
    trials = len(study.get_trials(deepcopy=False))
    # The search of a study begins after the study is recorded.
    if trials and writer.owner and not writer.begun:
        line = f"holds {trials} trials of study {study.study_name!r}, whose folder is another one"
        raise LedgerError(f"ledger {shown(url)}: {line}; {_OTHER}")


def _check_owner(study: optuna.Study, owner: str, url: str) -> None:
    attributes = study.user_attrs
    if attributes.get("owner", "") != owner:
        place = attributes.get("writer", {}).get("place") or attributes.get("owner") or "no folder"
        line = f"study {study.study_name!r} belongs to {place}"
        raise LedgerError(f"ledger {shown(url)}: {line}; {_OTHER}")


def _claim(study: optuna.Study, identity: Mapping[str, Any], url: str) -> None:
    """Write into a new Optuna study what it is a study of, or check it in one that exists."""
    held = study.user_attrs
    if "objectives" not in held and not study.get_trials(deepcopy=False):
        _check_equal(len(study.directions), len(identity["objectives"]), "objectives", url)
        study.set_metric_names(identity["objectives"])
        # `objectives` comes last: its presence says that the study was set up to the end.
        for key, value in {"hwnas_version": nas.__version__, **identity}.items():
            study.set_user_attr(key, value)
        return
    for key, value in identity.items():
        _check_equal(held.get(key), json.loads(json.dumps(value)), key, url)


def _check_equal(held: object, wanted: object, what: str, url: str) -> None:
    if held != wanted:
        fix = "continue with the settings that it was started with, or give the study a new name"
        if what == "genes":
            line = "holds a study of another search space"
        else:
            line = f"{what}: got {wanted!r}, expected {held!r}, which it holds"
        raise LedgerError(f"ledger {shown(url)}: {line}; {fix}")


def _encode(value: float) -> float | str:
    # JSON has no NaN and no infinities; `float` reads them back from their names.
    number = float(value)
    return number if math.isfinite(number) else repr(number)
