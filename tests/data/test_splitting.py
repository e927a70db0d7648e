from __future__ import annotations

import numpy as np
import pytest

from nas.core.errors import ConfigError, DataError
from nas.data import StratifiedDataset, hold_out
from nas.data.digits import Digits


def split(pools: dict[str, np.ndarray], classes: int = 2, **settings: float):
    names = [f"class{i}" for i in range(classes)]
    return Digits(**settings).three_way(pools, names, "somewhere")


@pytest.mark.parametrize("n", [10, 33, 100, 1001])
def test_three_way_partitions_the_positions(n: int) -> None:
    splits = split({"train": np.arange(n) % 2})
    positions = np.concatenate([at for _, at in splits.values()])
    assert np.array_equal(np.sort(positions), np.arange(n))
    assert len(splits["test"][1]) == round(0.2 * n)
    assert len(splits["validation"][1]) == round(0.2 * n)


def test_splits_that_are_given_are_taken_whole() -> None:
    pools = {"train": np.arange(50) % 2, "test": np.arange(8) % 2}
    splits = split(pools)
    assert splits["test"][0] == "test"
    assert np.array_equal(splits["test"][1], np.arange(8))
    assert splits["validation"][0] == "train"
    assert len(splits["train"][1]) + len(splits["validation"][1]) == 50


def test_one_image_a_class_and_split_is_enough() -> None:
    for pool, positions in split({"train": np.array([0, 0, 0, 1, 1, 1])}).values():
        assert pool == "train"
        assert len(positions) == 2


def test_too_few_images_of_a_class_name_it() -> None:
    with pytest.raises(DataError, match=r"somewhere.*'class1' has 2 image.*expected 3 or more"):
        split({"train": np.array([0] * 20 + [1] * 2)})


def test_rare_class_that_misses_a_split_is_named() -> None:
    with pytest.raises(DataError, match=r"somewhere \(\w+ split\): class 'class1' has 0"):
        split({"train": np.array([0] * 1000 + [1] * 3)}, test_share=0.01, validation_share=0.01)


def test_larger_shares_are_advised_only_where_they_help() -> None:
    with pytest.raises(DataError) as caught:
        split({"train": np.array([0] * 20)})
    assert "_share" not in str(caught.value)
    with pytest.raises(DataError, match=r"data\.(validation|test)_share"):
        split({"train": np.array([0] * 1000 + [1] * 3)}, test_share=0.01, validation_share=0.01)


def test_hold_out_of_everything_is_refused() -> None:
    with pytest.raises(DataError, match="somewhere: 6 of 6 images cannot be held out"):
        hold_out(np.array([0, 0, 0, 1, 1, 1]), 6, 0, "somewhere")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_a_config_error(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"data\.split_seed"):
        hold_out(np.array([0, 0, 1, 1]), 2, seed, "somewhere")


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"got 1 class\(es\), expected 2 or more"):
        split({"train": np.zeros(5, dtype=np.int64)}, classes=1)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"validation_share": 0.0}, "data.validation_share: got 0.0"),
        ({"test_share": 1.5}, "data.test_share: got 1.5"),
        ({"validation_share": 0.5, "test_share": 0.5}, r"got 1.0, expected less than 1"),
    ],
)
@pytest.mark.parametrize("name", ["csv", "digits", "hugging_face", "image_folder", "npz"])
def test_shares_that_leave_nothing_are_refused(
    name: str, shares: dict[str, float], message: str
) -> None:
    import nas.data

    where = {} if name == "digits" else {"path": "anywhere"}
    assert issubclass(nas.data.component(name), StratifiedDataset)
    with pytest.raises(ConfigError, match=message):
        nas.data.get(name, **where, **shares)
