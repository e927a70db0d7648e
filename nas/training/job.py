"""The work that an evaluator sends to its workers: train one candidate, or judge a network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from nas.core.dataset import Examples
from nas.core.errors import CandidateFailure, ConfigError, first_line
from nas.core.host import training_step
from nas.core.recipe import Recipe
from nas.core.sampling import SamplingSettings
from nas.core.space import Genotype
from nas.core.trial import Candidate, Job, Outcome, Parent
from nas.network.compact import compressed_bytes
from nas.network.inheritance import InitialWeights, inherit
from nas.network.recalibration import recalibrate
from nas.network.shared import SharedWeights
from nas.network.space import SearchSpace
from nas.network.trainable import TrainableNetwork
from nas.network.trained import Preprocessing, TrainedNetwork
from nas.training.batches import lie_on
from nas.training.distributed import distributed, own_seed, rank
from nas.training.memory import FIX, check_memory, free_bytes, training_bytes
from nas.training.precision import precision_of
from nas.training.teacher import Teacher, TeacherNetwork
from nas.training.trainer import (
    EVALUATION_BATCH,
    Sampling,
    Training,
    evaluate,
    judged,
    resized,
    steps_an_epoch,
    train,
)

if TYPE_CHECKING:
    from nas.training.supernet import SupernetJob

CALIBRATION_IMAGES = 1024
"""Training images from which a network that is made of a trained one takes its statistics."""

FEW_STEPS = 100
"""Steps of a training below which the running batch statistics are estimated anew at its end.

