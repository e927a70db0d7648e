from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from worker_jobs import Behave, Overlap

from nas.cluster.connection import connected
from nas.cluster.ray_evaluator import RayEvaluator
from nas.core.errors import ConfigError, HostBusyError, HwnasError
from nas.core.host import measuring
from nas.core.trial import Candidate, Evaluation, Job, Outcome

PATIENCE_S = 60


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Workers look for modules where their environment says.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with connected(None):
            yield


def start(job: Job, **settings: object) -> RayEvaluator:
    defaults = {"workers": None, "cpus_per_worker": 1, "gpus_per_worker": 0, "time_limit_s": 100}
    return RayEvaluator(job, **(defaults | settings))


def candidates(what: Sequence[str]) -> list[Candidate]:
    return [
        Candidate(number=number, genotype=(number,), arch_id=arch_id, seed=0)
        for number, arch_id in enumerate(what)
    ]


def evaluated(job: Job, what: Sequence[str], **settings: object) -> list[Evaluation]:
    """Evaluate candidates; return the evaluations by number."""
    evaluations: list[Evaluation] = []
    with closing(start(job, **settings)) as evaluator:
        evaluator.submit(candidates(what))
        while ended := evaluator.completed():
            evaluations += ended
    assert len(evaluations) == len(what)
    return sorted(evaluations, key=lambda evaluation: evaluation.candidate.number)


def test_more_candidates_than_workers_all_come_back(tmp_path: Path):
    what = ["return"] * 25
    for number, evaluation in enumerate(evaluated(Behave(tmp_path), what)):
        assert evaluation.candidate == candidates(what)[number]
        assert evaluation.failure is None
        assert evaluation.outcome is not None
        assert evaluation.outcome.metrics == {"error": 10.0 + number}
        assert evaluation.outcome.weights == b"weights"
        assert 0 < evaluation.seconds < PATIENCE_S


def test_a_failed_candidate_says_why_and_the_others_go_on(tmp_path: Path):
    expected = {
        "diverge": "diverged: the loss became nan in step 3",
        "raise": "crashed: ZeroDivisionError: division by zero",
        "exit": "worker_died: ",
        "kill": "worker_died: ",
        "no_memory": "out_of_memory: could not allocate 8 TB",
        "no_gpu_memory": "out_of_memory: CUDA out of memory. Tried to allocate 2 GiB",
    }
    what = [each for cause in expected for each in (cause, "return")]
    for evaluation in evaluated(Behave(tmp_path), what):
        failure = expected.get(evaluation.candidate.arch_id)
        if failure is None:
            assert evaluation.failure is None
        else:
            assert evaluation.outcome is None
            assert evaluation.failure is not None
            assert evaluation.failure.startswith(failure)
            assert "\n" not in evaluation.failure
            assert len(evaluation.failure) > len("worker_died: ")
            assert evaluation.seconds >= 0


@dataclass(frozen=True)
class Count(Behave):
    """Counts how often a candidate begins; one named `once_...` does it in its first run only."""

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        with (self.folder / f"{candidate.number}.runs").open("a") as file:
            file.write("x")
        first = self.runs(candidate.number) == 1
        what = candidate.arch_id.removeprefix("once_")
        what = what if first or what == candidate.arch_id else "return"
        return super().__call__(replace(candidate, arch_id=what), deadline)

    def runs(self, number: int) -> int:
        return len((self.folder / f"{number}.runs").read_text())


def test_a_candidate_whose_worker_dies_is_tried_once_more(tmp_path: Path):
    job = Count(tmp_path)
    once, always = evaluated(job, ["once_kill", "kill"])
    assert once.failure is None
    assert once.seconds > 0
    assert always.failure is not None
    assert always.failure.startswith("worker_died: ")
    assert [job.runs(number) for number in range(2)] == [2, 2]


def test_a_candidate_that_fails_by_itself_is_not_tried_again(tmp_path: Path):
    job = Count(tmp_path)
    evaluated(job, ["raise", "diverge", "no_memory", "return"])
    assert [job.runs(number) for number in range(4)] == [1, 1, 1, 1]


def test_time_limits(tmp_path: Path):
    """A job that heeds its limit says so itself; one that does not is killed."""
    what = ["heed_the_limit", "ignore_the_limit", "return"]
    heeding, ignoring, fine = evaluated(Behave(tmp_path), what, time_limit_s=2, kill_after_s=2)
    assert heeding.failure == "timeout: stopped after 7 of 9 training steps"
    assert heeding.seconds >= 1
    assert ignoring.failure is not None
    assert ignoring.failure.startswith("timeout: killed after ")
    assert ignoring.failure.endswith(" s, the limit is 2")
    assert ignoring.seconds >= 2
    assert fine.failure is None
    assert_gone(tmp_path / "1.pid")


