"""What stands around the cells of a DARTS network: stem, cell inputs and outputs, classifiers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from nas.network.module import Dropout, SizedLayer
from search_spaces.layers.cells import FactorizedReduction, ReLUConvNorm

AUXILIARY_CHANNELS = (128, 768)


class DartsStem(nn.Module):
    """Convolutions with ReLU between them."""

    def __init__(
        self, input_shape: Sequence[int], outputs: Sequence[int], stride: int, activated: bool
    ) -> None:
        """Build the convolutions.

        Args:
            input_shape: `(C, H, W)`.
            outputs: Channels after each convolution.
            stride: Of each of them.
            activated: Whether ReLU comes before the first one, too.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, channels in itertools.pairwise([input_shape[0], *outputs]):
            layers += [nn.ReLU()] if layers or activated else []
            layers += [
                nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, H, W)`, smaller by all strides."""
        stem: torch.Tensor = self.layers(x)
        return stem


class Fitted(nn.Module):
    """Brings a cell's input to the cell's channels and, if need be, to half the resolution."""

    def __init__(self, input_shape: Sequence[int], outputs: int, reduce: bool) -> None:
        super().__init__()
        self.fit: nn.Module = (
            FactorizedReduction(input_shape, outputs)
            if reduce
            else ReLUConvNorm(input_shape[0], outputs, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, outputs, H, W)` or `(N, outputs, H / 2, W / 2)`."""
        fitted: torch.Tensor = self.fit(x)
        return fitted


class Concatenation(nn.Module):
    """Joins the channels of a cell's nodes."""

    def __init__(self, *input_shapes: Sequence[int]) -> None:
        del input_shapes
        super().__init__()

    def forward(self, *nodes: torch.Tensor) -> torch.Tensor:
        """Map tensors `(N, C, H, W)` to one of all their channels."""
        return torch.cat(nodes, 1)


class DartsClassifier(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.dropout = Dropout()
        self.linear = nn.Linear(input_shape[0], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to logits `(N, num_classes)`."""
        logits: torch.Tensor = self.linear(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return logits


class AuxiliaryClassifier(SizedLayer):
    """A second classifier at two thirds of the depth, which takes part in training only."""

    def __init__(self, input_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        inputs, height, width = input_shape
        hidden, features = AUXILIARY_CHANNELS
        # The paper's pooling, which gives 2 x 2 for its images of 32 and 224 pixels.
        strides = {(8, 8): 3, (7, 7): 2}
        self.input_size = (height, width)
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(2)
        if (height, width) in strides:
            self.pool = nn.AvgPool2d(5, strides[height, width], count_include_pad=False)
        self.act = nn.ReLU()
        self.features = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, features, 2, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
        )
        self.linear = nn.Linear(features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to logits `(N, num_classes)`."""
        x = self.act(x)
        if self.any_size and x.shape[2:] != self.input_size:
            pooled = F.adaptive_avg_pool2d(x, 2)
        else:
            pooled = self.pool(x)
        logits: torch.Tensor = self.linear(self.features(pooled).flatten(1))
        return logits
