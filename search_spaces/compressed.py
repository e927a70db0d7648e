"""What can be made of a trained network: fewer channels, lower ranks, fewer bits, zero weights.

The network is traced into layers and functions, each of which is a block. Channels that several
layers have in common are one gene, so that a residual sum and its branches lose the same ones. A
compressed network begins with the weights of the base: of every group of channels the most
important ones stay (see `nas.compression.importance`), and a factorised layer is the nearest one of
its rank (Eckart and Young, 1936).
"""

from __future__ import annotations

import copy
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nas.compression.base import RECORD, Base, images
from nas.compression.bias import correcting_biases
from nas.compression.channels import Channels, Part
from nas.compression.importance import importance
from nas.compression.layers import (
    CompressedConvolution,
    CompressedLinear,
    TracedFunctions,
    UnchangedLayer,
)
from nas.compression.tracing import Traced
from nas.core.errors import ConfigError, HwnasError, one_line
from nas.core.files import hashed
from nas.core.measurement import FP32, INT8
from nas.core.space import Gene, Genotype
from nas.network.blocks import Block, Choices, IntArray, ModuleSpec
from nas.network.compact import (
    INT4_WEIGHTS,
    INT8_WEIGHTS,
    OF_FOUR,
    PRECISIONS,
    SETTINGS,
    compact_layers,
    with_plain_layers,
)
from nas.network.module import PlacedBlock
from nas.network.recalibration import recalibrating
from nas.network.space import SearchSpace
from nas.network.trainable import TrainableNetwork
from search_spaces import get, names, register
from search_spaces.pretrained import load

KEEP = "keep"
"""Last name of the gene of a group of channels."""

OF_LAYERS = {
    "rank": "ranks",
    "precision": "precisions",
    "sparsity": "sparsities",
    "clusters": "clusters",
}
"""Last names of the genes of layers with weights, and the settings that have their choices."""

SETTINGS_OF = {KEEP: "channels", **OF_LAYERS}
"""The same of all genes."""

UNCHANGED: Mapping[str, Any] = {KEEP: 1.0, "rank": 1.0, **SETTINGS}
"""Choices that leave the base as it is."""


ABSORBED = frozenset({"BatchNorm2d", "ReLU", "ReLU6", "relu", "relu6", "clamp", "hardtanh"})
"""What a runtime computes with the convolution before it."""

PASSED = ABSORBED | {
    "MaxPool2d", "Flatten", "add", "cat", "flatten", "max_pool2d", "permute", "reshape",
    "transpose", "unflatten", "view",
}  # fmt: skip
"""What stays in 8 bits behind convolutions in 8 bits; see `nas.network.quantisation`."""

_SHARE = (lambda share: 0 < share <= 1), "shares above 0, and 1 at most"

ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "channels": _SHARE,
    "ranks": _SHARE,
    "precisions": (PRECISIONS.__contains__, f"ones of {', '.join(PRECISIONS)}"),
    "sparsities": (
        lambda share: share == OF_FOUR or (not isinstance(share, str) and 0 <= share < 1),
        f"shares from 0 to below 1, or {OF_FOUR!r}",
    ),
    "clusters": (lambda n: n == 0 or n > 1, "numbers above 1, or 0 for weights as they are"),
}
"""Which choices a setting may have, and in words."""


SAME = 1e-4
"""Difference of outputs, relative to the largest one, that rounding makes."""

BASES = "MODULE:FUNCTION, STUDY:PICK, SPACE:NAME, or a folder with a trained network"


