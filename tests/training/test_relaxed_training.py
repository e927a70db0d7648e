"""Gradients of relaxed networks against enumeration and differences."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from relaxed_spaces import TinySpace

from nas import data
from nas.core.errors import ConfigError
from nas.core.recipe import Recipe
from nas.core.relaxation import Goal, RelaxationSettings
from nas.core.space import Gene
from nas.core.trial import Candidate
from nas.network.trained import Preprocessing
from nas.training import relaxed
from nas.training.relaxed import RelaxedJob, RelaxedTraining

EVERY = list(itertools.product(range(3), repeat=3))


def macs(rows: np.ndarray) -> np.ndarray:
    return TinySpace().costs(rows)["macs_m"].to_numpy(float)


@pytest.fixture(scope="module")
def job() -> RelaxedJob:
    images = data.get("digits").search_splits().train
    return RelaxedJob(
        space=TinySpace(),
        train=images,
        preprocessing=Preprocessing.of(images),
        recipe=Recipe.of(),
        settings=RelaxationSettings(epochs=4),
        cost=macs,
    )


def begun(job: RelaxedJob, target: float = 0.1, **settings: object) -> RelaxedTraining:
    """A training whose distributions are no longer uniform."""
    job = replace(job, settings=replace(job.settings, **settings))
    training = RelaxedTraining(job, Goal(target, 0), torch.device("cpu"))
    with torch.no_grad():
        for logit in training.logits:
            logit.copy_(torch.linspace(-0.5, 0.5, len(logit)))
    return training


def batches(training: RelaxedTraining, count: int = 32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [training._seen(torch.arange(start, start + count)) for start in (0, count)]


def probability(training: RelaxedTraining, genotype: tuple[int, ...]) -> torch.Tensor:
    factors = [x.softmax(0)[c] for x, c in zip(training.logits, genotype, strict=True)]
    return torch.stack(factors).prod()


def test_the_gradient_by_policy_is_that_of_the_expected_loss(job: RelaxedJob):
    training = begun(job, samples=16)
    batch, other = batches(training)
    with torch.no_grad():
        losses = [training._loss(batch, g, training._mixture()) for g in EVERY]
    expected = sum(probability(training, g) * x for g, x in zip(EVERY, losses, strict=True))
    exact = torch.cat(torch.autograd.grad(expected, training.logits))
    drawn = torch.stack([torch.cat(training.task_gradients(batch, other)) for _ in range(120)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() < 4 * error + 1e-6).all()
    assert exact.abs().max() > 4 * error.max()


@pytest.mark.parametrize("order", [1, 2])
def test_the_gradient_of_a_mixture_is_that_of_differences(job: RelaxedJob, order: int):
    training = begun(job, relaxation="mixed", order=order)
    training.network.double()
    training.logits = [x.detach().double().requires_grad_() for x in training.logits]
    batch, other = [(x.double(), t) for x, t in batches(training)]
    genotype = (1, 0, 0)
    _, gradients = training._mixed_gradients(genotype, batch, other)
    rate = training._optimizers[0].param_groups[0]["lr"] * (order - 1)

    def value() -> float:
        parameters = training._parameters
        before = [p.detach().clone() for p in parameters]
        loss = training._loss(other, genotype, training._mixture())
        training._move(before, training._gradients(loss, parameters), -rate)
        unrolled = training._loss(batch, genotype, training._mixture()).item()
        training._move(before, before, 0.0)
        return unrolled

    for gene, logit in enumerate(training.logits):
        for choice in range(len(logit)):
            with torch.no_grad():
                logit[choice] += 1e-5
                above = value_of(value)
                logit[choice] -= 2e-5
                below = value_of(value)
                logit[choice] += 1e-5
            difference = (above - below) / 2e-5
            assert gradients[gene][choice].item() == pytest.approx(difference, rel=1e-3, abs=1e-6)
    assert not gradients[0].any()
    assert gradients[1].any()


def value_of(value) -> float:
    with torch.enable_grad():
        return value()


def test_the_expected_cost_is_that_of_enumeration(job: RelaxedJob, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relaxed, "TABLE_NETWORKS", 4000)
    target = 0.02
    training = begun(job, target)
    deviations = np.abs(np.log(macs(np.array(EVERY)) / target))
    table = training.cost_table()
    with torch.no_grad():
        p = np.array([probability(training, genotype).item() for genotype in EVERY])
    for gene in range(3):
        for choice in range(3):
            given = np.array([genotype[gene] == choice for genotype in EVERY])
            exact = (p * deviations)[given].sum() / p[given].sum()
            assert table[gene][choice].item() == pytest.approx(exact, rel=0.05)


def test_the_dominant_eigenvalue_is_that_of_the_hessian(
    job: RelaxedJob, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(relaxed, "POWER_STEPS", 200)
    training = begun(job, relaxation="mixed")
    monkeypatch.setattr(training, "_draw", lambda: [1, 0, 0])
    batch, _ = batches(training)
    found = training.dominant_eigenvalue(batch)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        mixture = [torch.ones(3) / 3, *(part.softmax(0) for part in flat.split(3))]
        return training._loss(batch, [1, 0, 0], mixture)

    flat = torch.cat(training.logits[1:]).detach()
    hessian = torch.autograd.functional.hessian(loss, flat)
    largest = torch.linalg.eigvalsh(hessian).abs().max().item()
    assert found == pytest.approx(largest, rel=0.05)


@pytest.mark.parametrize("relaxation", ["policy", "sampled", "mixed"])
def test_what_is_found_is_canonical_and_costs_what_is_aimed_at(job: RelaxedJob, relaxation: str):
    costs = macs(np.array(EVERY))
    goals = tuple(Goal(float(t), 1) for t in np.quantile(costs, [0.05, 0.95]))
    settings = RelaxationSettings(epochs=6, relaxation=relaxation, learning_rate=0.1, cost_weight=3)
    job = replace(job, settings=settings, goals=goals)
    found = []
    for number, goal in enumerate(goals):
        outcome = job(
            Candidate(number=number, genotype=(0, 0, 0), arch_id="", seed=goal.seed), math.inf
        )
        genotype = tuple(outcome.details["genotype"])
        assert job.space.canonical(genotype) == genotype
        found.append(outcome.details["cost"])
    assert found == sorted(found)
    assert found[0] < 0.5 * found[1]


def test_equal_seeds_find_the_same(job: RelaxedJob):
    job = replace(job, goals=(Goal(0.05, 3),))
    candidate = Candidate(number=0, genotype=(0, 0, 0), arch_id="", seed=3)
    assert job(candidate, math.inf).details == job(candidate, math.inf).details


def test_a_training_is_cut(job: RelaxedJob):
    job = replace(job, goals=(Goal(0.05, 3),))
    candidate = Candidate(number=0, genotype=(0, 0, 0), arch_id="", seed=3, cut_after_s=0.0)
    outcome = job(candidate, math.inf)
    assert outcome.cut_at is not None
    assert "genotype" not in outcome.details


def test_beta_adds_the_probabilities_to_the_gradient(job: RelaxedJob):
    """The derivative of a gene's summed exponentials, by the number of genes."""
    found = []
    for beta in (0.0, 6.0):
        training = begun(job, relaxation="mixed", cost_weight=0.0, beta=beta)
        probabilities = [x.softmax(0).detach() for x in training.logits]
        torch.manual_seed(0)
        training._change_architecture(*batches(training), progress=0.5)
        found.append([x.grad for x in training.logits])
    for plain, regularised, p in zip(*found, probabilities, strict=True):
        torch.testing.assert_close(regularised - plain, 0.5 * 6.0 * p / 3)


