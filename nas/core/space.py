"""Genes, genotypes and architectures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

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
        space_id: Identity of the space and its settings.
        genotype: Canonical genotype.
    """

    space_id: str
    genotype: Genotype

    @property
    def arch_id(self) -> str:
        """Twelve hexadecimal digits that stand for the space and the genotype."""
        text = json.dumps([self.space_id, list(self.genotype)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