def test_waiting_for_a_place_does_not_count_towards_the_limit(tmp_path: Path):
    """Another study holds the whole cluster for longer than a candidate may take."""
    with closing(start(Behave(tmp_path), time_limit_s=4)) as other:
        other.submit(candidates(["heed_the_limit"] * other.workers))
        own = evaluated(Behave(tmp_path), ["return"], time_limit_s=1, kill_after_s=2)
        assert own[0].failure is None


def test_close_ends_what_still_runs(tmp_path: Path):
    evaluator = start(Behave(tmp_path))
    evaluator.submit(candidates(["ignore_the_limit"] * (evaluator.workers + 2)))
    started = [tmp_path / f"{number}.pid" for number in range(evaluator.workers)]
    wait_for(lambda: all(path.exists() and path.read_text() for path in started))
    evaluator.close()
    assert evaluator.completed() == []
    for path in started:
        assert_gone(path)
    assert evaluated(Behave(tmp_path), ["return"])[0].failure is None
    assert not (tmp_path / f"{evaluator.workers}.pid").exists()


def test_nothing_queued_returns_at_once(tmp_path: Path):
    with closing(start(Behave(tmp_path))) as evaluator:
        assert evaluator.completed() == []


def test_the_number_of_workers_is_a_limit(tmp_path: Path):
    one = evaluated(Overlap(tmp_path, 0.2), ["return"] * 3, workers=1)
    assert [e.outcome.metrics["error"] for e in one if e.outcome] == [1, 1, 1]
    with closing(start(Overlap(tmp_path, 0.2), workers=1)) as evaluator:
        assert evaluator.workers == 1


def test_no_more_workers_than_there_is_room_for(tmp_path: Path):
    with (
        closing(start(Behave(tmp_path), workers=999)) as many,
        closing(start(Behave(tmp_path))) as default,
    ):
        assert many.workers == default.workers < 999
    most = max(e.outcome.metrics["error"] for e in evaluated(Overlap(tmp_path, 0.2), ["x"] * 6))
    assert most <= default.workers


def test_a_worker_that_fits_nowhere_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"evaluation: got '999 cores and 0 GPUs', expected .*"):
        start(Behave(tmp_path), cpus_per_worker=999)
    with pytest.raises(ConfigError, match="gpus_per_worker"):
        start(Behave(tmp_path), gpus_per_worker=99.0)


def test_a_worker_without_gpus_sees_none(tmp_path: Path):
    assert evaluated(Behave(tmp_path), ["import_torch"])[0].failure is None


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_gone(pid_file: Path) -> None:
    pid = int(pid_file.read_text())
    wait_for(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )


@dataclass(frozen=True)
class Busy:
    """Finds something wrong with its surroundings, not with the candidate."""

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        if candidate.arch_id == "setting":
            raise ConfigError("HWNAS_LEASE_SECONDS", "process 1", "seconds, 0 or more")
        raise HostBusyError("this host: waited 1800 s for process 1 (other)")


@pytest.mark.parametrize("what", ["host", "setting"])
def test_a_worker_that_gives_up_waiting_for_its_host_fails_no_candidate(what: str) -> None:
    with pytest.raises(HwnasError, match="process 1"):
        evaluated(Busy(), [what])


def test_who_waits_for_a_measurement_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nas.cluster.ray_evaluator.NOTICE_S", 0.3)
    with closing(start(Behave(tmp_path))) as evaluator, ThreadPoolExecutor() as threads:
        with measuring():
            evaluator.submit(candidates(["return"]))
            ended = threads.submit(evaluator.completed)
            wait_for(lambda: "wait for a measurement" in caplog.text)
            assert not ended.done()
        assert [e.failure for e in ended.result(PATIENCE_S)] == [None]
    assert f"process {os.getpid()} " in caplog.text


def test_what_runs_when_time_is_up_is_cut_and_the_rest_is_not_begun(tmp_path: Path) -> None:
    with closing(start(Behave(tmp_path), workers=1)) as evaluator:
        evaluator.submit(candidates(["return"]))  # so that the worker is there
        assert len(evaluator.completed()) == 1
        evaluator.end_at(evaluator.clock() + 1.0)
        [first, *others] = candidates(["heed_the_end", "heed_the_end", "return"])
        evaluator.submit([first, *others])
        [cut] = evaluator.completed()
        assert cut.candidate == first
        assert cut.outcome is not None
        assert cut.outcome.cut_at == 0.5
        assert 0.5 < cut.seconds < 5
        assert evaluator.completed() == []
        # Where the end is put off, what comes then is begun.
        evaluator.submit(others[1:])
        evaluator.end_at(evaluator.clock() + 100)
        assert [e.candidate for e in evaluator.completed()] == others[1:]


def test_what_waits_for_a_place_when_time_is_up_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.cluster.ray_evaluator.LATE_S", 0.5)
    with (
        closing(start(Behave(tmp_path))) as other,
        closing(start(Behave(tmp_path))) as own,
    ):
        other.submit(candidates(["heed_the_limit"] * other.workers))
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == other.workers)
        own.end_at(own.clock() + 0.5)
        own.submit(candidates(["return"]))
        assert own.completed() == []
