"""Random changes of the training images, a batch at a time, on the device where they lie.

All random numbers are drawn from torch's global stream on the CPU, whatever the device, and how
many does not depend on the images, so that a training continues exactly from a checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nas.core.recipe import AugmentationSettings
from nas.training.policies import brightness, changed_by, contrast, saturation


def augmented(pixels: torch.Tensor, settings: AugmentationSettings) -> torch.Tensor:
    """Change every image by itself: flip, shift, crop, policy, colour, erase, in this order.

    Args:
        pixels: `(n, c, h, w)` uint8, which stay as they are.
        settings: What to change.

    Returns:
        uint8 of the same shape; `pixels` itself where nothing is to be changed.
    """
    if settings.flip or settings.shift:
        pixels = _flipped_and_shifted(pixels, settings.flip, settings.shift)
    if settings.crop < 1:
        pixels = _cropped(pixels, settings.crop)
    if settings.policy != "none":
        pixels = changed_by(settings.policy, pixels)
    if settings.colour:
        factors = (1 + settings.colour * (torch.rand(3, len(pixels)) * 2 - 1)).to(pixels.device)
        pixels = saturation(contrast(brightness(pixels, factors[0]), factors[1]), factors[2])
    if settings.erase:
        pixels = _erased(pixels, settings.erase)
    return pixels


@dataclass(frozen=True)
class Mix:
    """With what the images of a batch are mixed.

    Attributes:
        partner: `(n,)` int64, the position in the batch of the other image.
        share: Of an image's own target; that of the other image has the rest.
    """

    partner: torch.Tensor
    share: float


def mixed(pixels: torch.Tensor, settings: AugmentationSettings) -> tuple[torch.Tensor, Mix | None]:
    """Mix every image with another one of the batch, by mixup or CutMix.

    Mixup is `share own + (1 - share) other`. CutMix puts a rectangle of the other image in the
    place of the own one; `share` is what is left, to the pixel. One share, drawn from
    Beta(alpha, alpha), is that of the whole batch.

    Args:
        pixels: `(n, c, h, w)` uint8 or floating point, which stay as they are.
        settings: Of which `mixup`, `cutmix` and `mixed` are used. Where both alphas are above 0,
            either is as probable.

    Returns:
        The mixed images, of the same shape, and how they were mixed. Mixup gives float32 for uint8.
        The images as they are and `None` where they are not mixed.
    """
    alphas = [(_mixup, settings.mixup), (_cutmix, settings.cutmix)]
    used = [(mix, alpha) for mix, alpha in alphas if alpha]
    if not used or (settings.mixed < 1 and torch.rand(()).item() >= settings.mixed):
        return pixels, None
    mix, alpha = used[int(torch.randint(len(used), ()))]
    partner = torch.randperm(len(pixels)).to(pixels.device)
    images, share = mix(pixels, partner, _beta(alpha))
    return images, Mix(partner, share)


def _beta(alpha: float) -> float:
    """Draw from Beta(alpha, alpha).

    That is `x / (x + y)` of two draws from Gamma(alpha). These are `u ** (1 / alpha)` times draws
    from Gamma(alpha + 1), of which the logarithms are taken: of a small alpha, both would be 0.
    """
    gammas = torch.distributions.Gamma(torch.tensor(alpha + 1, dtype=torch.float64), 1.0)
    x, y = gammas.sample((2,)).log() + torch.rand(2, dtype=torch.float64).log() / alpha
    return float((x - y).sigmoid())


def _mixup(pixels: torch.Tensor, partner: torch.Tensor, share: float) -> tuple[torch.Tensor, float]:
    x = pixels if pixels.is_floating_point() else pixels.float()
    return x * share + x.index_select(0, partner) * (1 - share), share


def _cutmix(
    pixels: torch.Tensor, partner: torch.Tensor, share: float
) -> tuple[torch.Tensor, float]:
    """Paste a rectangle of every partner, which is cut off where it reaches out of the image."""
    rows, columns = (_pasted_span(side, share) for side in pixels.shape[2:])
    images = pixels.clone()
    pasted = images[:, :, rows, columns]
    pasted.copy_(pixels[:, :, rows, columns].index_select(0, partner))
    return images, 1 - pasted.numel() / images.numel()


def _pasted_span(side: int, share: float) -> slice:
    length = round(side * math.sqrt(1 - share))
    start = int(torch.randint(side, ())) - length // 2
    return slice(max(start, 0), min(start + length, side))


def _flipped_and_shifted(pixels: torch.Tensor, flip: bool, shift: float) -> torch.Tensor:
    """Mirror half of the images, and shift all of them, repeating their edges."""
    count, channels, height, width = pixels.shape
    rows, columns = (_shifted_positions(count, side, shift) for side in (height, width))
    if flip:
        columns = torch.where(torch.rand(count, 1) < 0.5, width - 1 - columns, columns)
    # Two steps, rows first, take half the time of one that indexes every pixel.
    rows = rows[:, None] + height * torch.arange(count * channels).view(count, channels, 1)
    lines = pixels.reshape(-1, width).index_select(0, rows.view(-1).to(pixels.device))
    columns = columns.to(pixels.device)[:, None].expand(count, channels * height, width)
    return lines.view(columns.shape).gather(2, columns).view(pixels.shape)


def _shifted_positions(count: int, side: int, shift: float) -> torch.Tensor:
    """Return `(count, side)` positions of pixels."""
    largest = round(shift * side)
    offsets = torch.randint(-largest, largest + 1, (count, 1))
    return (torch.arange(side) + offsets).clamp_(0, side - 1)


def _random_sides(
    count: int, areas: tuple[float, float], aspect: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw rectangles that fit into an image.

    Areas are uniform; aspect ratios are log-uniform among those that fit at an area. torchvision
    draws both again instead where a rectangle does not fit, so that it has fewer large ones.

    Args:
        count: How many.
        areas: Smallest and largest, as shares of the image's.
        aspect: Largest ratio of height to width, and of width to height, in a square image.

    Returns:
        `(count,)` float64 heights and widths, as shares of the image's.
    """
    area, stretch = torch.rand(2, count, dtype=torch.float64)
    area = areas[0] + (areas[1] - areas[0]) * area
    stretch = (2 * stretch - 1) * (-area.log()).clamp(max=math.log(aspect)) / 2
    side = area.sqrt()
    return (side * stretch.exp()).clamp(max=1), (side / stretch.exp()).clamp(max=1)


