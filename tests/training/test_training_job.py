from __future__ import annotations

import math
import pickle
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import search_spaces
from nas import data
from nas.core.errors import CandidateFailure
from nas.core.images import SearchSplits
from nas.core.recipe import Recipe
from nas.core.trial import Candidate
from nas.training.images import Normalisation
from nas.training.job import TrainingJob
from nas.training.trainer import error_percent


@pytest.fixture(scope="module")
def splits() -> SearchSplits:
    return data.get("digits").search_splits()


@pytest.fixture(scope="module")
def job(splits: SearchSplits) -> TrainingJob:
    space = search_spaces.get(
        "mobilenet",
        input_shape=splits.input_shape,
        num_classes=10,
        resolutions=(8,),
        widths=(0.5, 1.0),
        stem_stride=1,
        stage_channels=(16, 24),
        stage_strides=(1, 2),
        max_depth=1,
        head_channels=64,
    )
    return TrainingJob(
        space=space,
        train=splits.train,
        held_out=splits.validation,
        normalisation=Normalisation.of(splits.train),
        recipe=Recipe(epochs=3),
        return_weights=True,
    )


def candidate(job: TrainingJob, seed: int = 1) -> Candidate:
    genotype = (0,) * len(job.space.genes)
    arch_id = job.space.architecture(genotype).arch_id
    return Candidate(number=0, genotype=genotype, arch_id=arch_id, seed=seed)


def test_a_candidate_learns_and_its_weights_are_those_that_were_tested(
    job: TrainingJob, splits: SearchSplits
):
    outcome = job(candidate(job), math.inf)
    assert outcome.weights is not None
    assert outcome.metrics["error"] < 50  # guessing is wrong in 90 %
    network = job.space.build(candidate(job).genotype)
    network.load_state_dict(safetensors.torch.load(outcome.weights))
    error = error_percent(network, splits.validation, job.normalisation)
    assert error == outcome.metrics["error"]


def test_the_seed_decides_whatever_happened_before(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=200, shift=1))
    first = quick(candidate(job), math.inf)
    torch.randn(100)
    assert quick(candidate(job), math.inf) == first
    assert quick(candidate(job, seed=2), math.inf).weights != first.weights


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_job_that_was_sent_to_a_worker_does_the_same(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=200))
    sent = pickle.loads(pickle.dumps(quick))  # noqa: S301 - as Ray sends it
    for array in (sent.train.pixels, sent.train.labels, sent.held_out.pixels):
        array.setflags(write=False)  # as arrays in Ray's shared memory are
    assert sent(candidate(job), math.inf) == quick(candidate(job), math.inf)


def test_weights_are_only_handed_out_on_request(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=64), return_weights=False)
    assert quick(candidate(job), math.inf).weights is None


def test_a_deadline_is_kept(job: TrainingJob):
    with pytest.raises(CandidateFailure, match="timeout"):
        job(candidate(job), time.monotonic() - 1)


def test_threads_are_those_of_the_settings(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=64), threads=2)
    quick(candidate(job), math.inf)
    assert torch.get_num_threads() == 2
    replace(quick, threads=1)(candidate(job), math.inf)
    assert torch.get_num_threads() == 1


def test_auxiliary_classifiers_train_the_network_and_are_gone_afterwards(
    splits: SearchSplits, job: TrainingJob
):
    space = search_spaces.get(
        "darts", input_shape=splits.input_shape, num_classes=10, channels=(4,), cells_per_stage=(1,)
    )
    genotype = space.canonical([min(2, n - 1) for n in space.cardinalities])
    candidate = Candidate(number=0, genotype=genotype, arch_id="x", seed=1)
    losses = {}
    for weight in (0.0, 0.4):
        recipe = Recipe(epochs=1, train_samples=128, auxiliary_weight=weight)
        outcome = replace(job, space=space, recipe=recipe)(candidate, math.inf)
        weights = safetensors.torch.load(outcome.weights)
        assert weights.keys() == space.build(candidate.genotype).state_dict().keys()
        losses[weight] = weights["stem.layers.0.weight"]
    assert not torch.equal(losses[0.0], losses[0.4])
