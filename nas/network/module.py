"""A network as the module that runs its blocks in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.network.blocks import INPUT
from nas.network.compact import SETTINGS, compact


@dataclass(frozen=True)
class PlacedBlock:
    """One module of one network.

    Attributes:
        name: Of the block.
        module: The module's class.
        input_shapes: Of every input, without the batch.
        arguments: Keyword arguments of the class, plain JSON values.
        inputs: Names of the placed blocks that it reads, or `input`.
        output_shape: Without the batch.
        auxiliary: Whether it is a second classifier that takes part in training only.
        declared_inputs: Names of the blocks that the space says it reads. A block without a module
            passes on what it reads, which is then in `inputs` in its place. Empty for `inputs`.
    """

    name: str
    module: type[nn.Module]
    input_shapes: tuple[tuple[int, ...], ...]
    arguments: Mapping[str, Any]
    inputs: tuple[str, ...]
    output_shape: tuple[int, ...]
    auxiliary: bool
    declared_inputs: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Build the module."""
        return self.module(*map(list, self.input_shapes), **self.arguments)


class CompactBlock(PlacedBlock):
    """A block whose arguments have some of `nas.network.compact.SETTINGS` among them."""

    def build(self) -> nn.Module:
        """Build the module, with compact weights."""
        return build_module(self.module, self.input_shapes, self.arguments)


def build_module(
    module: type[nn.Module], input_shapes: Sequence[Sequence[int]], arguments: Mapping[str, Any]
) -> nn.Module:
    """Build the module of a block; see `nas.network.blocks.ModuleSpec`.

    Args:
        module: Its class.
        input_shapes: Of every input, without the batch.
        arguments: Of the class, and any of `nas.network.compact.SETTINGS`.
    """
    own = {name: value for name, value in arguments.items() if name not in SETTINGS}
    how = {name: value for name, value in arguments.items() if name in SETTINGS}
    return compact(module(*map(list, input_shapes), **own), **how)


class AdaptingLayer(nn.Module):
    """A layer with a rule of its own for what it takes from a layer of its class.

    By the general rule a layer takes the first channels and the centre of the kernels; see
    `nas.network.inheritance`. It is applied to what `tensors_of` returns.
    """

    def tensors_of(
        self, other: nn.Module, tensors: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """Return the tensors of a layer of this class, by name, as the own arguments need them.

        Args:
            other: The layer; only its settings are read.
            tensors: Its tensors, through which gradients may flow.
        """
        del other
        return tensors


class SizedLayer(AdaptingLayer):
    """A layer that is built for images of one size and may be asked to take those of others.

    Costs are traced and files exported with the size that it was built for, as constants. What a
    layer does about another size is to be the same arithmetic at its own.

    Attributes:
        any_size: Whether `forward` is to look at the size of what it gets.
    """

    any_size = False


class DropPath(nn.Module):
    """Stochastic depth of a residual branch (Huang et al., ECCV 2016).

    In training the branch of an example is zero with probability `rate`, and divided by `1 - rate`
    otherwise. At rate 0 and in evaluation it does nothing, draws no random number, and leaves
    nothing in a trace or an ONNX file.

    Attributes:
        rate: From 0 to below 1.
    """

    rate = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop whole examples of `(N, ...)`."""
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(x.shape[0], *(1 for _ in x.shape[1:])).bernoulli_(1 - self.rate)
        return x * kept.div_(1 - self.rate)


class Dropout(nn.Module):
    """Dropout (Srivastava et al., JMLR 2014) that leaves nothing in a trace, unlike PyTorch's.

    At rate 0 and in evaluation it does nothing and draws no random number.

    Attributes:
        rate: From 0 to below 1.
    """

    rate = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop single values of `(N, ...)`."""
        return nn.functional.dropout(x, self.rate) if self.training and self.rate > 0 else x


class Network(nn.Module):
    """Runs blocks in their order; every block is a child under its own name.

    Attributes:
        placed_blocks: The blocks that it was built from, without those that were dropped.
    """

    def __init__(
        self,
        blocks: Sequence[PlacedBlock],
        build: Callable[[PlacedBlock], nn.Module] | None = None,
    ) -> None:
        """Build every block, by `build` if it is given.

        The last one that is not auxiliary returns the outputs.
        """
        super().__init__()
        self.placed_blocks = tuple(blocks)
        self._steps = [(block.name, block.inputs) for block in blocks if not block.auxiliary]
        self._heads = [(block.name, block.inputs) for block in blocks if block.auxiliary]
        for block in blocks:
            self.add_module(block.name, block.build() if build is None else build(block))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images `(N, C, H, W)` to outputs `(N, ...)`."""
        return self._run(images, kept=())[self._steps[-1][0]]

    def all_outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs, then those of every auxiliary classifier."""
        values = self._run(images, kept=[name for _, read in self._heads for name in read])
        outputs = [values[self._steps[-1][0]]]
        for name, read in self._heads:
            outputs.append(self._call(name, [values[source] for source in read]))
        return outputs

    def drop_auxiliary(self) -> None:
        """Remove the auxiliary classifiers, which have no use after training."""
        for name, _ in self._heads:
            delattr(self, name)
        self._heads = []
        self.placed_blocks = tuple(block for block in self.placed_blocks if not block.auxiliary)

    def take_any_size(self, any_size: bool = True) -> None:
        """Let images of other sizes pass, or of the own one alone; see `SizedLayer`."""
        for module in self.modules():
            if isinstance(module, SizedLayer):
                module.any_size = any_size

    def _call(self, name: str, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        called: torch.Tensor = getattr(self, name)(*inputs)
        return called

    def _run(self, images: torch.Tensor, kept: Collection[str]) -> dict[str, torch.Tensor]:
        last_reader = {source: name for name, read in self._steps for source in read}
        values = {INPUT: images}
        for name, read in self._steps:
            values[name] = self._call(name, [values[source] for source in read])
            for source in set(read).difference(kept):
                if last_reader[source] == name:
                    del values[source]
        return values
