"""Exact costs of a network, counted on the network itself.

A module is traced with `torch.fx` on the meta device, where tensors have shapes but no memory.
Nothing else describes it, so the counts cannot drift away from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import PH
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nas.core.measurement import FP32
from nas.network.compact import (
    CompactLayer,
    FakeQuantisation,
    layer_precision,
    weight_bytes,
    without_quantisation,
)
from nas.network.module import build_module

BYTES_PER_VALUE = 4
"""Activations and weights are counted in 32-bit floating point."""

NO_OPERATION = (nn.Identity, nn.Dropout)
"""Layers that do nothing to a network in use: their output is their input."""

VIEW_MODULES = (*NO_OPERATION, nn.Flatten, nn.Unflatten)
VIEWS = ("flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze")
"""What gives a tensor another shape without moving its values."""

IN_PLACE_MODULES = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.SiLU,
    nn.GELU,
    *NO_OPERATION,
)
"""Layers that a runtime fuses into the layer before, so that they need no tensor of their own."""

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One operation of a network in its execution order.

    Attributes:
        kind: `conv1`, `conv3x1`, `grouped3`, `depthwise3d2` (with the kernel size, and the dilation
            if it is above 1), `linear`, or the operation's own name.
        input_shape: Of its first input, without the batch.
        output_shape: Without the batch; of several outputs, the first.
        input_values: Elements of all inputs.
        output_values: Elements of the output.
        params: Trainable parameters.
        macs: Multiply-accumulate operations for one image.
        precision: What it computes in; see `nas.network.compact`.
        has_weights: Whether it is a convolution or a linear layer.
    """

    kind: str
    input_shape: Shape
    output_shape: Shape
    input_values: int
    output_values: int
    params: int
    macs: int
    precision: str = FP32
    has_weights: bool = False

    @property
    def operation(self) -> str:
        """Its kind, and its precision where that is not floating point: what a runtime calls."""
        return self.kind if self.precision == FP32 else f"{self.kind} {self.precision}"


@dataclass(frozen=True)
class Step:
    """One operation as memory sees it.

    Attributes:
        reads: Positions of the tensors that it reads: the inputs of the module first, then the
            results of its steps.
        values: Elements of its result.
        works_in_place: Whether it may write over the first tensor that it reads.
        is_view: Whether its result is that tensor or a part of it.
    """

    reads: tuple[int, ...]
    values: int
    works_in_place: bool
    is_view: bool


