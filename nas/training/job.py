"""The work that an evaluator sends to its workers: train one candidate, or test one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import nn

from nas.core.dataset import Examples
from nas.core.errors import ConfigError
from nas.core.lease import training_step
from nas.core.recipe import Recipe
from nas.core.space import Genotype
from nas.core.trial import Candidate, Outcome
from nas.network.module import Network
from nas.network.space import SearchSpace
from nas.training.preprocessing import Normalisation, resized
from nas.training.trainer import evaluate, train


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Trains a candidate, from scratch or from its checkpoint, and returns its metrics.

    Attributes:
        space: Builds the candidate.
        train: Examples trained on.
        held_out: Examples that the error is counted on; the job knows no others.
        normalisation: Of all images, taken from training images.
        recipe: How to train.
        threads: Of torch, on a worker.
        return_weights: Whether the outcome carries the trained weights.
    """

    space: SearchSpace
    train: Examples
    held_out: Examples
    normalisation: Normalisation
    recipe: Recipe
    threads: int = 1
    return_weights: bool = False

    def __post_init__(self) -> None:
        """Check that the space's networks can be trained by the recipe."""
        check_resolution(self.space, self.recipe)

    def network(self, genotype: Genotype) -> Network:
        """Build a network as the recipe trains it."""
        network = self.space.build(genotype, auxiliary=self.recipe.auxiliary_weight > 0)
        network.take_any_size(self.recipe.initial_resolution < 1)
        return network

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Train `candidate`; see `nas.core.trial.Job`."""
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(candidate.seed)
        with training_step():  # a large network's initial weights take as long as some steps
            network = self.network(candidate.genotype).to(device)
        checkpoint = train(
            network,
            self.train,
            self.recipe,
            self.normalisation,
            deadline,
            fidelity=candidate.fidelity,
            checkpoint=candidate.checkpoint,
        )
        network.drop_auxiliary()
        # A network is judged at the size that it has been trained for so far.
        resolution = self.recipe.resolution(candidate.fidelity)
        metrics = evaluate(network, self.held_out, self.normalisation, resolution)
        weights = None
        if self.return_weights:
            with training_step():
                state = {name: t.cpu().contiguous() for name, t in network.state_dict().items()}
                weights = safetensors.torch.save(state)
        return Outcome(metrics=metrics, weights=weights, checkpoint=checkpoint)


@dataclass(frozen=True, kw_only=True)
class TestingJob:
    """Judges trained networks, each as the candidate of its `arch_id`.

    Attributes:
        networks: Modules with their trained weights, which need not be what a space builds.
        images: What they are judged on.
        normalisation: That they were trained with.
        threads: Of torch, on a worker.
    """

    networks: Mapping[str, nn.Module]
    images: Examples
    normalisation: Normalisation
    threads: int = 1

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Test `candidate`; see `nas.core.trial.Job`."""
        del deadline
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with training_step():
            network = self.networks[candidate.arch_id].to(device)
        return Outcome(metrics=evaluate(network, self.images, self.normalisation))


def check_resolution(
    space: SearchSpace, recipe: Recipe, setting: str = "evaluation.recipe"
) -> None:
    """Check that networks take images as small as those that a recipe begins with.

    Args:
        space: Of the networks.
        recipe: How they are to be trained.
        setting: Where the recipe is set, for the error's text.

    Raises:
        ConfigError: They do not.
    """
    share = recipe.initial_resolution
    if share == 1:
        return
    smallest = resized(torch.empty(1, *space.input_shape, device="meta"), share)
    for last in (0, -1):
        genotype = space.canonical([range(len(gene.choices))[last] for gene in space.genes])
        with torch.device("meta"):  # which knows shapes, and computes nothing
            network = space.build(genotype)
        network.take_any_size()
        try:
            network.eval()(smallest)
        except RuntimeError as error:
            size = "x".join(map(str, smallest.shape[2:]))
            reason = str(error).partition("\n")[0]
            expected = f"1 for this space, whose networks take no images of {size} ({reason})"
            fix = "or let layers that know their input's size be a nas.network.module.SizedLayer"
            raise ConfigError(f"{setting}.initial_resolution", share, expected, fix) from error
