"""The user's own images: one folder a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from nas.core.errors import ConfigError, DataError
from nas.core.images import Images, SearchSplits
from nas.data import register
from nas.data.splitting import SPLITS, UserDataset, check_classes, three_way

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Files and their labels `(n,)`.
_Listing = tuple[list[Path], npt.NDArray[np.int64]]

# Pillow reports a broken file in any of these ways, depending on its format.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
QUARTER_TURNED = (5, 6, 7, 8)
"""Values of the EXIF orientation with which width and height change places."""


@register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(UserDataset):
    """Images in `path/CLASS/FILE`, or in `path/train/CLASS/FILE` beside `validation` and `test`.

    A split without a folder of its own is cut from the train images by class. Classes are
    numbered in the order of their folders' names. Hidden files and files without the suffix of
    an image are passed over; of an animation the first image counts.

    Attributes:
        image_size: Height and width in pixels: the shorter side is resized to it, then the
            centre is cropped. If not given, all images must have the same size.
        grayscale: Whether to give one channel instead of three.
    """

    image_size: int | None = None
    grayscale: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError("data.image_size", self.image_size, "a positive number of pixels")

    def search_splits(self) -> SearchSplits:
        """Load the train and the validation split.

        Raises:
            DataError: A folder or an image is missing or not as expected; names it.
        """
        splits, class_names = self._splits()
        train, validation = (self._load(*splits[name]) for name in ("train", "validation"))
        return SearchSplits(train, validation, class_names)

    def test_split(self) -> Images:
        """Load the test split.

        Raises:
            DataError: A folder or an image is missing or not as expected; names it.
        """
        splits, _ = self._splits()
        return self._load(*splits["test"])

    def _splits(self) -> tuple[dict[str, _Listing], tuple[str, ...]]:
        """List the files and labels of every split, and the classes."""
        root = Path(self.path).expanduser()
        folders = _pool_folders(root)
        class_names = _class_names(folders)
        pools = {name: _list_files(folder, class_names) for name, folder in folders.items()}
        files = [file for listed, _ in pools.values() for file in listed]
        self._check_headers(files)
        splits = three_way(
            {name: labels for name, (_, labels) in pools.items()},
            validation_share=self.validation_share,
            test_share=self.test_share,
            seed=self.split_seed,
            class_names=class_names,
            source=str(root),
        )
        listings = {}
        for name, (pool, at) in splits.items():
            listed, labels = pools[pool]
            listings[name] = ([listed[i] for i in at], labels[at])
        return listings, class_names

    def _check_headers(self, files: Sequence[Path]) -> None:
        """Check all splits at once, so that no study fails on its test images at its end."""
        sizes: dict[tuple[int, int], Path] = {}
        for file in files:
            try:
                with Image.open(file) as image:
                    size, mode = image.size, image.mode
                    if image.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNED:
                        size = size[::-1]
            except _UNREADABLE as error:
                raise _unreadable(file, error) from error
            # Pillow clips such values to 255 instead of scaling them.
            if mode in ("I", "F") or mode.startswith("I;"):
                raise DataError(f"{file}: got pixel mode {mode!r}, expected 8 bits per channel")
            sizes.setdefault(size, file)
        if self.image_size is None and len(sizes) > 1:
            (size_a, file_a), (size_b, file_b) = list(sizes.items())[:2]
            raise DataError(
                f"{file_a} has {size_a[0]}x{size_a[1]} pixels and {file_b} {size_b[0]}x{size_b[1]},"
                " expected one size; set data.image_size to resize all images"
            )

    def _load(self, files: Sequence[Path], labels: npt.NDArray[np.int64]) -> Images:
        pixels = np.stack([self._pixels(file) for file in files])
        if self.grayscale:
            return Images(pixels[:, None], labels)
        return Images(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels)

    def _pixels(self, file: Path) -> npt.NDArray[np.uint8]:
        """Read one image, `(height, width)` or `(height, width, 3)`."""
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image)
                converted = upright.convert("L" if self.grayscale else "RGB")
        except _UNREADABLE as error:
            raise _unreadable(file, error) from error
        if self.image_size is not None:
            converted = ImageOps.fit(converted, (self.image_size, self.image_size))
        return np.asarray(converted)


def _unreadable(file: Path, error: BaseException) -> DataError:
    return DataError(
        f"{file}: cannot be read ({error}), expected an intact image; replace or remove it"
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pool_folders(root: Path) -> dict[str, Path]:
    """Return the folders that hold the class folders, by the split that they are for."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder, expected images in {root}/CLASS/; set data.path")
    train = root / "train"
    # A folder of images that is called "train" is a class of trains.
    if not (train.is_dir() and _subfolders(train)):
        return {"train": root}
    folders = {folder.name: folder for folder in _subfolders(root)}
    if unknown := sorted(set(folders) - set(SPLITS)):
        raise DataError(
            f"{root / unknown[0]}: got a folder {unknown[0]!r} beside 'train', expected only"
            f" {', '.join(SPLITS)}; rename or move it"
        )
    return {name: folders[name] for name in SPLITS if name in folders}


def _class_names(folders: dict[str, Path]) -> tuple[str, ...]:
    """Return the classes, which must be the same in every folder."""
    names = {pool: tuple(p.name for p in _subfolders(path)) for pool, path in folders.items()}
    expected = names["train"]
    if len(expected) < 2:
        raise DataError(
            f"{folders['train']}: got {len(expected)} class folder(s) {list(expected)},"
            " expected 2 or more, one for each class"
        )
    for pool, got in names.items():
        if difference := sorted(set(got) ^ set(expected)):
            raise DataError(
                f"{folders[pool]}: got other class folders than {folders['train']}, expected the"
                f" same; they differ in {', '.join(difference)}"
            )
    return expected


def _images_in(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir():
            yield file


def _list_files(folder: Path, class_names: Sequence[str]) -> _Listing:
    """List the images of every class, in an order that no file system changes."""
    per_class = [list(_images_in(folder / name)) for name in class_names]
    counts = [len(files) for files in per_class]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), counts)
    check_classes(labels, class_names, str(folder))
    return [file for files in per_class for file in files], labels
