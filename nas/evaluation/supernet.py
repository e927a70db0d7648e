"""Evaluation by weights that all networks of the space share."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from nas.core.errors import ConfigError, HwnasError
from nas.core.files import write_bytes_atomically, write_json_atomically
from nas.core.host import usable_cores
from nas.core.recipe import Recipe
from nas.core.records import read_json
from nas.core.sampling import SamplingSettings
from nas.core.trial import Candidate, Evaluation, Job
from nas.evaluation import CandidateTraining, register
from nas.evaluation.training import JudgingSettings

if TYPE_CHECKING:
    from nas.network.inheritance import InitialWeights

CHECKPOINT_S = 60.0
"""Seconds of a supernet's training between its checkpoints."""

LEAST = {"seed": 0, "training_threads": 1, "calibration_images": 1}
"""Smallest values of settings."""

Arrays = Mapping[str, npt.NDArray[np.float32]]


class SupernetTrainer(Job, Protocol):
    """Trains shared weights; the candidate stands for all of them."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Digests of what the weights depend on, by the setting's name."""

    def check(self) -> None:
        """Check that the networks of the space have anything to share."""


class SupernetJudge(Job, Protocol):
    """Judges candidates by shared weights."""

    @property
    def training(self) -> SupernetTrainer:
        """How the weights are trained."""

    @property
    def weights(self) -> InitialWeights | None:
        """The weights, where there are any yet."""

    def with_weights(self, arrays: Arrays, source: Mapping[str, str]) -> SupernetJudge:
        """Return the job that judges by these weights."""


class SupportsSupernet(Job, Protocol):
    """Trains candidates, or the weights that they share."""

    def of_supernet(
        self, sampling: SamplingSettings, calibration_images: int, stand_alone: Job | None = None
    ) -> SupernetJudge:
        """Return the job that judges candidates by shared weights.

        Those of fidelity 1 are trained by `stand_alone`, where it is given.
        """


@register("supernet")
@dataclass(frozen=True, kw_only=True)
class SupernetSettings(JudgingSettings, SamplingSettings):
    """Validation by a supernet, which is trained before the search and kept with the study.

    Attributes:
        recipe: How the shared weights are trained.
        stand_alone: How a candidate is trained by itself, from random weights, that `fidelity`
            promotes to 1; with `fidelity=full` none is.
        seed: Of their training.
        training_threads: Of torch, while they are trained; `None` for all cores of this host.
        calibration_images: Training images from which a candidate's batch statistics are estimated.
        inherit: Whether the front's members begin their training with the shared weights, unless
            `finalise.recipe.init` names others.
    """

    recipe: Recipe = field(default_factory=lambda: Recipe.of("full"))
    stand_alone: Recipe = field(default_factory=Recipe)
    seed: int = 0
    training_threads: int | None = None
    calibration_images: int = 1024
    inherit: bool = True

    def __post_init__(self) -> None:
        JudgingSettings.__post_init__(self)
        SamplingSettings.__post_init__(self)
        if self.stand_alone.teacher.source is not None:
            got, expected = self.stand_alone.teacher.source, "null, as it is the recipe of a search"
            fix = "the front may have a teacher: finalise.recipe.teacher"
            raise ConfigError("evaluation.stand_alone.teacher.source", got, expected, fix)
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"evaluation.{name}", value, f"{least} or more")

    def job(self, training: Callable[[Recipe], CandidateTraining], *, partial: bool = False) -> Job:
        own = {spec.name: getattr(self, spec.name) for spec in fields(SamplingSettings)}
        job = cast("SupportsSupernet", self.judging(training(self.recipe)))
        stand_alone = self.judging(training(self.stand_alone)) if partial else None
        return job.of_supernet(SamplingSettings(**own), self.calibration_images, stand_alone)

    def prepare(self, job: Job, folder: Path) -> Job:
        """Train the shared weights, unless that has been done by this study or one beside it.

        Raises:
            ConfigError: The folder has a supernet of another space, other data or another recipe.
            HwnasError: They cannot be trained.
        """
        judging = cast("SupernetJudge", job)
        kept = self._kept(judging, folder)
        if not kept.complete and not kept.found_beside():
            judging.training.check()
            self._train(judging.training, kept)
        return judging.with_weights(kept.arrays(), kept.source)

    def final_weights(self, job: Job, folder: Path) -> InitialWeights | None:
        if not self.inherit:
            return None
        return cast("SupernetJudge", self.prepare(job, folder)).weights

    def _kept(self, job: SupernetJudge, folder: Path) -> _Kept:
        return _Kept(folder, {**job.training.identity, "evaluation.seed": str(self.seed)})

    def _train(self, training: SupernetTrainer, kept: _Kept) -> None:
        from nas.cluster.ray_evaluator import RayEvaluator

        threads = self.training_threads or usable_cores()
        evaluator = RayEvaluator(
            cast("Job", replace(cast("Any", training), threads=threads)),
            workers=1,
            cpus_per_worker=threads,
            gpus_per_worker=self.gpus_per_worker,
            time_limit_s=math.inf,
        )
        with closing(evaluator):
            while not kept.complete:
                started = time.monotonic()
                evaluator.submit([self._part(kept)])
                [ended] = evaluator.completed()
                kept.keep(ended, time.monotonic() - started)

    def _part(self, kept: _Kept) -> Candidate:
        """Return the next part of the training, which ends with a checkpoint."""
        return Candidate(
            number=0,
            genotype=(),
            arch_id="supernet",
            seed=self.seed,
            checkpoint=kept.checkpoint(),
            cut_after_s=CHECKPOINT_S,
        )


