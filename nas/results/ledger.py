"""The durable record of a study's trials: an Optuna study in a database.

SQLite keeps its default rollback journal. A write-ahead log saves about 2 of the 25 ms that a
trial costs, but the ledger would be three files while it is open, could not lie in a network
folder, and could not be read where the folder is read-only; all three happen to studies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

import nas
from nas.core.errors import LedgerError
from nas.core.space import Gene
from nas.core.trial import FULL, Leg, Trial
from nas.results.ledger_errors import one_line, shown, translated

LOCK_TIMEOUT_SECONDS = 20


def sqlite_url(path: Path) -> str:
    """Return the URL of a ledger in the SQLite file `path`."""
    return f"sqlite:///{path.absolute().as_posix()}"


def engine_url(url: str) -> sqlalchemy.URL:
    """Return `url` for SQLAlchemy, a plain `postgresql://` with the driver that we depend on."""
    parsed = sqlalchemy.make_url(url)
    plain = parsed.drivername == "postgresql"
    return parsed.set(drivername="postgresql+psycopg2") if plain else parsed


class Ledger:
    """The trials of one study.

    One search writes a ledger; any number of processes may read it meanwhile. No connection stays
    open between calls.

    Attributes:
        url: Database URL.
        objectives: Names, in the order of Optuna's objective values; all are minimised.
    """

    def __init__(self, url: str, storage: RDBStorage, study: optuna.Study) -> None:
        """Wrap an Optuna study; use `open` or `load`."""
        self.url = url
        self._storage = storage
        self._study = study
        attributes = study.user_attrs
        self.objectives: tuple[str, ...] = tuple(attributes["objectives"])
        self._distributions = {
            name: CategoricalDistribution(choices) for name, choices in attributes["genes"].items()
        }

    @classmethod
    def open(
        cls, url: str, study_name: str, objectives: Sequence[str], genes: Sequence[Gene]
    ) -> Ledger:
        """Open a ledger for writing: create it, or continue it.

        Args:
            url: Any URL that SQLAlchemy knows: `sqlite:///FILE`, `postgresql://...`.
            study_name: Name of the study in the database.
            objectives: Names of the study's objectives, all minimised.
            genes: Of the search space.

        Raises:
            LedgerError: The database cannot be opened or written, or the ledger holds a study of
                other objectives or genes.
        """
        identity = {
            "genes": {gene.name: list(gene.choices) for gene in genes},
            "objectives": list(objectives),
        }
        with translated(url), _quiet():
            storage = _storage(url)
            study = optuna.create_study(
                storage=storage,
                study_name=study_name,
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            _claim(study, identity, url)
            return cls(url, storage, study)

    @classmethod
    def load(cls, url: str, study_name: str) -> Ledger:
        """Open a ledger that exists, for reading; nothing is written, not even a table.

        Raises:
            LedgerError: There is no such ledger, or it cannot be read.
        """
        with translated(url), _quiet():
            parsed = sqlalchemy.make_url(url)
            file = parsed.database if parsed.get_backend_name() == "sqlite" else None
            if file and not Path(file).exists():
                raise LedgerError(f"ledger {shown(url)}: the file does not exist")
            storage = _storage(url, skip_table_creation=True)
            try:
                study = optuna.load_study(storage=storage, study_name=study_name)
            except KeyError as error:
                known = ", ".join(optuna.get_all_study_names(storage)) or "none"
                line = f"got study {study_name!r}, expected one that it holds: {known}"
                raise LedgerError(f"ledger {shown(url)}: {line}") from error
            if "objectives" not in study.user_attrs:
                raise LedgerError(f"ledger {shown(url)}: study {study_name!r} is not one of hwnas")
            return cls(url, storage, study)

    def append(self, trial: Trial) -> None:
        """Write one trial; on return it survives the end of the process and of the machine.

        A trial whose number, architecture and fidelity the ledger holds already is left as it is.
        Optuna numbers its trials in the order of their arrival; a trial's own number is an
        attribute.

        Raises:
            LedgerError: The database cannot be written (everything appended before stays
                readable), the trial's number belongs to another architecture or fidelity, or its
                values or genes are not those of the study.
        """
        with translated(self.url):
            for frozen in reversed(self._finished()):
                if frozen.user_attrs["number"] == trial.number:
                    self._check_same(frozen, trial)
                    return
            self._study.add_trial(self._frozen(trial))

    def trials(self) -> list[Trial]:
        """Return all trials, ordered by number.

        Raises:
            LedgerError: The database cannot be read.
        """
        with translated(self.url):
            trials = [self._thawed(frozen) for frozen in self._finished()]
        return sorted(trials, key=lambda trial: trial.number)

    def legs(self) -> list[Leg]:
        """Return the legs of an asynchronous search, in their order.

        Raises:
            LedgerError: The database cannot be read.
        """
        with translated(self.url):
            held = self._study.user_attrs.get("legs", [])
        return [Leg(**leg) for leg in held]

    def set_legs(self, legs: Sequence[Leg]) -> None:
        """Write the legs of an asynchronous search, in place of those before.

        Raises:
            LedgerError: The database cannot be written.
        """
        with translated(self.url):
            self._study.set_user_attr("legs", [dataclasses.asdict(leg) for leg in legs])

    def close(self) -> None:
        """Release the database."""
        self._storage.remove_session()

    def _finished(self) -> list[FrozenTrial]:
        # Optuna's cache asks the database only for what has come since the last call. A trial that
        # somebody queued in a dashboard has no number.
        trials = self._study.get_trials(deepcopy=False)
        return [frozen for frozen in trials if "number" in frozen.user_attrs]

    def _check_same(self, frozen: FrozenTrial, trial: Trial) -> None:
        held = self._thawed(frozen)
        if (held.arch_id, held.fidelity) != (trial.arch_id, trial.fidelity):
            raise LedgerError(
                f"ledger {shown(self.url)}: trial {trial.number} got architecture {trial.arch_id} "
                f"at fidelity {trial.fidelity:g}, expected {held.arch_id} at {held.fidelity:g}, "
                "which it holds; one search at a time may write a ledger"
            )

    def _frozen(self, trial: Trial) -> FrozenTrial:
        attributes: dict[str, Any] = {
            "number": trial.number,
            "arch_id": trial.arch_id,
            "genotype": list(trial.genotype),
            "seed": trial.seed,
            "fidelity": trial.fidelity,
            "seconds": _encode(trial.seconds),
            "ended_s": _encode(trial.ended_s),
            "failure": trial.failure,
            "facts": {name: _encode(value) for name, value in trial.facts.items()},
        }
        params = self._params(trial)
        if not trial.complete:
            return self._create(TrialState.FAIL, params, attributes)
        if set(trial.values) != set(self.objectives):
            raise LedgerError(
                f"ledger {shown(self.url)}: trial {trial.number} got values of "
                f"{sorted(trial.values)}, expected {sorted(self.objectives)}"
            )
        values = [float(trial.values[name]) for name in self.objectives]
        if any(math.isnan(value) for value in values):
            # Optuna has no complete trial with NaN; the attribute keeps what was measured.
            attributes["values"] = [_encode(value) for value in values]
            return self._create(TrialState.FAIL, params, attributes)
        return self._create(TrialState.COMPLETE, params, attributes, values)

    def _create(
        self,
        state: TrialState,
        params: dict[str, Any],
        attributes: dict[str, Any],
        values: list[float] | None = None,
    ) -> FrozenTrial:
        return create_trial(
            state=state,
            values=values,
            params=params,
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


def _storage(url: str, *, skip_table_creation: bool = False) -> RDBStorage:
    # NullPool: a candidate may train for hours, in which a server drops an idle connection.
    engine: dict[str, Any] = {"poolclass": sqlalchemy.NullPool}
    parsed = engine_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine["connect_args"] = {"timeout": LOCK_TIMEOUT_SECONDS}
    # Optuna formats the URL; a brace in a path is only a brace.
    text = parsed.render_as_string(hide_password=False)
    escaped = text.replace("{", "{{").replace("}", "}}")
    try:
        return RDBStorage(escaped, engine, skip_table_creation=skip_table_creation)
    except RuntimeError as error:  # the tables are those of another Optuna
        raise LedgerError(f"ledger {shown(url)}: {one_line(error)}") from error


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
