"""What every zero-cost proxy must keep, and published facts about single ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from bases import required
from scipy.stats import kendalltau
from torch import nn

import search_spaces
from nas import data, tables
from nas.core.errors import CandidateFailure
from nas.evaluation import proxies
from nas.evaluation.proxies import Batch, Proxy, combined
from nas.evaluation.proxies.layers import gradients, positive
from nas.network.space import SearchSpace
from nas.tasks.classification import Classification

TASK = Classification(class_names=("a", "b", "c", "d"))
DATA_FREE = ("params", "macs", "synflow")


@pytest.fixture(params=proxies.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def proxy(name: str) -> Proxy:
    return proxies.get(name)


def small(space: str) -> SearchSpace:
    fewer = {"nasbench201": {"channels": 8, "cells_per_stage": 1}}.get(space, {})
    fewer |= required(space, (3, 8, 8), 4)
    return search_spaces.get(space, input_shape=(3, 8, 8), num_classes=4, **fewer)


def batch(n: int = 8, seed: int = 0, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, size, size, generator=generator)
    return Batch(images, torch.arange(n) % 4, TASK)


@pytest.mark.parametrize("space", search_spaces.names())
def test_a_random_network_has_finite_scores_and_stays_as_it_is(proxy: Proxy, space: str):
    own, drawn, images = small(space), np.random.default_rng(1), batch(4)
    torch.manual_seed(0)
    network = own.build(own.sample(drawn))
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(1)
    scores = proxy(network, images)
    assert scores
    assert np.isfinite(list(scores.values())).all()
    after = network.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.manual_seed(1)
    assert proxy(network, images) == scores


def test_only_some_proxies_look_at_the_images(name: str, proxy: Proxy):
    network = small("nasbench201").build((3, 2, 3, 1, 2, 3))
    scores = []
    for seed in (0, 1):
        torch.manual_seed(0)
        scores.append(proxy(network, batch(16, seed)))
    assert (scores[0] == scores[1]) == (name in DATA_FREE)


def test_a_larger_network_of_nasbench201_scores_higher(name: str, proxy: Proxy):
    # Each is published as positively related to accuracy in this space (zero-cost-nas, AZ-NAS).
    table, own = tables.get("nasbench201"), small("nasbench201")
    rows = np.random.default_rng(0).choice(len(table.genotypes), 30, replace=False)
    scores, kept = [], []
    for row in rows.tolist():
        torch.manual_seed(row)
        network = own.build(table.genotypes[row].tolist())
        try:
            scores.append(list(proxy(network, batch(16)).values()))
        except CandidateFailure:
            continue
        kept.append(row)
    values = combined(np.nan_to_num(np.array(scores), neginf=-1e300))
    found = kendalltau(values, -np.asarray(table.error("cifar10", 200))[kept])
    assert len(kept) > 25
    assert found.statistic > 0.2


def test_costs_are_those_of_the_space():
    for name in search_spaces.names():
        own = small(name)
        genotype = own.sample(np.random.default_rng(0))
        counted, network = own.costs([genotype]).iloc[0], own.build(genotype)
        [params] = proxies.get("params")(network, batch()).values()
        [macs] = proxies.get("macs")(network, batch()).values()
        assert params == pytest.approx(counted["params_m"] * 1e6)
        assert macs == pytest.approx(counted["macs_m"] * 1e6)


class Linear(nn.Module):
    """Two linear layers without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(3, 5, bias=False), nn.ReLU()
        self.last = nn.Linear(5, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x.flatten(1))))


def test_synflow_is_the_sum_over_all_paths_of_the_products_of_their_weights():
    # Tanaka et al., equation 1: of every layer the flow is 1^T |W_L| ... |W_1| 1.
    torch.manual_seed(0)
    network = Linear()
    images = Batch(torch.zeros(2, 3, 1, 1), torch.zeros(2, dtype=torch.long), TASK)
    through = network.last.weight.abs().double() @ network.first.weight.abs().double()
    [found] = proxies.get("synflow")(network, images).values()
    assert found == pytest.approx(np.log1p(2 * float(through.detach().sum())))


def test_synflow_does_not_overflow_in_a_deep_network():
    own = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    [found] = proxies.get("synflow")(own.build([3] * 6), batch(2, size=32)).values()
    assert np.log(np.finfo(np.float32).max) < found < np.inf


def test_gradients_have_the_formulas_of_the_papers():
    torch.manual_seed(0)
    network, own = Linear(), batch(8, size=1)
    found = list(gradients(network, own))
    [snip] = proxies.get("snip")(network, own).values()
    [norm] = proxies.get("grad_norm")(network, own).values()
    assert snip == pytest.approx(sum(float((w * g).abs().sum()) for w, g in found))
    assert norm == pytest.approx(sum(float((g**2).sum() ** 0.5) for _, g in found))
    halves = [[g.numpy() for _, g in gradients(network, part)] for part in own.split(2)]
    zico = 0.0
    for one, other in zip(*halves, strict=True):
        mean, std = (abs(one) + abs(other)) / 2, abs(one - other) / 2
        zico += np.log((mean[std > 0] / std[std > 0]).sum())
    assert proxies.get("zico")(network, own)["zico"] == pytest.approx(zico, rel=1e-5)


def test_naswot_counts_agreements():
    torch.manual_seed(0)
    network, own = Linear(), batch(6, size=1)
    [codes] = positive(network, own.images)
    agree = (codes[:, None] == codes[None]).sum(2).double()
    [found] = proxies.get("naswot")(network, own).values()
    assert found == pytest.approx(float(torch.linalg.slogdet(agree).logabsdet))
    twice = Batch(own.images[[0, 0, 1, 2]], own.targets[:4], TASK)
    assert proxies.get("naswot")(network, twice)["naswot"] == -np.inf


def test_swap_counts_patterns():
    own = batch(4)
    network = small("nasbench201").build((3, 2, 3, 1, 2, 3))
    [found] = proxies.get("swap")(network, own).values()
    patterns = torch.cat(positive(network, own.images), 1).T
    assert found == len(torch.unique(patterns, dim=0)) <= 2**4


@pytest.mark.parametrize("function", [nn.functional.relu, nn.ReLU6(), nn.Hardswish(), nn.GELU()])
def test_activations_are_seen_however_they_are_called(function: nn.Module):
    class Activated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    images = torch.randn(2, 3, 4, 4)
    [found] = positive(Activated(), images)
    assert torch.equal(found, (images > 0).flatten(1))


def test_what_a_proxy_cannot_score_is_a_failed_candidate():
    with pytest.raises(CandidateFailure, match="activations"):
        positive(nn.Flatten(), torch.zeros(2, 3, 4, 4))
    with pytest.raises(CandidateFailure, match="linear layers"):
        list(gradients(nn.Flatten(), batch()))


def test_ranks_are_combined_as_in_az_nas():
    scores = np.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0]])
    expected = np.log([[1 / 3, 1 / 3], [2 / 3, 1], [1, 2 / 3]]).sum(1)
    assert combined(scores) == pytest.approx(expected)
    assert combined(scores[:, :1]).tolist() == [1.0, 2.0, 3.0]


def test_an_image_of_the_data_is_scored():
    digits = data.get("digits").search_splits().train.sample(8, seed=0)
    pixels, targets = map(torch.from_numpy, digits.batch(slice(None)))
    own = search_spaces.get("mobilenet", input_shape=(1, 8, 8), num_classes=10)
    network = own.build(own.sample(np.random.default_rng(0)))
    assert proxies.get("zico")(network, Batch(pixels / 255, targets, digits.task))["zico"] > 0
