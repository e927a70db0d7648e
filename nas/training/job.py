"""The work that an evaluator sends to its workers: build, train and test one candidate."""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch

from nas.core.images import Images
from nas.core.lease import training_step
from nas.core.recipe import Recipe
from nas.core.trial import Candidate, Outcome
from nas.network.space import SearchSpace
from nas.training.images import Normalisation
from nas.training.trainer import error_percent, train


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Trains a candidate, from scratch or from its checkpoint, and returns its error.

    Attributes:
        space: Builds the candidate.
        train: Images trained on.
        held_out: Images that the error is counted on; the job knows no others.
        normalisation: Of all images, taken from training images.
        recipe: How to train.
        threads: Of torch, on a worker.
        return_weights: Whether the outcome carries the trained weights.
    """

    space: SearchSpace
    train: Images
    held_out: Images
    normalisation: Normalisation
    recipe: Recipe
    threads: int = 1
    return_weights: bool = False

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Train `candidate`; see `nas.core.trial.Job`."""
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(candidate.seed)
        auxiliary = self.recipe.auxiliary_weight > 0
        with training_step():  # a large network's initial weights take as long as some steps
            network = self.space.build(candidate.genotype, auxiliary=auxiliary).to(device)
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
        error = error_percent(network, self.held_out, self.normalisation)
        weights = None
        if self.return_weights:
            with training_step():
                state = {name: t.cpu().contiguous() for name, t in network.state_dict().items()}
                weights = safetensors.torch.save(state)
        return Outcome(metrics={"error": error}, weights=weights, checkpoint=checkpoint)
