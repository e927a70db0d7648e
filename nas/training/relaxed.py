"""Train a relaxed network: shared weights, and a distribution over the choices of every gene.

The architecture weights of a gene are the logits of its distribution. Genes are independent of each
other, so an expectation is linear in the probabilities of each, and its derivative with respect to
one of them is the expectation given this choice. In this way the cost of architectures enters, of
whatever kind the predictor is: it is asked for some random networks with one gene after another at
each of its choices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import one_hot
from torch.nn.utils import clip_grad_norm_

from nas.core.dataset import Examples
from nas.core.errors import CandidateFailure, ConfigError
from nas.core.host import training_step
from nas.core.prediction import FloatArray
from nas.core.recipe import Recipe
from nas.core.relaxation import Goal, RelaxationSettings
from nas.core.space import Genotype
from nas.core.trial import Candidate, Outcome
from nas.network.blocks import IntArray
from nas.network.relaxed import RelaxedNetwork, mixable
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.augmentation import augmented
from nas.training.batches import Batches
from nas.training.optimizers import optimizers_of
from nas.training.trainer import steps_an_epoch

TABLE_NETWORKS = 16
"""Random networks by which expected costs are estimated."""

TABLE_STEPS = 10
"""Steps of the architecture weights after which that is done anew."""

TEMPERATURES = (10.0, 0.1)
"""Of the Gumbel softmax, at the beginning and at the end (GDAS, section 4.1)."""

BETAS = (0.5, 0.999)
"""Of Adam for the architecture weights (DARTS, appendix A.1)."""

MOVEMENT = 6.0
"""How far Adam can move an architecture weight; see `RelaxationSettings.learning_rate`."""

CHECKS = 10
"""How often, in a whole training, the dominant eigenvalue is looked at."""

POWER_STEPS = 5
"""Of the power iteration by which it is found."""

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class RelaxedJob:
    """Trains a relaxed network for the goal that has the number of the candidate.

    Attributes:
        space: Of the networks.
        train: Examples trained on: one half trains weights, the other one architecture weights.
        preprocessing: Of all images.
        recipe: How weights are trained: its optimizer, schedule, size of batches, augmentation
            without mixing, and label smoothing.
        settings: All else.
        cost: Returns the costs of genotypes, shape `(n,)`, all above 0.
        unit: Of the cost.
        goals: What is to be found.
        threads: Of torch, on a worker.
        memory_share: Of its GPU's memory, that a worker may take.
    """

    space: SearchSpace
    train: Examples
    preprocessing: Preprocessing
    recipe: Recipe
    settings: RelaxationSettings
    cost: Callable[[IntArray], FloatArray]
    unit: str = ""
    goals: tuple[Goal, ...] = ()
    threads: int = 1
    memory_share: float = 1.0

    def __post_init__(self) -> None:
        """Check that the space can be relaxed.

        Raises:
            ConfigError: A gene does not change the network that is trained, or no gene is what the
                relaxation needs.
        """
        read = {gene for table in self.space.tables for gene in table.genes}
        for number, gene in enumerate(self.space.genes):
            if number not in read and len(gene.choices) > 1:
                got = f"gene {gene.name}, which no block reads"
                expected = "genes that change the network, whose choices training compares"
                fix = f"give {gene.name} one choice, or take another search algorithm"
                raise ConfigError("search_space", got, expected, fix)
        if self.settings.relaxation != "policy" and not any(mixable(self.space)):
            expected = "policy: no gene of this space chooses between operations of one shape"
            raise ConfigError("search.algorithm.relaxation", self.settings.relaxation, expected)

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Search for a goal; see `nas.core.trial.Job`.

        The outcome's details are the `genotype`, its `cost`, and how certain the distributions of
        its active genes are in the end: the mean of their largest probabilities.
        """
        after_s = math.inf if candidate.cut_after_s is None else candidate.cut_after_s
        cut_at_s = time.monotonic() + after_s
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with training_step():
            training = RelaxedTraining(self, self.goals[candidate.number], device)
        while training.taken < training.total and not training.stopped:
            now = time.monotonic()
            if now > cut_at_s:
                return Outcome(metrics={}, cut_at=training.taken / training.total)
            if now > deadline:
                detail = f"stopped after {training.taken} of {training.total} steps"
                raise CandidateFailure("timeout", detail)
            with training_step():
                training.take()
        genotype = training.genotype
        details = {
            "genotype": list(genotype),
            "cost": float(self.cost(np.array([genotype], np.int64))[0]),
            "certainty": training.certainty,
        }
        return Outcome(metrics={"loss": training.loss}, details=details)


