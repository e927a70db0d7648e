"""Which channels of a traced module can be removed, and which ones must go together.

Every layer with weights of its own makes new channels. What is added up, or read by a depthwise
convolution, has the same channels; a concatenation has those of its parts, one behind the other,
and flattening repeats each of them. Attention heads are removed as a whole; see
`nas.compression.heads`. Where a function is not known, the channels that it reads stay.
Channels are the first axis of images, `(C, H, W)`, and the last one of tokens, `(T, C)`, and of
what a linear layer makes of images, `(H, W, C)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nas.compression.heads import Heads, attention_heads
from nas.compression.tracing import Shape, Traced
from nas.network.blocks import INPUT

ACTIVATIONS = frozenset({
    "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
    "LogSigmoid", "Mish", "ReLU", "ReLU6", "RReLU", "SELU", "SiLU", "Sigmoid", "Softplus",
    "Softsign", "Tanh", "Tanhshrink", "Threshold",
})  # fmt: skip
SPATIAL = frozenset({
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "CircularPad2d", "ConstantPad2d",
    "LPPool2d", "MaxPool2d", "ReflectionPad2d", "ReplicationPad2d", "Upsample",
    "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad2d",
})  # fmt: skip
"""Layers that change every channel of an image by itself."""

NORMALISATIONS = frozenset({"BatchNorm1d", "BatchNorm2d"})
"""Layers that change every channel by itself."""

UNARY = frozenset({
    "abs", "celu", "clamp", "clone", "contiguous", "elu", "exp", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "leaky_relu", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus",
    "sqrt", "square", "tanh",
})  # fmt: skip
"""Functions of single values, by the last part of their names."""

POOLED = frozenset({
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "interpolate", "max_pool2d",
})  # fmt: skip
"""Functions that change every channel of an image by itself."""

REDUCED = frozenset({"amax", "amin", "mean", "sum"})
"""Functions that do so where they are given the axes of height and width."""

ADDED = frozenset({"add", "div", "expand_as", "mul", "sub", "truediv"})
"""Functions that treat every channel alike."""


@dataclass(frozen=True)
class Part:
    """Channels of one group within an axis.

    Attributes:
        group: Of the channels.
        repeat: How many values in a row each of them has.
    """

    group: int
    repeat: int = 1


@dataclass
class ChannelGroup:
    """Channels, or attention heads, that several layers have in common.

    Attributes:
        size: How many they are.
        makers: Names of the layers that make them.
        fixed: Whether all of them stay.
    """

    size: int
    makers: list[str] = field(default_factory=list)
    fixed: bool = False


class Channels:
    """The channels of a traced module.

    Attributes:
        layers: Its layers and functions, in their order, for any number of heads.
        written: By the name of a layer or function, the parts of its output's channels.
        read: By the name of a layer with weights, the parts of the channels that it reads.
    """

    def __init__(self, layers: Sequence[Traced], input_shape: Shape) -> None:
        self._parents: list[int] = []
        self._groups: list[ChannelGroup] = []
        self._shapes: dict[str, Shape] = {INPUT: input_shape}
        self._channels_last: set[str] = set()
        self.written: dict[str, tuple[Part, ...]] = {INPUT: self._new(input_shape[0], fixed=True)}
        self.read: dict[str, tuple[Part, ...]] = {}
        self._parts_of_heads: dict[str, tuple[Part, ...]] = {}
        between: dict[str, Traced] = {}
        for heads in attention_heads(layers):
            between |= heads.functions
            self._add_heads(heads)
        self.layers = tuple(between.get(layer.name, layer) for layer in layers)
        for layer in self.layers:
            self._shapes[layer.name] = layer.shape
            self.written[layer.name] = self._of(layer)
        self._fix(self.written[layers[-1].name])

    def group(self, part: Part) -> ChannelGroup:
        """Return the group of a part."""
        return self._groups[self._root(part.group)]

    def removable(self) -> Mapping[int, ChannelGroup]:
        """Return the groups some of whose channels may be removed, by number."""
        return {i: g for i, g in enumerate(self._groups) if self._parents[i] == i and not g.fixed}

    def number(self, part: Part) -> int:
        """Return the number of a part's group."""
        return self._root(part.group)

    def _add_heads(self, heads: Heads) -> None:
        """Make the heads of an attention a group of channels."""
        [own] = self._new(heads.number)
        self.group(own).makers += heads.makers
        self._parts_of_heads |= dict.fromkeys(heads.functions, ())
        self._parts_of_heads[heads.output] = (Part(own.group, heads.width),)
        for name, (parts, repeat) in heads.makers.items():
            self._parts_of_heads[name] = (Part(own.group, repeat),) * parts

    def _of(self, layer: Traced) -> tuple[Part, ...]:
        read = [self.written[name] for name in layer.inputs]
        shape = self._shapes[layer.inputs[0]] if layer.inputs else ()
        if layer.has_weights:
            return self._weighted(layer, read[0], shape)
        if layer.name in self._parts_of_heads:
            return self._parts_of_heads[layer.name]
        if self._channels_last.intersection(layer.inputs):
            kind = layer.kind
            if kind not in ACTIVATIONS | UNARY or layer.tensors or len(read) > 1:
                return self._unknown(layer, read)
            self._channels_last.add(layer.name)
            return read[0]
        if layer.path:
            return self._passed(layer, read[0], shape)
        return self._function(layer, read)

    def _weighted(self, layer: Traced, read: tuple[Part, ...], shape: Shape) -> tuple[Part, ...]:
        self.read[layer.name] = read
        if layer.target == "Linear":
            if len(shape) > 2:
                if not self._channels_last.issuperset(layer.inputs):
                    self._fix(read)
                    self.read[layer.name] = self._new(shape[-1], fixed=True)
                self._channels_last.add(layer.name)
            heads = self._parts_of_heads.get(layer.name)
            return heads or self._new(layer.shape[-1], layer.name)
        inputs, outputs, groups = shape[0], layer.shape[0], layer.arguments["groups"]
        if groups == 1:
            return self._new(outputs, layer.name)
        if groups == inputs == outputs:
            for part in read:
                self.group(part).makers.append(layer.name)
            return read
        self._fix(read)
        return self._new(outputs, layer.name, fixed=True)

    def _passed(self, layer: Traced, read: tuple[Part, ...], shape: Shape) -> tuple[Part, ...]:
        if layer.target in NORMALISATIONS and len(shape) in (1, 3):
            self.read[layer.name] = read
            return read
        if layer.target in ACTIVATIONS or (layer.target in SPATIAL and len(shape) == 3):
            return read
        if layer.target == "Flatten" and len(layer.shape) == 1:
            return _repeated(read, shape)
        return self._unknown(layer, [read])

    def _function(self, layer: Traced, read: list[tuple[Part, ...]]) -> tuple[Part, ...]:
        name = layer.function.rpartition(".")[2]
        shapes = [self._shapes[each] for each in layer.inputs]
        if not read or layer.tensors:
            return self._unknown(layer, read)
        first, ndim = shapes[0], len(layer.shape)
        if name in UNARY and len(read) == 1 and first == layer.shape:
            return read[0]
        if len(first) == 3 and (name in POOLED or (name in REDUCED and _is_spatial(layer))):
            return read[0]
        if layer.shape == (*first, 1, 1) and (name == "unflatten" or _adds_axes(layer)):
            return read[0]
        if name == "flatten" and ndim == 1:
            return _repeated(read[0], first)
        channels = sum(shape[0] for shape in shapes)
        if name in ("cat", "concat") and ndim in (1, 3) and channels == layer.shape[0]:
            return tuple(part for parts in read for part in parts)
        own = _number_of_channels(layer.shape)
        if name in ADDED and all(len(s) == ndim and _number_of_channels(s) == own for s in shapes):
            return self._joined(read)
        return self._unknown(layer, read)

    def _joined(self, read: list[tuple[Part, ...]]) -> tuple[Part, ...]:
        """Return the channels of what is added up, which are the same from now on."""
        first, *others = read
        for parts in others:
            sizes = [[(self.group(p).size, p.repeat) for p in each] for each in (first, parts)]
            if sizes[0] != sizes[1]:
                self._fix(first)
                self._fix(parts)
                continue
            for one, other in zip(first, parts, strict=True):
                self._unite(one.group, other.group)
        return first

    def _unknown(self, layer: Traced, read: Sequence[tuple[Part, ...]]) -> tuple[Part, ...]:
        for parts in read:
            self._fix(parts)
        return self._new(_number_of_channels(layer.shape), fixed=True)

    def _new(self, size: int, maker: str = "", *, fixed: bool = False) -> tuple[Part, ...]:
        self._parents.append(len(self._groups))
        self._groups.append(ChannelGroup(size, [maker] if maker else [], fixed))
        return (Part(len(self._groups) - 1),)

    def _fix(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.group(part).fixed = True

    def _unite(self, one: int, other: int) -> None:
        first, second = self._root(one), self._root(other)
        if first != second:
            self._parents[second] = first
            kept, gone = self._groups[first], self._groups[second]
            kept.makers += gone.makers
            kept.fixed |= gone.fixed

    def _root(self, group: int) -> int:
        while self._parents[group] != group:
            group = self._parents[group]
        return group


def _number_of_channels(shape: Shape) -> int:
    """Return the channels of images `(C, H, W)`, of tokens `(T, C)`, or of features `(C,)`."""
    return shape[-1] if len(shape) == 2 else shape[0] if shape else 1


def _repeated(read: tuple[Part, ...], shape: Shape) -> tuple[Part, ...]:
    """Return the channels of what is flattened: in tokens `(T, C)` they are the last axis."""
    if len(shape) == 2:
        return read * shape[0]
    repeat = math.prod(shape[1:])
    return tuple(Part(part.group, part.repeat * repeat) for part in read)


def _is_spatial(layer: Traced) -> bool:
    arguments = layer.calls[0]["arguments"]
    axes = arguments.get("1", arguments.get("dim"))
    return isinstance(axes, list) and sorted(axis % 4 for axis in axes) == [2, 3]


def _adds_axes(layer: Traced) -> bool:
    """Whether it is an index of colons and `None`, as in `x[:, :, None, None]`."""
    arguments = layer.calls[0]["arguments"]
    if not layer.function.endswith("getitem") or not isinstance(arguments["1"], list):
        return False
    return all(each in (None, {"slice": [None, None, None]}) for each in arguments["1"])
