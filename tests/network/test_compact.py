"""Layers whose weights are rounded, zero or shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    DefaultWeightOnlyQuantizer,
)
from torch import nn

from nas.core.recipe import Recipe
from nas.network.compact import (
    BLOCK,
    CompactLayer,
    calibrating,
    compact,
    compressed_bytes,
    growing,
    packed_4_bits,
    quantised_by_channel,
    quantised_in_blocks,
    without_quantisation,
)


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(40, 8)]


def compacted(layer: nn.Module, **how: object) -> CompactLayer:
    made = compact(layer, **how)
    assert isinstance(made, CompactLayer)
    return made


def test_four_bits_are_those_of_onnx_runtime() -> None:
    weight = torch.randn(5, 2 * BLOCK + 8, generator=torch.Generator().manual_seed(0))
    weight[2, :BLOCK] = 0
    outputs, inputs = weight.shape
    blocks = -(-inputs // BLOCK)
    configuration = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=4)
    theirs = DefaultWeightOnlyQuantizer(configuration)
    packed, scales, _ = theirs.qbits_block_quant(np.ascontiguousarray(weight.numpy().T))
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(outputs, blocks, BLOCK).astype(int) - 8
    expected = (codes * scales[..., None]).reshape(outputs, -1)[:, :inputs]
    np.testing.assert_allclose(quantised_in_blocks(weight).numpy(), expected, rtol=1e-6, atol=1e-7)
    own, own_scales = packed_4_bits(weight)
    full = inputs // BLOCK  # the rest of the last block is of no account
    np.testing.assert_array_equal(own[:, :full], packed[:, :full])
    np.testing.assert_allclose(own_scales, scales, rtol=1e-6)


def test_eight_bits_have_a_scale_for_every_output() -> None:
    for layer in layers():
        weight = layer.weight.detach()
        rounded = quantised_by_channel(weight)
        largest = weight.flatten(1).abs().amax(1)
        steps = rounded.flatten(1) / (largest / 127)[:, None]
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        error = (rounded - weight).flatten(1).abs().amax(1)
        assert (error <= largest / 127 / 2 * 1.001).all()
        # Scaling an output scales its rounded weights, so that a normalisation can be folded in.
        factors = torch.tensor([-2.0, 0.5, 3, 1, 1, -1, 0.25, 8]).view(-1, *[1] * (weight.ndim - 1))
        torch.testing.assert_close(quantised_by_channel(weight * factors), rounded * factors)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_the_smallest_weights_are_zero(share: float) -> None:
    for layer in layers():
        before = layer.weight.detach().clone()
        weight = compacted(layer, sparsity=share).deployed_weight()
        zero = weight == 0
        assert zero.sum() == round(share * weight.numel())
        assert before[zero].abs().max() <= before[~zero].abs().min()
        assert torch.equal(weight[~zero], before[~zero])


def test_two_of_four_weights_stay() -> None:
    weight = compacted(nn.Linear(40, 8), sparsity="2:4").deployed_weight()
    assert ((weight != 0).view(8, 10, 4).sum(2) == 2).all()


def test_weights_share_values_after_calibration() -> None:
    for layer in layers():
        before = layer.weight.detach().clone()
        made = compacted(layer, clusters=4)
        assert torch.equal(made.deployed_weight(), before)
        with calibrating(made) as rounds:
            assert not rounds
        weight = made.deployed_weight().detach()
        assert len(weight.unique()) <= 4
        assert ((weight - before) ** 2).mean() < before.var() / 3


def test_ranges_are_those_behind_weights_that_are_zero_or_shared() -> None:
    for how in ({"clusters": 4}, {"sparsity": 0.9}):
        first = compacted(nn.Linear(40, 8), **how)
        network = nn.Sequential(first, compacted(nn.Linear(8, 8), precision="int8"))
        images = torch.randn(64, 40)
        with calibrating(network):
            network(images)
        assert network[1].input_quantisation.high == network[0](images).max()


def test_weights_are_deployed_as_they_were_trained() -> None:
    for layer in layers():
        made = compacted(layer, clusters=4, sparsity=0.5)
        with calibrating(made):
            pass
        with torch.no_grad():  # as a training does
            made.weight += 0.1 * torch.randn_like(made.weight)
        trained = made.deployed_weight().detach().clone()
        with calibrating(made):
            pass
        assert torch.equal(made.deployed_weight(), trained)


@pytest.mark.parametrize(
    "how",
    [{"precision": "int8"}, {"precision": "int4_weights"}, {"sparsity": 0.5}, {"clusters": 4}],
)
def test_gradients_reach_the_full_weights(how: dict[str, object]) -> None:
    plain, made = nn.Linear(40, 8), nn.Linear(40, 8)
    made.load_state_dict(plain.state_dict())
    made = compacted(made, **how)
    images = torch.randn(16, 40)
    with calibrating(made):
        made(images)
    made(images).sum().backward()
    plain(images).sum().backward()
    torch.testing.assert_close(made.weight.grad, plain.weight.grad, atol=0.2, rtol=0.1)


def test_inputs_are_quantised_within_the_range_that_was_seen() -> None:
    made = compacted(nn.Linear(40, 8), precision="int8").eval()
    with calibrating(made) as rounds:
        assert rounds
        made(torch.tensor([[-1.0] * 20 + [2.0] * 20]))
    rounded = made.quantised_input(torch.linspace(-5, 5, 40))
    step = 3 / 255
    assert rounded.min() == pytest.approx(-1, abs=step)
    assert rounded.max() == pytest.approx(2, abs=step)
    assert made.quantised_input(torch.zeros(3)).abs().max() == 0
    with without_quantisation(made):
        assert made.quantised_input(torch.tensor([0.1234])).item() == pytest.approx(0.1234)


def test_fewer_bits_and_zeros_take_less_room() -> None:
    torch.manual_seed(0)
    sizes = {}
    for name, how in {
        "fp32": {},
        "half zero": {"sparsity": 0.5},
        "16 values": {"clusters": 16},
        "int8": {"precision": "int8_weights"},
        "int4": {"precision": "int4_weights"},
        "int4, 0.9 zero": {"precision": "int4_weights", "sparsity": 0.9},
    }.items():
        layer = compact(nn.Linear(512, 64), **how)
        with calibrating(layer):
            pass
        sizes[name] = compressed_bytes(layer)
    whole = 4 * 512 * 64
    assert sizes["fp32"] < 1.01 * whole + 4 * 64
    assert sizes["half zero"] < 0.65 * whole
    assert sizes["16 values"] < 0.2 * whole
    assert sizes["int8"] < 0.26 * whole
    assert sizes["int4"] < 0.14 * whole
    assert sizes["int4, 0.9 zero"] < 0.07 * whole


def test_zero_weights_grow_in_number() -> None:
    recipe = Recipe(sparse_from=0.5)
    shares = [recipe.sparsity(progress) for progress in (0.0, 0.05, 0.25, 0.499, 0.5, 1.0)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[2] == 1 - 0.5**3  # Zhu and Gupta, equation 1
    assert shares[4:] == [1, 1]
    assert Recipe().sparsity(0.0) == 1
    layer = compact(nn.Linear(100, 10), sparsity=0.9)
    with growing(layer, 0.5):
        assert (layer.deployed_weight() == 0).sum() == 450
    assert (layer.deployed_weight() == 0).sum() == 900
