"""Train the weights that all networks of a space share, and judge networks by them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch

from nas.core.errors import ConfigError
from nas.core.files import hashed
from nas.core.host import training_step
from nas.core.sampling import SamplingSettings
from nas.core.space import Genotype
from nas.core.trial import FULL, Candidate, Job, Outcome
from nas.network.recalibration import recalibrate
from nas.network.shared import (
    SharedWeights,
    SupernetWeights,
    extreme,
    position_of_split,
    share_layers,
)
from nas.network.space import SearchSpace
from nas.network.trainable import TrainableNetwork
from nas.training.job import TrainingJob
from nas.training.trainer import Training


@dataclass(frozen=True)
class NetworkSampling:
    """The networks of every step of a supernet's training; see `SamplingSettings`.

    Attributes:
        space: Of the networks.
        settings: How they are chosen.
    """

    space: SearchSpace
    settings: SamplingSettings

    @property
    def strategy(self) -> str:
        """The strategy that is set, or the space's own."""
        return self.settings.strategy or self.space.supernet

    @property
    def distils(self) -> bool:
        """Whether the first network of a step teaches the others."""
        return self.strategy in ("sandwich", "shrinking")

    def networks(self, seed: int, step: int, progress: float) -> list[Genotype]:
        """Return the networks of a step; see `nas.training.trainer.Sampling`."""
        rng = np.random.default_rng([seed, step])
        if self.strategy == "uniform":
            return [self.space.sample(rng)]
        if self.strategy == "fair":
            return self._fair(rng)
        allowed = self._allowed(progress)
        drawn = [
            [rng.choice(each) for each in allowed] for _ in range(self.settings.random_networks)
        ]
        smallest = self.smallest if self.strategy == "sandwich" else [each[-1] for each in allowed]
        chosen = [self.largest, smallest, *drawn]
        return list(dict.fromkeys(self.space.canonical(genotype) for genotype in chosen))

    @cached_property
    def largest(self) -> Genotype:
        """The network with the most multiply-accumulates."""
        return extreme(self.space, largest=True)

    @cached_property
    def smallest(self) -> Genotype:
        """The network with the fewest multiply-accumulates."""
        return extreme(self.space, largest=False)

    def _fair(self, rng: np.random.Generator) -> list[Genotype]:
        """Return networks that have every choice of a gene equally often, or once more."""
        sizes = self.space.cardinalities
        most = max(sizes)
        columns = []
        for size in sizes:
            turns = [rng.permutation(size) for _ in range(-(-most // size))]
            columns.append(np.concatenate(turns)[:most])
        return [self.space.canonical(row) for row in np.stack(columns, axis=1).tolist()]

    def _allowed(self, progress: float) -> list[list[int]]:
        """Return the choices of every gene that are allowed, the largest first."""
        settings, order = self.settings, self.settings.shrinking_order
        span = settings.shrinking_until - settings.shrinking_from
        share = min(max((progress - settings.shrinking_from) / span, 0.0), 1.0)
        allowed = []
        for gene, top in zip(self.space.genes, self.largest, strict=True):
            choices = list(range(len(gene.choices)))
            name = gene.name.rpartition(".")[2]
            if self.strategy == "shrinking" and gene.ordinal and (not order or name in order):
                choices.sort(key=lambda i, gene=gene: gene.choices[i], reverse=True)  # type: ignore[misc]
                turns, turn = max(len(order), 1), order.index(name) if order else 0
                opened = min(max(share * turns - turn, 0.0), 1.0)
                choices = choices[: 1 + int(opened * (len(choices) - 1) + 1e-9)]
            elif top in choices:
                choices = [top, *(i for i in choices if i != top)]
            allowed.append(choices)
        return allowed


@dataclass(frozen=True, kw_only=True)
class SupernetTraining(TrainingJob):
    """Trains shared weights; a candidate stands for all of them.

    Attributes:
        settings: Which networks are trained in every step.
    """

    settings: SamplingSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        recipe = self.recipe
        if self.space.pretrained:
            name, random = type(self.space).__name__, "a space of networks with random weights"
            raise ConfigError("search_space", name, random, "choose evaluation=training")
        for name, value, expected in (
            ("init", recipe.init, None),
            ("patience", recipe.patience, None),
            ("teacher.source", recipe.teacher.source, None),
            ("compute.compile", recipe.compute.compile, False),
        ):
            if value != expected:
                off = "null" if expected is None else "false"
                text = f"{off}, as a supernet is trained without it"
                raise ConfigError(f"evaluation.recipe.{name}", value, text)
        self._check_order()
        position_of_split(self.space, self.settings.split)

    def _check_order(self) -> None:
        names = {gene.name.rpartition(".")[2] for gene in self.space.genes if gene.ordinal}
        for name in self.settings.shrinking_order:
            if name not in names:
                expected = f"some of {', '.join(sorted(names))}"
                raise ConfigError("evaluation.shrinking_order", name, expected)

    @cached_property
    def sampling(self) -> NetworkSampling:
        """What chooses the networks of a step."""
        return NetworkSampling(self.space, self.settings)

    @property
    def identity(self) -> dict[str, str]:
        """Digests of what the trained weights depend on, by name."""
        recipe = {**asdict(self.recipe), "preset": ""}
        sampling = replace(self.settings, strategy=self.sampling.strategy)
        return {
            "search_space": self.space.space_id,
            "data": self.train.fingerprint()["sha256"][:16],
            "evaluation.recipe": hashed(recipe, 16),
            "evaluation.strategy": hashed(sampling, 16),
        }

    def check(self) -> None:
        """Check that there is anything to share.

        Raises:
            ConfigError: The networks of the space have nothing in common.
        """
        if not share_layers(self.space):
            expected = "a space whose networks have blocks of one name and class in common"
            fix = "evaluation=training trains each network by itself"
            raise ConfigError("search_space", type(self.space).__name__, expected, fix)

    def trainable(self, candidate: Candidate) -> SharedWeights:
        """Return the shared weights, with the largest network chosen."""
        del candidate
        auxiliary = self.recipe.auxiliary_weight > 0
        shared = SharedWeights(self.space, auxiliary=auxiliary, split=self.settings.split)
        shared.choose(self.sampling.largest)
        return shared

    def counted_from(self, began: float) -> float:
        """Return the time now: to make the weights may take as long as a part of the training."""
        del began
        return time.monotonic()

    def judged(
        self, network: TrainableNetwork | SharedWeights, training: Training
    ) -> dict[str, float]:
        """Return nothing: there are as many metrics as networks."""
        del network, training
        return {}


@dataclass(frozen=True, kw_only=True)
class SupernetJob:
    """Judges a candidate by shared weights.

    Attributes:
        training: How these are trained, on which images; what networks are judged on.
        calibration_images: Training images from which batch statistics are estimated.
        stand_alone: Trains candidates of fidelity 1 by themselves; `None` to judge them as all
            others.
        weights: The trained weights; `None` before.
    """

    training: SupernetTraining
    calibration_images: int
    stand_alone: Job | None = None
    weights: SupernetWeights | None = None

    def with_weights(
        self, arrays: Mapping[str, np.ndarray], source: Mapping[str, str]
    ) -> SupernetJob:
        """Return the job that judges by these weights."""
        weights = SupernetWeights(
            space=self.training.space,
            arrays=arrays,
            source=source,
            split=self.training.settings.split,
        )
        return replace(self, weights=weights)

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Judge `candidate`; see `nas.core.trial.Job`."""
        if self.stand_alone is not None and candidate.fidelity == FULL:
            return self.stand_alone(candidate, deadline)
        assert self.weights is not None, "the supernet is trained first"
        job = self.training
        torch.set_num_threads(job.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with training_step():
            network = self.weights.shared().extract(candidate.genotype).to(device)
            recalibrate(network, job.batches(self.calibration_images))
        return Outcome(metrics=job.metrics_of(network))
