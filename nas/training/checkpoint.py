"""Where a training was interrupted, as safetensors: what comes after is as if it had not been.

A checkpoint holds numbers only, so reading one from elsewhere runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch
import torch

State = Mapping[str, Any]
"""Tensors, numbers and further states by name; whole numbers name the members of a list."""


def to_bytes(state: State) -> bytes:
    """Return a state of nested tensors and numbers as a checkpoint."""
    tensors = {}
    for name, value in _flattened(state, ""):
        exact = torch.float64 if isinstance(value, float) else None
        tensor = torch.as_tensor(value, dtype=exact)
        # A copy: tensors that share their memory cannot be saved.
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return safetensors.torch.save(tensors)


def from_bytes(checkpoint: bytes) -> dict[str, Any]:
    """Return the nested state that `to_bytes` was given; numbers come back as tensors."""
    nested: dict[str, Any] = {}
    for path, tensor in safetensors.torch.load(checkpoint).items():
        *parents, last = path.split("/")
        at = nested
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = tensor
    return nested


def _flattened(state: State, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{path}/")
        else:
            yield path, value