class RelaxedTraining:
    """One training of a relaxed network.

    Attributes:
        total: Steps of the whole training.
        taken: Steps that have been taken.
        stopped: Whether the dominant eigenvalue has ended it.
        loss: Mean of the last step's batch.
        logits: Architecture weights of every gene.
        network: With the shared weights.
    """

    def __init__(self, job: RelaxedJob, goal: Goal, device: torch.device) -> None:
        """Begin a training, from the seed of its goal."""
        torch.manual_seed(goal.seed)
        self._rng = np.random.default_rng(goal.seed)
        self._job, self._goal, self._device = job, goal, device
        settings, recipe, space = job.settings, job.recipe, job.space
        mixed = (False,) * len(space.genes)
        if settings.relaxation != "policy":
            mixed = mixable(space)
        self.network = RelaxedNetwork(space, mixed).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters = list(self.network.parameters())
        self._optimizers = optimizers_of(self.network.shared, recipe)
        self.logits = [
            (1e-3 * torch.randn(size)).to(device).requires_grad_() for size in space.cardinalities
        ]
        self._drawn = [n for n, is_mixed in enumerate(mixed) if not is_mixed]
        self._drawn = [n for n in self._drawn if space.cardinalities[n] > 1]
        used = torch.randperm(len(job.train))[: settings.train_samples]
        self._halves = used.chunk(2)
        if len(self._halves[-1]) < 2 or len(self._halves) < 2:
            got = "search.algorithm.train_samples"
            raise ConfigError(got, len(used), "4 or more, as each half trains by batches")
        self._batches = Batches(job.train, device, job.memory_share)
        self._targets = torch.from_numpy(job.train.targets).to(device)
        self._epoch_steps = steps_an_epoch(len(self._halves[0]), recipe)
        self.total = settings.epochs * self._epoch_steps
        searching = (1 - settings.warmup) * self.total
        self._architecture = torch.optim.Adam(
            self.logits,
            settings.learning_rate or MOVEMENT / searching,
            BETAS,
            weight_decay=settings.weight_decay,
        )
        self.taken, self.stopped, self.loss = 0, False, math.nan
        self._orders: list[tuple[torch.Tensor, ...]] = []
        self._table: list[torch.Tensor] = []
        self._tabulated = 0
        self._eigenvalue, self._kept = 0.0, [logit.detach().clone() for logit in self.logits]

    @property
    def genotype(self) -> Genotype:
        """The network of the most probable choices."""
        return self._job.space.canonical([int(logit.argmax()) for logit in self.logits])

    @property
    def certainty(self) -> float:
        """Mean over the active genes of the largest probability."""
        active = self._job.space.active(self.genotype)
        pairs = zip(self._probabilities(), active, strict=True)
        return float(np.mean([p.max().item() for p, is_active in pairs if is_active] or [1.0]))

    def take(self) -> None:
        """Take the next step: of the architecture weights, unless they wait, then of the others.

        Raises:
            CandidateFailure: The loss is not finite.
        """
        settings, step = self._job.settings, self.taken % self._epoch_steps
        progress = (self.taken + 0.5) / self.total
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._job.recipe.schedule.share(progress) * group["peak"]
        if step == 0:
            halves = [half[torch.randperm(len(half))] for half in self._halves]
            self._orders = [torch.tensor_split(half, self._epoch_steps) for half in halves]
        weights_batch, architecture_batch = (self._seen(order[step]) for order in self._orders)
        self.network.drop_rate = settings.operation_dropout * (1 - progress)
        searching = progress >= settings.warmup
        if searching:
            self._change_architecture(architecture_batch, weights_batch, progress)
        self._change_weights(weights_batch, uniform=not searching)
        self.taken += 1
        every = max(self.total // CHECKS, 1)
        if settings.eigenvalue_ratio and searching and self.taken % every == 0:
            self._check_eigenvalue(architecture_batch)

    def _seen(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images as the network gets them, and their targets."""
        pixels = augmented(self._batches.pixels(positions), self._job.recipe.augmentation)
        x = self._job.preprocessing(pixels).contiguous(memory_format=torch.channels_last)
        return x, self._targets[positions.to(self._device)]

    def _probabilities(self) -> list[torch.Tensor]:
        return [logit.softmax(0) for logit in self.logits]

    def _draw(self, *, uniform: bool = False) -> list[int]:
        """Return a choice of every gene."""
        with torch.no_grad():
            probabilities = [p.cpu() for p in self._probabilities()]
        if uniform:
            probabilities = [torch.ones_like(p) for p in probabilities]
        return [int(torch.multinomial(p, 1)) for p in probabilities]

    def _mixture(self) -> list[torch.Tensor]:
        """Return the weights of all choices by which genes that are mixed are run."""
        probabilities = self._probabilities()
        if self._job.settings.relaxation != "sampled":
            return probabilities
        hot, cold = TEMPERATURES
        temperature = hot + (cold - hot) * self.taken / self.total
        weights = []
        for p in probabilities:
            noise = -torch.empty(len(p)).exponential_().log().to(self._device)
            soft = ((p.log() + noise) / temperature).softmax(0)
            hard = one_hot(soft.argmax(), len(p)).to(soft)
            weights.append(hard + (soft - soft.detach()))
        return weights

    def _loss(
        self, batch: tuple[torch.Tensor, torch.Tensor], genotype: Sequence[int], mixture: Tensors
    ) -> torch.Tensor:
        x, targets = batch
        outputs = self.network(x, genotype, mixture)
        smoothing = self._job.recipe.regularisation.label_smoothing
        return self._job.train.task.losses(outputs, targets, smoothing).mean()

    def _change_weights(self, batch: tuple[torch.Tensor, torch.Tensor], *, uniform: bool) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        mixture = [weights.detach() for weights in self._mixture()]
        loss = self._loss(batch, self._draw(uniform=uniform), mixture)
        self.loss = loss.item()
        if not math.isfinite(self.loss):
            raise CandidateFailure("diverged", f"the loss became {self.loss} in step {self.taken}")
        loss.backward()  # type: ignore[no-untyped-call]
        if (clip_norm := self._job.recipe.optimizer.clip_norm) is not None:
            clip_grad_norm_(self._parameters, clip_norm)
        for optimizer in self._optimizers:
            optimizer.step()

    def _change_architecture(
        self,
        batch: tuple[torch.Tensor, torch.Tensor],
        weights_batch: tuple[torch.Tensor, torch.Tensor],
        progress: float,
    ) -> None:
        settings = self._job.settings
        gradients = self.task_gradients(batch, weights_batch)
        if self._tabulated % TABLE_STEPS == 0:
            self._table = self.cost_table()
        self._tabulated += 1
        pairs = zip(self._probabilities(), self._table, strict=True)
        loss = settings.cost_weight * torch.stack([(p * table).sum() for p, table in pairs]).sum()
        if settings.beta:
            sums = torch.stack([logit.logsumexp(0) for logit in self.logits])
            loss = loss + progress * settings.beta * sums.mean()
        others = torch.autograd.grad(loss, self.logits)
        for logit, own, other in zip(self.logits, gradients, others, strict=True):
            logit.grad = own + other
        self._architecture.step()

    def task_gradients(
        self,
        batch: tuple[torch.Tensor, torch.Tensor],
        weights_batch: tuple[torch.Tensor, torch.Tensor],
    ) -> list[torch.Tensor]:
        """Return the estimated gradients of the task's expected loss in the architecture weights.

        Of genes that are drawn it is that of REINFORCE, whose baseline is the mean of the other
        networks of the step (Kool et al., 2019, "Buy 4 REINFORCE samples, get a baseline for
        free!"). Genes that a network does not depend on are left out.
        """
        count = self._job.settings.samples if self._drawn else 1
        drawn = [self._draw() for _ in range(count)]
        gradients = [torch.zeros_like(logit) for logit in self.logits]
        losses = []
        for genotype in drawn:
            loss, own = self._mixed_gradients(genotype, batch, weights_batch)
            losses.append(loss)
            for total, part in zip(gradients, own, strict=True):
                total += part / count
        if self._drawn:
            logs = [p.log() for p in self._probabilities()]
            score = torch.zeros((), device=self._device)
            for k, genotype in enumerate(drawn):
                active = self._job.space.active(genotype)
                baseline = (sum(losses) - losses[k]) / (count - 1)
                likelihood = [logs[n][genotype[n]] for n in self._drawn if active[n]]
                if likelihood:
                    score = score + (losses[k] - baseline) * torch.stack(likelihood).sum() / count
            if score.requires_grad:
                parts = torch.autograd.grad(score, self.logits, allow_unused=True)
                gradients = [
                    own if part is None else own + part
                    for own, part in zip(gradients, parts, strict=True)
                ]
        return gradients

    def _mixed_gradients(
        self,
        genotype: Sequence[int],
        batch: tuple[torch.Tensor, torch.Tensor],
        weights_batch: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[float, list[torch.Tensor]]:
        """Return the loss of a network, and its gradients by way of the genes that are mixed."""
        if not any(self.network.mixed):
            with torch.no_grad():
                loss = self._loss(batch, genotype, self._mixture())
            return loss.item(), [torch.zeros_like(logit) for logit in self.logits]
        if self._job.settings.order == 2:
            return self._second_order(genotype, batch, weights_batch)
        loss = self._loss(batch, genotype, self._mixture())
        return loss.item(), self._gradients(loss, self.logits)

    def _second_order(
        self,
        genotype: Sequence[int],
        batch: tuple[torch.Tensor, torch.Tensor],
        weights_batch: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[float, list[torch.Tensor]]:
        """Differentiate through one step of gradient descent (DARTS, equations 7 and 8)."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        rate = self._optimizers[0].param_groups[0]["lr"]
        train = self._loss(weights_batch, genotype, self._mixture())
        self._move(before, self._gradients(train, self._parameters), -rate)
        loss = self._loss(batch, genotype, self._mixture())
        every = self._gradients(loss, [*self.logits, *self._parameters])
        own, direction = every[: len(self.logits)], every[len(self.logits) :]
        norm = torch.stack([part.square().sum() for part in direction]).sum().sqrt()
        step = 0.01 / max(norm.item(), 1e-12)
        sides = []
        for sign in (1, -1):
            self._move(before, direction, sign * step)
            side = self._loss(weights_batch, genotype, self._mixture())
            sides.append(self._gradients(side, self.logits))
        self._move(before, direction, 0.0)
        total = [g - rate * (a - b) / (2 * step) for g, a, b in zip(own, *sides, strict=True)]
        return loss.item(), total

    @torch.no_grad()
    def _move(self, origin: Tensors, direction: Tensors, step: float) -> None:
        """Set the parameters to those of `origin` and a step from there."""
        for parameter, start, towards in zip(self._parameters, origin, direction, strict=True):
            parameter.copy_(start + step * towards if step else start)

    @staticmethod
    def _gradients(loss: torch.Tensor, of: Tensors) -> list[torch.Tensor]:
        found = torch.autograd.grad(loss, of, allow_unused=True)
        pairs = zip(found, of, strict=True)
        return [torch.zeros_like(x) if gradient is None else gradient for gradient, x in pairs]

    def cost_table(self) -> list[torch.Tensor]:
        """Return the expectation of |log(cost / target)| given each choice of every gene."""
        sizes = self._job.space.cardinalities
        probabilities = [p.detach().cpu().double().numpy() for p in self._probabilities()]
        columns = [
            self._rng.choice(size, TABLE_NETWORKS, p=p / p.sum())
            for size, p in zip(sizes, probabilities, strict=True)
        ]
        drawn = np.stack(columns, axis=1)
        tried = [drawn.copy() for size in sizes for _ in range(size)]
        places = [(gene, choice) for gene, size in enumerate(sizes) for choice in range(size)]
        for rows, (gene, choice) in zip(tried, places, strict=True):
            rows[:, gene] = choice
        canonical = self._job.space.canonicalise(np.concatenate(tried))
        rows, numbers = np.unique(canonical, axis=0, return_inverse=True)
        deviation = np.abs(np.log(self._job.cost(rows) / self._goal.target))
        expected = deviation[numbers.reshape(len(places), TABLE_NETWORKS)].mean(axis=1)
        parts = np.split(expected, np.cumsum(sizes)[:-1])
        return [torch.from_numpy(part).float().to(self._device) for part in parts]

    def _check_eigenvalue(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """End the training where the dominant eigenvalue has grown; see `RelaxationSettings`."""
        now = self.dominant_eigenvalue(batch)
        if self._eigenvalue and self._eigenvalue < self._job.settings.eigenvalue_ratio * now:
            self.stopped = True
            with torch.no_grad():
                for logit, kept in zip(self.logits, self._kept, strict=True):
                    logit.copy_(kept)
            return
        self._eigenvalue = now
        self._kept = [logit.detach().clone() for logit in self.logits]

    def dominant_eigenvalue(self, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        """Return the largest absolute eigenvalue of the loss's Hessian in the mixed genes' weights.

        By power iteration with products of Hessian and vector.
        """
        logits = [x for x, mixed in zip(self.logits, self.network.mixed, strict=True) if mixed]
        loss = self._loss(batch, self._draw(), self._mixture())
        gradients = torch.autograd.grad(loss, logits, create_graph=True)
        flat = torch.cat(gradients)
        vector, norm = torch.ones_like(flat), 0.0
        for _ in range(POWER_STEPS):
            vector = vector / vector.norm().clamp(min=1e-12)
            products = torch.autograd.grad(flat @ vector, logits, retain_graph=True)
            vector = torch.cat(products)
            norm = vector.norm().item()
        return norm
