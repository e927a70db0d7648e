"""Each file of a finished study, damaged in turn: one line that names the file, or the same answer.

Nothing is taken for granted of a file that is still valid JSON, either: `null` where a list belongs
is damage as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from nas_command import SMALL, Ended, Finished

import search_spaces
from nas.core.errors import HwnasError
from nas.network.trained import TrainedNetwork
from nas.results.study import StudyResults
from nas.study import export
from nas.study.calibration import Calibration
from nas.study.checking import component
from nas.study.folder import StudyFolder

Here = Callable[..., Ended]
Damage = Callable[[bytes], bytes]

FILES = (
    "study.json",
    "config.yaml",
    "ledger.db",
    "finalised/members.json",
    "finalised/*/network.json",
    "finalised/*/weights.safetensors",
    "finalised/*/model.onnx",
    "finalised/*/measurement.json",
    "finalised/*/deployment.json",
    "finalised/*/result.json",
    "finalised/*/test_details.json",
    "predictor/calibration.json",
    "predictor/predictor.json",
    "predictor/predictor.npz",
    "pareto.csv",
    "pareto.png",
)
"""Of a study's folder; the test fails where a study leaves a file that is not named here."""

READ_AGAIN = tuple(
    file
    for file in FILES
    if not file.startswith(("predictor", "pareto")) and not file.endswith("model.onnx")
)
"""What is read of a study that is finished; what else is damaged is of no consequence."""

CONTENTS: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(np.random.default_rng(0).bytes(max(len(content), 100))),
    "null": lambda content: b"null",
    "list": lambda content: b"[]",
    "empty object": lambda content: b"{}",
    "nested": lambda content: b"[" * 100_000,
}


def all_null(content: bytes) -> bytes:
    return json.dumps(dict.fromkeys(json.loads(content))).encode()


def lists_null(content: bytes) -> bytes:
    """Return JSON with `null` in place of every list in it."""

    def changed(value: object) -> object:
        if isinstance(value, dict):
            return {key: changed(item) for key, item in value.items()}
        return None if isinstance(value, list) else value

    return json.dumps(changed(json.loads(content))).encode()


def other_shape(content: bytes) -> bytes:
    weights = safetensors.numpy.load(content)
    return safetensors.numpy.save({n: np.zeros((3, *w.shape), w.dtype) for n, w in weights.items()})


def other_names(content: bytes) -> bytes:
    weights = safetensors.numpy.load(content)
    return safetensors.numpy.save({f"x{name}": value for name, value in weights.items()})


DAMAGES: dict[str, Damage] = {
    **CONTENTS,
    "all null": all_null,
    "lists null": lists_null,
    "other shape": other_shape,
    "other names": other_names,
}


def cases() -> Iterator[tuple[str, str]]:
    for file in FILES:
        names = ["garbage"]
        if file in READ_AGAIN:
            names = [*CONTENTS]
            names += ["all null", "lists null"] * file.endswith(".json")
            names += ["other shape", "other names"] * file.endswith(".safetensors")
        yield from ((file, name) for name in names)


@pytest.fixture(scope="module")
def expected(finished: Finished) -> list[str]:
    return finished.study.pareto()["arch_id"].tolist()


