from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from nas.training import policies
from nas.training.policies import changed_by, transform

COUNT = 200


def images_of(channels: int, height: int, width: int) -> torch.Tensor:
    """Images of different ranges of levels, the first of which are constant."""
    rng = np.random.default_rng(0)
    shape = (COUNT, channels, height, width)
    ends = rng.integers(0, 256, (2, COUNT, 1, 1, 1))
    ends[0, :50], ends[1, :50] = 0, 255
    pixels = ends[0] + (ends[1] - ends[0]) * rng.random(shape)
    pixels[:3] = pixels[:3, :1, :1, :1]
    return torch.from_numpy(pixels.round().astype(np.uint8))


def as_pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def by_pillow(
    pixels: torch.Tensor, change: Callable[[Image.Image, float], Image.Image], values: torch.Tensor
) -> torch.Tensor:
    pairs = zip(pixels, values.tolist(), strict=True)
    return torch.stack([from_pillow(change(as_pillow(image), value)) for image, value in pairs])


SIZES = [(1, 28, 28), (3, 32, 32), (3, 9, 20), (3, 8, 8), (3, 2, 5), (1, 1, 1), (3, 1, 4)]
FACTORS = torch.cat([1 + 0.99 * torch.linspace(-1, 1, 61), torch.rand(COUNT - 61) * 2])
BITS = 1 + torch.arange(COUNT) % 8


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(
    ("ours", "pillows", "values"),
    [
        (policies.brightness, lambda i, v: ImageEnhance.Brightness(i).enhance(v), FACTORS),
        (policies.saturation, lambda i, v: ImageEnhance.Color(i).enhance(v), FACTORS),
        (policies.contrast, lambda i, v: ImageEnhance.Contrast(i).enhance(v), FACTORS),
        (policies.sharpness, lambda i, v: ImageEnhance.Sharpness(i).enhance(v), FACTORS),
        (policies.posterize, lambda i, v: ImageOps.posterize(i, int(v)), BITS),
        (policies.solarize, ImageOps.solarize, torch.linspace(0, 255, COUNT)),
        (lambda p, _: policies.autocontrast(p), lambda i, _: ImageOps.autocontrast(i), FACTORS),
        (lambda p, _: policies.equalize(p), lambda i, _: ImageOps.equalize(i), FACTORS),
    ],
    ids=[
        "brightness",
        "saturation",
        "contrast",
        "sharpness",
        "posterize",
        "solarize",
        "autocontrast",
        "equalize",
    ],
)
def test_operations_are_those_of_pillow(
    shape: tuple[int, int, int],
    ours: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    pillows: Callable[[Image.Image, float], Image.Image],
    values: torch.Tensor,
):
    pixels = images_of(*shape)
    assert torch.equal(ours(pixels, values), by_pillow(pixels, pillows, values))


@pytest.mark.parametrize("shape", [*SIZES, (3, 60, 224)], ids=str)
def test_affine_transforms_are_those_of_pillow(shape: tuple[int, int, int]):
    pixels = images_of(*shape)
    matrices = torch.randn(COUNT, 6, dtype=torch.float64)
    matrices[:, [2, 5]] *= shape[1]
    of_pillow = [
        from_pillow(i.transform(i.size, Image.Transform.AFFINE, matrix))
        for i, matrix in zip(map(as_pillow, pixels), matrices.tolist(), strict=True)
    ]
    assert torch.equal(transform(pixels, matrices), torch.stack(of_pillow))


