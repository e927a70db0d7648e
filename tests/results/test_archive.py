"""Studies as archives, which may come from anybody."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_up_studies import finalise, random_trials

from nas.core.errors import ConfigError, HwnasError
from nas.results.archive import pack, unpack
from nas.results.study import StudyResults


def archive_of(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def file_of(name: str, size: int = 2) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def link_to(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_an_unpacked_study_is_the_same(study_folder: Callable[..., Path], tmp_path: Path) -> None:
    trials = random_trials(20)
    folder = study_folder(trials, status="finalised")
    finalise(folder, trials[0], measured_ms=1.0)
    (folder / ".lock").touch()
    (folder / "elsewhere").symlink_to("/etc/hostname")
    pack(StudyResults(folder), tmp_path / "digits.tar.gz")
    again = unpack(tmp_path / "digits.tar.gz", tmp_path / "other")
    assert again == tmp_path / "other" / "digits"
    assert not {path.name for path in again.iterdir()} & {".lock", "elsewhere"}
    folder.rename(tmp_path / "gone")
    before, after = (StudyResults(path).trials() for path in (tmp_path / "gone", again))
    pd.testing.assert_frame_equal(before, after)
    with pytest.raises(HwnasError, match="is there already"):
        unpack(tmp_path / "digits.tar.gz", tmp_path / "other")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([file_of("../outside")], "outside"),
        ([file_of("/tmp/outside")], "one study"),
        ([link_to("a/study.json", "/etc/passwd")], "no regular file"),
        ([file_of("a/large", 40_000_000)], "more than 30 MB"),
        ([file_of("a/study.json"), file_of("b/study.json")], "one study"),
        ([file_of("a/study.json")], r"study\.json"),
        ([], "one study"),
    ],
)
def test_what_is_no_study_leaves_nothing(
    tmp_path: Path, members: list[tarfile.TarInfo], message: str
) -> None:
    path = archive_of(tmp_path / "some.tar.gz", members)
    with pytest.raises(HwnasError, match=message):
        unpack(path, tmp_path / "runs", largest_mb=30)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00garbage"])
def test_what_is_no_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.tar.gz").write_bytes(content)
    with pytest.raises(HwnasError, match=r"some\.tar\.gz: no archive"):
        unpack(tmp_path / "some.tar.gz", tmp_path / "runs")


def test_an_archive_that_is_cut_is_one_line(
    study_folder: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "digits.tar.gz"
    pack(StudyResults(study_folder(random_trials(20))), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(HwnasError, match=r"digits\.tar\.gz: no archive"):
        unpack(path, tmp_path / "other")


@pytest.mark.parametrize("largest_mb", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, largest_mb: float) -> None:
    with pytest.raises(ConfigError, match="largest-mb"):
        unpack(archive_of(tmp_path / "some.tar.gz", []), tmp_path / "runs", largest_mb=largest_mb)


def test_an_archive_is_written_where_a_file_can_be(
    study_folder: Callable[..., Path], tmp_path: Path
) -> None:
    study = StudyResults(study_folder(random_trials(3)))
    for path in (tmp_path, tmp_path / "none" / "digits.tar.gz"):
        with pytest.raises(ConfigError, match="--out"):
            pack(study, path)
