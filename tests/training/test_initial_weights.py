"""Trainings that begin with the weights of another network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import search_spaces
from nas import data
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Parent
from nas.network.inheritance import PretrainedWeights
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.precision import TYPES

ALMOST_NO_STEP = {"learning_rate": 1e-12}


@pytest.fixture(scope="module")
def job() -> TrainingJob:
    splits = data.get("digits").search_splits()
    space = search_spaces.get(
        "mobilenet",
        input_shape=splits.input_shape,
        num_classes=10,
        resolutions=(8,),
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
        preprocessing=Preprocessing.of(splits.train),
        recipe=Recipe.of(epochs=1, optimizer=ALMOST_NO_STEP),
        return_weights=True,
    )


def candidate(job: TrainingJob, last: int = 0, **fields: object) -> Candidate:
    genotype = job.space.canonical([range(n)[last] for n in job.space.cardinalities])
    arch_id = job.space.architecture(genotype).arch_id
    return Candidate(number=1, genotype=genotype, arch_id=arch_id, seed=1, **fields)


def trained_weights(job: TrainingJob) -> bytes:
    long = replace(job, recipe=Recipe.of(epochs=3))
    weights = long(candidate(job, -1), math.inf).weights
    assert weights is not None
    return weights


def parameters(job: TrainingJob, weights: bytes | None) -> list[torch.Tensor]:
    assert weights is not None
    network = job.space.build(candidate(job, -1).genotype)
    network.load_state_dict(safetensors.torch.load(weights))
    return list(network.parameters())


def test_a_training_begins_with_the_weights_of_its_parent_or_of_the_initial_network(job):
    weights = trained_weights(job)
    own = candidate(job, -1)
    inherited = job(replace(own, parent=Parent(0, own.genotype, weights)), math.inf)
    network = job.space.build(own.genotype)
    network.load_state_dict(safetensors.torch.load(weights))
    initial = replace(job, initial=PretrainedWeights(network=network))(own, math.inf)
    for outcome in (inherited, initial):
        assert outcome.metrics["error"] < 50  # guessing is wrong in 90 %
        for found, before in zip(
            parameters(job, outcome.weights), parameters(job, weights), strict=True
        ):
            torch.testing.assert_close(found, before)
    assert job(own, math.inf).metrics["error"] > 50


def test_a_checkpoint_counts_more_than_the_parent(job):
    own = candidate(job, fidelity=0.5)
    other = candidate(job, -1)
    weights = trained_weights(job)
    half = job(own, math.inf)
    rest = replace(own, fidelity=1.0, checkpoint=half.checkpoint)
    plain = job(rest, math.inf)
    with_parent = job(replace(rest, parent=Parent(0, other.genotype, weights)), math.inf)
    assert plain.weights == with_parent.weights


def test_trained_networks_tell_how_they_were_trained(job):
    outcome = job(candidate(job), math.inf)
    facts = job.trained_network(candidate(job), outcome, training={"images": 7}).provenance
    assert facts["recipe"]["compute"]["precision"] in TYPES  # not `auto`
    assert facts["recipe"]["teacher"] is None
    assert facts["training"] == {"images": 7, "epochs_trained": job.recipe.epochs}


def test_trained_networks_tell_where_their_weights_come_from(job):
    source = {"folder": "somewhere", "sha256": "0" * 64}
    network = job.space.build(candidate(job).genotype)
    begun = replace(job, initial=PretrainedWeights(network=network, source=source))
    outcome = begun(candidate(job), math.inf)
    assert begun.trained_network(candidate(job), outcome).provenance["pretrained_weights"] == source
