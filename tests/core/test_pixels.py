"""Pixels that stay in files, against the same indexing of an array."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nas.core.dataset import Examples
from nas.core.errors import DataError
from nas.core.host import child_environment
from nas.core.pixels import PixelFile, StoredPixels
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification

THREE = Classification(class_names=("a", "b", "c"))
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 6), dtype=np.uint8)
LABELS = np.arange(50) % 3


@pytest.fixture
def file(tmp_path: Path) -> PixelFile:
    (tmp_path / "images.u8").write_bytes(IMAGES.tobytes())
    return PixelFile(tmp_path / "images.u8", IMAGES.shape)


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(7, 20),
        slice(40, 90),
        slice(30, 3, -4),
        slice(9, 9),
        np.array([3]),
        np.array([], np.int64),
        np.array([49, 0, 1, 2, 2, 2, 7, -1, 13]),
        np.random.default_rng(1).permutation(50),
        17,
        -2,
    ],
    ids=str,
)
def test_indexing_is_that_of_an_array(file: PixelFile, index: slice | np.ndarray | int) -> None:
    stored = StoredPixels.of(file)
    assert np.array_equal(stored[index], IMAGES[index])
    order = np.random.default_rng(2).permutation(50)[:30]
    at = index if isinstance(index, slice) else np.asarray(index) % 30
    assert np.array_equal(stored.take(order)[at], IMAGES[order][at])
    assert stored.take(order).shape == (30, 3, 4, 6)


def test_an_index_beyond_the_images_is_refused(file: PixelFile) -> None:
    with pytest.raises(IndexError):
        StoredPixels.of(file)[np.array([50])]


def test_examples_in_a_file_are_those_in_memory(file: PixelFile) -> None:
    stored, held = Examples(StoredPixels.of(file), LABELS, THREE), Examples(IMAGES, LABELS, THREE)
    assert stored.fingerprint() == held.fingerprint()
    assert Preprocessing.of(stored) == Preprocessing.of(held)
    at = np.array([8, 3, 44])
    for mine, other in (
        (stored.sample(20, seed=1), held.sample(20, seed=1)),
        (stored.joined(stored.take(at)), held.joined(held.take(at))),
        (stored.joined(held.take(at)), held.joined(held.take(at))),
        (held.take(at).joined(stored).take(at), held.take(at).joined(held).take(at)),
    ):
        assert isinstance(mine.pixels, StoredPixels)
        assert mine.fingerprint() == other.fingerprint()
        for index in (slice(5, 15), np.array([2, 0, 1])):
            for found, expected in zip(mine.batch(index), other.batch(index), strict=True):
                assert np.array_equal(found, expected)


def test_the_name_of_the_file_is_sent_and_not_its_content(file: PixelFile) -> None:
    sent = pickle.dumps(StoredPixels.of(file))
    assert len(sent) < IMAGES.nbytes / 2
    assert np.array_equal(pickle.loads(sent)[:], IMAGES)  # noqa: S301 - as Ray sends it


def test_a_host_without_the_file_says_so_on_one_line(file: PixelFile) -> None:
    sent = pickle.dumps(StoredPixels.of(file))
    file.path.unlink()
    with pytest.raises(DataError, match=r"images\.u8: cannot be opened on host .*XDG_CACHE_HOME"):
        pickle.loads(sent)[:3]  # noqa: S301 - as Ray sends it


@pytest.mark.parametrize("length", [0, 100, IMAGES.nbytes - 1, IMAGES.nbytes + 1])
def test_a_file_of_another_length_is_refused(file: PixelFile, length: int) -> None:
    os.truncate(file.path, length)
    with pytest.raises(DataError, match=r"images\.u8: got [\d,]+ bytes, expected 3,600"):
        StoredPixels.of(file)[:1]


MILLION = """
import pickle, resource, sys
from pathlib import Path
import numpy as np, torch
from nas.core.dataset import Examples
from nas.core.pixels import PixelFile, StoredPixels
from nas.data import hold_out
from nas.tasks.classification import Classification

COUNT = 1_000_000
pixels = StoredPixels.of(PixelFile(Path(sys.argv[1]), (COUNT, 3, 224, 224)))
task = Classification(class_names=tuple(map(str, range(1000))))
images = Examples(pixels, np.arange(COUNT) % 1000, task)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train, held = hold_out(images.targets, 50_000, 0, "images")
validation = images.take(held)
images = pickle.loads(pickle.dumps(images.take(train).joined(validation).sample(COUNT, seed=0)))
order = np.random.default_rng(0).permutation(COUNT)
for step in range(60):
    batch, targets = images.batch(order[step * 128 : (step + 1) * 128])
    tensor = torch.from_numpy(batch)
    assert tensor.shape == (128, 3, 224, 224)
for part, _ in zip(images.parts(), range(20)):
    assert part.shape[1:] == (3, 224, 224)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown / 1024)
"""


def test_a_million_images_of_224_pixels_take_the_memory_of_a_batch(tmp_path: Path) -> None:
    sparse = tmp_path / "images.u8"
    with sparse.open("wb") as file:
        file.truncate(1_000_000 * 3 * 224 * 224)
    assert sparse.stat().st_blocks == 0
    command = [sys.executable, "-c", MILLION, str(sparse)]
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # 60 batches and 20 parts are 1.5 GB; a batch is 19 MB, the positions of all images 8 MB each.
    assert float(done.stdout) < 300
