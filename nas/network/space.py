"""Search spaces: what turns genotypes into networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from nas.core.errors import ConfigError, GenotypeError
from nas.core.files import hashed
from nas.core.measurement import FP32
from nas.core.prediction import FloatArray
from nas.core.source import source_of
from nas.core.space import Architecture, Gene, Genotype, Graph, Preset

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from nas.network.blocks import Block, IntArray
    from nas.network.interpreter import Interpreter, Step
    from nas.network.module import PlacedBlock
    from nas.network.plan import BlockCase, Plan
    from nas.network.table import BlockTable
    from nas.network.trainable import TrainableNetwork

MEGA = 1e6
"""Counts are given in millions and sizes in 10^6 bytes."""


ROLE_SAMPLE = 64
"""Random genotypes from which it is seen what a gene decides."""


@dataclass(frozen=True)
class GraphEncoding:
    """Graphs of `n` architectures with `m` nodes each; the cells of one stand side by side.

    Attributes:
        operations: Position of every node's operation in `space.operations`, shape `(n, m)`.
        adjacency: Whether node `j` reads node `i`, at `[:, i, j]`, shape `(n, m, m)`.
    """

    operations: IntArray
    adjacency: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SearchSpace(ABC):
    """Turns genotypes into networks; knows its genes, never any metric.

    A space declares its genes, and the blocks of its networks as functions of the choices.
    Everything else (canonical form, sampling, mutation, building, counting, identity) follows
    from these two.

    Attributes:
        input_shape: `(channels, height, width)` of one image.
        num_classes: Channels of the output, `Task.output_size`: of a classifier, the classes.
        family: Which presets of a recipe its networks are trained by: `convolution` or
            `transformer`. It is of the class, not a setting.
        supernet: By which strategy the weights that its networks share are trained, unless one is
            set: `nas.core.sampling.STRATEGIES`. It is of the class, not a setting.
        pretrained: Whether `build` returns networks with trained weights. It is of the class.
    """

    family: ClassVar[str] = "convolution"
    supernet: ClassVar[str] = "sandwich"
    pretrained: ClassVar[bool] = False

    input_shape: tuple[int, int, int]
    num_classes: int

    def __post_init__(self) -> None:
        """Check the settings that every space has."""
        shape = tuple(int(n) for n in self.input_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ConfigError("input_shape", shape, "three positive sizes (C, H, W)")
        object.__setattr__(self, "input_shape", shape)
        if self.num_classes < 2:
            raise ConfigError("num_classes", self.num_classes, "2 or more")

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """The choices that a genotype makes, in its order."""

    @abstractmethod
    def blocks(self) -> Iterable[Block]:
        """Return the blocks of every network, in execution order.

        The first one reads `input` `(C, H, W)`, the last one returns the outputs, of a
        classifier logits `(num_classes,)`.
        """

    def initialise(self, network: nn.Module) -> None:
        """Set the initial weights of a new network; PyTorch's own stay unless a space does.

        Its layers are told by their class (`network.apply`): it may be the shared weights of all
        networks, which have no blocks.
        """
        del network

    def references(self) -> dict[str, Genotype]:
        """Return published networks that lie in the space, by name."""
        return {}

    @classmethod
    def presets(cls) -> tuple[Preset, ...]:
        """Return published settings of the space, each with the size that its paper states."""
        return ()

    def with_base_in(self, parent: Path) -> Self:
        """Return the space with its base in a folder of `parent`, unless it is in a folder already.

        `save_base` writes that folder. Afterwards the code and the weights that the base was made
        of are not needed. A space without a base returns itself.
        """
        del parent
        return self

    def save_base(self) -> None:
        """Write the base, if there is one, into its folder; see `with_base_in`."""
        return

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines about the space that are printed when a search begins."""
        return ()

    @property
    def initial_sources(self) -> Mapping[str, Mapping[str, str]]:
        """Where the weights come from that a pretrained space's networks begin with.

        By the setting that names them: their `folder`, or what else they are called, and `sha256`.
        """
        return {}

    @property
    def deployment_genes(self) -> tuple[str, ...]:
        """Names of the genes that change how a network is deployed, not the network.

        Such a gene is called as the deployment calls its choice, `precision` for example. It is
        active in every genotype, whether or not a block reads it.
        """
        return ()

    def deployment(self, genotype: Sequence[int]) -> dict[str, Any]:
        """Return how the network of `genotype` is deployed, such as `{"precision": "int8"}`.

        Where layers have a precision of their own, `layers` has that of each layer with weights, in
        the order in which they run; see `nas.devices.measuring.runtime.Execution`.
        """
        checked = self.check(genotype)
        chosen = {gene.name: gene.choices[i] for gene, i in zip(self.genes, checked, strict=True)}
        choices: dict[str, Any] = {name: chosen[name] for name in self.deployment_genes}
        precisions = self._plan.precisions(self.canonical(checked))
        if any(precision != FP32 for precision in precisions):
            choices["layers"] = precisions
        return choices

    def graphs(self, genotype: Sequence[int]) -> dict[str, Graph]:
        """Return the network as graphs of operations, by name.

        Of a space of cells these are the cells; else it is one graph of the network's blocks. All
        genotypes give graphs of the same names and numbers of nodes.
        """
        return {"network": self._plan.graph(self.canonical(genotype))}

    @property
    def operations(self) -> tuple[str, ...]:
        """Every operation that occurs in `graphs`, the empty one first."""
        return self._plan.operations()

    @property
    def gains(self) -> Mapping[str, float]:
        """By how much operations enlarge the root mean square of independent inputs.

        This is with independent weights of unit variance, at initialisation. Operations that are
        missing here have 1. Of a space of cells, search learns from it how strongly a cell passes
        signals on before one is trained.
        """
        return {}

    def canonicalise(self, genotypes: IntArray) -> IntArray:
        """Return the canonical form of every row of checked genotypes, shape `(n, g)`.

        Genes that no block reads are set to their first choice, and so are choices that give a
        block the same module as an earlier choice. A space in which different genotypes stand for
        one network for other reasons overrides this.
        """
        return self._plan.canonicalise(genotypes)

    @property
    def size(self) -> int:
        """Number of canonical genotypes.

        Raises:
            ValueError: It cannot be told from the declaration; a space that overrides
                `canonicalise` overrides this too.
        """
        return self._plan.size()

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of choices of every gene."""
        return tuple(len(gene.choices) for gene in self.genes)

    @cached_property
    def space_id(self) -> str:
        """Hexadecimal digits that stand for the class, all its settings and its code.

        The code is that of the class and of the modules in its blocks; see
        `nas.core.source.source_of`.
        """
        # Elsewhere variants are found one by one, so that not all modules are known.
        tables = [table for table in self._plan.tables if table.dense]
        specs = [variant.spec for table in tables for variant in table.variants]
        modules = frozenset(spec.module for spec in specs if spec is not None)
        return hashed([self, source_of(type(self), modules)], 16)

    @property
    def tables(self) -> Sequence[BlockTable]:
        """The blocks with all their variants, in execution order."""
        return self._plan.tables

    @property
    def _plan(self) -> Plan:
        return _compiled(self)

    def check(self, genotype: Sequence[int]) -> Genotype:
        """Return `genotype` as a tuple of Python integers.

        Raises:
            GenotypeError: Wrong length, wrong type or a choice out of range; names the gene.
        """
        sizes = self.cardinalities
        values = tuple(genotype)
        if len(values) != len(sizes):
            raise GenotypeError(f"genotype: got {len(values)} genes, expected {len(sizes)}")
        for position, (value, size) in enumerate(zip(values, sizes, strict=True)):
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not 0 <= value < size:
                gene = self.genes[position]
                raise GenotypeError(
                    f"gene {gene.name}: got {value!r}, expected an index 0..{len(gene.choices) - 1}"
                    f" into {list(gene.choices)}"
                )
        return tuple(int(value) for value in values)

    def matrix(self, genotypes: Sequence[Sequence[int]] | IntArray) -> IntArray:
        """Return genotypes as one array of shape `(n, g)`.

        Raises:
            GenotypeError: One of them is refused by `check`.
        """
        sizes = np.array(self.cardinalities)
        if isinstance(genotypes, np.ndarray) and np.issubdtype(genotypes.dtype, np.integer):
            array = genotypes.astype(np.int64, copy=False)
            if array.ndim == 2 and array.shape[1] == len(sizes):
                # Column by column, since whole comparisons cost more than what they guard.
                if len(array) and (array.min() < 0 or (array.max(axis=0) >= sizes).any()):
                    refused = ((array < 0) | (array >= sizes)).any(axis=1)
                    self.check(array[refused][0])
                return array
        rows = [self.check(genotype) for genotype in genotypes]
        return np.array(rows, np.int64).reshape(len(rows), len(sizes))

    def canonical(self, genotype: Sequence[int]) -> Genotype:
        """Return the genotype that stands for all that give the same network.

        Raises:
            GenotypeError: See `check`.
        """
        return _genotype(self.canonicalise(self.matrix([genotype]))[0])

    def active(self, genotype: Sequence[int]) -> tuple[bool, ...]:
        """Return of every gene whether the network depends on it."""
        return tuple(self.actives([genotype])[0].tolist())

    def actives(self, genotypes: Sequence[Sequence[int]] | IntArray) -> npt.NDArray[np.bool_]:
        """Return `active` of several genotypes, shape `(n, g)`."""
        return self._plan.active(self.matrix(genotypes))

    @cached_property
    def roles(self) -> tuple[frozenset[str], ...]:
        """What each gene decides, whatever its name; see `Plan.roles`."""
        return self._plan.roles(self.samples(ROLE_SAMPLE, np.random.default_rng(0)))

    def decode(self, genotype: Sequence[int]) -> dict[str, Any]:
        """Return the chosen value of every active gene by the gene's name."""
        checked = self.check(genotype)
        choices = zip(self.genes, checked, self.active(checked), strict=True)
        return {gene.name: gene.choices[i] for gene, i, active in choices if active}

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw a genotype; see `samples`."""
        return _genotype(self.samples(1, rng)[0])

    def samples(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw every gene uniformly and return the canonical forms, shape `(n, g)`.

        This is uniform over genotypes, not over networks: a choice that makes other genes
        inactive, such as a small depth, is as frequent as one that opens a thousand networks. Some
        of them may be equal. A space overrides this where most such networks are of no use.
        """
        return self.canonicalise(rng.integers(0, self.cardinalities, (n, len(self.cardinalities))))

    def mutate(self, genotype: Sequence[int], rng: np.random.Generator, genes: int = 1) -> Genotype:
        """Change active genes to other choices and return the canonical form.

        Args:
            genotype: To start from.
            rng: Decides which genes change, and to what; genes that become active by it are
                drawn too.
            genes: How many active genes to change; fewer where there are not as many.
        """
        old = np.array(self.canonical(genotype))
        sizes = np.array(self.cardinalities)
        active = self._plan.active(old[None])[0]
        open_genes = np.flatnonzero(active & (sizes > 1))
        changed = rng.choice(open_genes, min(genes, len(open_genes)), replace=False)
        # Inactive genes are drawn anew: those that stay inactive are folded again.
        new = np.where(active, old, rng.integers(0, sizes))
        new[changed] = (old[changed] + rng.integers(1, sizes[changed])) % sizes[changed]
        return self.canonical(new.tolist())

    def neighbours(self, genotype: Sequence[int]) -> list[Genotype]:
        """Return all canonical genotypes that differ from one in the choice of one active gene.

        The first of all genes come first, then the second of all, and so on; a gene's choices are
        in the order of their distance, the farthest first.
        """
        start = self.canonical(genotype)
        active = self.active(start)
        rounds: list[tuple[int, Genotype]] = []
        for position, size in enumerate(self.cardinalities):
            if active[position]:
                here = start[position]
                order = sorted(range(size), key=lambda i, here=here: -abs(i - here))  # type: ignore[misc]
                rounds += [
                    (turn, self.canonical([*start[:position], i, *start[position + 1 :]]))
                    for turn, i in enumerate(order)
                ]
        in_turn = (each for _, each in sorted(rounds, key=lambda r: r[0]))
        return [each for each in dict.fromkeys(in_turn) if each != start]

    def crossover(
        self, first: Sequence[int], second: Sequence[int], rng: np.random.Generator
    ) -> Genotype:
        """Take every gene from one of two genotypes at random and return the canonical form."""
        parents = self.matrix([first, second])
        chosen = np.where(rng.random(parents.shape[1]) < 0.5, parents[0], parents[1])
        return self.canonical(chosen.tolist())

    def every(self, most: int) -> IntArray | None:
        """Return all canonical genotypes in lexical order, or `None` for more than `most`."""
        if math.prod(self.cardinalities) > most:
            return None
        choices = np.indices(self.cardinalities).reshape(len(self.cardinalities), -1).T
        return np.unique(self.canonicalise(np.ascontiguousarray(choices)), axis=0)

    def one_hot(self, genotypes: Sequence[Sequence[int]] | IntArray) -> npt.NDArray[np.float64]:
        """Encode genotypes for a learned model, shape `(n, sum(cardinalities))`.

        Each gene has one column a choice: 1 at the chosen one; all 0 if the gene is inactive.
        """
        canonical = self.canonicalise(self.matrix(genotypes))
        active = self._plan.active(canonical)
        columns = [
            (canonical[:, [i]] == np.arange(n)) & active[:, [i]]
            for i, n in enumerate(self.cardinalities)
        ]
        return np.concatenate(columns, axis=1).astype(float)

    def encode_graphs(self, genotypes: Sequence[Sequence[int]] | IntArray) -> GraphEncoding:
        """Encode the graphs of genotypes for a learned model; see `GraphEncoding`."""
        known = {operation: i for i, operation in enumerate(self.operations)}
        rows, matrices = [], []
        for genotype in self.matrix(genotypes).tolist():
            labels: list[int] = []
            edges: list[tuple[int, int]] = []
            for graph in self.graphs(genotype).values():
                edges += [(i + len(labels), j + len(labels)) for i, j in graph.edges]
                labels += [known[operation] for operation in graph.operations]
            adjacency = np.zeros((len(labels), len(labels)), bool)
            adjacency[tuple(np.array(edges, int).reshape(-1, 2).T)] = True
            rows.append(labels)
            matrices.append(adjacency)
        return GraphEncoding(np.array(rows, np.int64), np.array(matrices, bool))

    def architecture(self, genotype: Sequence[int]) -> Architecture:
        """Return the architecture that `genotype` stands for."""
        return Architecture(self.space_id, self.canonical(genotype))

    def place(self, genotype: Sequence[int], *, auxiliary: bool = False) -> tuple[PlacedBlock, ...]:
        """Return the modules of the network that `genotype` stands for, in execution order.

        With `auxiliary`, second classifiers that take part in training only are among them.
        """
        return self._plan.place(self.canonical(genotype), auxiliary=auxiliary)

    def describe(self, genotype: Sequence[int]) -> list[dict[str, Any]]:
        """Return a record for every module of one network, in execution order.

        Keys: `name`, `module` (its class and arguments), `inputs` (names), `output_shape`
        (without the batch), `params` and `macs`.
        """
        return self._plan.describe(self.canonical(genotype))

    def build(self, genotype: Sequence[int], *, auxiliary: bool = False) -> TrainableNetwork:
        """Build the network, freshly initialised.

        The initial weights follow from torch's random state, which is left as it was. With
        `auxiliary`, it has the second classifiers that take part in training only.

        Returns:
            A module that maps images `(N, C, H, W)` to outputs, of a classifier logits
            `(N, num_classes)`.
        """
        import torch

        from nas.network.trainable import TrainableNetwork

        with torch.random.fork_rng(devices=[]):
            network = TrainableNetwork(self.place(genotype, auxiliary=auxiliary))
            self.initialise(network)
        return network

    def calibrate(
        self, network: nn.Module, genotype: Sequence[int], batches: Iterable[torch.Tensor]
    ) -> None:
        """Estimate what a new network needs to know of its activations before it is trained.

        These are the ranges of inputs in 8 bits, here.

        Args:
            network: What `build` returned; is changed.
            genotype: Its genotype.
            batches: Normalised training images, `(N, C, H, W)`.
        """
        from nas.network.recalibration import recalibrate

        del genotype
        recalibrate(network, batches, statistics=False)

    def interpreter(self, step: Step) -> Interpreter:
        """Return what goes through the blocks of many networks at once, with `step` for a module.

        It takes checked genotypes, shape `(n, g)`; see `Interpreter`.
        """
        return self._plan.interpreter(step)

    def cases(self, step: Step) -> Iterator[BlockCase]:
        """Yield every module of every block in any network; see `Plan.cases`."""
        return self._plan.cases(step)

    def costs(self, genotypes: Sequence[Sequence[int]] | IntArray) -> pd.DataFrame:
        """Return the exact costs of genotypes.

        Returns:
            One row a genotype; columns `params_m`, `macs_m`, `activations_m` (10^6),
            `peak_activation_mb` and `model_size_mb` (10^6 bytes): the most activations alive at
            once, by liveness over the execution order, normalisations and activations in place
            as runtimes fuse them; and all parameters and buffers.
        """
        import pandas as pd

        tally = self._plan.tally(self.canonicalise(self.matrix(genotypes)))
        return pd.DataFrame(
            {
                "params_m": tally["params"] / MEGA,
                "macs_m": tally["macs"] / MEGA,
                "activations_m": tally["activations"] / MEGA,
                "peak_activation_mb": tally["peak_activation_bytes"] / MEGA,
                "model_size_mb": tally["model_bytes"] / MEGA,
            },
        )

    def arena_kb(self, genotypes: Sequence[Sequence[int]] | IntArray) -> FloatArray:
        """Return the activations that are alive at once in 8 bits on a microcontroller.

        Returns:
            Of every genotype, in 1024 bytes, shape `(n,)`; see `nas.network.arena`.
        """
        return self._plan.arena_bytes(self.canonicalise(self.matrix(genotypes))) / 1024


def _genotype(row: npt.NDArray[np.int64]) -> Genotype:
    return tuple(row.tolist())


@lru_cache(maxsize=64)
def _compiled(space: SearchSpace) -> Plan:
    from nas.network.plan import Plan

    return Plan(
        space.genes, tuple(space.blocks()), space.input_shape, deployed=space.deployment_genes
    )
