"""What cannot work is refused at once, in one line that names it, and leaves nothing behind."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
from nas_command import SMALL, Ended

from nas.study.folder import StudyFolder

Here = Callable[..., Ended]

REFUSED = {
    "mistyped setting": ("search.evaluation=3", "search.evaluation: got 3", "lookahead"),
    "mistyped section": ("finalize.limit=2", "configuration: got 'finalize'", "finalise"),
    "mistyped setting of a device": ("device.thread=3", "device.thread: got 3", "threads"),
    "unknown space": ("search_space=mobilnet", "search space: got 'mobilnet'", "mobilenet"),
    "unknown experiment": ("experiment=quick", "experiment: got 'quick'", "quickstart"),
    "unknown space by name": ("search_space.name=x", "search space: got 'x'", "mobilenet"),
    "unknown device": ("device.name=foo", "device: got 'foo'", "cpu"),
    "unknown algorithm": ("search.algorithm.name=foo", "search algorithm: got 'foo'", "nsga2"),
    "unknown data": ("data.name=foo", "data set: got 'foo'", "digits"),
    "unknown predictor": ("latency_predictor.name=foo", "latency predictor: got 'foo'", "gaussian"),
    "unknown evaluator": ("evaluation.name=foo", "evaluation: got 'foo'", "training"),
    "no group": ("~data", "name: cannot be resolved", "data.name"),
    "text for a number": ("search.evaluations=many", "search.evaluations: got 'many'", "whole"),
    "share for a count": ("search.evaluations=1.5", "search.evaluations: got 1.5", "whole"),
    "text for a truth": (
        "device.runtime.allow_spinning=3.5",
        "device.runtime.allow_spinning: got 3.5",
        "true",
    ),
    "unknown runtime": ("device.runtime=foo", "device.runtime: got 'foo'", "openvino"),
    "setting of another runtime": (
        "+device.runtime.compiled=true",
        "device.runtime.compiled: got True",
        "allow_spinning",
    ),
    "text for a list": ("search.constraints=foo", "search.constraints: got 'foo'", "a list"),
    "list for a text": ("search.objectives=[[error]]", "search.objectives: got ['error']", "texts"),
    "nothing for a number": ("seed=null", "seed: got None", "a value"),
    "no evaluations": ("search.evaluations=0", "search.evaluations: got 0", "1 or more"),
    "negative seed": ("seed=-1", "seed: got -1", "0 or more"),
    "too few samples": ("latency_predictor.samples=1", "latency_predictor.samples: got 1", "4"),
    "no epochs": ("evaluation.recipe.epochs=0", "evaluation.recipe.epochs: got 0", "1 or more"),
    "images that grow too large": (
        "evaluation.recipe.initial_resolution=2",
        "evaluation.recipe.initial_resolution: got 2",
        "1 at most",
    ),
    "no epochs at the end": ("finalise.recipe.epochs=0", "finalise.recipe.epochs: got 0", "1"),
    "negative limit": ("finalise.limit=-1", "finalise.limit: got -1", "0 or more"),
    "constraint text": ('search.constraints=["error 2"]', "got 'error 2'", "latency_ms <= 2"),
    "constraint name": ('search.constraints=["foo<=2"]', "objective: got 'foo'", "macs_m"),
    "unknown objective": ("search.objectives=[foo]", "objective: got 'foo'", "latency_ms"),
    "objective twice": ("search.objectives=[error,error]", "search.objectives: got", "each once"),
    "no objective": ("search.objectives=[]", "search.objectives: got []", "at least one"),
    "bad name": ("name=../x", "name: got '../x'", "letters"),
    "name that reads as a number": ("name=359_0", "name: got 3590", "quote"),
    "name of a folder beside": ("name=measurements", "name: got 'measurements'", "no study"),
    "negative number of measurements": (
        "search.adaptive_measurement.measurements=-1",
        "search.adaptive_measurement.measurements: got -1",
        "0 or more",
    ),
    "certain coverage": (
        "search.adaptive_measurement.coverage=1",
        "search.adaptive_measurement.coverage: got 1",
        "between",
    ),
    "missing path": ("data=npz", "data.path: got None", "a value"),
    "reference of nothing": (
        "search.reference_point={foo: 1}",
        "search.reference_point.foo: got 'foo'",
        "error, latency_ms",
    ),
    "reference at zero": (
        "search.reference_point={error: 0}",
        "search.reference_point.error: got 0.0",
        "above 0",
    ),
    "missing module": ("imports=[no_such_module]", "got 'no_such_module'", "PYTHONPATH"),
    "module as text": ("imports=no_such_module", "imports: got 'no_such_module'", "a list"),
    "unknown database": ("ledger.url=foo", "ledger 'foo'", "postgresql://"),
    "ledger without a file": ("ledger.url=sqlite://", "ledger.url: got 'sqlite://'", "FILE"),
    "ledger without a folder": ("ledger.url=sqlite:////no/x.db", "ledger.url: got", "exists"),
    "unset variable": ("ledger.url=${oc.env:NOT_SET}", "ledger.url: cannot be", "NOT_SET"),
    "exposed password": (
        'ledger.url="postgresql://u@h/d?password=secret"',
        "ledger.url: got",
        "PGPASSWORD",
    ),
    "unreadable override": ("a b", "a b: cannot be read", "NAME=VALUE"),
    "no folder of settings": ("--config-dir=nowhere", "--config-dir: got 'nowhere'", "a folder"),
    "several values": ("seed=0,1", "seed: got '0,1'", "--multirun"),
    "what the data say": ("search_space.num_classes=3", "search_space.num_classes: got 3", "data"),
}


def assert_refused(ended: Ended, begins: str, holds: str, folder: Path) -> None:
    assert ended.returncode == 2
    assert ended.stderr.startswith("nas: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert begins in ended.stderr
    assert holds in ended.stderr
    assert "secret" not in ended.stderr
    assert ended.stdout == ""
    assert not list(folder.iterdir())
    assert not ray.is_initialized()


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_cannot_work_is_refused(case: str, here: Here, tmp_path: Path) -> None:
    override, begins, holds = REFUSED[case]
    assert_refused(here("search", override), begins, holds, tmp_path)


def test_the_noise_of_something_else_is_refused(here: Here, tmp_path: Path) -> None:
    ended = here("search", "fidelity=mo_asha", "fidelity.noise={errors: 0.5}")
    begins = "fidelity.noise.errors: got 'errors'"
    assert_refused(ended, begins, "error, latency_ms", tmp_path)


def test_an_unreadable_file_is_named(here: Here, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("data")
    file = elsewhere / "images.npz"
    file.write_text("no images")
    assert_refused(
        here("search", "data=npz", f"data.path={file}"), str(file), "npz file", Path.cwd()
    )
    missing = elsewhere / "missing.npz"
    assert_refused(
        here("search", "data=npz", f"data.path={missing}"), str(missing), "no such file", Path.cwd()
    )
    np.savez(file, x=np.zeros((4, 3)), y=np.zeros(4, int))
    assert_refused(
        here("search", "data=npz", f"data.path={file}"), str(file), "shape (4, 3)", Path.cwd()
    )


def test_a_damaged_ledger_is_named(here: Here, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    file.write_text("no database, but long enough to be looked at" * 10)
    refused = here("search", f"ledger.url=sqlite:///{file}")
    assert_refused(refused, str(file), "is not a database", Path.cwd())


def test_a_cluster_that_does_not_answer_is_named(here: Here, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        refused = here("search", f"ray.address={address}")
    assert_refused(refused, f"ray.address: got '{address}'", "ray start --head", tmp_path)


def test_a_study_has_one_writer(here: Here, tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "runs" / "small").locked():
        refused = here("search", *SMALL)
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: runs/small: another process runs this study")
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(here: Here, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    refused = here("search", *SMALL)
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: runs/small: cannot be written")
    assert refused.stderr.count("\n") == 1


def test_commands_on_no_study_say_what_there_is(here: Here, tmp_path: Path) -> None:
    for command in (("pareto", "x"), ("export", "x")):
        refused = here(*command)
        assert refused.returncode == 2
        assert refused.stderr == "nas: study: got 'x', expected a study of runs/: none\n"
    assert here("studies", "--json").stdout == "[]\n"


def test_a_damaged_study_is_named(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "broken"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{")
    refused = here("pareto", "broken")
    assert refused.returncode == 2
    assert refused.stderr.startswith("nas: runs/broken/study.json: is not JSON")
    assert refused.stderr.count("\n") == 1


def test_a_full_disk_is_one_line(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(runs: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/small/weights.part")

    monkeypatch.setattr("nas.results.studies", write)
    ended = here("studies")
    assert ended.returncode == 2
    assert ended.stderr.startswith("nas: runs/small/weights.part: No space left on device; free")
    assert ended.stderr.count("\n") == 1
