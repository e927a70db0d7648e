"""How a search space declares its networks: blocks in execution order.

A block says, for given choices, which module stands in its place and what that module reads.
Which genes a block depends on is not declared a second time: it is seen from the genes that it
reads. A gene that no block reads for given choices is inactive there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nas.core.space import Gene

if TYPE_CHECKING:
    from torch import nn

INPUT = "input"
"""The name under which blocks read the network's input."""

IntArray: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ModuleSpec:
    """A module and what it is built with.

    Attributes:
        module: A class of a module's top level. Its constructor takes the shape of every input,
            without the batch, as a list: `(C, H, W)` of images; then `arguments`.
        arguments: Keyword arguments, plain JSON values. `precision`, `sparsity` and `clusters` are
            not handed to the constructor: its layers with weights get compact ones by them; see
            `nas.network.compact`.
        inputs: Names of the blocks whose outputs it reads, or `input`; empty for the output of
            the block before.
    """

    module: type[nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @cached_property
    def key(self) -> tuple[type[nn.Module], str]:
        """Equal for equal modules, whatever they read."""
        return self.module, json.dumps(dict(self.arguments), sort_keys=True)


class Choices:
    """The chosen values of a genotype by gene name, which remembers what was read."""

    def __init__(
        self, genes: Sequence[Gene], positions: Mapping[str, int], indices: Sequence[int]
    ) -> None:
        """Offer the choices `indices`, one per gene; `positions` are those of genes by name."""
        self._genes = genes
        self._positions = positions
        self._indices = indices
        self.read: dict[int, None] = {}

    def __getitem__(self, name: str) -> Any:
        """Return the chosen value of a gene.

        Raises:
            KeyError: The space has no such gene; lists those that it has.
        """
        position = self._positions.get(name)
        if position is None:
            raise KeyError(f"gene {name!r}: expected one of {', '.join(self._positions)}")
        self.read[position] = None
        return self._genes[position].choices[self._indices[position]]


@dataclass(frozen=True)
class Block:
    """One place in a network.

    Attributes:
        name: A Python identifier, unique in the space; the module's name in the network.
        choose: From the choices, the module in this place; or, where there is none, the name of
            the block whose output this block's readers get (`None`: the block before). Reads no
            gene that has no effect on what it returns, so it looks at a stage's depth first.
        auxiliary: Whether it is a second classifier that takes part in training only.
    """

    name: str
    choose: Callable[[Choices], ModuleSpec | str | None]
    auxiliary: bool = False
