"""Functions of torch in plain values, as a JSON file has them, and how they are run.

A call is `{"target": NAME, "arguments": {KEY: VALUE}}`, whose keys are names or positions. A value
is plain, or a mapping with one of the keys below, which say what it stands for.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

BATCH = "batch"
"""Key of a constant that stands for the size of the batch, times its value."""

NUMBER = "number"
"""Key of a constant that JSON has no form for, as text."""

DEVICE = "device"
"""Key of a constant that stands for the device of the inputs."""

TENSOR = "tensor"
"""Key of an argument that stands for a parameter or buffer, by the name that it gets."""

CALL = "call"
"""Key of an argument that stands for what an earlier function gave, by its position."""

VALUE = "input"
"""Key of an argument that stands for one of the inputs, by its position."""

SPACES: Mapping[str, Any] = {
    "torch": torch,
    "torch.nn.functional": nn.functional,
    "operator": operator,
    "math": math,
}

_OF_TENSORS = frozenset(
    name
    for functions in torch.overrides.get_overridable_functions().values()
    for function in functions
    if not (name := getattr(function, "__name__", "_")).startswith("_")
) | {
    "arange", "as_tensor", "eye", "full", "hardsigmoid", "hardswish", "linspace", "logsigmoid",
    "new_full", "new_ones", "new_tensor", "new_zeros", "ones", "tensor", "zeros",
}  # fmt: skip

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}

ALLOWED: Mapping[str, frozenset[str]] = {
    "torch": _OF_TENSORS,
    "torch.nn.functional": _OF_TENSORS,
    "Tensor": _OF_TENSORS,
    "operator": frozenset({
        "abs", "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "inv", "invert", "le", "lt",
        "matmul", "mod", "mul", "ne", "neg", "not_", "or_", "pos", "pow", "sub", "truediv", "xor",
    }),
    "math": frozenset(name for name in vars(math) if not name.startswith("_")),
}  # fmt: skip
"""What a network may run: names in a file reach functions of tensors and numbers only."""


def check_calls(calls: Sequence[Mapping[str, Any]]) -> None:
    """Check that calls that were read from a file are of functions of tensors only.

    Raises:
        ValueError: One is not.
    """
    for call in calls:
        space, _, name = str(call["target"]).rpartition(".")
        if name not in ALLOWED.get(space, ()):
            raise ValueError(f"got {call['target']!r}, expected a function of tensors")


def run_calls(
    calls: Sequence[Mapping[str, Any]],
    inputs: Sequence[torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Run the functions of a traced module; see `Traced.calls`."""
    found: list[Any] = []

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        [(kind, held)] = value.items()
        known: dict[str, Any] = {VALUE: inputs, CALL: found, TENSOR: tensors, "dtype": _DTYPES}
        if kind in known:
            return known[kind][held]
        if kind == BATCH:
            return held * inputs[0].shape[0]
        if kind == NUMBER:
            return float(held)
        if kind == DEVICE:
            return inputs[0].device
        return ... if held == "..." else slice(*map(filled, held))

    for each in calls:
        arguments = {name: filled(value) for name, value in each["arguments"].items()}
        positional = [arguments.pop(name) for name in list(arguments) if name.isdecimal()]
        space, _, name = each["target"].rpartition(".")
        owner = positional.pop(0) if space == "Tensor" else SPACES[space]
        function = getattr(owner, name)
        if name == "getitem" and isinstance(positional[1], list):
            positional[1] = tuple(positional[1])
        found.append(function(*positional, **arguments))
    output: torch.Tensor = found[-1]
    return output