def changes(
    image: Image.Image,
    strengths: list[int],
    *,
    shear: float,
    translate: tuple[float, float],
    rotate: float,
    enhance: float,
    posterize: float,
) -> Iterator[tuple[str, Image.Image]]:
    """Yield what a policy makes of an image, every result as often as it is probable."""

    def affine(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    for strength in strengths:
        for s in (strength / 30, -strength / 30):
            yield "shear x", affine(1, shear * s, 0, 0, 1, 0)
            yield "shear y", affine(1, 0, 0, shear * s, 1, 0)
            yield "translate x", affine(1, 0, math.trunc(translate[0] * s), 0, 1, 0)
            yield "translate y", affine(1, 0, 0, 0, 1, math.trunc(translate[1] * s))
            yield "rotate", image.rotate(rotate * s)
            for name in ("Brightness", "Color", "Contrast", "Sharpness"):
                yield name, getattr(ImageEnhance, name)(image).enhance(1 + enhance * s)
            yield "posterize", ImageOps.posterize(image, 8 - round(posterize * abs(s)))
            yield "solarize", ImageOps.solarize(image, 255 - 255 * abs(s))
            yield "autocontrast", ImageOps.autocontrast(image)
            yield "equalize", ImageOps.equalize(image)
            yield "identity", image


def check_frequencies(pixels: torch.Tensor, possible: list[tuple[str, Image.Image]]) -> None:
    names: dict[bytes, set[str]] = {}
    weights: Counter[bytes] = Counter()
    for name, image in possible:
        names.setdefault(image.tobytes(), set()).add(name)
        weights[image.tobytes()] += 1
    expected: Counter[frozenset[str]] = Counter()
    for key, weight in weights.items():
        expected[frozenset(names[key])] += weight
    found = Counter(frozenset(names[as_pillow(image).tobytes()]) for image in pixels)
    for group, weight in expected.items():
        mean = len(pixels) * weight / len(possible)
        assert abs(found[group] - mean) < 5 * math.sqrt(mean), (group, found[group], mean)


@pytest.mark.parametrize(
    ("shape", "translate"),
    [((3, 40, 36), (32, 32)), ((1, 28, 20), (20, 28)), ((3, 8, 8), (8, 8))],
    ids=str,
)
def test_trivial_augment_has_the_operations_and_the_ranges_of_the_paper(
    shape: tuple[int, int, int], translate: tuple[int, int]
):
    image = images_of(*shape)[60]
    torch.manual_seed(0)
    pixels = changed_by("trivial", image.repeat(4000, 1, 1, 1))
    possible = list(
        changes(
            as_pillow(image),
            list(range(31)),
            shear=0.99,
            translate=translate,
            rotate=135,
            enhance=0.99,
            posterize=6,
        )
    )
    check_frequencies(pixels, possible)
    seen = {as_pillow(image).tobytes() for image in pixels}
    assert len(seen) > 0.9 * len({image.tobytes() for _, image in possible})


def test_rand_augment_has_two_operations_of_strength_9_of_30():
    image = images_of(3, 24, 33)[60]
    torch.manual_seed(0)
    pixels = changed_by("rand", image.repeat(4000, 1, 1, 1))

    def once(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
        translate = (150 / 331 * 33, 150 / 331 * 24)
        return changes(
            image, [9], shear=0.3, translate=translate, rotate=30, enhance=0.9, posterize=4
        )

    possible = [(f"{a}, {b}", y) for a, x in once(as_pillow(image)) for b, y in once(x)]
    check_frequencies(pixels, possible)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_images_of_other_channels_have_no_colours_and_the_mean_as_their_grey(channels: int):
    pixels = images_of(channels, 9, 7)
    assert torch.equal(policies.saturation(pixels, FACTORS), pixels)
    grey = policies.contrast(pixels, torch.zeros(COUNT))
    assert (grey.flatten(1).amin(1) == grey.flatten(1).amax(1)).all()
    means = pixels.float().mean((1, 2, 3))
    assert (grey[:, 0, 0, 0] - means).abs().max() < 1
    every = [policies.equalize(pixels), policies.autocontrast(pixels)]
    for channel in range(channels):
        own = pixels[:, channel : channel + 1]
        alone = [policies.equalize(own), policies.autocontrast(own)]
        assert all(
            torch.equal(a[:, channel : channel + 1], b) for a, b in zip(every, alone, strict=True)
        )
