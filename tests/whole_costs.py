"""Exact costs of one network, by a trace of the whole and by the tables of its space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from nas.network.blocks import ModuleSpec
from nas.network.costs import BYTES_PER_VALUE, Layer, Shape, trace_module, trace_spec
from nas.network.space import MEGA, SearchSpace


@dataclass(frozen=True)
class Costs:
    params: int
    macs: int
    activations: int
    peak_activation_bytes: int
    model_bytes: int
    layers: tuple[Layer, ...]


def count(network: nn.Module, input_shape: Shape) -> Costs:
    """Trace a network, which is moved to the meta device."""
    trace = trace_module(network, [input_shape])
    return Costs(
        params=trace.params,
        macs=trace.macs,
        activations=trace.activations,
        peak_activation_bytes=trace.peak_values([False]) * BYTES_PER_VALUE,
        model_bytes=trace.model_bytes,
        layers=trace.layers,
    )


def costs_of(space: SearchSpace, genotype: Sequence[int]) -> Costs:
    """Look up what a space counts of a network; the layers are those of its blocks' traces."""
    specs = [(ModuleSpec(b.module, b.arguments).key, b.input_shapes) for b in space.place(genotype)]
    counts = {name: round(value * MEGA) for name, value in space.costs([genotype]).iloc[0].items()}
    return Costs(
        params=counts["params_m"],
        macs=counts["macs_m"],
        activations=counts["activations_m"],
        peak_activation_bytes=counts["peak_activation_mb"],
        model_bytes=counts["model_size_mb"],
        layers=tuple(layer for spec in specs for layer in trace_spec(*spec).layers),
    )
