"""Train one network, and judge one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas.core.dataset import Examples
from nas.core.errors import CandidateFailure
from nas.core.host import training_step
from nas.core.recipe import SELF, Recipe
from nas.core.space import Genotype
from nas.core.task import Sums
from nas.core.trial import FULL
from nas.network.compact import growing
from nas.network.module import Network
from nas.network.shared import SharedWeights
from nas.network.trainable import TrainableNetwork
from nas.network.trained import Preprocessing
from nas.training.augmentation import Mix, augmented, mixed
from nas.training.batches import Batches
from nas.training.checkpoint import from_bytes, to_bytes
from nas.training.distributed import (
    agreed,
    averaging,
    of_all,
    of_first,
    own_part,
    processes,
    rank,
    synchronise,
)
from nas.training.optimizers import optimizers_of
from nas.training.precision import arithmetic, precision_of
from nas.training.teacher import FeatureMatch, Teacher, TeacherOutputs

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Attributes:
        reached: Share of the recipe's steps that the network has had.
        checkpoint: To go on from; `None` where nothing is left.
        history: A record of every epoch that has ended since the checkpoint: `epoch`,
            `images_per_s`, `loss`, and the metrics of the held-out examples where they were judged.
    """

    reached: float
    checkpoint: bytes | None
    history: tuple[Mapping[str, float], ...]


def train(
    network: nn.Module,
    images: Examples,
    recipe: Recipe,
    preprocessing: Preprocessing,
    deadline: float = math.inf,
    *,
    held_out: Examples | None = None,
    teacher: Teacher | None = None,
    fidelity: float = FULL,
    checkpoint: bytes | None = None,
    cut_at_s: float = math.inf,
    memory_share: float = 1.0,
    sampling: Sampling | None = None,
) -> Training:
    """Train `network` in place, on the device that it lies on.

    Draws from torch's global random stream, so seed that first. A partial training is the
    beginning of the full one: the schedule of the learning rate is that of all steps, and going on
    from a checkpoint ends with the same weights as a training that was never interrupted.

    Args:
        network: Maps `(N, C, H, W)` to the outputs of the task. Where the recipe averages weights,
            it has the averages in the end.
        images: Training split.
        recipe: How to train.
        preprocessing: Applied to every batch.
        deadline: In `time.monotonic()` seconds.
        held_out: Judged after every epoch where the recipe has `patience`.
        teacher: What else the network learns from: the one that the recipe names.
        fidelity: Share of the recipe's steps after which to stop, in (0, 1]; less than an epoch
            sees a share of the images.
        checkpoint: Of the same training, seeded equally, at a lower fidelity; `None` to begin.
        cut_at_s: In `time.monotonic()` seconds: from then on no step is taken but the first.
        memory_share: Of the device's memory; see `nas.training.batches.Batches`.
        sampling: Chooses the networks of every step, where `network` is the shared weights of many.

    Raises:
        CandidateFailure: The loss is not finite, or the deadline has passed.
        TypeError: The recipe names a teacher, and none is given, or the other way round.
        ValueError: The teacher's outputs are of another shape.
    """
    if (teacher is None) != (recipe.teacher.source in (None, SELF)):
        got = "no teacher" if teacher is None else "a teacher"
        raise TypeError(f"got {got}, expected the recipe's: {recipe.teacher.source}")
    with training_step():
        steps = _Steps(
            network, images, recipe, preprocessing, held_out, teacher, memory_share, sampling
        )
        if checkpoint is not None:
            steps.restore(from_bytes(checkpoint))
    first, total = steps.taken, steps.total
    stop = max(round(fidelity * total), min(total, 1))
    while steps.taken < stop:
        now = time.monotonic()
        cut = steps.taken > first and now > cut_at_s
        exhausted, cut, late = agreed(steps.exhausted, cut, now > deadline)
        if exhausted:
            break
        if cut:
            fidelity = steps.taken / total
            break
        if late:
            detail = f"stopped after {steps.taken} of {total} training steps"
            raise CandidateFailure("timeout", detail)
        steps.take()
    [exhausted] = agreed(steps.exhausted)
    unfinished = fidelity < FULL and not exhausted
    with training_step():
        left = to_bytes(steps.state()) if unfinished else None
        steps.hand_over()
    return Training(fidelity if unfinished else FULL, left, tuple(steps.history))


