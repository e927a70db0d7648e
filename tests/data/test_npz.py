from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas.core.errors import ConfigError, DataError
from nas.data.npz import Npz

X = np.random.default_rng(1).integers(0, 256, (40, 6, 5), dtype=np.uint8)
Y = np.arange(40) % 2


def load(tmp_path: Path, layout: str = "auto", **arrays: Any):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return Npz(path=str(path), layout=layout).search_splits()


def pools(**changes: Any) -> dict[str, Any]:
    arrays = {}
    for name, count in {"train": 20, "validation": 12, "test": 8}.items():
        arrays |= {f"x_{name}": X[:count], f"y_{name}": Y[:count]}
    return arrays | changes


# --- Good files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((40, 6, 5), "auto", (1, 6, 5)),
        ((40, 6, 5), "nhw", (1, 6, 5)),
        ((40, 6, 5, 1), "auto", (1, 6, 5)),
        ((40, 6, 5, 3), "auto", (3, 6, 5)),
        ((40, 3, 6, 5), "auto", (3, 6, 5)),
        ((40, 4, 6, 5), "auto", (4, 6, 5)),
        ((40, 3, 6, 3), "nchw", (3, 6, 3)),
        ((40, 3, 6, 3), "nhwc", (3, 3, 6)),
        ((40, 6, 5, 2), "nhwc", (2, 6, 5)),
    ],
)
def test_layouts(
    tmp_path: Path, shape: tuple[int, ...], layout: str, expected: tuple[int, ...]
) -> None:
    assert load(tmp_path, layout, x=np.zeros(shape, np.uint8), y=Y).input_shape == expected


def test_channels_last_keeps_its_pixels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    last = load(tmp_path, x=x, y=Y)
    first = load(tmp_path, x=x.transpose(0, 3, 1, 2), y=Y)
    assert np.array_equal(last.train.pixels, first.train.pixels)
    assert np.array_equal(last.train.targets, first.train.targets)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_bytes(tmp_path: Path, dtype: type) -> None:
    bytes_ = load(tmp_path, x=X, y=Y)
    floats = load(tmp_path, x=(X / 255).astype(dtype), y=Y)
    assert np.array_equal(floats.train.pixels, bytes_.train.pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_type(tmp_path: Path, dtype: type) -> None:
    assert load(tmp_path, x=X, y=Y.astype(dtype)).train.targets.dtype == np.int64


def test_named_classes(tmp_path: Path) -> None:
    assert load(tmp_path, x=X, y=Y, class_names=["no", "yes"]).task.class_names == ("no", "yes")
    assert load(tmp_path, x=X, y=Y).task.class_names == ("0", "1")


def test_given_splits_are_taken_whole(tmp_path: Path) -> None:
    search = load(tmp_path, **pools())
    assert np.array_equal(search.train.pixels[:, 0], X[:20])
    assert np.array_equal(search.validation.pixels[:, 0], X[:12])
    assert len(Npz(path=str(tmp_path / "mine.npz")).test_split()) == 8


def test_split_that_the_file_lacks_is_cut_from_train(tmp_path: Path) -> None:
    search = load(tmp_path, x_train=X, y_train=Y, x_test=X[:8], y_test=Y[:8])
    assert (len(search.train), len(search.validation)) == (32, 8)


def test_arrays_that_are_not_used_are_named_and_not_read(tmp_path: Path) -> None:
    extra = {"ids": np.array([None]), "weights": np.ones(40)}
    (note,) = load(tmp_path, x=X, y=Y, **extra).notes
    assert "mine.npz" in note
    assert "ids, weights" in note
    assert load(tmp_path, x=X, y=Y, class_names=["no", "yes"]).notes == ()


# --- Bad files -----------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file.*data\.path"):
        Npz(path=str(tmp_path / "nowhere.npz")).search_splits()


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_not_an_npz_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.npz: not an \.npz file"):
        Npz(path=str(path)).test_split()


def test_damaged_file(tmp_path: Path) -> None:
    load(tmp_path, x=X, y=Y)
    path = tmp_path / "mine.npz"
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read"):
        Npz(path=str(path)).search_splits()


HUGE = (1 << 16, 1 << 15, 1 << 15)
"""A shape of 64 TB."""


def header(shape: tuple[int, ...], version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    write = {1: np.lib.format.write_array_header_1_0, 2: np.lib.format.write_array_header_2_0}
    write[version[0]](file, fields)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("shape", [HUGE, (1 << 62, 1 << 62, 4), (-1, 6, 5)])
def test_an_array_that_claims_more_than_the_file_has(
    tmp_path: Path, shape: tuple[int, ...], version: tuple[int, int]
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, y=Y)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", header(shape, version) + X.tobytes())
    with pytest.raises(DataError, match=r"mine\.npz: ") as refused:
        Npz(path=str(path)).search_splits()
    assert "\n" not in str(refused.value)


def test_arrays_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=X.nbytes)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read \(its arrays need"):
        load(tmp_path, x=X, y=Y)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.npz")
    with pytest.raises(DataError, match=r"mine\.npz"):
        Npz(path=str(tmp_path / "mine.npz")).search_splits()


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine\.npz: cannot be read .*arrays of numbers only"):
        load(tmp_path, x=np.array([X[0], None], dtype=object), y=Y)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": X, "y": Y},
        {"x": X},
        {"x_test": X, "y_test": Y},
        {"x_train": X, "y_train": Y, "x_test": X},
        # Whether x holds the test images as well is not known.
        {"x": X, "y": Y, "x_test": X, "y_test": Y},
        {"x": X, "x_train": X, "y_train": Y},
    ],
)
def test_missing_arrays_list_found_and_expected(tmp_path: Path, arrays: dict[str, Any]) -> None:
    found = ", ".join(sorted(arrays))
    with pytest.raises(DataError, match=f"found arrays {found}; expected x, y or x_train"):
        load(tmp_path, **arrays)


