"""Training examples, by batch, on the device where a network is trained."""

from __future__ import annotations

import math

import numpy as np
import torch

from nas.core.dataset import Examples
from nas.training.memory import free_bytes


class Batches:
    """The pixels of training examples, as batches on a device.

    On a GPU all images lie where they take half of what is free there at most. Else, batches are
    gathered in pinned memory and copied while the GPU still computes. A processor has images where
    they are, in memory or in a file.
    """

    def __init__(self, images: Examples, device: torch.device, memory_share: float) -> None:
        """Put the images on the device, or leave them.

        Args:
            images: Training split.
            device: Of the network.
            memory_share: See `nas.training.memory.free_bytes`.
        """
        self._images, self._device = images, device
        self._held: torch.Tensor | None = None
        if lie_on(device, images, memory_share):
            self._held = torch.from_numpy(images.pixels[:]).to(device)

    def pixels(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the pixels `(n, C, H, W)` of the examples at `positions`, which lie on the host.

        Raises:
            DataError: They are in a file that cannot be read.
        """
        if self._held is not None:
            return self._held.index_select(0, positions.to(self._device))  # by whole images
        gathered = torch.from_numpy(self._images.pixels[positions.numpy()])
        if self._device.type == "cpu":
            return gathered
        return gathered.pin_memory().to(self._device, non_blocking=True)


def lie_on(device: torch.device, images: Examples, memory_share: float) -> bool:
    """Return whether a training holds all of `images` on `device`; see `Batches`."""
    if device.type == "cpu":
        return isinstance(images.pixels, np.ndarray)
    return math.prod(images.pixels.shape) <= free_bytes(device, memory_share) / 2
