"""Kernels of whole networks: as this project tells them, and as ONNX Runtime makes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime

from latency_predictors.calibration.fusion import NORMALISATION, Kernel, fuse
from nas.core.space import Genotype
from nas.network.blocks import INPUT, ModuleSpec
from nas.network.costs import trace_spec
from nas.network.space import SearchSpace

KINDS = {
    "Conv": "conv",
    "FusedConv": "conv",
    "ReorderInput": "reorder_input",
    "ReorderOutput": "reorder_output",
    "MaxPool": "maxpool2d",
    "AveragePool": "avgpool2d",
    "Concat": "cat",
    "Add": "add",
    "Relu": "relu",
}
"""What ONNX Runtime calls a kernel, and what it is called here."""

BLOCKED = "com.microsoft.nchwc"


def network_kernels(space: SearchSpace, genotype: Genotype, width: int) -> list[Kernel]:
    """Fuse a network block by block, and run equal computations on one tensor once."""
    blocked = {INPUT: False}
    done: set[tuple[str, str, Kernel]] = set()
    kernels = []
    for block in space.place(genotype):
        spec = ModuleSpec(block.module, block.arguments)
        trace = trace_spec(spec.key, block.input_shapes)
        fused = fuse(trace, tuple(blocked[name] for name in block.inputs), width)
        for kernel in fused.kernels:
            part = replace(kernel, origin=None)
            if kernel.origin is not None:
                slot, before = kernel.origin
                key = (block.inputs[slot], before, part)
                if key in done:
                    continue
                done.add(key)
            kernels.append(part)
        blocked[block.name] = fused.blocked
    return kernels


def kernel_counts(space: SearchSpace, genotype: Genotype, width: int) -> Counter[str]:
    """Count kernels by kind; ` blocked` behind those that write blocked channels."""
    counts: Counter[str] = Counter()
    for kernel in network_kernels(space, genotype, width):
        kind = kernel.kind
        # ONNX Runtime runs a normalisation of blocked channels as a convolution.
        if kernel.is_convolution or (kind == NORMALISATION and kernel.blocked):
            kind = "conv"
        counts[_named(kind, blocked=kernel.blocked)] += 1
    return Counter({kind: n for kind, n in counts.items() if kind.split()[0] in KINDS.values()})


def runtime_counts(graph: onnx.GraphProto) -> Counter[str]:
    """Count the same in a graph that ONNX Runtime has optimised."""
    nodes = (node for node in graph.node if node.op_type in KINDS)
    return Counter(_named(KINDS[n.op_type], blocked=n.domain == BLOCKED) for n in nodes)


def optimised(file: Path) -> onnx.GraphProto:
    """Return the graph that ONNX Runtime runs for a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    written = file.with_suffix(".optimised.onnx")
    options.optimized_model_filepath = str(written)
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return onnx.load(str(written)).graph


def _named(kind: str, *, blocked: bool) -> str:
    # Only of these there are two implementations.
    two = kind in ("conv", "maxpool2d", "avgpool2d")
    return f"{kind} blocked" if two and blocked else kind
