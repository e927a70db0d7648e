"""The shared weights of all networks of a space: a supernet.

For every block name, module class and layer role there is one layer of the largest shape that any
network of the space needs. A network of the space runs with views of these: its first channels and
the centre of the kernels, by the rules of `nas.network.inheritance`, as in Once-for-All (Cai et
al., ICLR 2020) and AutoFormer (Chen et al., ICCV 2021). Gradients flow into the shared tensors.

Statistics of batch normalisation belong to one network and are not shared: a network that runs with
shared weights normalises by the batch, and one that is to be judged has its statistics estimated by
`nas.network.recalibration` (Yu and Huang, ICCV 2019, section 3.2).
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from nas.core.errors import HwnasError, UnknownNameError
from nas.core.space import Genotype
from nas.network.blocks import ModuleSpec
from nas.network.costs import Shape, trace_spec
from nas.network.inheritance import (
    LayerOfBlock,
    adapted,
    declared_inputs,
    layers_of,
    name_of,
    overlap,
)
from nas.network.module import AdaptingLayer, Network, PlacedBlock, build_module
from nas.network.plan import BlockCase
from nas.network.space import SearchSpace
from nas.network.trainable import TrainableNetwork

SKELETONS = 1024
"""Blocks without weights that are kept, so that they need not be built again."""

COMPARED = 32
"""Random networks of which it is seen whether they have weights in common."""

_PREFIX = "shared_"


class SharedWeights(nn.Module):
    """One set of weights for all networks of a space.

    It runs the network that was chosen last, by `choose`, as if it were this network. With a split,
    there is such a set for every choice of one gene (few-shot NAS, Zhao et al., ICML 2021); their
    initial weights are equal.

    Attributes:
        space: The space.
        auxiliary: Whether its networks have the auxiliary classifiers that take part in training.
        split: Name of the gene whose choices share nothing; empty for none.
        genotype: Of the network that is run.

    Example:
        >>> shared = SharedWeights(space)
        >>> shared.choose(genotype)
        >>> shared(images).sum().backward()
        >>> network = shared.extract(genotype)
    """

    def __init__(self, space: SearchSpace, *, auxiliary: bool = False, split: str = "") -> None:
        """Make weights of the largest shapes, initialised as the space initialises a network.

        The initial weights follow from torch's random state, which is left as it was.

        Raises:
            ConfigError: The cases of a block are too many to be gone through, or no gene has the
                name `split`.
        """
        super().__init__()
        self.space, self.auxiliary, self.split = space, auxiliary, split
        self._split = position_of_split(space, split)
        self.recompute, self.any_size = False, False
        self.drop_path = self.dropout = 0.0
        sources: dict[str, dict[str, list[nn.Module]]] = {}
        with torch.random.fork_rng(devices=[]):
            for block, layers in _wanted(space, auxiliary=auxiliary).items():
                built = cache(_built)
                made = {name: list(want.made(built)) for name, want in layers.items()}
                named = {
                    f"{name} {i}": layer
                    for name, layers_of_role in made.items()
                    for i, layer in enumerate(layers_of_role)
                }
                self.add_module(_PREFIX + block, nn.ModuleDict(named))
                sources[block] = made
            space.initialise(self)
        parts = 1 if self._split is None else len(space.genes[self._split].choices)
        self._sources = [sources, *(self._copied(sources, part) for part in range(1, parts))]
        self.genotype = space.canonical([0] * len(space.genes))
        self._skeletons = lru_cache(SKELETONS)(self._skeleton)

    def _copied(
        self, sources: Mapping[str, Mapping[str, Sequence[nn.Module]]], part: int
    ) -> dict[str, dict[str, list[nn.Module]]]:
        """Make a further set of weights that are equal to `sources`."""
        copied: dict[str, dict[str, list[nn.Module]]] = {}
        for block, roles in sources.items():
            copied[block] = {name: list(map(copy.deepcopy, each)) for name, each in roles.items()}
            named = {
                f"{name} {i}": layer
                for name, layers in copied[block].items()
                for i, layer in enumerate(layers)
            }
            self.add_module(f"{_PREFIX}{part}_{block}", nn.ModuleDict(named))
        return copied

    def _sources_of(self, genotype: Sequence[int]) -> dict[str, dict[str, list[nn.Module]]]:
        """Return the set of weights that a network takes part in."""
        part = 0 if self._split is None else self.space.canonical(genotype)[self._split]
        return self._sources[part]

    def choose(self, genotype: Sequence[int]) -> None:
        """Choose the network that is run."""
        self.genotype = self.space.canonical(genotype)

    def network(self, genotype: Sequence[int]) -> TrainableNetwork:
        """Return a network of the space that runs with views of the shared weights.

        Its layers are kept for further networks, so it is to be used before another one is asked
        for. Batch normalisation normalises by the batch, also in evaluation.

        Raises:
            HwnasError: The network needs more than there is.
        """
        placed = self.space.place(genotype, auxiliary=self.auxiliary)
        sources = self._sources_of(genotype)
        network = TrainableNetwork(placed, lambda block: self._views(block, sources))
        network.regularise(drop_path=self.drop_path, dropout=self.dropout)
        network.recompute = self.recompute
        network.take_any_size(self.any_size)
        return network.train(self.training)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images `(N, C, H, W)` to outputs `(N, ...)` of the chosen network."""
        outputs: torch.Tensor = self.network(self.genotype)(images)
        return outputs

    def all_outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the chosen network, then those of its auxiliary classifiers."""
        return self.network(self.genotype).all_outputs(images)

    def extract(self, genotype: Sequence[int]) -> TrainableNetwork:
        """Return a network with a copy of its part of the shared weights, on their device.

        It is in the mode in which these are. Its batch statistics are initial ones.

        Raises:
            HwnasError: The network needs more than there is.
        """
        network = self.space.build(genotype, auxiliary=self.auxiliary)
        self.inherited_by(network, genotype)
        return network.to(next(self.parameters()).device).train(self.training)

    @torch.no_grad()
    def inherited_by(self, network: Network, genotype: Sequence[int]) -> float:
        """Copy a network's part of the weights into it; return the share of its parameters.

        Blocks of which there are no shared weights, as of auxiliary classifiers, keep theirs.

        Raises:
            HwnasError: The network needs more than there is.
        """
        copied, sources = 0, self._sources_of(genotype)
        for block in network.placed_blocks:
            if block.name not in sources:
                continue
            module = network.get_submodule(block.name)
            parameters = dict(module.named_parameters())
            layers = layers_of(module, declared_inputs(block))
            for part in self._parts(block.name, block.module, layers):
                parameters[part.path].copy_(part.of(sources[block.name]))
                copied += parameters[part.path].numel()
        return copied / max(sum(p.numel() for p in network.parameters()), 1)

    def regularise(self, *, drop_path: float = 0.0, dropout: float = 0.0) -> None:
        """Set the rates at which training drops; see `TrainableNetwork.regularise`."""
        self.drop_path, self.dropout = drop_path, dropout

    def take_any_size(self, any_size: bool = True) -> None:
        """Let images of other sizes pass, or of the own one alone."""
        self.any_size = any_size

    def views_of(self, block: PlacedBlock) -> SharedBlock:
        """Return a block that runs with views of the shared weights, without a split."""
        return self._views(block, self._sources[0])

    def _views(
        self, block: PlacedBlock, sources: Mapping[str, Mapping[str, Sequence[nn.Module]]]
    ) -> SharedBlock:
        device = next(self.parameters()).device
        key = ModuleSpec(block.module, block.arguments).key
        module, parts = self._skeletons(
            block.name, key, block.input_shapes, declared_inputs(block), device, self.training
        )
        own = sources.get(block.name, {})
        return SharedBlock(module, {part.path: part.of(own) for part in parts})

    def _skeleton(
        self,
        name: str,
        key: tuple[type[nn.Module], str],
        input_shapes: tuple[Shape, ...],
        inputs: tuple[str, ...],
        device: torch.device,
        training: bool,
    ) -> tuple[nn.Module, list[_Part]]:
        """Return a block without weights and batch statistics, and what it takes.

        Constants of the block are kept, so it is not built on the meta device.
        """
        del training  # blocks in another mode are others
        with torch.random.fork_rng(devices=[]):
            module = _built(key, input_shapes)
        for part in module.modules():
            for own, parameter in part.named_parameters(recurse=False):
                setattr(part, own, nn.Parameter(parameter.to("meta"), parameter.requires_grad))
            if isinstance(part, _BatchNorm):
                part.running_mean = part.running_var = part.num_batches_tracked = None
            for own, buffer in part.named_buffers(recurse=False):
                setattr(part, own, buffer.to(device))
        return module, self._parts(name, key[0], layers_of(module, inputs))

    def _parts(
        self, block: str, cls: type[nn.Module], layers: Sequence[LayerOfBlock]
    ) -> list[_Part]:
        """Return what the layers of a block take from the shared ones."""
        parts = []
        for layer in layers:
            parameters = layer.own_parameters
            role = _name(cls, layer.role)
            sources = self._sources[0].get(block, {}).get(role, [])
            fitting = [i for i, source in enumerate(sources) if _covers(source, layer)]
            if parameters and not fitting:
                shapes = ", ".join(f"{name} {tuple(p.shape)}" for name, p in parameters.items())
                where = f"block {block}, {layer.path or cls.__name__}"
                raise HwnasError(
                    f"shared weights: {where} needs {shapes}, more than any network has that they "
                    "were made for; make them for this space"
                )
            for name, parameter in parameters.items():
                path = ".".join(filter(None, (layer.path, name)))
                shape, at = tuple(parameter.shape), None
                if layer.joint is None and not _adapts(layer.module):
                    shared = sources[fitting[0]].get_parameter(name).shape
                    at = overlap(layer.module, name, shape, shared)[1]
                parts.append(_Part(path, role, fitting[0], name, layer, shape, at))
        return parts


@dataclass(frozen=True)
class _Part:
    """What a parameter of a block takes from a shared one.

    Attributes:
        path: Of the parameter in its block.
        role: Of its layer, as of `_name`.
        index: Of the shared layer among those of the role.
        name: Of the parameter in its layer.
        layer: Its layer.
        shape: Its shape.
        at: Where it is in the shared parameter; `None` for a part that is no view.
    """

    path: str
    role: str
    index: int
    name: str
    layer: LayerOfBlock
    shape: Shape
    at: tuple[slice, ...] | None

    def of(self, sources: Mapping[str, Sequence[nn.Module]]) -> torch.Tensor:
        """Return it, given the shared layers of its block by role."""
        source = sources[self.role][self.index]
        if self.at is not None:
            return source.get_parameter(self.name)[self.at]
        module, joint = self.layer.module, self.layer.joint
        tensor = adapted(module, source, dict(source.named_parameters()))[self.name]
        if joint is None:
            return tensor[overlap(module, self.name, self.shape, tensor.shape)[1]]
        apart = tensor.unflatten(0, source.joint_sizes)  # type: ignore[no-untyped-call]
        own = (*joint, *self.shape[1:])
        part: torch.Tensor = apart[overlap(module, self.name, own, apart.shape)[1]]
        return part.reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class SupernetWeights:
    """Trained shared weights as arrays, which processes of a host may have in common.

    Attributes:
        space: Of the networks.
        arrays: Parameters of `SharedWeights` by name.
        source: Where they come from, for the record.
        split: As of `SharedWeights`.
    """

    space: SearchSpace
    arrays: Mapping[str, npt.NDArray[np.float32]]
    source: Mapping[str, str] = field(default_factory=dict)
    split: str = ""

    def shared(self) -> SharedWeights:
        """Return the shared weights, whose memory is the arrays': they are not to be changed."""
        shared = _without_weights(self.space, self.split)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        own = shared.state_dict()
        shared.load_state_dict({name: tensors[name] for name in own}, assign=True)
        return shared

    def inherited_by(self, network: Network, genotype: Sequence[int]) -> float:
        """Give a network its part of the weights; see `SharedWeights.inherited_by`."""
        return self.shared().inherited_by(network, genotype)


