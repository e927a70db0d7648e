"""A device whose latencies are known: every layer costs a call, its arithmetic and its traffic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from nas.core.measurement import Device, Measurement
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.network.costs import Costs, count
from nas.network.space import SearchSpace

PRICES = {"conv": (1e-3, 4e-8, 1e-7), "depthwise": (2e-3, 2e-7, 2e-7), "linear": (5e-4, 1e-7, 1e-7)}
"""Milliseconds a call, a multiply-accumulate operation and a value moved."""


def latency_ms(costs: Costs) -> float:
    """Return the latency of a network without noise."""
    total = 0.01
    for layer in costs.layers:
        kind = layer.kind.rstrip("0123456789")
        call, mac, value = PRICES.get(kind, (2e-4, 0.0, 5e-8))
        moved = layer.input_values + layer.output_values + layer.params
        total += call + mac * layer.macs + value * moved
    return total


def latencies_ms(
    space: SearchSpace, genotypes: Sequence[Genotype], *, noise: float = 0.0, seed: int = 0
) -> FloatArray:
    """Return latencies, shape `(n,)`, with relative noise."""
    exact = np.array([latency_ms(space.count(genotype)) for genotype in genotypes])
    return exact * np.exp(noise * np.random.default_rng(seed).standard_normal(len(genotypes)))


class SyntheticDevice(Device):
    """Measures by the price list; remembers what it was given."""

    def __init__(self) -> None:
        self.measured: list[nn.Module] = []

    def measure_many(
        self,
        models: Sequence[nn.Module | Path],
        input_shape: tuple[int, int, int],
        *,
        memory: bool = False,
        seed: int = 0,
        seconds_per_model: float | None = None,
    ) -> list[Measurement]:
        networks = [model for model in models if isinstance(model, nn.Module)]
        self.measured += networks
        return [
            Measurement(
                samples_ms=(latency_ms(count(network, input_shape)),) * 3,
                relative_ci=0.01,
                peak_memory_mb=None,
                protocol={"seed": seed},
                device={"name": "synthetic"},
                environment={},
            )
            for network in networks
        ]
