"""Pixels of images that stay where they are: in files, or in arrays behind one another."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nas.core.errors import DataError

PixelArray: TypeAlias = npt.NDArray[np.uint8]
Positions: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PixelFile:
    """A file of decoded images: their bytes one after another and nothing else.

    Attributes:
        path: The file.
        shape: `(n, channels, height, width)`.
    """

    path: Path
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return math.prod(self.shape)

    def open(self) -> int:
        """Return a descriptor for reading.

        Raises:
            DataError: The file is not there, or not as long as it should be.
        """
        fix = "run the same command again to decode the images anew"
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be opened on host {socket.gethostname()} ({error.strerror}),"
                f" expected the decoded images; {fix}, or, where hosts share the work, set"
                " XDG_CACHE_HOME to a folder that all of them share"
            ) from error
        if (got := os.fstat(descriptor).st_size) != self.size:
            os.close(descriptor)
            line = f"got {got:,} bytes, expected {self.size:,}"
            raise DataError(f"{self.path}: {line}; delete it and {fix}")
        return descriptor


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """Images `(n, channels, height, width)`, uint8, of which indexing reads those asked for.

    It has the shape and the indexing of an array by its first axis. Choosing and joining images
    moves no pixel. Files are read by position and not mapped into memory, so that a process holds
    a batch at a time, however many it reads; the system's cache of the file serves all processes
    of a host. Pickled, it is the names of the files and the positions, not the images; arrays are
    pickled with their content.

    Attributes:
        sources: Where the images are; all of one shape behind the first axis.
        rows: `(n,)`, which images these are, counted through all sources.
    """

    sources: tuple[PixelFile | PixelArray, ...]
    rows: Positions

    @classmethod
    def of(cls, source: PixelFile | PixelArray | StoredPixels) -> StoredPixels:
        """Return all images of a source."""
        if isinstance(source, StoredPixels):
            return source
        return cls((source,), np.arange(len(source)))

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, channels, height, width)`."""
        return len(self.rows), *self.sources[0].shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Positions | int) -> PixelArray:
        """Read images.

        Raises:
            DataError: A file cannot be read.
        """
        rows = self.rows[index]
        if rows.ndim == 0:
            one: PixelArray = self[np.array([index])][0]
            return one
        read = np.empty((len(rows), *self.shape[1:]), np.uint8)
        starts = np.cumsum([0, *map(len, self.sources)])
        numbers = np.searchsorted(starts, rows, side="right") - 1
        # What lies together is read at once.
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(numbers) != 0)) + 1
        with contextlib.ExitStack() as opened:
            files: dict[int, int] = {}
            for first, last in pairwise([0, *breaks.tolist(), len(rows)] if read.size else []):
                into, number = read[first:last], int(numbers[first])
                source, row = self.sources[number], int(rows[first] - starts[number])
                if isinstance(source, np.ndarray):
                    into[:] = source[row : row + len(into)]
                    continue
                if number not in files:
                    files[number] = source.open()
                    opened.callback(os.close, files[number])
                _read(source.path, files[number], into, row * into[0].nbytes)
        return read

    def take(self, positions: Positions) -> StoredPixels:
        """Return the images at `positions`, in their order, without reading them."""
        return StoredPixels(self.sources, self.rows[positions])

    def joined(self, other: StoredPixels) -> StoredPixels:
        """Return these images and the others behind them, without reading them."""
        offset = sum(map(len, self.sources))
        rows = np.concatenate([self.rows, other.rows + offset])
        return StoredPixels((*self.sources, *other.sources), rows)


Pixels: TypeAlias = PixelArray | StoredPixels
"""Images `(n, channels, height, width)` in memory, or where they are read from as needed."""


def _read(path: Path, descriptor: int, into: PixelArray, offset: int) -> None:
    """Fill an array from a place in a file."""
    left = into.data.cast("B")
    while left:
        try:
            count = os.preadv(descriptor, [left], offset)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); delete it and run the same command"
                " again to decode the images anew"
            ) from error
        if not count:
            raise DataError(f"{path}: ends at byte {offset:,}; it was changed while it was read")
        left, offset = left[count:], offset + count
