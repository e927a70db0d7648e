"""A network of a space in which genes are not decided: all choices of some are run at once.

Which genes these can be follows from the declaration: those whose choices leave the shapes of all
blocks' outputs as they are. In their place a block is the sum of its variants, each weighted by the
product of its choices' weights (DARTS, Liu et al., ICLR 2019, equation 2). A variant that is itself
a sum, over `branches` (see `nas.network.inheritance`), is taken apart, so that a branch which many
variants have is run once, with the sum of their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NoReturn, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from nas.core.errors import ConfigError
from nas.network.blocks import INPUT, ModuleSpec
from nas.network.costs import Shape, trace_spec
from nas.network.module import DropPath, PlacedBlock, build_module
from nas.network.shared import SharedBlock, SharedWeights
from nas.network.space import SearchSpace
from nas.network.table import BlockTable

MOST_TERMS = 64
"""Terms that a block may be the sum of; DARTS has 40 of a cell's last node."""

SHAPES_SAMPLE = 4
"""Random networks by which it is seen whether a gene changes shapes."""


@dataclass(frozen=True)
class _Term:
    """A part of a block's output.

    Attributes:
        spec: Of a variant that has it; `None` for a tensor that is passed on.
        branch: Its path in that variant's module; empty for all of it.
        reads: Positions of the tensors that the variant reads.
        position: Of the one among these that a branch reads.
        free: Whether it has no parameters.
    """

    spec: ModuleSpec | None
    branch: str
    reads: tuple[int, ...]
    position: int
    free: bool


@dataclass(frozen=True)
class _Branch:
    """A part of a module; see `_Term`, with `what` it does to the input."""

    path: str
    position: int
    what: str
    free: bool


@dataclass(frozen=True)
class _Sum:
    """A block as a sum.

    Attributes:
        terms: Its parts.
        of: Which variants have each, shape `(terms, variants)`.
        variants: Number of the variant for every combination of the mixed genes' choices.
    """

    terms: tuple[_Term, ...]
    of: torch.Tensor
    variants: torch.Tensor


def mixable(space: SearchSpace) -> tuple[bool, ...]:
    """Return of every gene whether its choices can be run at once.

    These are categorical genes that change no shape of a block's output in some random networks.
    """

    def shape(spec: ModuleSpec, shapes: Sequence[Shape]) -> tuple[None, Shape]:
        return None, trace_spec(spec.key, tuple(shapes)).output_shape

    run = space.interpreter(shape)
    state = run.state(space.input_shape)
    rows = space.samples(SHAPES_SAMPLE, np.random.default_rng(0))
    found = []
    for number, gene in enumerate(space.genes):
        readers = [table for table in space.tables if number in table.genes]
        possible = bool(readers) and len(gene.choices) > 1 and not gene.ordinal
        if possible and all(table.dense for table in readers):
            every = np.repeat(rows[None], len(gene.choices), axis=0)
            every[:, :, number] = np.arange(len(gene.choices))[:, None]
            states = run(every.reshape(-1, rows.shape[1]), state).states
            shapes = states.reshape(len(states), len(gene.choices), len(rows))
            largest = shapes.max(axis=1, keepdims=True)
            possible = bool(((shapes == largest) | (shapes == 0)).all())
        found.append(possible)
    return tuple(found)


