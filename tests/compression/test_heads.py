"""Attention heads of traced modules, in the ways in which attention is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import search_spaces
from nas.compression.base import Base
from nas.compression.channels import Channels
from nas.compression.heads import attention_heads

SHAPE, WIDTH, HEADS = (1, 28, 28), 16, 4


class Attention(nn.Module):
    """Queries, keys and values from one layer, each behind the other, as timm has it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        heads = self.qkv(x).reshape(n, tokens, 3, HEADS, width // HEADS)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(seen.reshape(n, tokens, width))


class Interleaved(Attention):
    """Queries, keys and values of a head beside each other, as in BLOOM."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, HEADS, 3, width // HEADS).unbind(3)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        scores = (q @ k.transpose(-2, -1) / math.sqrt(width // HEADS)).softmax(dim=-1)
        return self.out((scores @ v).transpose(1, 2).reshape(n, tokens, -1))


class Separate(nn.Module):
    """A layer each, views, and softmax as a layer, as Hugging Face transformers has it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.softmax = nn.Softmax(dim=-1)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1), HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / 2.0
        mixed = torch.matmul(self.softmax(scores), v).permute(0, 2, 1, 3).contiguous()
        return self.out(mixed.view(mixed.size()[:-2] + (WIDTH,)))  # noqa: RUF005


class Biased(Attention):
    """With a parameter for every head, without which its functions would be others."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        heads = self.qkv(x).reshape(n, tokens, 3, HEADS, width // HEADS)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1) + self.bias).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).reshape(n, tokens, width))


class Network(nn.Module):
    """Residual attention between patches and a linear layer; there are `tokens` x `tokens`."""

    def __init__(self, attention: Callable[[], nn.Module], tokens: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, WIDTH, 28 // tokens, 28 // tokens)
        self.norm, self.attention = nn.LayerNorm(WIDTH), attention()
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(self.norm(x))).mean(1))


# 2 x 2 tokens are as many as heads, and 4 x 4 as many as channels.
@pytest.mark.parametrize("tokens", [2, 4, 7])
@pytest.mark.parametrize("attention", [Attention, Interleaved, Separate])
def test_a_network_without_heads_is_as_if_they_gave_zeros(
    attention: type[nn.Module], tokens: int, tmp_path: object
) -> None:
    torch.manual_seed(0)
    network = Network(attention, tokens).eval()
    with torch.no_grad():  # the second and the last head matter least
        gone = torch.tensor([4, 5, 6, 7, 12, 13, 14, 15])
        network.attention.out.weight[:, gone] *= 0.01
    folder = Base.of(network, SHAPE).save(tmp_path)
    space = search_spaces.get(
        "compressed",
        input_shape=SHAPE,
        num_classes=10,
        base=str(folder),
        channels=(1.0, 0.5),
        precisions=("fp32",),
    )
    assert len(space.genes) == 1
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(space.build([0]).eval()(images), network(images))
        network.attention.out.weight[:, gone] = 0
        halved = space.build([1]).eval()
        torch.testing.assert_close(halved(images), network(images), rtol=1e-5, atol=1e-5)
    removed = 2 * 4 * (3 * (WIDTH + 1) + WIDTH)  # heads, values of each, weights of a value
    assert sum(p.numel() for p in halved.parameters()) == (
        sum(p.numel() for p in network.parameters()) - removed
    )


def test_heads_of_transformers_of_the_spaces_are_found() -> None:
    space = search_spaces.get(
        "vit", input_shape=SHAPE, num_classes=10, heads=(3,), depths=(2,), resolutions=(28,)
    )
    base = Base.of(space.build(space.sample(np.random.default_rng(0))), SHAPE)
    found = attention_heads(base.layers)
    assert [heads.number for heads in found] == [3, 3]


def test_what_depends_on_all_heads_keeps_them() -> None:
    base = Base.of(Network(Biased, 2), SHAPE)
    assert not attention_heads(base.layers)
    assert not Channels(base.layers, SHAPE).removable()
