"""Genes, genotypes and architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.core.files import hashed

Genotype = tuple[int, ...]
"""One integer choice per gene of a space."""


@dataclass(frozen=True)
class Gene:
    """One choice that a network's builder leaves open.

    Attributes:
        name: Unique within the space (`stage2.block1.kernel`).
        choices: The values to choose from; a genotype holds an index into them.
        ordinal: Whether neighbouring choices are alike (kernel sizes are, operations are not).
    """

    name: str
    choices: tuple[int | float | str | bool, ...]
    ordinal: bool = True


@dataclass(frozen=True)
class Architecture:
    """A space and a canonical genotype.

    Attributes:
        space_id: Identity of the space, its settings and its code.
        genotype: Canonical genotype.
    """

    space_id: str
    genotype: Genotype

    @property
    def arch_id(self) -> str:
        """Twelve hexadecimal digits that stand for the space and the genotype."""
        return hashed([self.space_id, self.genotype], 12)


@dataclass(frozen=True)
class Preset:
    """Settings of a space that are known by a name.

    Attributes:
        name: Unique among the presets of the space.
        settings: Fields of the space, `input_shape` and `num_classes` among them.
        published_size: Number of architectures as a paper states it, such as `> 10^19`, or empty.
        source: The paper or code that the settings are taken from.
    """

    name: str
    settings: Mapping[str, Any]
    published_size: str = ""
    source: str = ""


@dataclass(frozen=True)
class Graph:
    """Operations and who reads whom: a network, or the cell that it repeats.

    Attributes:
        operations: What stands at every node, in an order in which they can run; `input` where
            something enters, empty where a genotype has nothing in that place.
        edges: Pairs of positions, from the operation that is read to the one that reads.
    """

    operations: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
