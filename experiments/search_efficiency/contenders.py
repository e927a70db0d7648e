"""What is compared in the benchmark: our algorithms and other tools, behind one small interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import peers
from _shared.table_task import TableTask
from peers import Limits, Optimiser, Peer
from peers.botorch_qlognehvi import BotorchQlogNehvi
from peers.optuna_samplers import OptunaGp, OptunaNsga2, OptunaTpe, OptunaTpeMultivariate
from peers.syne_tune_mo_rea import SyneTuneMoRea

import nas.search
from nas.core.errors import UnknownNameError
from nas.core.files import hashed
from nas.core.objective import Objective
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm
from nas.search import algorithms
from nas.search.problem import SearchProblem

REFERENCE = "guided"
"""The contender that every other one is tested against."""

POPULATION = 20
"""Of algorithms that have one: small, for runs of some hundred evaluations."""

LATENCY_LEARNED = "guided_latency_learned"
"""The reference when it has to learn costs from its trials, as the peers have."""

PEERS: Mapping[str, type[Peer]] = {
    "botorch_qlognehvi": BotorchQlogNehvi,
    "optuna_gp": OptunaGp,
    "optuna_nsga2_sampler": OptunaNsga2,
    "optuna_tpe": OptunaTpe,
    "optuna_tpe_multivariate": OptunaTpeMultivariate,
    "syne_tune_mo_rea": SyneTuneMoRea,
}
"""Other tools by name."""


@dataclass(frozen=True)
class Contender:
    """An optimiser with its settings.

    Attributes:
        name: Unique; names the file of its runs.
        label: For tables and figures.
        settings: What its runs depend on, for their record.
        begin: Starts a run on a task with a seed; equal seeds give equal runs.
        limits: How far its runs are taken.
        versions: Of the packages of another tool, or of our own code.
        missing: Packages that it needs and that are not installed.
        constrained: Whether it knows limits, and so takes part in tasks that have one.
    """

    name: str
    label: str
    settings: Mapping[str, Any]
    begin: Callable[[TableTask, int], Optimiser]
    limits: Limits = field(default_factory=Limits)
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    constrained: bool = False


def names() -> tuple[str, ...]:
    """Return the names of all contenders: ours, then the peers, installed or not."""
    # What trains relaxed networks needs images, which a table has not.
    ours = [n for n in algorithms.names() if n != "gradient"]
    learned = (LATENCY_LEARNED,) if REFERENCE in ours else ()
    return (*ours, *learned, *PEERS)


def get(name: str) -> Contender:
    """Return a contender.

    Raises:
        UnknownNameError: Nothing has that name.
    """
    if name in algorithms.names():
        return _own(name, name, name, costs_known=True)
    if name == LATENCY_LEARNED:
        return _own(name, f"{REFERENCE}, latency learned", REFERENCE, costs_known=False)
    if name in PEERS:
        peer = PEERS[name]()
        settings = dataclasses.asdict(peer)
        versions = peers.versions(peer)
        missing = tuple(package for package in peer.packages if package not in versions)
        return Contender(name, peer.label, settings, peer.start, peer.limits, versions, missing)
    raise UnknownNameError("method", name, names())


def _own(name: str, label: str, algorithm: str, *, costs_known: bool) -> Contender:
    component = algorithms.component(algorithm)
    has_population = "population" in {field.name for field in dataclasses.fields(component)}
    chosen = algorithms.get(algorithm, **({"population": POPULATION} if has_population else {}))

    def begin(task: TableTask, seed: int) -> Optimiser:
        problem = task.problem if costs_known else without_costs(task.problem)
        return OwnRun(task, chosen.start(problem, seed))

    settings = {**dataclasses.asdict(chosen), "latency_known": costs_known}
    versions = {"nas.search": _code()}
    return Contender(name, label, settings, begin, versions=versions, constrained=costs_known)


@cache
def _code() -> str:
    """Return digits that stand for the code of all our algorithms, and not of what runs them."""
    room = Path(nas.search.__file__).parent
    shared = [room / f"{name}.py" for name in ("operators", "problem", "proposer", "ranking")]
    files = sorted([*room.glob("algorithms/*.py"), *room.glob("surrogates/*.py"), *shared])
    return hashed([file.read_text("utf-8") for file in files], 12)


def without_costs(problem: SearchProblem) -> SearchProblem:
    """Return a problem of which nothing is known before training, whoever asks."""
    hidden = {
        name: objective if objective.needs_training else unknown(objective)
        for name, objective in problem.objectives.items()
    }
    return dataclasses.replace(problem, objectives=hidden)


def unknown(objective: Objective) -> Objective:
    """Return an objective in the place of another, that only a trial tells."""

    @dataclass(frozen=True, kw_only=True)
    class Unknown(Objective):
        unit: ClassVar[str] = objective.unit
        column: ClassVar[str] = objective.column

    return Unknown()


class OwnRun(Optimiser):
    """A run of one of our algorithms, which is told trials of the table."""

    def __init__(self, task: TableTask, algorithm: SearchAlgorithm) -> None:
        """Let `algorithm` search `task`."""
        self._task = task
        self._algorithm = algorithm
        self._told = 0

    def ask(self) -> Genotype | None:
        proposed = self._algorithm.ask(1)
        return proposed[0] if proposed else None

    def tell(self, genotype: Genotype, values: tuple[float, ...]) -> None:
        del values
        self._algorithm.tell([self._task.trial(self._told, genotype)])
        self._told += 1
