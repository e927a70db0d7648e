"""Bias correction: what compression changes in the mean outputs of layers goes into their biases.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
estimate the change of quantised layers on images (appendix D). Removed, zero and factorised weights
change mean outputs as well. Batch statistics that are estimated anew do the same for layers with
batch normalisation behind; others, such as those of transformers, have their biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from nas.compression.layers import CompressedConvolution, CompressedLinear


@contextmanager
def correcting_biases(
    network: nn.Module, base: nn.Module, outputs: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    """Correct the biases of a network by the batches that it is run on in a `with` block.

    Layers are corrected in the order in which they run, so that each one reads what the corrected
    layers before it return. The correction is the mean of those of the batches. Gradients must be
    disabled.

    Args:
        network: Of a space `compressed`; its biases are changed.
        base: What it was made of, with blocks of the same names; it is run on the same images.
        outputs: By a block's name, which outputs of the base's block it has, `(outputs,)`.
    """
    expected: dict[str, torch.Tensor] = {}
    corrections: dict[str, torch.Tensor] = {}
    images = {"before": 0, "now": 0}

    def begin(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        del module
        images["before"] += images["now"]
        images["now"] = len(inputs[0])
        base(*inputs)

    def note(name: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        del inputs
        expected[name] = _means(module, output)[outputs[name].to(output.device)]

    def correct(name: str, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        del inputs
        known = corrections.get(name, torch.zeros_like(module.bias))
        lacking = expected[name] - _means(module, output)  # beside the known correction
        step = lacking * images["now"] / (images["before"] + images["now"])
        corrections[name] = known + step
        module.bias += step
        return output + (step.view(-1, 1, 1) if isinstance(module, nn.Conv2d) else step)

    base.to(next(network.parameters()).device).eval()
    hooks = [network.register_forward_pre_hook(begin)]
    for name in outputs:
        layer, own = _last(base, name), _last(network, name)
        if own.bias is not None:
            hooks.append(layer.register_forward_hook(partial(note, name)))
            hooks.append(own.register_forward_hook(partial(correct, name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _last(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return the layer that computes the outputs of a block."""
    block = network.get_submodule(name)
    assert isinstance(block, CompressedConvolution | CompressedLinear)
    return block.last


def _means(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """Return the mean outputs of a layer over images and positions, `(outputs,)`."""
    channels = 1 if isinstance(layer, nn.Conv2d) else output.ndim - 1
    return output.detach().mean([axis for axis in range(output.ndim) if axis != channels])
