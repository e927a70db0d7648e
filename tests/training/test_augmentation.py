from __future__ import annotations

import math
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from nas.core.recipe import AugmentationSettings
from nas.training.augmentation import Mix, augmented, mixed

OFF = AugmentationSettings()
EVERYTHING = replace(OFF, flip=True, shift=0.2, crop=0.3, policy="rand", colour=0.4, erase=0.5)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("flip", [None, False])
def test_with_everything_off_nothing_is_changed_or_drawn(flip: bool | None):
    pixels = noise(4, 3, 8, 8)
    before = torch.get_rng_state()
    assert augmented(pixels, replace(OFF, flip=flip)) is pixels
    images, mix = mixed(pixels, replace(OFF, flip=flip))
    assert images is pixels
    assert mix is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
def test_images_are_mirrored_and_shifted_uniformly_and_repeat_their_edges(flip: bool, shift: float):
    height, width = 10, 5
    own = noise(2, height, width)
    pixels = augmented(own.repeat(6000, 1, 1, 1), replace(OFF, flip=flip, shift=shift))
    assert (pixels.shape, pixels.dtype) == ((6000, 2, height, width), torch.uint8)
    down, right = round(shift * height), round(shift * width)
    possible = {}
    for mirrored in (False, True)[: 1 + flip]:
        image = np.flip(own.numpy(), 2) if mirrored else own.numpy()
        padded = np.pad(image, [(0, 0), (down, down), (right, right)], mode="edge")
        for y in range(2 * down + 1):
            for x in range(2 * right + 1):
                part = padded[:, y : y + height, x : x + width]
                possible[part.tobytes()] = len(possible)
    assert len(possible) == (1 + flip) * (2 * down + 1) * (2 * right + 1)
    found = [possible[image.numpy().tobytes()] for image in pixels]
    mean = 6000 / len(possible)
    counts = np.bincount(found, minlength=len(possible))
    assert np.abs(counts - mean).max() <= 5 * math.sqrt(mean * (1 - 1 / len(possible)))


def test_crops_are_of_uniform_area_and_of_the_shapes_of_the_inception_networks():
    """Bilinear interpolation is exact on ramps, of which one tells rows and one columns."""
    height, width, count = 100, 200, 1500
    ramps = torch.stack(
        (torch.arange(height)[:, None].expand(-1, width), torch.arange(width).expand(height, -1))
    ).to(torch.uint8)
    pixels = augmented(ramps.repeat(count, 1, 1, 1), replace(OFF, crop=0.25)).double()
    shares, starts = [], []
    for side, line in ((height, pixels[:, 0, :, 0]), (width, pixels[:, 1, 0, :])):
        share = (line[:, -2] - line[:, 1]) / (side - 3)
        shares.append(share)
        starts.append((line[:, 1] + 0.5) / side - share * 1.5 / side)
    tolerance = 1.5 / height
    area, ratio = shares[0] * shares[1], shares[0] / shares[1]
    assert area.min() > 0.25 - tolerance
    assert area.max() < 1 + tolerance
    counts = np.histogram(area, 5, (0.25, 1))[0]
    assert np.abs(counts - count / 5).max() < 5 * math.sqrt(count / 5)
    assert 3 / 4 - 3 * tolerance < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 4 / 3 + 3 * tolerance
    assert abs(ratio.log().mean()) < 0.02
    for share, start in zip(shares, starts, strict=True):
        assert start.min() > -tolerance
        assert (start + share).max() < 1 + tolerance
        place = (start / (1 - share))[share < 0.7]
        assert abs(place.mean() - 0.5) < 0.03
    assert torch.equal(pixels[:, 0, :, 0], pixels[:, 0, :, -1])


def test_crops_of_nearly_the_whole_are_nearly_the_whole():
    pixels = noise(8, 3, 12, 9)
    difference = augmented(pixels, replace(OFF, crop=0.9999)).int() - pixels.int()
    assert difference.abs().max() <= 1


