"""A problem whose answers are known: every gene adds its own share to every objective.

Run as a script it prints what an algorithm proposes, for comparing processes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from nas.core.objective import Constraint, Facts, Objective
from nas.core.prediction import FloatArray
from nas.core.space import Gene, Genotype
from nas.core.trial import Candidate, SearchAlgorithm, Trial
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from nas.search import algorithms
from nas.search.problem import SearchProblem


@dataclass(frozen=True, kw_only=True)
class AdditiveSpace(SearchSpace):
    """Genes of equal size; with `switched`, all genes but the first are inactive at its 0."""

    input_shape: tuple[int, int, int] = (1, 1, 1)
    num_classes: int = 2
    count: int = 12
    choices: int = 4
    switched: bool = False

    @property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(Gene(f"gene{i}", tuple(range(self.choices))) for i in range(self.count))

    def blocks(self) -> Iterator[Block]:
        """Return a block for every gene; a search never builds them."""
        for i in range(self.count):
            yield Block(f"block{i}", partial(self._block, i))

    def _block(self, i: int, chosen: Choices) -> ModuleSpec | None:
        if self.switched and chosen["gene0"] == 0:
            return None
        return ModuleSpec(Scale, {"share": chosen[f"gene{i}"]})


class Scale(nn.Module):
    """Of equal size, whatever is chosen."""

    def __init__(self, shape: Sequence[int], share: int) -> None:
        super().__init__()
        del shape, share
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@dataclass(frozen=True, kw_only=True)
class Cost(Objective):
    """Known before training: large choices cost more."""

    unit: ClassVar[str] = "1"
    column: ClassVar[str] = "cost"

    def before_training(self, genotypes: Sequence[Genotype], facts: Facts) -> FloatArray:
        return np.array([sum(g) / len(g) for g in genotypes], float)


@dataclass(frozen=True, kw_only=True)
class Loss(Objective):
    """Known after training."""

    unit: ClassVar[str] = "1"
    column: ClassVar[str] = "loss"

    def after_training(self, metrics: Mapping[str, float]) -> float:
        return metrics["loss"]


def loss(genotype: Genotype, choices: int = 4) -> float:
    """Small choices lose more; genes differ in how much they matter."""
    worth = np.random.default_rng(0).permutation(np.linspace(0.2, 1.8, len(genotype)))
    share = 1 - np.array(genotype) / max(choices - 1, 1)
    return float((worth * share**2).mean())


def problem(
    space: SearchSpace | None = None, *, constraints: Sequence[str] = (), objectives: str = "both"
) -> SearchProblem:
    """Return the problem of small loss at small cost."""
    limits = tuple(Constraint.parse(text) for text in constraints)
    known: dict[str, Objective] = {"loss": Loss(), "cost": Cost()}
    return SearchProblem(
        space=space or AdditiveSpace(),
        objectives=known if objectives == "both" else {objectives: known[objectives]},
        constraints=limits,
        limited={limit.objective: known[limit.objective] for limit in limits},
        facts=Facts(lambda genotypes: None, None),  # type: ignore[arg-type,return-value]
    )


def evaluated(at: SearchProblem, number: int, genotype: Genotype, *, failed: bool = False) -> Trial:
    """Return the trial of a genotype."""
    arch_id = at.space.architecture(genotype).arch_id
    if failed:
        failure = "diverged: the loss became nan"
        return Trial(number=number, genotype=genotype, arch_id=arch_id, seed=0, failure=failure)
    every = {"loss": loss(genotype, max(at.space.cardinalities)), **at.known([genotype])[0]}
    return Trial(
        number=number,
        genotype=genotype,
        arch_id=arch_id,
        seed=0,
        values={name: every[name] for name in at.objectives},
        facts={at.limited[name].column: every[name] for name in at.limited if name in every},
    )


def pending_trials(at: SearchProblem, genotypes: Iterable[Genotype]) -> list[Candidate]:
    """Return candidates that were asked for and not yet told."""
    return [
        Candidate(number=i, genotype=g, arch_id=at.space.architecture(g).arch_id, seed=0)
        for i, g in enumerate(genotypes)
    ]


def searched(
    algorithm: SearchAlgorithm, at: SearchProblem, evaluations: int, lookahead: int = 4
) -> list[Trial]:
    """Ask and tell as the loop does; every seventh trial fails."""
    trials: list[Trial] = []
    for number in range(evaluations):
        if number >= lookahead:
            algorithm.tell([trials[number - lookahead]])
        told = max(number - lookahead + 1, 0)
        proposed = algorithm.ask(1, pending_trials(at, [t.genotype for t in trials[told:]]))
        if not proposed:
            break
        trials.append(evaluated(at, number, proposed[0], failed=number % 7 == 3))
    return trials


if __name__ == "__main__":
    run = algorithms.get(sys.argv[1]).start(problem(), seed=5)
    sys.stdout.write(json.dumps([trial.genotype for trial in searched(run, problem(), 40)]))