@lru_cache(maxsize=4)
def _without_weights(space: SearchSpace, split: str) -> SharedWeights:
    """Return shared weights on the meta device: to go through a space's cases takes seconds."""
    with torch.device("meta"):
        return SharedWeights(space, split=split)


def position_of_split(space: SearchSpace, split: str) -> int | None:
    """Return the position of the gene whose choices share nothing; `None` for no such gene.

    Raises:
        ConfigError: No gene has the name.
    """
    names = [gene.name for gene in space.genes]
    if split and split not in names:
        raise UnknownNameError("evaluation.split", split, names)
    return names.index(split) if split else None


def share_layers(space: SearchSpace) -> bool:
    """Return whether any two of some random networks of a space have weights in common."""
    rows = np.unique(space.samples(COMPARED, np.random.default_rng(0)), axis=0)
    found = Counter(
        (block.name, name_of(block.module))
        for row in rows.tolist()
        for block in space.place(row)
        if trace_spec(ModuleSpec(block.module, block.arguments).key, block.input_shapes).params
    )
    return max(found.values(), default=0) > 1


@lru_cache(maxsize=16)
def extreme(space: SearchSpace, *, largest: bool) -> Genotype:
    """Return the genotype with the most or fewest multiply-accumulates, by coordinate ascent.

    It begins with the last or first choice of every gene, and takes for one gene after another the
    best choice, until none is better.
    """
    sign = 1 if largest else -1
    best = space.canonical([(len(gene.choices) - 1) * largest for gene in space.genes])
    reached = -math.inf
    while (now := sign * float(space.costs([best])["macs_m"].iloc[0])) > reached:
        reached = now
        for position, gene in enumerate(space.genes):
            choices = range(len(gene.choices))
            tried = [space.canonical([*best[:position], i, *best[position + 1 :]]) for i in choices]
            costs = sign * space.costs([best, *tried])["macs_m"].to_numpy()
            best = [best, *tried][int(costs.argmax())]
    return best


