"""Modules as people write them: a removed channel is as if nothing read it.

What is left of a network must compute what the whole network computes without the weights that read
what was removed, whatever functions lie between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import search_spaces
from nas.compression.base import Base
from nas.core.errors import ConfigError
from nas.network.onnx import export_onnx
from nas.network.quantisation import quantise
from nas.network.space import SearchSpace

SHAPE, SIDE = (3, 16, 16), 4


@fx.wrap
def stochastic_depth(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Of torchvision, whose functions `torch.fx` does not see through."""
    return x if not training or not p else x * (torch.rand(len(x), 1, 1, 1) > p) / (1 - p)


def space_of(module: nn.Module, folder: Path, **choices: object) -> SearchSpace:
    base = Base.of(module, SHAPE).save(folder)
    chosen = {"channels": (1.0, 0.5), "precisions": ("fp32",), **choices}
    return search_spaces.get("compressed", input_shape=SHAPE, num_classes=10, base=base, **chosen)


class Images(nn.Module):
    """Any functions between two convolutions."""

    def __init__(self, between: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 8, 3, padding=1)
        self.between, self.layers = between, nn.ModuleList(layers)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        x = self.between(self.first(x) if scale is None else scale * x, *self.layers)
        x = self.second(x).relu().mean((2, 3))
        y = self.head(torch.flatten(x, 1))
        torch._assert(torch.isfinite(y).all(), "finite")
        return y


class Tokens(nn.Module):
    """Any functions between two linear layers on 16 tokens of 16 values."""

    def __init__(self, between: Callable[..., torch.Tensor], inputs: int = 16) -> None:
        super().__init__()
        self.patch, self.first = nn.Conv2d(3, 8, SIDE, SIDE), nn.Linear(8, 16)
        self.between, self.flattened = between, inputs > 16
        self.second, self.head = nn.Linear(inputs, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.patch(x).flatten(2).transpose(1, 2))
        x = self.head(F.gelu(self.second(self.between(x))))
        return x if self.flattened else x.mean(1)


