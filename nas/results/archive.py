"""A study as one file: packed for a colleague, and unpacked from anybody."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nas.core.errors import ConfigError, HwnasError, one_line
from nas.results import RECORD
from nas.results.study import StudyResults

LEFT_OUT = (".lock", "checkpoints", "prepared")
"""What only the search itself needs: it is not packed."""

LARGEST_MB = 4096.0
"""Of what is unpacked, unless told otherwise."""


def pack(study: StudyResults, path: Path) -> None:
    """Write a study into a compressed archive: all that commands read of it, and no images.

    Args:
        study: Whose ledger lies in its folder.
        path: The archive, `.tar.gz`.

    Raises:
        ConfigError: `path` is a folder, or lies in none.
        HwnasError: The ledger lies elsewhere, or a file cannot be read or written.
    """
    if study.ledger_elsewhere:
        line = f"{study.path}: its ledger lies outside of its folder, so it cannot be packed"
        raise HwnasError(line)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError("--out", str(path), "a file in a folder that exists")
    study.trials()  # which also undoes what a killed search left half written
    with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        made = Path(folder) / path.name
        with tarfile.open(made, "w:gz") as archive:
            for file in sorted(study.path.rglob("*")):
                own = file.relative_to(study.path)
                if file.is_file() and not file.is_symlink() and own.parts[0] not in LEFT_OUT:
                    name = PurePosixPath(study.name, *own.parts)
                    with _at_rest(file, Path(folder)) as source:
                        archive.add(source, str(name))
        made.replace(path)


def unpack(path: Path, runs: Path, *, largest_mb: float = LARGEST_MB) -> Path:
    """Unpack an archive of `pack` into a folder of studies; nothing of it is run.

    Args:
        path: The archive, which may come from anybody.
        runs: The folder of studies; made where it is missing.
        largest_mb: Refused is what unpacks to more megabytes.

    Returns:
        The study's folder.

    Raises:
        ConfigError: `largest_mb` is not above 0.
        HwnasError: It holds something else than one study, is larger, or cannot be read; or the
            folder of studies has one of that name.
    """
    if not 0 < largest_mb < math.inf:  # NaN is neither
        raise ConfigError("--largest-mb", largest_mb, "a number above 0")
    new = not runs.exists()
    runs.mkdir(parents=True, exist_ok=True)
    try:
        return _checked_and_moved(path, runs, largest_mb)
    except BaseException:
        if new:
            runs.rmdir()
        raise


def _checked_and_moved(path: Path, runs: Path, largest_mb: float) -> Path:
    with tempfile.TemporaryDirectory(dir=runs) as folder:
        try:
            with tarfile.open(path, "r:gz") as archive:
                left = largest_mb * 1e6
                for member in archive:
                    left -= member.size
                    if left < 0:
                        line = f"{path}: unpacks to more than {largest_mb:g} MB"
                        raise HwnasError(f"{line}; allow it by --largest-mb if you trust it")
                    if not member.isfile():
                        raise HwnasError(
                            f"{path}: {member.name!r} is no regular file; not unpacked"
                        )
                    archive.extract(member, folder, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise HwnasError(f"{path}: no archive of a study ({one_line(error)})") from error
        studies = [record.parent for record in Path(folder).glob(f"*/{RECORD}")]
        if len(studies) != 1 or len(list(Path(folder).iterdir())) != 1:
            raise HwnasError(f"{path}: holds something else than one study; not unpacked")
        target = runs / StudyResults(studies[0]).name
        if target.exists():
            raise HwnasError(f"{target}: is there already; rename it, or unpack into other --runs")
        return studies[0].rename(target)


@contextlib.contextmanager
def _at_rest(file: Path, folder: Path) -> Iterator[Path]:
    """Yield a file, or a copy of a database in which no transaction is half written."""
    if file.suffix != ".db":
        yield file
        return
    copy = folder / "copy.db"
    address = f"{file.resolve().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(address, uri=True)) as own,
        contextlib.closing(sqlite3.connect(copy)) as other,
    ):
        own.backup(other)
    yield copy
    copy.unlink()
