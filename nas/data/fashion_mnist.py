"""Fashion-MNIST: Xiao, Rasul and Vollgraf (2017), https://arxiv.org/abs/1708.07747."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import struct
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.core.dataset import Dataset, Examples, SearchSplits, files_stamp
from nas.core.errors import ConfigError, DataError
from nas.core.files import cache_path, write_bytes_atomically
from nas.data import hold_out, register
from nas.tasks.classification import Classification

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# As published in the README of github.com/zalandoresearch/fashion-mnist.
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}

# Where the Debian package dataset-fashion-mnist puts the same four files.
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_TRAIN_IMAGES = 60_000
_TEST_IMAGES = 10_000


@register("fashion_mnist")
@dataclass(frozen=True, kw_only=True)
class FashionMnist(Dataset):
    """70,000 grey images `(1, 28, 28)` of ten kinds of clothing.

    Validation is drawn by class from the official 60,000 train images; test is the official
    10,000. The files are taken from `path` if it is given, and otherwise from the first of the
    cache folder, the system folder and a download that has them.

    Attributes:
        path: Folder of the four IDX gzip files; nowhere else is looked if it is given.
        download: Whether to fetch the files (30 MB) into the cache folder if they are missing.
        validation_size: Number of validation images.
    """

    path: str | None = None
    download: bool = True
    validation_size: int = 10_000
    mirrors: bool = True

    def __post_init__(self) -> None:
        classes = len(CLASS_NAMES)
        if not classes <= self.validation_size <= _TRAIN_IMAGES - classes:
            expected = f"{classes} to {_TRAIN_IMAGES - classes}"
            raise ConfigError("data.validation_size", self.validation_size, expected)

    def search_splits(self) -> SearchSplits:
        # The test files stay closed.
        images = _read_part(self._folder(), "train", _TRAIN_IMAGES)
        train, validation = hold_out(
            images.targets, self.validation_size, self.split_seed, "Fashion-MNIST"
        )
        return SearchSplits(images.take(train), images.take(validation))

    def test_split(self) -> Examples:
        return _read_part(self._folder(), "t10k", _TEST_IMAGES)

    def stamp(self) -> str:
        folder = self._folder()
        return files_stamp(self, [folder / name for name in MD5])

    def _folder(self) -> Path:
        given = None if self.path is None else Path(self.path).expanduser()
        places = [cache_folder(), SYSTEM_FOLDER] if given is None else [given]
        for place in places:
            if all((place / name).is_file() for name in MD5):
                return place
        looked = " or ".join(str(place) for place in places)
        lack = f"Fashion-MNIST: not found in {looked}, expected the files {', '.join(MD5)}"
        if given is not None:
            raise DataError(f"{lack}; run `make data`, which fetches them, and leave data.path out")
        if not self.download:
            raise DataError(f"{lack}; run `make data`, which fetches them, or set data.path")
        try:
            return fetch()
        except DataError as error:
            raise DataError(f"{lack}, and {error}") from error


def cache_folder() -> Path:
    """Return the folder that `fetch` fills."""
    return cache_path("fashion-mnist")


def fetch(folder: Path | None = None, address: str = ADDRESS) -> Path:
    """Download the four files, each checked against its published MD5 sum.

    Files that are already there and intact are not downloaded again. A file appears under its
    name only when it is complete and checked.

    Args:
        folder: Where to put them; the cache folder if not given.
        address: Where they lie.

    Returns:
        The folder.

    Raises:
        DataError: A file cannot be downloaded, or is not the published one.
        HwnasError: A file cannot be written.
    """
    folder = cache_folder() if folder is None else folder
    for name, md5 in MD5.items():
        target = folder / name
        if not (target.is_file() and _md5(target.read_bytes()) == md5):
            _download(f"{address}/{name}", target, md5)
    return folder


def _download(url: str, target: Path, md5: str) -> None:
    """Download one file; `target` is replaced in one step, after its sum was checked."""
    try:
        # An opener of our own reads the proxy settings now, not when Python first opened a URL.
        with urllib.request.build_opener().open(url, timeout=60) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url}: cannot be downloaded ({error}); run `make data` where there is a network,"
            " or set data.path to a folder that has the file"
        ) from error
    if _md5(content) != md5:
        raise DataError(f"{url}: got a file with MD5 {_md5(content)}, expected {md5}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be made ({error})") from error
    write_bytes_atomically(target, content)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_part(folder: Path, part: str, count: int) -> Examples:
    """Read the images and labels of `part` (`train` or `t10k`)."""
    pixels = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", (count, 28, 28))
    labels_path = folder / f"{part}-labels-idx1-ubyte.gz"
    labels = _read_idx(labels_path, (count,)).astype(np.int64)
    each = count // len(CLASS_NAMES)
    counts = np.bincount(labels)
    # The original MNIST has the same file names and sizes, but its classes are of unequal size.
    if counts.tolist() != [each] * len(CLASS_NAMES):
        raise DataError(
            f"{labels_path}: got class counts {counts.tolist()}, expected {each} of each of the"
            f" {len(CLASS_NAMES)} classes; this is not Fashion-MNIST: replace the file"
        )
    return Examples(pixels[:, None], labels, Classification(class_names=CLASS_NAMES))


def _read_idx(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read a gzip IDX file of unsigned bytes: magic number, sizes (big-endian), values."""
    fix = "replace the file (`make data` fetches the published one)"
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: got {error}, expected an intact gzip file; {fix}") from error
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    if (got := content[: len(header)]) != header:
        raise DataError(f"{path}: got IDX header {got.hex()}, expected {header.hex()}; {fix}")
    values = np.frombuffer(content, dtype=np.uint8, offset=len(header))
    if values.size != math.prod(shape):
        raise DataError(f"{path}: got {values.size} values, expected {math.prod(shape)}; {fix}")
    return values.reshape(shape)
