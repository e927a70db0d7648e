"""Why an architecture of a study is where it is, and what a change of one gene would do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas.core.errors import HwnasError
from nas.core.objective import Facts
from nas.core.prediction import FloatArray
from nas.core.space import Genotype
from nas.core.trial import FULL
from nas.network.space import SearchSpace
from nas.results.columns import columns_of
from nas.results.hypervolume import non_dominated
from nas.results.study import StudyResults
from nas.search.surrogates.features import Features
from nas.search.surrogates.surrogate import Surrogate
from nas.study.calibration import Calibration
from nas.study.folder import StudyFolder
from nas.study.record import columns_before_training
from nas.study.recorded_space import recorded_space

LEAST_TRIALS = 5
"""Full trainings from which the effect of a change is learned."""


def explain(
    study: StudyResults, pick: str = "knee", *, allow_imports: bool = False
) -> pd.DataFrame:
    """Return what each change of one gene of an architecture would do.

    What a training tells, the error for example, is learned from the trials as `guided` search
    learns it; latency and memory are predicted by the study's predictors; sizes are counted.

    Args:
        study: With trials from which can be learned.
        pick: Which architecture; see `StudyResults.pick`.
        allow_imports: Whether to import the modules that the study names, which runs their code.

    Returns:
        A row for each architecture that differs by the choice of one gene, in the order of the
        genes and their choices: `gene`, `choice`, `tried`, whether it was trained fully, whose
        values are then those of the trial; of every objective its column, `_change`, the difference
        from the architecture's own, and `_std`, the standard deviation of the value where it is
        predicted: 0 of what is known, NaN where the predictor tells none; and `on_front`, whether
        it keeps the study's limits and no architecture of the search's front dominates it. An
        architecture to which several changes lead is named by the first of them.

    Raises:
        ConfigError: There is no such architecture.
        HwnasError: There are too few trials; or the study needs modules that are not imported yet,
            and `allow_imports` is not given.

    Example:
        >>> explain(nas.open("photos"), "knee").nsmallest(5, "error_change")  # doctest: +SKIP
    """
    row, limits, names = study.pick(pick), study.constraints, list(study.columns.values())
    limited = [study.record["columns"][limit.objective] for limit in limits]
    used = list(dict.fromkeys([*names, *limited]))
    trials = _full(study).dropna(subset=used)
    if len(trials) < LEAST_TRIALS:
        line = f"has {len(trials)} full trials, expected {LEAST_TRIALS} or more to learn from"
        raise HwnasError(f"study {study.name!r}: {line}; raise search.evaluations")
    space = recorded_space(study, allow_imports)
    start = space.canonical(row["genotype"])
    changes = _changes(space, start)
    # The front as well, as the predictor may know more by now than when its trials were proposed.
    front = study.pareto(objectives=names)["genotype"]
    genotypes = [start, *changes, *front]
    values, stds = _values(study, space, trials, used, genotypes)
    changed = range(1, 1 + len(changes))
    found = pd.DataFrame(changes.values(), columns=["gene", "choice"])
    known = dict(zip(trials["genotype"], trials["feasible"], strict=True))
    found["tried"] = [genotype in known for genotype in changes]
    for name in names:
        found[name] = values[name][changed]
        found[f"{name}_change"] = values[name][changed] - values[name][0]
        found[f"{name}_std"] = stds[name][changed]
    points = np.stack([values[name] for name in names], axis=1)
    found["on_front"] = [
        known.get(
            genotypes[i],
            all(
                limit.met(float(values[name][i]))
                for limit, name in zip(limits, limited, strict=True)
            ),
        )
        and bool(non_dominated(np.vstack([points[i], points[1 + len(changes) :]]))[0])
        for i in changed
    ]
    return found


def place(study: StudyResults, pick: str = "knee") -> str:
    """Return a sentence on which trials are better and worse than an architecture.

    Those are compared that were trained fully, by the search's values.

    Raises:
        ConfigError: There is no such architecture.
    """
    row, names = study.pick(pick), list(study.columns.values())
    if row["fidelity"] != FULL:
        return f"{row['arch_id']}: was not trained fully, so it is compared with no trial"
    trials = _full(study)
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


def _full(study: StudyResults) -> pd.DataFrame:
    trials = study.trials()
    return trials[(trials["status"] == "complete") & (trials["fidelity"] == FULL)]


def _changes(space: SearchSpace, start: Genotype) -> dict[Genotype, tuple[str, object]]:
    """Return the canonical genotypes to which one choice leads, each with gene and choice.

    Genes that a choice makes active or inactive may differ as well, before and after it.
    """
    found: dict[Genotype, tuple[str, object]] = {}
    for i, gene in enumerate(space.genes):
        for number, choice in enumerate(gene.choices):
            changed = space.canonical([*start[:i], number, *start[i + 1 :]])
            found.setdefault(changed, (gene.name, choice))
    found.pop(start, None)
    return found


def _values(
    study: StudyResults,
    space: SearchSpace,
    trials: pd.DataFrame,
    columns: Sequence[str],
    genotypes: Sequence[Genotype],
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return columns of architectures, and how unsure they are, each of shape `(n,)`."""
    facts = Facts(space.costs, None)
    if calibration := Calibration.load(StudyFolder(study.path).predictor, space):
        facts = Facts(
            space.costs,
            calibration.predictor,
            calibration.memory,
            sram=calibration.sram,
            flash=calibration.flash,
        )
    before = columns_before_training(facts, genotypes)
    kinds = {name: column.kind for name, column in columns_of(study.record, columns).items()}
    values, stds = dict[str, FloatArray](), dict[str, FloatArray]()
    for column in columns:
        if column in before:
            values[column] = before[column]
            unsure = np.nan if kinds[column] == "predicted" else 0.0
            stds[column] = before.get(f"{column}_std", np.full(len(genotypes), unsure))
        else:
            values[column], stds[column] = _learned(space, trials, column, genotypes)
    return values, stds


def _learned(
    space: SearchSpace, trials: pd.DataFrame, column: str, genotypes: Sequence[Genotype]
) -> tuple[FloatArray, FloatArray]:
    """Return a column as trials have it, and as learned from them; and how unsure that is."""
    features, known = Features(space), trials["genotype"].tolist()
    surrogate, seen = Surrogate(features.groups), features(known)
    values = trials[column].to_numpy(dtype=float)
    surrogate.learn(seen, np.ones(len(known)), values, seen[:0])
    mean, std = surrogate.predict(features(genotypes))
    if (shift := surrogate.scale.shift) is not None:
        # As the scale takes no logarithm of less, so that no error is below 0.
        mean, std = np.maximum(np.exp(mean) - shift, 0.0), np.exp(mean) * std
    of_trial = dict(zip(known, values, strict=True))
    for i, genotype in enumerate(genotypes):
        if genotype in of_trial:
            mean[i], std[i] = of_trial[genotype], 0.0
    return mean, std