@dataclass(frozen=True)
class Trace:
    """What one module does to one image.

    Attributes:
        input_values: Elements of every input.
        output_shape: Without the batch.
        output: Position of the tensor that it returns.
        params: Trainable parameters.
        model_bytes: Bytes of parameters and buffers.
        layers: Every operation, in execution order.
        steps: The same as memory sees them.
    """

    input_values: tuple[int, ...]
    output_shape: Shape
    output: int
    params: int
    model_bytes: int
    layers: tuple[Layer, ...]
    steps: tuple[Step, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of convolutions and matrix products."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activations(self) -> int:
        """Elements that layers with multiplications return (Radosavovic et al., CVPR 2020)."""
        return sum(layer.output_values for layer in self.layers if layer.macs)

    @property
    def returns_input(self) -> bool:
        """Whether the output is an input, unchanged."""
        tensor, inputs = self.output, len(self.input_values)
        while tensor >= inputs and self.steps[tensor - inputs].is_view:
            tensor = self.steps[tensor - inputs].reads[0]
        return tensor < inputs

    def peak_values(self, kept: Sequence[bool], same: Sequence[int] | None = None) -> int:
        """Return the most elements alive at once, by liveness over the execution order.

        Args:
            kept: Of every input, whether it is still needed when the module is done.
            same: Of every input, the first one that is the same tensor; itself by default.
        """
        inputs, end = len(self.input_values), len(self.steps)
        last_use = [end if keep else -1 for keep in kept] + [-1] * end
        for i, step in enumerate(self.steps):
            for tensor in step.reads:
                last_use[tensor] = max(last_use[tensor], i)
        last_use[self.output] = end
        # Tensors that share memory are one buffer, needed until the last of them is.
        buffer = list(range(inputs) if same is None else same)
        needed = [-1] * inputs
        for tensor, own in enumerate(buffer):
            needed[own] = max(needed[own], last_use[tensor])
        sizes = list(self.input_values)
        alive = set(buffer)
        peak = sum(sizes[held] for held in alive)
        for i, step in enumerate(self.steps):
            shared = step.is_view
            if step.works_in_place and not shared:
                shared = needed[buffer[step.reads[0]]] <= i
            if shared:
                own = buffer[step.reads[0]]
            else:
                own = len(sizes)
                sizes.append(step.values)
                needed.append(i)
            buffer.append(own)
            needed[own] = max(needed[own], last_use[inputs + i])
            alive.add(own)
            peak = max(peak, sum(sizes[held] for held in alive))
            alive = {held for held in alive if needed[held] > i}
        return peak


@cache
def trace_spec(key: tuple[type[nn.Module], str], input_shapes: tuple[Shape, ...]) -> Trace:
    """Build a module on the meta device and trace it, once for equal ones.

    Args:
        key: Of a `ModuleSpec`: the module's class, and its keyword arguments as JSON.
        input_shapes: Of every input, without the batch.
    """
    module, arguments = key
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        built = build_module(module, input_shapes, json.loads(arguments))
    trace = trace_module(built, input_shapes)
    if trace.returns_input and trace.output_shape in input_shapes:
        fix = "let the block name the block whose output it passes on"
        raise ValueError(f"{module.__name__}({arguments}): returns what it reads; {fix}")
    return trace


def trace_module(module: nn.Module, input_shapes: Sequence[Shape]) -> Trace:
    """Trace a module for one image; it is moved to the meta device.

    It takes one tensor per input shape, which are without the batch, and returns one.
    """
    module = module.eval().to("meta")
    inputs = [torch.empty(1, *shape, device="meta") for shape in input_shapes]
    called = _Called(module)
    with torch.no_grad(), without_quantisation(module):
        graph = _Tracer().trace(called, {"inputs": [PH for _ in inputs]})
        traced = fx.GraphModule(called, graph)
        output = _Recorder(traced).run(inputs)
    nodes = list(traced.graph.nodes)
    modules = dict(traced.named_modules())
    placeholders = [n for n in nodes if n.op == "placeholder"]
    calls = [n for n in nodes if n.op.startswith("call") and n.meta["values"] is not None]
    positions = {node: i for i, node in enumerate([*placeholders, *calls])}
    returned = next(node for node in nodes if node.op == "output").all_input_nodes[0]
    return Trace(
        input_values=tuple(torch.Size(shape).numel() for shape in input_shapes),
        output_shape=tuple(output.shape[1:]),
        output=positions[returned],
        params=sum(p.numel() for p in module.parameters()),
        model_bytes=_stored_bytes(module),
        layers=tuple(_layer(node, modules, positions) for node in calls),
        steps=tuple(_step(node, modules, positions) for node in calls),
    )


class _Called(nn.Module):
    """Calls a module with any number of inputs, which a trace needs to know."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Sequence[torch.Tensor]) -> Any:
        return self.module(*inputs)


class _Tracer(fx.Tracer):
    """Takes layers with compact weights for one operation, as those of torch.nn."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, CompactLayer) or super().is_leaf_module(m, module_qualified_name)


def _stored_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, as many as their precision takes.

    The ranges of quantised values are left out: how many a file has depends on what it is made for.
    """
    total = 0
    for each in module.modules():
        tensors = [*each.parameters(recurse=False), *each.buffers(recurse=False)]
        if isinstance(each, FakeQuantisation):
            continue
        total += sum(t.numel() * t.element_size() for t in tensors)
        if isinstance(each, CompactLayer):
            total += weight_bytes(each) - each.weight.numel() * each.weight.element_size()
    return int(total)


class _Recorder(fx.Interpreter):
    """Runs a traced module on the meta device and notes what every node returns and multiplies."""

    def run_node(self, n: fx.Node) -> Any:
        with _Multiplications() as counted:
            result = super().run_node(n)
        parts = result if isinstance(result, tuple | list) else [result]
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        n.meta["shape"] = tuple(tensors[0].shape[1:]) if tensors else ()
        n.meta["values"] = sum(tensor.numel() for tensor in tensors) if tensors else None
        n.meta["params"] = result.numel() if isinstance(result, nn.Parameter) else 0
        n.meta["macs"] = counted.macs
        n.meta["parts"] = len(parts)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Layers that keep the shape need no run, which is half of the time on the meta device.
        if isinstance(self.fetch_attr(target), IN_PLACE_MODULES):
            return args[0]
        return super().call_module(target, args, kwargs)


class _Multiplications(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulate operations by the formulas of PyTorch's own counter."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.macs += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result


def _module(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None


def _layer(
    node: fx.Node, modules: Mapping[str, nn.Module], positions: Mapping[fx.Node, int]
) -> Layer:
    module = _module(node, modules)
    # `all_input_nodes` would name a tensor that is read twice only once.
    operands = [
        a
        for a in tree_leaves((node.args, node.kwargs))
        if isinstance(a, fx.Node) and a in positions
    ]
    read = [int(operand.meta["values"]) for operand in operands]
    # Parameters that the module reads itself, such as a class token, belong to their reader.
    own = [n for n in node.all_input_nodes if n.op == "get_attr"]
    params = sum(p.numel() for p in module.parameters()) if module else 0
    params += sum(int(n.meta["params"]) for n in own)
    kind = type(module).__name__ if module else getattr(node.target, "__name__", str(node.target))
    if isinstance(module, _ConvNd):
        kind = _convolution(module)
    elif isinstance(module, nn.Linear):
        kind = "linear"
    return Layer(
        kind=kind.lower(),
        precision=layer_precision(module) if module else FP32,
        has_weights=isinstance(module, _WITH_WEIGHTS) or _reads_weights(node, kind),
        input_shape=operands[0].meta["shape"] if operands else (),
        output_shape=node.meta["shape"],
        input_values=sum(read),
        output_values=int(node.meta["values"]),
        params=params,
        macs=int(node.meta["macs"]),
    )


_WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def _reads_weights(node: fx.Node, kind: str) -> bool:
    """Whether it is a function that computes as such a layer, with weights of the module."""
    if node.op != "call_function" or kind not in ("conv1d", "conv2d", "conv3d", "linear"):
        return False
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    return isinstance(weight, fx.Node) and weight.op == "get_attr"


def _convolution(module: _ConvNd) -> str:
    high, wide = module.kernel_size[0], module.kernel_size[-1]
    size = str(high) if high == wide else f"{high}x{wide}"
    if (dilation := max(module.dilation)) > 1:
        size += f"d{dilation}"
    if module.groups == 1:
        return f"conv{size}"
    depthwise = module.groups == module.in_channels
    return f"{'depthwise' if depthwise else 'grouped'}{size}"


def _is_view(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        return isinstance(module, VIEW_MODULES)
    name = getattr(node.target, "__name__", node.target)
    picks_part = name == "getitem" and node.all_input_nodes[0].meta["parts"] > 1
    return picks_part or name in VIEWS


def _step(
    node: fx.Node, modules: Mapping[str, nn.Module], positions: Mapping[fx.Node, int]
) -> Step:
    module = _module(node, modules)
    reads = tuple(positions[n] for n in node.all_input_nodes if n in positions)
    return Step(
        reads=reads,
        values=int(node.meta["values"]),
        works_in_place=isinstance(module, IN_PLACE_MODULES),
        is_view=bool(reads) and _is_view(node, module),  # one of a parameter reads nothing
    )
