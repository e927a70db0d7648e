from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.core.dataset import Examples
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification
from nas.training.trainer import resized

FOUR = Classification(class_names=tuple("abcd"))


@pytest.fixture
def images() -> Examples:
    """Images whose channels differ in mean and spread."""
    rng = np.random.default_rng(0)
    levels = rng.normal([[40], [128], [200]], [[10], [60], [30]], (50, 3, 7 * 5))
    pixels = levels.clip(0, 255).astype(np.uint8).reshape(50, 3, 7, 5)
    return Examples(pixels, rng.integers(0, 4, 50), FOUR)


def test_normalisation_has_the_mean_and_deviation_of_every_channel(images: Examples):
    preprocessing = Preprocessing.of(images)
    values = images.pixels.astype(np.float64) / 255
    np.testing.assert_allclose(preprocessing.mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(preprocessing.std, values.std((0, 2, 3)), rtol=1e-12)


def test_normalised_images_have_mean_0_and_deviation_1(images: Examples):
    x = Preprocessing.of(images)(torch.from_numpy(images.pixels))
    assert (x.dtype, x.shape) == (torch.float32, images.pixels.shape)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)


def test_a_constant_channel_does_not_divide_by_zero():
    images = Examples(np.full((4, 1, 3, 3), 7, np.uint8), np.zeros(4, np.int64), FOUR)
    x = Preprocessing.of(images)(torch.from_numpy(images.pixels))
    assert torch.isfinite(x).all()
    assert x.abs().max() < 1e-5


def test_resized_images_keep_their_mean_and_round_to_whole_pixels():
    constant = torch.full((2, 3, 28, 20), 1.7)
    torch.testing.assert_close(resized(constant, 0.5), torch.full((2, 3, 14, 10), 1.7))
    assert resized(constant, 0.36).shape[2:] == (10, 7)
    assert resized(constant, 0.001).shape[2:] == (1, 1)
    assert resized(constant, 1.0) is constant


def test_reducing_does_not_alias():
    """Stripes of one pixel become grey, where plain interpolation would keep or lose them."""
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 1, 32, 32)
    inside = resized(stripes, 0.25)[..., 1:-1]
    assert (inside - 0.5).abs().max() < 0.05
