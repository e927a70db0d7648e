"""The user's own images: one folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from nas.core.dataset import Examples, SearchSplits, files_stamp
from nas.core.errors import ConfigError, DataError
from nas.core.host import usable_cores
from nas.data import register
from nas.data.splitting import SPLITS, UserDataset, check_classes, three_way
from nas.tasks.classification import Classification

FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "SUN",
    "TGA",
    "TIFF",
    "WEBP",
)
"""Pillow's names of the formats whose files are taken for images."""

# Folders that operating systems add, with copies of the images that are no images of a class.
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")

# Names of folders that hold a split, of which only those in `SPLITS` are understood.
_LIKE_SPLITS = {*SPLITS, "dev", "eval", "testing", "tests", "training", "val", "valid"}

# Of classes, suffixes and broken files, how many are named in one line.
_NAMED = 5

# Images that a thread decodes before it asks for more.
_CHUNK = 32

# Files and their labels `(n,)`.
_Files = tuple[list[Path], npt.NDArray[np.int64]]

# Of a folder, its device and inode.
_Identity = tuple[int, int]


@dataclass(frozen=True)
class _Listing:
    task: Classification
    splits: dict[str, _Files]
    note: str


@register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(UserDataset):
    """Images in `path/CLASS/FILE`, or in `path/train/CLASS/FILE` beside `validation` and `test`.

    A split without a folder of its own is cut from the train images by class. Classes are
    numbered in the order of their folders' names. Images in sub-folders of a class belong to it.
    Hidden files and folders and files without the suffix of an image are passed over, and counted
    in the notes of the splits; of an animation the first image counts.

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
        listing = self._listing()
        train, validation = self._load(listing, "train", "validation")
        return SearchSplits(train, validation, (listing.note,))

    def test_split(self) -> Examples:
        """Load the test split.

        Raises:
            DataError: A folder or an image is missing or not as expected; names it.
        """
        return self._load(self._listing(), "test")[0]

    def stamp(self) -> str:
        """Return the stamp of all images."""
        return files_stamp(
            self, (at for files, _ in self._listing().splits.values() for at in files)
        )

    def _listing(self) -> _Listing:
        """List the files and labels of every split, without opening a file."""
        root = Path(self.path).expanduser()
        folders = _pool_folders(root)
        class_names = _class_names(folders)
        passed: Counter[str] = Counter()
        seen = _read_already(folders, class_names)
        pools = {name: _list_pool(at, class_names, seen, passed) for name, at in folders.items()}
        for path in (entry for folder in {root, *folders.values()} for entry in _entries(folder)):
            if _hidden(path.name):
                passed["hidden"] += 1
            elif not path.is_dir():
                passed["outside the class folders"] += 1
        splits = three_way(
            {name: labels for name, (_, labels) in pools.items()},
            validation_share=self.validation_share,
            test_share=self.test_share,
            seed=self.split_seed,
            class_names=class_names,
            source=str(root),
        )
        listed = {}
        for name, (pool, at) in splits.items():
            files, labels = pools[pool]
            listed[name] = ([files[i] for i in at], labels[at])
        counts = np.bincount(np.concatenate([labels for _, labels in pools.values()]))
        note = f"{root}: {_read_line(class_names, counts.tolist())}{_passed_line(passed)}"
        return _Listing(Classification(class_names=class_names), listed, note)

    def _load(self, listing: _Listing, *names: str) -> list[Examples]:
        """Decode splits; if that fails, the test split as well, to name all broken files."""
        reference, size = self._reference(listing.splits["train"][0])
        loaded, broken = [], list[str]()
        for name in names:
            files, labels = listing.splits[name]
            pixels, objections = self._decode(files, reference, size)
            loaded.append(Examples(pixels, labels, listing.task))
            broken += objections
        if broken:
            if "test" not in names:
                broken += self._decode(listing.splits["test"][0], reference, size)[1]
            raise DataError(_broken_line(broken))
        return loaded

    def _reference(self, files: Sequence[Path]) -> tuple[Path, tuple[int, int]]:
        """Return the height and width that all images have, and the file that says so."""
        if self.image_size is not None:
            return files[0], (self.image_size, self.image_size)
        broken = []
        for file in files:
            try:
                height, width = self._pixels(file).shape[:2]
            except DataError as error:
                broken.append(str(error))
            else:
                return file, (height, width)
        raise DataError(_broken_line(broken))

    def _decode(
        self,
        files: Sequence[Path],
        reference: Path,
        size: tuple[int, int],
    ) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode files on all cores; return the images, and what is wrong with those that fail."""
        pixels = np.empty((len(files), 1 if self.grayscale else 3, *size), np.uint8)

        def decode(first: int) -> list[str]:
            broken = []
            for at, file in enumerate(files[first : first + _CHUNK], first):
                try:
                    image = self._pixels(file)
                except DataError as error:
                    broken.append(str(error))
                    continue
                if image.shape[:2] != size:
                    # At once: where one image differs most do, and one setting mends them all.
                    raise DataError(
                        f"{_shown(reference)} has {size[1]}x{size[0]} pixels and {_shown(file)}"
                        f" {image.shape[1]}x{image.shape[0]}, expected one size; set"
                        " data.image_size to resize all images"
                    )
                pixels[at] = np.atleast_3d(image).transpose(2, 0, 1)
            return broken

        with ThreadPoolExecutor(usable_cores()) as pool:
            chunks = list(pool.map(decode, range(0, len(files), _CHUNK)))
        return pixels, [line for chunk in chunks for line in chunk]

    def _pixels(self, file: Path) -> npt.NDArray[np.uint8]:
        """Decode one image, `(height, width)` or `(height, width, 3)`."""
        # Opening a pipe would wait for ever.
        if not file.is_file():
            raise DataError(f"{_shown(file)}: cannot be read (a broken link or no regular file)")
        try:
            with Image.open(file) as image:
                mode = image.mode
                ImageOps.exif_transpose(image, in_place=True)
                converted = image.convert("L" if self.grayscale else "RGB")
        except Exception as error:
            # A broken file may fail a decoder in any way.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{_shown(file)}: cannot be read ({reason})") from error
        # Pillow clips such values to 255 instead of scaling them.
        if mode in ("I", "F") or mode.startswith("I;"):
            raise DataError(f"{_shown(file)}: got pixel mode {mode!r}")
        if self.image_size is not None:
            converted = ImageOps.fit(converted, (self.image_size, self.image_size))
        return np.asarray(converted)


