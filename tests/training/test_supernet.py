"""Shared weights in training: what is sampled, what a checkpoint keeps, what is learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import safetensors.torch
import torch
from small_spaces import mobilenet_of_few_blocks, small_mobilenet
from torch import nn

import nas.data
import search_spaces
from nas.core.errors import ConfigError
from nas.core.recipe import Recipe
from nas.core.sampling import SamplingSettings
from nas.core.space import Gene
from nas.core.trial import Candidate
from nas.evaluation.supernet import SupernetSettings
from nas.evaluation.training import TrainingSettings
from nas.network.blocks import Block, ModuleSpec
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.supernet import NetworkSampling, SupernetJob

SPLIT = "stage1.depth"


def training_job(**changes: object) -> TrainingJob:
    splits = nas.data.get("digits").search_splits()
    train = splits.train.take(np.arange(320))
    recipe = {"epochs": 2, "train_samples": 320, "batch_size": 64, **changes}
    return TrainingJob(
        space=mobilenet_of_few_blocks(),
        train=train,
        held_out=splits.validation,
        preprocessing=Preprocessing.of(train),
        recipe=Recipe.of("fast", **recipe),
    )


def supernet(strategy: str = "", **changes: object) -> SupernetJob:
    sampling = SamplingSettings(strategy=strategy)
    return training_job(**changes).of_supernet(sampling, 128)


def test_the_compressed_size_is_counted_where_it_is_asked_for() -> None:
    job = replace(training_job(), counts_stored=True).of_supernet(SamplingSettings(), 128).training
    network = job.space.build(job.space.sample(np.random.default_rng(0)))
    bytes_of_weights = 4 * sum(p.numel() for p in network.parameters())
    assert 0.5 < job.metrics_of(network)["stored_size_mb"] * 1e6 / bytes_of_weights < 1.2
    assert "stored_size_mb" not in training_job().metrics_of(network)


def test_fewer_validation_images_judge_candidates() -> None:
    settings = SupernetSettings(validation_images=50)
    assert (settings.judged(359), settings.judged(20)) == (50, 20)
    job = settings.job(lambda recipe: training_job(), partial=True)
    assert isinstance(job, SupernetJob)
    assert isinstance(job.stand_alone, TrainingJob)
    trained = TrainingSettings(validation_images=50).job(lambda recipe: training_job())
    assert isinstance(trained, TrainingJob)
    for each in (job.training, job.stand_alone, trained):
        assert len(each.held_out) == 50
    with pytest.raises(ConfigError, match="validation_images"):
        TrainingSettings(validation_images=0)


def candidate(**changes: object) -> Candidate:
    return Candidate(**{"number": 0, "genotype": (), "arch_id": "", "seed": 3, **changes})


def trained(job: SupernetJob, **changes: object) -> bytes:
    outcome = job.training(candidate(**changes), math.inf)
    assert outcome.weights is not None
    return outcome.weights


def judging(job: SupernetJob, weights: bytes) -> SupernetJob:
    arrays = {name: t.numpy() for name, t in safetensors.torch.load(weights).items()}
    for array in arrays.values():
        array.flags.writeable = False  # as in Ray's object store
    return job.with_weights(arrays, {})


def test_the_sandwich_is_of_the_largest_the_smallest_and_random_ones():
    space = small_mobilenet()
    sampling = NetworkSampling(space, SamplingSettings(random_networks=2))
    assert sampling.strategy == "sandwich"
    largest, smallest, *others = sampling.networks(0, 0, 0.0)
    macs = space.costs([largest, *space.samples(100, np.random.default_rng(0)), smallest])["macs_m"]
    assert macs.idxmax() == 0
    assert macs.idxmin() == len(macs) - 1
    assert len(others) == 2
    assert sampling.networks(0, 1, 0.0)[2:] != others
    assert sampling.networks(0, 0, 0.0)[2:] == others


def test_strict_fairness_trains_every_choice_equally_often():
    space = search_spaces.get(
        "nasbench201", input_shape=(3, 8, 8), num_classes=4, merge_equal=False
    )
    sampling = NetworkSampling(space, SamplingSettings())
    assert sampling.strategy == "fair"
    networks = sampling.networks(0, 0, 0.0)
    assert len(networks) == 5
    for choices in zip(*networks, strict=True):
        assert Counter(choices) == dict.fromkeys(range(5), 1)


def test_a_single_path_is_one_random_network():
    sampling = NetworkSampling(small_mobilenet(), SamplingSettings(strategy="uniform"))
    assert len(sampling.networks(0, 0, 0.0)) == 1
    assert len({sampling.networks(0, step, 0.0)[0] for step in range(20)}) > 10


def test_smaller_choices_are_allowed_one_name_after_another():
    space = small_mobilenet()
    settings = SamplingSettings(
        strategy="shrinking", shrinking_order=("kernel", "depth"), random_networks=30
    )
    sampling = NetworkSampling(space, settings)

    def values(progress: float, name: str) -> set[object]:
        decoded = [
            space.decode(g) for step in range(3) for g in sampling.networks(0, step, progress)
        ]
        return {v for each in decoded for gene, v in each.items() if gene.endswith(name)}

    largest = {name: values(0.0, name) for name in ("kernel", "depth")}
    assert all(len(each) == 1 for each in largest.values())
    assert len(values(0.0, "expansion")) > 1
    assert len(values(0.45, "kernel")) > 1
    assert values(0.45, "depth") == largest["depth"]
    assert len(values(1.0, "depth")) > 1


def test_only_promoted_candidates_are_trained_by_themselves():
    alone = training_job(epochs=1)
    job = training_job().of_supernet(SamplingSettings(), 128, alone)
    job = judging(job, trained(job))
    genotype = job.training.space.sample(np.random.default_rng(0))
    promoted = candidate(genotype=genotype)
    inherited = candidate(genotype=genotype, fidelity=0.05)
    assert job(promoted, math.inf).metrics == alone(promoted, math.inf).metrics
    judged = replace(job, stand_alone=None)(promoted, math.inf)
    assert job(inherited, math.inf).metrics == judged.metrics
    assert judged.history == ()


@pytest.mark.parametrize("settings", [{}, {"strategy": "fair"}, {"split": SPLIT}])
def test_a_training_goes_on_from_its_checkpoint_bit_for_bit(settings):
    job = training_job(ema=0.2).of_supernet(SamplingSettings(**settings), 128)
    whole = trained(job)
    begun = job.training(candidate(fidelity=0.3), math.inf)
    assert begun.weights is None
    assert begun.checkpoint is not None
    cut = job.training(candidate(checkpoint=begun.checkpoint, cut_after_s=0.0), math.inf)
    assert cut.checkpoint is not None
    assert trained(job, checkpoint=cut.checkpoint) == whole


@pytest.mark.slow
def test_a_supernet_learns_and_judges_any_network():
    whole = nas.data.get("digits").search_splits().train
    recipe = Recipe.of("fast", epochs=8, optimizer={"name": "muon"})
    own = replace(training_job(), space=mobilenet_of_few_blocks(), train=whole, recipe=recipe)
    job = own.of_supernet(SamplingSettings(random_networks=1), 256)
    judge = judging(job, trained(job))
    space, sampling = job.training.space, job.training.sampling
    others = space.samples(3, np.random.default_rng(0)).tolist()
    errors = []
    for genotype in (sampling.largest, sampling.smallest, *map(tuple, others)):
        metrics = judge(candidate(genotype=genotype), math.inf).metrics
        assert metrics == judge(candidate(genotype=genotype), math.inf).metrics
        errors.append(metrics["error"])
    assert max(errors) < 40  # of 90 by chance
    assert errors[0] == min(errors)


def test_a_network_begins_with_its_part():
    job = supernet(epochs=1)
    weights, largest = judging(job, trained(job)).weights, job.training.sampling.largest
    network = training_job().space.build(largest)
    assert weights.inherited_by(network, largest) == 1.0
    own = weights.shared().extract(job.training.sampling.largest)
    for name, parameter in own.named_parameters():
        assert torch.equal(network.get_parameter(name), parameter)


def test_what_a_supernet_depends_on_is_told_apart():
    identity = supernet().training.identity
    assert supernet().training.identity == identity
    assert supernet("sandwich").training.identity == identity  # the space's own
    for name, other in (
        ("evaluation.recipe", supernet(epochs=3)),
        ("evaluation.strategy", supernet("fair")),
        ("evaluation.strategy", training_job().of_supernet(SamplingSettings(split=SPLIT), 128)),
    ):
        differing = {k for k, v in other.training.identity.items() if v != identity[k]}
        assert differing == {name}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("patience", {"patience": 2}),
        ("teacher.source", {"teacher": {"source": "self"}, "ema": 0.1}),
        ("compute.compile", {"compute": {"compile": True}}),
    ],
)
def test_recipes_that_a_supernet_cannot_follow_are_refused(name, changes):
    with pytest.raises(ConfigError, match=rf"evaluation\.recipe\.{name}"):
        supernet(**changes)


class Head(nn.Sequential):
    def __init__(self, input_shape, num_classes):
        pooling = nn.AdaptiveAvgPool2d(1)
        super().__init__(pooling, nn.Flatten(), nn.Linear(input_shape[0], num_classes))


@dataclass(frozen=True, kw_only=True)
class Apart(SearchSpace):
    @property
    def genes(self) -> tuple[Gene, ...]:
        return (Gene("head", (0, 1, 2)),)

    def blocks(self) -> Iterator[Block]:
        spec = ModuleSpec(Head, {"num_classes": self.num_classes})
        for i in range(3):
            yield Block(f"head{i}", lambda chosen, i=i: spec if chosen["head"] == i else None)


def test_a_space_that_shares_nothing_is_refused():
    job = supernet().training
    job.check()
    with pytest.raises(ConfigError, match=r"search_space: got 'Apart'"):
        replace(job, space=Apart(input_shape=(1, 8, 8), num_classes=10)).check()


def test_settings_out_of_range_are_named():
    for changes in ({"strategy": "best"}, {"random_networks": -1}, {"shrinking_from": 0.9}):
        with pytest.raises(ConfigError, match=r"evaluation\."):
            SamplingSettings(**changes)
    job = training_job()
    with pytest.raises(ConfigError, match="shrinking_order"):
        job.of_supernet(SamplingSettings(shrinking_order=("kernels",)), 8)
    with pytest.raises(ConfigError, match=r"evaluation.split: got 'stage9.depth'"):
        job.of_supernet(SamplingSettings(split="stage9.depth"), 8)
    assert replace(SamplingSettings(), random_networks=0).random_networks == 0
