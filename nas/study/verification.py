"""Verify architectures: train them, deploy them, measure them, and test them once."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas import data, tasks
from nas.core.dataset import Examples
from nas.core.errors import DataError, ExportError, counted
from nas.core.files import temporary_folder, write_json_atomically
from nas.core.measurement import Deployable, ImageArray, Measurement, PreparedNetwork
from nas.core.records import Kinds, decoding, read_json
from nas.core.task import DETAILS, Sums
from nas.core.trial import Candidate, Evaluation
from nas.devices.measuring.environment import threads_line
from nas.export.parity import TOLERANCE, check_parity, max_abs_difference
from nas.export.record import DEPLOYED
from nas.logging import Logger
from nas.network.inheritance import InitialWeights
from nas.network.onnx import export_onnx
from nas.network.quantisation import CALIBRATION_IMAGES
from nas.network.trained import FACTS, Preprocessing, TrainedNetwork
from nas.search.problem import SearchProblem
from nas.study.record import versions
from nas.study.reporting import Reporter
from nas.study.settings import StudySettings
from nas.training.job import JudgingJob, TrainingJob

PARITY_IMAGES = 16
"""Images on which PyTorch and what is deployed are compared."""

BATCH = 100
"""Images that are handed to the device's process at a time."""

TRAINED, MEASURED, JUDGED, TESTED = FACTS, "measurement.json", "deployment.json", "result.json"
"""What lies in an architecture's folder after each step; beside the last, `DETAILS`."""

_STEPS = {TRAINED: "training", MEASURED: "measuring", JUDGED: "judging", TESTED: "testing"}

Show = Callable[[int], None]
"""Told how many architectures a step has done."""

WithTeacher = Callable[[TrainingJob, str], TrainingJob]
"""Returns a job with the teacher of its recipe, which is set at the name given."""