class RelaxedNetwork(nn.Module):
    """The networks of a space with shared weights, some genes being mixed.

    Attributes:
        space: The space.
        shared: The weights.
        mixed: Of every gene, whether its choices are run at once.
        drop_rate: Probability with which a term without parameters is dropped, for an example.
    """

    def __init__(self, space: SearchSpace, mixed: Sequence[bool]) -> None:
        """Make weights, initialised as the space initialises a network; see `SharedWeights`."""
        super().__init__()
        self.space, self.mixed = space, tuple(mixed)
        self.shared = SharedWeights(space)
        self.drop_rate = 0.0
        self._names = [INPUT, *(table.block.name for table in space.tables)]
        self._sums: dict[tuple[object, ...], _Sum] = {}
        self._known: dict[object, list[_Branch]] = {}
        self._adding: dict[tuple[type[nn.Module], int], bool] = {}

    def forward(
        self, images: torch.Tensor, genotype: Sequence[int], weights: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Map images `(N, C, H, W)` to outputs `(N, ...)`.

        Args:
            images: Normalised.
            genotype: Choices of the genes that are not mixed.
            weights: Of every gene's choices; those of genes that are not mixed are ignored. What
                has weight 0 is not run.
        """
        values = {0: images}
        last = 0
        for position, table in enumerate(self.space.tables, 1):
            if not table.block.auxiliary:
                values[position] = self._block(table, genotype, weights, values)
                last = position
        return values[last]

    def _block(
        self,
        table: BlockTable,
        genotype: Sequence[int],
        weights: Sequence[torch.Tensor],
        values: Mapping[int, torch.Tensor],
    ) -> torch.Tensor:
        open_genes = [gene for gene in table.genes if self.mixed[gene]] if table.dense else []
        if not open_genes:
            row = np.array([genotype], np.int64)
            variant = table.variants[int(table.variant_of(row, {})[0])]
            if variant.spec is None:
                return values[variant.inputs[0]]
            block = self._module(table, variant.spec, variant.inputs, values)
            return cast("torch.Tensor", block(*(values[i] for i in variant.inputs)))
        chosen = tuple(slice(None) if self.mixed[g] else genotype[g] for g in table.genes)
        key = (table.block.name, *(-1 if isinstance(c, slice) else c for c in chosen))
        if key not in self._sums:
            self._sums[key] = self._sum(table, table.grid[chosen], values)
        whole = self._sums[key]
        joint = reduce(lambda a, b: torch.outer(a, b).flatten(), (weights[g] for g in open_genes))
        per_variant = joint.new_zeros(whole.of.shape[1]).index_add(0, whole.variants, joint)
        per_term = whole.of.to(joint) @ per_variant
        outputs = [
            (weight, self._term(table, term, values))
            for term, weight, run in zip(
                whole.terms, per_term, (per_term > 0).tolist(), strict=True
            )
            if run
        ]
        if len({output.shape for _, output in outputs}) > 1:
            self._refuse(f"block {table.block.name}, whose outputs have several shapes")
        total: torch.Tensor = reduce(torch.add, (weight * output for weight, output in outputs))
        return total

    def _term(
        self, table: BlockTable, term: _Term, values: Mapping[int, torch.Tensor]
    ) -> torch.Tensor:
        output: torch.Tensor
        if term.spec is None:
            output = values[term.reads[0]]
        else:
            block = self._module(table, term.spec, term.reads, values)
            if not term.branch:
                output = block(*(values[i] for i in term.reads))
            else:
                prefix = f"{term.branch}."
                own = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in block.tensors.items()
                    if name.startswith(prefix)
                }
                part = block.block.get_submodule(term.branch)
                output = functional_call(part, own, (values[term.reads[term.position]],))
        if term.free and self.drop_rate:
            drop = DropPath()
            drop.rate = self.drop_rate
            output = drop(output)
        return output

    def _module(
        self,
        table: BlockTable,
        spec: ModuleSpec,
        reads: Sequence[int],
        values: Mapping[int, torch.Tensor],
    ) -> SharedBlock:
        names = tuple(self._names[i] for i in reads)
        return self.shared.views_of(
            PlacedBlock(
                name=table.block.name,
                module=spec.module,
                input_shapes=tuple(tuple(values[i].shape[1:]) for i in reads),
                arguments=spec.arguments,
                inputs=names,
                output_shape=(),
                auxiliary=False,
            )
        )

    def _sum(
        self, table: BlockTable, grid: npt.NDArray[np.int32], values: Mapping[int, torch.Tensor]
    ) -> _Sum:
        """Take a block apart, whose variants stand in `grid` over the choices of mixed genes.

        Raises:
            ConfigError: It has too many parts.
        """
        ids, numbers = np.unique(grid.ravel(), return_inverse=True)
        terms: dict[object, _Term] = {}
        having: dict[object, list[int]] = {}
        for number, variant in enumerate(table.variants[i] for i in ids):
            of_inputs = tuple(tuple(values[i].shape[1:]) for i in variant.inputs)
            for key, term in self._terms(variant.spec, variant.inputs, of_inputs).items():
                terms.setdefault(key, term)
                having.setdefault(key, []).append(number)
        if len(terms) > MOST_TERMS:
            self._refuse(f"block {table.block.name}, a sum of {len(terms)} parts")
        of = torch.zeros(len(terms), len(ids))
        for row, of_term in enumerate(having.values()):
            of[row, of_term] = 1.0
        device = values[0].device
        variants = torch.from_numpy(numbers.reshape(-1)).to(device)
        return _Sum(tuple(terms.values()), of.to(device), variants)

    def _terms(
        self, spec: ModuleSpec | None, reads: tuple[int, ...], shapes: tuple[Shape, ...]
    ) -> dict[object, _Term]:
        """Return what a variant is the sum of, by what tells it from other terms of its block."""
        if spec is None:
            return {reads: _Term(None, "", reads, 0, free=True)}
        branches = self._branches(spec, shapes)
        if len(branches) == 1 and not branches[0].path:
            return {(spec.key, reads): _Term(spec, "", reads, 0, branches[0].free)}
        return {
            (branch.what, reads[branch.position]): _Term(
                spec, branch.path, reads, branch.position, branch.free
            )
            for branch in branches
        }

    def _branches(self, spec: ModuleSpec, shapes: tuple[Shape, ...]) -> list[_Branch]:
        """Return the branches that add up to a module; the module itself where none do."""
        key = (spec.key, shapes)
        if key not in self._known:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                module = build_module(spec.module, shapes, spec.arguments)
            declared: Mapping[str, tuple[int, str]] = getattr(module, "branches", {})
            whole = [_Branch("", 0, "", not list(module.parameters()))]
            found = []
            for path, (position, what) in declared.items():
                part = module.get_submodule(path)
                free = not list(part.parameters())
                found.append(_Branch(path, position, f"{what} {part!r}", free))
            adds = bool(found) and self._adds_up(spec, shapes, declared)
            self._known[key] = found if adds else whole
        return self._known[key]

    def _refuse(self, got: str) -> NoReturn:
        expected = f"at most {MOST_TERMS} parts of one shape, to be run at once"
        raise ConfigError("search_space", got, expected, "set search.algorithm.relaxation=policy")

    def _adds_up(
        self, spec: ModuleSpec, shapes: tuple[Shape, ...], branches: Mapping[str, tuple[int, str]]
    ) -> bool:
        """Return whether modules of a class are the sum of so many branches, by trying one."""
        kind = (spec.module, len(branches))
        if kind not in self._adding:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                module = build_module(spec.module, shapes, spec.arguments).eval()
                inputs = [torch.randn(1, *shape) for shape in shapes]
                parts = [module.get_submodule(path)(inputs[i]) for path, (i, _) in branches.items()]
                whole = module(*inputs)
            same = all(part.shape == whole.shape for part in parts)
            self._adding[kind] = same and torch.allclose(reduce(torch.add, parts), whole, atol=1e-4)
        return self._adding[kind]
