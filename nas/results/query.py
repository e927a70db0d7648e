"""Filters such as `latency_ms_measured < 1.0 and params_m < 0.5`, and goals: `min params_m`.

The text is parsed, never run: only the handful of syntax nodes below are read, everything else
is refused.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.core.errors import ConfigError, UnknownNameError

Mask = npt.NDArray[np.bool_]

MAX_LENGTH = 500
_EXPECTED = 'comparisons joined by and, or, not, such as "error < 10 and params_m <= 0.5"'
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def matching(where: str, frame: pd.DataFrame, aliases: Mapping[str, str] | None = None) -> Mask:
    """Return which rows of `frame` meet the condition `where`.

    A condition compares columns and numbers (`<`, `<=`, `>`, `>=`, `==`, `!=`, also chained:
    `1 < latency_ms_measured < 2`) and joins comparisons by `and`, `or`, `not` and parentheses.
    Columns of text are compared with `==` to quoted text. A comparison with a missing value is
    false, whichever it is.

    Args:
        where: The condition.
        frame: Its columns are the names that the condition may use.
        aliases: Further names, each with the column that it stands for.

    Returns:
        Mask, shape `(len(frame),)`.

    Raises:
        ConfigError: The text is something else, or it names a column that is not there.
    """
    if len(where) > MAX_LENGTH:
        raise _refused(f"{where[:40]}...", f"at most {MAX_LENGTH} characters")
    try:
        tree = ast.parse(where.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise _refused(where) from error
    return _Condition(where, frame, aliases or {}).mask(tree.body)


def columns_in(where: str, frame: pd.DataFrame, aliases: Mapping[str, str]) -> list[str]:
    """Return the columns that a condition names which `matching` can read."""
    tree = ast.parse(where.strip(), mode="eval")
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    found = (aliases.get(name, name) for name in names)
    return [name for name in dict.fromkeys(found) if name in frame.columns]


_GOAL = re.compile(r"(?:(?P<where>.+),)?\s*(?P<way>min|max)\s+(?P<name>\w+)\s*", re.DOTALL)


def with_goal(text: str) -> tuple[str | None, tuple[str, str] | None]:
    """Split `error < 10, min latency_ms` into its condition and its goal.

    Returns:
        The condition, and what is wanted (`min` or `max`) of which column. Of `min latency_ms` the
        condition is `None`, of a text without a goal the goal is.
    """
    found = _GOAL.fullmatch(text)
    if found is None:
        return text, None
    return found["where"], (found["way"], found["name"])


class _Condition:
    """The rows that meet one condition."""

    def __init__(self, where: str, frame: pd.DataFrame, aliases: Mapping[str, str]) -> None:
        self._where = where
        self._frame = frame
        self._aliases = aliases

    def mask(self, node: ast.expr) -> Mask:
        """Return the rows that meet `node`."""
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            masks = [self.mask(value) for value in node.values]
            return np.asarray(join.reduce(masks), dtype=np.bool_)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            links = zip(operands, node.ops, operands[1:], strict=False)
            met = [self._compare(*link) for link in links]
            return np.asarray(np.logical_and.reduce(met), dtype=np.bool_)
        raise _refused(self._where)

    def _compare(self, left: ast.expr, relation: ast.cmpop, right: ast.expr) -> Mask:
        compare = _COMPARISONS.get(type(relation))
        first, second = self._operand(left), self._operand(right)
        texts = [self._is_text(value) for value in (first, second)]
        if compare is None or (any(texts) and not (all(texts) and isinstance(relation, ast.Eq))):
            raise _refused(self._where)
        met = np.full(len(self._frame), fill_value=True)
        met &= np.asarray(compare(first, second), dtype=np.bool_)
        for value in (first, second):
            met &= ~np.asarray(pd.isna(value), dtype=np.bool_)
        return met

    def _operand(self, node: ast.expr) -> npt.NDArray[Any] | float | str:
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        sign = 1.0
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
            node = node.operand
        value = node.value if isinstance(node, ast.Constant) else None
        # `True` is an `int` too, but a truth value in a comparison is a slip.
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _refused(self._where)
        try:
            return sign * float(value)
        except OverflowError as error:
            raise _refused(self._where) from error

    def _column(self, name: str) -> npt.NDArray[Any]:
        column = self._aliases.get(name, name)
        if column not in self._frame.columns:
            raise UnknownNameError("where", name, {*map(str, self._frame.columns), *self._aliases})
        values = self._frame[column]
        if pd.api.types.is_numeric_dtype(values):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return values.to_numpy(dtype=object)

    @staticmethod
    def _is_text(value: npt.NDArray[Any] | float | str) -> bool:
        return value.dtype == object if isinstance(value, np.ndarray) else isinstance(value, str)


def _refused(where: str, expected: str = _EXPECTED) -> ConfigError:
    return ConfigError("where", where, expected)
