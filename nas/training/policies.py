"""TrivialAugment and RandAugment of whole batches, by operations that are those of Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

_STRENGTHS = 30
"""The largest strength of both papers. The least is 0."""


@dataclass(frozen=True, kw_only=True)
class _Policy:
    """How often images are changed, how strongly, and what the largest strength means.

    Attributes:
        operations: Changes of every image, one after the other.
        strength: From 0 to `_STRENGTHS`; `None` for a random one.
        shear: Tangent of the angle.
        translate: Share of the side.
        translate_px: Bound of that, in pixels.
        rotate: Degrees.
        enhance: Difference of the factor of Pillow's `ImageEnhance` from 1.
        posterize: Bits that are set to 0.
    """

    operations: int
    strength: int | None
    shear: float
    translate: float
    translate_px: float
    rotate: float
    enhance: float
    posterize: float


_POLICIES = {
    "trivial": _Policy(
        operations=1,
        strength=None,
        shear=0.99,
        translate=1.0,
        translate_px=32,
        rotate=135,
        enhance=0.99,
        posterize=6,
    ),
    "rand": _Policy(
        operations=2,
        strength=9,
        shear=0.3,
        translate=150 / 331,
        translate_px=math.inf,
        rotate=30,
        enhance=0.9,
        posterize=4,
    ),
}


def changed_by(policy: str, pixels: torch.Tensor) -> torch.Tensor:
    """Change every image by random operations, whose random numbers are torch's on the CPU.

    Operations and ranges are those of torchvision's `TrivialAugmentWide` and `RandAugment`, taken
    from the papers (Mueller and Hutter, ICCV 2021, wide space; Cubuk et al., 2020). One differs:
    `trivial` moves by up to 32 pixels, but not by more than the side of an image.

    Args:
        policy: `trivial` or `rand`.
        pixels: `(n, c, h, w)` uint8. Only images of 3 channels have colours to change.

    Returns:
        uint8 of the same shape. What comes from outside of an image is black.
    """
    for _ in range(_POLICIES[policy].operations):
        pixels = _changed_once(pixels, _POLICIES[policy])
    return pixels


def _changed_once(pixels: torch.Tensor, policy: _Policy) -> torch.Tensor:
    count, device = len(pixels), pixels.device
    # Images of the same operation are put side by side: first those of the 5 affine operations,
    # then those of the 8 in `changes`, then those that stay as they are.
    kinds, order = torch.randint(14, (count,)).sort(stable=True)
    if policy.strength is None:
        strengths = torch.randint(_STRENGTHS + 1, (count,)).double() / _STRENGTHS
    else:
        strengths = torch.full((count,), policy.strength / _STRENGTHS, dtype=torch.float64)
    signed = strengths * (torch.randint(2, (count,)) * 2 - 1)
    order = order.to(device)
    pixels = pixels.index_select(0, order)
    ends = torch.bincount(kinds, minlength=14).cumsum(0).tolist()
    if affine := ends[4]:
        matrices = _matrices(kinds[:affine], signed[:affine], policy, *pixels.shape[2:])
        pixels[:affine] = transform(pixels[:affine], matrices)
    factors = 1 + policy.enhance * signed
    bits = 8 - (policy.posterize * strengths).round()
    thresholds = 255 - 255 * strengths
    values = torch.stack((factors, bits, thresholds)).to(device, torch.float32)
    factors, bits, thresholds = values.unbind()
    changes: tuple[tuple[Callable[..., torch.Tensor], *tuple[torch.Tensor, ...]], ...] = (
        (brightness, factors),
        (saturation, factors),
        (contrast, factors),
        (sharpness, factors),
        (posterize, bits),
        (solarize, thresholds),
        (autocontrast,),
        (equalize,),
    )
    for (change, *arguments), start, end in zip(changes, ends[4:12], ends[5:13], strict=True):
        if start < end:
            part = slice(start, end)
            pixels[part] = change(pixels[part], *(argument[part] for argument in arguments))
    return torch.empty_like(pixels).index_copy_(0, order, pixels)


def _matrices(
    kinds: torch.Tensor, signed: torch.Tensor, policy: _Policy, height: int, width: int
) -> torch.Tensor:
    """Return `(n, 6)` matrices of kinds 0 to 4: shear x, y, translate x, y, rotate."""

    def of(kind: int, values: torch.Tensor) -> torch.Tensor:
        return torch.where(kinds == kind, values, 0.0)

    pixels = [min(policy.translate * side, policy.translate_px) for side in (width, height)]
    angle = of(4, -torch.deg2rad(policy.rotate * signed))
    sine, cosine = angle.sin(), angle.cos()
    x, y = width / 2, height / 2
    columns = (
        cosine,
        sine + of(0, policy.shear * signed),
        of(2, (pixels[0] * signed).trunc()) + x - cosine * x - sine * y,
        of(1, policy.shear * signed) - sine,
        cosine,
        of(3, (pixels[1] * signed).trunc()) + y + sine * x - cosine * y,
    )
    return torch.stack(columns, 1)


def transform(pixels: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Move every image as Pillow's `Image.transform` does with `AFFINE` and `NEAREST`.

    Args:
        pixels: `(n, c, h, w)` uint8, of sides below 16384.
        matrices: `(n, 6)` float64 `(a, b, c, d, e, f)` on the CPU: the pixel at `(x, y)` becomes
            that at `(a x + b y + c, d x + e y + f)`, or black where there is none.
    """
    count, channels, height, width = pixels.shape
    # Pillow computes in 16 bits after the point, from the centres of the pixels.
    a, b, c, d, e, f = matrices.unbind(1)
    fixed = torch.stack((a, b, c + (a + b) / 2, d, e, f + (d + e) / 2))
    fixed = (fixed * 65536 + 0.5).floor().to(pixels.device, torch.int32)
    a, b, c, d, e, f = fixed[..., None].unbind()
    x = torch.arange(width, dtype=torch.int32, device=pixels.device)
    y = torch.arange(height, dtype=torch.int32, device=pixels.device)
    columns = (a * x + c)[:, None, :] + (b * y)[:, :, None]
    rows = (d * x + f)[:, None, :] + (e * y)[:, :, None]
    # Every image gets a black frame, which holds the pixels that there are not.
    columns = columns.bitwise_right_shift_(16).clamp_(-1, width)
    rows = rows.bitwise_right_shift_(16).clamp_(-1, height)
    source = rows.mul_(width + 2).add_(columns).add_(width + 3).view(count, 1, -1).long()
    framed = F.pad(pixels, (1, 1, 1, 1)).flatten(2)
    return framed.gather(2, source.expand(-1, channels, -1)).view(pixels.shape)


