"""Every variant of a block as a table over the genes that it reads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.core.space import Gene
from nas.network.blocks import Block, Choices, IntArray, ModuleSpec

MOST_CELLS = 1 << 22
"""Up to so many combinations of the genes that it reads a block is tabulated."""


@dataclass(frozen=True)
class Variant:
    """What stands in a block's place.

    Attributes:
        spec: The module, or `None` for none.
        inputs: Positions of the tensors that it reads: 0 is the network's input, `i` the output
            of block `i - 1`. Without a module, the one tensor that is passed on.
    """

    spec: ModuleSpec | None
    inputs: tuple[int, ...]


class BlockTable:
    """Every variant of one block, looked up by genotype.

    The table is filled by running `Block.choose` for every combination of the genes that it
    reads. Where there are too many, rows are looked at one by one when they come.
    """

    def __init__(self, block: Block, names: Mapping[str, int], genes: Sequence[Gene]):
        """Tabulate a block, given the position of every earlier output by its block's name."""
        self.block = block
        self.variants: list[Variant] = []
        self._names = dict(names)
        self._before = max(names.values())
        self._genes = genes
        self._gene_positions = {gene.name: i for i, gene in enumerate(genes)}
        self._ids: dict[Any, int] = {}
        self._masks: dict[frozenset[int], int] = {}
        leaves = self._leaves()
        self.dense = leaves is not None
        self.genes = tuple(range(len(genes)))
        if leaves is not None:
            self._fill(leaves)

    def _leaves(self) -> list[tuple[dict[int, int], int]] | None:
        """Return every way through the choices with its variant, or `None` if there are too many.

        Each way is the genes that were read, in their order, with the choices that led there.
        """
        leaves: list[tuple[dict[int, int], int]] = []
        read: set[int] = set()
        indices = [0] * len(self._genes)
        while True:
            path, variant = self._choose(indices)
            leaves.append((path, variant))
            if not read.issuperset(path):
                read |= path.keys()
                if math.prod(len(self._genes[i].choices) for i in read) > MOST_CELLS:
                    return None
            # The next way: the last gene on this one that has a further choice.
            for position in reversed(path):
                if indices[position] + 1 < len(self._genes[position].choices):
                    indices[position] += 1
                    break
                indices[position] = 0
            else:
                return leaves

    def _choose(self, indices: Sequence[int]) -> tuple[dict[int, int], int]:
        choices = Choices(self._genes, self._gene_positions, indices)
        spec = self.block.choose(choices)
        path = {position: indices[position] for position in choices.read}
        return path, self._variant(spec)

    def _variant(self, spec: ModuleSpec | str | None) -> int:
        if isinstance(spec, ModuleSpec):
            inputs = tuple(self._input(name) for name in spec.inputs) or (self._before,)
            key: Any = (spec.key, inputs)
            variant = Variant(spec, inputs)
        else:
            inputs = (self._before if spec is None else self._input(spec),)
            key, variant = inputs, Variant(None, inputs)
        if key not in self._ids:
            self._ids[key] = len(self.variants)
            self.variants.append(variant)
        return self._ids[key]

    def _input(self, name: str) -> int:
        if name not in self._names:
            known = ", ".join(self._names)
            raise KeyError(f"block {self.block.name}: reads {name!r}, expected one of {known}")
        return self._names[name]

    def _fill(self, leaves: list[tuple[dict[int, int], int]]) -> None:
        read = sorted({position for path, _ in leaves for position in path})
        sizes = [len(self._genes[position].choices) for position in read]
        self.genes = tuple(read)
        self._radix = np.array([math.prod(sizes[i + 1 :]) for i in range(len(read))], np.int64)
        variants = np.zeros(sizes, np.int32)
        # Which of the sets of genes is read, by the choices of `genes`.
        self._mask_grid = np.zeros(sizes, np.int32)
        for path, variant in leaves:
            where = tuple(path.get(position, slice(None)) for position in read)
            variants[where] = variant
            self._mask_grid[where] = self._masks.setdefault(frozenset(path), len(self._masks))
        self._reads = np.zeros((len(self._masks), len(read)), bool)
        for genes, mask in self._masks.items():
            self._reads[mask, [read.index(gene) for gene in genes]] = True
        self._variant_of, self._mask_of = variants.ravel(), self._mask_grid.ravel()

    @property
    def grid(self) -> npt.NDArray[np.int32]:
        """Positions in `variants` of a dense table, over the choices of `genes`, an axis each."""
        return self._variant_of.reshape(self._mask_grid.shape)

    def codes(self, genotypes: IntArray) -> IntArray:
        """Return a number for every row `(n, g)` that tells apart what the block reads."""
        code = np.zeros(len(genotypes), np.int64)
        for position, radix in zip(self.genes, self._radix, strict=True):
            code += genotypes[:, position] * radix
        return code

    def variant_of(
        self, genotypes: IntArray, codes: dict[tuple[int, ...], IntArray]
    ) -> npt.NDArray[np.int32]:
        """Return the position in `variants` for every row of `(n, g)` genotypes.

        Args:
            genotypes: Of the networks.
            codes: Of the same genotypes by the genes that were read; those of this block are added.
        """
        if self.dense:
            if self.genes not in codes:
                codes[self.genes] = self.codes(genotypes)
            return self._variant_of[codes[self.genes]]
        rows = (self._choose(row)[1] for row in genotypes.tolist())
        return np.fromiter(rows, np.int32, len(genotypes))

    def mark_read(self, genotypes: IntArray, read: npt.NDArray[np.bool_]) -> None:
        """Mark the genes that the block reads, in every row of `read`, shape `(n, g)`."""
        if self.dense:
            rows = self._reads[self._mask_of[self.codes(genotypes)]]
            for column, gene in enumerate(self.genes):
                read[:, gene] |= rows[:, column]
            return
        for row, genotype in zip(read, genotypes.tolist(), strict=True):
            row[list(self._choose(genotype)[0])] = True

    def decided_by(self, gene: int, choices: int, genotypes: IntArray) -> set[str]:
        """Return what changes in the block's module with one gene; see `Plan.roles`."""
        rows = np.repeat(genotypes[None], choices, axis=0)
        rows[:, :, gene] = np.arange(choices)[:, None]
        variants = self.variant_of(rows.reshape(-1, rows.shape[2]), {}).reshape(choices, -1)
        parts = set()
        for numbers in {tuple(np.unique(column).tolist()) for column in variants.T}:
            found = [self.variants[number] for number in numbers]
            modules = {each.spec.module.__name__ if each.spec else "" for each in found}
            if len(modules) > 1:
                parts |= modules - {""}
                continue
            [module] = modules
            settings = [{"inputs": v.inputs, **(v.spec.arguments if v.spec else {})} for v in found]
            for name in {name for each in settings for name in each}:
                if len({str(each.get(name)) for each in settings}) > 1:
                    parts.add(f"{module}.{name}")
        return parts

    def first_of_equals(self, own: Collection[int]) -> IntArray:
        """Return, for every code of a dense table, the first one that gives the same module.

        Only the genes `own` may differ between them. Shape `(codes,)`.
        """
        axes = [axis for axis, gene in enumerate(self.genes) if gene in own]
        others = [axis for axis in range(len(self.genes)) if axis not in axes]
        codes = np.arange(self._variant_of.size).reshape(self._mask_grid.shape)
        rows = math.prod(codes.shape[axis] for axis in others)
        grouped = np.transpose(codes, [*others, *axes]).reshape(rows, -1)
        # A code's group and module as one number, whose first occurrence is looked for.
        keys = self._variant_of[grouped] + np.arange(rows)[:, None] * len(self.variants)
        _, first, inverse = np.unique(keys.ravel(), return_index=True, return_inverse=True)
        found = np.empty(self._variant_of.size, np.int64)
        found[grouped.ravel()] = grouped.ravel()[first][inverse]
        return found

    def place_codes(self, codes: IntArray, genotypes: IntArray) -> None:
        """Write the choices that codes stand for into the rows of genotypes."""
        choices = np.unravel_index(codes, self._mask_grid.shape)
        for gene, chosen in zip(self.genes, choices, strict=True):
            genotypes[:, gene] = chosen

    def distinct(self, own: Collection[int]) -> IntArray:
        """Return how many modules there are for each case of the genes that are not `own`.

        Returns:
            An array with an axis for every gene that the block reads; of length 1 for its own.
        """
        axes = tuple(axis for axis, gene in enumerate(self.genes) if gene in own)
        first = self.first_of_equals(own) == np.arange(self._variant_of.size)
        return np.asarray(first.reshape(self._mask_grid.shape).sum(axis=axes, keepdims=True))

    @cached_property
    def reading(self) -> tuple[Any, ...]:
        """Equal for blocks that read the same genes in the same cases."""
        if not self.dense:
            return (self.block.name,)
        order = sorted(self._masks.items(), key=lambda item: sorted(item[0]))
        ranks = np.empty(len(order), np.int32)
        for rank, (_, i) in enumerate(order):
            ranks[i] = rank
        masks = tuple(tuple(sorted(genes)) for genes, _ in order)
        return self.genes, masks, ranks[self._mask_of].tobytes()