def test_colour_changes_by_up_to_its_share_and_to_the_same_extent_in_an_image():
    pixels = torch.full((4000, 3, 2, 2), 100, dtype=torch.uint8)
    levels = augmented(pixels, replace(OFF, colour=0.3)).flatten(1)
    # A constant grey image has neither contrast nor saturation: what is left is the brightness.
    assert torch.equal(levels.amin(1), levels.amax(1))
    assert (int(levels.min()), int(levels.max())) in {(a, b) for a in (70, 71) for b in (129, 130)}
    assert abs(levels.float().mean() - 99.5) < 1.5
    one = noise(3, 8, 8)
    images = augmented(one.repeat(2000, 1, 1, 1), replace(OFF, colour=0.3)).float()
    assert abs(images.mean() - one.float().mean()) < 3
    spread = images.std((1, 2, 3)) / one.float().std()
    assert 0.35 < spread.min() < 0.65
    assert spread.max() > 1.15


@pytest.mark.parametrize("size", [(40, 40), (30, 60), (8, 8)])
def test_erased_are_rectangles_of_2_to_33_percent_filled_with_noise(size: tuple[int, int]):
    height, width = size
    pixels = noise(4000, 4, height, width)
    before = pixels.clone()
    erased = augmented(pixels, replace(OFF, erase=0.25))
    assert torch.equal(pixels, before)
    changed = (erased != pixels).any(1)
    images = changed.flatten(1).any(1)
    assert abs(images.float().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    changed = changed[images]
    rows, columns = changed.any(2), changed.any(1)
    assert torch.equal(changed, rows[:, :, None] & columns[:, None, :])
    heights, widths = rows.sum(1).double(), columns.sum(1).double()
    for spans, lengths in ((rows, heights), (columns, widths)):
        starts = spans.int().argmax(1)
        ends = spans.shape[1] - spans.flip(1).int().argmax(1)
        assert torch.equal((ends - starts).double(), lengths)
    # One side is rounded to whole pixels last.
    slack = torch.maximum(heights, widths) / 2 / (height * width)
    area = heights * widths / (height * width)
    assert (area >= 0.02 - slack).all()
    assert (area <= 0.33 + slack).all()
    assert abs(area.mean() - 0.175) < 0.015
    if height * width > 64:
        ratio = (heights / height) / (widths / width)
        assert 0.2 < ratio.min() < 0.45
        assert 2.2 < ratio.max() < 5
        assert abs(ratio.log().mean()) < 0.1
    values = erased[images].permute(0, 2, 3, 1)[changed]
    counts = torch.bincount(values.flatten().long(), minlength=256).double()
    assert (counts - counts.mean()).abs().max() < 6 * counts.mean().sqrt()


def test_mixup_is_the_weighted_mean_of_two_images():
    pixels = noise(16, 3, 6, 5)
    images, mix = mixed(pixels, replace(OFF, mixup=0.4))
    assert isinstance(mix, Mix)
    assert (images.dtype, mix.partner.dtype) == (torch.float32, torch.int64)
    assert sorted(mix.partner.tolist()) == list(range(16))
    expected = mix.share * pixels.double() + (1 - mix.share) * pixels[mix.partner].double()
    torch.testing.assert_close(images.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(12, 12), (5, 9), (1, 7), (1, 1)])
def test_the_share_of_cutmix_is_that_of_the_pixels_in_one_rectangle(size: tuple[int, int]):
    pixels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 2, *size)
    shares = []
    for _ in range(300):
        images, mix = mixed(pixels, replace(OFF, cutmix=1.0))
        assert mix is not None
        assert images.dtype == torch.uint8
        other = images != pixels
        moved = mix.partner != torch.arange(8)
        if moved.any():
            own = 1 - other[moved].double().mean((1, 2, 3))
            torch.testing.assert_close(own, torch.full_like(own, mix.share), atol=1e-12, rtol=0)
            inside = other[moved][0, 0]
            box = inside.any(1)[:, None] & inside.any(0)
            assert torch.equal(inside, box)
        assert (images == torch.where(other, pixels[mix.partner], pixels)).all()
        shares.append(mix.share)
    assert len(set(shares)) >= min(math.prod(size), 6)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 8.0])