def brightness(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageEnhance.Brightness` by `(n,)` factors."""
    return _blended(torch.zeros((), device=pixels.device), pixels.float(), factors)


def saturation(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Change `(n, 3, h, w)` uint8 as Pillow's `ImageEnhance.Color` by `(n,)` factors.

    Images of another number of channels have no colours and stay as they are.
    """
    return _blended(_grey(pixels), pixels.float(), factors) if pixels.shape[1] == 3 else pixels


def contrast(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageEnhance.Contrast` by `(n,)` factors."""
    grey = _grey(pixels)
    count = grey[0].numel()
    sums = grey.sum((1, 2, 3), dtype=torch.int64)
    means = (2 * sums + count) // (2 * count)
    return _blended(means.float().view(-1, 1, 1, 1), pixels.float(), factors)


def sharpness(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageEnhance.Sharpness` by `(n,)` factors."""
    x = pixels.float()
    sums = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    sums = sums[..., :-2] + sums[..., 1:-1] + sums[..., 2:]
    smooth = x.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.mul_(4).add_(sums).div_(13).round_()
    return _blended(smooth, x, factors)


def posterize(pixels: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageOps.posterize` to `(n,)` bits."""
    masks = torch.bitwise_left_shift(255, 8 - bits.to(torch.int32)) & 255
    return pixels & masks.to(torch.uint8).view(-1, 1, 1, 1)


def solarize(pixels: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageOps.solarize` by `(n,)` thresholds."""
    return torch.where(pixels < thresholds.view(-1, 1, 1, 1), pixels, ~pixels)


def autocontrast(pixels: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageOps.autocontrast`."""
    flat = pixels.flatten(2).double()
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    # A number over a tensor would be a product with a rounded reciprocal.
    scale = torch.where(high > low, torch.full_like(high, 255) / (high - low), 1.0)
    stretched = (flat * scale).add_(torch.where(high > low, -low * scale, 0.0))
    return stretched.clamp_(0, 255).to(torch.uint8).view(pixels.shape)


def equalize(pixels: torch.Tensor) -> torch.Tensor:
    """Change `(n, c, h, w)` uint8 as Pillow's `ImageOps.equalize`."""
    levels = pixels.flatten(2).long()
    counts = levels.new_zeros(*levels.shape[:2], 256)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    # The last level that occurs is left out of the step.
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - last) // 255
    below = counts.cumsum(2) - counts
    table = (below + step // 2) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), torch.arange(256, device=pixels.device))
    return table.to(torch.uint8).gather(2, levels).view(pixels.shape)


def _grey(pixels: torch.Tensor) -> torch.Tensor:
    """Return `(n, 1, h, w)` float32, whole numbers: Pillow's mode `L`.

    Images of 1 channel are grey. Those of 2, 4 or more have the mean of their channels.
    """
    if pixels.shape[1] == 3:
        # All these numbers are whole and below 2**24, so that float32 has them exactly.
        red, green, blue = pixels.float().unbind(1)
        grey = red * 19595 + green * 38470 + blue * 7471 + 32768
        return grey.div_(65536).floor_()[:, None]
    return pixels.float().mean(1, keepdim=True).round_()


def _blended(low: torch.Tensor, pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return uint8 `low + factor (pixels - low)`, cut off as Pillow's `Image.blend` does."""
    changed = (pixels - low).mul_(factors.view(-1, 1, 1, 1)).add_(low)
    return changed.clamp_(0, 255).to(torch.uint8)
