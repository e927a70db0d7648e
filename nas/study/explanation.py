"""Why an architecture of a study is where it is, and what a change of one gene would do."""

from __future__ import annotations

import numpy as np
import pandas as pd

import latency_predictors
from nas.core.errors import HwnasError
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import FULL
from nas.network.blocks import IntArray
from nas.network.space import SearchSpace
from nas.results.hypervolume import non_dominated
from nas.results.study import StudyResults
from nas.search.surrogates.features import Features
from nas.search.surrogates.surrogate import Surrogate
from nas.study.folder import StudyFolder
from nas.study.recorded_space import recorded_space

LEAST_TRIALS = 5
"""Full trainings from which the effect of a change is learned."""

PREDICTED_MS = "latency_ms_predicted"


def explain(
    study: StudyResults, pick: str = "knee", *, allow_imports: bool = False
) -> pd.DataFrame:
    """Return what each change of one gene of an architecture would do.

    What a training tells, the error for example, is learned from the trials as `guided` search
    learns it; latency is predicted by the study's predictor; sizes are counted.

    Args:
        study: With trials from which can be learned.
        pick: Which architecture; see `StudyResults.pick`.
        allow_imports: Whether to import the modules that the study names, which runs their code.

    Returns:
        A row for each architecture that differs in one gene, in the order of the genes: `gene`,
        `choice`, `tried`, whether it is a trial, whose values are then these; of every objective
        its column and, with `_change` behind it, the difference from the architecture's own, with
        `_std` the standard deviation of what is predicted, 0 of what is known; and `on_front`,
        whether the search's front would keep it. Changes that only make other genes active or
        inactive are named by the first gene that differs.

    Raises:
        ConfigError: There is no such architecture.
        HwnasError: There are too few trials; or the study needs modules that are not imported yet,
            and `allow_imports` is not given.

    Example:
        >>> explain(nas.open("photos"), "knee").nsmallest(5, "error_change")  # doctest: +SKIP
    """
    row = study.pick(pick)
    trials = study.trials()
    trials = trials[(trials["status"] == "complete") & (trials["fidelity"] == FULL)]
    trials = trials.dropna(subset=list(study.columns.values()))
    if len(trials) < LEAST_TRIALS:
        line = f"has {len(trials)} full trials, expected {LEAST_TRIALS} or more to learn from"
        raise HwnasError(f"study {study.name!r}: {line}; raise search.evaluations")
    space = recorded_space(study, allow_imports)
    start = space.canonical(row["genotype"])
    genotypes = space.matrix([start, *space.neighbours(start)])
    known = {tuple(trial): i for i, trial in enumerate(trials["genotype"])}
    places = [known.get(tuple(genotype)) for genotype in genotypes.tolist()]
    found = pd.DataFrame(_changes(space, genotypes))
    found["tried"] = [place is not None for place in places[1:]]
    points = []
    for column in study.columns.values():
        mean, std = _values(study, space, trials, column, genotypes)
        for i, place in enumerate(places):
            # The predictor may know more by now than when the trial was proposed.
            if place is not None and column != PREDICTED_MS:
                mean[i], std[i] = trials[column].iloc[place], 0.0
        points.append(mean)
        found[column], found[f"{column}_change"] = mean[1:], mean[1:] - mean[0]
        found[f"{column}_std"] = std[1:]
    front = study.pareto(objectives=list(study.columns.values()))
    others = front[list(study.columns.values())].to_numpy(dtype=float)
    every = np.stack(points, axis=1)[1:]
    found["on_front"] = [bool(non_dominated(np.vstack([point, others]))[0]) for point in every]
    return found


def place(study: StudyResults, pick: str = "knee") -> str:
    """Return a sentence on which trials are better and worse than an architecture.

    Those are compared that were trained fully, by the search's values.

    Raises:
        ConfigError: There is no such architecture.
    """
    row, names = study.pick(pick), list(study.columns.values())
    trials = study.trials()
    trials = trials[(trials["status"] == "complete") & (trials["fidelity"] == FULL)]
    trials = trials.drop_duplicates("arch_id", keep="last")
    others = trials[trials["arch_id"] != row["arch_id"]]
    own, values = row[names].to_numpy(dtype=float), others[names].to_numpy(dtype=float)
    better = (values <= own).all(axis=1) & (values < own).any(axis=1)
    worse = (values >= own).all(axis=1) & (values > own).any(axis=1)
    of = ", ".join(study.columns)
    behind = f"{worse.sum()} of {len(others)} others are behind it in {of}"
    if not better.any():
        return f"{row['arch_id']}: no other trial is as good in {of} and better in one; {behind}"
    first = others[better].sort_values(names[0])["arch_id"].head(3)
    return f"{row['arch_id']}: {better.sum()} trials are better ({', '.join(first)}); {behind}"


def _changes(space: SearchSpace, genotypes: IntArray) -> list[dict[str, object]]:
    """Return gene and choice of every genotype but the first, by which it differs from that."""
    rows = []
    for genotype in genotypes[1:]:
        changed = int(np.flatnonzero(genotype != genotypes[0])[0])
        gene = space.genes[changed]
        rows.append({"gene": gene.name, "choice": gene.choices[genotype[changed]]})
    return rows


def _values(
    study: StudyResults, space: SearchSpace, trials: pd.DataFrame, column: str, genotypes: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return a column of architectures, and how unsure it is, both of shape `(n,)`."""
    if column == PREDICTED_MS:
        prediction = latency_predictors.load(StudyFolder(study.path).predictor).predict(genotypes)
        return prediction.mean_ms.copy(), prediction.std_ms
    costs = space.costs(genotypes)
    if column in costs:
        return costs[column].to_numpy(dtype=float).copy(), np.zeros(len(genotypes))
    features = Features(space)
    surrogate = Surrogate(features.groups)
    known: list[Genotype] = trials["genotype"].tolist()
    values = trials[column].to_numpy(dtype=float)
    seen = features(known)
    surrogate.learn(seen, np.ones(len(known)), values, seen[:0])
    mean, std = surrogate.predict(features(genotypes))
    if surrogate.scale.shift is None:
        return mean, std
    return np.exp(mean) - surrogate.scale.shift, np.exp(mean) * std
