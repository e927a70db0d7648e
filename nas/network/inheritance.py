"""Which tensors of two networks correspond, and weights that one takes over from another.

Blocks of the same name and class correspond, as in Once-for-All (Cai et al., ICLR 2020), and in
them layers of one role; see `layers_of`. A layer takes the first channels of the other's and the
centre of its kernels. A module may state more: `nas.network.module.AdaptingLayer`, and two
attributes of a block or of a part of it.

- `joint`: by the path of a layer, sizes whose product is the number of its outputs, each of which
  is sliced by itself.
- `branches`: by the path of a part, the position of the one input that it reads, and what it does
  with it. It corresponds to a part that does the same with the input of the same name.

Where the other network has less, the rest of the channels keeps its random weights, and the rest
of a kernel is zero, with which it computes what the smaller one did (Net2Net, Chen et al., ICLR
2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from nas.network.blocks import INPUT
from nas.network.compact import FakeQuantisation, plain_class
from nas.network.module import AdaptingLayer, Network, PlacedBlock

_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class InitialWeights(Protocol):
    """Weights that new networks begin with."""

    @property
    def source(self) -> Mapping[str, str]:
        """Where they come from, for the record."""

    def inherited_by(self, network: Network, genotype: Sequence[int]) -> float:
        """Give the network of a genotype what fits; return the share of its parameters that did."""


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """A trained network whose weights new networks begin with.

    Attributes:
        network: Which has them.
        outputs: Whether its outputs mean the same as the new networks', so that the layer that
            returns them is inherited too.
        source: Where the weights come from, for the record: `folder` and `sha256` of their file.
    """

    network: Network
    outputs: bool = True
    source: Mapping[str, str] = field(default_factory=dict)

    def inherited_by(self, network: Network, genotype: Sequence[int]) -> float:
        """Give `network` the weights that fit; return the share of its parameters that did."""
        del genotype
        return inherit(network, self.network, outputs=self.outputs)


def inherit(target: Network, source: Network, *, outputs: bool = True) -> float:
    """Copy the weights of a network into another one as far as they correspond.

    Networks of equal structure become equal. Batch statistics are copied as well. What has no
    counterpart keeps the values that it has. Where images have another number of channels, each
    gets the sum of the source's weights over its channels, divided by their number: a grey image
    then gives what it gave as an image of equal channels.

    Args:
        target: Is changed in place.
        source: Is read.
        outputs: Whether the last layer of the last block is copied.

    Returns:
        The share of the target's parameters that were copied, from 0 to 1.
    """
    others = {block.name: block for block in source.placed_blocks}
    last = [block.name for block in target.placed_blocks if not block.auxiliary][-1]
    of_images = _reading_images(target)
    copied = 0
    for block in target.placed_blocks:
        other = others.get(block.name)
        if other is None or name_of(other.module) != name_of(block.module):
            continue
        layers = layers_of(target.get_submodule(block.name), declared_inputs(block))
        before = layers_of(source.get_submodule(block.name), declared_inputs(other))
        theirs = {layer.role: layer for layer in before}
        for layer in layers:
            found = theirs.get(layer.role)
            if found is None or (block.name == last and not outputs and layer is layers[-1]):
                continue
            tensors = adapted(layer.module, found.module, found.tensors)
            if block.name in of_images and layer is layers[0]:
                tensors = _for_channels(tensors, other, block)
            copied += _copy(layer, tensors, found.joint)
    return copied / max(sum(p.numel() for p in target.parameters()), 1)


@dataclass(frozen=True)
class LayerOfBlock:
    """A layer with tensors of its own.

    Attributes:
        role: Equal for the layers of blocks of one class that correspond, and for no others.
        path: Of the layer in its block.
        module: The layer.
        joint: Sizes whose product is the number of its outputs; `None` for outputs in a row.
    """

    role: str
    path: str
    module: nn.Module
    joint: tuple[int, ...] | None

    @property
    def own_parameters(self) -> dict[str, nn.Parameter]:
        """Its parameters by name, without those of layers in it."""
        return dict(self.module.named_parameters(recurse=False))

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Its parameters and persistent buffers by name, without gradients."""
        paths = self.module.state_dict()
        return {name: tensor for name, tensor in paths.items() if "." not in name}


def layers_of(block: nn.Module, inputs: Sequence[str]) -> list[LayerOfBlock]:
    """Return the layers of a block that have tensors of their own, in order, with their roles.

    A role is the name of the layer's place, in which positions in an `nn.Sequential` do not count,
    and what the layer is there: the first mapping, which reads other channels than the next one,
    the last one, which returns others, or one between them; a normalisation belongs to the layer
    before it. Of equal ones the first corresponds to the first.

    Args:
        block: The block.
        inputs: Names of what it reads, as its space declares them.
    """
    every = dict.fromkeys(name.rpartition(".")[0] for name in block.state_dict())
    # Ranges of quantised values are a network's own, as batch statistics are.
    paths = [path for path in every if not isinstance(block.get_submodule(path), FakeQuantisation)]
    joint = _attribute(block, "joint")
    branches = _attribute(block, "branches")
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(_place(block, path, branches, inputs), []).append(path)
    roles: dict[str, str] = {}
    for place, group in groups.items():
        kinds = _kinds([block.get_submodule(path) for path in group])
        for i, (path, kind) in enumerate(zip(group, kinds, strict=True)):
            jointly = f" joint{len(joint[path])}" if path in joint else ""
            roles[path] = f"{place} {kind}{jointly} {kinds[:i].count(kind)}"
    return [
        LayerOfBlock(roles[path], path, block.get_submodule(path), joint.get(path))
        for path in paths
    ]


