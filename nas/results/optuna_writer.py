"""Writing an Optuna study: Optuna sets it up, and trials are appended in a few statements."""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from sqlalchemy import column
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

import nas
from nas.core.errors import LedgerError, first_line
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.results.database import decoding_ledger, engine, engine_settings, engine_url, shown
from nas.results.optuna_tables import (
    INFINITE,
    OTHER_OWNER,
    UNIQUE_NUMBER,
    StudyRow,
    check_owner,
    encoded_trial,
)

OPENING_ATTEMPTS = 5

_Encoded = tuple[Genotype, dict[str, str], list[float] | None]
"""A trial's genotype, its attributes as JSON, its values unless Optuna has it as failed."""

_NUMBERED_ONCE = f"""
    CREATE UNIQUE INDEX IF NOT EXISTS {UNIQUE_NUMBER} ON trial_user_attributes (value_json)
    WHERE "key" = '{UNIQUE_NUMBER}'
"""
_OWNED_ONCE = """
    INSERT INTO study_user_attributes (study_id, "key", value_json)
    SELECT study_id, 'owner', :owner FROM studies WHERE study_name = :name
    ON CONFLICT DO NOTHING
"""

_STUDIES = sqlalchemy.table("studies", column("study_id"))
_STUDY_ATTRIBUTES = sqlalchemy.table(
    "study_user_attributes", column("study_id"), column("key"), column("value_json")
)
_TRIALS = sqlalchemy.table(
    "trials",
    column("trial_id"),
    column("study_id"),
    column("number"),
    column("state"),
    column("datetime_start", sqlalchemy.DateTime),
    column("datetime_complete", sqlalchemy.DateTime),
)
_ATTRIBUTES = sqlalchemy.table(
    "trial_user_attributes", column("trial_id"), column("key"), column("value_json")
)
_PARAMS = sqlalchemy.table(
    "trial_params",
    column("trial_id"),
    column("param_name"),
    column("param_value"),
    column("distribution_json"),
)
_VALUES = sqlalchemy.table(
    "trial_values", column("trial_id"), column("objective"), column("value"), column("value_type")
)


