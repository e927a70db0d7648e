"""A PyTorch module as a graph of layers and functions, with shapes and constants filled in.

The module is traced symbolically (`torch.fx`), which sees through modules of its own and stops at
those of `torch.nn`. Whatever depends on shapes is computed once: sizes become constants, and those
that are the batch's are found by running the module on batches of two sizes.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from nas.compression.functions import (
    ALLOWED,
    BATCH,
    CALL,
    DEVICE,
    NUMBER,
    SPACES,
    TENSOR,
    VALUE,
)
from nas.core.errors import ConfigError, first_line
from nas.network.blocks import INPUT

BATCHES = (2, 3)
"""Sizes of the batches that a module is run on."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Traced:
    """One layer of a module, or functions that give one tensor.

    Attributes:
        name: A Python identifier, unique in the module.
        target: Name of a class of `torch.nn`; empty for functions.
        arguments: Of the layer's constructor, by name.
        calls: Functions in the order in which they run, as of `nas.compression.functions`; the last
            one gives the output.
        inputs: Names of those whose outputs it reads, or `input`.
        shape: Of its output, without the batch.
        path: Of the layer in the module; empty for functions.
        tensors: Parameters and buffers that the functions read, by the name of an argument.
    """

    name: str
    target: str
    inputs: tuple[str, ...]
    shape: Shape
    arguments: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[Mapping[str, Any], ...] = ()
    path: str = ""
    tensors: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.target in ("Conv2d", "Linear")

    @property
    def function(self) -> str:
        """Name of the only function; empty where there are several, or a layer."""
        return str(self.calls[0]["target"]) if len(self.calls) == 1 else ""

    @property
    def kind(self) -> str:
        """Last name of the layer's class or of the only function, such as `ReLU`, `relu`, `add`."""
        return self.target or self.function.rpartition(".")[2]


def traced(module: nn.Module, input_shape: Shape) -> list[Traced]:
    """Return the layers and functions of a module in the order in which they run.

    Args:
        module: Maps images `(N, C, H, W)` to one tensor `(N, ...)`.
        input_shape: `(C, H, W)`.

    Raises:
        ConfigError: It cannot be traced, does not take such images, or runs something that has no
            form here.
    """
    module = module.eval()
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        graph = fx.GraphModule(module, _ModuleTracer().trace(module, given)).graph
    except Exception as error:  # whatever a module of a user raises
        raise _untraceable(module, f"tracing it says: {first_line(error)}") from error
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if sum(p.default is p.empty and p.kind not in variable for p in parameters) != 1:
        raise _untraceable(module, "it takes several inputs")
    _remove_unread(graph)
    runs = [_Values(module, graph, torch.zeros(batch, *input_shape)) for batch in BATCHES]
    return list(_GraphReader(module, graph, runs).layers())


class _ModuleTracer(fx.Tracer):
    """Takes layers of torch.nn for one operation, and those that compute as they do."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _layer_class(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _layer_class(layer: nn.Module) -> type[nn.Module] | None:
    """Return the convolution or linear layer of torch.nn that a layer computes as."""
    for cls in (nn.Conv2d, nn.Linear):
        if isinstance(layer, cls) and type(layer).forward is cls.forward:
            return cls
    return None


def _remove_unread(graph: fx.Graph) -> None:
    """Remove what the output does not depend on, assertions among it."""
    needed: set[fx.Node] = set()
    images, *_, output = graph.nodes
    left = [images, output]
    while left:
        node = left.pop()
        if node not in needed:
            needed.add(node)
            left += node.all_input_nodes
    for node in reversed(list(graph.nodes)):
        if node not in needed:
            graph.erase_node(node)


class _Values(fx.Interpreter):
    """What every node of a graph returns for some images."""

    def __init__(self, module: nn.Module, graph: fx.Graph, images: torch.Tensor) -> None:
        super().__init__(fx.GraphModule(module, graph))
        self.found: dict[str, Any] = {}
        try:
            with torch.no_grad():
                self.run(images)
        except Exception as error:  # whatever a module of a user raises
            expected = f"a module for images of {tuple(images.shape[1:])}, as the data has"
            name, line = type(module).__name__, first_line(error)
            raise ConfigError("search_space.base", name, expected, f"it says: {line}") from error

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and keep what it returns."""
        self.found[n.name] = value = super().run_node(n)
        return value


