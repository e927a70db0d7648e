from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import math
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from ledger_processes import OWNED, RACING, WRITER, at_once, start
from made_up_studies import GENES, make_trial, random_trials, write_study

from nas.core.errors import LedgerError
from nas.core.space import Gene
from nas.core.trial import Trial
from nas.results import database
from nas.results.database import sqlite_url
from nas.results.ledger import Ledger, Writer
from nas.results.optuna_tables import decoded_trial, encoded_trial
from nas.results.study import StudyResults

OBJECTIVES = ("error", "latency_ms")

APPENDING = """
for number in range(int(sys.argv[3])):
    ledger.append(make_trial(number, 5.0 + number, 1.0))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
UNTIL_FULL = """
import resource
from pathlib import Path
for number in range(3):
    ledger.append(make_trial(number, 5.0 + number, 1.0))
size = Path(sys.argv[3]).stat().st_size + 8192
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for number in range(3, 500):
        ledger.append(make_trial(number, 5.0 + number, 1.0))
except LedgerError as error:
    assert len(ledger.trials()) == number, "readable where the disk is full"
    sys.stdout.write(f"{number} {error}")
"""


def open_ledger(url: str, name: str = "digits") -> Ledger:
    return Ledger.open(url, name, OBJECTIVES, GENES)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "ledger.db")


def test_round_trip_is_ordered_by_number(url: str) -> None:
    trials = random_trials(8)
    ledger = open_ledger(url)
    for trial in reversed(trials):
        ledger.append(trial)
    assert ledger.trials() == trials
    assert Ledger.load(url, "digits").trials() == trials
    assert sum(not trial.complete for trial in trials) == 1


def test_numbers_that_json_does_not_have(url: str) -> None:
    odd = {"error": math.inf, "latency_ms": math.nan}
    trial = dataclasses.replace(make_trial(0, 1.0, 1.0), values=odd, facts={"x_ms": -math.inf})
    endless = dataclasses.replace(make_trial(1, 1.0, 1.0), values={**odd, "latency_ms": math.inf})
    ledger = open_ledger(url)
    ledger.append(trial)
    ledger.append(endless)
    first, second = Ledger.load(url, "digits").trials()
    assert first.complete
    assert first.values["error"] == math.inf
    assert math.isnan(first.values["latency_ms"])
    assert first.facts == {"x_ms": -math.inf}
    assert second == endless


def test_appending_twice_writes_once(url: str) -> None:
    ledger = open_ledger(url)
    ledger.append(make_trial(3, 1.0, 1.0))
    ledger.append(make_trial(3, 1.0, 1.0))
    ledger = open_ledger(url)
    ledger.append(make_trial(3, 1.0, 1.0))
    assert len(ledger.trials()) == 1
    other = dataclasses.replace(make_trial(3, 1.0, 1.0), arch_id="f" * 12)
    with pytest.raises(LedgerError, match="trial 3 got architecture ffffffffffff"):
        ledger.append(other)


def test_an_architecture_is_recorded_at_every_fidelity(url: str) -> None:
    first = dataclasses.replace(make_trial(0, 9.0, 1.0), fidelity=0.1)
    further = dataclasses.replace(first, number=1, values={"error": 5.0, "latency_ms": 1.0})
    ledger = open_ledger(url)
    ledger.append(first)
    ledger.append(dataclasses.replace(further, fidelity=1.0))
    assert [t.fidelity for t in Ledger.load(url, "digits").trials()] == [0.1, 1.0]
    assert [t.full for t in ledger.trials()] == [False, True]
    with pytest.raises(LedgerError, match=r"trial 1 got .* at fidelity 0.1, expected .* at 1,"):
        ledger.append(dataclasses.replace(further, fidelity=0.1))


def test_optuna_opens_it(url: str) -> None:
    trials = random_trials(7)
    ledger = open_ledger(url)
    for trial in trials:
        ledger.append(trial)
    study = optuna.load_study(study_name="digits", storage=url)
    assert study.metric_names == list(OBJECTIVES)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert [trial.state.name for trial in study.trials].count("FAIL") == 1
    first = study.trials[0]
    assert first.params == {"depth": 1, "kernel": 3, "op": "conv", "skip": False}
    assert first.values == [trials[0].values[name] for name in OBJECTIVES]
    assert first.user_attrs["arch_id"] == trials[0].arch_id
    assert study.trials[5].user_attrs["failure"] == "diverged: loss is NaN"
    assert study.trials[5].params["kernel"] == 7


def test_opening_is_quiet(
    url: str, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(logging.INFO)
        open_ledger(url).append(make_trial(0, 1.0, 1.0))
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_another_study_is_refused(url: str) -> None:
    open_ledger(url).append(make_trial(0, 1.0, 1.0))
    for objectives in (("error",), ("error", "params_m")):
        with pytest.raises(LedgerError, match=r"objectives: got .* expected .*new name"):
            Ledger.open(url, "digits", objectives, GENES)
    with pytest.raises(LedgerError, match="another search space"):
        Ledger.open(url, "digits", OBJECTIVES, (*GENES, Gene("width", (1, 2))))
    with pytest.raises(LedgerError, match=r"got study 'letters'.*digits"):
        Ledger.load(url, "letters")
    # Several studies may share one database.
    Ledger.open(url, "letters", ("error",), GENES).append(
        dataclasses.replace(make_trial(0, 1.0, 1.0), values={"error": 2.0})
    )
    assert len(Ledger.load(url, "digits").trials()) == 1


def test_a_study_set_up_halfway_is_completed(url: str) -> None:
    optuna.create_study(storage=url, study_name="digits", directions=["minimize"] * 2)
    with pytest.raises(LedgerError, match="not one of hwnas"):
        Ledger.load(url, "digits")
    open_ledger(url).append(make_trial(0, 1.0, 1.0))
    assert len(Ledger.load(url, "digits").trials()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"error": 1.0}}, "got values of"),
        ({"genotype": (0, 0)}, "genotype"),
        ({"genotype": (0, 0, 9, 0)}, "genotype"),
    ],
)
def test_a_trial_of_another_study_is_refused(
    url: str, change: dict[str, object], message: str
) -> None:
    trial: Trial = dataclasses.replace(make_trial(0, 1.0, 1.0), **change)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match=message):
        open_ledger(url).append(trial)


def test_kill_loses_nothing_that_was_appended(url: str) -> None:
    process = start(WRITER + APPENDING, url, "1000")
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(8)]
    process.kill()
    seen += [int(line) for line in process.stdout.read().split()]
    process.wait()
    numbers = [trial.number for trial in open_ledger(url).trials()]
    assert numbers[: len(seen)] == seen
    assert len(numbers) <= len(seen) + 1
    open_ledger(url).append(make_trial(len(numbers), 1.0, 1.0))


def test_reading_while_another_process_writes(url: str) -> None:
    process = start(WRITER + APPENDING, url, "25")
    assert process.stdout is not None
    process.stdout.readline()
    reader = Ledger.load(url, "digits")
    counts = []
    while process.poll() is None:
        trials = reader.trials()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert all(len(trial.values) == 2 for trial in trials)
        counts.append(len(trials))
    assert process.returncode == 0
    assert counts == sorted(counts)
    assert len(reader.trials()) == 25


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_full_disk_is_one_line_and_keeps_the_rest(url: str, tmp_path: Path) -> None:
    process = start(WRITER + UNTIL_FULL, url, str(tmp_path / "ledger.db"))
    said, _ = process.communicate()
    assert process.returncode == 0
    count, message = said.split(" ", 1)
    assert "\n" not in message
    assert "free disk space" in message
    ledger = open_ledger(url)
    assert [trial.number for trial in ledger.trials()] == list(range(int(count)))
    ledger.append(make_trial(int(count), 1.0, 1.0))
    assert len(Ledger.load(url, "digits").trials()) == int(count) + 1


def test_no_connection_stays_open(url: str, tmp_path: Path) -> None:
    ledger = open_ledger(url)
    ledger.append(make_trial(0, 1.0, 1.0))
    with sqlite3.connect(tmp_path / "ledger.db", timeout=0) as other:
        other.execute("BEGIN EXCLUSIVE")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


def test_corrupt_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database at all, but long enough" * 50)
    for attempt in (open_ledger, lambda url: Ledger.load(url, "digits")):
        with pytest.raises(LedgerError, match=r"not a database; .*damaged") as caught:
            attempt(url)
        assert "\n" not in str(caught.value)


def test_database_of_something_else(url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("CREATE TABLE cats (name TEXT)")
    with pytest.raises(LedgerError, match="no ledger of hwnas"):
        Ledger.load(url, "digits")


def test_locked_by_another(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ledger(url)
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0.05)
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="is locked; close what holds it"):
            open_ledger(url)


def test_a_search_outlasts_what_keeps_its_ledger_locked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0.05)
    ledger = open_ledger(url)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as reader:
        # Reads for longer than SQLite waits, as a backup or a database browser does.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM trials")
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            reader.rollback()

        monkeypatch.setattr("nas.results.ledger.time.sleep", wait)
        ledger.append(make_trial(0, 1.0, 1.0))
        assert waits
        # Who only reads, and a search in the end, are told.
        reader.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("nas.results.ledger.OUTAGE_LIMIT_S", 0.0)
        for locked in (lambda: ledger.append(make_trial(1, 1.0, 1.0)), lambda: count_of(url)):
            with pytest.raises(LedgerError, match="is locked"):
                locked()
    assert count_of(url) == 1


def count_of(url: str) -> int:
    return len(Ledger.load(url, "digits").trials())


@pytest.mark.parametrize("code", ["40P01", "40001", "53300", "57P01", "08006", None])
def test_what_a_server_reports_and_a_search_outlasts(code: str | None) -> None:
    psycopg2 = pytest.importorskip("psycopg2")

    class ReportedError(psycopg2.OperationalError):  # type: ignore[misc, name-defined]
        pgcode = code

    assert database.is_away(ReportedError())
    ReportedError.pgcode = "53100"  # its disk is full
    assert not database.is_away(ReportedError())


def test_a_journal_that_names_another_file_deletes_nothing(url: str, tmp_path: Path) -> None:
    """SQLite deletes the file that a journal of several databases names."""
    open_ledger(url)
    mine = tmp_path / "thesis.txt"
    journal = tmp_path / "ledger.db-journal"
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(mine).encode()
    tail = struct.pack(">II", len(name), sum(name)) + magic
    pages = (tmp_path / "ledger.db").stat().st_size // 4096
    header = magic + struct.pack(">IIIII", 0, 0, pages, 512, 4096)
    content = header.ljust(512, b"\0") + struct.pack(">I", 2**31) + name + tail
    link = tmp_path / "linked.db"
    link.symlink_to(tmp_path / "ledger.db")
    for each in (url, sqlite_url(link)):
        for attempt in (open_ledger, lambda url: Ledger.load(url, "digits")):
            mine.write_text("kept")
            journal.write_bytes(content)
            with pytest.raises(LedgerError, match="-journal") as caught:
                attempt(each)
            assert "\n" not in str(caught.value)
            assert mine.exists()


def test_what_a_killed_search_left_half_written_is_undone_by_whoever_reads(
    url: str, tmp_path: Path
) -> None:
    trials = random_trials(100)
    open_ledger(url).append(*trials)
    (tmp_path / "copy").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("UPDATE trial_user_attributes SET value_json = 0 WHERE key = 'facts'")
        for name in ("ledger.db", "ledger.db-journal"):
            shutil.copy(tmp_path / name, tmp_path / "copy")
    copy = sqlite_url(tmp_path / "copy" / "ledger.db")
    assert Ledger.load(copy, "digits").trials() == trials
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["ledger.db"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/at/all/ledger.db", "unable to open.*make its folder exist"),
        ("mongo://u:secret@host/db", "unknown kind.*sqlite:///FILE"),
        ("ledger.db", "unknown kind"),
        ("postgresql://u:secret@127.0.0.1:1/db", "postgresql"),
    ],
)
def test_unusable_urls(url: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message) as caught:
        open_ledger(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("psycopg2") is not None, reason="driver is there")
def test_missing_driver_says_how_to_get_it() -> None:
    with pytest.raises(LedgerError, match=r"pip install 'hwnas\[postgresql\]'"):
        open_ledger("postgresql://u:secret@127.0.0.1:1/db")


def test_loading_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.load(sqlite_url(tmp_path / "none.db"), "digits")
    assert not list(tmp_path.iterdir())


ODD_NAMES = ["r?1", "r?x=1&y", "r#1", "50%", "r%20", "{r}", "${r}", "r r", "grün", "r\\1", "a@b:c"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = write_study(tmp_path / name / "digits", random_trials(2))
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.db", "study.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert len(StudyResults(folder).trials()) == 2
    moved = folder.rename(tmp_path / name / "letters")
    assert len(StudyResults(moved).trials()) == 2


def begun(owner: str, place: str = "") -> Writer:
    return Writer(owner, place or owner, begun=True)


def test_of_two_studies_that_begin_at_once_one_gets_the_ledger(url: str) -> None:
    """As two searches of one name do, in different folders, on one database."""
    both = [start(OWNED, url, f"host:/{n}", str(n)) for n in (1, 2)]
    said = at_once(both)
    assert sorted(each.returncode for each in both) == [0, 2]
    winner = 1 + [each.returncode for each in both].index(0)
    refusal = said[2 - winner]
    assert "\n" not in refusal
    assert f"host:/{winner}" in refusal
    trials = Ledger.load(url, "digits").trials()
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.values["error"] for trial in trials} == {float(winner)}


def test_a_number_is_written_once_by_processes_at_once(url: str) -> None:
    open_ledger(url)
    said = at_once([start(RACING, url, str(n)) for n in range(2)])
    written = [int(number) for line in said for number in line.split()]
    assert sorted(written) == list(range(10))
    assert [trial.number for trial in open_ledger(url).trials()] == list(range(10))
    assert len(optuna.load_study(study_name="digits", storage=url).trials) == 10


def test_another_study_gets_no_ledger_that_is_taken(url: str) -> None:
    Ledger.open(url, "digits", OBJECTIVES, GENES, Writer("a", "host:/a"))
    for stranger in (Writer("b"), Writer(), begun("b")):
        with pytest.raises(LedgerError, match="host:/a"):
            Ledger.open(url, "digits", OBJECTIVES, GENES, stranger)
    with pytest.raises(LedgerError, match="host:/a"):
        Ledger.load(url, "digits", "b")
    # A moved study says where it lies now.
    Ledger.open(url, "digits", OBJECTIVES, GENES, begun("a", "host:/moved"))
    with pytest.raises(LedgerError, match="host:/moved"):
        Ledger.open(url, "digits", OBJECTIVES, GENES, Writer("b"))
    assert Ledger.load(url, "digits", "a").trials() == []


def test_a_start_that_died_before_its_record_is_made_again(url: str) -> None:
    Ledger.open(url, "digits", OBJECTIVES, GENES, Writer("a"))
    ledger = Ledger.open(url, "digits", OBJECTIVES, GENES, Writer("a"))
    ledger.append(make_trial(0, 1.0, 1.0))
    # Trials without a record are those of a study that has moved.
    with pytest.raises(LedgerError, match="whose folder is another one"):
        Ledger.open(url, "digits", OBJECTIVES, GENES, Writer("a"))
    assert len(Ledger.open(url, "digits", OBJECTIVES, GENES, begun("a")).trials()) == 1


def test_a_process_that_was_taken_over_writes_no_more(url: str) -> None:
    forgotten = Ledger.open(url, "digits", OBJECTIVES, GENES, Writer("a"))
    forgotten.append(make_trial(0, 1.0, 1.0))
    going_on = Ledger.open(url, "digits", OBJECTIVES, GENES, begun("a", "host:/copy"))
    with pytest.raises(LedgerError, match="host:/copy has taken over"):
        forgotten.append(make_trial(1, 1.0, 1.0))
    with pytest.raises(LedgerError, match="has taken over"):
        forgotten.set_segments([])
    assert len(forgotten.trials()) == 1
    going_on.append(make_trial(1, 1.0, 1.0))
    assert len(going_on.trials()) == 2
    with pytest.raises(LedgerError, match="reading"):
        Ledger.load(url, "digits").append(make_trial(2, 1.0, 1.0))


def test_after_a_kill_the_same_study_goes_on_at_once(url: str) -> None:
    killed = start(OWNED.replace("range(6)", "range(1000)"), url, "a", "1.0")
    assert killed.stdout is not None
    assert killed.stdin is not None
    killed.stdout.readline()
    killed.stdin.write("\n")
    killed.stdin.flush()
    while not Path(url.removeprefix("sqlite:///")).exists() or not count(url):
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    ledger = Ledger.open(url, "digits", OBJECTIVES, GENES, begun("a"))
    numbers = [trial.number for trial in ledger.trials()]
    ledger.append(make_trial(len(numbers), 1.0, 1.0))
    assert [trial.number for trial in ledger.trials()] == [*numbers, len(numbers)]


def count(url: str) -> int:
    try:
        return len(Ledger.load(url, "digits").trials())
    except LedgerError:
        return 0


def test_a_study_that_has_begun_needs_its_ledger(url: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"ledger\.db: .*does not exist; restore it"):
        Ledger.open(url, "digits", OBJECTIVES, GENES, begun("a"))
    assert not list(tmp_path.iterdir())
    Ledger.open(url, "letters", OBJECTIVES, GENES, Writer("b"))
    with pytest.raises(LedgerError, match="letters; restore it"):
        Ledger.open(url, "digits", OBJECTIVES, GENES, begun("a"))
    assert optuna.get_all_study_names(url) == ["letters"]


def test_no_number_comes_twice_whatever_the_database_holds(url: str) -> None:
    ledger = open_ledger(url)
    ledger.append(make_trial(0, 1.0, 1.0))
    study = optuna.load_study(study_name="digits", storage=url)
    [held] = study.trials
    attributes = {k: v for k, v in held.user_attrs.items() if k != "hwnas_unique_number"}
    study.add_trial(
        optuna.trial.create_trial(
            values=[7.0, 7.0],
            params=held.params,
            distributions=held.distributions,
            user_attrs=attributes,
        )
    )
    assert len(study.trials) == 2
    assert ledger.trials() == [make_trial(0, 1.0, 1.0)]


def test_a_renamed_folder_keeps_its_ledger_and_gets_its_name(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "runs" / "digits", random_trials(3))
    renamed = folder.rename(folder.with_name("letters"))
    study = StudyResults(renamed)
    assert study.name == "letters"
    assert len(study.trials()) == 3


def test_results_are_not_read_from_the_ledger_of_another_study(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "digits", random_trials(3), ledger_owner="gone")
    with pytest.raises(LedgerError, match="belongs to"):
        StudyResults(folder).trials()


def odd_trials() -> list[Trial]:
    """Return trials of every kind that a search writes."""
    made = random_trials(40)
    changes: dict[int, dict[str, object]] = {
        1: {"values": {"error": math.nan, "latency_ms": 1.0}},
        2: {"values": {"error": math.inf, "latency_ms": -math.inf}},
        3: {"facts": {"x_ms": math.nan, "y_ms": -math.inf, "z": 0.1 + 0.2}},
        4: {"facts": {}, "fidelity": 1 / 3},
        5: {"failure": 'crashed: "quoted", \n grün', "values": {}},
        6: {"seed": 2**62, "seconds": math.inf, "ended_s": 1e-300},
    }
    timed = [dataclasses.replace(trial, ended_s=0.1 * trial.number) for trial in made]
    return [
        dataclasses.replace(trial, **changes.get(trial.number, {}))  # type: ignore[arg-type]
        for trial in timed
    ]


def test_optuna_reads_what_is_written_as_if_it_had_written_it(url: str) -> None:
    """The tables are written without Optuna: they hold what Optuna writes of the same trials."""
    made = odd_trials()
    ledger = open_ledger(url)
    ledger.append(*made[:15])
    for trial in made[15:]:
        ledger.append(trial)
    written = optuna.load_study(study_name="digits", storage=url)
    again = optuna.create_study(
        storage=url, study_name="again", directions=["minimize"] * len(OBJECTIVES)
    )
    for trial in written.trials:
        own = {**trial.user_attrs, "hwnas_unique_number": f"again/{trial.number}"}
        again.add_trial(
            optuna.trial.create_trial(
                state=trial.state,
                values=trial.values,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=own,
            )
        )
    columns = {
        "trials": "number, state, typeof(datetime_start), length(datetime_complete)",
        "trial_user_attributes": "number, key, value_json",
        "trial_params": "number, param_name, param_value, distribution_json",
        "trial_values": "number, objective, value, value_type",
        "trial_system_attributes": "number, key, value_json",
        "trial_intermediate_values": "number, step",
    }
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        for table, names in columns.items():
            join = "" if table == "trials" else f"JOIN {table} USING (trial_id)"
            query = f"SELECT {names} FROM trials {join} WHERE study_id = ? AND number > ?"
            own, optunas = (
                sorted(map(repr, database.execute(query, (study_id, -1)))) for study_id in (1, 2)
            )
            assert own == [row.replace("again/", "digits/") for row in optunas], table
    [first] = [t for t in again.trials if t.number == 0]
    assert first.datetime_start is not None
    apart = first.datetime_start - written.trials[0].datetime_start  # type: ignore[operator]
    assert abs(apart.total_seconds()) < 600


def test_a_trial_that_was_cut_is_read_as_one(url: str) -> None:
    ledger = open_ledger(url)
    cut = dataclasses.replace(make_trial(0, 1.0, 1.0), fidelity=0.25, cut=True)
    ledger.append(cut, make_trial(1, 1.0, 1.0))
    assert [(t.fidelity, t.cut) for t in ledger.trials()] == [(0.25, True), (1.0, False)]


def test_a_cut_that_is_no_truth_value_is_refused() -> None:
    attributes, values = encoded_trial(make_trial(0, 1.0, 1.0), ["error", "latency_ms"])
    with pytest.raises(TypeError, match="cut"):
        decoded_trial({**attributes, "cut": "false"}, values or [], ["error", "latency_ms"])


def test_what_is_read_is_what_optuna_reads(url: str) -> None:
    """The tables are read without Optuna, with trials of others and in any order."""
    made = odd_trials()
    study = optuna.create_study(study_name="other", storage=url)
    study.enqueue_trial({"x": 1.0})
    ledger = open_ledger(url)
    study = optuna.load_study(study_name="digits", storage=url)
    ledger.append(*reversed(made[:20]))
    # As a dashboard does.
    study.enqueue_trial({"depth": 2})
    study.trials[3].set_user_attr("note", "good")
    study.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    ledger.append(*made[20:])
    read = Ledger.load(url, "digits").trials()
    assert [repr(trial) for trial in read] == [repr(trial) for trial in made]

    frozen = {t.user_attrs["number"]: t for t in study.trials if "number" in t.user_attrs}
    assert sorted(frozen) == [trial.number for trial in read]
    for trial in read:
        held = frozen[trial.number]
        names = [gene.name for gene in GENES]
        genotype = [gene.choices.index(held.params[gene.name]) for gene in GENES]
        assert names == list(held.params)
        assert trial.genotype == tuple(genotype)
        assert (trial.arch_id, trial.seed) == (held.user_attrs["arch_id"], held.user_attrs["seed"])
        finite = trial.complete and not any(map(math.isnan, trial.values.values()))
        assert held.state.name == ("COMPLETE" if finite else "FAIL")
        if finite:
            assert held.values == [trial.values[name] for name in OBJECTIVES]


def test_trials_that_are_written_together_are_written_all_or_none(url: str) -> None:
    made = random_trials(6)
    ledger = open_ledger(url)
    wrong = dataclasses.replace(made[2], genotype=(0, 0))
    with pytest.raises(LedgerError, match="trial 2 got genotype"):
        ledger.append(made[0], made[1], wrong)
    assert ledger.trials() == []
    ledger.append(*made[:3])
    # What is held already, as after an answer that never came, is left as it is.
    ledger.append(*made)
    assert ledger.trials() == made
    ledger.append()
    other = dataclasses.replace(made[5], arch_id="f" * 12)
    with pytest.raises(LedgerError, match="trial 5 got architecture ffffffffffff"):
        ledger.append(make_trial(6, 1.0, 1.0), other)
    assert ledger.trials() == made


def altered(url: str, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_tables_of_a_newer_optuna_are_read_where_they_have_what_is_needed(url: str) -> None:
    open_ledger(url).append(make_trial(0, 1.0, 1.0))
    altered(
        url,
        "UPDATE alembic_version SET version_num = 'v9.9.9.z'",
        "ALTER TABLE trials ADD COLUMN mood TEXT",
    )
    assert count_of(url) == 1


def test_tables_of_another_optuna_are_refused(url: str) -> None:
    open_ledger(url)
    altered(
        url,
        "UPDATE alembic_version SET version_num = 'v9.9.9.z'",
        "ALTER TABLE trial_values RENAME COLUMN value_type TO kind",
    )
    for attempt in (open_ledger, lambda url: Ledger.load(url, "digits")):
        with pytest.raises(LedgerError, match="ledger") as caught:
            attempt(url)
        assert "\n" not in str(caught.value)


def test_a_damaged_trial_is_one_line(url: str) -> None:
    ledger = open_ledger(url)
    ledger.append(*random_trials(3))
    damages = {"value_json": ("{", "null", '"x"'), "key": ("gone",)}
    for column, values in damages.items():
        for value in values:
            with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
                query = f"UPDATE trial_user_attributes SET {column} = ? WHERE trial_id = 2"
                where = " AND key = 'facts'" if column == "value_json" else " AND key = 'seed'"
                database.execute(query + where, (value,))
                database.commit()
            with pytest.raises(LedgerError, match=r"ledger\.db: .*damaged") as caught:
                Ledger.load(url, "digits").trials()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["DELETE FROM trial_values", "UPDATE trial_values SET value=1"])
def test_a_value_is_never_taken_for_that_of_another_objective(url: str, change: str) -> None:
    ledger = open_ledger(url)
    trial = random_trials(1)[0]
    ledger.append(trial)
    file = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute(f"{change} WHERE objective = 0")
        database.commit()
    if change.startswith("DELETE"):
        with pytest.raises(LedgerError, match=r"ledger\.db: .*damaged"):
            Ledger.load(url, "digits").trials()
    else:
        [read] = Ledger.load(url, "digits").trials()
        first = ledger.objectives[0]
        assert read.values == {**trial.values, first: 1.0}


def test_reading_loads_neither_optuna_nor_sqlalchemy(url: str) -> None:
    open_ledger(url).append(*random_trials(3))
    code = (
        "import sys; from nas.results.ledger import Ledger; "
        f"print(len(Ledger.load({url!r}, 'digits').trials())); "
        "print(*{'optuna', 'sqlalchemy', 'pandas', 'torch'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["3"]


ENDLESS = "WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless)"


@pytest.mark.parametrize("table", ["studies", "trials", "study_user_attributes"])
def test_a_view_in_place_of_a_table_is_not_read(url: str, table: str) -> None:
    """It may compute for ever."""
    open_ledger(url).append(make_trial(0, 1.0, 1.0))
    names = columns_of(url, table)
    values = ", ".join(f"n AS {name}" for name in names)
    view = f"CREATE VIEW {table} AS {ENDLESS} SELECT {values} FROM endless"
    altered(url, f"ALTER TABLE {table} RENAME TO kept", view)
    with pytest.raises(LedgerError, match=f"lacks {table}"):
        Ledger.load(url, "digits")


def columns_of(url: str, table: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        return [
            name for (name,) in database.execute(f"SELECT name FROM pragma_table_info('{table}')")
        ]
