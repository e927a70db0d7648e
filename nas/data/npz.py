"""The user's own arrays in one NumPy file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.core.dataset import Examples, SearchSplits, files_stamp
from nas.core.errors import ConfigError, DataError
from nas.data import register
from nas.data.splitting import SPLITS, UserDataset, three_way
from nas.tasks.classification import Classification

LAYOUTS = ("auto", "nhw", "nhwc", "nchw")
_EXPECTED = "x, y or x_train, y_train, x_validation, y_validation, x_test, y_test"

Array = npt.NDArray[Any]

# Pixels and labels.
_Pool = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@register("npz")
@dataclass(frozen=True, kw_only=True)
class Npz(UserDataset):
    """Arrays `x` and `y`, or `x_train`, `y_train` and the same for `validation` and `test`.

    Images are `(n, H, W)`, `(n, H, W, C)` or `(n, C, H, W)`, uint8 or floating point in [0, 1];
    labels are `(n,)`, integers from 0. A split that the file lacks is cut from the train images
    by class. An optional array `class_names` holds one text per class.

    Attributes:
        layout: Order of the axes of the images: `nhw`, `nhwc`, `nchw`, or `auto`, which takes
            the axis of size 1, 3 or 4 for the channels.
    """

    layout: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.layout not in LAYOUTS:
            raise ConfigError("data.layout", self.layout, f"one of {', '.join(LAYOUTS)}")

    def search_splits(self) -> SearchSplits:
        """Load the train and the validation split.

        Raises:
            DataError: The file or an array is missing or not as expected; names both.
        """
        splits, notes = self._splits()
        return SearchSplits(splits["train"], splits["validation"], notes)

    def test_split(self) -> Examples:
        """Load the test split.

        Raises:
            DataError: The file or an array is missing or not as expected; names both.
        """
        return self._splits()[0]["test"]

    def stamp(self) -> str:
        """Return the stamp of the file."""
        return files_stamp(self, [Path(self.path).expanduser()])

    def _splits(self) -> tuple[dict[str, Examples], tuple[str, ...]]:
        """Return the three splits and the notes."""
        # All pools are checked before the search, so that no study fails on its test images.
        path = Path(self.path).expanduser()
        arrays, suffixes, unused = _read(path)
        pools = {pool: self._pool(path, arrays, suffix) for pool, suffix in suffixes.items()}
        _check_same_shape(path, pools)
        task = Classification(class_names=_class_names(path, arrays, pools))
        splits = three_way(
            {pool: labels for pool, (_, labels) in pools.items()},
            validation_share=self.validation_share,
            test_share=self.test_share,
            seed=self.split_seed,
            class_names=task.class_names,
            source=str(path),
        )
        taken = {}
        for name, (pool, at) in splits.items():
            pixels, labels = pools[pool]
            taken[name] = Examples(pixels[at], labels[at], task)
        notes = (f"{path}: arrays not used: {', '.join(unused)}",) if unused else ()
        return taken, notes

    def _pool(self, path: Path, arrays: dict[str, Array], suffix: str) -> _Pool:
        x, y = f"x{suffix}", f"y{suffix}"
        pixels = _to_nchw(f"{path}: array {x!r}", arrays[x], self.layout)
        labels = arrays[y]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{path}: array {y!r} has shape {labels.shape} and type {labels.dtype},"
                " expected (n,) integers"
            )
        if len(labels) != len(pixels):
            raise DataError(
                f"{path}: array {x!r} has {len(pixels)} images but {y!r} {len(labels)} labels,"
                " expected as many"
            )
        return _to_uint8(f"{path}: array {x!r}", pixels), labels.astype(np.int64)


def _read(path: Path) -> tuple[dict[str, Array], dict[str, str], list[str]]:
    """Read the arrays that are used, none of them by unpickling.

    Returns:
        Arrays by name, what those of each pool end in, and the names of the arrays not read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a NumPy .npz file; set data.path")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz file, expected one written by numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            suffixes = _pool_suffixes(path, set(archive.files))
            used = {f"{axis}{suffix}" for suffix in suffixes.values() for axis in "xy"}
            used |= {"class_names"} & set(archive.files)
            arrays = {name: archive[name] for name in used}
            return arrays, suffixes, sorted(set(archive.files) - used)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({error}), expected arrays of numbers only, written by"
            " numpy.savez"
        ) from error


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


def _to_nchw(source: str, x: Array, layout: str) -> Array:
    """Return images of any layout as `(n, C, H, W)`."""
    if x.size == 0:
        raise DataError(f"{source} has shape {x.shape}, expected at least one image")
    expected = {"nhw": "(n, H, W)", "nhwc": "(n, H, W, C)", "nchw": "(n, C, H, W)"}
    wanted = ", ".join(expected.values()) if layout == "auto" else expected[layout]
    if x.ndim not in ((3, 4) if layout == "auto" else (len(layout),)):
        raise DataError(f"{source} has shape {x.shape}, expected {wanted}; set data.layout")
    if layout == "auto":
        layout = _guess_layout(source, x.shape)
    if layout == "nhw":
        return x[:, None]
    return np.moveaxis(x, 3, 1) if layout == "nhwc" else x


def _guess_layout(source: str, shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return "nhw"
    first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
    if first == last:
        why = "both" if first else "neither"
        raise DataError(
            f"{source} has shape {shape}, expected 1, 3 or 4 channels on the second or the last"
            f" axis and {why} may be; set data.layout to nhwc or nchw"
        )
    return "nchw" if first else "nhwc"


def _to_uint8(source: str, x: Array) -> npt.NDArray[np.uint8]:
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise DataError(f"{source} has type {x.dtype}, expected uint8 or floats in [0, 1]")
    low, high = float(x.min()), float(x.max())
    # Written so that NaN fails it.
    if not (low >= 0 and high <= 1):
        raise DataError(f"{source} has floats from {low:g} to {high:g}, expected [0, 1] or uint8")
    return np.ascontiguousarray(np.round(x * 255).astype(np.uint8))


def _check_same_shape(path: Path, pools: dict[str, _Pool]) -> None:
    expected = pools["train"][0].shape[1:]
    for pool, (pixels, _) in pools.items():
        if (got := pixels.shape[1:]) != expected:
            raise DataError(
                f"{path}: array 'x_{pool}' has images (C, H, W) = {got}, expected {expected} as"
                " in 'x_train'"
            )


def _class_names(path: Path, arrays: dict[str, Array], pools: dict[str, _Pool]) -> tuple[str, ...]:
    """Return the names of the classes, and check that the labels are within them."""
    found = np.unique(np.concatenate([labels for _, labels in pools.values()]))
    names = arrays.get("class_names", np.arange(len(found)).astype(str))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{path}: array 'class_names' has shape {names.shape} and type {names.dtype},"
            " expected (classes,) texts"
        )
    if found[0] < 0 or found[-1] >= len(names):
        raise DataError(
            f"{path}: {len(found)} different labels go from {found[0]} to {found[-1]}, expected"
            f" 0 to {len(names) - 1} for {len(names)} class(es) without a gap"
        )
    return tuple(str(name) for name in names)
