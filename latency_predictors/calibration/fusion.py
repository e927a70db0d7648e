"""The kernels that a runtime runs for a block: layers after fusion.

What ONNX Runtime does on a processor (and other runtimes with it): a normalisation is folded into
the convolution before it; an activation, or the addition of a shortcut, is computed by the
convolution that feeds it; layers that only give a tensor another shape are no call. nn-Meter
(Zhang et al., MobiSys 2021) calls the result the kernels of a network and predicts a latency for
each. Equal computations on one tensor are done once, so what several blocks do to their common
input is a kernel of the tensor. `tests/latency_predictors/test_fusion.py` compares with the graphs
that ONNX Runtime makes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from nas.network.costs import Layer, Shape, Trace

CONVOLUTIONS = ("conv", "depthwise", "grouped")
NORMALISATION = "batchnorm2d"
ACTIVATIONS = {"relu", "relu6", "hardswish", "hardsigmoid", "sigmoid"}
ADDITION = "add"


@dataclass(frozen=True)
class Kernel:
    """One call of the runtime.

    Attributes:
        kind: Of the layer that it starts with; see `Layer.kind`.
        epilogue: Kinds of the layers that are computed with it.
        macs: Multiply-accumulate operations.
        params: Trainable parameters.
        input_values: Elements that it reads.
        output_values: Elements that it writes.
        input_channels: Of its first input: the first axis of images, the last of tokens.
        output_channels: The same of its output.
        reads: The input of the block, if that is all that it reads and it has no parameters: then
            other blocks that do the same to the same tensor share it.
    """

    kind: str
    epilogue: tuple[str, ...]
    macs: int
    params: int
    input_values: int
    output_values: int
    input_channels: int
    output_channels: int
    reads: int | None = None

    @property
    def is_convolution(self) -> bool:
        """Whether it starts with a convolution."""
        return self.kind.startswith(CONVOLUTIONS)


def fuse(trace: Trace) -> tuple[Kernel, ...]:
    """Return the kernels of a module, in execution order."""
    inputs = len(trace.input_values)
    readers = Counter(tensor for step in trace.steps for tensor in step.reads)
    readers[trace.output] += 1
    kernels: list[Kernel] = []
    # The kernel that may still take in the reader of a tensor.
    open_kernel: dict[int, int] = {}
    inputs_of = {tensor: tensor for tensor in range(inputs)}
    for position, (layer, step) in enumerate(zip(trace.layers, trace.steps, strict=True), inputs):
        sole = inputs_of.get(step.reads[0]) if len(set(step.reads)) == 1 else None
        if step.is_view:
            if sole is not None:
                inputs_of[position] = sole
            continue
        hosts = [open_kernel[t] for t in step.reads if t in open_kernel and readers[t] == 1]
        host = next((i for i in reversed(hosts) if _takes(kernels[i], layer)), None)
        if host is None:
            host = len(kernels)
            kernels.append(_kernel(layer, sole if layer.params == 0 else None))
        elif layer.kind != NORMALISATION:
            fused = (*kernels[host].epilogue, layer.kind)
            kernels[host] = replace(kernels[host], epilogue=fused)
        if kernels[host].is_convolution:
            open_kernel[position] = host
    return tuple(kernels)


def _takes(kernel: Kernel, layer: Layer) -> bool:
    """Return whether a convolution computes the layer behind it as well."""
    activated = any(kind in ACTIVATIONS for kind in kernel.epilogue)
    if layer.kind in (NORMALISATION, ADDITION):
        return not kernel.epilogue
    return layer.kind in ACTIVATIONS and not activated


def _kernel(layer: Layer, reads: int | None) -> Kernel:
    return Kernel(
        kind=layer.kind,
        epilogue=(),
        macs=layer.macs,
        params=layer.params,
        input_values=layer.input_values,
        output_values=layer.output_values,
        input_channels=_channels(layer.input_shape),
        output_channels=_channels(layer.output_shape),
        reads=reads,
    )


def _channels(shape: Shape) -> int:
    return 1 if not shape else shape[0] if len(shape) == 3 else shape[-1]
