"""The planned arena of TensorFlow Lite Micro; what it says itself is in `tests/devices`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from small_spaces import small_mobilenet
from torch import nn

import search_spaces
from nas.network.arena import ALIGNMENT, aligned, arena_trace
from nas.network.costs import trace_module
from nas.network.space import SearchSpace


def peak(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> int:
    """Return the bytes alive at once in a chain of layers."""
    return arena_trace(trace_module(nn.Sequential(*layers), [shape])).peak_values([False])


def conv(kernel: int, stride: int, padding: int) -> nn.Conv2d:
    return nn.Conv2d(16, 16, kernel, stride, padding)


def test_buffers_are_aligned() -> None:
    assert [aligned(n) for n in (0, 1, ALIGNMENT, ALIGNMENT + 1)] == [0, 16, 16, 32]
    assert aligned(np.array([17])).tolist() == [32]
    assert peak([nn.Conv2d(1, 1, 1)], (1, 3, 3)) == 2 * 16


def test_an_activation_of_its_own_operator_has_its_own_output() -> None:
    whole = 16 * 8 * 8
    chain = [conv(1, 1, 0), nn.BatchNorm2d(16)]
    assert peak([*chain, nn.ReLU6()], (16, 8, 8)) == 2 * whole
    assert peak([*chain, nn.Hardswish()], (16, 8, 8)) == 2 * whole
    # A sigmoid and a product: the input, its sigmoid and the output.
    assert peak([*chain, nn.SiLU()], (16, 8, 8)) == 3 * whole


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side", "padded_side"),
    [
        (3, 1, 1, 8, 0),  # `SAME` in TensorFlow too
        (3, 2, 1, 8, 10),  # TensorFlow would pad the end alone
        (3, 2, 1, 9, 0),
        (5, 2, 2, 8, 12),
        (3, 1, 0, 8, 0),
        (1, 2, 0, 8, 0),
    ],
)
def test_padding_that_tensorflow_lacks_is_a_copy(
    kernel: int, stride: int, padding: int, side: int, padded_side: int
) -> None:
    outputs = (side + 2 * padding - kernel) // stride + 1
    read, padded, result = (aligned(16 * n * n) for n in (side, padded_side, outputs))
    expected = max(read + padded, padded + result) if padded else read + result
    assert peak([conv(kernel, stride, padding)], (16, side, side)) == expected


def test_an_average_adds_up_in_32_bits() -> None:
    assert peak([nn.AdaptiveAvgPool2d(1)], (16, 8, 8)) == 16 * 8 * 8 + 16 + 4 * 16


@pytest.mark.parametrize("name", ["mobilenet", "darts"])
def test_a_space_plans_as_a_trace_of_the_whole_network_does(name: str) -> None:
    space = search_spaces.get(name, input_shape=(3, 16, 16), num_classes=4)
    rng = np.random.default_rng(0)
    genotypes = [space.sample(rng) for _ in range(3)]
    wholes = [trace_module(space.build(genotype), [(3, 16, 16)]) for genotype in genotypes]
    expected = [arena_trace(whole).peak_values([False]) for whole in wholes]
    assert (1024 * space.arena_kb(genotypes)).tolist() == expected


def test_8_bits_need_at_least_a_quarter_of_32() -> None:
    space: SearchSpace = small_mobilenet()
    genotypes = space.samples(50, np.random.default_rng(0))
    counted_kb = space.costs(genotypes)["peak_activation_mb"].to_numpy() * 1e6 / 4 / 1024
    assert (space.arena_kb(genotypes) >= counted_kb).all()
    assert space.arena_kb([]).shape == (0,)