They begin at 0 and 1, and each step replaces a tenth of them: after fewer steps they are those of
no network, and a network that has learned its images well may be judged no better than a guess.
"""

TIMED_S = 0.3
"""Seconds of training steps from which the time of a training is estimated; at least one step."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Trains a candidate, from scratch or from its checkpoint, and returns its metrics.

    Attributes:
        space: Builds the candidate.
        train: Examples trained on.
        held_out: Examples that the error is counted on; the job knows no others.
        preprocessing: Of all images, with the statistics of training images.
        recipe: How to train.
        initial: What a new network inherits its weights from.
        teacher: What else candidates learn from: the one that the recipe names.
        threads: Of torch, on a worker.
        processes: That train a candidate together; see `nas.training.distributed`.
        memory_share: Of its GPU's or its host's memory, that a worker may take.
        return_weights: Whether the outcome carries the weights of a training that is complete.
        counts_stored: Whether `stored_size_mb` is among the metrics.
    """

    space: SearchSpace
    train: Examples
    held_out: Examples
    preprocessing: Preprocessing
    recipe: Recipe
    initial: InitialWeights | None = None
    teacher: TeacherNetwork | None = None
    threads: int = 1
    processes: int = 1
    memory_share: float = 1.0
    return_weights: bool = False
    counts_stored: bool = False

    def __post_init__(self) -> None:
        """Check that the space's networks can be trained by the recipe."""
        check_recipe(self.space, self.recipe)
        parts = self.recipe.compute.accumulate * self.processes
        used = min(self.recipe.train_samples or len(self.train), len(self.train))
        batch = min(self.recipe.batch_size, used)
        if parts > 1 and batch < 2 * parts:
            expected = (
                f"{2 * parts} or more, as batch norm needs two images in each of {parts} parts"
            )
            fix = "lower recipe.compute.accumulate or evaluation.gpus_per_worker"
            raise ConfigError("recipe.batch_size", batch, expected, fix)

    def with_held_out(self, images: Examples) -> TrainingJob:
        """Return the job that judges on other examples."""
        return replace(self, held_out=images)

    def network(self, genotype: Genotype, parent: Parent | None = None) -> TrainableNetwork:
        """Build a network as the recipe trains it, with the weights that it begins with."""
        network = self.space.build(genotype, auxiliary=self.recipe.auxiliary_weight > 0)
        if self.initial is not None:
            self.initial.inherited_by(network, genotype)
        if parent is not None:
            source = self.space.build(parent.genotype)
            source.load_state_dict(safetensors.torch.load(parent.weights))
            inherit(network, source)
        return network

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Train `candidate`; see `nas.core.trial.Job`."""
        if self.processes > 1:
            return distributed(self, candidate, deadline)
        return self.trained(candidate, deadline)

    def trained(self, candidate: Candidate, deadline: float) -> Outcome:
        """Train `candidate` in this process, which may be one of several.

        Of several, only the first one's outcome counts.

        Raises:
            CandidateFailure: The candidate cannot be trained, for instance for want of memory.
        """
        try:
            return self._trained(candidate, deadline)
        except torch.OutOfMemoryError as error:
            raise CandidateFailure("out_of_memory", f"{first_line(error)}; {FIX}") from error

    def _trained(self, candidate: Candidate, deadline: float) -> Outcome:
        began = time.monotonic()
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(own_seed(candidate.seed))
        with training_step():  # a large network's initial weights take as long as some steps
            network = self.trainable(candidate).to(device)
            self._check_memory(network, device)
            teacher = self._started_teacher(device)
            if candidate.checkpoint is None:
                batches = self.batches(CALIBRATION_IMAGES)
                self.space.calibrate(network, candidate.genotype, batches)
        cut_after_s = math.inf if candidate.cut_after_s is None else candidate.cut_after_s
        training = train(
            network,
            self.train,
            self.recipe,
            self.preprocessing,
            deadline,
            held_out=self.held_out,
            teacher=teacher,
            fidelity=candidate.fidelity,
            checkpoint=candidate.checkpoint,
            cut_at_s=self.counted_from(began) + cut_after_s,
            memory_share=self.memory_share,
            sampling=self.sampling,
        )
        if rank() > 0:
            return Outcome(metrics={})
        alone = self.sampling is None and self.processes == 1  # whose statistics it is
        few = alone and 0 < training.reached * self._total_steps < FEW_STEPS
        if few or training.checkpoint is None:
            resolution = self.recipe.resolution(training.reached)
            images = (resized(batch, resolution) for batch in self.batches(CALIBRATION_IMAGES))
            with training_step():
                recalibrate(network, images, statistics=few)
        metrics = self.judged(network, training)
        weights = None
        if self.return_weights and training.checkpoint is None:
            with training_step():
                state = {name: t.cpu().contiguous() for name, t in network.state_dict().items()}
                weights = safetensors.torch.save(state)
        return Outcome(
            metrics=metrics,
            weights=weights,
            checkpoint=training.checkpoint,
            cut_at=training.reached if training.reached < candidate.fidelity else None,
            precision=precision_of(self.recipe.compute.precision, device),
            history=training.history,
        )

    @property
    def _total_steps(self) -> int:
        """Steps of the full training."""
        used = min(len(self.train), self.recipe.train_samples or len(self.train))
        return self.recipe.epochs * steps_an_epoch(used, self.recipe)

    def batches(self, images: int) -> Iterator[torch.Tensor]:
        """Yield normalised training images, the same ones every time, on the worker's device."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        chosen = self.train.sample(images, seed=0)
        number = math.ceil(len(chosen) / EVALUATION_BATCH)
        # Nearly of one size: a rest of one image would break batch norm.
        for part in np.array_split(np.arange(len(chosen)), number):
            pixels, _ = chosen.batch(part)
            batch = self.preprocessing(torch.from_numpy(pixels).to(device))
            yield batch.contiguous(memory_format=torch.channels_last)

    def of_supernet(
        self, sampling: SamplingSettings, calibration_images: int, stand_alone: Job | None = None
    ) -> SupernetJob:
        """Return the job that judges candidates by weights that are trained by this one's recipe.

        Args:
            sampling: Which networks are trained in every step.
            calibration_images: Training images from which batch statistics are estimated.
            stand_alone: Trains candidates of fidelity 1; `None` to judge them as all others.

        Raises:
            ConfigError: Shared weights cannot be trained by the recipe.
        """
        from nas.training.supernet import SupernetJob, SupernetTraining

        own = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        training = SupernetTraining(**{**own, "return_weights": True}, settings=sampling)
        return SupernetJob(
            training=training, calibration_images=calibration_images, stand_alone=stand_alone
        )

    def trainable(self, candidate: Candidate) -> TrainableNetwork | SharedWeights:
        """Return what is trained for a candidate."""
        return self.network(candidate.genotype, candidate.parent)

    @property
    def sampling(self) -> Sampling | None:
        """What chooses the networks of a step; `None` where one network is trained."""
        return None

    def counted_from(self, began: float) -> float:
        """Return from when on `cut_after_s` counts, for a candidate that began at a time."""
        return began

    def judged(
        self, network: TrainableNetwork | SharedWeights, training: Training
    ) -> dict[str, float]:
        """Return the metrics of a network that has been trained."""
        assert isinstance(network, TrainableNetwork)
        network.drop_auxiliary()
        # A network is judged at the size that it has been trained for so far.
        resolution = self.recipe.resolution(training.reached)
        return self.metrics_of(network, resolution)

    def metrics_of(self, network: nn.Module, resolution: float = 1.0) -> dict[str, float]:
        """Return what the held-out examples say of a network, and its size where that counts."""
        metrics = evaluate(network, self.held_out, self.preprocessing, resolution)
        if self.counts_stored:
            metrics = {**metrics, "stored_size_mb": compressed_bytes(network) / 1e6}
        return metrics

    def _started_teacher(self, device: torch.device) -> Teacher | None:
        if self.teacher is None:
            return None
        features = self.recipe.teacher.features > 0
        return self.teacher.start(device, self.threads, features=features)

    def _check_memory(
        self, network: TrainableNetwork | SharedWeights, device: torch.device
    ) -> None:
        """Check that the training of a network fits on its device.

        Raises:
            CandidateFailure: It does not.
        """
        shape = self.space.input_shape
        needed = training_bytes(network, self.recipe, shape, self.processes)
        if device.type == "cuda" and lie_on(device, self.train, self.memory_share):
            needed += math.prod(self.train.pixels.shape)
        check_memory(needed, free_bytes(device, self.memory_share), self.recipe, self.processes)

    def trained_network(
        self, candidate: Candidate, outcome: Outcome, **provenance: Any
    ) -> TrainedNetwork:
        """Return the network that this job has trained, on the processor.

        Args:
            candidate: That was trained.
            outcome: What came of it, with its weights.
            **provenance: Further facts, beside `arch_id`, `recipe`, `seed` and `teacher`.
        """
        assert outcome.weights is not None, "the job must `return_weights`"
        recipe = asdict(self.recipe)
        recipe["compute"]["precision"] = outcome.precision  # that of a worker, where it is `auto`
        if self.recipe.teacher.source is None:
            recipe["teacher"] = None
        module = self.space.build(candidate.genotype)
        module.load_state_dict(safetensors.torch.load(outcome.weights))
        facts: dict[str, Any] = {"arch_id": candidate.arch_id, "recipe": recipe}
        if outcome.history:  # fewer than the recipe's where its patience has ended the training
            trained = {"epochs_trained": int(outcome.history[-1]["epoch"])}
            provenance["training"] = {**provenance.get("training", {}), **trained}
        if self.initial is not None:
            facts["pretrained_weights"] = dict(self.initial.source)
        if self.teacher is not None:
            facts["teacher"] = dict(self.teacher.provenance)
        return TrainedNetwork(
            module=module.eval(),
            preprocessing=self.preprocessing,
            outputs=self.train.task.output_names,
            provenance={**facts, "seed": candidate.seed, **provenance},
            metrics=outcome.metrics,
        )

    def estimated_seconds(self, genotype: Genotype) -> float:
        """Return about how many seconds this takes for a network alone on a processor of this host.

        Some steps of the training are timed. The random state of this process and its threads are
        left as they are.

        Raises:
            CandidateFailure: Not even these steps can be taken.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.random.fork_rng(devices=[]):
                return self._timed_seconds(genotype)
        finally:
            torch.set_num_threads(threads)

    def _timed_seconds(self, genotype: Genotype) -> float:
        used = min(self.recipe.train_samples or len(self.train), len(self.train))
        batch = min(self.recipe.batch_size, used)
        total_steps = self._total_steps
        short = replace(self.recipe, epochs=1, train_samples=None, batch_size=batch, patience=None)
        network = self.network(genotype)
        teacher = self._started_teacher(torch.device("cpu"))

        def training_seconds(steps: int) -> float:
            images = self.train.sample(steps * batch, seed=0)
            started = time.monotonic()
            train(network, images, short, self.preprocessing, teacher=teacher)
            return time.monotonic() - started

        # The first step makes room for the others and takes longer than any.
        steps = max(1, min(int(TIMED_S / training_seconds(1)), used // batch, 50))
        step_s = training_seconds(steps) / steps
        network.drop_auxiliary()
        held_out = self.held_out.sample(batch, seed=0)
        started = time.monotonic()
        evaluate(network, held_out, self.preprocessing)
        image_s = (time.monotonic() - started) / len(held_out)
        return total_steps * step_s + len(self.held_out) * image_s


@dataclass(frozen=True, kw_only=True)
class JudgingJob:
    """Judges trained networks, each as the candidate of its `arch_id`.

    Attributes:
        networks: Trained networks, whose modules need not be what a space builds.
        images: What they are judged on.
        threads: Of torch, on a worker.
    """

    networks: Mapping[str, TrainedNetwork]
    images: Examples
    threads: int = 1

    def __call__(self, candidate: Candidate, deadline: float) -> Outcome:
        """Judge the network of `candidate`; see `nas.core.trial.Job`."""
        del deadline
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = self.networks[candidate.arch_id]
        with training_step():
            module = network.module.to(device)
        task, sums = self.images.task, judged(module, self.images, network.preprocessing)
        return Outcome(metrics=task.scores(sums), details=task.details(sums))


def check_recipe(space: SearchSpace, recipe: Recipe, setting: str = "evaluation.recipe") -> None:
    """Check that the networks of a space can be trained by a recipe.

    Args:
        space: Of the networks.
        recipe: How they are to be trained.
        setting: Where the recipe is set, for the error's text.

    Raises:
        ConfigError: They cannot.
    """
    if not (recipe.epochs or recipe.init or space.pretrained):
        expected = "1 or more, as networks begin with random weights"
        raise ConfigError(f"{setting}.epochs", 0, expected)
    extremes = [[0] * len(space.genes), [len(gene.choices) - 1 for gene in space.genes]]
    with torch.device("meta"):  # which knows shapes, and computes nothing
        networks = [space.build(space.canonical(each), auxiliary=True) for each in extremes]
    regularisation = recipe.regularisation
    for name, value, possible in (
        (
            "regularisation.drop_path",
            regularisation.drop_path,
            any(network.has_drop_path for network in networks),
        ),
        (
            "regularisation.dropout",
            regularisation.dropout,
            any(network.has_dropout for network in networks),
        ),
        (
            "auxiliary_weight",
            recipe.auxiliary_weight,
            any(block.auxiliary for network in networks for block in network.placed_blocks),
        ),
    ):
        if value and not possible:
            expected = "0 for this space, whose networks have no layer for it"
            raise ConfigError(f"{setting}.{name}", value, expected)
    _check_resolution(space, recipe, setting)


def _check_resolution(space: SearchSpace, recipe: Recipe, setting: str) -> None:
    """Check that networks take images as small as those that a recipe begins with."""
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
