"""Train one network, and judge one."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nas.core.dataset import Examples
from nas.core.errors import CandidateFailure
from nas.core.host import training_step
from nas.core.recipe import Recipe
from nas.core.task import Sums, Task
from nas.core.trial import FULL
from nas.network.module import Network
from nas.network.trained import Preprocessing
from nas.training.checkpoint import restore, take

EVALUATION_BATCH = 500


def train(
    network: nn.Module,
    images: Examples,
    recipe: Recipe,
    preprocessing: Preprocessing,
    deadline: float = math.inf,
    *,
    fidelity: float = FULL,
    checkpoint: bytes | None = None,
    cut_at_s: float = math.inf,
) -> tuple[float, bytes | None]:
    """Train `network` in place, on the device that it lies on.

    Draws from torch's global random stream, so seed that first. A partial training is the
    beginning of the full one: the schedule of the learning rate is that of all steps, and going on
    from a checkpoint ends with the same weights as a training that was never interrupted.

    Args:
        network: Maps `(N, C, H, W)` to the outputs of the task.
        images: Training split.
        recipe: How to train.
        preprocessing: Applied to every batch.
        deadline: In `time.monotonic()` seconds.
        fidelity: Share of the recipe's steps after which to stop, in (0, 1]; less than an epoch
            sees a share of the images.
        checkpoint: Of the same training, seeded equally, at a lower fidelity; `None` to begin.
        cut_at_s: In `time.monotonic()` seconds: from then on no step is taken but the first.

    Returns:
        The share of the recipe's steps that the network has had, and a checkpoint unless that is
        all of them.

    Raises:
        CandidateFailure: The loss is not finite, or the deadline has passed.
    """
    with training_step():
        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        device = next(network.parameters()).device
        pixels = torch.from_numpy(images.pixels).to(device)
        targets = torch.from_numpy(images.targets).to(device)
        used = torch.randperm(len(targets))[: recipe.train_samples]
    # All batches are of the same size: a rest of one image would break batch norm.
    batches = max(len(used) // recipe.batch_size, 1)
    total_steps = recipe.epochs * batches
    optimizer, schedule = _optimizer(network, recipe, total_steps)
    order = used
    if checkpoint is not None:
        order = restore(checkpoint, network, optimizer, schedule)
    first = schedule.last_epoch
    for step in range(first, max(round(fidelity * total_steps), 1)):
        if step > first and time.monotonic() > cut_at_s:
            fidelity = step / total_steps
            break
        if time.monotonic() > deadline:
            detail = f"stopped after {step} of {total_steps} training steps"
            raise CandidateFailure("timeout", detail)
        if step % batches == 0:
            order = used[torch.randperm(len(used))]
        batch = torch.split(order, recipe.batch_size)[step % batches]
        with training_step():
            x = _augmented(pixels[batch], recipe)
            x = resized(preprocessing(x), recipe.resolution(step / total_steps))
            x = x.contiguous(memory_format=torch.channels_last)
            loss = _loss(network, x, targets[batch], images.task, recipe)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            value = loss.item()  # waits for a GPU, whose host this may be
        if not math.isfinite(value):
            raise CandidateFailure("diverged", f"the loss became {value} in step {step}")
    if fidelity == FULL:
        return fidelity, None
    with training_step():
        return fidelity, take(network, optimizer, schedule, order)


def _optimizer(
    network: nn.Module, recipe: Recipe, total_steps: int
) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.OneCycleLR]:
    """Return a new optimizer, and the schedule of its learning rate over the full training."""
    # Biases and the parameters of normalisations do not decay.
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in network.parameters() if p.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in network.parameters() if p.ndim <= 1]},
    ]
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=total_steps + 1,
        cycle_momentum=False,  # else the schedule replaces the recipe's momentum by its own
    )
    return optimizer, schedule


def _loss(
    network: nn.Module, x: torch.Tensor, targets: torch.Tensor, task: Task, recipe: Recipe
) -> torch.Tensor:
    """Return the task's loss, and that of auxiliary classifiers with their weight."""
    every = network.all_outputs(x) if isinstance(network, Network) else [network(x)]
    losses = [task.losses(y, targets, recipe.label_smoothing).mean() for y in every]
    return torch.stack([losses[0], *(recipe.auxiliary_weight * loss for loss in losses[1:])]).sum()


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
                x = preprocessing(torch.from_numpy(images.pixels[part]).to(device))
                x = resized(x, resolution)
                outputs = network(x.contiguous(memory_format=torch.channels_last)).cpu()
            if not torch.isfinite(outputs).all():
                raise CandidateFailure("diverged", "the network returns values that are not finite")
            sums = sums + images.task.sums(outputs.numpy(), images.targets[part])
    return np.asarray(sums)


def resized(images: torch.Tensor, share: float) -> torch.Tensor:
    """Reduce the sides of `(N, C, H, W)` floating-point images to `share`, in whole pixels."""
    if share == 1:
        return images
    size = [max(round(side * share), 1) for side in images.shape[2:]]
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def shift_randomly(pixels: torch.Tensor, largest: int) -> torch.Tensor:
    """Shift every image of `(N, C, H, W)` by up to `largest` pixels, padding with its edge."""
    count, _, height, width = pixels.shape
    padded = F.pad(pixels.float(), (largest,) * 4, mode="replicate").to(pixels.dtype)
    offsets = torch.randint(0, 2 * largest + 1, (2, count, 1))
    rows = (offsets[0] + torch.arange(height)).to(pixels.device)
    columns = (offsets[1] + torch.arange(width)).to(pixels.device)
    image = torch.arange(count, device=pixels.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip_randomly(pixels: torch.Tensor) -> torch.Tensor:
    """Mirror every image of `(N, C, H, W)` left to right with probability one half."""
    chosen = (torch.rand(len(pixels)) < 0.5).to(pixels.device)
    return torch.where(chosen.view(-1, 1, 1, 1), pixels.flip(3), pixels)


def _augmented(pixels: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    if recipe.shift:
        pixels = shift_randomly(pixels, recipe.shift)
    return flip_randomly(pixels) if recipe.horizontal_flip else pixels
