"""The user's own arrays in one NumPy file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from nas.core.dataset import Examples, SearchSplits, files_stamp
from nas.core.errors import DataError, UnknownNameError, one_line
from nas.data import SPLITS, StratifiedDataset, register
from nas.tasks.classification import Classification

_AXES = {"nhw": "(n, H, W)", "nhwc": "(n, H, W, C)", "nchw": "(n, C, H, W)"}
_EXPECTED = "x, y or x_train, y_train, x_validation, y_validation, x_test, y_test"

Array = npt.NDArray[Any]

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@register("npz")
@dataclass(frozen=True, kw_only=True)
class Npz(StratifiedDataset):
    """Arrays `x` and `y`, or `x_train`, `y_train` and the same for `validation` and `test`.

    Images are `(n, H, W)`, `(n, H, W, C)` or `(n, C, H, W)`, uint8 or floating point in [0, 1];
    labels are `(n,)`, integers from 0. A split that the file lacks is cut from the train images
    by class. An optional array `class_names` holds one text per class.

    Attributes:
        path: The file.
        layout: Order of the axes of the images: `nhw`, `nhwc`, `nchw`, or `auto`, which takes
            the axis of size 1, 3 or 4 for the channels.
    """

    path: str
    layout: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in ("auto", *_AXES):
            raise UnknownNameError("data.layout", self.layout, ("auto", *_AXES))

    def search_splits(self) -> SearchSplits:
        splits, notes = self._splits()
        return SearchSplits(splits["train"], splits["validation"], notes)

    def test_split(self) -> Examples:
        return self._splits()[0]["test"]

    def stamp(self) -> str:
        return files_stamp(self, [Path(self.path).expanduser()])

    def _splits(self) -> tuple[dict[str, Examples], tuple[str, ...]]:
        path = Path(self.path).expanduser()
        arrays, suffixes, unused = _read_npz(path)
        task = Classification(class_names=_classes_of_arrays(path, arrays, suffixes))
        # All pools are checked before the search, so that no study fails on its test images.
        pools: dict[str, Examples] = {}
        for pool, suffix in suffixes.items():
            try:
                pools[pool] = self._pool(arrays[f"x{suffix}"], arrays[f"y{suffix}"], task)
            except DataError as error:
                raise DataError(f"{path}: arrays 'x{suffix}', 'y{suffix}': {error}") from error
            got, expected = (pools[name].pixels.shape[1:] for name in (pool, "train"))
            if got != expected:
                raise DataError(
                    f"{path}: array 'x_{pool}' has images (C, H, W) = {got}, expected {expected}"
                    " as in 'x_train'"
                )
        labels = {pool: examples.targets for pool, examples in pools.items()}
        splits = self.three_way(labels, task.class_names, str(path))
        notes = (f"{path}: arrays not used: {', '.join(unused)}",) if unused else ()
        return {name: pools[pool].take(at) for name, (pool, at) in splits.items()}, notes

    def _pool(self, x: Array, y: Array, task: Classification) -> Examples:
        labels = y.astype(np.int64) if y.dtype.kind in "iu" else y
        return Examples(_to_uint8(_to_nchw(x, self.layout)), labels, task)


def _read_npz(path: Path) -> tuple[dict[str, Array], dict[str, str], list[str]]:
    """Read the arrays that are used, none of them by unpickling.

    Returns:
        Arrays by name, what those of each pool end in, and the names of the arrays not read.
    """
    # Opening a pipe would wait for ever.
    if not (path.is_file() and zipfile.is_zipfile(path)):
        wrong = "not an .npz file" if path.is_file() else "no such file"
        raise DataError(f"{path}: {wrong}, expected one written by numpy.savez; set data.path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            suffixes = _pool_suffixes(path, set(archive.files))
            used = {f"{axis}{suffix}" for suffix in suffixes.values() for axis in "xy"}
            used |= {"class_names"} & set(archive.files)
            _check_sizes(archive, used)
            arrays = {name: archive[name] for name in used}
            return arrays, suffixes, sorted(set(archive.files) - used)
    except (
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(
            f"{path}: cannot be read ({one_line(error)}), expected arrays of numbers only,"
            " written by numpy.savez"
        ) from error


def _check_sizes(archive: Any, names: Iterable[str]) -> None:
    """Check by their headers that the memory holds the arrays, before it is asked for.

    Raises:
        ValueError: An array claims more than the file has, or all of them are too large.
    """
    total = 0
    for name in names:
        listed = archive.zip.namelist()
        member = archive.zip.getinfo(name if name in listed else f"{name}.npy")
        with archive.zip.open(member) as file:
            read = _HEADERS.get(np.lib.format.read_magic(file))
            if read is None:
                raise ValueError(f"array {name!r} has a header of an unknown version")
            shape, _, dtype = read(file)
        size = math.prod(shape) * dtype.itemsize
        if size > member.file_size:
            raise ValueError(f"array {name!r} claims {size:,} bytes and has {member.file_size:,}")
        total += size
    memory = psutil.virtual_memory().total
    if total > memory:
        raise ValueError(f"its arrays need {total:,} bytes, this machine has {memory:,}")


def _pool_suffixes(path: Path, found: set[str]) -> dict[str, str]:
    """Return what the names of the arrays end in, by the split that they are for."""
    pools = {s: f"_{s}" for s in SPLITS if {f"x_{s}", f"y_{s}"} & found}
    if {"x", "y"} <= found and not pools:
        return {"train": ""}
    needed = {f"{axis}{suffix}" for suffix in pools.values() for axis in "xy"}
    # Of x beside x_test, nobody can say whether it holds the test images as well.
    if "train" not in pools or not needed <= found or {"x", "y"} & found:
        names = ", ".join(sorted(found)) or "none"
        raise DataError(f"{path}: found arrays {names}; expected {_EXPECTED}")
    return pools


def _to_nchw(x: Array, layout: str) -> Array:
    """Return images of any layout as `(n, C, H, W)`."""
    if x.size == 0:
        raise DataError(f"images have shape {x.shape}, expected at least one image")
    expected, channels = _AXES.get(layout, ", ".join(_AXES.values())), ""
    fitting = [name for name in _AXES if len(name) == x.ndim and layout in ("auto", name)]
    if layout == "auto" and x.ndim == 4:
        fitting = [name for name in fitting if x.shape[name.index("c")] in (1, 3, 4)]
        channels = " with 1, 3 or 4 channels, in one layout alone"
    if len(fitting) != 1:
        got = f"images have shape {x.shape}"
        raise DataError(f"{got}, expected {expected}{channels}; set data.layout")
    if fitting == ["nhw"]:
        return x[:, None]
    return np.moveaxis(x, 3, 1) if fitting == ["nhwc"] else x


def _to_uint8(x: Array) -> npt.NDArray[np.uint8]:
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise DataError(f"images have type {x.dtype}, expected uint8 or floats in [0, 1]")
    low, high = float(x.min()), float(x.max())
    # Written so that NaN fails it.
    if not (low >= 0 and high <= 1):
        raise DataError(f"images have floats from {low:g} to {high:g}, expected [0, 1] or uint8")
    return np.ascontiguousarray(np.round(x * 255).astype(np.uint8))


def _classes_of_arrays(
    path: Path, arrays: dict[str, Array], suffixes: dict[str, str]
) -> tuple[str, ...]:
    """Return the names of the classes; without any, numbers as many as there are labels."""
    if "class_names" not in arrays:
        labels = [np.unique(arrays[f"y{suffix}"]).tolist() for suffix in suffixes.values()]
        return tuple(map(str, range(len(set().union(*labels)))))
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: array 'class_names' has shape {names.shape} and type {names.dtype},"
            " expected (classes,) texts"
        )
    return tuple(names.tolist())