_ATTENTION = ("MultiheadAttention", "Transformer")
"""How classes of torch.nn with attention begin, which several tensors go into."""

_SIZED = ("reshape", "view")
"""Functions that are given the sizes of all axes."""

_PASSING_ON = frozenset({
    "alpha_dropout", "contiguous", "dropout", "dropout1d", "dropout2d", "expand", "expand_as",
    "feature_alpha_dropout", "flatten", "float", "reshape", "squeeze", "to", "type_as", "view",
    "view_as",
})  # fmt: skip
"""Functions that may pass on what they get, as those that are not of torch may."""

_NOTHING = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "Identity", "DropPath")
"""Classes that pass on what they get once a network is trained."""


class _GraphReader:
    """Reads a graph whose values are known."""

    def __init__(self, module: nn.Module, graph: fx.Graph, runs: Sequence[_Values]) -> None:
        self._module, self._graph = module, graph
        self._values = [run.found for run in runs]
        self._alias: dict[str, str] = {}
        self._seen: set[int] = set()

    def layers(self) -> Iterator[Traced]:
        """Yield what the graph runs.

        Raises:
            ConfigError: It runs something that has no form here.
        """
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._alias[node.name] = INPUT
            elif node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    raise _untraceable(self._module, "it returns something else than one tensor")
            elif (passed := self._passed_on(node)) is not None:
                self._alias[node.name] = passed
            elif node.op == "call_module":
                yield from self._layer(node)
            elif node.op != "get_attr" and self._shape(node) is not None:
                yield self._functions(node)  # all else is run where it is read

    def _shape(self, node: fx.Node) -> Shape | None:
        """Return the shape of a tensor, without the batch; `None` for what is no such tensor."""
        both = [values[node.name] for values in self._values]
        if not all(isinstance(each, torch.Tensor) and each.ndim > 1 for each in both):
            return None
        if not both[0].is_floating_point():  # a mask, or positions
            return None
        whole, other = (tuple(each.shape) for each in both)
        apart = (whole[0], other[0]) == BATCHES and whole[1:] == other[1:]
        return whole[1:] if apart else None

    def _passed_on(self, node: fx.Node) -> str | None:
        """Return what a node passes on unchanged, as dropout and some reshapes do."""
        read = node.all_input_nodes[:1]
        if not read or read[0].name not in self._alias or not self._may_pass_on(node):
            return None
        for values in self._values:
            own, before = values[node.name], values[read[0].name]
            if not isinstance(own, torch.Tensor) or not isinstance(before, torch.Tensor):
                return None
            if own.data_ptr() != before.data_ptr() or own.shape != before.shape:
                return None
            if own.stride() != before.stride() or own.dtype != before.dtype:
                return None
        return self._alias[read[0].name]

    def _may_pass_on(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self._module.get_submodule(str(node.target)), nn.Flatten)
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_method" or name in _PASSING_ON:
            return name in _PASSING_ON
        known = any(getattr(held, name, None) is node.target for held in SPACES.values())
        return node.op == "call_function" and not known

    def _layer(self, node: fx.Node) -> Iterator[Traced]:
        layer = self._module.get_submodule(str(node.target))
        cls = _layer_class(layer) or type(layer)
        name = cls.__name__
        if name.startswith(_ATTENTION):
            why = f"{node.target} is a {name}: write attention with functions of torch"
            raise _untraceable(self._module, why)
        read = self._read(node)
        if name in _NOTHING:
            self._alias[node.name] = read
            return
        for parameter in layer.parameters():
            if id(parameter) in self._seen:
                raise _untraceable(self._module, f"it uses the weights of {node.target} twice")
            self._seen.add(id(parameter))
        if getattr(nn, name, None) is not cls:
            raise _untraceable(self._module, f"{node.target} is a {name}, which is not traced into")
        if getattr(layer, "weight", None) is not None and "weight" not in layer._parameters:
            why = f"the weights of {node.target} are computed: remove its parametrisation or mask"
            raise _untraceable(self._module, why)
        shape = self._shape(node)
        if shape is None:
            raise _untraceable(
                self._module,
                f"{node.target} gives something else than a tensor with a row an image",
            )
        self._alias[node.name] = own = _block_name(node)
        yield Traced(
            name=own,
            target=name,
            arguments=self._constructed(str(node.target), layer),
            inputs=(read,),
            shape=shape,
            path=str(node.target),
        )

    def _constructed(self, path: str, layer: nn.Module) -> dict[str, Any]:
        """Return the arguments that a layer of torch.nn was built with."""
        arguments = {}
        cls = _layer_class(layer) or type(layer)
        for name, parameter in inspect.signature(cls).parameters.items():
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if variable or name in ("device", "dtype", "inplace"):
                continue
            if not hasattr(layer, name) and parameter.default is None:  # a deprecated one
                continue
            if not hasattr(layer, name):
                raise _untraceable(self._module, f"{path} has no attribute {name}, its argument")
            value = getattr(layer, name)
            if name == "bias" and not isinstance(value, bool):
                value = value is not None
            value = self._plain(path, list(value) if isinstance(value, tuple) else value)
            if isinstance(value, Mapping):
                raise _untraceable(self._module, f"{path} has an argument {name} of {value}")
            arguments[name] = value
        return arguments

    def _functions(self, node: fx.Node) -> Traced:
        program = _Calls()
        self._add(node, program)
        shape = self._shape(node)
        assert shape is not None, "others are run where they are read"
        self._alias[node.name] = own = _block_name(node)
        if len(program.calls) == 1 and len(program.inputs) == 1:
            kind = program.calls[0]["target"].rpartition(".")[2]
            before = self._shape(node.all_input_nodes[0])
            # Sizes as constants would be those of one number of channels.
            if len(shape) == 1 and kind in (*_SIZED, "flatten", "squeeze"):
                flat = {"target": "torch.flatten", "arguments": {"0": {VALUE: 0}, "1": 1}}
                program.calls[0] = flat
            elif kind in _SIZED and before == shape[:1] and shape[1:] == (1, 1):
                sizes = {"0": {VALUE: 0}, "1": 1, "2": [-1, 1, 1]}
                program.calls[0] = {"target": "Tensor.unflatten", "arguments": sizes}
        return Traced(
            name=own,
            target="",
            inputs=tuple(program.inputs),
            shape=shape,
            calls=tuple(program.calls),
            tensors=program.tensors,
        )

    def _add(self, node: fx.Node, program: _Calls) -> int:
        """Add a function to a program, behind those that it needs; return its position."""
        if node.name not in program.positions:
            keyed = {**{str(i): value for i, value in enumerate(node.args)}, **node.kwargs}
            for name in ("inplace", "memory_format"):
                keyed.pop(name, None)
            arguments = {k: self._argument(node.name, v, program) for k, v in keyed.items()}
            if str(getattr(node.target, "__name__", node.target)) in _SIZED:
                arguments = self._with_sizes(node, arguments)
            program.positions[node.name] = len(program.calls)
            program.calls.append({"target": self._name(node), "arguments": arguments})
        return program.positions[node.name]

    def _with_sizes(self, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a function of `_SIZED` with the size that -1 stands for."""
        found = [values[node.name] for values in self._values]

        def filled(value: Any, axis: int) -> Any:
            if value != -1:
                return value
            return self._constant(node.name, [each.shape[axis] for each in found])

        return {
            name: value
            if name == "0"
            else [filled(each, axis) for axis, each in enumerate(value)]
            if isinstance(value, list)
            else filled(value, int(name) - 1 if name.isdecimal() else 0)
            for name, value in arguments.items()
        }

    def _name(self, node: fx.Node) -> str:
        """Return the name of a function or method, of one that changes nothing in place."""
        if node.op == "call_method":
            method = str(node.target).removesuffix("_")
            if method not in ALLOWED["Tensor"]:
                raise _untraceable(self._module, f"it calls {node.target}, which is not supported")
            return f"Tensor.{method}"
        name = getattr(node.target, "__name__", str(node.target))
        if node.target in (operator.iadd, operator.isub, operator.imul, operator.itruediv):
            name = name.removeprefix("i")
            return f"operator.{name}"
        for space, held in SPACES.items():
            plain = name.removesuffix("_")
            if getattr(held, name, None) is node.target and plain in ALLOWED[space]:
                return f"{space}.{plain}"
        raise _untraceable(self._module, f"it calls {name}, which is no function of torch")

    def _argument(self, where: str, value: Any, program: _Calls) -> Any:
        """Return an argument in plain values, and take note of what it reads."""
        if isinstance(value, fx.Node):
            return self._read_value(where, value, program)
        if isinstance(value, tuple | list):
            return [self._argument(where, each, program) for each in value]
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return {"slice": [self._argument(where, each, program) for each in parts]}
        return self._plain(where, value)

    def _read_value(self, where: str, node: fx.Node, program: _Calls) -> Any:
        if node.name in self._alias:
            name = self._alias[node.name]
            if name not in program.inputs:
                program.inputs.append(name)
            return {VALUE: program.inputs.index(name)}
        if node.op == "get_attr":
            path = str(node.target)
            if path not in program.tensors.values():
                self._check_read_once(node)
                program.tensors[f"tensor{len(program.tensors)}"] = path
            return {TENSOR: next(k for k, held in program.tensors.items() if held == path)}
        found = [values[node.name] for values in self._values]
        if any(_has_tensors(each) for each in found):
            return {CALL: self._add(node, program)}
        return self._constant(where, found)

    def _check_read_once(self, node: fx.Node) -> None:
        """Refuse a parameter that several functions read: each would have its own copy."""
        owner, _, name = str(node.target).rpartition(".")
        tensor = getattr(self._module.get_submodule(owner), name)
        if isinstance(tensor, nn.Parameter):
            if id(tensor) in self._seen:
                raise _untraceable(self._module, f"it uses the parameter {node.target} twice")
            self._seen.add(id(tensor))

    def _constant(self, where: str, found: Sequence[Any]) -> Any:
        """Return a value that two runs gave, in plain values."""
        first, second = found
        if isinstance(first, tuple | list):
            pairs = zip(first, second, strict=True)
            return [self._constant(where, pair) for pair in pairs]
        if first == second:
            return self._plain(where, first)
        share = first // BATCHES[0]
        if (first, second) == tuple(share * batch for batch in BATCHES):
            return {BATCH: share}
        raise _untraceable(self._module, f"{where} depends on the size of the batch")

    def _plain(self, where: str, value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {DEVICE: "input"}
        if value is Ellipsis:
            return {"slice": "..."}
        if isinstance(value, float) and not math.isfinite(value):
            return {NUMBER: str(value)}
        plain = value is None or isinstance(value, bool | int | float | str)
        if isinstance(value, list) and all(isinstance(each, int | float | str) for each in value):
            return value
        if not plain:
            raise _untraceable(self._module, f"{where} has an argument {type(value).__name__}")
        return value

    def _read(self, node: fx.Node) -> str:
        """Return what a layer reads."""
        read = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(read, fx.Node) or read.name not in self._alias:
            raise _untraceable(self._module, f"{node.target} reads something else than one tensor")
        return self._alias[read.name]


@dataclass
class _Calls:
    """Functions, and what they read."""

    calls: list[Mapping[str, Any]] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)


def _block_name(node: fx.Node) -> str:
    """Return a name for a block, which is no attribute of modules."""
    return f"{node.name}_" if hasattr(nn.Module, node.name) or node.name == INPUT else node.name


def _has_tensors(value: Any) -> bool:
    parts = value if isinstance(value, tuple | list) else [value]
    return any(isinstance(part, torch.Tensor) for part in parts)


def _untraceable(module: nn.Module, why: str) -> ConfigError:
    name = type(module).__name__
    expected = "a module that torch.fx traces, without control flow on values"
    return ConfigError("search_space.base", name, expected, why)
