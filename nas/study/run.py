"""Run one study: calibrate, search, verify.

Every stage keeps what it has finished in the study's folder, so that the same call goes on where
an interrupted one stopped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import ConfigError, DeviceError, HwnasError
from nas.core.host import usable_cores
from nas.core.objective import Facts
from nas.core.prediction import LearningPredictor
from nas.core.recipe import Recipe
from nas.core.seeding import stream
from nas.core.space import Genotype
from nas.core.trial import History, Job, Trial, full_trainings
from nas.devices.measuring.environment import threads_line
from nas.evaluation import proxies
from nas.evaluation.checkpoints import CheckpointFolder, ContinuingEvaluator
from nas.evaluation.proxy import ProxySettings, scored_sample
from nas.logging import GuardedLogger, Logger
from nas.network.inheritance import PretrainedWeights
from nas.network.trained import Preprocessing
from nas.results.ledger import Ledger, Writer
from nas.results.study import StudyResults
from nas.search.algorithms.gradient import GradientSettings
from nas.search.algorithms.guided import GuidedSettings
from nas.search.feasibility import feasibility_report
from nas.search.loop import SearchLoop
from nas.search.parents import Parents
from nas.search.problem import Scored, SearchProblem
from nas.search.proposer import WarmStart
from nas.search.stopping import ROUNDING, Stopping
from nas.study import noise, preview, record, teachers
from nas.study.bases import BASES, check_base
from nas.study.calibration import (
    Calibration,
    MeasuredCandidatesFile,
    accuracy_line,
    adaptive_measurement,
)
from nas.study.finalise import Finalisation
from nas.study.folder import StudyFolder, now_utc
from nas.study.front import SearchFront
from nas.study.initial import check_unchanged, initial_weights
from nas.study.planner import OUTSIDE_SEARCH, Planner
from nas.study.relaxation import KnownCost, Relaxation
from nas.study.reporting import Reporter, SearchPlan
from nas.study.settings import StudySettings
from nas.training.job import TrainingJob, check_recipe
from nas.training.precision import check_compiler, emulation_line
from nas.training.relaxed import RelaxedJob

LONG_CALIBRATION_S = 10.0
"""Seconds of timed inference from which a calibration is preceded by the time of the whole."""

FORESEEN = 64
"""Random architectures of which some are timed for that."""


def run(settings: StudySettings, reporter: Reporter | None = None) -> StudyResults:
    """Run a study, or go on with one; prints the progress unless another `reporter` is given.

    Raises:
        HwnasError: Something in the settings or the surroundings is wrong; what was finished is
            kept.
    """
    folder = StudyFolder(Path(settings.runs).expanduser() / settings.name)
    reporter = reporter or Reporter()
    finished = _finished(settings, folder)
    if finished is not None:
        reporter.stage(f"{folder.path}: finished before, nothing is left to do")
        return finished
    study = _Study(settings, folder, reporter)
    with folder.locked():
        folder.check(settings.config)
        with settings.evaluation.connected(settings.ray.address):
            if folder.begun and folder.record()["status"] == "finalised":
                # By other settings, or it would have been found finished.
                folder.update(status="searched")
            folder.save(settings.config)
            study.space.save_base()
            try:
                return study.run()
            except DeviceError as error:
                fix = "what was finished is kept, run the same command again to go on"
                raise DeviceError(f"{error}; {fix}") from error


def check(settings: StudySettings) -> None:
    """Say what a study would look for and how long that takes; nothing is measured or written.

    Raises:
        HwnasError: Something in the settings or the surroundings is wrong.
        NoFeasibleArchitectureError: Nothing is found that keeps the limits.
    """
    folder = StudyFolder(Path(settings.runs).expanduser() / settings.name)
    study = _Study(settings, folder, Reporter())
    folder.check(settings.config)
    study.check()


def _finished(settings: StudySettings, folder: StudyFolder) -> StudyResults | None:
    """Return the study if the very same settings have brought it to its end."""
    if not folder.begun or folder.saved() != settings.config:
        return None
    results = StudyResults(folder.path, settings.ledger_url)
    # The limits may have been raised by a run that was stopped before it searched.
    complete = (results.record.get("stop") or {}).get("limits") == settings.limits
    fruitful = (results.trials()["status"] == "complete").any()
    finalised = results.status == "finalised" and folder.verified
    verified = finalised or (settings.finalise.limit == 0 and fruitful)
    return results if complete and verified else None


class _Study:
    """A study with its data and its space; the stages of `run` in their order."""

    def __init__(self, settings: StudySettings, folder: StudyFolder, reporter: Reporter) -> None:
        """Load the data, and make the job, which refuses recipes that the space cannot follow."""
        started = time.monotonic()
        self.folder, self.reporter = folder, reporter
        with reporter.progress("reading the data", None):
            self.splits = splits = settings.data.search_splits()
        self.settings = settings = settings.of_task(splits.task)
        bases = Path(settings.runs).expanduser().resolve() / BASES
        space = settings.space(splits.input_shape, splits.task.output_size).with_base_in(bases)
        self.space = space
        # Before any is started it is not known how many workers there are on a cluster.
        here = settings.ray.address is None
        if len(splits.train):
            own = self._preprocessing
            self._say(check_base(space, splits.task, own.mean, own.std))
        check_recipe(space, settings.finalise.recipe, "finalise.recipe")
        self._initial: dict[str, PretrainedWeights] = {}
        self._note_initial("finalise", settings.finalise.recipe)
        self._job = settings.evaluation.job(
            lambda recipe: dataclasses.replace(
                self._training(recipe, self._note_initial("evaluation", recipe)),
                return_weights=settings.evaluation.inherits,
            ),
            partial=len(settings.fidelity.fidelities) > 1,
        )
        timed, final = self._job, None
        if len(splits.train):
            final = self._timed(self._final_training(), "finalise.recipe")
        if isinstance(timed, TrainingJob):
            timed = self._timed(timed, "evaluation.recipe")
        self._planner = planner = Planner(
            settings=settings,
            job=timed,
            final_job=final,
            say=reporter.stage,
            started=started,
            outside_s=folder.record().get(OUTSIDE_SEARCH, 0.0) if folder.begun else 0.0,
            workers=settings.evaluation.workers_here() if here else None,
        )
        self._calibration = settings.calibration(
            space, folder.predictor, planner.calibration_limit_s
        )
        self._ledger_url = settings.ledger_url or folder.ledger_url
        self._trials: list[Trial] = []
        self._logger = Logger()

    def _final_training(self) -> TrainingJob:
        recipe = self.settings.finalise.recipe
        return self._training(recipe, self._initial.get("finalise"))

    def _training(self, recipe: Recipe, initial: PretrainedWeights | None) -> TrainingJob:
        """Return the job that trains candidates by a recipe, as yet without a teacher."""
        evaluation = self.settings.evaluation
        return TrainingJob(
            space=self.space,
            train=self.splits.train,
            held_out=self.splits.validation,
            preprocessing=self._preprocessing,
            recipe=recipe,
            initial=initial,
            threads=evaluation.threads,
            processes=evaluation.processes,
            memory_share=evaluation.memory_share(here=self.settings.ray.address is None),
            counts_stored=self.settings.counts_stored,
        )

    @cached_property
    def _preprocessing(self) -> Preprocessing:
        return Preprocessing.of(self.splits.train)

    def _timed(self, job: TrainingJob, setting: str) -> TrainingJob:
        """Return a job that takes as long as one with the teacher of its recipe, which is found."""
        runs = Path(self.settings.runs).expanduser()
        return teachers.timed(job, teachers.found(job, setting, runs))

    def _taught(self, job: TrainingJob, setting: str) -> TrainingJob:
        """Return a job with the teacher of its recipe; see `nas.study.teachers.taught`."""
        return teachers.taught(job, setting, self.settings, self.folder.teachers, self.reporter)

    def run(self) -> StudyResults:
        settings, folder = self.settings, self.folder
        first = record.warm_start(settings, self.space, folder)
        fingerprint = self._checked()
        calibration = self._calibrated()
        problem = self._problem(calibration)
        # A search that cannot begin leaves its settings open to change.
        feasible = self._survey(problem)
        self._check_targets(problem)
        if left_out := int((~problem.feasible_rows(first)).sum()) if first else 0:
            limits = ", ".join(map(str, problem.constraints))
            line = f"{left_out} of {len(first)} architectures of search.warm_start break {limits}"
            self.reporter.stage(f"{line} and are not tried")
        ledger = Ledger.open(
            self._ledger_url,
            self._name,
            list(problem.objectives),
            self.space.genes,
            Writer(folder.ledger_owner, folder.place, folder.begun),
        )
        if published := settings.published:
            self.reporter.stage("nothing is verified at the end: " + "; ".join(published.values()))
        # After the ledger, so that whoever finds the record can read both.
        if not folder.begun:
            record.begin(settings, folder, fingerprint, problem, calibration, first, self.splits)
        # With the stamp of now, the next run need not load the test split.
        folder.update(data_fingerprint=fingerprint, pretrained_weights=self._initial_sources)
        self._logger = GuardedLogger(
            lambda: settings.logging.start(self._name, folder.path), self.reporter.stage
        )
        with closing(self._logger):
            return self._concluded(problem, self._search(problem, ledger, first, feasible))

    def _concluded(self, problem: SearchProblem, trials: Sequence[Trial]) -> StudyResults:
        """Verify what a search has found."""
        settings, folder = self.settings, self.folder
        results = StudyResults(folder.path, self._ledger_url)
        if not any(trial.complete for trial in trials):
            line = preview.nothing_complete_line(trials, folder.record()["stop"]["by"])
            raise HwnasError(f"study {settings.name!r}: {line}")
        # A study whose front could not be verified as a whole tries again when it is started again.
        with self._planner.stage("verification"):
            complete = Finalisation(
                settings,
                folder,
                self.splits,
                problem,
                results,
                self.reporter,
                self._logger,
                taught=self._taught,
                fitting=lambda ids, least: self._planner.verified(trials, ids, least),
                initial=self._initial.get("finalise")
                or settings.evaluation.final_weights(self._job, folder.prepared),
            ).run()
        judged = self.settings.evaluation.judged(self._counted)
        self._say(noise.front_line(results, judged, self._counted))
        self._say(_limits_line(results))
        self._say(self._planner.ended_line())
        outside_s = self._planner.spent_s - max(trial.ended_s for trial in trials)
        folder.update(**{OUTSIDE_SEARCH: outside_s, "stages": self._planner.stages})
        if complete and settings.finalise.limit > 0:
            folder.update(status="finalised", finished_utc=now_utc())
            # Nothing is lost: what more evaluations promote is then trained from the start.
            cut = {trial.arch_id for trial in trials if trial.cut}
            CheckpointFolder(folder.checkpoints).retain(cut)
        return StudyResults(folder.path, self._ledger_url)

    def check(self) -> None:
        """Say what can be said without measuring, training or writing anything."""
        self._checked()
        calibration = Calibration.load(self.folder.predictor, self.space)
        if calibration is None and self._needs_calibration:
            self.reporter.stage(preview.calibration_line(self.settings.predictor))
        feasible = self._survey(self._problem(calibration))
        trials = []
        if self.folder.begun:
            owner = self.folder.ledger_owner
            trials = Ledger.load(self._ledger_url, self._name, owner).trials()
        calibrated = calibration is not None or not self._needs_calibration
        self._planner.announce(feasible, trials, calibrated=calibrated)

    @property
    def _name(self) -> str:
        """Name under which the study began: its folder may have another one by now."""
        return self.folder.record()["name"] if self.folder.begun else self.settings.name

    @property
    def _needs_calibration(self) -> bool:
        return any(objective.needs_calibration for objective in self.settings.used.values())

    @property
    def _counted(self) -> int:
        """Validation examples whose error is a count, to which statistical tests apply."""
        return len(self.splits.validation) if self.splits.task.error_is_share else 0

    @property
    def _initial_sources(self) -> dict[str, Mapping[str, str]]:
        """Where the weights come from that networks begin with, by the setting that names them."""
        sources = {f"{name}.recipe.init": weights.source for name, weights in self._initial.items()}
        return {**sources, **self.space.initial_sources}

    def _note_initial(self, section: str, recipe: Recipe) -> PretrainedWeights | None:
        """Return the weights that the networks of a section begin with, and take note of them."""
        task, say = self.splits.task, self.reporter.stage
        weights = initial_weights(recipe, section, self.space, task, say)
        if weights is not None:
            self._initial[section] = weights
        return weights

    def _say(self, line: str | None) -> None:
        if line is not None:
            self.reporter.stage(line)

    def _checked(self) -> dict[str, Any]:
        """Say what the study has: images, cores. Return the fingerprint of the data.

        Raises:
            DataError: An image cannot be read, or the data are not those that the study began with.
            ConfigError: There are too few cores for one worker.
        """
        threads, cores = self.settings.evaluation.threads, usable_cores()
        if self.settings.ray.address is None and threads > cores:
            expected = f"at most the {cores} core(s) that this process may use"
            fix = "lower it, or allow more cores"
            raise ConfigError("evaluation.threads_per_worker", threads, expected, fix)
        with self.reporter.progress("checking the data", None):
            fingerprint = record.data_fingerprint(self.settings, self.folder, self.splits)
        for line in (*record.data_lines(fingerprint, self.splits), *self.space.remarks):
            self.reporter.stage(line)
        if isinstance(self._job, TrainingJob):
            self.reporter.stage(f"candidates are trained for {self._job.recipe.summary}")
        if self.settings.finalise.limit:
            final = self.settings.finalise.recipe.summary
            self.reporter.stage(f"the front is trained for {final}")
        self._check_arithmetic()
        if self.folder.begun:
            known = self.folder.record().get("pretrained_weights", {})
            check_unchanged(known, self._initial_sources)
        return fingerprint

    def _check_arithmetic(self) -> None:
        """Warn of a precision that this processor only emulates.

        Raises:
            ConfigError: A recipe compiles networks, which does not work here.
        """
        if self.settings.evaluation.on_gpus:
            return
        recipes = {}
        if isinstance(self._job, TrainingJob):
            recipes["evaluation.recipe"] = self._job.recipe
        if self.settings.finalise.limit:
            recipes["finalise.recipe"] = self.settings.finalise.recipe
        for setting, recipe in recipes.items():
            compute = recipe.compute
            if compute.compile:
                check_compiler(f"{setting}.compute.compile")
            self._say(emulation_line(compute.precision, f"{setting}.compute.precision"))

    def _survey(self, problem: SearchProblem) -> list[Genotype]:
        """Say what the limits leave; return some architectures that keep them.

        Raises:
            NoFeasibleArchitectureError: None is found; names the nearest values.
        """
        found = feasibility_report(problem, stream(self.settings.seed, "survey"))
        for line in preview.feasibility_lines(problem, found):
            self.reporter.stage(line)
        return found.feasible or problem.samples_feasible(1, stream(self.settings.seed, "feasible"))

    def _calibrated(self) -> Calibration | None:
        """Return the study's calibration, made now unless that was done before."""
        if not self._needs_calibration:
            return None
        predictor, planner = self.settings.predictor, self._planner
        if (calibration := Calibration.load(self.folder.predictor, self.space)) is not None:
            planner.sample_s = calibration.sample_s
            if not self.folder.begun:
                planner.outside_s = calibration.cost["seconds"]
            return calibration
        samples = predictor.samples
        long = samples * predictor.seconds_per_sample >= LONG_CALIBRATION_S
        if long or self.settings.budget is not None:
            # Timing some trainings takes seconds; after a short calibration it is done anyway.
            random = self.space.samples(FORESEEN, stream(self.settings.seed, "foreseen"))
            genotypes = [tuple(genotype) for genotype in random.tolist()]
            if (plan := planner.announce(genotypes, [], calibrated=False)) is not None:
                samples = plan.samples
        self._say(threads_line(self.settings.device))
        what = "latency predictor" if self.settings.device.times else "predictors of memory"
        self.reporter.stage(f"calibrating the {what} on {samples} networks")
        with planner.stage("calibration"), self.reporter.progress("calibration", samples) as show:
            calibration = Calibration.measured(self._calibration, show)
        planner.sample_s = calibration.sample_s
        if reused := calibration.cost["reused"]:
            networks = reused + calibration.cost["measured"]
            self.reporter.stage(f"{reused} of {networks} networks had been measured before")
        self.reporter.stage(accuracy_line(calibration))
        return calibration

    def _problem(self, calibration: Calibration | None) -> SearchProblem:
        predictor = calibration and calibration.predictor
        return SearchProblem(
            space=self.space,
            objectives=self.settings.objectives,
            limited=self.settings.limited,
            constraints=self.settings.constraints,
            facts=Facts(
                costs=self.space.costs,
                predictor=LearningPredictor(predictor) if predictor else None,
                memory=calibration.memory if calibration else None,
                published_ms=self.settings.device.published_ms,
                sram=calibration.sram if calibration else None,
                flash=calibration.flash if calibration else None,
            ),
        )

    def _prepared(self) -> Job:
        """Return the job of the search, on which all work before the first trial is done."""
        self.folder.update(status="searching", stop=None)
        job = self._job
        with self.reporter.progress("preparation", None):
            if isinstance(job, TrainingJob):
                job = self._taught(job, "evaluation.recipe")
                if self.settings.finalise.limit > 0:
                    # Kept now, it takes no time of the verification, for which none is planned.
                    self._taught(self._final_training(), "finalise.recipe")
            return self.settings.evaluation.prepare(job, self.folder.prepared)

    def _search(
        self,
        problem: SearchProblem,
        ledger: Ledger,
        first: Sequence[Genotype],
        feasible: Sequence[Genotype],
    ) -> Sequence[Trial]:
        settings, evaluations = self.settings.search, self.settings.evaluations
        recorded = ledger.trials()
        stop = self.folder.record().get("stop") or {}
        # A search that has ended within these limits ends there again, whatever was verified since.
        ended = stop.get("limits") == self.settings.limits
        verified = frozenset() if ended else self.folder.verified_members
        unfinished = full_trainings(recorded) < evaluations - ROUNDING
        problem = dataclasses.replace(problem, scored=self._scored())
        job = self._prepared() if unfinished else self._job
        workers, planner = self.settings.evaluation.start(job), self._planner
        checkpoints = CheckpointFolder(self.folder.checkpoints)
        measured = MeasuredCandidatesFile(self.folder.adaptive_measurement)
        weights = CheckpointFolder(self.folder.parents)
        inherits = self.settings.evaluation.inherits
        with closing(ContinuingEvaluator(workers, checkpoints, weights)) as evaluator:
            planner.workers = evaluator.workers
            plan = planner.announce(feasible, recorded, calibrated=True) if unfinished else None
            front = SearchFront(problem, self.folder.record()["reference_point"])
            outside_s = planner.begin_search(front.members, recorded, verified)
            self.folder.update(**{OUTSIDE_SEARCH: outside_s})
            schedule = settings.schedule(evaluator.workers)
            seed = int(stream(self.settings.seed, "search").integers(2**31))
            stopping = Stopping(
                evaluations,
                settings.stop,
                front.hypervolume,
                planner.search_ends_s,
            )
            relaxed = self._relaxed(problem, stopping, recorded)
            problem = dataclasses.replace(problem, relaxed=relaxed)
            loop = SearchLoop(
                problem=problem,
                algorithm=WarmStart(settings.algorithm.start(problem, seed), problem, first),
                evaluator=evaluator,
                ledger=ledger,
                describe=record.described,
                on_trial=lambda trial, history: self._report(problem, trial, history),
                study_seed=self.settings.seed,
                stopping=stopping,
                schedule=schedule,
                adaptive_measurement=adaptive_measurement(
                    settings.adaptive_measurement,
                    self._calibration,
                    problem,
                    measured,
                    self.reporter.stage,
                ),
                fidelity=self.settings.fidelity.start(problem),
                parents=Parents(problem, weights, self.reporter.stage) if inherits else None,
            )
            search_plan = SearchPlan(
                evaluations=evaluations,
                stop=planner.stop(recorded),
                recorded=tuple(recorded),
                workers=evaluator.workers,
                simulated="seconds" in self.settings.published,
                lookahead=schedule.lookahead,
                columns={name: o.column for name, o in problem.objectives.items()},
                trained={n: o.unit for n, o in problem.objectives.items() if o.needs_training},
                reference_point=front.reference_point,
                verification_s=0.0 if plan is None else plan.verification_s,
            )
            with planner.stage("search"), self.reporter.search(search_plan):
                trials = loop.run()
        if relaxed is not None:
            self.folder.update(relaxed_seconds=relaxed.seconds())
        assert loop.stop is not None, "a search that has ended says why"
        self.reporter.stage(f"the search has ended: {loop.stop.detail}")
        if len(noise.errors_percent(self._trials)) != noise.LEAST_TRIALS:  # that has been said
            self._say_noise(problem)
        self.folder.update(
            status="searched",
            stop={**dataclasses.asdict(loop.stop), "limits": self.settings.limits},
            adaptive_measurement=measured.summary(),
        )
        return trials

    def _scored(self) -> Scored | None:
        """Return what the algorithm's proxy says of random architectures, if it has one.

        Raises:
            HwnasError: The proxy has no scores.
        """
        algorithm, evaluation = self.settings.search.algorithm, self.settings.evaluation
        if not isinstance(algorithm, GuidedSettings) or not algorithm.proxy:
            return None
        settings = ProxySettings(proxy=proxies.get(algorithm.proxy))
        job = settings.job(lambda recipe: self._training(recipe, None))
        file = self.folder.prepared / "scored.json"
        with self.reporter.progress(f"scoring networks by {algorithm.proxy}", None):
            found = scored_sample(job, evaluation, file, algorithm.scored, self.settings.seed)
        table = np.array([list(scores.values()) for scores in found.values()])
        return Scored(self.space.matrix(list(found)), table)

    def _relaxed_job(self, problem: SearchProblem) -> RelaxedJob | None:
        """Return how relaxed networks are trained, where the search is one by gradients.

        Raises:
            ConfigError: The space has a gene that cannot be relaxed, or the targets no cost.
        """
        algorithm, evaluation = self.settings.search.algorithm, self.settings.evaluation
        if not isinstance(algorithm, GradientSettings) or not len(self.splits.train):
            return None
        cost = {**problem.limited, **problem.objectives}[algorithm.cost_of(problem)]
        # The predictor as it is calibrated, which a replayed search has again.
        predictor = problem.facts.predictor
        if isinstance(predictor, LearningPredictor):
            predictor = predictor.current
        facts = dataclasses.replace(problem.facts, predictor=predictor, published_ms=None)
        return RelaxedJob(
            space=self.space,
            train=self.splits.train,
            preprocessing=self._preprocessing,
            recipe=getattr(evaluation, "recipe", self.settings.finalise.recipe),
            settings=algorithm,
            cost=KnownCost(cost, facts),
            unit=cost.unit,
            memory_share=evaluation.memory_share(here=self.settings.ray.address is None),
            threads=evaluation.threads,
        )

    def _check_targets(self, problem: SearchProblem) -> None:
        """Check a search by gradients before the study begins, as nothing can be changed then.

        Raises:
            ConfigError: It cannot begin.
        """
        algorithm = self.settings.search.algorithm
        if isinstance(algorithm, GradientSettings):
            trained = self._relaxed_job(problem) is not None
            relaxed = (lambda _: ()) if trained else None
            algorithm.start(dataclasses.replace(problem, relaxed=relaxed), 0)

    def _relaxed(
        self, problem: SearchProblem, stopping: Stopping, recorded: Sequence[Trial]
    ) -> Relaxation | None:
        """Return what trains relaxed networks, where the search is one by gradients."""
        job, evaluation = self._relaxed_job(problem), self.settings.evaluation
        if job is None:
            return None
        began_s = time.monotonic() - max((trial.ended_s for trial in recorded), default=0.0)
        return Relaxation(
            job=job,
            start=lambda job: evaluation.start(job, limited=False),
            file=self.folder.prepared / "relaxed.json",
            left_s=lambda: stopping.ends_s - (time.monotonic() - began_s),
            say=self.reporter.stage,
        )

    def _report(self, problem: SearchProblem, trial: Trial, history: History | None) -> None:
        self.reporter.trial(trial, feasible=problem.kept(trial), history=history or ())
        if history is not None:
            values = {problem.objectives[n].column: value for n, value in trial.values.items()}
            spent = {"fidelity": trial.fidelity, "seconds": trial.seconds}
            self._logger.trial(trial, {**trial.facts, **values, **spent}, history)
        self._planner.note(trial)
        self._trials.append(trial)
        known = noise.errors_percent([trial])
        if known and len(noise.errors_percent(self._trials)) == noise.LEAST_TRIALS:
            self._say_noise(problem)

    def _say_noise(self, problem: SearchProblem) -> None:
        """Say where no candidate is better than a guess, and how far partial trainings tell."""
        trivial_percent = self.splits.trivial()["error"]
        errors = noise.errors_percent(self._trials)
        counted = self.settings.evaluation.judged(self._counted)
        self._say(noise.chance_line(errors, counted, trivial_percent))
        for name, objective in problem.objectives.items():
            if objective.needs_training:
                self._say(noise.agreement_line(self._trials, name))


def _limits_line(results: StudyResults) -> str | None:
    """Return a line about verified networks that break a limit, if there are any."""
    trials = results.trials()
    broken = trials[trials["verified"].astype(bool) & ~trials["feasible"].astype(bool)]
    if broken.empty or results.pareto().empty:  # of which there is a line already
        return None
    names, limits = ", ".join(broken["arch_id"]), ", ".join(results.record["constraints"])
    return f"as verified, {names} {'break' if len(broken) > 1 else 'breaks'} {limits}: not shown"