OBJECTION = {
    "ambiguous": ({"x": np.zeros((40, 3, 6, 3), np.uint8)}, "one layout alone; set data.layout"),
    "no channels": (
        {"x": np.zeros((40, 7, 6, 5), np.uint8)},
        "channels, .*; set data.layout",
    ),
    "flat": ({"x": np.zeros((40, 30), np.uint8)}, r"shape \(40, 30\), expected \(n, H, W\)"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "expected at least one image"),
    "integers": ({"x": X.astype(np.int32)}, "type int32, expected uint8 or floats"),
    "large floats": ({"x": X.astype(float)}, r"floats from 0 to 255, expected \[0, 1\]"),
    "nan": ({"x": np.full((40, 6, 5), np.nan)}, r"expected \[0, 1\]"),
    "one-hot": ({"y": np.eye(2)[Y]}, r"'y': .*shape \(40, 2\).*expected \(n,\) integers"),
    "float labels": ({"y": Y.astype(float)}, "type float64, expected"),
    "lengths": ({"y": Y[:-1]}, "'x', 'y': .*40 inputs but 39 targets"),
    "negative": ({"y": Y - 1}, "got -1 to 0, expected .*from 0 to 1"),
    "gap": ({"y": Y * 5}, "got 0 to 5, expected .*from 0 to 1, .*2 classes"),
    "huge": ({"y": Y * 10**12}, "expected .*from 0 to 1"),
    "too large": ({"y": Y + 1, "class_names": ["a", "b"]}, "got 1 to 2, .*2 classes"),
    "one class": ({"y": Y * 0}, r"got 1 class\(es\), expected 2 or more"),
    "unused class": ({"class_names": ["a", "b", "c"]}, "class 'c' has 0 image"),
    "names": ({"class_names": [1, 2]}, "'class_names' .*expected .*texts"),
    "rare": ({"y": np.array([0] * 38 + [1] * 2)}, "class '1' has 2 image.*3 or more"),
}


@pytest.mark.parametrize(("changes", "message"), OBJECTION.values(), ids=OBJECTION)
def test_wrong_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, **({"x": X, "y": Y} | changes))
    assert str(caught.value).startswith(str(tmp_path / "mine.npz"))
    assert "\n" not in str(caught.value)


def test_splits_of_different_image_sizes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'x_test' has images.*\(1, 5, 5\), expected \(1, 6, 5\)"):
        load(tmp_path, **pools(x_test=X[:8, :5]))


def test_class_that_a_given_split_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(test split\): class '1' has 0"):
        load(tmp_path, **pools(y_test=Y[:8] * 0))


def test_explicit_layout_of_another_rank(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected \(n, C, H, W\); set data\.layout"):
        load(tmp_path, "nchw", x=X, y=Y)


def test_unknown_layout() -> None:
    with pytest.raises(ConfigError, match=r"data\.layout: got 'hwc', expected one of auto"):
        Npz(path="anywhere", layout="hwc")
