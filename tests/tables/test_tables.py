"""Tables of any kind: without training time, with any cost, tidy or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest

from nas.core.errors import ConfigError, DataError
from nas.core.trial import Candidate
from nas.evaluation.tabular import PublishedJob
from nas.tables import MILLIONS, IntArray, Table, TableCost, TableData, averaged, complete


@dataclass(frozen=True, kw_only=True)
class Made(Table):
    """Three genotypes of a space of two genes."""

    space: ClassVar[str] = "none"
    source: ClassVar[str] = "made up"
    data: ClassVar[Mapping[str, TableData]] = MappingProxyType(
        {"noise": TableData((3, 8, 8), 10, {0: "validation"})}
    )
    rows_made: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0))
    accuracy: tuple[float, ...] = (50.0, 60.0, 70.0)
    columns: Mapping[str, Any] = field(default_factory=lambda: {"params_m": (1.0, 2.0, 3.0)})

    @property
    def costs(self) -> Mapping[str, TableCost]:
        return {name: MILLIONS[name] for name in self.columns}

    @property
    def genotypes(self) -> IntArray:
        return np.array(self.rows_made)

    def _accuracy(self, dataset: str, epochs: int) -> Any:
        return np.array(self.accuracy)

    def _cost(self, name: str) -> Any:
        return np.array(self.columns[name])


def test_a_table_needs_neither_devices_nor_training_seconds() -> None:
    table = Made()
    assert table.seconds("noise", 0) is None
    assert not table.devices
    np.testing.assert_array_equal(table.cost("params_m"), [1, 2, 3])
    outcome = PublishedJob(table, "noise", 0)(
        Candidate(number=1, genotype=(0, 1), arch_id="id", seed=0), 0.0
    )
    assert outcome.metrics == {"error": 40.0, "seconds": 1.0}


def test_what_is_counted_is_no_device() -> None:
    with pytest.raises(ConfigError, match=r"device\.hardware"):
        Made().latency_ms("params_m")
    with pytest.raises(ConfigError, match=r"cost: got 'macs_m', .*params_m"):
        Made().cost("macs_m")


def test_repeated_genotypes_and_missing_values_are_refused() -> None:
    with pytest.raises(DataError, match="1 rows of genotypes"):
        Made(rows_made=((0, 0), (0, 1), (0, 0))).rows([(0, 0)])
    with pytest.raises(DataError, match="1 values of accuracy on noise"):
        Made(accuracy=(1.0, np.nan, 2.0)).error("noise", 0)
    with pytest.raises(DataError, match="2 values of params_m"):
        Made(columns={"params_m": (np.inf, 1.0, np.nan)}).cost("params_m")
    with pytest.raises(DataError, match=r"of shape \(2,\)"):
        Made(columns={"params_m": (1.0, 2.0)}).cost("params_m")


def test_rows_are_averaged_and_left_out_when_told() -> None:
    genotypes = np.array([(1, 0), (0, 0), (1, 0), (1, 1)])
    columns = {"a": np.array([1.0, 2.0, 4.0, np.nan]), "b": np.array([0.0, 1.0, 1.0, 5.0])}
    kept, values = complete(genotypes, columns)
    assert kept.tolist() == [[1, 0], [0, 0], [1, 0]]
    distinct, means = averaged(kept, values)
    assert distinct.tolist() == [[0, 0], [1, 0]]
    assert means["a"].tolist() == [2.0, 2.5]
    assert means["b"].tolist() == [1.0, 0.5]


def test_what_was_done_to_the_rows_is_said_where_numbers_are_explained() -> None:
    class Tidied(Made):
        tidying: ClassVar[str] = "one of two was left out"

    assert Tidied().published == {"source": "made up", "rows": "one of two was left out"}
    assert "rows" not in Made().published
