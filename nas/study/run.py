"""Run one study: calibrate, search, verify.

Every stage keeps what it has finished in the study's folder, so that the same call goes on where
an interrupted one stopped.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.dataset import SearchSplits
from nas.core.errors import ConfigError, DeviceError, HwnasError
from nas.core.host import usable_cores
from nas.core.objective import Facts, Objective
from nas.core.prediction import LearningPredictor
from nas.core.recipe import Recipe
from nas.core.seeding import stream
from nas.core.space import Genotype
from nas.core.trial import Trial, full_trainings
from nas.devices.measuring.environment import threads_line
from nas.evaluation.checkpoints import CheckpointFolder, ContinuingEvaluator
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.results.hypervolume import hypervolume
from nas.results.ledger import Ledger, Writer
from nas.results.study import StudyResults
from nas.search.adaptive_measurement import AdaptiveMeasurement
from nas.search.feasibility import feasibility_report
from nas.search.loop import SearchLoop
from nas.search.problem import SearchProblem
from nas.search.proposer import WarmStart
from nas.search.stopping import ROUNDING, Stopping
from nas.study import adaptive_measurement, noise, preview, record, warm_start
from nas.study.calibration import Calibration, accuracy_line, calibrate, is_calibrated, learner
from nas.study.finalise import Finalisation
from nas.study.folder import StudyFolder, now_utc
from nas.study.reporter import Reporter, SearchPlan
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob, check_resolution


def run(settings: StudySettings, reporter: Reporter) -> StudyResults:
    """Run a study, or go on with one.

    Args:
        settings: What to do.
        reporter: Told of the progress.

    Raises:
        HwnasError: Something in the settings or the surroundings is wrong; what was finished is
            kept.
    """
    folder = StudyFolder(Path(settings.runs).expanduser() / settings.name)
    finished = _finished(settings, folder)
    if finished is not None:
        reporter.stage(f"{folder.path}: finished before, nothing is left to do")
        return finished
    study = _study(settings, folder, reporter)
    with folder.locked():
        folder.check(settings.config)
        with settings.evaluation.connected(settings.ray_address):
            if folder.record_path.is_file() and folder.record()["status"] == "finalised":
                # By other settings, or it would have been found finished.
                folder.update(status="searched")
            folder.save(settings.config)
            try:
                return study.run()
            except DeviceError as error:
                fix = "what was finished is kept, run the same command again to go on"
                raise DeviceError(f"{error}; {fix}") from error


def check(settings: StudySettings, reporter: Reporter) -> None:
    """Say what a study would look for and how long that takes; nothing is measured or written.

    Args:
        settings: What to do.
        reporter: Told what is found.

    Raises:
        HwnasError: Something in the settings or the surroundings is wrong.
        NoFeasibleArchitectureError: Nothing is found that keeps the limits.
    """
    folder = StudyFolder(Path(settings.runs).expanduser() / settings.name)
    study = _study(settings, folder, reporter)
    folder.check(settings.config)
    study.check()


def _study(settings: StudySettings, folder: StudyFolder, reporter: Reporter) -> _Study:
    splits = settings.data.search_splits()
    space = settings.space(splits.input_shape, splits.task.output_size)
    check_resolution(space, settings.finalise.recipe, "finalise.recipe")
    return _Study(settings, folder, splits, space, reporter)


def _finished(settings: StudySettings, folder: StudyFolder) -> StudyResults | None:
    """Return the study if the very same settings have brought it to its end."""
    if not folder.record_path.is_file() or folder.saved() != settings.config:
        return None
    results = StudyResults(folder.path, settings.ledger_url)
    # The limits may have been raised by a run that was stopped before it searched.
    complete = (results.record.get("stop") or {}).get("limits") == settings.search.limits
    fruitful = (results.trials()["status"] == "complete").any()
    verified = results.status == "finalised" or (settings.finalise.limit == 0 and fruitful)
    return results if complete and verified else None


@dataclass
class _Study:
    settings: StudySettings
    folder: StudyFolder
    splits: SearchSplits
    space: SearchSpace
    reporter: Reporter

    def __post_init__(self) -> None:
        """Make the job, which refuses recipes that the space cannot follow."""
        self._job = self.settings.evaluation.job(self._training)
        self._errors: list[float] = []

    def run(self) -> StudyResults:
        fingerprint = self._checked()
        first = warm_start.proposals(self.settings, self.space, self.folder)
        calibration = self._calibrated()
        problem = self._problem(calibration)
        # A search that cannot begin leaves its settings open to change.
        feasible = self._survey(problem)
        ledger = Ledger.open(
            self._ledger_url,
            self._ledger_name,
            list(problem.objectives),
            self.space.genes,
            Writer(self.folder.ledger_owner, self.folder.place, self.folder.record_path.is_file()),
        )
        if published := self.settings.published:
            self.reporter.stage("nothing is verified at the end: " + "; ".join(published.values()))
        with closing(ledger):
            # After the ledger, so that whoever finds the record can read both.
            record.begin(
                self.settings, self.folder, fingerprint, problem, calibration, first, self.splits
            )
            # With the stamp of now, the next run need not load the test split.
            self.folder.update(data_fingerprint=fingerprint)
            trials = self._search(problem, ledger, first, feasible)
        results = StudyResults(self.folder.path, self._ledger_url)
        if not any(trial.complete for trial in trials):
            line = preview.nothing_complete_line(trials, self.folder.record()["stop"]["by"])
            raise HwnasError(f"study {self.settings.name!r}: {line}")
        parts = (self.settings, self.folder, self.splits, problem, results, self.reporter)
        # A study whose front could not be verified as a whole tries again when it is started again.
        complete = Finalisation(*parts).run()
        self._say(noise.front_line(results, self._counted))
        if complete and self.settings.finalise.limit > 0:
            self.folder.update(status="finalised", finished_utc=now_utc())
            # Nothing is lost: what more evaluations promote is then trained from the start.
            shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
        return StudyResults(self.folder.path, self._ledger_url)

    def check(self) -> None:
        """Say what can be said without measuring, training or writing anything."""
        self._checked()
        settings = self.settings
        calibration = None
        if is_calibrated(self.folder.predictor):
            calibration = Calibration.load(self.folder.predictor, self.space)
        elif self._needs_calibration:
            self.reporter.stage(preview.calibration_line(settings.predictor))
        feasible = self._survey(self._problem(calibration))
        workers = settings.evaluation.workers_here() if settings.ray_address is None else None
        trials = []
        if self.folder.record_path.is_file():
            owner = self.folder.ledger_owner
            with closing(Ledger.load(self._ledger_url, self._ledger_name, owner)) as ledger:
                trials = ledger.trials()
        self.reporter.stage(self._time_line(feasible, trials, workers))

    def _checked(self) -> dict[str, Any]:
        """Say what the study has: images, cores. Return the fingerprint of the data.

        Raises:
            DataError: An image cannot be read, or the data are not those that the study began with.
            ConfigError: There are too few cores for one worker.
        """
        fingerprint = record.data_fingerprint(self.settings, self.folder, self.splits)
        for line in record.data_lines(fingerprint, self.splits):
            self.reporter.stage(line)
        threads, cores = self.settings.evaluation.threads, usable_cores()
        if self.settings.ray_address is None and threads > cores:
            expected = f"at most the {cores} core(s) that this process may use"
            fix = "lower it, or allow more cores"
            raise ConfigError("evaluation.threads_per_worker", threads, expected, fix)
        return fingerprint

    def _survey(self, problem: SearchProblem) -> list[Genotype]:
        """Say what the limits leave; return some architectures that keep them.

        Raises:
            NoFeasibleArchitectureError: None is found; names the nearest values.
        """
        found = feasibility_report(problem, stream(self.settings.seed, "survey"))
        for line in preview.feasibility_lines(problem, found):
            self.reporter.stage(line)
        one = problem.sample_feasible(stream(self.settings.seed, "feasible"))
        assert one is not None, "with nothing seen, there is one or an error"
        return found.feasible or [one]

    def _time_line(
        self, feasible: Sequence[Genotype], trials: Sequence[Trial], workers: int | None
    ) -> str:
        return preview.time_line(
            self._job,
            feasible,
            trials,
            evaluations=self.settings.search.evaluations,
            stop=self.settings.search.stop,
            workers=workers,
            gpus=self.settings.evaluation.on_gpus,
        )

    @property
    def _ledger_url(self) -> str:
        return self.settings.ledger_url or self.folder.ledger_url

    @property
    def _ledger_name(self) -> str:
        """Name under which the study began: its folder may have another one by now."""
        begun = self.folder.record_path.is_file()
        return str(self.folder.record()["name"]) if begun else self.settings.name

    @property
    def _used(self) -> list[Objective]:
        return [*self.settings.objectives.values(), *self.settings.limited.values()]

    @property
    def _needs_calibration(self) -> bool:
        return any(objective.needs_predictor or objective.needs_memory for objective in self._used)

    def _calibrated(self) -> Calibration | None:
        """Return the study's calibration, made now unless that was done before."""
        if not self._needs_calibration:
            return None
        if is_calibrated(self.folder.predictor):
            return Calibration.load(self.folder.predictor, self.space)
        samples = self.settings.predictor.samples
        self._say(threads_line(self.settings.device))
        self.reporter.stage(f"calibrating the latency predictor on {samples} networks")
        calibration = calibrate(
            self.space,
            self.settings.device,
            self.settings.predictor,
            seed=self.settings.seed,
            store=self.settings.store,
            folder=self.folder.predictor,
            memory=any(objective.needs_memory for objective in self._used),
        )
        if reused := calibration.cost["reused"]:
            self.reporter.stage(f"{reused} of {samples} networks had been measured before")
        self.reporter.stage(accuracy_line(calibration))
        return calibration

    def _adaptive_measurement(self, problem: SearchProblem) -> AdaptiveMeasurement | None:
        """Return what measures candidates during the search, if anything does."""
        settings, predictor = self.settings, problem.facts.predictor
        if not settings.search.adaptive_measurement.measurements or predictor is None:
            return None
        assert isinstance(predictor, LearningPredictor)
        return AdaptiveMeasurement(
            problem=problem,
            settings=settings.search.adaptive_measurement,
            predictor=predictor,
            measure=adaptive_measurement.measurer(
                self.space, settings.device, settings.predictor, settings.store, settings.seed
            ),
            learn=learner(self.space, settings.predictor, self.folder.predictor),
            record=adaptive_measurement.MeasuredCandidatesFile(self.folder.adaptive_measurement),
            on_measured=lambda found: self.reporter.stage(adaptive_measurement.line(found)),
        )

    def _problem(self, calibration: Calibration | None) -> SearchProblem:
        predictor = None if calibration is None else LearningPredictor(calibration.predictor)
        return SearchProblem(
            space=self.space,
            objectives=self.settings.objectives,
            limited=self.settings.limited,
            constraints=self.settings.constraints,
            facts=Facts(
                self.space.costs,
                predictor,
                None if calibration is None else calibration.memory,
                self.settings.device.published_ms,
            ),
        )

    def _search(
        self,
        problem: SearchProblem,
        ledger: Ledger,
        first: Sequence[Genotype],
        feasible: Sequence[Genotype],
    ) -> Sequence[Trial]:
        settings = self.settings
        recorded = ledger.trials()
        unfinished = full_trainings(recorded) < settings.search.evaluations - ROUNDING
        if unfinished:
            self.folder.update(status="searching", stop=None)
        job = self._job
        if unfinished:
            job = settings.evaluation.prepare(job, self.folder.prepared)
        workers = settings.evaluation.start(job)
        checkpoints = CheckpointFolder(self.folder.checkpoints)
        with closing(ContinuingEvaluator(workers, checkpoints)) as evaluator:
            if unfinished:
                self.reporter.stage(self._time_line(feasible, recorded, evaluator.workers))
            schedule = settings.search.schedule(evaluator.workers)
            loop = SearchLoop(
                problem=problem,
                algorithm=WarmStart(
                    settings.search.algorithm.start(
                        problem, int(stream(settings.seed, "search").integers(2**31))
                    ),
                    problem,
                    first,
                ),
                evaluator=evaluator,
                ledger=ledger,
                describe=lambda genotype: record.described(problem, genotype),
                on_trial=lambda trial: self._report(problem, trial),
                study_seed=settings.seed,
                stopping=Stopping(
                    settings.search.evaluations,
                    settings.search.stop,
                    lambda trials: self._hypervolume(problem, trials),
                ),
                schedule=schedule,
                adaptive_measurement=self._adaptive_measurement(problem),
                fidelity=settings.fidelity.start(problem),
            )
            plan = SearchPlan(
                evaluations=settings.search.evaluations,
                stop=settings.search.stop,
                recorded=tuple(recorded),
                workers=evaluator.workers,
                simulated="seconds" in settings.published,
                lookahead=schedule.lookahead,
                columns={name: o.column for name, o in problem.objectives.items()},
                reference_point=self.folder.record()["reference_point"],
            )
            with self.reporter.search(plan):
                trials = loop.run()
        assert loop.stop is not None, "a search that has ended says why"
        self.reporter.stage(f"the search has ended: {loop.stop.detail}")
        if len(self._errors) != noise.LEAST_TRIALS:  # that has been said
            self._say(self._chance_line())
        self.folder.update(
            status="searched",
            stop={**dataclasses.asdict(loop.stop), "limits": settings.search.limits},
            adaptive_measurement=adaptive_measurement.MeasuredCandidatesFile(
                self.folder.adaptive_measurement
            ).summary(),
        )
        return trials

    def _training(self, recipe: Recipe) -> TrainingJob:
        return TrainingJob(
            space=self.space,
            train=self.splits.train,
            held_out=self.splits.validation,
            preprocessing=Preprocessing.of(self.splits.train),
            recipe=recipe,
            threads=self.settings.evaluation.threads,
        )

    def _hypervolume(self, problem: SearchProblem, trials: Sequence[Trial]) -> float:
        """Return the hypervolume of trials, as the search saw them."""
        reference_point = self.folder.record()["reference_point"]
        kept = (trial for trial in trials if trial.full and problem.kept(trial))
        points = [[trial.values[name] for name in problem.objectives] for trial in kept]
        return hypervolume(points, [reference_point[name] for name in problem.objectives])

    def _report(self, problem: SearchProblem, trial: Trial) -> None:
        self.reporter.trial(trial, feasible=problem.kept(trial))
        known = noise.errors_percent([trial])
        self._errors += known
        if known and len(self._errors) == noise.LEAST_TRIALS:
            self._say(self._chance_line())

    def _chance_line(self) -> str | None:
        trivial_percent = self.splits.trivial()["error"]
        return noise.chance_line(self._errors, self._counted, trivial_percent)

    @property
    def _counted(self) -> int:
        """Validation examples whose error is a count, to which statistical tests apply."""
        return len(self.splits.validation) if self.splits.task.error_is_share else 0

    def _say(self, line: str | None) -> None:
        if line is not None:
            self.reporter.stage(line)
