"""Random changes of whole batches of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nas.core.recipe import AugmentationSettings


@dataclass(frozen=True)
class Mix:
    """How the images of a batch were mixed.

    Attributes:
        partner: Position `(n,)` in the batch of the image that each was mixed with.
        share: Of the own target in the loss; the partner's has the rest.
    """

    partner: torch.Tensor
    share: float


def augmented(pixels: torch.Tensor, settings: AugmentationSettings) -> torch.Tensor:
    """Return `(n, c, h, w)` uint8 pixels with random changes."""
    if settings.flip:
        pixels = flip_randomly(pixels)
    largest = round(settings.shift * min(pixels.shape[2:]))
    return shift_randomly(pixels, largest) if largest else pixels


def mixed(pixels: torch.Tensor, settings: AugmentationSettings) -> tuple[torch.Tensor, Mix | None]:
    """Return the pixels as they are."""
    del settings
    return pixels, None


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
