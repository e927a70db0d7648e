from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from nas.core.errors import HwnasError
from nas.core.files import json_values, write_json_atomically


def test_json_values() -> None:
    record = {
        "a": np.float32(0.5),
        "b": (1, np.int64(2)),
        3: float("nan"),
        "c": np.array([1.0, np.inf]),
        "d": Path("x/y"),
        "e": [None, True, "t"],
    }
    expected = {
        "a": 0.5,
        "b": [1, 2],
        "3": None,
        "c": [1.0, None],
        "d": "x/y",
        "e": [None, True, "t"],
    }
    assert json_values(record) == expected
    with pytest.raises(TypeError, match="object"):
        json_values({"a": object()})


def test_a_reader_sees_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    write_json_atomically(path, {"n": 0, "filling": "x" * 100_000})
    done = threading.Event()
    seen = []

    def read() -> None:
        while not done.is_set():
            seen.append(json.loads(path.read_text())["n"])

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 30):
        write_json_atomically(path, {"n": n, "filling": "x" * 100_000})
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert [child.name for child in tmp_path.iterdir()] == ["study.json"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    write_json_atomically(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json_atomically(path, {"n": object()})
    assert json.loads(path.read_text()) == {"n": 1}
    with pytest.raises(HwnasError, match="cannot be written"):
        write_json_atomically(tmp_path / "no" / "study.json", {})
