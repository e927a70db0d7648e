"""What a network knows of its activations, estimated anew on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.network.compact import calibrating


def recalibrate(
    network: nn.Module, batches: Iterable[torch.Tensor], *, statistics: bool = True
) -> int:
    """Estimate anew what a network knows of its activations, and the values that its weights share.

    Args:
        network: Is changed; see `recalibrating`.
        batches: Normalised training images, `(N, C, H, W)`.
        statistics: Whether the batch statistics are estimated; they stay otherwise.

    Returns:
        How many images there were.
    """
    images = 0
    with recalibrating(network, statistics=statistics) as estimated, torch.no_grad():
        for batch in batches if estimated else ():
            network(batch)
            images += len(batch)
    return images


@contextmanager
def recalibrating(network: nn.Module, *, statistics: bool = True) -> Iterator[bool]:
    """Estimate what a network knows of its activations by the batches that it is run on.

    The batch statistics of its normalisations become means over batches, the ranges of inputs in 8
    bits those of all images. Weights take the values that they share before. The network is in
    evaluation mode, then and afterwards.

    Args:
        network: Is changed.
        statistics: Whether the batch statistics are estimated; they stay otherwise.

    Yields:
        Whether there is anything to estimate.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)] * statistics
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    try:
        with calibrating(network) as ranges:
            yield bool(layers) or ranges
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        network.eval()
