"""The user's own images: one folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nas.core.errors import DataError
from nas.data import SPLITS, Labels, register
from nas.data.decoding import FORMATS, NAMED, EncodedImages, Listing, check_inside, shown

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


@register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(EncodedImages):
    """Images in `path/CLASS/FILE`, or in `path/train/CLASS/FILE` beside `validation` and `test`.

    A split without a folder of its own is cut from the train images by class. Classes are
    numbered in the order of their folders' names. Images in sub-folders of a class belong to it.
    Hidden files and folders and files without the suffix of an image are passed over, and counted
    in the notes of the splits; of an animation the first image counts.
    """

    def listing(self) -> Listing:
        root = self._root
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
                f"{shown(Path(error.filename))}: cannot be listed ({error.strerror}), expected a"
                " folder that this user may read; change its permissions or remove it"
            ) from error
        return self.listed(pools, names, note=_passed_line(passed))


def _passed_line(passed: Counter[str]) -> str:
    """Say what was passed over, given counts of reasons."""
    if not passed:
        return ""
    common = [f"{count} {ascii(reason)[1:-1]}" for reason, count in passed.most_common(NAMED)]
    more = ", ..." if len(passed) > NAMED else ""
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
        check_inside(train, own)
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
        check_inside(folder, own)
    return splits


def _classes_of_folders(folders: dict[str, Path]) -> tuple[str, ...]:
    """Return the classes, which must be the same in every folder."""
    names = {pool: tuple(p.name for p in _subfolders(path)) for pool, path in folders.items()}
    expected = names["train"]
    for pool, path in folders.items():
        for name in names[pool]:
            if shown(Path(name)) != name:
                raise DataError(
                    f"{path}: got a class folder {shown(Path(name))!r} whose name is not UTF-8"
                    " or holds control characters, expected a name that can be written; rename it"
                )
    if {name.lower() for name in expected} <= _LIKE_SPLITS and expected:
        raise DataError(
            f"{folders['train']}: got class folders {list(expected)}, which are names of splits,"
            f" expected {', '.join(SPLITS)} in these letters; rename them"
        )
    if len(expected) < 2:
        suffixes = _suffixes()
        beside = sum(path.suffix.lower() in suffixes for path in folders["train"].iterdir())
        fix = "move each image into the folder of its class, or name them in a table: data=csv"
        raise DataError(
            f"{folders['train']}: got {len(expected)} class folder(s) {list(expected)},"
            " expected 2 or more, one for each class"
            + (f"; {beside} image(s) lie outside of class folders: {fix}" if beside else "")
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
) -> tuple[list[Path], Labels]:
    """List the images of every class, in an order that no file system changes."""
    per_class = [_list_class(folder / name, own, seen, passed) for name in class_names]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int64), [len(f) for f in per_class])
    return [file for files in per_class for file in files], labels


def _suffixes() -> set[str]:
    """Return the suffixes of the images that are read."""
    return {s for s, name in Image.registered_extensions().items() if name in FORMATS}


def _list_class(top: Path, own: Path | None, seen: set[Path], passed: Counter[str]) -> list[Path]:
    """List the images of a class, those in its sub-folders included."""
    check_inside(top, own)
    suffixes = _suffixes()
    images = []
    for place, folders, files in os.walk(top, onerror=_stop, followlinks=True):
        for file in (Path(place, name) for name in sorted(files)):
            suffix = file.suffix.lower()
            if _hidden(file.name):
                passed["hidden"] += 1
            elif suffix in suffixes:
                if file.is_symlink():
                    check_inside(file, own)
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
                check_inside(Path(place, name), own)
                seen.add(target)
                folders.append(name)
    return sorted(images)


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
