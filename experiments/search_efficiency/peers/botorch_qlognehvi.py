"""BoTorch: Gaussian processes and qLogNEHVI (Daulton et al., 2021; Ament et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from _shared.table_task import TableTask

from nas.core.space import Genotype
from peers import Limits, Optimiser, Peer


@dataclass(frozen=True, kw_only=True)
class BotorchQlogNehvi(Peer):
    """One process an objective, with the kernel for categories; its own search of candidates.

    The logarithm of the error is modelled, cut off at the reference point: cells that learned
    nothing would ruin the processes.

    Attributes:
        initial: Architectures that are drawn at random.
        restarts: Of the local search for the largest acquisition.
        raw_samples: Random candidates from which the best are local search's starts.
        samples: Of the posterior, for the acquisition.
    """

    initial: int = 20
    restarts: int = 4
    raw_samples: int = 256
    samples: int = 64

    label: ClassVar[str] = "BoTorch qLogNEHVI"
    packages: ClassVar[tuple[str, ...]] = ("botorch",)
    limits: ClassVar[Limits] = Limits(seeds=3, evaluations=100)

    def start(self, task: TableTask, seed: int) -> Optimiser:
        return _BotorchRun(task, seed, self)


class _BotorchRun(Optimiser):
    """A run of the usual loop: fit, maximise the acquisition."""

    def __init__(self, task: TableTask, seed: int, settings: BotorchQlogNehvi) -> None:
        self._space = task.problem.space
        self._settings = settings
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._worst = task.worst_error
        self._slowest = np.log(task.bounds.largest)
        self._told: dict[Genotype, tuple[float, ...]] = {}

    def ask(self) -> Genotype:
        if len(self._told) < self._settings.initial:
            return self._space.sample(self._rng)
        import torch

        with torch.random.fork_rng(devices=[]):
            # Starts of the local search come from torch's own stream.
            torch.manual_seed(self._seed * 10_000 + len(self._told))
            return self._best()

    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        self._told[genotype] = (float(np.log(min(values[0], self._worst))), *values[1:])

    def _best(self) -> Genotype:
        import torch
        from botorch.acquisition.multi_objective.logei import (
            qLogNoisyExpectedHypervolumeImprovement,
        )
        from botorch.optim.optimize import optimize_acqf_discrete_local_search
        from botorch.sampling.normal import SobolQMCNormalSampler

        told = torch.tensor(list(self._told), dtype=torch.double)
        reference = [-float(np.log(self._worst)), *(-self._slowest).tolist()]
        size = torch.Size([self._settings.samples])
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model=self._model(told),
            ref_point=reference,
            X_baseline=told,
            sampler=SobolQMCNormalSampler(size, seed=len(self._told)),
            prune_baseline=True,
        )
        best, _ = optimize_acqf_discrete_local_search(
            acquisition,
            discrete_choices=[
                torch.arange(count, dtype=torch.double) for count in self._space.cardinalities
            ],
            q=1,
            num_restarts=self._settings.restarts,
            raw_samples=self._settings.raw_samples,
            X_avoid=told,
        )
        return tuple(int(choice) for choice in best[0].tolist())

    def _model(self, told: Any) -> Any:
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import MixedSingleTaskGP, ModelListGP
        from gpytorch.mlls import SumMarginalLogLikelihood

        # BoTorch makes large what is told.
        values = -torch.tensor(list(self._told.values()), dtype=torch.double)
        genes = list(range(told.shape[1]))
        model = ModelListGP(
            *(
                MixedSingleTaskGP(told, values[:, [column]], cat_dims=genes)
                for column in range(values.shape[1])
            )
        )
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        return model