@pytest.fixture
def study(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the finished study, beside another one that is intact."""
    # Writing and verifying take some seconds, and have nothing to do with what is read.
    monkeypatch.setattr(export, "write", lambda folder, network, **others: folder)
    monkeypatch.setattr(export, "verify", lambda folder: 0.0)
    shutil.copytree(finished.folder, tmp_path / "runs" / "intact")
    return Path(shutil.copytree(finished.folder, tmp_path / "runs" / "small"))


def found(study: Path, file: str) -> Path:
    return sorted(study.glob(file))[0]


@pytest.mark.slow
def test_every_file_of_a_study_is_named_here(finished: Finished) -> None:
    left = {path for path in finished.folder.rglob("*") if path.is_file()}
    for pattern in (*FILES, ".lock"):
        left -= set(finished.folder.glob(pattern))
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage"), cases())
def test_a_damaged_file(
    file: str,
    damage: str,
    study: Path,
    here: Here,
    expected: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = found(study, file)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    listed = here("studies", "--json")
    warned = [record.getMessage() for record in caplog.records if record.name == "nas.results"]
    shown = here("pareto", "small", "--json")
    exported = here(
        "export", "small", "--pick", found(study, "finalised/*/network.json").parent.name
    )
    again = here("search", *SMALL)
    for ended in (shown, exported, again):
        assert ended.returncode in (0, 2), ended.stderr
        if ended.returncode == 2:
            assert ended.stderr.count("\n") == 1, ended.stderr
            assert str(path.relative_to(study)) in ended.stderr
            assert file in READ_AGAIN
    assert listed.returncode == 0
    assert "intact" in {record["name"] for record in json.loads(listed.stdout)}
    assert len(warned) == (shown.returncode != 0)
    if shown.returncode == 0:
        assert [row["arch_id"] for row in json.loads(shown.stdout)] == expected
    else:
        assert path.name in warned[0]
        assert "\n" not in warned[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "predictor/predictor.npz",
        "finalised/members.json",
        "finalised/*/weights.safetensors",
        "finalised/*/measurement.json",
    ],
)
def test_a_search_that_goes_on(file: str, study: Path, here: Here, finished: Finished) -> None:
    shutil.copytree(finished.folder.parent / "measurements", study.parent / "measurements")
    # Its last step is left to do, for which all others are read.
    for result in study.glob("finalised/*/result.json"):
        result.unlink()
    path = found(study, file)
    path.write_bytes(path.read_bytes()[:-100])
    ended = here("search", *SMALL)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert str(path.relative_to(study)) in ended.stderr
    # The line says what to delete: it is made anew.
    if file == "finalised/members.json":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    ended = here("search", *SMALL)
    assert ended.returncode == 0, ended.stderr


def in_turn(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield JSON with each entry in turn `null`, and without it."""
    record = json.loads(content)
    for name in record:
        yield f"{name} null", json.dumps({**record, name: None}).encode()
        yield f"no {name}", json.dumps({k: v for k, v in record.items() if k != name}).encode()


READ: dict[str, Callable[[Path], object]] = {
    "study.json": lambda study: StudyResults(study).pareto(),
    "finalised/*/result.json": lambda study: StudyResults(study).pareto(),
    "finalised/*/network.json": lambda study: network(study),
    "finalised/*/weights.safetensors": lambda study: network(study),
    "predictor/calibration.json": lambda study: Calibration.load(study / "predictor", space(study)),
    "predictor/predictor.json": lambda study: Calibration.load(study / "predictor", space(study)),
    "predictor/predictor.npz": lambda study: Calibration.load(study / "predictor", space(study)),
    "config.yaml": lambda study: StudyFolder(study).saved(),
}
"""What reads a file, where commands that find nothing left to do do not."""


def space(study: Path):
    record = json.loads((study / "study.json").read_text())
    return component(search_spaces.registry, record["space"], "space")


def network(study: Path) -> TrainedNetwork:
    folder = found(study, "finalised/*/network.json").parent
    row = StudyResults(study).pick(folder.name)
    return TrainedNetwork.load(folder, space(study).build(row["genotype"]))


@pytest.mark.parametrize("file", READ)
def test_what_reads_a_file_names_it(file: str, study: Path) -> None:
    path, read = found(study, file), READ[file]
    content = path.read_bytes()
    read(study)
    damaged = [(name, damage(content)) for name, damage in CONTENTS.items()]
    if file.endswith(".json"):
        damaged += [*in_turn(content), ("all null", all_null(content))]
    errors = {}
    for name, text in damaged:
        path.write_bytes(text)
        try:
            read(study)
        except HwnasError as error:
            errors[name] = str(error)
    # Not every entry is needed by what reads the file.
    assert errors.keys() >= CONTENTS.keys()
    assert not [line for line in errors.values() if str(path) not in line or "\n" in line]


def test_a_predictor_of_other_numbers(study: Path) -> None:
    path = study / "predictor" / "predictor.npz"
    with np.load(path) as found:
        arrays = dict(found)
    for name, array in arrays.items():
        others = {
            "text": np.full(array.shape, "x"),
            "no number": np.full(array.shape, np.nan),
        }
        if name in ("genotypes", "refitted", "measured", "held_out"):
            others["too few"] = array[1:]
        for what, other in others.items():
            np.savez(path, **{**arrays, name: other})
            with pytest.raises(HwnasError, match=r"predictor\.npz") as refused:
                Calibration.load(study / "predictor", space(study))
            assert "\n" not in str(refused.value), (name, what)
