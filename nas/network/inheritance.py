"""Weights that a new network takes over from another one, by slicing.

Blocks of the same name and class correspond, as in Once-for-All (Cai et al., ICLR 2020): a block
takes the first channels of the other's layers and the centre of their kernels. Where the other
one has less, the rest of the channels keeps its random weights, and the rest of a kernel is zero,
with which it computes what the smaller one did (Net2Net, Chen et al., ICLR 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TypeAlias

import torch
from torch import nn

from nas.network.blocks import INPUT
from nas.network.module import Network, PlacedBlock, SizedLayer

_Layers: TypeAlias = dict[str, dict[str, torch.Tensor]]
"""Tensors by name, by the path of the layer in its block that has them."""

_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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

    def inherited_by(self, network: Network) -> float:
        """Give `network` the weights that fit; return the share of its parameters that did."""
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
        if other is None or _name(other.module) != _name(block.module):
            continue
        own = target.get_submodule(block.name)
        before = source.get_submodule(block.name)
        pairs = list(_pairs(own, before))
        if block.name == last and not outputs:
            pairs = [pair for pair in pairs if pair[0] != list(_layers_with_weights(own))[-1]]
        for path, theirs in pairs:
            tensors = _layers_with_weights(before)[theirs]
            layer = own.get_submodule(path)
            if isinstance(layer, SizedLayer):
                tensors = layer.tensors_of(before.get_submodule(theirs))
            elif block.name in of_images and path == next(iter(_layers_with_weights(own))):
                tensors = _for_channels(tensors, other, block)
            sizes = [getattr(b, "joint", {}).get(p) for b, p in ((own, path), (before, theirs))]
            copied += _copy(layer, tensors, *sizes)
    return copied / max(sum(p.numel() for p in target.parameters()), 1)


def _reading_images(network: Network) -> set[str]:
    """Return the names of the blocks whose layers read the images' own channels."""
    images, readers = {INPUT}, set[str]()
    for block in network.placed_blocks:
        if images.intersection(block.inputs):
            has_weights = bool(network.get_submodule(block.name).state_dict())
            (readers if has_weights else images).add(block.name)
    return readers


def _name(module: type[nn.Module]) -> str:
    return f"{module.__module__}.{module.__qualname__}"


def _layers_with_weights(block: nn.Module) -> _Layers:
    """Return the tensors of a block by the layer that they belong to, in order."""
    layers: _Layers = {}
    for name, tensor in block.state_dict().items():
        path, _, own = name.rpartition(".")
        layers.setdefault(path, {})[own] = tensor
    return layers


def _pairs(target: nn.Module, source: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the paths of the layers that correspond in two blocks of one class.

    One may have layers that the other lacks, such as an expansion or an attention.
    """
    own, others = list(_layers_with_weights(target)), list(_layers_with_weights(source))
    matcher = SequenceMatcher(
        None, _layer_kinds(target, own), _layer_kinds(source, others), autojunk=False
    )
    for i, j, size in matcher.get_matching_blocks():
        yield from zip(own[i : i + size], others[j : j + size], strict=True)


def _layer_kinds(block: nn.Module, paths: Sequence[str]) -> list[tuple[object, ...]]:
    """Return of every layer what a layer must have in common with it to correspond.

    The first convolution of a block reads other channels than the next one, and the last one
    returns others. A normalisation belongs to the layer before it.
    """
    layers = [block.get_submodule(path) for path in paths]
    mapping = [i for i, layer in enumerate(layers) if not isinstance(layer, _NORMALISATIONS)]
    kinds: list[tuple[object, ...]] = []
    for i, layer in enumerate(layers):
        kind: tuple[object, ...] = (_name(type(layer)), i in mapping[:1], i in mapping[-1:])
        if isinstance(layer, _NORMALISATIONS):
            kind = (*kind, kinds[-1] if kinds else ())
        elif isinstance(layer, _CONVOLUTIONS):
            kind = (*kind, layer.groups > 1, layer.bias is not None)
        kinds.append(kind)
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
    layer: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    own_sizes: Sequence[int] | None,
    sizes: Sequence[int] | None,
) -> int:
    """Copy tensors into a layer; return how many of its parameters they are.

    Args:
        layer: Is changed.
        tensors: By name.
        own_sizes: Whose product is the number of outputs of the layer, each sliced by itself;
            `None` for the outputs in a row.
        sizes: The same of the layer that has the tensors.
    """
    parameters = dict(layer.named_parameters(recurse=False))
    copied = 0
    for name, own in layer.state_dict().items():
        other = tensors.get(name)
        if other is None or other.dim() != own.dim():
            continue
        kernel = own.dim() - 2 if isinstance(layer, _CONVOLUTIONS) and name == "weight" else 0
        if own_sizes is not None and sizes is not None:
            own, other = own.unflatten(0, own_sizes), other.unflatten(0, sizes)  # type: ignore[no-untyped-call]
        channels = own.dim() - kernel
        shared = [slice(min(a, b)) for a, b in zip(own.shape[:channels], other.shape, strict=False)]
        within = own[tuple(shared)]
        to, at = [*shared], [*shared]
        for a, b in zip(own.shape[channels:], other.shape[channels:], strict=True):
            small = min(a, b)
            to.append(slice((a - small) // 2, (a - small) // 2 + small))
            at.append(slice((b - small) // 2, (b - small) // 2 + small))
        if kernel:
            within.zero_()
        own[tuple(to)] = other[tuple(at)].to(own)
        copied += within.numel() if name in parameters else 0
    return copied
