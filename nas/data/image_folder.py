"""The user's own images: one folder a class."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from nas.core.dataset import Examples, SearchSplits, files_stamp
from nas.core.errors import ConfigError, DataError, one_line, printable
from nas.core.host import usable_cores
from nas.data import SPLITS, StratifiedDataset, register
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
_SYSTEM_FOLDERS = (
    "__MACOSX",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)

# Names of folders that hold a split, of which only those in `SPLITS` are understood.
_LIKE_SPLITS = {*SPLITS, "dev", "eval", "testing", "tests", "training", "val", "valid"}

# Of classes, broken files and reasons to pass files over, how many are named in one line.
_NAMED = 5

# Images that a thread decodes before it asks for more.
_CHUNK = 32

# Files and their labels `(n,)`.
_Files = tuple[list[Path], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class _Listing:
    task: Classification
    splits: dict[str, _Files]
    note: str


@register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(StratifiedDataset):
    """Images in `path/CLASS/FILE`, or in `path/train/CLASS/FILE` beside `validation` and `test`.

    A split without a folder of its own is cut from the train images by class. Classes are
    numbered in the order of their folders' names. Images in sub-folders of a class belong to it.
    Hidden files and folders and files without the suffix of an image are passed over, and counted
    in the notes of the splits; of an animation the first image counts.

    Attributes:
        path: The folder.
        image_size: Height and width in pixels: the shorter side is resized to it, then the
            centre is cropped. If not given, all images must have the same size.
        grayscale: Whether to give one channel instead of three.
        follow_links: Whether to read what links lead to outside of the folder, as in a folder of
            links that you made; refused in one that came from somebody else.
    """

    path: str
    image_size: int | None = None
    grayscale: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError("data.image_size", self.image_size, "a positive number of pixels")

    def search_splits(self) -> SearchSplits:
        listing = self._listing()
        train, validation = self._decode_splits(listing, "train", "validation")
        return SearchSplits(train, validation, (listing.note,))

    def test_split(self) -> Examples:
        return self._decode_splits(self._listing(), "test")[0]

    def stamp(self) -> str:
        return files_stamp(
            self, (at for files, _ in self._listing().splits.values() for at in files)
        )

    def _listing(self) -> _Listing:
        """List the files and labels of every split, without opening a file."""
        root = Path(self.path).expanduser()
        passed: Counter[str] = Counter()
        try:
            own = None if self.follow_links else Path(os.path.realpath(root))
            folders = _pool_folders(root, own)
            names = _classes_of_folders(folders)
            seen = _reserved(folders, names)
            pools = {
                split: _list_pool(at, names, own, seen, passed) for split, at in folders.items()
            }
            for path in (entry for at in {root, *folders.values()} for entry in at.iterdir()):
                if _hidden(path.name):
                    passed["hidden"] += 1
                elif not path.is_dir():
                    passed["outside the class folders"] += 1
        except OSError as error:
            raise DataError(
                f"{_shown(Path(error.filename))}: cannot be listed ({error.strerror}), expected a"
                " folder that this user may read; change its permissions or remove it"
            ) from error
        labels = {split: labels for split, (_, labels) in pools.items()}
        listed = {}
        for split, (pool, positions) in self.three_way(labels, names, str(root)).items():
            files = pools[pool][0]
            listed[split] = ([files[i] for i in positions], labels[pool][positions])
        counts = np.bincount(np.concatenate(list(labels.values()))).tolist()
        note = f"{root}: {_read_line(names, counts)}{_passed_line(passed)}"
        return _Listing(Classification(class_names=names), listed, note)

    def _decode_splits(self, listing: _Listing, *names: str) -> list[Examples]:
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

        with warnings.catch_warnings(), ThreadPoolExecutor(usable_cores()) as pool:
            # What a decoder warns of, it either copes with or fails at.
            warnings.simplefilter("ignore")
            chunks = list(pool.map(decode, range(0, len(files), _CHUNK)))
        return pixels, [line for chunk in chunks for line in chunk]

    def _pixels(self, file: Path) -> npt.NDArray[np.uint8]:
        """Decode one image, `(height, width)` or `(height, width, 3)`."""
        # Opening a pipe would wait for ever.
        if not file.is_file():
            raise DataError(f"{_shown(file)}: cannot be read (a broken link or no regular file)")
        try:
            # By its content, a file may be of a format that Pillow starts other programs for.
            with Image.open(file, formats=FORMATS) as image:
                mode = image.mode
                ImageOps.exif_transpose(image, in_place=True)
                converted = image.convert("L" if self.grayscale else "RGB")
        except Exception as error:
            # A broken file may fail a decoder in any way.
            raise DataError(f"{_shown(file)}: cannot be read ({one_line(error)})") from error
        # Pillow clips such values to 255 instead of scaling them.
        if mode in ("I", "F") or mode.startswith("I;"):
            raise DataError(f"{_shown(file)}: got pixel mode {mode!r}")
        if self.image_size is not None:
            converted = ImageOps.fit(converted, (self.image_size, self.image_size))
        return np.asarray(converted)


def _shown(path: Path) -> str:
    """Return a path as text that can be printed on a line, also if its name is not UTF-8."""
    return printable(os.fsencode(path).decode(errors="backslashreplace"))


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
    elif len(set(counts)) == 1:
        classes = f"{len(counts)} classes of {counts[0]} each"
    else:
        few, many = min(order, key=counts.__getitem__), max(order, key=counts.__getitem__)
        classes = (
            f"{len(counts)} classes, from {class_names[few]} {counts[few]}"
            f" to {class_names[many]} {counts[many]}"
        )
    return f"{sum(counts)} images ({classes})"


def _passed_line(passed: Counter[str]) -> str:
    """Say what was passed over, given counts of reasons."""
    if not passed:
        return ""
    common = [f"{count} {ascii(reason)[1:-1]}" for reason, count in passed.most_common(_NAMED)]
    more = ", ..." if len(passed) > _NAMED else ""
    return f"; {passed.total()} files or folders passed over: {', '.join(common)}{more}"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))


def _pool_folders(root: Path, own: Path | None) -> dict[str, Path]:
    """Return the folders that hold the class folders, by the split that they are for."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder, expected images in {root}/CLASS/; set data.path")
    train = root / "train"
    # A folder of images that is called "train" is a class of trains.
    if train.is_dir():
        _check_inside(train, own)
    if not (train.is_dir() and _subfolders(train)):
        return {"train": root}
    folders = {folder.name: folder for folder in _subfolders(root)}
    if unknown := sorted(set(folders) - set(SPLITS)):
        raise DataError(
            f"{root / unknown[0]}: got a folder {unknown[0]!r} beside 'train', expected only"
            f" {', '.join(SPLITS)}; rename or move it"
        )
    splits = {name: folders[name] for name in SPLITS if name in folders}
    for folder in splits.values():
        _check_inside(folder, own)
    return splits


