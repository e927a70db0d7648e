from __future__ import annotations

from pathlib import Path

import contenders
import pytest
from _shared.table_task import TableTask
from campaign import BenchmarkRun, Campaign, RecordedRun, RunKey, RunRecord

from nas.core.errors import LedgerError

TASK = TableTask("cifar10", ("pixel2",))
RUN = BenchmarkRun(rows=(3, 1, 2), asked=4, seconds=0.25, seconds_at_end=0.5)
RANDOM = contenders.get("random_search")


def entry(seed: int, settings: dict[str, object] | None = None) -> RecordedRun:
    chosen = dict(RANDOM.settings) if settings is None else settings
    return RecordedRun(RunKey("random_search", TASK, seed), chosen, {}, 3, RUN)


def test_what_is_added_is_read(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "runs")
    assert record.entries() == {}
    record.add(entry(0))
    record.add(entry(1))
    assert list(record.entries().values()) == [entry(0), entry(1)]


def test_an_interrupted_line_is_dropped_and_a_strange_one_refused(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.add(entry(0))
    path = tmp_path / "random_search.jsonl"
    whole = path.read_text("utf-8")
    path.write_text(whole + whole[:20], "utf-8")
    assert list(record.entries().values()) == [entry(0)]
    record.add(entry(1))
    assert len(record.entries()) == 2
    path.write_text(whole + "{}\n", "utf-8")
    with pytest.raises(LedgerError, match="line 2"):
        record.entries()


def test_a_campaign_makes_only_what_is_missing(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.add(entry(7))
    made: list[int] = []
    campaign = Campaign([RANDOM], [TASK], [7, 8], 3)
    campaign.finish(record, 1, lambda entry, left: made.append(entry.key.seed))
    assert made == [8]
    known = campaign.entries(record)
    assert [key.seed for key in known] == [7, 8]
    assert next(iter(known.values())).run == RUN
    # More evaluations, or other settings, are other runs.
    assert Campaign([RANDOM], [TASK], [7, 8], 4).entries(record) == {}
    record.add(entry(7, {"population": 3}))
    assert [key.seed for key in campaign.entries(record)] == [8]
