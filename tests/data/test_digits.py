from __future__ import annotations

import hashlib

import numpy as np
from sklearn.datasets import load_digits

import nas.data
from nas.data.digits import Digits


def test_published_facts() -> None:
    digits = nas.data.get("digits")
    search, test = digits.search_splits(), digits.test_split()
    assert (len(search.train), len(search.validation), len(test)) == (1079, 359, 359)
    assert len(search.train) + len(search.validation) + len(test) == 1797
    assert search.input_shape == (1, 8, 8)
    assert search.task.class_names == tuple("0123456789")


def test_grey_values_are_spread_over_a_byte() -> None:
    pixels = Digits().test_split().pixels
    assert set(np.unique(pixels)) == {round(v * 255 / 16) for v in range(17)}


def test_images_keep_their_labels() -> None:
    values, classes = load_digits(return_X_y=True)
    label_of = {
        np.round(v * 255 / 16).astype(np.uint8).tobytes(): c
        for v, c in zip(values, classes, strict=True)
    }
    test = Digits().test_split()
    assert [label_of[image.tobytes()] for image in test.pixels] == test.targets.tolist()


def test_split_of_a_seed_never_changes() -> None:
    """A study that is resumed, or a table of results, relies on the split of a seed."""
    digest = hashlib.sha256(Digits(split_seed=0).test_split().pixels.tobytes()).hexdigest()
    assert digest[:16] == "d41600b721a98e91"