def _classes_of_folders(folders: dict[str, Path]) -> tuple[str, ...]:
    """Return the classes, which must be the same in every folder."""
    names = {pool: tuple(p.name for p in _subfolders(path)) for pool, path in folders.items()}
    expected = names["train"]
    for pool, path in folders.items():
        for name in names[pool]:
            if _shown(Path(name)) != name:
                raise DataError(
                    f"{path}: got a class folder {_shown(Path(name))!r} whose name is not UTF-8"
                    " or holds control characters, expected a name that can be written; rename it"
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
    folder: Path,
    class_names: Sequence[str],
    own: Path | None,
    seen: set[Path],
    passed: Counter[str],
) -> _Files:
    """List the images of every class, in an order that no file system changes."""
    per_class = [_list_class(folder / name, own, seen, passed) for name in class_names]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), [len(f) for f in per_class])
    return [file for files in per_class for file in files], labels


def _list_class(top: Path, own: Path | None, seen: set[Path], passed: Counter[str]) -> list[Path]:
    """List the images of a class, those in its sub-folders included."""
    _check_inside(top, own)
    suffixes = {s for s, name in Image.registered_extensions().items() if name in FORMATS}
    images = []
    for place, folders, files in os.walk(top, onerror=_stop, followlinks=True):
        for file in (Path(place, name) for name in sorted(files)):
            suffix = file.suffix.lower()
            if _hidden(file.name):
                passed["hidden"] += 1
            elif suffix in suffixes:
                if file.is_symlink():
                    _check_inside(file, own)
                images.append(file)
            else:
                passed[suffix or "without a suffix"] += 1
        # Sorted, so that no file system decides through which of two links a folder is read.
        found, folders[:] = sorted(folders), []
        for name in found:
            if _hidden(name):
                passed["hidden"] += 1
            elif (target := Path(place, name).resolve()) in seen:
                passed["linked to what is read elsewhere"] += 1
            else:
                _check_inside(Path(place, name), own)
                seen.add(target)
                folders.append(name)
    return sorted(images)


def _check_inside(path: Path, own: Path | None) -> None:
    """Check that a path is no link that leads out of the folder `own`; `None` allows it."""
    target = Path(os.path.realpath(path))  # unlike `resolve` it takes a link to itself
    if own is not None and not target.is_relative_to(own):
        raise DataError(
            f"{_shown(path)}: leads out of {own}, to {_shown(target)}; copy the images into it, or"
            " set data.follow_links=true where you made the links"
        )


def _stop(error: OSError) -> None:
    raise error


def _reserved(folders: dict[str, Path], class_names: Sequence[str]) -> set[Path]:
    """Return the folders that no link within a class may lead to.

    These are the folders of all classes, of which the link would give the images another class or
    split, and all folders around them, of which a link back makes a loop.
    """
    classes = [(folder / name).resolve() for folder in folders.values() for name in class_names]
    around = [path for folder in folders.values() for path in (folder / "any").resolve().parents]
    return {*classes, *around}