def test_shares_of_mixup_have_the_moments_of_the_beta_distribution(alpha: float):
    pixels = noise(2, 1, 1, 1)
    mixes = [mixed(pixels, replace(OFF, mixup=alpha))[1] for _ in range(3000)]
    shares = np.array([mix.share for mix in mixes if mix])
    variance = 1 / (4 * (2 * alpha + 1))
    assert len(shares) == 3000
    assert abs(shares.mean() - 0.5) < 5 * math.sqrt(variance / 3000)
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_a_share_of_the_batches_is_mixed_and_by_one_way_as_often_as_by_the_other():
    pixels = noise(4, 1, 8, 8)
    settings = replace(OFF, mixup=0.2, cutmix=1.0, mixed=0.6)
    ways = []
    for _ in range(2000):
        images, mix = mixed(pixels, settings)
        assert mix is not None or images is pixels
        ways.append("none" if mix is None else "mixup" if images.is_floating_point() else "cutmix")
    for way, share in (("none", 0.4), ("mixup", 0.3), ("cutmix", 0.3)):
        assert abs(ways.count(way) / 2000 - share) < 5 * math.sqrt(share * (1 - share) / 2000)
    assert mixed(pixels, replace(settings, mixed=0.0))[1] is None


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_the_same_seed_gives_the_same_images_and_another_seed_others(policy: str):
    pixels = noise(32, 3, 16, 16)
    settings = replace(EVERYTHING, policy=policy, cutmix=1.0)

    def images(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return mixed(augmented(pixels, settings), settings)[0]

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))


@pytest.mark.parametrize(
    "part",
    [
        {"flip": True},
        {"shift": 0.2},
        {"crop": 0.3},
        {"policy": "trivial"},
        {"policy": "rand"},
        {"colour": 0.4},
        {"erase": 0.5},
        {"mixup": 0.2},
        {"cutmix": 1.0},
    ],
    ids=str,
)
def test_as_much_is_drawn_on_any_device_and_for_any_images(part: dict[str, float]):
    """The meta device has shapes only, so that nothing can be drawn there or depend on pixels."""
    settings = replace(OFF, **part)
    states = []
    for pixels in (noise(16, 3, 8, 8), torch.zeros(16, 3, 8, 8, dtype=torch.uint8)):
        for device in ("cpu", "meta"):
            torch.manual_seed(0)
            images, mix = mixed(augmented(pixels.to(device), settings), settings)
            assert images.device.type == device
            assert mix is None or mix.partner.device.type == device
            states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    settings=st.builds(
        AugmentationSettings,
        flip=st.sampled_from([None, False, True]),
        shift=st.floats(0, 0.99),
        crop=st.floats(1e-6, 1),
        policy=st.sampled_from(["none", "trivial", "rand"]),
        colour=st.floats(0, 1),
        erase=st.floats(0, 1),
        mixup=st.sampled_from([0, 1e-9, 0.2, 1e9]),
        cutmix=st.sampled_from([0, 1e-9, 1.0, 1e9]),
        mixed=st.floats(0, 1),
    ),
    level=st.sampled_from([0, 255, None]),
    seed=st.integers(0, 1000),
)
def test_any_settings_keep_shape_and_range(
    shape: tuple[int, int, int, int], settings: AugmentationSettings, level: int | None, seed: int
):
    torch.manual_seed(seed)
    pixels = noise(*shape) if level is None else torch.full(shape, level, dtype=torch.uint8)
    before = pixels.clone()
    images = augmented(pixels, settings)
    assert (images.shape, images.dtype) == (pixels.shape, torch.uint8)
    result, mix = mixed(images, settings)
    assert result.shape == pixels.shape
    assert ((result >= 0) & (result <= 255.001)).all()
    assert mix is None or 0 <= mix.share <= 1
    assert torch.equal(pixels, before)
    floating, _ = mixed(images.double(), settings)
    assert floating.dtype == torch.float64


@pytest.mark.parametrize("shape", [(8, 8), (9, 16)])
def test_batches_may_lie_in_any_order_in_memory(shape: tuple[int, int]):
    pixels = noise(8, 3, *shape)
    torch.manual_seed(3)
    expected = augmented(pixels, EVERYTHING)
    torch.manual_seed(3)
    last = pixels.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmented(last, EVERYTHING), expected)
