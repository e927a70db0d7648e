"""What a suggestion of each search algorithm costs, and a generation of 10,000.

Run `python experiments/overhead/suggestions.py` on a machine that does nothing else. It writes
`suggestions.json` beside this file. Nothing is trained: the error is made up, the parameters are
counted. Processor seconds of `ask` and `tell` are counted, not those of making up trials.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import search_spaces
from nas import objectives
from nas.core.files import write_json_atomically
from nas.core.objective import Facts
from nas.core.space import Genotype
from nas.core.trial import SearchAlgorithm, Trial
from nas.devices.measuring.environment import describe_host
from nas.search import algorithms
from nas.search.problem import SearchProblem
from nas.study.record import versions

TRIALS = 1000
TRIALS_AT = (50, 100, 350, 1000)
GROWN = 5000
LOOKAHEAD = 20
GENERATION = 10_000
GENERATIONS = 5


def make_problem() -> SearchProblem:
    """Return the search for few errors and few parameters among MobileNets for 32 x 32 pixels."""
    space = search_spaces.get("mobilenet", input_shape=(3, 32, 32), num_classes=10)
    return SearchProblem(
        space=space,
        objectives={name: objectives.get(name) for name in ("error", "params_m")},
        constraints=(),
        limited={},
        facts=Facts(space.costs, None),
    )


def make_trials(problem: SearchProblem, first: int, genotypes: list[Genotype]) -> list[Trial]:
    """Return trials whose made-up error falls with the genes."""
    params_m = problem.facts.costs(genotypes)["params_m"].tolist()
    sizes = problem.space.cardinalities
    trials = []
    for i, (genotype, params) in enumerate(zip(genotypes, params_m, strict=True)):
        error = 90 - sum(
            60 / len(sizes) * (c / n) ** 0.5 for c, n in zip(genotype, sizes, strict=True)
        )
        values = {"error": error, "params_m": params}
        number = first + i
        trials.append(
            Trial(number=number, genotype=genotype, arch_id=str(number), seed=0, values=values)
        )
    return trials


def suggestion_cost(problem: SearchProblem, name: str) -> dict[str, float]:
    """Time `TRIALS` of ask(1) and tell."""
    run: SearchAlgorithm = algorithms.get(name).start(problem, 0)
    total_s = 0.0
    cost: dict[str, float] = {}
    recent: list[float] = []
    for number in range(TRIALS):
        started = time.process_time()
        proposed = run.ask(1)
        asked_s = time.process_time() - started
        trials = make_trials(problem, number, proposed)
        started = time.process_time()
        run.tell(trials)
        recent.append(asked_s + time.process_time() - started)
        total_s += recent[-1]
        if number + 1 in TRIALS_AT:
            cost[f"ms_at_{number + 1}_trials"] = 1e3 * sum(recent[-20:]) / len(recent[-20:])
    return {f"s_of_{TRIALS}_trials": total_s, **cost}


def grown_cost(problem: SearchProblem, name: str) -> float:
    """Return the seconds of ask(1) and tell after `GROWN` random trials, mean of five."""
    run = algorithms.get(name).start(problem, 0)
    rng = np.random.default_rng(0)
    genotypes = [problem.space.sample(rng) for _ in range(GROWN)]
    run.tell(make_trials(problem, 0, genotypes))
    run.ask(LOOKAHEAD)
    started = time.process_time()
    for number in range(GROWN, GROWN + 5):
        run.tell(make_trials(problem, number, run.ask(1)))
    return (time.process_time() - started) / 5


def generation_cost(problem: SearchProblem) -> list[float]:
    """Time generations of NSGA-II: survival, mating, folding, the test for duplicates."""
    run = algorithms.get("nsga2", population=GENERATION).start(problem, 0)
    seconds = []
    for generation in range(GENERATIONS):
        started = time.process_time()
        proposed = run.ask(GENERATION)
        asked_s = time.process_time() - started
        trials = make_trials(problem, generation * GENERATION, proposed)
        started = time.process_time()
        run.tell(trials)
        seconds.append(asked_s + time.process_time() - started)
    return seconds[1:]  # the first one is drawn at random


def main() -> None:
    """Time all algorithms, or those that are named, and write `suggestions.json`."""
    problem = make_problem()
    problem.facts.costs([problem.space.canonical([0] * len(problem.space.genes))])  # traces
    costs = {}
    for name in sys.argv[1:] or algorithms.names():
        costs[name] = suggestion_cost(problem, name)
        print(name, json.dumps(costs[name]), flush=True)
    record = {
        "genes": len(problem.space.genes),
        "suggestions": costs,
        f"guided_s_at_{GROWN}_trials": grown_cost(problem, "guided"),
        f"nsga2_generations_of_{GENERATION}_s": generation_cost(problem),
        "versions": versions(),
        "hardware": {k: v for k, v in describe_host().items() if k != "hostname"},
    }
    write_json_atomically(Path(__file__).with_name("suggestions.json"), record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
