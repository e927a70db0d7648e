"""A training in several processes is the training in one, up to the order of sums."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

import search_spaces
from nas import data
from nas.core.errors import CandidateFailure, ConfigError
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Outcome
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob

pytestmark = pytest.mark.slow  # processes that load PyTorch

RECIPE = Recipe.of(
    "fast",
    "transformer",
    epochs=2,
    train_samples=192,
    compute={"accumulate": 2},
    ema=0.2,
    patience=5,
)


@pytest.fixture(scope="module")
def job() -> TrainingJob:
    splits = data.get("digits").search_splits()
    space = search_spaces.get("vit", input_shape=(1, 8, 8), num_classes=10)
    return TrainingJob(
        space=space,
        train=splits.train,
        held_out=splits.validation.sample(200, seed=0),
        preprocessing=Preprocessing.of(splits.train),
        recipe=RECIPE,
        return_weights=True,
    )


def candidate(job: TrainingJob) -> Candidate:
    genotype = job.space.canonical([0] * len(job.space.genes))
    return Candidate(number=0, genotype=genotype, arch_id="x", seed=5)


def losses(*outcomes: Outcome) -> list[float]:
    return [record["loss"] for outcome in outcomes for record in outcome.history]


def weights(outcome: Outcome) -> np.ndarray:
    assert outcome.weights is not None
    tensors = safetensors.torch.load(outcome.weights)
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)]).numpy()


def test_two_processes_train_as_one_and_go_on_from_a_checkpoint(job: TrainingJob):
    one = job(candidate(job), math.inf)
    two = replace(job, processes=2)
    first = two(replace(candidate(job), fidelity=0.7), math.inf)
    rest = two(replace(candidate(job), checkpoint=first.checkpoint), math.inf)
    assert losses(first, rest) == pytest.approx(losses(one), rel=1e-4)
    assert weights(rest) == pytest.approx(weights(one), abs=1e-3)
    assert rest.metrics["error"] == pytest.approx(one.metrics["error"], abs=1.1)


def test_the_first_process_says_when_all_stop(job: TrainingJob):
    two = replace(job, processes=2)
    cut = two(replace(candidate(job), cut_after_s=0.0), math.inf)
    assert cut.cut_at == pytest.approx(1 / 6)
    with pytest.raises(CandidateFailure, match="timeout"):
        two(candidate(job), time.monotonic())


def test_a_batch_has_an_image_for_every_process(job: TrainingJob):
    with pytest.raises(ConfigError, match="batch_size"):
        replace(job, processes=33)
