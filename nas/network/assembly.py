"""ONNX files of many networks of one space, put together from blocks that were exported once.

Exporting a network takes seconds, whereas networks of one space have most of their blocks in
common. So every distinct block is exported once, many of them in one call of the exporter, and the
files of networks are put together from copies. Weights are initial ones: this is for measuring,
which does not depend on them. What a runtime makes of such a file is what it makes of the whole
network's own; `tests/network/test_assembly.py` compares both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from nas.core.space import Genotype
from nas.network.blocks import INPUT
from nas.network.module import PlacedBlock
from nas.network.onnx import INPUT_NAME, OPSET, OUTPUT_NAME, convert, write_model
from nas.network.space import SearchSpace

BLOCKS_AT_ONCE = 48
"""Blocks of one call of the exporter, whose start costs as much as a few blocks."""

_Key: TypeAlias = tuple[type[nn.Module], str, tuple[tuple[int, ...], ...]]


class Assembler:
    """Writes ONNX files of a space's networks."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._graphs: dict[_Key, onnx.GraphProto] = {}
        self._functions: dict[tuple[str, str], onnx.FunctionProto] = {}
        self._imports: dict[str, int] = {"": OPSET}

    def write(self, genotypes: Sequence[Genotype], folder: Path) -> list[Path]:
        """Write one file a genotype, `0.onnx` and so on, for one image each.

        Raises:
            ExportError: A block cannot be expressed in ONNX, or a file cannot be written.
        """
        networks = [self._space.place(genotype) for genotype in genotypes]
        self._export(block for network in networks for block in network)
        return [
            write_model(self._assemble(network), folder / f"{number}.onnx")
            for number, network in enumerate(networks)
        ]

    def _export(self, blocks: Iterable[PlacedBlock]) -> None:
        new = {key: b for b in blocks if (key := _key(b)) not in self._graphs}
        keys = list(new)
        for start in range(0, len(keys), BLOCKS_AT_ONCE):
            portion = keys[start : start + BLOCKS_AT_ONCE]
            side_by_side = _SideBySide([new[key] for key in portion])
            model = convert(side_by_side, side_by_side.examples, side_by_side.names)
            self._functions |= {(f.domain, f.name): f for f in model.functions}
            self._imports |= {i.domain: i.version for i in model.opset_import}
            for number, key in enumerate(portion):
                self._graphs[key] = _part(model.graph, side_by_side.inputs[number], number)

    def _assemble(self, network: Sequence[PlacedBlock]) -> onnx.ModelProto:
        tensors = {INPUT: INPUT_NAME}
        graph = onnx.GraphProto(name="network")
        for block in network:
            part = self._graphs[_key(block)]
            inputs = zip(part.input, block.inputs, strict=True)
            names = {value.name: tensors[read] for value, read in inputs}
            last = block is network[-1]
            names[part.output[0].name] = OUTPUT_NAME if last else block.name
            tensors[block.name] = names[part.output[0].name]
            for initializer in part.initializer:
                # A block that returns a constant has no node: its output is the constant.
                names.setdefault(initializer.name, f"{block.name}.{initializer.name}")
                copied = graph.initializer.add()
                copied.CopyFrom(initializer)
                copied.name = names[initializer.name]
            for node in part.node:
                _place(graph.node.add(), node, names, block.name)
        shape = (1, *self._space.input_shape)
        output = (1, *network[-1].output_shape)
        graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape))
        graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, output))
        imports = [helper.make_opsetid(domain, v) for domain, v in self._imports.items()]
        functions = list(self._functions.values())
        return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)


class _SideBySide(nn.Module):
    """Blocks that have nothing to do with each other, exported together."""

    def __init__(self, blocks: Sequence[PlacedBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block.build() for block in blocks)
        self.inputs = [
            [f"block{number}_input{i}" for i in range(len(block.input_shapes))]
            for number, block in enumerate(blocks)
        ]
        self.examples = tuple(
            torch.zeros(1, *shape) for block in blocks for shape in block.input_shapes
        )

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Names of all inputs and of all outputs."""
        outputs = [f"block{number}_output" for number in range(len(self.inputs))]
        return [name for names in self.inputs for name in names], outputs

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Run every block on its own inputs."""
        rest = iter(inputs)
        parts = zip(self.blocks, self.inputs, strict=True)
        return [block(*[next(rest) for _ in names]) for block, names in parts]


def _key(block: PlacedBlock) -> _Key:
    return block.module, repr(sorted(block.arguments.items())), block.input_shapes


def _part(graph: onnx.GraphProto, inputs: Sequence[str], number: int) -> onnx.GraphProto:
    """Return what leads to one of the outputs, as a graph with all of a block's inputs."""
    output = graph.output[number]
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    needed, waiting, read = set[int](), [output.name], set[str]()
    while waiting:
        name = waiting.pop()
        read.add(name)
        maker = makers.get(name)
        if maker is not None and maker not in needed:
            needed.add(maker)
            waiting.extend(name for name in graph.node[maker].input if name)
    part = onnx.GraphProto(name=output.name)
    part.node.extend(graph.node[i] for i in sorted(needed))
    part.initializer.extend(i for i in graph.initializer if i.name in read)
    by_name = {value.name: value for value in graph.input}
    for name in inputs:
        # The exporter drops what no node reads.
        part.input.append(by_name.get(name, onnx.ValueInfoProto(name=name)))
    part.output.append(output)
    return part


def _place(
    placed: onnx.NodeProto, node: onnx.NodeProto, names: dict[str, str], prefix: str
) -> None:
    """Copy a node, with its tensors renamed."""
    placed.CopyFrom(node)
    placed.name = f"{prefix}.{node.name}"
    del placed.input[:], placed.output[:]
    placed.input.extend(names[name] if name else "" for name in node.input)
    for name in node.output:
        names.setdefault(name, f"{prefix}.{name}")
        placed.output.append(names[name])