class Sampling(Protocol):
    """Which networks of shared weights are trained in every step."""

    @property
    def distils(self) -> bool:
        """Whether the first network of a step teaches the others."""

    def networks(self, seed: int, step: int, progress: float) -> Sequence[Genotype]:
        """Return the networks of a step, which depend on the arguments alone.

        Args:
            seed: Of the training.
            step: Steps that have been taken.
            progress: Share of the training that has been taken.
        """


class _Seen(NamedTuple):
    """Examples as a step has them.

    Attributes:
        pixels: After augmentation.
        x: Normalised, at the step's resolution.
        mix: How images are mixed.
    """

    pixels: torch.Tensor
    x: torch.Tensor
    mix: Mix | None


def steps_an_epoch(examples: int, recipe: Recipe) -> int:
    """Return in how many batches, all of nearly the recipe's size, an epoch sees its examples."""
    return max(round(examples / recipe.batch_size), 1)


class _Steps:
    """The steps of one training.

    Attributes:
        total: Steps of the full training.
        taken: Steps that have been taken.
        history: See `Training`.
        exhausted: Whether the recipe's patience is at its end.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Examples,
        recipe: Recipe,
        preprocessing: Preprocessing,
        held_out: Examples | None,
        teacher: Teacher | None,
        memory_share: float = 1.0,
        sampling: Sampling | None = None,
    ) -> None:
        _configure(network, recipe)
        synchronise(network)
        self._network = network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device = next(network.parameters()).device
        self._recipe, self._preprocessing, self._teacher = recipe, preprocessing, teacher
        self._images, self._held_out = images, held_out
        self._batches = Batches(images, device, memory_share)
        self._targets = torch.tensor(images.targets, device=device)  # which may be read-only
        self._weights = torch.from_numpy(images.task.weights(images.targets)).float().to(device)
        self._used = of_first(torch.randperm(len(images)))[: recipe.train_samples]
        self._epoch_steps = steps_an_epoch(len(self._used), recipe)
        self.total = recipe.epochs * self._epoch_steps
        self._sampling = sampling
        # Drawn in any case at the same place, so that going on repeats it.
        self._seed = 0 if sampling is None else int(of_first(torch.randint(2**31, (1,))))
        outputs = averaging(Outputs(network), in_part=sampling is not None)
        self._outputs: nn.Module = (
            cast("nn.Module", torch.compile(outputs)) if recipe.compute.compile else outputs
        )
        self._optimizers = optimizers_of(network, recipe)
        self._teacher_finite = torch.ones((), dtype=torch.bool, device=device)
        self._match = None
        if teacher is not None and recipe.teacher.features:
            pixels = self._batches.pixels(self._used[:1])
            taught = cast("torch.Tensor", teacher(self._used[:1], pixels).features)
            self._match = FeatureMatch(network, preprocessing(pixels), taught)
            self._matched = averaging(self._match)
            self._optimizers += optimizers_of(self._match, recipe)
        self._precision = precision_of(recipe.compute.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision == "fp16")
        self._averages = None
        if recipe.ema > 0 and self.total:
            decay = math.exp(-1 / (recipe.ema * self.total))
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self._averages = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self.taken = 0
        self.history: list[Mapping[str, float]] = []
        self._order = self._used
        self._parts: tuple[torch.Tensor, ...] = ()
        self._best: dict[str, torch.Tensor] = {}
        self._best_error, self._worse_epochs = math.inf, 0
        self._loss_sum, self._images_timed, self._seconds = 0.0, 0, 0.0

    @property
    def exhausted(self) -> bool:
        patience = self._recipe.patience
        return patience is not None and self._worse_epochs >= patience

    def take(self) -> None:
        """Take the next step."""
        started = time.monotonic()
        step = self.taken % self._epoch_steps
        with training_step():
            agreed()  # to begin, as the first process holds the host for all
            if step == 0:
                self._order, self._parts = of_first(self._drawn()), ()
            if not self._parts:
                # Nearly of one size: a rest of one image would break batch norm.
                self._parts = torch.tensor_split(self._order, self._epoch_steps)
            with growing(self._network, self._recipe.sparsity(self.taken / self.total)):
                value = self._step(self._parts[step])
        if not math.isfinite(value):
            detail = f"the loss became {value} in step {self.taken}"
            if not self._teacher_finite:
                detail += ", as the teacher's outputs are not finite"
            raise CandidateFailure("diverged", detail)
        self._seconds += time.monotonic() - started
        self._images_timed += len(self._parts[step])
        self._loss_sum += value
        self.taken += 1
        if self.taken % self._epoch_steps == 0:
            self._end_epoch()

    def _drawn(self) -> torch.Tensor:
        """Return the positions of an epoch's examples in their order."""
        if self._recipe.balance != "sampling":
            return self._used[torch.randperm(len(self._used))]
        weights = self._weights.cpu()[self._used]
        return self._used[torch.multinomial(weights, len(self._used), replacement=True)]

    def _step(self, positions: torch.Tensor) -> float:
        """Change the weights once; return the mean loss of a batch."""
        # The middle of the step: neither the first nor the last one is without effect.
        share = self._recipe.schedule.share((self.taken + 0.5) / self.total)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak"]
            optimizer.zero_grad()
        value = torch.zeros((), device=self._device)
        for chunk in positions.chunk(self._recipe.compute.accumulate):
            part = own_part(chunk)
            for loss in self._losses(part):
                if len(part) < len(positions):  # gradients are averaged over the processes
                    loss = loss * (len(part) * processes() / len(positions))
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                value += loss.detach()
        if (clip_norm := self._recipe.optimizer.clip_norm) is not None:
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
            groups = [group for each in self._optimizers for group in each.param_groups]
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], clip_norm)
        for optimizer in self._optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()
        if self._averages is not None:
            self._averages.update_parameters(self._network)
        return of_all(value).mean().item()  # waits for a GPU, whose host this may be

    def _losses(self, positions: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the losses of examples that are summed in a step, one network's after another's.

        Of shared weights, the networks see the same images. Where the sampling says so, the first
        one learns from the targets, and the others from its outputs (in-place distillation, Yu et
        al., ECCV 2020, section 3.1), without dropping anything.
        """
        seen = self._seen(positions)
        if self._sampling is None:
            yield self._loss(positions, *seen)[0]
            return
        shared = cast("SharedWeights", self._network)
        regularisation = self._recipe.regularisation
        taught = None
        progress = (self.taken + 0.5) / self.total
        for genotype in self._sampling.networks(self._seed, self.taken, progress):
            shared.choose(genotype)
            if taught is None:
                rates = {"drop_path": regularisation.drop_path, "dropout": regularisation.dropout}
                shared.regularise(**rates)
                loss, outputs = self._loss(positions, *seen)
                yield loss
                if self._sampling.distils:
                    taught = outputs.detach()
                    shared.regularise()
            else:
                with arithmetic(self._device, self._precision):
                    own = self._outputs(seen.x)[0].float()
                yield self._images.task.distillation(own, taught, 1.0).mean()

    def _seen(self, positions: torch.Tensor) -> _Seen:
        """Return the images at positions as they are seen in this step."""
        recipe, augmentation = self._recipe, self._recipe.augmentation
        pixels = self._batches.pixels(positions)
        pixels, mix = mixed(augmented(pixels, augmentation), augmentation)
        x = resized(self._preprocessing(pixels), recipe.resolution(self.taken / self.total))
        return _Seen(pixels, x.contiguous(memory_format=torch.channels_last), mix)

    def _loss(
        self, positions: torch.Tensor, pixels: torch.Tensor, x: torch.Tensor, mix: Mix | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of examples and the network's outputs.

        The loss is with those of auxiliary classifiers and the teacher.

        Args:
            positions: Of the examples.
            pixels: As of `_Seen`, like the other arguments.
            x: What the network gets.
            mix: How images are mixed.
        """
        recipe, at = self._recipe, positions.to(self._device)
        reading: AbstractContextManager[list[torch.Tensor]] = nullcontext([])
        if self._match is not None:
            reading = self._match.own.reading()
        with arithmetic(self._device, self._precision), reading as features:
            own, *auxiliary = [outputs.float() for outputs in self._outputs(x)]
        loss = self._of_targets(own, at, mix)
        if recipe.teacher.source is not None:
            settings = recipe.teacher
            taught, weight = self._taught(positions, pixels, x)
            if taught.outputs.shape != own.shape:
                got, expected = tuple(taught.outputs.shape), tuple(own.shape)
                raise ValueError(f"outputs of the teacher: got {got}, expected {expected}")
            copied = self._images.task.distillation(own, taught.outputs, settings.temperature)
            if recipe.balance == "weights":
                copied = copied * self._weights[at]
            loss = (1 - weight) * loss + weight * copied.mean()
            if self._match is not None:
                loss = loss + settings.features * self._matched(features[0], taught.features)
        for outputs in auxiliary:
            loss = loss + recipe.auxiliary_weight * self._of_targets(outputs, at, mix)
        return loss, own

    def _taught(
        self, positions: torch.Tensor, pixels: torch.Tensor, x: torch.Tensor
    ) -> tuple[TeacherOutputs, float]:
        """Return what the teacher says of examples, and its weight.

        The average of a network that has not learned yet teaches nothing, so its weight grows by
        `exp(-5 (1 - t)^2)` (Laine and Aila, ICLR 2017), `t` from 0 to 1 over as many steps as the
        average is of.
        """
        weight = self._recipe.teacher.weight
        if self._teacher is not None:
            taught = self._teacher(positions, pixels)
            self._teacher_finite &= torch.isfinite(taught.outputs).all()
            return taught, weight
        assert self._averages is not None, "the recipe has checked that"
        with torch.no_grad():
            outputs = self._averages.module.eval()(x).float()
        grown = min(self.taken / (self._recipe.ema * self.total), 1.0)
        return TeacherOutputs(outputs), weight * math.exp(-5 * (1 - grown) ** 2)

    def _of_targets(self, outputs: torch.Tensor, at: torch.Tensor, mix: Mix | None) -> torch.Tensor:
        """Return the mean loss of outputs for the targets of the examples `at`."""

        def mean(at: torch.Tensor) -> torch.Tensor:
            smoothing = self._recipe.regularisation.label_smoothing
            losses = self._images.task.losses(outputs, self._targets[at], smoothing)
            if self._recipe.balance == "weights":
                losses = losses * self._weights[at]
            return losses.mean()

        if mix is None:
            return mean(at)
        return mix.share * mean(at) + (1 - mix.share) * mean(at[mix.partner])

    def _end_epoch(self) -> None:
        record = {
            "epoch": float(self.taken // self._epoch_steps),
            "images_per_s": self._images_timed / max(self._seconds, 1e-9),
            "loss": self._loss_sum / self._epoch_steps,
        }
        self._loss_sum, self._images_timed, self._seconds = 0.0, 0, 0.0
        if self._recipe.patience is not None and self._held_out is not None and rank() == 0:
            network = self._network if self._averages is None else self._averages.module
            resolution = self._recipe.resolution(self.taken / self.total)
            metrics = evaluate(network, self._held_out, self._preprocessing, resolution)
            network.train()
            record |= metrics
            if resolution == 1:  # before that, errors are of smaller images
                self._worse_epochs += 1
                if metrics["error"] < self._best_error:
                    self._best_error, self._worse_epochs = metrics["error"], 0
                    self._best = {name: t.clone() for name, t in network.state_dict().items()}
        self.history.append(record)

    def hand_over(self) -> None:
        """Give the network the weights that are handed over: the best ones, or their averages."""
        weights = self._averages.module.state_dict() if self._averages is not None else {}
        if handed := self._best or weights:
            self._network.load_state_dict(handed)

    def state(self) -> dict[str, Any]:
        """Return everything that changes from step to step, but times."""
        state = {
            "network": self._network.state_dict(),
            "optimizers": {str(i): o.state_dict()["state"] for i, o in enumerate(self._optimizers)},
            "order": self._order,
            "taken": self.taken,
            "loss_sum": self._loss_sum,
            "best": self._best,
            "best_error": self._best_error,
            "worse_epochs": self._worse_epochs,
            "random": of_all(torch.get_rng_state()),
        }
        if self._averages is not None:
            state["averages"] = self._averages.state_dict()
        if self._match is not None:
            state["match"] = self._match.state_dict()
        if self._scaler.is_enabled():
            state["scaler"] = self._scaler.state_dict()
        if self._device.type == "cuda":
            state["random_cuda"] = of_all(torch.cuda.get_rng_state(self._device))
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of an equal training, and put the random streams where it saw them."""
        self._network.load_state_dict(state["network"])
        for number, optimizer in enumerate(self._optimizers):
            moments = state.get("optimizers", {}).get(str(number), {})
            by_parameter = {int(i): values for i, values in moments.items()}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": by_parameter})
        self._order, self.taken = state["order"], int(state["taken"])
        self._loss_sum = float(state["loss_sum"])
        self._best, self._best_error = state.get("best", {}), float(state["best_error"])
        self._worse_epochs = int(state["worse_epochs"])
        if self._averages is not None:
            self._averages.load_state_dict(state["averages"])
        if self._match is not None:
            self._match.load_state_dict(state["match"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict({n: t.item() for n, t in state["scaler"].items()})
        if rank() >= len(state["random"]):  # it was trained by fewer processes
            return
        # As copies: torch reads from the beginning of the memory that a view lies in.
        torch.set_rng_state(state["random"][rank()].clone())
        if self._device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"][rank()].clone(), self._device)


def _configure(network: nn.Module, recipe: Recipe) -> None:
    """Let a network drop branches, compute again and take small images, as a recipe says."""
    regularisation, recompute = recipe.regularisation, recipe.compute.recompute
    drop_path, dropout = regularisation.drop_path, regularisation.dropout
    if isinstance(network, TrainableNetwork | SharedWeights):
        network.regularise(drop_path=drop_path, dropout=dropout)
        network.recompute = recompute
        network.take_any_size(recipe.initial_resolution < 1)
    elif drop_path or dropout or recompute:
        expected = "a network of a search space, which drops paths, drops out and recomputes"
        raise TypeError(f"got {type(network).__name__}, expected {expected}")


class Outputs(nn.Module):
    """Gives a network's outputs, and those of its auxiliary classifiers behind them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map images `(N, C, H, W)` to a list of outputs `(N, ...)`."""
        if isinstance(self.network, Network | SharedWeights):
            return self.network.all_outputs(images)
        return [self.network(images)]


def evaluate(
    network: nn.Module, images: Examples, preprocessing: Preprocessing, resolution: float = 1.0
) -> dict[str, float]:
    """Return the metrics of the task of `images`, such as `error` in percent; see `judged`."""
    return images.task.scores(judged(network, images, preprocessing, resolution))


def judged(
    network: nn.Module, images: Examples, preprocessing: Preprocessing, resolution: float = 1.0
) -> Sums:
    """Return the sums over `images` from which their task makes the metrics.

    Args:
        network: Maps `(N, C, H, W)` to the outputs of the task.
        images: What it is judged on.
        preprocessing: Applied to every batch.
        resolution: Share of the images' sides at which the network sees them.
    """
    network.eval()
    device = next(network.parameters()).device
    sums: Sums | float = 0.0
    with torch.inference_mode():
        for start in range(0, len(images), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            with training_step():
                pixels, targets = images.batch(part)
                x = resized(preprocessing(torch.from_numpy(pixels).to(device)), resolution)
                outputs = network(x.contiguous(memory_format=torch.channels_last)).cpu()
            if not torch.isfinite(outputs).all():
                raise CandidateFailure("diverged", "the network returns values that are not finite")
            sums = sums + images.task.sums(outputs.numpy(), targets)
    return np.asarray(sums)


def resized(images: torch.Tensor, share: float) -> torch.Tensor:
    """Reduce the sides of `(N, C, H, W)` floating-point images to `share`, in whole pixels."""
    if share == 1:
        return images
    size = [max(round(side * share), 1) for side in images.shape[2:]]
    return F.interpolate(images, size, mode="bilinear", antialias=True)
