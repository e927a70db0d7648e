"""Layers of vision transformers.

Between them images are `(N, C, H, W)` and tokens `(N, tokens, width)`: the patches row by row,
behind a class token where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.network.module import Dropout, DropPath, SizedLayer
from search_spaces.layers.convolution import InvertedResidual, conv_bn, divisible_by_8

LAYER_NORM_EPS = 1e-6
"""Of ViT and DeiT; PyTorch's own is 1e-5."""


class PatchEmbedding(SizedLayer):
    """Linear map of patches that do not overlap, as a convolution (Dosovitskiy et al., ICLR 2021).

    Images that are not a multiple of the patch are filled up with zeros on the right and below,
    which gives `ceil(side / patch)` patches: as many as stride-2 convolutions give.
    """

    def __init__(self, input_shape: Sequence[int], outputs: int, patch: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.patch = patch
        self.padding = self._to_whole_patches(height, width)
        self.projection = nn.Conv2d(channels, outputs, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, ceil(H / patch), ceil(W / patch))`."""
        padding = self._to_whole_patches(*x.shape[2:]) if self.any_size else self.padding
        if any(padding):
            x = F.pad(x, padding)
        embedded: torch.Tensor = self.projection(x)
        return embedded

    def _to_whole_patches(self, height: int, width: int) -> tuple[int, int, int, int]:
        return 0, -width % self.patch, 0, -height % self.patch


class ConvStem(nn.Module):
    """Convolutions of stride 2 in place of patches (Xiao et al., NeurIPS 2021)."""

    def __init__(self, input_shape: Sequence[int], outputs: int, patch: int) -> None:
        """Build the stem.

        Args:
            input_shape: `(C, H, W)`.
            outputs: Channels of the output.
            patch: By how much the resolution is reduced, a power of 2.
        """
        super().__init__()
        halvings = patch.bit_length() - 1
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for i in reversed(range(max(halvings, 1))):
            hidden = divisible_by_8(outputs / 2**i)
            layers += [*conv_bn(channels, hidden, 3, 2 if halvings else 1), nn.ReLU()]
            channels = hidden
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, ceil(H / patch), ceil(W / patch))`."""
        grid: torch.Tensor = self.layers(x)
        return grid


class InvertedResidualStem(nn.Module):
    """A convolution and inverted residuals below the attention, as in MobileViT or CoAtNet.

    Mehta and Rastegari, ICLR 2022; Dai et al., NeurIPS 2021. Each block halves the resolution.
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, patch: int, expansion: int = 4
    ) -> None:
        """Build the stem.

        Args:
            input_shape: `(C, H, W)`.
            outputs: Channels of the output.
            patch: By how much the resolution is reduced, a power of 2.
            expansion: Of the inverted residuals.
        """
        super().__init__()
        halvings = patch.bit_length() - 1
        blocks = max(halvings - 1, 1)
        channels = divisible_by_8(outputs / 2**blocks)
        layers: list[nn.Module] = [
            *conv_bn(input_shape[0], channels, 3, 2 if halvings else 1),
            nn.Hardswish(),
        ]
        for i in reversed(range(blocks)):
            hidden = divisible_by_8(outputs / 2**i)
            stride = 2 if halvings > 1 else 1
            layers.append(
                InvertedResidual(
                    [channels, 0, 0], hidden, channels * expansion, 3, stride, False, "hswish"
                )
            )
            channels = hidden
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, ceil(H / patch), ceil(W / patch))`."""
        grid: torch.Tensor = self.layers(x)
        return grid


class Tokens(SizedLayer):
    """Turns a grid of patches into a sequence with learned positions and, maybe, a class token.

    On a grid of another size positions are interpolated (Dosovitskiy et al., ICLR 2021, 3.2).
    """

    def __init__(self, input_shape: Sequence[int], class_token: bool) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.grid = (height, width)
        self.token = nn.Parameter(torch.zeros(1, 1, channels)) if class_token else None
        self.positions = nn.Parameter(torch.zeros(1, height * width + class_token, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, H * W, C)`, one token more with a class token."""
        tokens = x.flatten(2).transpose(1, 2)
        if self.token is not None:
            tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1)
        if self.any_size and x.shape[2:] != self.grid:
            return tokens + _interpolated(self.positions, self.grid, x.shape[2:])
        return tokens + self.positions

    def tensors_of(
        self, other: nn.Module, tensors: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        if not isinstance(other, Tokens):
            return tensors
        own, had_token = tensors["positions"], other.token is not None
        if other.grid != self.grid:
            own = _interpolated(own, other.grid, self.grid)
        if had_token != (self.token is not None):
            patches = own[:, own.shape[1] - math.prod(self.grid) :]
            # The first token's own position, zero where there was no such token.
            first = torch.zeros_like(own[:, :1])
            own = patches if had_token else torch.cat([first, patches], 1)
        return {**tensors, "positions": own}


def _interpolated(
    positions: torch.Tensor, grid: Sequence[int], size: Sequence[int]
) -> torch.Tensor:
    """Return positions `(1, tokens, C)` of a grid, and of what is before it, on another grid."""
    before = positions.shape[1] - math.prod(grid)
    images = positions[:, before:].transpose(1, 2).unflatten(2, tuple(grid))  # type: ignore[no-untyped-call]
    patches = F.interpolate(images, tuple(size), mode="bicubic").flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :before], patches], 1)


class RelativePosition(SizedLayer):
    """Learned vectors for how many rows and columns one patch is away from another.

    The vector of a pair is its row distance's plus its column distance's, each clipped; all pairs
    with the class token share one (Shaw et al., NAACL 2018, in two dimensions as in AutoFormer).
    The published code writes out a vector for each of the `tokens ** 2` pairs. As a pair's vector
    is a sum, attention to it is the sum of attention by rows and by columns, which takes
    `height + width` products for each query instead of `height * width`. A distance in patches
    keeps its vector on a smaller grid.
    """

    row_index: torch.Tensor
    column_index: torch.Tensor

    def __init__(
        self, grid: Sequence[int], head_width: int, class_token: bool, max_distance: int
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.class_token = class_token
        # No distance is greater than its side; entry 0 is the class token's.
        limits = [min(max_distance, side) for side in self.grid]
        entries = [2 * limit + 1 + class_token for limit in limits]
        self.rows = nn.Parameter(torch.zeros(entries[0], head_width))
        self.columns = nn.Parameter(torch.zeros(entries[1], head_width))
        for name, side, limit in zip(("row", "column"), self.grid, limits, strict=True):
            places = torch.arange(side)
            distances = (places - places[:, None]).clamp(-limit, limit)
            index = distances + limit + class_token
            self.register_buffer(f"{name}_index", index, persistent=False)

    def scores(self, queries: torch.Tensor) -> torch.Tensor:
        """Map queries `(N, heads, tokens, head_width)` to products `(N, heads, tokens, tokens)`."""
        patches = queries[:, :, 1:] if self.class_token else queries
        grid = self._grid_of(patches.shape[2]) if self.any_size else self.grid
        by_row, by_column = self._vectors(grid)
        patches = patches.unflatten(2, grid)  # type: ignore[no-untyped-call]
        vertical = patches @ by_row.transpose(1, 2)
        horizontal = (patches.transpose(2, 3) @ by_column.transpose(1, 2)).transpose(2, 3)
        both = vertical.unsqueeze(-1) + horizontal.unsqueeze(-2)
        scores: torch.Tensor = both.flatten(4).flatten(2, 3)
        if not self.class_token:
            return scores
        to_token = queries @ (self.rows[0] + self.columns[0]).unsqueeze(-1)
        scores = torch.cat([to_token[:, :, 1:], scores], 3)
        first = to_token[:, :, :1].expand(-1, -1, -1, scores.shape[3])
        return torch.cat([first, scores], 2)

    def values(self, attention: torch.Tensor) -> torch.Tensor:
        """Map attention `(N, heads, tokens, tokens)` to means `(N, heads, tokens, head_width)`."""
        patches = attention[:, :, 1:, 1:] if self.class_token else attention
        grid = self._grid_of(patches.shape[2]) if self.any_size else self.grid
        by_row, by_column = self._vectors(grid)
        patches = patches.unflatten(3, grid)  # type: ignore[no-untyped-call]
        patches = patches.unflatten(2, grid)
        vertical = patches.sum(-1) @ by_row
        horizontal = (patches.sum(-2).transpose(2, 3) @ by_column).transpose(2, 3)
        means: torch.Tensor = (vertical + horizontal).flatten(2, 3)
        if not self.class_token:
            return means
        token = self.rows[0] + self.columns[0]
        means = means + attention[:, :, 1:, :1] * token
        # What the class token attends to sums to 1, and all of it has the same vector.
        first = token.expand(means.shape[0], means.shape[1], 1, -1)
        return torch.cat([first, means], 2)

    def tensors_of(
        self, other: nn.Module, tensors: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        del other
        adapted = dict(tensors)
        for name in ("rows", "columns"):
            vectors, begin = tensors[name], int(self.class_token)
            before = len(vectors) % 2 == 0  # whether the other one has a class token
            limit = (len(getattr(self, name)) - 1 - begin) // 2
            most = (len(vectors) - 1 - before) // 2
            if (limit, begin) == (most, before):
                continue
            distances = torch.arange(-limit, limit + 1, device=vectors.device).clamp(-most, most)
            own = vectors[distances + most + before]
            if self.class_token:
                first = vectors[:1] if before else torch.zeros_like(vectors[:1])
                own = torch.cat([first, own])
            adapted[name] = own
        return adapted

    def _vectors(self, grid: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        row_index, column_index = self.row_index, self.column_index
        if grid != self.grid:
            height, width = grid
            row_index, column_index = row_index[:height, :height], column_index[:width, :width]
        return self.rows[row_index], self.columns[column_index]

    def _grid_of(self, patches: int) -> tuple[int, ...]:
        """Return the grid of so many patches whose sides are most nearly as the own grid's."""
        height, width = self.grid
        sides = [(side, patches // side) for side in range(1, patches + 1) if patches % side == 0]
        return min(sides, key=lambda grid: abs(math.log(grid[0] * width / (grid[1] * height))))


class Attention(nn.Module):
    """Residual multi-head self-attention behind a layer normalisation.

    The width of queries, keys and values is that of the heads, whatever the tokens' is, as in
    AutoFormer. The matrix products are written out: a runtime on a processor keeps the matrix of
    scores in memory either way, and only so is it seen when memory is counted.

    Attributes:
        joint: By a layer's name, sizes whose product is the number of its outputs; see
            `nas.network.inheritance`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        heads: int,
        head_width: int,
        relative_position: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the layer.

        Args:
            input_shape: `(tokens, width)`.
            heads: Number of heads.
            head_width: Features of each head.
            relative_position: Arguments of `RelativePosition` but the head's width; for none,
                attention knows positions from the tokens only.
        """
        super().__init__()
        width = input_shape[1]
        self.heads = (heads, head_width)
        self.joint = {"inputs": (3, heads, head_width)}
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.inputs = nn.Linear(width, 3 * heads * head_width)
        self.key_positions = self.value_positions = None
        if relative_position is not None:
            self.key_positions = RelativePosition(head_width=head_width, **relative_position)
            self.value_positions = RelativePosition(head_width=head_width, **relative_position)
        self.output = nn.Linear(heads * head_width, width)
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, tokens, width)` to the same shape."""
        parts = self.inputs(self.norm(x)).chunk(3, -1)
        queries, keys, values = (
            parts[i].unflatten(-1, self.heads).transpose(1, 2) for i in range(3)
        )
        queries = queries / math.sqrt(self.heads[1])
        scores = queries @ keys.transpose(-2, -1)
        if self.key_positions is not None:
            scores = scores + self.key_positions.scores(queries)
        attention = scores.softmax(-1)
        mixed = attention @ values
        if self.value_positions is not None:
            mixed = mixed + self.value_positions.values(attention)
        y: torch.Tensor = self.drop_path(self.output(mixed.transpose(1, 2).flatten(2)))
        return x + y


class FeedForward(nn.Module):
    """Residual two-layer perceptron with GELU behind a layer normalisation."""

    def __init__(self, input_shape: Sequence[int], ratio: float) -> None:
        super().__init__()
        width = input_shape[1]
        hidden = int(width * ratio)
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.expand = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.project = nn.Linear(hidden, width)
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, tokens, width)` to the same shape."""
        y = self.project(self.activation(self.expand(self.norm(x))))
        dropped: torch.Tensor = self.drop_path(y)
        return x + dropped


class TokenClassifier(nn.Module):
    """Layer normalisation, one vector for the image, a linear layer."""

    def __init__(self, input_shape: Sequence[int], num_classes: int, pooling: str) -> None:
        """Build the layer.

        Args:
            input_shape: `(tokens, width)`.
            num_classes: Number of logits.
            pooling: `token` reads the class token, `mean` the mean of all tokens, and
                `mean_beside_token` that of the patches, behind a class token.
        """
        super().__init__()
        self.pooling = pooling
        self.norm = nn.LayerNorm(input_shape[1], LAYER_NORM_EPS)
        self.dropout = Dropout()
        self.linear = nn.Linear(input_shape[1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, tokens, width)` to logits `(N, num_classes)`."""
        if self.pooling == "token":
            features = self.norm(x[:, 0])
        else:
            features = self.norm(x[:, 1:] if self.pooling == "mean_beside_token" else x).mean(1)
        logits: torch.Tensor = self.linear(self.dropout(features))
        return logits


def initialise_transformer(module: nn.Module) -> None:
    """Initialise one layer as DeiT does: truncated normal with a deviation of 0.02."""
    weights: list[torch.Tensor | None] = []
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
        weights = [module.weight]
    elif isinstance(module, Tokens):
        weights = [module.token, module.positions]
    elif isinstance(module, RelativePosition):
        weights = [module.rows, module.columns]
    for weight in weights:
        if weight is not None:
            nn.init.trunc_normal_(weight, std=0.02)