def _cropped(pixels: torch.Tensor, smallest: float) -> torch.Tensor:
    """Resize a random rectangle of every image to the whole, bilinearly.

    As `RandomResizedCrop` of torchvision, with a ratio of its sides between 3/4 and 4/3 of the
    image's. The rectangle need not start or end between pixels. It is never larger than the result,
    so that there is nothing to antialias.
    """
    count, _, height, width = pixels.shape
    tall, wide = _random_sides(count, (smallest, 1), 4 / 3)
    rows = _sampled_positions(tall, height).to(pixels.device)[:, :, None].expand(-1, -1, width)
    columns = _sampled_positions(wide, width).to(pixels.device)[:, None].expand(-1, height, -1)
    grid = torch.stack((columns, rows), 3)
    resized = F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
    return resized.round_().to(torch.uint8)


def _sampled_positions(shares: torch.Tensor, side: int) -> torch.Tensor:
    """Return `(n, side)` float32 positions in randomly placed parts of -1 to 1, the whole side."""
    centres = (1 - shares) * (2 * torch.rand_like(shares) - 1)
    places = (2 * torch.arange(side) + 1) / side - 1
    return (centres[:, None] + shares[:, None] * places).float()


def _erased(pixels: torch.Tensor, probability: float) -> torch.Tensor:
    """Fill a rectangle of some images with noise.

    Rectangles have 2 to 33 % of the area, as in timm and torchvision, and a ratio of sides of up to
    1 to 0.3, as in the paper. Of images of a few pixels, that may be none of them.
    """
    height, width = pixels.shape[2:]
    chosen = (torch.rand(len(pixels)) < probability).nonzero()[:, 0]
    tall, wide = _random_sides(len(chosen), (0.02, 0.33), 1 / 0.3)
    rows = (tall * height).round().clamp(min=1)
    # So many that the area is right although the rows are whole ones.
    columns = (tall * height * wide * width / rows).round().clamp(max=width)
    count = int((rows * columns).sum()) * pixels.shape[1]
    inside_rows = _span(rows, height).to(pixels.device)[:, None, :, None]
    inside_columns = _span(columns, width).to(pixels.device)[:, None, None, :]
    chosen = chosen.to(pixels.device)
    part = pixels.index_select(0, chosen)
    mask = (inside_rows & inside_columns).expand_as(part)
    noise = torch.randint(256, (count,), dtype=torch.uint8).to(pixels.device)
    return pixels.index_copy(0, chosen, part.masked_scatter(mask, noise))


def _span(lengths: torch.Tensor, side: int) -> torch.Tensor:
    """Return `(n, side)` truth values: where randomly placed spans of pixels lie."""
    starts = (torch.rand_like(lengths) * (side - lengths + 1)).floor()[:, None]
    place = torch.arange(side)
    return (place >= starts) & (place < starts + lengths[:, None])