@dataclass(frozen=True)
class _Kept:
    """What is kept of a supernet in a folder: its record, and its checkpoint or its weights.

    Attributes:
        folder: Made when there is anything to keep.
        identity: Of the supernet that is wanted.
    """

    folder: Path
    identity: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check that no other supernet lies there.

        Raises:
            ConfigError: One does.
        """
        known = self.record().get("identity", self.identity)
        for setting, digest in self.identity.items():
            if known.get(setting) != digest:
                expected = f"what the supernet in {self.folder} was trained with"
                fix = f"give the study another name, or delete {self.folder}"
                raise ConfigError(setting, "another one", expected, fix)

    @property
    def _weights(self) -> Path:
        return self.folder / "supernet.safetensors"

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "supernet-checkpoint.safetensors"

    @property
    def _record(self) -> Path:
        return self.folder / "supernet.json"

    @property
    def complete(self) -> bool:
        """Whether the weights are trained."""
        return self._weights.is_file() and self._record.is_file()

    @property
    def source(self) -> dict[str, str]:
        """Where the weights come from, for the record."""
        return {"supernet": str(self.folder), **self.identity}

    def record(self) -> dict[str, Any]:
        """Return what `supernet.json` holds; empty where there is none."""
        if not self._record.is_file():
            return {}
        return read_json(self._record, {"identity": dict, "seconds": float}, self._fix)

    def checkpoint(self) -> bytes | None:
        """Return where the training goes on; `None` to begin."""
        return self._checkpoint.read_bytes() if self._checkpoint.is_file() else None

    def arrays(self) -> Arrays:
        """Return the weights.

        Raises:
            HwnasError: They are not those that were trained.
        """
        from safetensors.numpy import load

        content = self._weights.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.record().get("weights_sha256"):
            line = f"{self._weights}: has another SHA-256 than {self._record} says"
            raise HwnasError(f"{line}; {self._fix}")
        return load(content)

    def keep(self, ended: Evaluation, seconds: float) -> None:
        """Keep what came of a part of the training.

        Raises:
            HwnasError: It failed.
        """
        outcome = ended.outcome
        if outcome is None:
            line = f"the supernet could not be trained ({ended.failure})"
            raise HwnasError(f"{line}; see evaluation.recipe")
        record = self.record()
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = {}
        if outcome.checkpoint is not None:
            write_bytes_atomically(self._checkpoint, outcome.checkpoint)
        elif outcome.weights is not None:
            write_bytes_atomically(self._weights, outcome.weights)
            digest = {"weights_sha256": hashlib.sha256(outcome.weights).hexdigest()}
        record = {
            **digest,
            "identity": dict(self.identity),
            "seconds": record.get("seconds", 0.0) + seconds,
            "history": [*record.get("history", []), *map(dict, outcome.history)],
        }
        write_json_atomically(self._record, record)
        if self.complete:
            self._checkpoint.unlink(missing_ok=True)

    def found_beside(self) -> bool:
        """Copy an equal supernet from the folder of a study beside this one, if there is any."""
        for file in sorted(self.folder.parent.parent.glob(f"*/{self.folder.name}/supernet.json")):
            with contextlib.suppress(ConfigError, HwnasError, OSError):
                other = _Kept(file.parent, self.identity)
                if other.complete:
                    other.arrays()  # which refuses damaged ones
                    self.folder.mkdir(parents=True, exist_ok=True)
                    write_bytes_atomically(self._weights, other._weights.read_bytes())
                    record = {"reused_from": str(other.folder), **other.record()}
                    write_json_atomically(self._record, record)
                    return True
        return False

    @property
    def _fix(self) -> str:
        return f"delete {self.folder} and run the same command again"
