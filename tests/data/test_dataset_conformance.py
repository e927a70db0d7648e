"""What every registered data set must keep."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas.data
from nas.core.dataset import Dataset, Examples, fingerprint_difference
from nas.core.errors import DataError, UnknownNameError

Make = Callable[[int], Dataset]

PATHS = {
    "csv": "csv_path",
    "hugging_face": "hugging_face_root",
    "image_folder": "image_root",
    "npz": "npz_path",
}
"""Fixtures with the path of a data set."""


# What is published has a shape and classes, and no images.
@pytest.fixture(params=[name for name in nas.data.names() if name != "published"])
def make(request: pytest.FixtureRequest) -> Make:
    name: str = request.param
    settings: dict[str, Any] = {}
    if name in PATHS:
        settings["path"] = str(request.getfixturevalue(PATHS[name]))
    if name == "fashion_mnist":
        settings["download"] = False
        try:
            nas.data.get(name, **settings).test_split()
        except DataError as error:
            pytest.skip(f"Fashion-MNIST is not here, `make data` fetches it: {error}")
    return lambda seed: nas.data.get(name, split_seed=seed, **settings)


def splits_of(dataset: Dataset) -> tuple[dict[str, Examples], tuple[str, ...]]:
    search = dataset.search_splits()
    splits = {"train": search.train, "validation": search.validation, "test": dataset.test_split()}
    return splits, search.task.class_names


def contents(images: Examples) -> Counter[tuple[bytes, int]]:
    return Counter(
        (pixels.tobytes(), int(label))
        for pixels, label in zip(images.pixels, images.targets, strict=True)
    )


def same(a: Examples, b: Examples) -> bool:
    return np.array_equal(a.pixels, b.pixels) and np.array_equal(a.targets, b.targets)


def test_splits_keep_what_the_interface_promises(make: Make) -> None:
    splits, class_names = splits_of(make(0))
    channels, height, width = make(0).search_splits().input_shape
    for images in splits.values():
        assert images.pixels.dtype == np.uint8
        assert images.pixels.shape == (len(images), channels, height, width)
        assert images.targets.dtype == np.int64
        assert images.targets.shape == (len(images),)
        assert np.array_equal(np.unique(images.targets), np.arange(len(class_names)))


def test_splits_are_disjoint_parts_of_one_whole(make: Make) -> None:
    parts = {seed: [contents(i) for i in splits_of(make(seed))[0].values()] for seed in (0, 1)}
    # None of these data sets holds an image twice, so that its bytes identify it.
    train, validation, test = parts[0]
    assert not train.keys() & validation.keys()
    assert not train.keys() & test.keys()
    assert not validation.keys() & test.keys()
    assert sum(parts[0], Counter()) == sum(parts[1], Counter())


def test_seed_alone_decides_the_split(make: Make) -> None:
    first, again, other = (splits_of(make(seed))[0] for seed in (3, 3, 4))
    assert all(same(first[name], again[name]) for name in first)
    assert not same(first["train"], other["train"])
    assert not same(first["validation"], other["validation"])


def test_splits_have_the_proportions_of_the_classes(make: Make) -> None:
    splits, class_names = splits_of(make(0))
    labels = np.concatenate([images.targets for images in splits.values()])
    whole = np.bincount(labels, minlength=len(class_names)) / len(labels)
    for images in splits.values():
        expected = whole * len(images)
        assert np.abs(np.bincount(images.targets) - expected).max() < 2


def test_search_splits_hold_no_test_images(make: Make) -> None:
    search = make(0).search_splits()
    assert set(vars(search)) == {"train", "validation", "notes"}


def test_fingerprint_is_the_same_for_two_instances_and_after_json(make: Make) -> None:
    first, second = (make(0).fingerprint(make(0).search_splits()) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first)) == first
    assert fingerprint_difference(first, second) is None


def test_fingerprint_counts_the_images_and_tells_splits_apart(make: Make) -> None:
    splits, class_names = splits_of(make(0))
    record = make(0).fingerprint(make(0).search_splits())
    assert record["task"]["class_names"] == list(class_names)
    assert record["input_shape"] == list(splits["train"].pixels.shape[1:])
    for name, images in splits.items():
        assert (
            list(record["splits"][name]["counts"].values()) == np.bincount(images.targets).tolist()
        )
    other = make(1).fingerprint(make(1).search_splits())
    assert fingerprint_difference(record, other) is not None
    assert make(0).stamp() is None or make(0).stamp() != make(1).stamp()


def test_fingerprint_leaves_the_test_split_closed_while_the_stamp_is_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make(0)
    if dataset.stamp() is None:
        pytest.skip("a data set without a stamp loads its test split each time")
    splits = dataset.search_splits()
    known = json.loads(json.dumps(dataset.fingerprint(splits)))
    monkeypatch.setattr(type(dataset), "test_split", lambda self: pytest.fail("was loaded"))
    assert dataset.fingerprint(splits, known) == known


def test_names_lists_every_file_and_unknown_ones_are_refused() -> None:
    folder = Path(nas.data.__file__).parent
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", "decoding"}
    assert set(nas.data.names()) == files
    with pytest.raises(UnknownNameError, match=r"one of .*digits"):
        nas.data.get("digit")