class Features(nn.Module):
    """Any functions of 12 features of an image."""

    def __init__(self, between: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(3, 12, 3, 2), between
        self.hidden, self.head = nn.Linear(12, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(self.between(self.first(x).relu())))


class ConvNeXtBlock(nn.Module):
    """Linear layers on images whose channels are the last axis, with a scale a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, SIDE, SIDE)
        self.depth, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.LayerNorm(12)
        self.up, self.act, self.down = nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)
        self.scale, self.head = nn.Parameter(torch.rand(12, 1, 1)), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.down(self.act(self.up(y))).permute(0, 3, 1, 2)
        return self.head((x + stochastic_depth(self.scale * y, 0.1, self.training)).mean((2, 3)))


def attention(values: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return attention of 8 heads of 2 values over tokens, whose values are changed before."""

    def function(x: torch.Tensor) -> torch.Tensor:
        heads = x.reshape(x.shape[0], x.shape[1], 8, 2).transpose(1, 2)
        y = F.scaled_dot_product_attention(heads, heads, values(heads))
        return y.transpose(1, 2).flatten(2)

    return function


def gated(x: torch.Tensor, squeeze: nn.Module, excite: nn.Module, gate: nn.Module) -> torch.Tensor:
    n, channels, _, _ = x.shape
    y = excite(squeeze(F.adaptive_avg_pool2d(x, 1).view(n, channels)).relu())
    return x * gate(y).view(n, channels, 1, 1).expand_as(x)


def halves_exchanged(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat((second, first), 1)


class OwnConvolution(nn.Conv2d):
    """Adds nothing."""


class Scale(nn.Module):
    """Multiplies by a number, which it reads twice."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.number * torch.sigmoid(self.number))


MODULES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "flattened tokens": (lambda: Tokens(lambda x: x.relu().flatten(1), 256), 2),
    "flattened pairs": (
        lambda: Features(lambda x: x.mean((2, 3)).view(-1, 2, 6).transpose(1, 2).flatten(1)),
        1,
    ),
    "pooled tokens": (lambda: Tokens(lambda x: F.max_pool2d(x, 3, 1, 1)), 1),
    "gated tokens": (lambda: Tokens(lambda x: x.mean(2, keepdim=True) * x), 1),
    "heads": (lambda: Tokens(attention(lambda v: v)), 2),
    "heads, some negative": (
        lambda: Tokens(attention(lambda v: torch.cat((v.chunk(2, 1)[0], -v.chunk(2, 1)[1]), 1))),
        1,
    ),
    "heads, exchanged": (lambda: Tokens(attention(halves_exchanged)), 1),
    "one gate a channel": (
        lambda: Images(gated, nn.Linear(12, 4), nn.Linear(4, 12), nn.Sigmoid()),
        3,
    ),
    "functional dropout": (lambda: Images(lambda x: F.dropout(x.tanh(), 0.1, False)), 2),
    "a mask": (lambda: Images(lambda x: x.masked_fill(x > 0.5, 0.0)), 1),
    "a number as parameter": (lambda: Images(lambda x, scale: scale(x), Scale()), 1),
    "zeros on the device": (
        lambda: Images(lambda x: x + torch.zeros(1, 1, 8, 8, device=x.device)),
        1,
    ),
    "squeezed": (lambda: Features(lambda x: F.adaptive_avg_pool2d(x, 1).squeeze()), 2),
    "a reshape that changes nothing": (lambda: Features(lambda x: x.sum((2, 3)).view(-1, 12)), 2),
    "concatenated features": (
        lambda: Features(lambda x: torch.cat((x.amax((2, 3)), x.mean((2, 3))), 1)[:, :12]),
        1,
    ),
    "a layer of one's own": (lambda: Images(lambda x, own: own(x), OwnConvolution(12, 12, 1)), 3),
    "channels last": (ConvNeXtBlock, 1),
}
"""What makes a module, and how many genes of channels and heads it has."""


@pytest.mark.parametrize("name", MODULES)
def test_a_removed_channel_is_as_if_nothing_read_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, genes = MODULES[name]
    module, images = make().eval(), torch.randn(4, *SHAPE)
    space = space_of(module, tmp_path)
    assert len(space.genes) == genes
    unchanged = space.references()["base"]
    with torch.no_grad():
        torch.testing.assert_close(space.build(unchanged).eval()(images), module(images))
        for genotype in [*np.eye(genes, dtype=int).tolist(), [1] * genes]:
            kept = space._indices(space.canonical(genotype))
            whole = space.build(unchanged).eval()
            for layer in space._layers:
                if layer.has_weights and layer.arguments.get("groups", 1) == 1:
                    weight = whole.get_submodule(layer.name).first.weight
                    gone = torch.ones(weight.shape[1], dtype=torch.bool)
                    gone[space._index(space._channels.read[layer.name], kept)] = False
                    weight[:, gone] = 0
            smaller = space.build(genotype).eval()
            torch.testing.assert_close(smaller(images), whole(images), rtol=1e-4, atol=1e-5)
            counted = space.costs([genotype])["params_m"][0]
            assert counted == sum(p.numel() for p in smaller.parameters()) / 1e6


def test_layers_that_stay_are_counted_where_others_are_quantised(tmp_path: Path) -> None:
    def between(x: torch.Tensor, other: nn.Module, flat: nn.Module) -> torch.Tensor:
        x = F.conv2d(x, other.weight, other.bias)
        return flat(x.flatten(2)).unflatten(2, (8, 8))

    module = Images(between, nn.Conv2d(12, 12, 1), nn.Conv1d(12, 12, 3, padding=1)).eval()
    space = space_of(module, tmp_path, channels=(1.0,), precisions=("fp32", "int8"))
    genotype = [1] * len(space.genes)
    layers = space.deployment(genotype)["layers"]
    assert layers == ("int8", "fp32", "fp32", "int8", "int8")
    file = export_onnx(space.build(genotype).eval(), SHAPE, tmp_path / "full.onnx")
    quantise(file, SHAPE, tmp_path / "small.onnx", None, layers)


def test_a_linear_layer_before_batch_normalisation_is_quantised(tmp_path: Path) -> None:
    hidden = nn.Linear(3 * 16 * 16, 12), nn.BatchNorm1d(12), nn.ReLU()
    module = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(12, 10)).eval()
    space = space_of(module, tmp_path, channels=(1.0,), precisions=("fp32", "int8"))
    layers = space.deployment([1, 0])["layers"]
    assert layers == ("int8", "fp32")
    file = export_onnx(space.build([1, 0]).eval(), SHAPE, tmp_path / "full.onnx")
    quantise(file, SHAPE, tmp_path / "small.onnx", None, layers)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (
            nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(256, 2, 8)),
            "write attention with functions",
        ),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))),
            "weights of .* are computed",
        ),
    ],
)
def test_what_is_refused_says_why(module: nn.Module, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Base.of(module, SHAPE)