def _shown(path: Path) -> str:
    """Return a path as text that can be printed, also if its name is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _broken_line(broken: Sequence[str]) -> str:
    shown, expected = "; ".join(broken[:_NAMED]), "expected intact images of 8 bits per channel"
    if len(broken) == 1:
        return f"{shown}; {expected}: replace or remove it"
    rest = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return f"{len(broken)} images cannot be used: {shown}{rest}; {expected}: replace or remove them"


def _read_line(class_names: Sequence[str], counts: Sequence[int]) -> str:
    order = range(len(counts))
    if len(counts) <= _NAMED:
        classes = ", ".join(f"{class_names[i]} {counts[i]}" for i in order)
    else:
        few, many = min(order, key=counts.__getitem__), max(order, key=counts.__getitem__)
        classes = (
            f"{len(counts)} classes, from {class_names[few]} {counts[few]}"
            f" to {class_names[many]} {counts[many]}"
        )
    return f"{sum(counts)} images ({classes})"


def _passed_line(passed: Counter[str]) -> str:
    """Say what was passed over, given counts of reasons and of suffixes (`.txt`, or empty)."""
    named = sorted(key for key in passed if not key or key.startswith("."))
    suffixes = Counter({key: passed[key] for key in named})
    reasons = [f"{n} {key}" for key, n in passed.items() if n and key not in suffixes]
    if suffixes:
        common = [ascii(key)[1:-1] or "none" for key, _ in suffixes.most_common(_NAMED)]
        more = ", ..." if len(suffixes) > _NAMED else ""
        shown = ", ".join(common) + more
        reasons.append(f"{suffixes.total()} with a suffix that is no image's ({shown})")
    if not reasons:
        return ""
    return f"; {passed.total()} files or folders passed over: {', '.join(reasons)}"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _cannot_list(error) from error


def _cannot_list(error: OSError) -> DataError:
    return DataError(
        f"{_shown(Path(error.filename))}: cannot be listed ({error.strerror}), expected a folder"
        " that this user may read; change its permissions or remove it"
    )


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir() and not _hidden(path.name)]


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
    for pool, path in folders.items():
        for name in names[pool]:
            if _shown(Path(name)) != name:
                raise DataError(
                    f"{path}: got a class folder {_shown(Path(name))!r} whose name is not UTF-8,"
                    " expected a name that can be written; rename it"
                )
    if {name.lower() for name in expected} <= _LIKE_SPLITS and expected:
        raise DataError(
            f"{folders['train']}: got class folders {list(expected)}, which are names of splits,"
            f" expected {', '.join(SPLITS)} in these letters; rename them"
        )
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


def _list_pool(
    folder: Path, class_names: Sequence[str], seen: set[_Identity], passed: Counter[str]
) -> _Files:
    """List the images of every class, in an order that no file system changes."""
    per_class = [_list_class(folder / name, seen, passed) for name in class_names]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), [len(f) for f in per_class])
    check_classes(labels, class_names, str(folder))
    return [file for files in per_class for file in files], labels


def _list_class(top: Path, seen: set[_Identity], passed: Counter[str]) -> list[Path]:
    """List the images of a class, those in its sub-folders included."""
    suffixes = {s for s, name in Image.registered_extensions().items() if name in FORMATS}
    images = []
    for place, folders, files in os.walk(top, onerror=_stop, followlinks=True):
        passed["hidden"] += sum(map(_hidden, (*folders, *files)))
        for file in (Path(place, name) for name in files if not _hidden(name)):
            suffix = file.suffix.lower()
            if suffix in suffixes:
                images.append(file)
            else:
                passed[suffix] += 1
        # Sorted, so that no file system decides through which of two links a folder is read.
        visible, folders[:] = sorted(name for name in folders if not _hidden(name)), []
        for name in visible:
            if (identity := _identity(Path(place, name))) in seen:
                passed["linked to what is read elsewhere"] += 1
            else:
                seen.add(identity)
                folders.append(name)
    return sorted(images)


def _stop(error: OSError) -> None:
    raise _cannot_list(error) from error


def _identity(folder: Path) -> _Identity:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _read_already(folders: dict[str, Path], class_names: Sequence[str]) -> set[_Identity]:
    """Return the folders that no link within a class may lead to.

    These are the folders of all classes, of which the link would give the images another class or
    split, and all folders around them, of which a link back makes a loop.
    """
    classes = [folder / name for folder in folders.values() for name in class_names]
    around = [path for folder in folders.values() for path in (folder, *folder.resolve().parents)]
    return {_identity(path) for path in (*classes, *around)}
