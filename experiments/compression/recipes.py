"""How the networks of this experiment are trained and judged: Fashion-MNIST, one thread."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))

from _shared.markdown import markdown as markdown
from _shared.markdown import mean_and_deviation as mean_and_deviation
from _shared.rows import append_row as append_row

from nas import data
from nas.core.dataset import Examples, SearchSplits
from nas.core.recipe import Recipe
from nas.core.space import Genotype
from nas.core.trial import Candidate
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import TrainingJob
from nas.training.teacher import ModuleTeacher

BASE_EPOCHS, IMAGES = 6, 20_000
"""Of a base's training."""

TUNED = 2
"""Epochs of a compressed network's training, on as many images."""


@cache
def splits() -> SearchSplits:
    """Return the images that are trained on, and those that choices are judged by."""
    torch.set_num_threads(1)
    return data.get("fashion_mnist").search_splits()


@cache
def test_split() -> Examples:
    """Return the images that what was chosen is judged by."""
    return data.get("fashion_mnist").test_split()


def recipe(epochs: int, family: str = "convolution", **changes: Any) -> Recipe:
    """Return `full` for few epochs, in bf16."""
    return Recipe.of(
        "full",
        family,
        epochs=epochs,
        train_samples=IMAGES,
        batch_size=128,
        augmentation={"flip": True, "shift": 0.0},
        compute={"precision": "bf16"},
        **changes,
    )


def genotype_of(space: SearchSpace, *chosen: Mapping[str, Any]) -> Genotype:
    """Return the base with choices, by the last names of genes.

    Where a gene has not the choice, that of the next mapping is taken, or none.
    """
    start, indices = space.references()["base"], []
    for gene, unchanged in zip(space.genes, start, strict=True):
        values = [each.get(gene.name.rpartition(".")[2]) for each in chosen]
        known = [gene.choices.index(value) for value in values if value in gene.choices]
        indices.append(known[0] if known else unchanged)
    return space.canonical(indices)


def compressed(
    space: SearchSpace,
    genotype: Genotype,
    *,
    seed: int,
    epochs: int = 0,
    family: str = "convolution",
    held_out: Examples | None = None,
    teacher: SearchSpace | None = None,
    taught: bool = True,
    sparse_from: float = 0.0,
) -> tuple[nn.Module, dict[str, Any]]:
    """Compress a base, train it, with the base as teacher unless told otherwise, and judge it.

    Args:
        space: Of the base.
        genotype: The choices.
        seed: Of the training.
        epochs: Of the training; 0 for none.
        family: Of the network.
        held_out: Judged by; the test split unless others are given.
        teacher: Of whose base it learns; `space` unless another one is given.
        taught: Whether it learns from a base.
        sparse_from: Of the recipe.

    Returns:
        The network, and its `error` (%), `stored_mb`, `file_mb`, `macs_m` and `processor_s`.
    """
    own = splits()
    preprocessing = Preprocessing.of(own.train)
    learnt_from, changes = None, dict[str, Any](sparse_from=sparse_from)
    if epochs and family == "convolution":
        changes["optimizer"] = {"learning_rate": 1e-3}
    if epochs and taught:
        facts, own_base = {"source": "space:base"}, teacher or space
        module = own_base.build(own_base.references()["base"]).eval()
        learnt_from = ModuleTeacher(provenance=facts, module=module, preprocessing=preprocessing)
        changes["teacher"] = facts
    job = TrainingJob(
        space=space,
        train=own.train,
        held_out=test_split() if held_out is None else held_out,
        preprocessing=preprocessing,
        recipe=recipe(epochs, family, **changes),
        teacher=learnt_from,
        counts_stored=True,
        return_weights=True,
    )
    candidate = Candidate(number=0, genotype=genotype, arch_id="compressed", seed=seed)
    started = time.process_time()
    outcome = job(candidate, math.inf)
    network = space.build(genotype)
    if outcome.weights is not None:
        network.load_state_dict(safetensors.torch.load(outcome.weights))
    costs = space.costs([genotype]).iloc[0]
    return network.eval(), {
        "error": outcome.metrics["error"],
        "stored_mb": outcome.metrics["stored_size_mb"],
        "file_mb": float(costs["model_size_mb"]),
        "macs_m": float(costs["macs_m"]),
        "processor_s": round(time.process_time() - started, 1),
    }
