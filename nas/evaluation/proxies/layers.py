"""What proxies look at in a network: layers with weights, and the signs of activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from nas.core.errors import CandidateFailure
from nas.evaluation.proxies import Batch

ACTIVATIONS = frozenset(
    {"relu", "hardtanh", "hardswish", "gelu", "silu", "leaky_relu", "elu", "mish"}
)
"""ATen's names of the functions whose inputs have a sign that counts; ReLU6 is a `hardtanh`."""


def weights(network: nn.Module) -> list[torch.Tensor]:
    """Return the weights of all convolutions and linear layers.

    Raises:
        CandidateFailure: There are none.
    """
    layers = (m for m in network.modules() if isinstance(m, _ConvNd | nn.Linear))
    found = [layer.weight for layer in layers]
    if not found:
        raise CandidateFailure("crashed", "the proxy looks at convolutions and linear layers: none")
    return found


def gradients(network: nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield every weight with the mean loss's gradient, without those that the loss ignores."""
    own = weights(network)
    found = torch.autograd.grad(batch.loss(network), own, allow_unused=True)
    for weight, gradient in zip(own, found, strict=True):
        if gradient is not None:
            yield weight.detach(), gradient


def positive(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return where the inputs of the activations are positive, `(n, values)`, bool, a layer each.

    Batch normalisation has the statistics of `images`. Activations are seen where they are
    computed, so that it makes no difference whether they are modules.

    Raises:
        CandidateFailure: The network has no activation.
    """
    signs = _Signs()
    with torch.no_grad(), signs:
        network(images)
    if not signs.found:
        known = ", ".join(sorted(ACTIVATIONS))
        raise CandidateFailure("crashed", f"the proxy looks at activations ({known}): none")
    return signs.found


class _Signs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes note of the signs of what activations are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        if func.overloadpacket.__name__.rstrip("_") in ACTIVATIONS:
            self.found.append((args[0] > 0).flatten(1))
        return func(*args, **(kwargs or {}))
