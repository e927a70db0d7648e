"""Exact costs of a network, counted on the network itself.

The module is traced with `torch.fx` on the meta device, where tensors have shapes but no memory.
Nothing else describes the network, so the counts cannot drift away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

BYTES_PER_VALUE = 4
"""Activations and weights are counted in 32-bit floating point."""

NO_OPERATION = (nn.Identity, nn.Dropout)
"""Layers that do nothing to a network in use: their output is their input."""

IN_PLACE_MODULES = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, *NO_OPERATION)
"""Layers that a runtime fuses into the layer before, so that they need no tensor of their own."""


@dataclass(frozen=True)
class Layer:
    """One operation of a network in its execution order.

    Attributes:
        kind: `conv1`, `grouped3`, `depthwise3` (with the kernel size), `linear`, or the
            operation's own name.
        input_values: Elements of all inputs.
        output_values: Elements of the output.
        params: Trainable parameters.
        macs: Multiply-accumulate operations for one image.
    """

    kind: str
    input_values: int
    output_values: int
    params: int
    macs: int


@dataclass(frozen=True)
class Costs:
    """Counts for one image.

    Attributes:
        params: Trainable parameters.
        macs: Multiply-accumulate operations of convolutions and linear layers.
        peak_activation_bytes: Most bytes of activations alive at once, by liveness over the
            execution order; normalisations and activations work in place, as runtimes fuse them.
        model_bytes: Bytes of parameters and buffers.
        layers: Every operation, in execution order.
    """

    params: int
    macs: int
    peak_activation_bytes: int
    model_bytes: int
    layers: tuple[Layer, ...]


def count(network: nn.Module, input_shape: tuple[int, int, int]) -> Costs:
    """Count the costs of `network` for one image of `input_shape` (C, H, W).

    Args:
        network: On the meta device or elsewhere; it is moved to the meta device, so hand in a
            network that is not needed afterwards.
        input_shape: `(channels, height, width)`.
    """
    network = network.eval().to("meta")
    traced = fx.symbolic_trace(network)
    _ShapeRecorder(traced).run(torch.empty(1, *input_shape, device="meta"))
    modules = dict(traced.named_modules())
    layers = [_layer(node, modules) for node in traced.graph.nodes if node.op.startswith("call")]
    tensors = [*network.parameters(), *network.buffers()]
    return Costs(
        params=sum(p.numel() for p in network.parameters()),
        macs=sum(layer.macs for layer in layers),
        peak_activation_bytes=_peak_values(traced.graph, modules) * BYTES_PER_VALUE,
        model_bytes=sum(t.numel() * t.element_size() for t in tensors),
        layers=tuple(layers),
    )


class _ShapeRecorder(fx.Interpreter):
    """Runs a traced network on the meta device and notes how many values every node returns."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["values"] = result.numel() if isinstance(result, torch.Tensor) else 0
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Layers that keep the shape need no run, which is half of the time on the meta device.
        if isinstance(self.fetch_attr(target), IN_PLACE_MODULES):
            return args[0]
        return super().call_module(target, args, kwargs)


def _values(node: fx.Node) -> int:
    return int(node.meta["values"])


def _layer(node: fx.Node, modules: dict[str, nn.Module]) -> Layer:
    inputs, outputs = sum(map(_values, node.all_input_nodes)), _values(node)
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    params = sum(p.numel() for p in module.parameters()) if module else 0
    if isinstance(module, nn.Conv2d):
        macs = outputs * module.weight[0].numel()
        return Layer(_convolution(module), inputs, outputs, params, macs)
    if isinstance(module, nn.Linear):
        return Layer("linear", inputs, outputs, params, outputs * module.in_features)
    kind = type(module).__name__ if module else getattr(node.target, "__name__", str(node.target))
    return Layer(kind.lower(), inputs, outputs, params, 0)


def _convolution(module: nn.Conv2d) -> str:
    if module.groups == 1:
        return f"conv{module.kernel_size[0]}"
    depthwise = module.groups == module.in_channels
    return f"{'depthwise' if depthwise else 'grouped'}{module.kernel_size[0]}"


def _in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node's output needs no memory beyond its input's."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    # What another node still reads cannot be overwritten.
    overwrites = isinstance(module, IN_PLACE_MODULES) and len(node.all_input_nodes[0].users) == 1
    return isinstance(module, NO_OPERATION) or overwrites


def _peak_values(graph: fx.Graph, modules: dict[str, nn.Module]) -> int:
    """Return the most elements alive at once while the graph is executed in order."""
    nodes = list(graph.nodes)
    owner: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        owner[node] = owner[node.all_input_nodes[0]] if _in_place(node, modules) else node
    last_use: dict[fx.Node, int] = {}
    for step, node in enumerate(nodes):
        for used in (node, *node.all_input_nodes):
            last_use[owner[used]] = step
    alive: dict[fx.Node, int] = {}
    peak = 0
    for step, node in enumerate(nodes):
        alive[owner[node]] = _values(node)
        peak = max(peak, sum(alive.values()))
        alive = {held: size for held, size in alive.items() if last_use[held] > step}
    return peak
