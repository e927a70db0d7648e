"""A device whose latencies are known: every operator costs a call, its arithmetic and its traffic.

The price of a network follows from its ONNX file, or from its layers without one; both agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from torch import nn
from whole_costs import costs_of

from nas.core.errors import DeviceError
from nas.core.measurement import Device, ImageArray, Measurement
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.onnx import export_onnx
from nas.network.space import SearchSpace

PRICES = {
    "conv": (1e-3, 4e-8, 1e-7),
    "depthwise": (2e-3, 2e-7, 2e-7),
    "linear": (5e-4, 1e-7, 1e-7),
    "other": (2e-4, 0.0, 5e-8),
}
"""Milliseconds a call, a multiply-accumulate operation and a value moved."""

START = 0.01
"""Milliseconds of a network without operators."""

FREE = {"batchnorm2d", "identity", "dropout", "flatten"}
"""Layers that are no operators of a file: folded into others, or another shape only."""


class Call(NamedTuple):
    kind: str
    macs: int
    moved: int


def price_ms(calls: Iterable[Call]) -> float:
    total = START
    for call in calls:
        each, mac, value = PRICES[call.kind]
        total += each + mac * call.macs + value * call.moved
    return total


def calls_of_layers(space: SearchSpace, genotype: Genotype) -> list[Call]:
    calls = []
    for layer in costs_of(space, genotype).layers:
        if layer.kind in FREE:
            continue
        name = layer.kind.rstrip("0123456789d")
        kind = name if name in PRICES else "other"
        read = 0 if kind == "other" else layer.input_values
        calls.append(Call(kind, layer.macs, read + layer.output_values))
    return calls


def calls_of_file(file: Path) -> list[Call]:
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(file))).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    calls = []
    for node in graph.node:
        read, written = shapes[node.input[0]], shapes[node.output[0]]
        values = math.prod(read) + math.prod(written)
        if node.op_type == "Conv":
            weight = weights[node.input[1]]
            kind = "depthwise" if weight[1] == 1 and weight[0] == read[1] > 1 else "conv"
            calls.append(Call(kind, math.prod(weight) * math.prod(written[2:]), values))
        elif node.op_type == "Gemm":
            calls.append(Call("linear", math.prod(weights[node.input[1]]), values))
        elif node.op_type != "Reshape":
            calls.append(Call("other", 0, math.prod(written)))
    return calls


def latencies_ms(
    space: SearchSpace, genotypes: Sequence[Genotype], *, noise: float = 0.0, seed: int = 0
) -> FloatArray:
    """Return latencies, shape `(n,)`, with relative noise."""
    exact = np.array([price_ms(calls_of_layers(space, genotype)) for genotype in genotypes])
    return exact * np.exp(noise * np.random.default_rng(seed).standard_normal(len(genotypes)))


@dataclass
class SyntheticDevice(Device):
    """Measures by the price list; its peak memory is the file. Counts what it measured."""

    noise: float = 0.0
    measured: int = 0
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def prepare(
        self,
        models: Sequence[nn.Module | Path],
        input_shape: tuple[int, int, int],
        folder: Path,
        images: ImageArray | None = None,
    ) -> list[Path]:
        return [
            export_onnx(model, input_shape, folder / f"exported{number}.onnx")
            if isinstance(model, nn.Module)
            else model
            for number, model in enumerate(models)
        ]

    def measure_files(
        self,
        files: Sequence[Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        self.measured += len(files)
        return [self._measured(file, memory=memory, seed=seed) for file in files]

    def _measured(self, file: Path, *, memory: bool, seed: int) -> Measurement:
        latency_ms = price_ms(calls_of_file(file))
        latency_ms *= math.exp(self.noise * self._rng.standard_normal())
        size_mb = file.stat().st_size / 1e6
        return Measurement(
            samples_ms=(latency_ms,) * 3,
            relative_ci=0.01,
            peak_memory_mb=size_mb if memory else None,
            loading_memory_mb=0.8 * size_mb if memory else None,
            model_size_mb=size_mb,
            protocol={"seed": seed},
            device={"name": "synthetic"},
            environment={},
        )

    def outputs(self, file: Path, batches: Iterable[ImageArray]) -> Iterator[ImageArray]:
        raise DeviceError("a made-up device only has latencies")

    def identity(self) -> dict[str, Any]:
        return {"name": "synthetic", "prices": PRICES, "noise": self.noise}
