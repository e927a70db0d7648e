"""Whether a data set is still the one that a study began with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.core.dataset import Dataset, Examples, SearchSplits, files_stamp, fingerprint_difference
from nas.core.errors import DataError
from nas.data.image_folder import ImageFolder
from nas.data.npz import Npz
from nas.tasks.classification import Classification

Record = dict[str, Any]


def taken(dataset: Dataset, known: Record | None = None) -> Record:
    return json.loads(json.dumps(dataset.fingerprint(dataset.search_splits(), known)))


def difference(root: Path, known: Record) -> str | None:
    """Compare with an earlier record, which also stands in for test images that did not change."""
    dataset = ImageFolder(path=str(root))
    found = fingerprint_difference(known, taken(dataset, known))
    assert found == fingerprint_difference(known, taken(dataset))
    assert found is None or "\n" not in found
    return found


def swap(a: Path, b: Path) -> None:
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def change_a_pixel(file: Path) -> None:
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)


@pytest.fixture
def split_root(image_root: Path, tmp_path: Path) -> Path:
    """The same classes, with a folder for each split."""
    root = tmp_path / "splits"
    for split in ("train", "validation", "test"):
        shutil.copytree(image_root, root / split)
    for split in ("validation", "test"):
        for file in (root / split).glob("*/*.png"):
            change_a_pixel(file)
    return root


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "class renamed": (
        lambda root: (root / "dog").rename(root / "dgo"),
        ["class names", "'dgo'", "'dog'"],
    ),
    "class added": (
        lambda root: shutil.copytree(root / "dog", root / "emu"),
        ["class names", "'emu'"],
    ),
    "class removed": (lambda root: shutil.rmtree(root / "dog"), ["class names", "'dog'"]),
    "images deleted": (
        lambda root: [(root / "dog" / f"{number}.png").unlink() for number in range(5)],
        ["train split", "got 6 of 'dog', expected 9"],
    ),
    "classes swapped": (lambda root: swap(root / "cat", root / "owl"), ["train split", "'cat'"]),
    "another size": (
        lambda root: [Image.new("RGB", (9, 8)).save(file) for file in list(root.glob("*/*.png"))],
        ["input shape", "[3, 8, 9]", "[3, 8, 8]"],
    ),
    "a pixel changed": (
        lambda root: [change_a_pixel(file) for file in root.glob("owl/1*.png")],
        ["split", "changed"],
    ),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_named(
    image_root: Path, change: Callable[[Path], object], named: list[str]
) -> None:
    known = taken(ImageFolder(path=str(image_root)))
    assert difference(image_root, known) is None
    change(image_root)
    found = difference(image_root, known)
    assert found is not None
    assert all(part in found for part in named)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_split_that_changed_is_named(split_root: Path, split: str) -> None:
    known = taken(ImageFolder(path=str(split_root)))
    change_a_pixel(split_root / split / "dog" / "3.png")
    found = difference(split_root, known)
    assert found is not None
    assert found.startswith(f"{split} split")


def test_classes_of_equal_size_that_are_swapped(split_root: Path) -> None:
    shutil.rmtree(split_root / "test" / "cat")
    shutil.copytree(split_root / "test" / "owl", split_root / "test" / "cat")
    change_a_pixel(split_root / "test" / "cat" / "3.png")
    known = taken(ImageFolder(path=str(split_root)))
    swap(split_root / "test" / "cat", split_root / "test" / "owl")
    assert "test split" in str(difference(split_root, known))


def test_test_images_that_are_exchanged_and_keep_size_and_time(split_root: Path) -> None:
    """Archives give all files one time, and uncompressed images of one shape have one size."""
    for file in split_root.glob("test/*/*.png"):
        with Image.open(file) as image:
            image.save(file.with_suffix(".bmp"))
        file.unlink()
        os.utime(file.with_suffix(".bmp"), (0, 0))
    known = taken(ImageFolder(path=str(split_root)))
    swap(split_root / "test" / "cat" / "0.bmp", split_root / "test" / "dog" / "0.bmp")
    assert "test split" in str(difference(split_root, known))


def test_a_copy_elsewhere_is_no_difference(split_root: Path, tmp_path: Path) -> None:
    dataset = ImageFolder(path=str(split_root))
    known = taken(dataset)
    for file in split_root.rglob("*.png"):
        os.utime(file, (1, 1))
    assert dataset.stamp() != known["stamp"]
    assert difference(split_root, known) is None
    copy = tmp_path / "copy"
    shutil.copytree(split_root, copy, copy_function=shutil.copyfile)
    assert difference(copy, known) is None


def test_settings_that_change_the_test_images_change_the_stamp(image_root: Path) -> None:
    known = taken(ImageFolder(path=str(image_root)))
    grey = ImageFolder(path=str(image_root), grayscale=True)
    assert taken(grey, known) == taken(grey)


def test_broken_test_image_is_found_at_the_first_run(split_root: Path) -> None:
    broken = split_root / "test" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:-60])
    dataset = ImageFolder(path=str(split_root))
    splits = dataset.search_splits()
    with pytest.raises(DataError, match=r"test/dog/3\.png: cannot be read"):
        dataset.fingerprint(splits)


def test_labels_alone_that_change(npz_path: Path, arrays: dict[str, np.ndarray]) -> None:
    dataset = Npz(path=str(npz_path))
    known = taken(dataset)
    # The same images of every class in number, and other ones.
    np.savez(npz_path, x=arrays["x"], y=np.roll(arrays["y"], 1))
    assert "split" in str(fingerprint_difference(known, taken(dataset, known)))


def test_a_file_that_is_missing_changes_the_stamp(npz_path: Path) -> None:
    dataset = Npz(path=str(npz_path))
    before = dataset.stamp()
    npz_path.unlink()
    assert dataset.stamp() != before
    assert files_stamp(dataset, []) != dataset.stamp()


NO_YES = Classification(class_names=("no", "yes"))


@dataclass(frozen=True, kw_only=True)
class Own(Dataset):
    """A user's own data set, which knows nothing of fingerprints."""

    value: int = 0

    def search_splits(self) -> SearchSplits:
        return SearchSplits(self._images(), self._images())

    def test_split(self) -> Examples:
        return self._images(self.value)

    def _images(self, value: int = 0) -> Examples:
        return Examples(np.full((4, 1, 2, 2), value, np.uint8), np.array([0, 1, 0, 1]), NO_YES)


def test_data_set_that_cannot_tell_is_loaded_each_time() -> None:
    known = taken(Own())
    assert known["stamp"] is None
    assert fingerprint_difference(known, taken(Own(), known)) is None
    assert "test split" in str(fingerprint_difference(known, taken(Own(value=1), known)))


def test_many_class_names_are_shown_in_part() -> None:
    names = [f"class{number}" for number in range(1000)]
    old = taken(Own()) | {"task": {"class_names": names}}
    longer = {"class_names": [*names[:500], "new", *names[500:]]}
    found = fingerprint_difference(old, old | {"task": longer})
    assert found is not None
    assert "'new'" in found
    assert len(found) < 500
    shorter = fingerprint_difference(old, old | {"task": {"class_names": names[:-1]}})
    assert shorter is not None
    assert "'class999'" in shorter