class SharedBlock(nn.Module):
    """Runs a block with parameters that it does not own.

    Attributes:
        block: The block, without parameters.
        tensors: Its parameters by path.
    """

    def __init__(self, block: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.block, self.tensors = block, dict(tensors)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the block returns."""
        outputs: torch.Tensor = functional_call(self.block, self.tensors, inputs)
        return outputs


@dataclass(frozen=True)
class _Shapes:
    """A layer of one variant of a block.

    Attributes:
        role: With `{i}` for the name of the block's input `i`.
        path: In the block.
        shapes: Of its parameters by name.
        joint: As of `LayerOfBlock`.
        adapting: Whether it has a rule of its own.
    """

    role: str
    path: str
    shapes: Mapping[str, Shape]
    joint: tuple[int, ...] | None
    adapting: bool


def _step(spec: ModuleSpec, shapes: Sequence[Shape]) -> tuple[list[_Shapes], Shape]:
    return _shapes(spec.key, tuple(shapes))


@cache
def _shapes(
    key: tuple[type[nn.Module], str], input_shapes: tuple[Shape, ...]
) -> tuple[list[_Shapes], Shape]:
    """Return the layers of a module that have parameters, and the shape of its output."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.no_grad():
        module = _built(key, input_shapes).eval()
        output = module(*(torch.empty(1, *shape) for shape in input_shapes))
    layers = layers_of(module, [f"{{{i}}}" for i in range(len(input_shapes))])
    shapes = [
        _Shapes(
            role=layer.role,
            path=layer.path,
            shapes={name: tuple(p.shape) for name, p in layer.own_parameters.items()},
            joint=layer.joint,
            adapting=_adapts(layer.module),
        )
        for layer in layers
        if layer.own_parameters
    ]
    return shapes, tuple(output.shape[1:])


def _adapts(layer: nn.Module) -> bool:
    """Return whether a layer has a rule of its own for what it takes."""
    rule = AdaptingLayer.tensors_of
    return isinstance(layer, AdaptingLayer) and type(layer).tensors_of is not rule


def _built(key: tuple[type[nn.Module], str], input_shapes: tuple[Shape, ...]) -> nn.Module:
    module, arguments = key
    return build_module(module, input_shapes, json.loads(arguments))


@dataclass
class _Needed:
    """What the layers of one role need, in all variants of their block.

    Attributes:
        cases: The variants with the most parameters so far: of layers with a rule of their own one
            or more, of which each variant is covered by one; else one.
        shapes: The largest of every parameter, by name, with `joint` outputs apart.
        joint: The largest sizes.
    """

    cases: list[tuple[BlockCase, _Shapes]] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    joint: Shape | None = None

    def add(self, case: BlockCase, layer: _Shapes) -> None:
        """Take note of a variant."""
        if layer.adapting:
            if not any(_cover(known.shapes, layer.shapes) for _, known in self.cases):
                kept = [each for each in self.cases if not _cover(layer.shapes, each[1].shapes)]
                self.cases = [*kept, (case, layer)]
            return
        if layer.joint is not None:
            self.joint = _largest(self.joint, layer.joint)
        for name, shape in layer.shapes.items():
            apart = (*layer.joint, *shape[1:]) if layer.joint is not None else shape
            self.shapes[name] = _largest(self.shapes.get(name), apart)
        if not self.cases or _values(layer.shapes) > _values(self.cases[0][1].shapes):
            self.cases = [(case, layer)]

    def made(self, built: Callable[..., nn.Module]) -> Iterator[nn.Module]:
        """Yield the layers that are shared; `built` is `_built`."""
        for case, layer in self.cases:
            own = built(case.spec.key, case.inputs).get_submodule(layer.path)
            shapes = dict(layer.shapes)
            if not layer.adapting:
                outer = 1 if self.joint is None else len(self.joint)
                shapes = {n: (math.prod(s[:outer]), *s[outer:]) for n, s in self.shapes.items()}
            made = copy.copy(own)
            if isinstance(made, _BatchNorm):
                made.track_running_stats = False
            made._modules, made._buffers = {}, dict.fromkeys(own._buffers)
            made._parameters = dict.fromkeys(own._parameters)
            for name, shape in shapes.items():
                values = getattr(own, name, None)
                values = torch.zeros(shape) if values is None else _repeated(values.detach(), shape)
                made.register_parameter(name, nn.Parameter(values))
            resets = hasattr(made, "reset_parameters") and not own._buffers
            if resets and shapes != layer.shapes:
                made.reset_parameters()  # type: ignore[operator]
            made.joint_sizes = self.joint  # type: ignore[assignment]
            yield made


@lru_cache(maxsize=4)
def _wanted(space: SearchSpace, *, auxiliary: bool) -> dict[str, dict[str, _Needed]]:
    """Return what is needed of every block's layers by name.

    Raises:
        ConfigError: The cases of a block are too many to be gone through.
    """
    wanted: dict[str, dict[str, _Needed]] = {}
    for case in space.cases(_step):
        if case.block.auxiliary and not auxiliary:
            continue
        of_block = wanted.setdefault(case.block.name, {})
        for layer in case.outcome:
            role = layer.role.format(*case.declared_inputs)
            of_block.setdefault(_name(case.spec.module, role), _Needed()).add(case, layer)
    return wanted


def _name(block: type[nn.Module], role: str) -> str:
    """Return the name of a shared layer, which may have no dots."""
    return f"{name_of(block)} {role}".replace(".", "-")


def _covers(source: nn.Module, layer: LayerOfBlock) -> bool:
    """Return whether a shared layer has all that a layer needs."""
    shared = {name: tuple(p.shape) for name, p in source.named_parameters()}
    own = {name: tuple(p.shape) for name, p in layer.own_parameters.items()}
    if layer.joint is not None:
        sizes = source.joint_sizes
        shared = {name: (*sizes, *shape[1:]) for name, shape in shared.items()}  # type: ignore[misc]
        own = {name: (*layer.joint, *shape[1:]) for name, shape in own.items()}
    return _cover(shared, own)


def _cover(shapes: Mapping[str, Shape], own: Mapping[str, Shape]) -> bool:
    """Return whether all of `own` fit into the shapes of the same names."""
    return all(
        name in shapes
        and len(shapes[name]) == len(shape)
        and all(a >= b for a, b in zip(shapes[name], shape, strict=True))
        for name, shape in own.items()
    )


def _largest(one: Shape | None, other: Shape) -> Shape:
    return other if one is None else tuple(map(max, zip(one, other, strict=True)))


def _values(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _repeated(values: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return values in a larger shape, repeated along every dimension."""
    for axis, length in enumerate(shape):
        values = values.index_select(axis, torch.arange(length) % values.shape[axis])
    return values
