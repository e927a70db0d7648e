"""Verify the front: retrain its members, export them, measure them, test them once."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from nas.core.errors import ExportError, HwnasError
from nas.core.files import write_json_atomically
from nas.core.images import Images, SearchSplits
from nas.core.measurement import ImageArray, Measurement
from nas.core.seeding import training_seed
from nas.core.trial import FULL, Candidate, Evaluation
from nas.export.parity import check_parity, classification_error
from nas.network.onnx import export_onnx
from nas.network.quantisation import CALIBRATION_IMAGES
from nas.results.hypervolume import hypervolume_order
from nas.results.study import StudyResults
from nas.search.problem import SearchProblem
from nas.study.folder import StudyFolder
from nas.study.reporter import Reporter
from nas.study.settings import StudySettings
from nas.training.images import Normalisation
from nas.training.job import TrainingJob

PARITY_IMAGES = 16
"""Images on which PyTorch and ONNX Runtime are compared."""


@dataclass
class Finalisation:
    """The last stage of a study.

    A member is finished when its `result.json` lies in `finalised/ARCH_ID`; its trained weights
    and test error lie there before, so that the test split is read once for each member however
    often the study is interrupted.
    """

    settings: StudySettings
    folder: StudyFolder
    splits: SearchSplits
    problem: SearchProblem
    results: StudyResults
    reporter: Reporter

    def run(self) -> bool:
        """Verify the members of the front that are not verified yet; return whether all are."""
        members = self._members()
        untrained = self._without(members, "training.json")
        if untrained:
            self.reporter.stage(f"retraining {len(untrained)} architectures of the front")
            self._train(untrained)
        trained = [m for m in members if self._path(m, "training.json").is_file()]
        unverified = self._without(trained, "result.json")
        if unverified:
            count = f"{len(unverified)} of {len(members)} networks"
            self.reporter.stage(f"exporting and measuring {count} on the device")
            self._verify(unverified)
        return not self._without(members, "result.json")

    def _without(self, members: Sequence[Candidate], name: str) -> list[Candidate]:
        return [member for member in members if not self._path(member, name).is_file()]

    def _members(self) -> list[Candidate]:
        """Return the members to verify, the same ones however often the study is interrupted.

        They are chosen once for a number of trials: later, measured values would have a say.
        """
        path = self.folder.path / "finalised" / "members.json"
        trials = self.results.trials()
        made_for = {"trials": len(trials), "limit": self.settings.finalise.limit}
        if path.is_file():
            chosen = json.loads(path.read_text("utf-8"))
            if chosen["made_for"] == made_for:
                full = trials[trials["fidelity"] == FULL]
                rows = full.drop_duplicates("arch_id").set_index("arch_id", drop=False)
                return [self._member(rows.loc[arch_id]) for arch_id in chosen["members"]]
        members = self._front()
        path.parent.mkdir(exist_ok=True)
        record = {"made_for": made_for, "members": [member.arch_id for member in members]}
        write_json_atomically(path, record)
        return members

    def _front(self) -> list[Candidate]:
        """Return the front of the search; of a long one those that add the most hypervolume."""
        columns = list(self.results.columns.values())
        front = self.results.pareto(objectives=columns)
        if front.empty:
            raise HwnasError(f"study {self.settings.name!r}: {self._why_empty()}")
        order = hypervolume_order(front[columns].to_numpy(float), self.results.reference_point)
        return [self._member(front.iloc[i]) for i in order[: self.settings.finalise.limit]]

    def _why_empty(self) -> str:
        trials = self.results.trials()
        kept = "its trials are kept"
        if not ((trials["status"] == "complete") & (trials["fidelity"] == FULL)).any():
            return f"no architecture was trained fully; {kept}, raise the limits of the search"
        limits = ", ".join(map(str, self.problem.constraints))
        fix = "loosen search.constraints under another name or raise search.evaluations"
        return f"no trial meets {limits}; {kept}, {fix}"

    def _member(self, row: pd.Series[Any]) -> Candidate:
        return Candidate(
            number=int(row["number"]),
            genotype=tuple(row["genotype"]),
            arch_id=str(row["arch_id"]),
            seed=training_seed(self.settings.seed, str(row["arch_id"])),
        )

    def _path(self, member: Candidate, name: str) -> Path:
        return self.folder.verified(member.arch_id) / name

    def _train(self, members: Sequence[Candidate]) -> None:
        train = _joined(self.splits.train, self.splits.validation)
        job = TrainingJob(
            space=self.problem.space,
            train=train,
            held_out=self.settings.data.test_split(),
            normalisation=Normalisation.of(train),
            recipe=self.settings.finalise.recipe,
            threads=self.settings.evaluation.threads,
            return_weights=True,
        )
        with closing(self.settings.evaluation.start(job, limited=False)) as evaluator:
            # The largest first, so that no worker waits long for the last one.
            macs = self.problem.space.costs([m.genotype for m in members])["macs_m"]
            evaluator.submit([members[i] for i in np.argsort(-macs.to_numpy())])
            done = 0
            while evaluations := evaluator.completed():
                for evaluation in evaluations:
                    done += 1
                    self._keep(evaluation, f"{done}/{len(members)}", job)

    def _keep(self, evaluation: Evaluation, count: str, job: TrainingJob) -> None:
        member, outcome = evaluation.candidate, evaluation.outcome
        if outcome is None or outcome.weights is None:
            self.reporter.stage(f"  {count} {member.arch_id} failed: {evaluation.failure}")
            return
        weights = self._path(member, "weights.safetensors")
        weights.parent.mkdir(parents=True, exist_ok=True)
        part = weights.with_suffix(".part")
        part.write_bytes(outcome.weights)
        part.replace(weights)
        error_test = outcome.metrics["error"]
        write_json_atomically(
            self._path(member, "training.json"),
            {
                "error_test": error_test,
                "seconds": evaluation.seconds,
                "test_images": len(job.held_out),
                "train_images": len(job.train),
                "recipe": dataclasses.asdict(job.recipe),
                "mean": job.normalisation.mean,
                "std": job.normalisation.std,
            },
        )
        took = f"{evaluation.seconds:.0f} s"
        self.reporter.stage(f"  {count} {member.arch_id} test error {error_test:.2f} % in {took}")

    def _verify(self, members: Sequence[Candidate]) -> None:
        """Export and measure trained members, all of them interleaved."""
        space = self.problem.space
        images = self._images()
        parity_images = images[:PARITY_IMAGES]
        parity = {}
        for member in members:
            network = self._network(member)
            path = export_onnx(network, space.input_shape, self._path(member, "model.onnx"))
            try:
                difference = check_parity(network, path, parity_images)
                parity[member.arch_id] = {"parity_max_abs_difference": difference}
            except ExportError as error:
                self.reporter.stage(f"  {member.arch_id} is left out: {error}")
        exported = [m for m in members if m.arch_id in parity]
        device = self.settings.device
        models = [
            self._path(m, "model.onnx") if device.takes_onnx else self._network(m) for m in exported
        ]
        with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            files = device.prepare(models, space.input_shape, Path(name), images)
            measurements = device.measure_files(
                files, space.input_shape, memory=True, seed=self.settings.seed
            )
            for member, file, measurement in zip(exported, files, measurements, strict=True):
                deployed = self._deployed(member, file) if device.quantises else {}
                self._record(member, measurement, {**deployed, **parity[member.arch_id]})

    def _deployed(self, member: Candidate, file: Path) -> dict[str, float]:
        """Keep the quantised network, and return its error on the test split."""
        test = self.settings.data.test_split()
        images = self._normalised(test.pixels)
        shutil.copyfile(file, self._path(member, f"deployed{file.suffix}"))
        return {"error_test_deployed": classification_error(file, images, test.labels)}

    def _network(self, member: Candidate) -> nn.Module:
        network = self.problem.space.build(member.genotype)
        state = safetensors.torch.load_file(self._path(member, "weights.safetensors"))
        network.load_state_dict(state)
        return network.eval()

    def _images(self) -> ImageArray:
        """Return normalised validation images: to compare, and to quantise by."""
        return self._normalised(self.splits.validation.pixels[:CALIBRATION_IMAGES])

    def _normalised(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> ImageArray:
        """Return images as the retrained networks saw them."""
        normalisation = Normalisation.of(_joined(self.splits.train, self.splits.validation))
        return normalisation(torch.from_numpy(pixels)).numpy()

    def _record(
        self, member: Candidate, measurement: Measurement, found: Mapping[str, float]
    ) -> None:
        write_json_atomically(self._path(member, "measurement.json"), measurement.to_dict())
        training = json.loads(self._path(member, "training.json").read_text("utf-8"))
        write_json_atomically(
            self._path(member, "result.json"),
            {
                "arch_id": member.arch_id,
                "number": member.number,
                "error_test": training["error_test"],
                "latency_ms_measured": measurement.latency_ms,
                "latency_ms_measured_ci": measurement.relative_ci * measurement.latency_ms,
                "latency_ms_median": measurement.median_ms,
                "latency_ms_p95": measurement.p95_ms,
                "peak_memory_mb_measured": measurement.peak_memory_mb,
                "model_size_mb": measurement.model_size_mb,
                "energy_mj_measured": measurement.energy_mj,
                "seconds": training["seconds"],
                **found,
            },
        )


def _joined(first: Images, second: Images) -> Images:
    return replace(
        first,
        pixels=np.concatenate([first.pixels, second.pixels]),
        labels=np.concatenate([first.labels, second.labels]),
    )
