"""What the arithmetic of a training changes, and what it does not."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import search_spaces
from nas import data
from nas.core.dataset import SearchSplits
from nas.core.errors import CandidateFailure
from nas.core.host import child_environment
from nas.core.pixels import StoredPixels
from nas.core.recipe import Recipe
from nas.core.trial import Candidate
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.memory import training_bytes
from nas.training.precision import check_compiler, slowdown
from nas.training.trainer import train

ONE_STEP = Recipe.of(epochs=1, train_samples=64)


@pytest.fixture(scope="module")
def splits() -> SearchSplits:
    return data.get("digits").search_splits()


def job_of(splits: SearchSplits, recipe: Recipe, space: str = "mobilenet") -> TrainingJob:
    return TrainingJob(
        space=search_spaces.get(space, input_shape=splits.input_shape, num_classes=10),
        train=splits.train,
        held_out=splits.validation,
        preprocessing=Preprocessing.of(splits.train),
        recipe=recipe,
        return_weights=True,
    )


def candidate(job: TrainingJob) -> Candidate:
    genotype = job.space.canonical([0] * len(job.space.genes))
    return Candidate(number=0, genotype=genotype, arch_id="x", seed=1)


def weights_after(splits: SearchSplits, space: str, **compute: Any) -> dict[str, torch.Tensor]:
    """Return the weights after a step of plain SGD, whose change is the gradient."""
    optimizer = {"momentum": 0.0, "weight_decay": 0.0}
    recipe = Recipe.of(
        epochs=1,
        train_samples=64,
        compute=compute,
        optimizer=optimizer,
    )
    job = job_of(splits, recipe, space)
    torch.manual_seed(0)
    network = job.network(candidate(job).genotype)
    train(network, splits.train, recipe, job.preprocessing)
    return network.state_dict()


def assert_equal(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    for name, value in ours.items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", ["mobilenet", "vit"])
def test_gradients_are_those_without_recomputation(splits: SearchSplits, space: str):
    assert_equal(weights_after(splits, space, recompute=True), weights_after(splits, space))


def test_gradients_are_those_of_the_whole_batch(splits: SearchSplits):
    """In a network without batch normalisation, whose statistics are those of a part."""
    assert_equal(weights_after(splits, "vit", accumulate=3), weights_after(splits, "vit"))


def test_bf16_learns_as_fp32_and_weights_stay_in_fp32(splits: SearchSplits):
    errors = {}
    for precision in ("fp32", "bf16"):
        recipe = Recipe.of(epochs=3, compute={"precision": precision})
        outcome = (job := job_of(splits, recipe))(candidate(job), math.inf)
        errors[precision] = outcome.metrics["error"]
        weights = safetensors.torch.load(outcome.weights)
        kinds = {tensor.dtype for tensor in weights.values()}
        assert kinds == {torch.float32, torch.int64}  # batches that normalisations counted
    share = errors["fp32"] / 100
    noise = 100 * math.sqrt(max(share * (1 - share), 0.01) * 2 / len(splits.validation))
    assert errors["fp32"] < 30
    assert abs(errors["bf16"] - errors["fp32"]) < 4 * noise


def test_emulation_is_measured():
    assert slowdown(torch.float32) == pytest.approx(1, abs=0.9)
    assert 0.05 < slowdown(torch.bfloat16) < 1000


def test_pixels_in_a_file_train_the_same(splits: SearchSplits):
    job = job_of(splits, replace(ONE_STEP, train_samples=200))
    stored = StoredPixels.of(np.asarray(splits.train.pixels))
    beside = replace(job, train=replace(splits.train, pixels=stored))
    assert beside(candidate(job), math.inf) == job(candidate(job), math.inf)


def test_what_does_not_fit_is_not_trained(splits: SearchSplits):
    job = replace(job_of(splits, ONE_STEP), memory_share=1e-6)
    with pytest.raises(CandidateFailure, match=r"out_of_memory: .*for 64 images .*accumulate"):
        job(candidate(job), math.inf)


def test_what_a_gpu_has_not_is_a_failure_of_the_candidate(
    splits: SearchSplits, monkeypatch: pytest.MonkeyPatch
):
    def too_large(*arguments: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("nas.training.job.train", too_large)
    job = job_of(splits, ONE_STEP)
    with pytest.raises(CandidateFailure, match=r"out_of_memory: .*batch_size"):
        job(candidate(job), math.inf)


def test_counting_the_memory_changes_nothing(splits: SearchSplits):
    job = job_of(splits, ONE_STEP)
    network = job.network(candidate(job).genotype).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    recipe = Recipe.of(compute={"recompute": True, "precision": "bf16"})
    assert training_bytes(network, recipe, splits.input_shape) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())
    assert not network.training
    assert not network.recompute


def test_memory_grows_as_the_recipe_says(splits: SearchSplits):
    job = job_of(splits, ONE_STEP)
    network = job.network(candidate(job).genotype)
    weights = sum(parameter.nbytes for parameter in network.parameters())

    def needed(**changes: Any) -> int:
        return training_bytes(network, Recipe.of(**changes), splits.input_shape)

    plain = needed()
    assert needed(optimizer={"name": "adamw"}) == plain + weights
    assert needed(optimizer={"momentum": 0.0}) == plain - weights
    assert needed(ema=0.1) > plain + weights
    assert needed(compute={"accumulate": 4}) == needed(batch_size=16)
    assert needed(compute={"recompute": True}) < plain
    assert needed(compute={"precision": "bf16"}) < plain


def measured(space: str, side: int, batch: int, **compute: Any) -> dict[str, float]:
    script = Path(__file__).with_name("memory_of_a_training.py")
    # Areas above 64 KiB go back to the system when they are freed, so that what is measured is
    # what is used and not what the C library keeps for later.
    environment = child_environment() | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    ended = subprocess.run(
        [sys.executable, script, space, str(side), str(batch), json.dumps(compute)],
        env=environment | {"OMP_NUM_THREADS": "1", "HWNAS_LEASE": os.environ["HWNAS_LEASE"]},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(ended.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_estimate_is_what_is_measured():
    found = [measured("mobilenet", 96, 64), measured("vit", 32, 512)]
    for one in found:
        assert one["estimated"] == pytest.approx(one["measured"], rel=0.25)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_parts_and_recomputation_take_less_memory():
    whole = measured("mobilenet", 96, 64)
    for compute in ({"accumulate": 4}, {"recompute": True}):
        assert measured("mobilenet", 96, 64, **compute)["measured"] < 0.8 * whole["measured"]


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(splits: SearchSplits):
    check_compiler("recipe.compute.compile")
    assert_equal(weights_after(splits, "vit", compile=True), weights_after(splits, "vit"))


@pytest.mark.slow
def test_without_a_compiler_nothing_is_compiled():
    code = """
from nas.core.errors import ConfigError
from nas.training.precision import check_compiler
try:
    check_compiler("evaluation.recipe.compute.compile")
except ConfigError as error:
    print(error)
"""
    environment = child_environment() | {
        "CXX": "/no/compiler",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("evaluation.recipe.compute.compile: got True")
    assert ended.stdout.count("\n") == 1
