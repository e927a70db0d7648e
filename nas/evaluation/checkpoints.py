"""Checkpoints of partial trainings, kept by the driver and sent along with what goes on from them.

Workers share no disk with the driver, so checkpoints travel with candidates and outcomes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nas.core.files import write_bytes_atomically
from nas.core.trial import FULL, Candidate, Evaluation, Evaluator

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder with at most one checkpoint of an architecture, which one process writes.

    Nothing depends on what lies there: without its checkpoint, a training begins again.

    Attributes:
        path: Made when the first checkpoint comes.
    """

    path: Path

    def latest(self, arch_id: str, fidelity: float) -> bytes | None:
        """Return an architecture's checkpoint, unless it has none or is past `fidelity`."""
        file = self._files.get(arch_id)
        if file is None or _fidelity(file) > fidelity:
            return None
        try:
            return file.read_bytes()
        except OSError:
            return None

    def keep(self, arch_id: str, fidelity: float, checkpoint: bytes) -> None:
        """Keep a checkpoint in place of the architecture's earlier one.

        Raises:
            HwnasError: It cannot be written.
        """
        earlier = self._files.get(arch_id)
        file = self.path / f"{arch_id}-{fidelity!r}{_SUFFIX}"
        self.path.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(file, checkpoint)
        self._files[arch_id] = file
        if earlier is not None and earlier != file:
            earlier.unlink(missing_ok=True)

    def discard(self, arch_id: str) -> None:
        """Delete an architecture's checkpoint, if it has one."""
        file = self._files.pop(arch_id, None)
        if file is not None:
            file.unlink(missing_ok=True)

    def retain(self, arch_ids: Collection[str]) -> None:
        """Delete the checkpoints of all other architectures."""
        for arch_id in self._files.keys() - set(arch_ids):
            self.discard(arch_id)

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The checkpoints by `arch_id`: a folder of thousands is listed once."""
        # Two lie there where a process ended between writing one and deleting the other.
        files = sorted(self.path.glob(f"*-*{_SUFFIX}"), key=_fidelity)
        return {file.name.partition("-")[0]: file for file in files}


class ContinuingEvaluator(Evaluator):
    """Has candidates go on from where an earlier, shorter training of them ended."""

    def __init__(
        self, evaluator: Evaluator, folder: CheckpointFolder, weights: CheckpointFolder
    ) -> None:
        """Evaluate on the workers of `evaluator`, with the checkpoints in `folder`.

        What full trainings hand out is kept in `weights`.
        """
        self._evaluator = evaluator
        self._folder = folder
        self._weights = weights

    @property
    def workers(self) -> int:
        return self._evaluator.workers

    def submit(self, candidates: Sequence[Candidate]) -> None:
        self._evaluator.submit(
            [replace(c, checkpoint=self._folder.latest(c.arch_id, c.fidelity)) for c in candidates]
        )

    def completed(self) -> list[Evaluation]:
        return [self._kept(evaluation) for evaluation in self._evaluator.completed()]

    def end_at(self, clock_s: float) -> None:
        self._evaluator.end_at(clock_s)

    def clock(self) -> float:
        return self._evaluator.clock()

    def close(self) -> None:
        self._evaluator.close()

    def _kept(self, evaluation: Evaluation) -> Evaluation:
        """Return an evaluation without checkpoint and weights, which may be large."""
        candidate = replace(evaluation.candidate, checkpoint=None, parent=None)
        outcome = evaluation.outcome
        if outcome is not None and outcome.weights is not None:
            if outcome.checkpoint is None:
                self._weights.keep(candidate.arch_id, FULL, outcome.weights)
            outcome = replace(outcome, weights=None)
            evaluation = replace(evaluation, outcome=outcome)
        if outcome is None or outcome.checkpoint is None:
            # The training is complete, or has failed and will not be promoted.
            self._folder.discard(candidate.arch_id)
            return replace(evaluation, candidate=candidate)
        reached = candidate.fidelity if outcome.cut_at is None else outcome.cut_at
        self._folder.keep(candidate.arch_id, reached, outcome.checkpoint)
        return replace(evaluation, candidate=candidate, outcome=replace(outcome, checkpoint=None))


def _fidelity(file: Path) -> float:
    """Return the fidelity in a checkpoint's name; infinite where somebody else named the file."""
    with contextlib.suppress(ValueError):
        return float(file.name.removesuffix(_SUFFIX).rpartition("-")[2])
    return math.inf
