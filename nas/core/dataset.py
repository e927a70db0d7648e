"""Data sets: inputs and targets of a task in three splits."""

from __future__ import annotations

import contextlib
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.core.errors import DataError
from nas.core.pixels import PixelArray, Pixels, Positions, StoredPixels
from nas.core.task import Task

# Of names that differ, how many are shown.
_SHOWN_NAMES = 10

# Of images that are read one part after another, how many at a time.
_PART_BYTES = 2**24


@dataclass(frozen=True)
class Examples:
    """Inputs and targets of one split.

    Attributes:
        pixels: `(n, channels, height, width)`, uint8: an array, or a `StoredPixels`, which reads
            the images that it is indexed with.
        targets: `(n, ...)`, as the task has them.
        task: What is predicted.
    """

    pixels: Pixels
    targets: npt.NDArray[Any]
    task: Task

    def __post_init__(self) -> None:
        """Check the form of the targets.

        Raises:
            DataError: It is not that of the task, or there are not as many targets as inputs.
        """
        if len(self.pixels) != len(self.targets):
            line = f"{len(self.pixels)} inputs but {len(self.targets)} targets"
            raise DataError(f"data: got {line}, expected as many")
        self.task.check(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: slice | Positions) -> tuple[PixelArray, npt.NDArray[Any]]:
        """Return pixels and targets at `index`, in its order, in memory.

        Raises:
            DataError: The pixels are in a file that cannot be read.
        """
        return self.pixels[index], self.targets[index]

    def parts(self) -> Iterator[PixelArray]:
        """Return the pixels from the first to the last image, in parts of some megabytes."""
        each = max(_PART_BYTES // max(math.prod(self.pixels.shape[1:]), 1), 1)
        for first in range(0, len(self), each):
            yield self.pixels[first : first + each]

    def take(self, positions: Positions) -> Examples:
        """Return the examples at `positions`, in their order; pixels in a file stay there."""
        pixels = self.pixels
        chosen = pixels.take(positions) if isinstance(pixels, StoredPixels) else pixels[positions]
        return replace(self, pixels=chosen, targets=self.targets[positions])

    def joined(self, other: Examples) -> Examples:
        """Return these examples and the others behind them; pixels in a file stay there."""
        pixels: Pixels
        if isinstance(self.pixels, np.ndarray) and isinstance(other.pixels, np.ndarray):
            pixels = np.concatenate([self.pixels, other.pixels])
        else:
            pixels = StoredPixels.of(self.pixels).joined(StoredPixels.of(other.pixels))
        return replace(self, pixels=pixels, targets=np.concatenate([self.targets, other.targets]))

    def sample(self, count: int, seed: int) -> Examples:
        """Draw examples without replacement, as evenly over the task's strata as they allow.

        Every stratum (of a classification, every class) gives one example in turn, in an order
        drawn anew for every turn, until it has none left. The first examples of a sample are
        therefore about as balanced as the whole.

        Args:
            count: How many examples to draw; all of them if there are fewer.
            seed: Of the draw; the same seed gives the same examples in the same order.

        Example:
            >>> images = nas.data.get("digits").search_splits().validation
            >>> np.bincount(images.sample(64, seed=0).targets)
            array([6, 6, 7, 7, 6, 6, 7, 7, 6, 6])
        """
        shuffled = np.random.default_rng(seed).permutation(len(self))
        strata = self.task.strata(self.targets)[shuffled]
        by_stratum = np.argsort(strata, kind="stable")
        _, starts, counts = np.unique(strata[by_stratum], return_index=True, return_counts=True)
        turn = np.empty_like(shuffled)
        turn[by_stratum] = np.arange(len(self)) - np.repeat(starts, counts)
        return self.take(shuffled[np.argsort(turn, kind="stable")[:count]])

    def drawn(self, count: int, seed: int) -> Examples:
        """Draw examples without replacement, each as likely as any other; arguments as of `sample`.

        Errors on them estimate those on all, also where classes differ in number.
        """
        return self.take(np.random.default_rng(seed).permutation(len(self))[:count])

    def fingerprint(self) -> dict[str, Any]:
        """Return this split's part of `Dataset.fingerprint`."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        for part in self.parts():
            digest.update(np.ascontiguousarray(part).data)
        digest.update(np.ascontiguousarray(self.targets).data)
        return {
            "images": len(self),
            "counts": self.task.counts(self.targets),
            "sha256": digest.hexdigest(),
        }


@dataclass(frozen=True)
class SearchSplits:
    """The two splits that a search may see.

    Attributes:
        train: What candidates are trained on.
        validation: What drives the search.
        notes: What the user should be told of how the data was read, such as files that were
            passed over; one line each.
    """

    train: Examples
    validation: Examples
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.train.task

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of one image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def trivial(self) -> dict[str, float]:
        """Return the metrics of the best constant prediction; see `Task.trivial`."""
        return self.task.trivial(self.train.targets, self.validation.targets)


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A data set with three fixed splits: train, validation and test.

    The test split has a method of its own, which only the fingerprint and the finalising of a
    study call: what an evaluator is given has no way to reach it.

    Attributes:
        split_seed: Of the split; the same seed gives the same three splits for ever.
        mirrors: Whether an image that is mirrored left to right shows the same; where left and
            right matter, as in text, digits or signs, it does not.
    """

    split_seed: int = 0
    mirrors: bool = False

    @abstractmethod
    def search_splits(self) -> SearchSplits:
        """Load the splits that a search may see.

        Raises:
            DataError: The data is missing or not as expected; names the file.
        """

    @abstractmethod
    def test_split(self) -> Examples:
        """Load the test split.

        Raises:
            DataError: The data is missing or not as expected; names the file.
        """

    def stamp(self) -> str | None:
        """Return a text that changes when a setting or a file of the data set does.

        It is found without reading the images (`files_stamp` makes one of files). `None`, the
        default, means that such changes cannot be told.

        Raises:
            DataError: The files cannot be listed.
        """
        return None

    def fingerprint(
        self, splits: SearchSplits, known: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a record of what the data set holds, which `fingerprint_difference` compares.

        The test split is loaded for it, so that a broken test image is found before a search and
        not after it. A data set without images (a published table) has no test split to load.

        Args:
            splits: What `search_splits` returned.
            known: The fingerprint of an earlier run. If its stamp is that of now, the test split
                is not loaded and its part is taken from `known`.

        Returns:
            Plain JSON values: `task` with its settings, `input_shape`, `stamp`, and in `splits` for
            each of `train`, `validation` and `test` the number of `images`, what the task `counts`
            (of a classification, images of every class) and the `sha256` of the shape, pixels and
            targets in their order.

        Raises:
            DataError: The test split is missing or not as expected; names the file.

        Example:
            >>> digits = nas.data.get("digits")
            >>> record = digits.fingerprint(digits.search_splits())
            >>> list(record["splits"]["test"]["counts"].values())
            [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
        """
        # Before the files are read: what changes afterwards then changes the stamp of the next run.
        stamp = self.stamp()
        if known is not None and stamp is not None and stamp == known["stamp"]:
            test = known["splits"]["test"]
        else:
            test = (self.test_split() if len(splits.train) else splits.train).fingerprint()
        return {
            "task": {"kind": type(splits.task).__name__, **splits.task.settings()},
            "input_shape": list(splits.input_shape),
            "stamp": stamp,
            "splits": {
                "train": splits.train.fingerprint(),
                "validation": splits.validation.fingerprint(),
                "test": test,
            },
        }


def files_stamp(settings: object, files: Iterable[Path]) -> str:
    """Return a stamp of settings and of the files that are read by them.

    Each file counts with its name, size, inode and times. The inode and the time of the last
    change of status (ctime) tell files apart that were exchanged and kept their size and mtime.

    Args:
        settings: Whose `repr` counts, such as a data set.
        files: Whatever is read, in any order. One that is missing counts as such: what is wrong
            with it is said when it is loaded.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for file in sorted(files):
        state = [str(file)]
        with contextlib.suppress(OSError):
            found = file.stat()
            state += map(str, (found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns))
        digest.update(repr(state).encode())
    return digest.hexdigest()


def fingerprint_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Say in what the data of two runs differ.

    Stamps are not compared: a copy of a data set has another one and the same images.

    Returns:
        A clause that names the first difference, or `None` if there is none.
    """
    for name in sorted(new["task"].keys() | old["task"].keys()):
        got, expected = new["task"].get(name), old["task"].get(name)
        if got != expected:
            return f"{name.replace('_', ' ')} of the task: {_unlike(got, expected)}"
    if new["input_shape"] != old["input_shape"]:
        return f"input shape: got {new['input_shape']}, expected {old['input_shape']}"
    for split, found in new["splits"].items():
        before = old["splits"][split]
        for name, got in found["counts"].items():
            if got != (expected := before["counts"].get(name)):
                return f"{split} split: got {got} of {name!r}, expected {expected}"
        if found["sha256"] != before["sha256"]:
            return f"{split} split: its images or targets have changed"
    return None


def _unlike(got: Any, expected: Any) -> str:
    """Say in what two settings differ; of lists only the part that begins to differ."""
    where = ""
    if isinstance(got, list) and isinstance(expected, list):
        pairs = enumerate(zip_longest(got, expected))
        first = next(number for number, (a, b) in pairs if a != b)
        got, expected = (names[first : first + _SHOWN_NAMES] for names in (got, expected))
        where = f"from number {first + 1} on, "
    return f"{where}got {got}, expected {expected}"