def test_a_growing_eigenvalue_ends_a_training_with_the_weights_before(job: RelaxedJob):
    stopped = begun(job, relaxation="mixed", eigenvalue_ratio=1e9, warmup=0.0)
    while stopped.taken < stopped.total and not stopped.stopped:
        stopped.take()
    assert stopped.stopped
    assert stopped.taken < stopped.total
    for logit, kept in zip(stopped.logits, stopped._kept, strict=True):
        assert logit.equal(kept)


class UnreadSpace(TinySpace):
    """A gene that training cannot compare."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (*super().genes, Gene("precision", ("fp32", "int8"), ordinal=False))


def test_genes_that_cannot_be_relaxed_are_named(job: RelaxedJob):
    with pytest.raises(ConfigError, match="gene precision, which no block reads"):
        replace(job, space=UnreadSpace())


@pytest.mark.parametrize(
    "wrong",
    [
        {"relaxation": "soft"},
        {"epochs": 0},
        {"samples": 1},
        {"warmup": 1.0},
        {"beta": -1.0},
        {"learning_rate": 0.0},
        {"order": 3},
        {"order": 2},
        {"operation_dropout": 0.1},
        {"eigenvalue_ratio": 0.75, "relaxation": "sampled"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError, match=f"search.algorithm.{next(iter(wrong))}: got"):
        RelaxationSettings(**wrong)
