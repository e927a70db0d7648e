from __future__ import annotations

import math
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import nn

import search_spaces
from nas import data
from nas.core.dataset import SearchSplits
from nas.core.errors import CandidateFailure, ConfigError
from nas.core.recipe import Recipe
from nas.core.space import Gene
from nas.core.trial import Candidate
from nas.network.blocks import Block, ModuleSpec
from nas.network.module import Network
from nas.network.recalibration import recalibrate
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.trainer import evaluate


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
        preprocessing=Preprocessing.of(splits.train),
        recipe=Recipe.of(epochs=3),
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
    error = evaluate(network, splits.validation, job.preprocessing)["error"]
    assert error == outcome.metrics["error"]


@pytest.mark.parametrize("images", [120, 501])  # of the latter, one would be left over
def test_a_training_of_few_steps_has_the_batch_statistics_of_its_last_weights(
    job: TrainingJob, splits: SearchSplits, images: int
):
    few = splits.train.sample(images, seed=0)
    short = replace(job, train=few, recipe=Recipe.of(epochs=10, batch_size=100))
    outcome = short(candidate(job), math.inf)
    network = job.space.build(candidate(job).genotype)
    network.load_state_dict(safetensors.torch.load(outcome.weights))
    recalibrate(network, short.batches(images))
    for name, tensor in safetensors.torch.load(outcome.weights).items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)


def test_the_seed_decides_whatever_happened_before(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=200))
    first = quick(candidate(job), math.inf)
    torch.randn(100)
    assert quick(candidate(job), math.inf) == first
    assert quick(candidate(job, seed=2), math.inf).weights != first.weights


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_job_that_was_sent_to_a_worker_does_the_same(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=200))
    sent = pickle.loads(pickle.dumps(quick))  # noqa: S301 - as Ray sends it
    for array in (sent.train.pixels, sent.train.targets, sent.held_out.pixels):
        array.setflags(write=False)  # as arrays in Ray's shared memory are
    assert sent(candidate(job), math.inf) == quick(candidate(job), math.inf)


def test_weights_are_only_handed_out_on_request(job: TrainingJob):
    quick = replace(job, recipe=Recipe(epochs=1, train_samples=64), return_weights=False)
    assert quick(candidate(job), math.inf).weights is None


def test_a_deadline_is_kept(job: TrainingJob):
    with pytest.raises(CandidateFailure, match="timeout"):
        job(candidate(job), time.monotonic() - 1)


def test_a_training_that_is_cut_goes_on_to_the_same_weights(job: TrainingJob):
    whole = job(candidate(job), math.inf)
    reached, checkpoint = 0.0, None
    for cut_after_s in (0.0, 0.02, 0.05):
        cut = job(replace(candidate(job), cut_after_s=cut_after_s, checkpoint=checkpoint), math.inf)
        assert cut.cut_at is not None
        assert reached < cut.cut_at < 1, "every part takes a step"
        assert cut.metrics.keys() == whole.metrics.keys()
        reached, checkpoint = cut.cut_at, cut.checkpoint
    assert job(replace(candidate(job), checkpoint=checkpoint), math.inf) == whole
    assert job(replace(candidate(job), cut_after_s=1000.0), math.inf) == whole


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


def test_images_grow_with_the_training_and_a_part_is_judged_at_its_size(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
):
    growing = replace(job, recipe=replace(job.recipe, initial_resolution=0.5))
    seen: list[tuple[bool, int]] = []
    build = type(job.space).build

    def watched(*arguments: object, **named: object) -> Network:
        network = build(*arguments, **named)  # type: ignore[arg-type]
        next(network.children()).register_forward_pre_hook(
            lambda module, inputs: seen.append((module.training, inputs[0].shape[-1]))
        )
        return network

    monkeypatch.setattr(type(job.space), "build", watched)
    part = growing(replace(candidate(job), fidelity=0.25), math.inf)
    # The first two are those that the memory is counted in.
    training = [side for trains, side in seen if trains][2:]
    assert training[0] == 4
    assert training == sorted(training)
    assert {side for trains, side in seen if not trains} == {6}
    seen.clear()
    whole = replace(candidate(job), checkpoint=part.checkpoint)
    assert growing(whole, math.inf).metrics["error"] < 60  # chance: 90
    assert {side for trains, side in seen if not trains} == {8}
    assert [side for trains, side in seen if trains][-10:] == [8] * 10


def test_recipes_that_a_space_cannot_follow_are_refused(job: TrainingJob):
    class Fixed(nn.Module):
        def __init__(self, input_shape: Sequence[int]) -> None:
            super().__init__()
            self.linear = nn.Linear(math.prod(input_shape), 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.linear(x.flatten(1))
            return logits

    class FixedSpace(SearchSpace):
        @property
        def genes(self) -> tuple[Gene, ...]:
            return (Gene("nothing", (0, 1)),)

        def blocks(self) -> Iterator[Block]:
            yield Block("fixed", lambda chosen: ModuleSpec(Fixed))

    space = FixedSpace(input_shape=(1, 8, 8), num_classes=10)
    assert replace(job, space=space).recipe == job.recipe
    with pytest.raises(
        ConfigError, match=r"initial_resolution: got 0\.5, .*no images of 4x4"
    ) as raised:
        replace(job, space=space, recipe=Recipe(initial_resolution=0.5))
    assert "\n" not in str(raised.value)
