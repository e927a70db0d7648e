"""The durable record of a study's trials: an Optuna study in a database.

A ledger belongs to one study, and one process at a time writes it. The database itself sees to it:
the first owner that is written stays, whoever opens the ledger for writing leaves a token that
others find before they write, and an index refuses a second trial of the same number.

SQLite keeps its default rollback journal. A write-ahead log would save two of the four fsyncs that
a trial costs, but the ledger would be three files while it is open, could not lie in a network
folder, and could not be read where the folder is read-only; all three happen to studies.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from nas.core.errors import LedgerError
from nas.core.space import Gene
from nas.core.trial import RunSegment, Trial
from nas.results.database import (
    decoding_ledger,
    is_away,
    is_refused_twice,
    reported,
    shown,
    sqlite_file,
    transaction,
    translated,
)
from nas.results.optuna_tables import (
    LOST,
    StudyRow,
    check_owner,
    encoded_trial,
    read_study,
    read_trials,
)

if TYPE_CHECKING:
    from nas.results.optuna_writer import StudyWriter

OUTAGE_LIMIT_S = 300.0
"""How long a search waits for a database that does not answer any more, or is locked."""

RETRY_S = 1.0

T = TypeVar("T")

_logger = logging.getLogger(__name__)


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

    def __init__(self, url: str, study: StudyRow, writer: StudyWriter | None = None) -> None:
        """Wrap an Optuna study; use `open` or `load`."""
        self.url = url
        self._study = study
        self._writer = writer
        self.objectives: tuple[str, ...] = tuple(study.attributes["objectives"])

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
        # Optuna and SQLAlchemy take a while to load, and reading needs neither.
        from nas.results import optuna_writer

        identity = {
            "genes": {gene.name: list(gene.choices) for gene in genes},
            "objectives": list(objectives),
        }
        writer = writer or Writer()
        if writer.begun:
            cls.load(url, study_name, writer.owner)
        with decoding_ledger(url), translated(url):
            optuna_writer.prepare(url, study_name, identity, writer.owner, begun=writer.begun)
        study = cls.load(url, study_name, writer.owner)._study
        with decoding_ledger(url), translated(url):
            of_study = optuna_writer.StudyWriter(url, study)
            of_study.take_over(writer.place)
        return cls(url, study, of_study)

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
        file = sqlite_file(url)
        # Neither a pipe nor a device, which a record from elsewhere may name.
        if file is not None and not file.is_file():
            wrong = "is no file" if file.exists() else "the file does not exist"
            raise LedgerError(f"ledger {file}: {wrong}; {LOST}")
        with translated(url), transaction(url) as rows:
            study = read_study(rows, study_name, url)
        if "objectives" not in study.attributes:
            raise LedgerError(f"ledger {shown(url)}: study {study_name!r} is not one of hwnas")
        if owner is not None:
            check_owner(study.attributes, study_name, owner, url)
        return cls(url, study)

    def append(self, *trials: Trial) -> None:
        """Write trials; on return they survive the end of the process and of the machine.

        A trial that the ledger holds already is left as it is. Optuna numbers its trials in the
        order of their arrival; a trial's own number is an attribute. Trials that are written at
        once cost little more than one.

        Raises:
            LedgerError: The database cannot be written (everything appended before stays
                readable), another process has opened the ledger for writing since, the number of
                one belongs to another trial, or values or genes are not those of the study.
        """
        writer = self._for_writing()

        def append() -> None:
            try:
                writer.append(trials, self.objectives)
            except Exception as error:
                if not is_refused_twice(error):
                    raise
                held = {trial.number: trial for trial in self.trials()}
                new = [trial for trial in trials if trial.number not in held]
                if len(new) == len(trials):
                    raise
                for trial in trials:
                    if trial.number in held:
                        self._check_same(held[trial.number], trial)
                writer.append(new, self.objectives)

        self._retrying(append)

    def trials(self) -> list[Trial]:
        """Return all trials, ordered by number; of a number the one that was written first.

        Raises:
            LedgerError: The database cannot be read.
        """

        def read() -> list[Trial]:
            with transaction(self.url) as rows:
                return read_trials(rows, self._study.study_id, self.objectives)

        trials = self._retrying(read)
        first = {trial.number: trial for trial in reversed(trials)}
        return sorted(first.values(), key=lambda trial: trial.number)

    def segments(self) -> list[RunSegment]:
        """Return the segments of an asynchronous search, in their order.

        Raises:
            LedgerError: The database cannot be read.
        """

        def read() -> list[RunSegment]:
            with transaction(self.url) as rows:
                study = read_study(rows, self._study.name, self.url)
                return [RunSegment(**segment) for segment in study.attributes.get("segments", [])]

        return self._retrying(read)

    def set_segments(self, segments: Sequence[RunSegment]) -> None:
        """Write the segments of an asynchronous search, in place of those before.

        Raises:
            LedgerError: The database cannot be written, or another process has opened the ledger
                for writing since.
        """
        writer = self._for_writing()
        held = [dataclasses.asdict(segment) for segment in segments]
        self._retrying(lambda: writer.set_attribute("segments", held))

    def _retrying(self, call: Callable[[], T]) -> T:
        """Return what `call` returns.

        A search outlasts a restart of the database server, and another process that keeps the file
        locked, as a backup does: it tries again until the database answers or `OUTAGE_LIMIT_S` have
        passed. Who only reads is told at once.
        """
        limit_s = OUTAGE_LIMIT_S if self._writer is not None else 0.0
        began_s = time.monotonic()
        waiting = False
        with translated(self.url):
            while True:
                try:
                    result = call()
                except Exception as error:
                    if not is_away(error) or time.monotonic() - began_s > limit_s:
                        raise
                    if not waiting:
                        line = f"ledger {shown(self.url)}: {reported(error)}"
                        _logger.warning("%s; trying again for %g s", line, limit_s)
                    waiting = True
                    time.sleep(RETRY_S)
                    continue
                if waiting:
                    waited_s = time.monotonic() - began_s
                    _logger.warning("ledger: answers again after %.0f s", waited_s)
                return result

    def _for_writing(self) -> StudyWriter:
        if self._writer is None:
            raise LedgerError(f"ledger {shown(self.url)}: it is open for reading only")
        return self._writer

    def _check_same(self, held: Trial, got: Trial) -> None:
        """Check that the trial which the ledger holds is the one that was to be written."""
        if (held.arch_id, held.fidelity) != (got.arch_id, got.fidelity):
            line = (
                f"got architecture {got.arch_id} at fidelity {got.fidelity:g}, "
                f"expected {held.arch_id} at {held.fidelity:g}, which it holds"
            )
        # NaN does not equal itself; the attributes hold it as text.
        elif encoded_trial(held, self.objectives) != encoded_trial(got, self.objectives):
            line = "was recorded by another process meanwhile"
        else:
            return
        raise LedgerError(
            f"ledger {shown(self.url)}: trial {got.number} {line}; "
            "one search at a time may write a ledger, start the same command again to go on"
        )
