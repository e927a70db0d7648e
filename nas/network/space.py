"""Search spaces: what turns genotypes into networks."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import ConfigError, GenotypeError
from nas.core.space import Architecture, Gene, Genotype

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from nas.network.costs import Costs


@dataclass(frozen=True, kw_only=True)
class SearchSpace(ABC):
    """Turns genotypes into networks; knows its genes, never any metric.

    A space declares its genes and says which network class a genotype stands for. Everything
    else (sampling, checking, building, identity) follows from these two.

    Attributes:
        input_shape: `(channels, height, width)` of one image.
        num_classes: Number of logits.
    """

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
    def network(self, genotype: Genotype) -> tuple[type[nn.Module], dict[str, Any]]:
        """Return the network class that `genotype` stands for and its keyword arguments.

        The arguments are plain JSON values, so that an exported network can be rebuilt from them.
        """

    def canonical(self, genotype: Sequence[int]) -> Genotype:
        """Return the genotype with inactive genes folded to their first choice.

        Genotypes that stand for the same network have one canonical form.
        """
        return self.check(genotype)

    def references(self) -> dict[str, Genotype]:
        """Return published networks that lie in the space, by name."""
        return {}

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of choices of every gene."""
        return tuple(len(gene.choices) for gene in self.genes)

    @property
    def space_id(self) -> str:
        """The class and all its settings as canonical JSON."""
        fields = dataclasses.asdict(self)
        return json.dumps([type(self).__name__, fields], sort_keys=True, separators=(",", ":"))

    def check(self, genotype: Sequence[int]) -> Genotype:
        """Return `genotype` as a tuple of Python integers.

        Raises:
            GenotypeError: Wrong length, wrong type or a choice out of range; names the gene.
        """
        genes = self.genes
        values = tuple(genotype)
        if len(values) != len(genes):
            raise GenotypeError(f"genotype: got {len(values)} genes, expected {len(genes)}")
        for value, gene in zip(values, genes, strict=True):
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not 0 <= value < len(gene.choices):
                raise GenotypeError(
                    f"gene {gene.name}: got {value!r}, expected an index 0..{len(gene.choices) - 1}"
                    f" into {list(gene.choices)}"
                )
        return tuple(int(value) for value in values)

    def decode(self, genotype: Sequence[int]) -> dict[str, Any]:
        """Return the chosen value of every gene by the gene's name."""
        checked = self.check(genotype)
        return {g.name: g.choices[i] for g, i in zip(self.genes, checked, strict=True)}

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw every gene uniformly and return the canonical form."""
        return self.canonical([int(rng.integers(n)) for n in self.cardinalities])

    def architecture(self, genotype: Sequence[int]) -> Architecture:
        """Return the architecture that `genotype` stands for."""
        return Architecture(self.space_id, self.canonical(genotype))

    def build(self, genotype: Sequence[int]) -> nn.Module:
        """Build the network, freshly initialised.

        The initial weights follow from torch's random state, which is left as it was.

        Returns:
            A module that maps images `(N, C, H, W)` to logits `(N, num_classes)`.
        """
        import torch

        network, arguments = self.network(self.canonical(genotype))
        with torch.random.fork_rng(devices=[]):
            return network(**arguments)

    def count(self, genotype: Sequence[int]) -> Costs:
        """Return the exact costs of one genotype's network, layer by layer."""
        return _count(self, self.canonical(genotype))

    def costs(self, genotypes: Sequence[Sequence[int]]) -> pd.DataFrame:
        """Return the exact costs of genotypes.

        Returns:
            One row a genotype; columns `params_m`, `macs_m` (10^6), `peak_activation_mb` and
            `model_size_mb` (10^6 bytes).
        """
        import pandas as pd

        rows = [self.count(genotype) for genotype in genotypes]
        return pd.DataFrame(
            {
                "params_m": [row.params / 1e6 for row in rows],
                "macs_m": [row.macs / 1e6 for row in rows],
                "peak_activation_mb": [row.peak_activation_bytes / 1e6 for row in rows],
                "model_size_mb": [row.model_bytes / 1e6 for row in rows],
            },
            dtype=float,
        )


@lru_cache(maxsize=65536)
def _count(space: SearchSpace, genotype: Genotype) -> Costs:
    import torch

    from nas.network.costs import count

    with torch.device("meta"):
        network = space.build(genotype)
    return count(network, space.input_shape)
