from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas.core import files
from nas.core.files import temporary_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")

MAKE = """
import sys, time
from pathlib import Path
from nas.core.files import temporary_folder
with temporary_folder(parent=Path(sys.argv[1])) as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(1000)
"""


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), temporary_folder(parent=tmp_path) as folder:
        folder.mkdir()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_has_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_NEW_S", 0.0)
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            left = Path(process.stdout.readline().strip())
            with temporary_folder(parent=tmp_path):
                assert (left / "file").exists()
        finally:
            process.kill()
    assert left.exists()
    with temporary_folder(parent=tmp_path):
        assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
