"""The memory that a training needs, and that there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import psutil
import torch
from torch import nn

from nas.core.errors import CandidateFailure, counted
from nas.core.host import host_memory, usable_memory
from nas.core.recipe import Recipe
from nas.network.shared import SharedWeights
from nas.network.trainable import TrainableNetwork, on_copied_buffers
from nas.training.precision import arithmetic, precision_of

FIX = "lower recipe.batch_size, raise recipe.compute.accumulate or set recipe.compute.recompute"


def free_bytes(device: torch.device, share: float) -> int:
    """Return the bytes that this process may still take on a device.

    Args:
        device: A GPU, or the processor for the host's memory.
        share: Of the whole memory that this process may have, in (0, 1]; what others have taken
            beyond theirs is not free.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        cached = torch.cuda.memory_reserved(device) - allocated
        return int(min(free + cached, share * total - allocated))
    memory = psutil.Process().memory_info()
    own = memory.rss - getattr(memory, "shared", 0)
    return int(min(usable_memory(), share * host_memory() - own))


def check_memory(needed: int, free: int, recipe: Recipe, processes: int = 1) -> None:
    """Check that a training fits.

    Raises:
        CandidateFailure: It does not.
    """
    if needed > free:
        images = counted(_images_at_once(recipe, processes), "image")
        line = f"needs about {_text(needed)} for {images} at a time, {_text(max(free, 0))} are free"
        raise CandidateFailure("out_of_memory", f"{line}; {FIX}")


def training_bytes(
    network: TrainableNetwork | SharedWeights,
    recipe: Recipe,
    input_shape: tuple[int, int, int],
    processes: int = 1,
) -> int:
    """Return about how many bytes a training takes on the network's device, beside the weights.

    These are the gradients, the optimizer's moments, averaged weights, and at the end of the
    forward pass everything that autograd has saved, with the largest activation's gradients on top.
    What autograd saves is counted in forward passes of two and of three images, since it is a
    constant, such as weights in half precision, and a part for every image.

    Args:
        network: On its device; left as it is.
        recipe: How it is to be trained.
        input_shape: `(channels, height, width)`.
        processes: Among which every batch is divided, each with a device of its own.
    """
    weights: int = sum(parameter.nbytes for parameter in network.parameters())
    state: int = sum(tensor.nbytes for tensor in network.state_dict().values())
    moments = int(recipe.optimizer.momentum > 0) if recipe.optimizer.name == "sgd" else 2
    copies = (recipe.ema > 0) + (recipe.patience is not None)
    few, more = (_saved_bytes(network, recipe, input_shape, count) for count in (2, 3))
    activations: int = few + (more - few) * (_images_at_once(recipe, processes) - 2)
    return weights * (1 + moments) + state * copies + activations


def _images_at_once(recipe: Recipe, processes: int) -> int:
    return -(-recipe.batch_size // (recipe.compute.accumulate * processes))


def _saved_bytes(
    network: TrainableNetwork | SharedWeights,
    recipe: Recipe,
    input_shape: tuple[int, int, int],
    count: int,
) -> int:
    """Return the bytes of activations at the peak of a training step of `count` images."""
    device = next(network.parameters()).device
    images = torch.zeros(count, *input_shape, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def forward() -> list[torch.Tensor]:
        with arithmetic(device, precision_of(recipe.compute.precision, device)):
            return network.all_outputs(images)

    training, recompute = network.training, network.recompute
    cuda = [device] if device.type == "cuda" else []
    network.train()
    try:
        with torch.random.fork_rng(devices=cuda), on_copied_buffers(network):
            network.recompute = False
            blocks = _saved_by_block(network, forward)
            largest = 2 * max(map(max, blocks.values()))
            if not recipe.compute.recompute:
                return sum(map(sum, blocks.values())) + largest
            # The blocks' inputs, and what one block saves when it is computed again.
            network.recompute = True
            inputs = sum(map(sum, _saved_by_block(network, forward).values()))
            return inputs + max(map(sum, blocks.values())) + largest
    finally:
        network.train(training)
        network.recompute = recompute


def _saved_by_block(
    network: nn.Module, forward: Callable[[], Iterable[torch.Tensor]]
) -> dict[str, list[int]]:
    """Return the bytes of every memory area that autograd saves, by the block that is running."""
    own = {t.untyped_storage().data_ptr() for t in network.state_dict(keep_vars=True).values()}
    saved: dict[int, torch.Tensor] = {}
    blocks: dict[str, list[int]] = defaultdict(list)
    running = ""

    def save(tensor: torch.Tensor) -> torch.Tensor:
        area = tensor.untyped_storage()
        if area.data_ptr() not in own and area.data_ptr() not in saved:
            saved[area.data_ptr()] = tensor  # held, so that no other gets its place
            blocks[running].append(area.nbytes())
        return tensor

    def run(name: str) -> None:
        nonlocal running
        running = name

    hooks = [
        block.register_forward_pre_hook(lambda *_, name=name: run(name))
        for name, block in network.named_children()
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            outputs = list(forward())
        del outputs
    finally:
        for hook in hooks:
            hook.remove()
    return blocks


def _text(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