class StudyWriter:
    """Writes one study; every call is one transaction, which is durable on return."""

    def __init__(self, url: str, study: StudyRow) -> None:
        """Take a study over: whoever has written it until now can write it no more."""
        self._url = url
        self._study = study
        self._engine = engine(url)
        self._token = secrets.token_hex(8)
        # Made once: SQLAlchemy takes longer to make a statement than SQLite to run it.
        own = _TRIALS.c.study_id == study.study_id
        newest = sqlalchemy.select(_TRIALS.c.trial_id, _TRIALS.c.number).where(own)
        self._newest = newest.order_by(_TRIALS.c.trial_id.desc())
        self._last = self._newest.limit(1)
        self._writer = sqlalchemy.select(_STUDY_ATTRIBUTES.c.value_json).where(
            *self._named("writer")
        )
        self._genes = {
            name: (len(choices), distribution_to_json(CategoricalDistribution(choices)))
            for name, choices in study.attributes["genes"].items()
        }

    def take_over(self, place: str) -> None:
        """Make this the only process that may write the study; others are refused from now on."""
        with self._transaction() as connection:
            self._set(connection, "writer", {"token": self._token, "place": place})

    def set_attribute(self, key: str, value: object) -> None:
        """Write an attribute of the study, in place of its value before."""
        with self._transaction() as connection:
            self._check_token(connection)
            self._set(connection, key, value)

    def append(self, trials: Sequence[Trial], objectives: Sequence[str]) -> None:
        """Write trials, all of them or none.

        Raises:
            LedgerError: The values or genes of one are not those of the study, or another process
                has taken the study over.
            IntegrityError: The number of one is taken.
        """
        encoded = [self._encoded(trial, objectives) for trial in trials]
        if not encoded:
            return
        with self._transaction() as connection:
            self._check_token(connection)
            self._insert(connection, encoded)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlalchemy.Connection]:
        """Begin a transaction during which no other process writes this study."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                own = _STUDIES.c.study_id == self._study.study_id
                connection.execute(sqlalchemy.select(_STUDIES).where(own).with_for_update())
            yield connection

    def _check_token(self, connection: sqlalchemy.Connection) -> None:
        with decoding_ledger(self._url):
            writer = dict(json.loads(connection.execute(self._writer).scalar() or "{}"))
        if writer.get("token") != self._token:
            at = f" at {writer['place']}" if writer.get("place") else ""
            raise LedgerError(
                f"ledger {shown(self._url)}: another process{at} has taken over this study; "
                "let that one go on, or end it and start the same command again"
            )

    def _set(self, connection: sqlalchemy.Connection, key: str, value: object) -> None:
        text = json.dumps(value)
        update = _STUDY_ATTRIBUTES.update().where(*self._named(key)).values(value_json=text)
        if not connection.execute(update).rowcount:
            own = {"study_id": self._study.study_id, "key": key, "value_json": text}
            connection.execute(_STUDY_ATTRIBUTES.insert(), own)

    def _named(self, key: str) -> list[sqlalchemy.ColumnElement[bool]]:
        attributes = _STUDY_ATTRIBUTES.c
        return [attributes.study_id == self._study.study_id, attributes.key == key]

    def _encoded(self, trial: Trial, objectives: Sequence[str]) -> _Encoded:
        place = f"ledger {shown(self._url)}: trial {trial.number} got"
        genotype, genes = trial.genotype, self._genes
        if len(genotype) != len(genes) or not all(
            0 <= index < choices
            for index, (choices, _) in zip(genotype, genes.values(), strict=True)
        ):
            expected = f"one of {len(genes)} genes of the study's space"
            raise LedgerError(f"{place} genotype {genotype}, expected {expected}")
        if trial.complete and set(trial.values) != set(objectives):
            expected = str(sorted(objectives))
            raise LedgerError(f"{place} values of {sorted(trial.values)}, expected {expected}")
        attributes, values = encoded_trial(trial, objectives)
        attributes[UNIQUE_NUMBER] = f"{self._study.name}/{trial.number}"
        return genotype, {key: json.dumps(value) for key, value in attributes.items()}, values

    def _insert(self, connection: sqlalchemy.Connection, encoded: Sequence[_Encoded]) -> None:
        """Write trials as Optuna does, while nobody else adds trials to the study."""
        last = connection.execute(self._last).first()
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        connection.execute(
            _TRIALS.insert(),
            [
                {
                    "study_id": self._study.study_id,
                    # Optuna counts a study's trials; ours keep their own number in an attribute.
                    "number": number,
                    "state": "FAIL" if values is None else "COMPLETE",
                    "datetime_start": now,
                    "datetime_complete": now,
                }
                for number, (_, _, values) in enumerate(encoded, last.number + 1 if last else 0)
            ],
        )
        written = connection.execute(self._newest.limit(len(encoded))).all()
        trials = [(row.trial_id, *each) for row, each in zip(written[::-1], encoded, strict=True)]
        attributes = [
            {"trial_id": trial_id, "key": key, "value_json": text}
            for trial_id, _, attributes, _ in trials
            for key, text in attributes.items()
        ]
        params = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": float(index),
                "distribution_json": distribution,
            }
            for trial_id, genotype, _, _ in trials
            for index, (name, (_, distribution)) in zip(genotype, self._genes.items(), strict=True)
        ]
        values = [
            {
                "trial_id": trial_id,
                "objective": objective,
                "value": None if value in INFINITE else value,
                "value_type": INFINITE.get(value, "FINITE"),
            }
            for trial_id, _, _, values in trials
            for objective, value in enumerate(values or ())
        ]
        for table, rows in ((_ATTRIBUTES, attributes), (_PARAMS, params), (_VALUES, values)):
            if rows:
                connection.execute(table.insert(), rows)


def prepare(
    url: str, study_name: str, identity: Mapping[str, Any], owner: str, *, begun: bool
) -> None:
    """Have Optuna make the tables and the study, or check those that are there.

    Args:
        url: Of the database.
        study_name: Name of the study.
        identity: Attributes of the study that never change: its `genes` and, last, its
            `objectives`, all minimised.
        owner: Of the ledger.
        begun: Whether the owner has begun before.

    Raises:
        LedgerError: The study belongs to another owner, or is one of other objectives or genes.
    """
    with _quiet_optuna():
        storage = _prepared_storage(url)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=study_name,
                directions=["minimize"] * len(identity["objectives"]),
                load_if_exists=True,
            )
            _own(study, storage, owner, url, begun=begun)
            _claim(study, identity, url)
        finally:
            storage.remove_session()


def _prepared_storage(url: str) -> RDBStorage:
    """Return a storage whose database has all tables and the index of trial numbers."""
    parsed = engine_url(url)
    text = parsed.render_as_string(hide_password=False)
    for attempts_left in reversed(range(OPENING_ATTEMPTS)):
        try:
            storage = RDBStorage(text, engine_settings(parsed))
            with storage.engine.begin() as connection:
                connection.execute(sqlalchemy.text(_NUMBERED_ONCE))
            return storage
        except RuntimeError as error:  # the tables are those of another release of Optuna
            raise LedgerError(f"ledger {shown(url)}: {first_line(error)}") from error
        except (OperationalError, ProgrammingError, IntegrityError) as error:
            # Another process may make the same tables at the same time.
            made = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not made or not attempts_left:
                raise
            time.sleep(0.1)
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's information and its notes on experimental features from being printed."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _own(study: optuna.Study, storage: RDBStorage, owner: str, url: str, *, begun: bool) -> None:
    """Write the owner of a new Optuna study, or check that of one that exists."""
    owned = {"owner": json.dumps(owner), "name": study.study_name}
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text(_OWNED_ONCE), owned)
    check_owner(study.user_attrs, study.study_name, owner, url)
    # The search of a study begins after the study is recorded.
    if owner and not begun and (trials := len(study.get_trials(deepcopy=False))):
        line = f"holds {trials} trials of study {study.study_name!r}, whose folder is another one"
        raise LedgerError(f"ledger {shown(url)}: {line}; {OTHER_OWNER}")


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
