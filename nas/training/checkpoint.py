"""Where a training was interrupted, as safetensors: what comes after is as if it had not been.

A checkpoint holds the network, the momentum, the position in the schedule, what is left of the
epoch's order of images, and the states of the random streams. It holds numbers only, so reading
one from elsewhere runs nothing.
"""

from __future__ import annotations

import safetensors.torch
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

_NETWORK, _MOMENTUM = "network.", "momentum."


def take(
    network: nn.Module, optimizer: torch.optim.SGD, schedule: LRScheduler, order: torch.Tensor
) -> bytes:
    """Return a checkpoint.

    Args:
        network: In training.
        optimizer: Of its parameters.
        schedule: Of the optimizer's learning rates; its `last_epoch` counts training steps.
        order: Examples of the current epoch, in the order in which it sees them.
    """
    tensors = {f"{_NETWORK}{name}": value for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        if (momentum := state.get("momentum_buffer")) is not None:
            tensors[f"{_MOMENTUM}{index}"] = momentum
    tensors["order"] = order
    tensors["step"] = torch.tensor(schedule.last_epoch)
    tensors["rates"] = torch.tensor(schedule.get_last_lr(), dtype=torch.float64)
    tensors["random"] = torch.get_rng_state()
    device = next(network.parameters()).device
    if device.type == "cuda":
        tensors["random_cuda"] = torch.cuda.get_rng_state(device)
    return safetensors.torch.save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})


def restore(
    checkpoint: bytes, network: nn.Module, optimizer: torch.optim.SGD, schedule: LRScheduler
) -> torch.Tensor:
    """Put a training that has just been set up, and the random streams, where `take` saw them.

    Args:
        checkpoint: Of an equal network, optimizer and schedule.
        network: Changed in place.
        optimizer: Changed in place.
        schedule: Changed in place.

    Returns:
        The current epoch's order of images.
    """
    tensors = safetensors.torch.load(checkpoint)
    network.load_state_dict(_with_prefix(tensors, _NETWORK))
    momentum = {int(i): {"momentum_buffer": t} for i, t in _with_prefix(tensors, _MOMENTUM).items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": momentum})
    step, rates = int(tensors["step"]), tensors["rates"].tolist()
    # A schedule counts its own construction as a step.
    position = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
    schedule.load_state_dict({**schedule.state_dict(), **position})
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    torch.set_rng_state(tensors["random"])
    device = next(network.parameters()).device
    if device.type == "cuda" and "random_cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random_cuda"], device)
    return tensors["order"]


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    found = {name: value for name, value in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}
