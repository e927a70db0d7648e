"""Writing an Optuna study: Optuna sets it up, and trials are appended in a few statements.

SQLAlchemy and Optuna take longer to make these statements than SQLite to run them.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
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
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

import nas
from nas.core.errors import LedgerError, first_line
from nas.core.space import Genotype
from nas.core.trial import Trial
from nas.results.database import Rows, engine_settings, engine_url, shown, transaction
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

# Locks the row of the study as well, as Optuna does before it adds a trial.
_WRITER = """
    SELECT value_json FROM study_user_attributes
    JOIN studies ON studies.study_id = study_user_attributes.study_id
    WHERE studies.study_id = ? AND "key" = 'writer' FOR UPDATE
"""
_SET = """
    INSERT INTO study_user_attributes (study_id, "key", value_json) VALUES (?, ?, ?)
    ON CONFLICT (study_id, "key") DO UPDATE SET value_json = excluded.value_json
"""
_NEWEST = """
    SELECT trial_id, number FROM trials WHERE study_id = ? ORDER BY trial_id DESC LIMIT ?
"""
_TRIALS = "trials (study_id, number, state, datetime_start, datetime_complete)"
_ATTRIBUTES = 'trial_user_attributes (trial_id, "key", value_json)'
_PARAMS = "trial_params (trial_id, param_name, param_value, distribution_json)"
_VALUES = "trial_values (trial_id, objective, value, value_type)"

_PARAMETERS = 999
"""That a statement of any release of SQLite may have."""


class StudyWriter:
    """Writes one study; every call is one transaction, which is durable on return."""

    def __init__(self, url: str, study: StudyRow) -> None:
        """Take a study over: whoever has written it until now can write it no more."""
        self._url = url
        self._study = study
        self._token = secrets.token_hex(8)
        self._genes = {
            name: (len(choices), distribution_to_json(CategoricalDistribution(choices)))
            for name, choices in study.attributes["genes"].items()
        }

    def take_over(self, place: str) -> None:
        """Make this the only process that may write the study; others are refused from now on."""
        with transaction(self._url, writing=True) as rows:
            writer = {"token": self._token, "place": place}
            rows(_SET, self._study.study_id, "writer", json.dumps(writer))

    def set_attribute(self, key: str, value: object) -> None:
        """Write an attribute of the study, in place of its value before."""
        with transaction(self._url, writing=True) as rows:
            self._check_token(rows)
            rows(_SET, self._study.study_id, key, json.dumps(value))

    def append(self, trials: Sequence[Trial], objectives: Sequence[str]) -> None:
        """Write trials, all of them or none, as Optuna does.

        Raises:
            LedgerError: The values or genes of one are not those of the study, or another process
                has taken the study over.
            IntegrityError: Of the database's driver; the number of one is taken.
        """
        encoded = [self._encoded(trial, objectives) for trial in trials]
        if not encoded:
            return
        study_id = self._study.study_id
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        states = ["FAIL" if values is None else "COMPLETE" for _, _, values in encoded]
        with transaction(self._url, writing=True) as rows:
            self._check_token(rows)
            # Optuna counts a study's trials; ours keep their own number in an attribute.
            last = rows(_NEWEST, study_id, 1)
            numbers = itertools.count(last[0][1] + 1 if last else 0)
            _insert(rows, _TRIALS, [(study_id, next(numbers), s, now, now) for s in states])
            ids = [trial_id for trial_id, _ in reversed(rows(_NEWEST, study_id, len(encoded)))]
            new = [(trial_id, *one) for trial_id, one in zip(ids, encoded, strict=True)]
            attributes = [(i, *item) for i, _, texts, _ in new for item in texts.items()]
            params = [
                (i, name, float(index), distribution)
                for i, genotype, _, _ in new
                for index, (name, (_, distribution)) in zip(
                    genotype, self._genes.items(), strict=True
                )
            ]
            values = [
                (i, objective, None if x in INFINITE else x, INFINITE.get(x, "FINITE"))
                for i, _, _, values in new
                for objective, x in enumerate(values or ())
            ]
            _insert(rows, _ATTRIBUTES, attributes)
            _insert(rows, _PARAMS, params)
            _insert(rows, _VALUES, values)

    def _check_token(self, rows: Rows) -> None:
        held = rows(_WRITER, self._study.study_id)
        writer = dict(json.loads(held[0][0])) if held else {}
        if writer.get("token") != self._token:
            at = f" at {writer['place']}" if writer.get("place") else ""
            raise LedgerError(
                f"ledger {shown(self._url)}: another process{at} has taken over this study; "
                "let that one go on, or end it and start the same command again"
            )

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


def _insert(rows: Rows, table: str, values: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, as many at a time as a statement may have: a server answers each statement."""
    size = _PARAMETERS // (table.count(",") + 1)
    for start in range(0, len(values), size):
        batch = values[start : start + size]
        one = f"({', '.join('?' * len(batch[0]))})"
        query = f"INSERT INTO {table} VALUES {', '.join([one] * len(batch))}"
        rows(query, *itertools.chain.from_iterable(batch))


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
