"""Muon: momentum whose update of every matrix is made orthogonal.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; with the scale and the weight decay
of Liu et al., "Muon is Scalable for LLM Training", arXiv:2502.16982, section 2.2, so that its
learning rate is AdamW's. `torch.optim.Muon` takes no convolutions, and multiplies in bf16, which a
processor does not repeat to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration, a polynomial of degree 5."""

ITERATIONS = 5

SCALE = 0.2
"""Root mean square of an update, about that of AdamW's."""


class Muon(torch.optim.Optimizer):
    """Muon for weights of linear layers and convolutions, `(outputs, ...)`, read as matrices.

    Weights of one shape are updated together.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        """Take groups with `params`, `lr` and `weight_decay`."""
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        del closure
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(weight.shape, []).append(weight)
            for weights in alike.values():
                self._update(weights, group)

    def _update(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        momentum, rate = group["momentum"], group["lr"]
        directions = []
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if not state:
                state["mean"] = torch.zeros_like(weight)
            state["mean"].lerp_(gradient, 1 - momentum)
            # Nesterov's, as of the gradient's next step.
            directions.append(gradient.lerp(state["mean"], momentum).flatten(1))
        matrices = orthogonal(torch.stack(directions))
        scale = SCALE * math.sqrt(max(matrices.shape[1:]))
        for weight, update in zip(weights, matrices, strict=True):
            weight.mul_(1 - rate * group["weight_decay"])
            weight.add_(update.view(weight.shape), alpha=-rate * scale)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the orthogonal matrices that are nearest to `matrices`, `(n, rows, columns)`, about.

    Their singular values are between 0.7 and 1.2 instead of 1, which does as well.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def matrices_of(network: nn.Module) -> list[torch.Tensor]:
    """Return the weights that Muon is for: those of layers between the first and the last one.

    A depthwise convolution is no matrix.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | _ConvNd)]
    return [layer.weight for layer in layers[1:-1] if getattr(layer, "groups", 1) == 1]
