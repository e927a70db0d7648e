"""What training may ask of a network, and what must not depend on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import search_spaces
from nas.network.costs import trace_module
from nas.network.module import Dropout, DropPath
from nas.network.onnx import export_onnx
from nas.network.trainable import TrainableNetwork

SHAPE = (3, 16, 16)
SPACES = ("mobilenet", "vit", "nasbench201", "mnasnet", "nasbench_macro")


def build(name: str = "mobilenet") -> TrainableNetwork:
    space = search_spaces.get(name, input_shape=SHAPE, num_classes=10)
    torch.manual_seed(0)
    return space.build(space.sample(np.random.default_rng(0)))


def images(count: int = 8) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def rates(network: nn.Module) -> list[float]:
    return [module.rate for module in network.modules() if isinstance(module, DropPath)]


def test_whole_examples_are_dropped_and_the_others_scaled():
    layer = DropPath()
    layer.rate = 0.25
    torch.manual_seed(0)
    dropped = layer(torch.ones(20_000, 2, 3))
    values = dropped.flatten(1)
    assert (values == values[:, :1]).all()
    kept = values[:, 0] > 0
    assert torch.allclose(values[kept], torch.tensor(4 / 3))
    # Five standard deviations of a share of 20,000.
    assert abs(kept.float().mean() - 0.75) < 5 * (0.25 * 0.75 / 20_000) ** 0.5


@pytest.mark.parametrize("kind", [DropPath, Dropout])
def test_at_rate_0_and_in_evaluation_nothing_is_drawn(kind: type[nn.Module]):
    layer, x = kind(), torch.ones(4, 3)
    state = torch.get_rng_state()
    assert layer(x) is x
    layer.rate = 0.5
    assert layer.eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(layer.train()(x), x)


@pytest.mark.parametrize("name", SPACES)
def test_drop_path_grows_linearly_to_the_last_branch(name: str):
    network = build(name)
    assert rates(network)
    assert not any(rates(network))
    network.regularise(drop_path=0.2)
    found = rates(network)
    assert np.allclose(found, 0.2 * np.arange(1, len(found) + 1) / len(found))
    network.regularise()
    assert not any(rates(network))


def pair(name: str) -> tuple[TrainableNetwork, TrainableNetwork]:
    """Return a network, and the same one with both rates at a half, where it has the layers."""
    plain, regularised = build(name), build(name)
    regularised.regularise(dropout=0.5, drop_path=0.5 if regularised.has_drop_path else 0.0)
    return plain, regularised


@pytest.mark.parametrize("name", [*SPACES, "darts"])
def test_rates_change_training_alone(name: str):
    plain, regularised = pair(name)
    assert list(plain.state_dict()) == list(regularised.state_dict())
    torch.manual_seed(2)
    assert not torch.equal(plain(images()), regularised(images()))
    regularised.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(plain.eval()(images()), regularised.eval()(images()))
    traces = [trace_module(network, [SHAPE]) for network in (plain, regularised)]
    assert traces[0] == traces[1]
    assert not any("drop" in layer.kind for layer in traces[0].layers)


@pytest.mark.parametrize("name", ["nasbench_macro", "vit"])
def test_rates_leave_nothing_in_a_file(name: str, tmp_path: Path):
    files = [
        export_onnx(network, SHAPE, tmp_path / f"{i}.onnx").read_bytes()
        for i, network in enumerate(pair(name))
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float):
    with pytest.raises(ValueError, match="drop_path: got"):
        build().regularise(drop_path=rate)


def test_a_network_without_residual_branches_has_none_to_drop():
    network = build("darts")
    network.regularise(drop_path=0.1)
    assert network.has_dropout
    assert not network.has_drop_path


@pytest.mark.parametrize("name", [*SPACES, "darts"])
def test_recomputation_changes_nothing_but_memory(name: str):
    """Outputs, gradients, batch statistics and random numbers are those of a plain training."""
    results = []
    for recompute in (False, True):
        network = build(name)
        network.recompute = recompute
        network.regularise(dropout=0.2, drop_path=0.3 if network.has_drop_path else 0.0)
        torch.manual_seed(3)
        for _ in range(2):
            outputs = network(images())
            outputs.square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        results.append([outputs, *gradients, *network.buffers(), torch.get_rng_state()])
    for plain, recomputed in zip(*results, strict=True):
        assert (plain is None and recomputed is None) or torch.equal(plain, recomputed)


def test_recomputation_keeps_the_inputs_of_blocks_only():
    kept = []
    for recompute in (False, True):
        network = build()
        network.recompute = recompute
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(images())
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0] / 2
