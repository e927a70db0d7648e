"""Images on their way into a network: normalisation and augmentation on whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nas.core.dataset import Examples


@dataclass(frozen=True)
class Normalisation:
    """Maps bytes to values of mean 0 and standard deviation 1 per channel.

    Attributes:
        mean: Per channel, of pixels scaled to 0..1.
        std: Per channel, of pixels scaled to 0..1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Examples) -> Normalisation:
        """Take the mean and standard deviation of every channel of `images`."""
        # Counting the 256 byte values is exact and needs no copy of the images in floating point.
        mean, std = [], []
        levels = torch.arange(256, dtype=torch.float64) / 255
        for channel in range(images.pixels.shape[1]):
            values = torch.from_numpy(images.pixels[:, channel].reshape(-1).copy())
            share = torch.bincount(values, minlength=256).double() / values.numel()
            centre = float((share * levels).sum())
            mean.append(centre)
            std.append(max(float((share * (levels - centre) ** 2).sum()) ** 0.5, 1 / 255))
        return cls(tuple(mean), tuple(std))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise `(N, C, H, W)` uint8 to float32."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.float() / 255 - mean) / std


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
