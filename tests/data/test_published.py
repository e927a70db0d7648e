"""Data sets of published tables: what a space is built for, without images."""

from __future__ import annotations

import pytest

import nas.data
from nas import tables
from nas.core.errors import ConfigError, DataError

EVERY = [(table, name) for table in tables.names() for name in tables.get(table).data]


@pytest.mark.parametrize(("table", "dataset"), EVERY)
def test_it_has_a_shape_and_classes_and_no_images(table: str, dataset: str) -> None:
    published = nas.data.get("published", table=table, dataset=dataset)
    splits, expected = published.search_splits(), tables.get(table).dataset(dataset)
    assert splits.input_shape == expected.input_shape
    assert len(set(splits.task.class_names)) == expected.num_classes
    assert len(splits.train) == len(splits.validation) == 0
    with pytest.raises(DataError, match="results, no images"):
        published.test_split()


@pytest.mark.parametrize(("table", "dataset"), EVERY)
def test_its_fingerprint_needs_no_images(table: str, dataset: str) -> None:
    published = nas.data.get("published", table=table, dataset=dataset)
    record = published.fingerprint(published.search_splits())
    assert published.fingerprint(published.search_splits(), record) == record
    assert record["splits"]["test"]["images"] == 0


def test_a_data_set_that_is_not_published_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.dataset: got 'mnist', expected .*cifar10"):
        nas.data.get("published", dataset="mnist")
