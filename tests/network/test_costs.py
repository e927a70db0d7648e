from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from whole_costs import count


class Applied(nn.Module):
    """A network of some layers and a function of the image and the layers."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self.layers)


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def test_convolution_by_hand():
    costs = count(nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2)), (3, 32, 24))
    assert costs.params == 3 * 8 * 25 + 8
    assert costs.macs == 16 * 12 * 8 * 3 * 25
    assert costs.model_bytes == 4 * costs.params
    (layer,) = costs.layers
    assert (layer.kind, layer.params, layer.macs) == ("conv5", costs.params, costs.macs)
    assert (layer.input_values, layer.output_values) == (3 * 32 * 24, 8 * 16 * 12)


def test_linear_by_hand():
    costs = count(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), (3, 4, 4))
    assert (costs.params, costs.macs) == (490, 480)
    assert [layer.kind for layer in costs.layers] == ["flatten", "linear"]


def test_buffers_are_part_of_the_model():
    costs = count(nn.Sequential(conv(2, 4), nn.BatchNorm2d(4)), (2, 8, 8))
    assert costs.params == 2 * 4 * 9 + 8
    assert costs.model_bytes == 4 * (costs.params + 8) + 8  # and a 64-bit count of batches


@pytest.mark.parametrize(("groups", "kind"), [(1, "conv3"), (2, "grouped3"), (8, "depthwise3")])
def test_kinds_of_convolutions(groups: int, kind: str):
    costs = count(nn.Sequential(conv(8, 8, groups=groups)), (8, 4, 4))
    assert costs.layers[0].kind == kind
    assert costs.macs == 16 * 8 * (8 // groups) * 9


def test_the_kind_of_a_convolution_along_the_height():
    costs = count(nn.Conv2d(8, 8, (3, 1), padding=(1, 0)), (8, 4, 4))
    assert [layer.kind for layer in costs.layers] == ["conv3x1"]


def test_layers_come_in_execution_order():
    network = Applied(lambda x, a, b: b(F.relu(a(x))) + x, b=conv(2, 2), a=conv(2, 2, 1))
    kinds = [layer.kind for layer in count(network, (2, 4, 4)).layers]
    assert kinds == ["conv1", "relu", "conv3", "add"]


def test_a_layer_that_is_used_twice_works_twice_and_is_stored_once():
    shared = conv(4, 4)
    costs = count(Applied(lambda x, a: a(a(x)), a=shared), (4, 8, 8))
    assert (costs.params, costs.macs) == (144, 2 * 64 * 144)


def test_against_the_counter_of_pytorch():
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        nn.Conv2d(16, 16, 5, padding=2, groups=16),
        nn.Conv2d(16, 24, 3, padding=1, groups=4),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 7),
    )
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, 33, 21))
    params = sum(p.numel() for p in network.parameters())
    costs = count(network, (3, 33, 21))
    assert (2 * costs.macs, costs.params) == (counter.get_total_flops(), params)


class TestPeakActivations:
    """Liveness by hand, in values of 4 bytes; every image is `(1, 8, 8)`."""

    @staticmethod
    def peak(network: nn.Module) -> int:
        nbytes = count(network, (1, 8, 8)).peak_activation_bytes
        assert nbytes % 4 == 0
        return nbytes // 4

    def test_of_a_chain_are_the_largest_input_and_output(self):
        # 64 -> 256 -> 128 -> 64: the step from 256 to 128 holds most.
        assert self.peak(nn.Sequential(conv(1, 4), conv(4, 2), conv(2, 1))) == 256 + 128

    def test_of_a_chain_do_not_grow_with_what_works_in_place(self):
        layers = [nn.BatchNorm2d(4), nn.ReLU6(), nn.Dropout(), nn.Identity(), nn.Hardswish()]
        assert self.peak(nn.Sequential(conv(1, 4), *layers, conv(4, 2))) == 256 + 128

    def test_of_a_residual_hold_the_shortcut(self):
        # At the addition: the shortcut, the branch and their sum.
        network = Applied(lambda x, a, b: (y := a(x)) + b(y), a=conv(1, 4), b=conv(4, 4))
        assert self.peak(network) == 3 * 256

    def test_of_a_long_branch_hold_the_shortcut_throughout(self):
        # In the second layer of the branch: the shortcut 64, its input 512, its output 256.
        network = Applied(
            lambda x, a, b, c: x + c(b(a(x))), a=conv(1, 8), b=conv(8, 4), c=conv(4, 1)
        )
        assert self.peak(network) == 64 + 512 + 256

    def test_what_is_read_again_cannot_be_overwritten(self):
        network = Applied(lambda x, a, r: (y := a(x)) + r(y), a=conv(1, 4), r=nn.ReLU())
        assert self.peak(network) == 3 * 256

    def test_of_a_layer_that_does_nothing_are_never_counted(self):
        network = Applied(lambda x, a, r: (y := a(x)) + r(y), a=conv(1, 4), r=nn.Identity())
        assert self.peak(network) == 2 * 256


class Attention(nn.Module):
    """A class token, and self-attention by one matrix for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        query, key, value = self.qkv(x).chunk(3, 2)
        return F.scaled_dot_product_attention(query, key, value)


def test_attention_by_hand():
    costs = count(Attention(), (15, 8))
    assert costs.params == 8 + 8 * 24 + 24
    assert sum(layer.params for layer in costs.layers) == costs.params
    # 16 tokens: the projection, then queries by keys and weights by values.
    assert costs.macs == 16 * 8 * 24 + 2 * 16 * 16 * 8
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        Attention().eval()(torch.zeros(1, 15, 8))
    assert 2 * costs.macs == counter.get_total_flops()


def test_the_parts_of_a_split_are_one_copy():
    # As in ONNX Runtime: 3 * 128 before the split and as much after it.
    assert count(Attention(), (15, 8)).peak_activation_bytes == 4 * (3 * 128 + 3 * 128)


def test_reshaping_moves_nothing():
    network = Applied(lambda x, a: a(x).reshape(1, -1).unsqueeze(0), a=conv(1, 4))
    assert count(network, (1, 8, 8)).peak_activation_bytes == 4 * (64 + 256)


def test_nothing_random_is_drawn():
    state = torch.get_rng_state()
    count(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Identity()), (1, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)