@register("compressed")
@dataclass(frozen=True, kw_only=True)
class CompressedSpace(SearchSpace):
    """Channels, ranks, precisions, zero and shared weights of a trained network.

    A setting with one choice holds for all layers, and is no gene.

    Attributes:
        base: The network: `MODULE:FUNCTION`, whose function returns a `torch.nn.Module`;
            `STUDY:PICK`, a verified network of a study; a folder with one, with an export, with a
            checkpoint of Hugging Face transformers, or with what `Base.save` wrote; or
            `SPACE:NAME`, a published network of a search space.
        base_weights: A safetensors file with its weights; empty for those that it comes with.
        channels: Shares of a group of channels, or of the heads of an attention, that may be kept.
        ranks: Ranks of a layer, as shares of the rank at which it has as many weights as before; 1
            leaves it as it is.
        precisions: Of a layer: `fp32`; `int8` for weights and inputs; `int8_weights`; or
            `int4_weights`, which linear layers have and others have in 8 bits.
        sparsities: Shares of a layer's weights that are zero, the smallest ones, or `2:4` for two
            of every four. They take less room in a compressed file, and no less time.
        clusters: How many values a layer's weights have; 0 for any number.
    """

    pretrained: ClassVar[bool] = True

    base: str
    base_weights: str = ""
    channels: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    ranks: tuple[float, ...] = (1.0,)
    precisions: tuple[str, ...] = (FP32, INT8)
    sparsities: tuple[Any, ...] = (0.0,)
    clusters: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Check the settings; load and trace the base."""
        super().__post_init__()
        for name, (allowed, expected) in ALLOWED.items():
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or len(set(values)) < len(values) or not all(map(allowed, values)):
                raise ConfigError(f"search_space.{name}", list(values), f"distinct {expected}")
        shape = tuple(self._base.answer.shape[1:])
        if shape != (self.num_classes,):
            expected = f"a network with {self.num_classes} outputs, as the data has"
            fix = f"it has outputs of shape {shape}"
            raise ConfigError("search_space.base", self.base, expected, fix)
        self._check_networks()

    def _check_networks(self) -> None:
        """Check that an unchanged network is the base, and that the smallest one runs.

        What is traced is another network where the base changes a tensor in place and reads it
        afterwards, for example.
        """
        seen, expected = images(self.input_shape), self._base.answer
        same = "a network whose traced form has the same outputs"
        with torch.no_grad():
            try:
                difference = (self._unchanged.build(()).eval()(seen) - expected).abs().max()
            except Exception as error:  # whatever functions raise, or a file that was changed
                fix = f"the traced form fails: {one_line(error)}"
                raise ConfigError("search_space.base", self.base, same, fix) from error
            if not difference <= SAME * expected.abs().max().clamp(min=1):
                why = "write it without operations in place and random numbers"
                fix = f"they differ by {difference:.3g}; {why}"
                raise ConfigError("search_space.base", self.base, same, fix)
            try:
                self.build([len(gene.choices) - 1 for gene in self.genes]).eval()(seen)
            except Exception as error:
                fix = f"the smallest network fails: {one_line(error)}"
                got = list(self.channels)
                raise ConfigError("search_space.channels", got, "[1]", fix) from error

    @cached_property
    def _unchanged(self) -> CompressedSpace:
        """The space that holds the base alone."""
        own = copy.copy(self)
        for name, setting in SETTINGS_OF.items():
            object.__setattr__(own, setting, (UNCHANGED[name],))
        return own

    @cached_property
    def _base(self) -> Base:
        folder = Path(self.base).expanduser()
        if (folder / RECORD).is_file():
            if self.base_weights:
                expected = "none, as the network comes with its weights"
                raise ConfigError("search_space.base_weights", self.base_weights, expected)
            return Base.load(folder, self.input_shape)
        module = _with_weights(self._made(), self.base, self.base_weights)
        return Base.of(module.eval(), self.input_shape)

    def _made(self) -> nn.Module:
        """Return the base before it gets the weights of a file."""
        source, _, name = self.base.rpartition(":")
        if (folder := Path(self.base).expanduser()).is_dir():
            try:
                network = load(folder).network
            except HwnasError as error:
                raise ConfigError("search_space.base", self.base, BASES, str(error)) from error
            if any(layer.precision != FP32 for layer in compact_layers(network)):
                expected = "a network whose weights are not quantised yet"
                raise ConfigError("search_space.base", self.base, expected)
            return with_plain_layers(network)
        if not source or not name:
            raise ConfigError("search_space.base", self.base, BASES)
        if source not in names():
            return _called(self.base, source, name)
        space = get(source, input_shape=self.input_shape, num_classes=self.num_classes)
        if name not in (references := space.references()):
            known = ", ".join(references) or "none"
            expected = f"{source}: and a published network of it for such images ({known})"
            raise ConfigError("search_space.base", self.base, expected)
        if not self.base_weights:
            expected = "a file, as the network has random weights"
            raise ConfigError("search_space.base_weights", self.base_weights, expected)
        return space.build(references[name])

    @property
    def _layers(self) -> tuple[Traced, ...]:
        """The layers and functions of the base, in their order."""
        return self._channels.layers

    @cached_property
    def _channels(self) -> Channels:
        return Channels(self._base.layers, self.input_shape)

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Of each group of channels the share that is kept, then the choices of each layer."""
        genes = []
        if len(self.channels) > 1:
            groups = self._channels.removable().values()
            genes += [Gene(f"{group.makers[0]}.{KEEP}", self.channels) for group in groups]
        for layer in self._layers:
            for name, choices in self._choices(layer).items():
                if len(choices) > 1:
                    named = any(isinstance(choice, str) for choice in choices)
                    genes.append(Gene(f"{layer.name}.{name}", choices, ordinal=not named))
        return tuple(genes)

    def _choices(self, layer: Traced) -> dict[str, tuple[Any, ...]]:
        """Return the choices of a layer, one or several of each kind; none without weights."""
        if not layer.has_weights:
            return {}
        choices = {name: tuple(getattr(self, setting)) for name, setting in OF_LAYERS.items()}
        if not _can_be_factorised(layer):
            del choices["rank"]
        if layer.target == "Conv2d" and INT8_WEIGHTS in choices["precision"]:
            choices["precision"] = tuple(p for p in choices["precision"] if p != INT4_WEIGHTS)
        return choices

    def blocks(self) -> Iterator[Block]:
        """The layers and functions of the base, in their order."""
        for layer in self._layers:
            yield Block(layer.name, partial(self._block, layer))

    def _block(self, layer: Traced, chosen: Choices) -> ModuleSpec:
        module: type[nn.Module]
        if layer.has_weights:
            module, arguments = self._weighted(layer, chosen)
        elif layer.path:
            module, arguments = (
                UnchangedLayer,
                {"target": layer.target, "arguments": dict(layer.arguments)},
            )
        else:
            module, arguments = TracedFunctions, {"calls": list(layer.calls)}
            if layer.tensors:
                arguments["tensors"] = {
                    name: {
                        "shape": list((tensor := self._base.tensors[path]).shape),
                        "dtype": str(tensor.dtype).removeprefix("torch."),
                        "parameter": path in self._base.parameters,
                    }
                    for name, path in layer.tensors.items()
                }
        return ModuleSpec(module, arguments, layer.inputs)

    def _weighted(self, layer: Traced, chosen: Choices) -> tuple[type[nn.Module], dict[str, Any]]:
        given, written = layer.arguments, self._channels.written[layer.name]
        outputs = sum(self._kept(part, chosen) * part.repeat for part in written)
        arguments: dict[str, Any] = {"outputs": outputs, "bias": given["bias"]}
        for name, choices in self._choices(layer).items():
            value = chosen[f"{layer.name}.{name}"] if len(choices) > 1 else choices[0]
            if value != UNCHANGED[name]:
                arguments[name] = value
        if layer.target == "Linear":
            return CompressedLinear, arguments
        for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
            arguments[name] = given[name]
        depthwise = given["groups"] == given["in_channels"] == given["out_channels"] != 1
        arguments["groups"] = "depthwise" if depthwise else given["groups"]
        return CompressedConvolution, arguments

    def _kept(self, part: Part, chosen: Choices) -> int:
        group, share = self._channels.group(part), self.channels[0]
        if group.fixed:
            return group.size
        if len(self.channels) > 1:
            share = chosen[f"{group.makers[0]}.{KEEP}"]
        return _share_of(group.size, share)

    def place(self, genotype: Sequence[int], *, auxiliary: bool = False) -> tuple[PlacedBlock, ...]:
        """Return a network's modules, marked where outputs are quantised; see `SearchSpace`."""
        quantised = self._in_8_bits(self.canonical(genotype))
        return tuple(
            replace(block, arguments={**block.arguments, "quantised_output": True})
            if block.name in quantised
            else block
            for block in super().place(genotype, auxiliary=auxiliary)
        )

    def build(self, genotype: Sequence[int], *, auxiliary: bool = False) -> TrainableNetwork:
        """Build the network with the weights of the base; see `SearchSpace.build`."""
        network = super().build(genotype, auxiliary=auxiliary)
        if torch.get_default_device().type == "meta":  # of which only shapes are asked
            return network
        kept = self._indices(self.canonical(genotype))
        with torch.no_grad():
            for layer in self._layers:
                self._fill(network.get_submodule(layer.name), layer, kept)
        return network

    def calibrate(
        self, network: nn.Module, genotype: Sequence[int], batches: Iterable[torch.Tensor]
    ) -> None:
        """As of `SearchSpace`; batch statistics as well, and biases are corrected.

        The base keeps what it knows.
        """
        genotype = self.canonical(genotype)
        if self._holds_base and genotype == self._everywhere():
            super().calibrate(network, genotype, batches)
            return
        kept = self._indices(genotype)
        outputs = {
            layer.name: self._index(self._channels.written[layer.name], kept)
            for layer in self._layers
            if layer.has_weights
        }
        base = self._unchanged.build(())
        with (
            recalibrating(network),
            correcting_biases(network, base, outputs),
            torch.no_grad(),
        ):
            for batch in batches:
                network(batch)

    def _in_8_bits(self, genotype: Genotype) -> list[str]:
        """Return the blocks whose outputs a runtime quantises; see `nas.network.quantisation`.

        These are convolutions in 8 bits, with the normalisation and the activation that they
        compute as well, and what is made of their outputs alone.
        """
        chosen = self.decode(genotype)
        readers = Counter(name for layer in self._layers for name in layer.inputs)
        absorbing = {
            layer.inputs[0]: layer.name for layer in self._layers if layer.kind in ABSORBED
        }
        found: dict[str, None] = {}
        for layer in self._layers:
            if layer.target == "Conv2d":
                only = self._choices(layer)["precision"][0]
                quantises = chosen.get(f"{layer.name}.precision", only) == INT8
            else:
                whole = bool(layer.inputs) and not layer.tensors
                quantises = layer.kind in PASSED and whole and found.keys() >= {*layer.inputs}
            if quantises:
                found[layer.name] = None
        absorbed = {name for name in found if readers[name] == 1 and absorbing.get(name) in found}
        return [name for name in found if name not in absorbed]

    def _indices(self, genotype: Genotype) -> dict[int, torch.Tensor]:
        """Return which channels of every group are kept, ascending, by the group's number."""
        chosen = self.decode(genotype)
        kept = {}
        for number, order in self._orders.items():
            maker = self._channels.group(Part(number)).makers[0]
            share = chosen.get(f"{maker}.{KEEP}", self.channels[0])
            kept[number] = order[: _share_of(len(order), share)].sort().values
        return kept

    @cached_property
    def _orders(self) -> dict[int, torch.Tensor]:
        """The channels of every group that may lose some, the most important ones first."""
        found = importance(self._base, self._channels)
        return {
            number: each.argsort(descending=True, stable=True) for number, each in found.items()
        }

    def _index(self, parts: Sequence[Part], kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return the positions on an axis that are kept."""
        found, offset = [], 0
        for part in parts:
            size = self._channels.group(part).size
            channels = kept.get(self._channels.number(part), torch.arange(size))
            values = channels[:, None] * part.repeat + torch.arange(part.repeat)
            found.append(values.flatten() + offset)
            offset += size * part.repeat
        return torch.cat(found)

    def _fill(self, block: nn.Module, layer: Traced, kept: Mapping[int, torch.Tensor]) -> None:
        """Give a block of a network its weights."""
        if not layer.path:
            state = {name: self._base.tensors[path] for name, path in layer.tensors.items()}
            block.load_state_dict(state, strict=False)  # quantised outputs have ranges, too
            return
        source = self._base.state(layer.path)
        if layer.name not in self._channels.read:
            if isinstance(block, UnchangedLayer):
                block.layer.load_state_dict(source)
            return
        inputs = self._index(self._channels.read[layer.name], kept)
        if isinstance(block, UnchangedLayer):
            state = {n: tensor[inputs] if tensor.ndim else tensor for n, tensor in source.items()}
            block.layer.load_state_dict(state)
            return
        outputs = self._index(self._channels.written[layer.name], kept)
        assert isinstance(block, CompressedConvolution | CompressedLinear)
        weight = source["weight"][outputs]
        if layer.arguments.get("groups", 1) == 1:
            weight = weight[:, inputs]
        block.fill(weight, source["bias"][outputs] if "bias" in source else None)

    def with_base_in(self, parent: Path) -> CompressedSpace:
        """Return the space of the same network, in a folder of `parent`; see `SearchSpace`."""
        if Path(self.base).expanduser().is_dir():
            return self
        own = copy.copy(self)  # with the base, whose folder is not written yet
        object.__setattr__(own, "base", str(parent / self._base.name))
        object.__setattr__(own, "base_weights", "")
        return own

    def save_base(self) -> None:
        """Write the base into its folder; see `SearchSpace`."""
        folder = Path(self.base)
        # A folder that was not written to its end has no record.
        if folder.name == self._base.name and not (folder / RECORD).is_file():
            self._base.save(folder.parent)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which layers stay as they are."""
        channels, found = self._channels, []
        outputs = set(channels.written[self._layers[-1].name])
        others = [layer for layer in self._layers if layer.target and not layer.has_weights]
        left = [
            f"{layer.name} ({layer.target})"
            for layer in others
            if any(tensor.ndim > 1 for tensor in self._base.state(layer.path).values())
        ]
        if left:
            found.append(f"layers without choices, which stay as they are: {', '.join(left)}")
        whole = [
            layer.name
            for layer in self._layers
            if layer.has_weights and not outputs.intersection(parts := channels.written[layer.name])
            if all(channels.group(part).fixed for part in parts)
        ]
        if whole and len(self.channels) > 1:
            found.append(f"layers that keep all of their outputs: {', '.join(whole)}")
        return tuple(one_line(line) for line in found)

    @property
    def initial_sources(self) -> Mapping[str, Mapping[str, str]]:
        """That of the base."""
        return {"search_space.base": {"folder": self.base, "sha256": self._base.sha256}}

    @cached_property
    def space_id(self) -> str:
        """As of `SearchSpace`, and of the weights of the base."""
        return hashed([super().space_id, self._base.sha256], 16)

    def samples(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw networks in which a share of the genes is drawn, and the others leave the base.

        The share is uniform between none and all: with all genes drawn, hardly a network of many
        layers is of use, and none is like those that a search ends with.
        """
        drawn = super().samples(n, rng)
        if not self._holds_base:
            return drawn
        changed = rng.random(drawn.shape) < rng.random((n, 1))
        return self.canonicalise(np.where(changed, drawn, np.array(self._everywhere())))

    def references(self) -> dict[str, Genotype]:
        """The base, where it is in the space, and the networks with one choice in all layers.

        These are named `SETTING=CHOICE`, such as `precisions=int8`.
        """
        if not self._holds_base:
            return {}
        found = {"base": self._everywhere()}
        for name, setting in SETTINGS_OF.items():
            for choice in getattr(self, setting):
                if choice != UNCHANGED[name]:
                    found[f"{setting}={choice}"] = self._everywhere(name, choice)
        return found

    @property
    def _holds_base(self) -> bool:
        """Whether every setting has the choice that leaves a layer as it is."""
        return all(
            UNCHANGED[name] in getattr(self, setting) for name, setting in SETTINGS_OF.items()
        )

    def _everywhere(self, name: str | None = None, choice: Any = None) -> Genotype:
        """Return the base, or it with one choice of all genes that have `name` as their last."""
        indices = []
        for gene in self.genes:
            last = gene.name.rpartition(".")[2]
            value = choice if last == name else UNCHANGED[last]
            # Convolutions have 8 bits where linear layers have 4.
            indices.append(gene.choices.index(value if value in gene.choices else INT8_WEIGHTS))
        return self.canonical(indices)


def _called(base: str, module: str, function: str) -> nn.Module:
    """Return a copy of the network that a function returns."""
    expected = "a function without arguments that returns a torch.nn.Module"
    if module not in sys.modules:  # a study that others have written runs no code unasked
        fix = f"name it in imports, or import {module} before"
        raise ConfigError("search_space.base", base, "a module that is imported", fix)
    try:
        made = getattr(sys.modules[module], function)()
    except Exception as error:  # whatever code of others raises
        raise ConfigError("search_space.base", base, expected, one_line(error)) from error
    if not isinstance(made, nn.Module):
        got = f"it returns {type(made).__name__}"
        raise ConfigError("search_space.base", base, expected, got)
    return copy.deepcopy(made)


def _with_weights(module: nn.Module, base: str, file: str) -> nn.Module:
    if file:
        try:
            module.load_state_dict(load_file(Path(file).expanduser()))
        except (OSError, SafetensorError, RuntimeError) as error:
            expected, fix = f"a safetensors file with the weights of {base}", one_line(error)
            raise ConfigError("search_space.base_weights", file, expected, fix) from error
    return module


def _can_be_factorised(layer: Traced) -> bool:
    return layer.target == "Linear" or (layer.target == "Conv2d" and layer.arguments["groups"] == 1)


def _share_of(size: int, share: float) -> int:
    return max(math.floor(size * share + 0.5), 1)
