"""How long a training will take, from some of its steps."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from nas.core.space import Genotype
from nas.training.job import TrainingJob
from nas.training.trainer import evaluate, train

TIMED_S = 0.3
"""Seconds of training steps that are timed; at least one step is."""


def estimated_seconds(job: TrainingJob, genotype: Genotype) -> float:
    """Return about how many seconds `job` takes for a network alone on a processor of this host.

    The random state of this process and its threads are left as they are.

    Raises:
        CandidateFailure: Not even these steps can be taken.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            return _timed(job, genotype)
    finally:
        torch.set_num_threads(threads)


def _timed(job: TrainingJob, genotype: Genotype) -> float:
    recipe = job.recipe
    used = min(recipe.train_samples or len(job.train), len(job.train))
    batch = min(recipe.batch_size, used)
    total_steps = recipe.epochs * max(used // recipe.batch_size, 1)
    short = replace(recipe, epochs=1, train_samples=None, batch_size=batch)
    network = job.network(genotype)
    images = job.train.sample(batch, seed=0)
    started = time.monotonic()
    train(network, images, short, job.normalisation)
    # The first step makes room for the others and takes longer than any.
    steps = max(1, min(int(TIMED_S / (time.monotonic() - started)), used // batch, 50))
    images = job.train.sample(steps * batch, seed=0)
    started = time.monotonic()
    train(network, images, short, job.normalisation)
    step_s = (time.monotonic() - started) / steps
    network.drop_auxiliary()
    held_out = job.held_out.sample(batch, seed=0)
    started = time.monotonic()
    evaluate(network, held_out, job.normalisation)
    image_s = (time.monotonic() - started) / len(held_out)
    return total_steps * step_s + len(job.held_out) * image_s