def declared_inputs(block: PlacedBlock) -> tuple[str, ...]:
    """Return the names of what a block reads, as its space declares them where that is known."""
    return block.declared_inputs or block.inputs


def adapted(
    layer: nn.Module, other: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Return the tensors of `other` as `layer`, of the same role, takes them before slicing."""
    return layer.tensors_of(other, tensors) if isinstance(layer, AdaptingLayer) else tensors


def overlap(
    layer: nn.Module, name: str, own: Sequence[int], other: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where two tensors of corresponding layers correspond: first channels, kernels' centre.

    Args:
        layer: Whose tensors they are.
        name: Of the tensors in their layers.
        own: Shape of the one.
        other: Shape of the other, of as many dimensions.

    Returns:
        The indices of the one, and of the other.
    """
    first = len(own) - kernel_dimensions(layer, name)
    to: list[slice] = []
    at: list[slice] = []
    for i, (a, b) in enumerate(zip(own, other, strict=True)):
        small = min(a, b)
        for length, indices in ((a, to), (b, at)):
            start = (length - small) // 2 if i >= first else 0
            indices.append(slice(start, start + small))
    return tuple(to), tuple(at)


def kernel_dimensions(layer: nn.Module, name: str) -> int:
    """Return how many of the last dimensions of a layer's tensor are those of a kernel."""
    if not isinstance(layer, _CONVOLUTIONS) or name != "weight":
        return 0
    return len(layer.kernel_size)


def _reading_images(network: Network) -> set[str]:
    """Return the names of the blocks whose layers read the images' own channels."""
    images, readers = {INPUT}, set[str]()
    for block in network.placed_blocks:
        if images.intersection(block.inputs):
            has_weights = bool(network.get_submodule(block.name).state_dict())
            (readers if has_weights else images).add(block.name)
    return readers


def name_of(module: type[nn.Module]) -> str:
    """Return the name by which classes of modules are told apart."""
    if module.__module__.startswith("torch.nn."):
        return module.__qualname__
    return f"{module.__module__}.{module.__qualname__}"


def _attribute(block: nn.Module, name: str) -> dict[str, Any]:
    """Return what a block and its parts say of paths in them, by the path in the block."""
    return {
        ".".join(filter(None, (path, own))): value
        for path, part in block.named_modules()
        for own, value in getattr(part, name, {}).items()
    }


def _place(
    block: nn.Module, path: str, branches: Mapping[str, tuple[int, str]], inputs: Sequence[str]
) -> str:
    """Return a path without what depends on how many layers or inputs there are."""
    names: list[str] = []
    at, names_of_path = block, path.split(".") if path else []
    for end, name in enumerate(names_of_path, start=1):
        if branch := branches.get(".".join(names_of_path[:end])):
            position, operation = branch
            names.append(f"{operation} of {inputs[position]}")
        elif not isinstance(at, nn.Sequential):
            names.append(name)
        at = at.get_submodule(name)
    return ":".join(names)


def _kinds(layers: Sequence[nn.Module]) -> list[str]:
    """Return of every layer of one place what it has in common with a layer of the same role."""
    mapping = [i for i, layer in enumerate(layers) if not isinstance(layer, _NORMALISATIONS)]
    kinds: list[str] = []
    for i, layer in enumerate(layers):
        parts = [name_of(plain_class(layer))]
        if isinstance(layer, _NORMALISATIONS):
            parts += [f"after {kinds[-1]}"] if kinds else []
        else:
            parts += ["first"] * (i in mapping[:1]) + ["last"] * (i in mapping[-1:])
        if isinstance(layer, _CONVOLUTIONS):
            parts += ["grouped"] * (layer.groups > 1) + ["bias"] * (layer.bias is not None)
        kinds.append(" ".join(parts))
    return kinds


def _for_channels(
    tensors: Mapping[str, torch.Tensor], source: PlacedBlock, target: PlacedBlock
) -> dict[str, torch.Tensor]:
    """Return the tensors of a layer that reads images, for images of the target's channels."""
    before, channels = source.input_shapes[0][0], target.input_shapes[0][0]
    changed = dict(tensors)
    weight = tensors.get("weight")
    if channels != before and weight is not None and weight.dim() == 4 and weight.shape[1] > 1:
        changed["weight"] = weight.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    return changed


def _copy(
    layer: LayerOfBlock, tensors: Mapping[str, torch.Tensor], joint: Sequence[int] | None
) -> int:
    """Copy tensors into a layer; return how many of its parameters they are.

    Args:
        layer: Is changed.
        tensors: By name.
        joint: Of the layer that has the tensors.
    """
    parameters = layer.own_parameters
    copied = 0
    for name, own in layer.tensors.items():
        other = tensors.get(name)
        if other is None or other.dim() != own.dim():
            continue
        if layer.joint is not None and joint is not None:
            own, other = own.unflatten(0, layer.joint), other.unflatten(0, joint)  # type: ignore[no-untyped-call]
        to, at = overlap(layer.module, name, own.shape, other.shape)
        kernel = kernel_dimensions(layer.module, name)
        within = own[to[: len(to) - kernel]]
        if kernel:
            within.zero_()
        own[to] = other[at].to(own)
        copied += within.numel() if name in parameters else 0
    return copied