_KINDS: dict[str, Kinds] = {
    TRAINED: {"provenance": dict, "metrics": dict},
    JUDGED: {"file": str, "as_network": bool, "metrics": dict | None},
}


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Takes architectures from their genotype to the numbers of the network that is handed over.

    Each step leaves a file in the architecture's folder, so that a study that goes on repeats none,
    and the test split is read once for each architecture.

    Attributes:
        train: Examples that are trained on.
        validation: Examples that the trained networks are judged by; `None` where they were trained
            on these as well, so that only the test split judges them.
        test_fingerprint: Of the test split, as it was when the study began.
        folder: Receives a folder for every architecture.
        taught: Gives the trainings their teacher.
        initial: What they inherit their weights from before they are trained.
    """

    settings: StudySettings
    problem: SearchProblem
    train: Examples
    validation: Examples | None
    test_fingerprint: Mapping[str, Any]
    folder: Path
    taught: WithTeacher
    reporter: Reporter
    logger: Logger
    initial: InitialWeights | None = None

    def run(self, members: Sequence[Candidate]) -> bool:
        """Take the steps that are left; return whether all architectures are verified."""
        steps = {
            TRAINED: self._train,
            MEASURED: self._measure,
            JUDGED: self._judge,
            TESTED: self._test,
        }
        left = list(members)
        for name, step in steps.items():
            if undone := [member for member in left if not self._path(member, name).is_file()]:
                with self.reporter.progress(_STEPS[name], len(undone)) as show:
                    step(undone, show)
            left = [member for member in left if self._path(member, name).is_file()]
        return len(left) == len(members)

    def _path(self, member: Candidate, name: str) -> Path:
        return self.folder / member.arch_id / name

    def _train(self, members: Sequence[Candidate], show: Show) -> None:
        self.reporter.stage(f"training {counted(len(members), 'architecture')} by finalise.recipe")
        evaluation = self.settings.evaluation
        recipe = self.settings.finalise.recipe
        if self.validation is None:  # no images are left to end a training by
            recipe = dataclasses.replace(recipe, patience=None)
        job = TrainingJob(
            space=self.problem.space,
            train=self.train,
            held_out=self.train if self.validation is None else self.validation,
            preprocessing=self._preprocessing,
            recipe=recipe,
            initial=self.initial,
            threads=evaluation.threads,
            processes=evaluation.processes,
            memory_share=evaluation.memory_share(here=self.settings.ray.address is None),
            return_weights=True,
            counts_stored=self.settings.counts_stored,
        )
        job = self.taught(job, "finalise.recipe")
        for count, ended in enumerate(self._evaluated(job, members), start=1):
            self._keep(ended, f"{count}/{len(members)}", job)
            show(count)

    def _evaluated(
        self, job: TrainingJob | JudgingJob, members: Sequence[Candidate]
    ) -> Iterator[Evaluation]:
        """Yield what became of members on the workers, as they end."""
        with closing(self.settings.evaluation.start(job, limited=False)) as evaluator:
            # The largest first, so that no worker waits long for the last one.
            macs = self.problem.space.costs([m.genotype for m in members])["macs_m"]
            evaluator.submit([members[i] for i in np.argsort(-macs.to_numpy())])
            while evaluations := evaluator.completed():
                yield from evaluations

    def _keep(self, evaluation: Evaluation, count: str, job: TrainingJob) -> None:
        member, outcome = evaluation.candidate, evaluation.outcome
        if outcome is None or outcome.weights is None:
            self.reporter.stage(f"  {count} {member.arch_id} failed: {evaluation.failure}")
            return
        space, settings = self.problem.space, self.settings
        architecture = space.architecture(member.genotype)
        network = job.trained_network(
            member,
            outcome,
            space={
                "class": f"{type(space).__module__}.{type(space).__name__}",
                "settings": dataclasses.asdict(space),
                "space_id": architecture.space_id,
            },
            genotype=architecture.genotype,
            choices=space.decode(architecture.genotype),
            task=tasks.registry.name_of(type(self.train.task)),
            reading=self.train.task.reading,
            dataset=data.registry.settings(settings.data),
            training={
                "split": "train and validation" if self.validation is None else "train",
                "images": len(job.train),
                "seconds": evaluation.seconds,
            },
            study={"name": settings.name, "seed": settings.seed, **versions()},
        )
        judged = ""
        if self.validation is None:
            network = dataclasses.replace(network, metrics={})
        else:
            metrics = self.train.task.metrics
            used = [metric for metric in metrics if metric.name in settings.used] or metrics[:1]
            values = (f"{m.name} {network.metrics[m.name]:.2f} {m.unit}".rstrip() for m in used)
            judged = f", validation {', '.join(values)}"
        folder = self.folder / member.arch_id
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder)
        self.logger.trained(member.arch_id, self._stage, outcome.history)
        line = f"  {count} {member.arch_id} trained in {evaluation.seconds:.0f} s"
        self.reporter.stage(line + judged)

    def _measure(self, members: Sequence[Candidate], show: Show) -> None:
        """Export and measure trained members, all of them interleaved."""
        space, device = self.problem.space, self.settings.device
        doing = "estimating" if device.estimated else "measuring"
        self.reporter.stage(f"exporting and {doing} {counted(len(members), 'architecture')}")
        if line := threads_line(device):
            self.reporter.stage(line)
        exported, models = [], []
        for member in members:
            network = self._network(member).module
            path = self._path(member, "model.onnx")
            try:
                export_onnx(network, space.input_shape, path)
                check_parity(network, path, self._parity_images)
            except ExportError as error:
                self.reporter.stage(f"  {member.arch_id} is left out: {error}")
                continue
            exported.append(member)
            models.append(path if device.takes_onnx else network)
        with temporary_folder() as folder:
            images = self._sample(CALIBRATION_IMAGES)
            choices = [space.deployment(member.genotype) for member in exported]
            deployed = [Deployable(m, each) for m, each in zip(models, choices, strict=True)]
            files = device.prepare(deployed, space.input_shape, folder, images)
            shape, seed = space.input_shape, self.settings.seed
            measurements = device.measure_files(files, shape, memory=True, seed=seed)
            # A device that a tool estimates runs nothing in fp32.
            compared = choices if not device.estimated else ()
            quantised = [i for i, each in enumerate(compared) if device.quantises(each)]
            in_fp32 = {"precision": "fp32", "layers": ()}
            plain = [Deployable(models[i], {**choices[i], **in_fp32}) for i in quantised]
            measured = device.measure_many(plain, shape, seed=seed)
            of_fp32 = dict(zip(quantised, measured, strict=True))
            for i, (member, measurement) in enumerate(zip(exported, measurements, strict=True)):
                file = files[i].path
                if file.is_dir():
                    to = self._path(member, f"{DEPLOYED}.files")
                    shutil.copytree(file, to, dirs_exist_ok=True)
                elif file.read_bytes() != self._path(member, "model.onnx").read_bytes():
                    shutil.copyfile(file, self._path(member, f"{DEPLOYED}{file.suffix}"))
                if i in of_fp32:
                    record = of_fp32[i].to_dict()
                    write_json_atomically(self._path(member, "measurement_fp32.json"), record)
                    self._compare(member, measurement, of_fp32[i])
                write_json_atomically(self._path(member, MEASURED), measurement.to_dict())
                show(i + 1)

    def _compare(self, member: Candidate, quantised: Measurement, fp32: Measurement) -> None:
        if quantised.latency_ms - quantised.ci_ms > fp32.latency_ms + fp32.ci_ms:
            took = f"{quantised.latency_ms:.3g} ms, in fp32 {fp32.latency_ms:.3g} ms"
            self.reporter.stage(f"  {member.arch_id} is slower quantised: {took}")

    def _judge(self, members: Sequence[Candidate], show: Show) -> None:
        """Compare the deployed files' outputs with the networks'; count errors where they differ.

        The runtime of the device runs the files.
        """
        device = self.settings.device
        for count, member in enumerate(members, start=1):
            file = next(self.folder.glob(f"{member.arch_id}/{DEPLOYED}.*"), None)
            deployed = self._deployed(member, file or self._path(member, "model.onnx"))
            [outputs] = device.outputs(deployed, [self._parity_images])
            network = self._network(member).module
            difference = max_abs_difference(network, self._parity_images, outputs)
            record = {
                "file": deployed.path.name,
                "max_abs_difference": difference,
                "as_network": difference <= TOLERANCE,
                "metrics": None,
            }
            if not record["as_network"]:
                if not device.quantises(deployed.choices):
                    line = f"outputs on the device differ from PyTorch's by up to {difference:.2g}"
                    self.reporter.stage(f"  {member.arch_id}: {line}; it is judged by the device's")
                if self.validation is not None:
                    sums = self._sums_deployed(deployed, self.validation)
                    record["metrics"] = self.validation.task.scores(sums)
            write_json_atomically(self._path(member, JUDGED), record)
            show(count)

    def _deployed(self, member: Candidate, file: Path) -> PreparedNetwork:
        return PreparedNetwork(file, self.problem.space.deployment(member.genotype))

    def _sums_deployed(self, deployed: PreparedNetwork, images: Examples) -> Sums:
        """Return the task's sums of the deployed network, as the device's runtime runs it."""
        parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
        batches = (self._normalised(images.pixels[part]) for part in parts)
        outputs = np.concatenate(list(self.settings.device.outputs(deployed, batches)))
        return images.task.sums(outputs, images.targets)

    def _test(self, members: Sequence[Candidate], show: Show) -> None:
        """Read the test split, once for each member, and record all its numbers."""
        test = self.settings.data.test_split()
        if test.fingerprint() != self.test_fingerprint:
            raise DataError(
                "data: the test split has changed since the study began; restore it and run the "
                "same command again, or give the study another name"
            )
        self.reporter.stage(
            f"testing {counted(len(members), 'architecture')} on {len(test)} test images"
        )
        job = JudgingJob(
            networks={m.arch_id: self._network(m) for m in members},
            images=test,
            threads=self.settings.evaluation.threads,
        )
        for count, evaluation in enumerate(self._evaluated(job, members), start=1):
            self._keep_test(evaluation, test)
            show(count)

    def _keep_test(self, evaluation: Evaluation, test: Examples) -> None:
        member, outcome = evaluation.candidate, evaluation.outcome
        if outcome is None:
            self.reporter.stage(f"  {member.arch_id} failed: {evaluation.failure}")
            return
        deployment = self._read(member, JUDGED)
        tested, details = _columns(outcome.metrics, "test"), outcome.details
        if not deployment["as_network"]:
            deployed = self._deployed(member, self._path(member, deployment["file"]))
            tested = self._in_fp32(member, outcome.metrics, "test_fp32")
            sums = self._sums_deployed(deployed, test)
            tested |= _columns(test.task.scores(sums), "test")
            details = test.task.details(sums)
        if details:
            details = {"split": "test", "images": len(test), **details}
            write_json_atomically(self._path(member, DETAILS), details)
        self._record(member, deployment, {**tested, "test_images": len(test)})

    def _in_fp32(
        self, member: Candidate, metrics: Mapping[str, float], suffix: str
    ) -> dict[str, float]:
        """Return columns of metrics before quantisation.

        There are none where layers have precisions of their own: such a network rounds in PyTorch
        as well.
        """
        layers = self.problem.space.deployment(member.genotype).get("layers")
        return {} if layers else _columns(metrics, suffix)

    def _record(
        self, member: Candidate, deployment: Mapping[str, Any], tested: Mapping[str, float]
    ) -> None:
        """Write all numbers of a member; those without a suffix are of what is deployed."""
        with decoding(self._path(member, TRAINED), self._fix(member)):
            training = self._read(member, TRAINED)
            metrics, seconds = training["metrics"], training["provenance"]["training"]["seconds"]
        measurement = self._measurement(member, MEASURED)
        numbers: dict[str, Any] = {
            "arch_id": member.arch_id,
            "number": member.number,
            "error_final": None,
            **tested,
            "validation_images": None if self.validation is None else len(self.validation),
            **measurement.columns,
            "model_size_mb": measurement.model_size_mb,
            "seconds": seconds,
        }
        if metrics:
            if not deployment["as_network"]:
                errors = {n: value for n, value in metrics.items() if n in deployment["metrics"]}
                numbers |= self._in_fp32(member, errors, "final_fp32")
                metrics = {**metrics, **deployment["metrics"]}
            numbers |= _columns(metrics, "final")
            for objective in (*self.problem.limited.values(), *self.problem.objectives.values()):
                if objective.needs_training:
                    numbers[objective.verified_column] = objective.after_training(metrics)
        if self._path(member, "measurement_fp32.json").is_file():
            fp32 = self._measurement(member, "measurement_fp32.json")
            numbers["latency_ms_measured_fp32"] = fp32.latency_ms
            numbers["latency_ms_measured_fp32_ci"] = fp32.ci_ms
        write_json_atomically(self._path(member, TESTED), numbers)
        known = {name: x for name, x in numbers.items() if isinstance(x, int | float)}
        self.logger.verified(member.arch_id, self._stage, known)

    @property
    def _stage(self) -> str:
        return "refit" if self.validation is None else "final"

    def _read(self, member: Candidate, name: str) -> dict[str, Any]:
        return read_json(self._path(member, name), _KINDS.get(name), self._fix(member))

    def _measurement(self, member: Candidate, name: str) -> Measurement:
        with decoding(self._path(member, name), self._fix(member)):
            return Measurement.from_dict(self._read(member, name))

    def _fix(self, member: Candidate) -> str:
        return f"delete {self.folder / member.arch_id} and run the same command again"

    def _network(self, member: Candidate) -> TrainedNetwork:
        module = self.problem.space.build(member.genotype)
        return TrainedNetwork.load(self.folder / member.arch_id, module)

    @cached_property
    def _preprocessing(self) -> Preprocessing:
        return Preprocessing.of(self.train)

    @cached_property
    def _parity_images(self) -> ImageArray:
        return self._sample(PARITY_IMAGES)

    def _normalised(self, pixels: npt.NDArray[np.uint8]) -> ImageArray:
        return self._preprocessing(torch.from_numpy(pixels)).numpy()

    def _sample(self, count: int) -> ImageArray:
        """Return normalised training images of every class."""
        return self._normalised(self.train.sample(count, self.settings.seed).pixels[:])


def _columns(metrics: Mapping[str, float], suffix: str) -> dict[str, float]:
    return {f"{name}_{suffix}": value for name, value in metrics.items()}
