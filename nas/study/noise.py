"""Statistics of errors: against a trivial guess, between a front's members, over fidelities.

An error on `n` images is a count of wrong ones, which is binomial for a network that is given. Of
several networks the best is looked at, so that significance levels are divided by the number of
comparisons (Bonferroni's inequality: Dunn, "Multiple comparisons among means", JASA 56, 1961).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nas.core.trial import Trial
from nas.results.study import StudyResults

LEAST_TRIALS = 8
"""Fully trained networks from which the errors of a running search are judged."""

LEVEL = 0.05
"""Significance level of the tests."""


def errors_percent(trials: Iterable[Trial]) -> list[float]:
    """Return the validation errors of fully trained networks, in percent, where they are known."""
    known = [{**t.facts, **t.values}.get("error") for t in trials if t.complete and t.full]
    return [error for error in known if error is not None]


def chance_line(errors: Sequence[float], images: int, trivial_percent: float) -> str | None:
    """Return a line for people where no error is better than guessing by more than chance.

    The best error is tested by the exact one-sided binomial test (Clopper and Pearson, Biometrika
    26, 1934): with `k` of `n` images wrong and the guess's share `q`, it is better at the level
    `LEVEL` where `t P(X <= k) < LEVEL` for `X ~ Binomial(n, q)` and `t` networks.

    Args:
        errors: Validation errors of all fully trained networks, in percent.
        images: Of the validation split; 0 where errors are published.
        trivial_percent: Error of the trivial guess; see `Task.trivial`.

    Returns:
        `None` where one is better, or where there is nothing to judge.
    """
    if not errors or not images:
        return None
    from scipy.stats import binom

    best = min(errors)
    wrong = round(images * best / 100)
    if len(errors) * binom.cdf(wrong, images, trivial_percent / 100) < LEVEL:
        return None
    return (
        f"no candidate is better than guessing by more than chance: the best of {len(errors)} has "
        f"{best:.2f} % error on {images} validation images, the "
        f"best constant guess has {trivial_percent:.2f} %; raise "
        "evaluation.recipe.epochs, evaluation.recipe.train_samples or "
        "evaluation.recipe.optimizer.learning_rate, or look at the targets of the data"
    )


def agreement_line(trials: Iterable[Trial], name: str) -> str | None:
    """Return a line about how well partial trainings predict the ranks of full ones.

    It has Kendall's tau between the last partial value of an architecture and its value after the
    full training, with the interval of Fisher's transformation, whose variance is
    `0.437 / (n - 4)` (Fieller, Hartley and Pearson, "Tests for rank correlation coefficients",
    Biometrika 44, 1957).

    Args:
        trials: In the order in which they ended.
        name: Of the objective.

    Returns:
        `None` where fewer than `LEAST_TRIALS` architectures have both values.
    """
    partial: dict[str, float] = {}
    pairs: dict[str, tuple[float, float]] = {}
    for trial in trials:
        if trial.complete and not trial.full:
            partial[trial.arch_id] = trial.values[name]
        elif trial.complete and trial.arch_id in partial:
            pairs[trial.arch_id] = (partial[trial.arch_id], trial.values[name])
    n = len(pairs)
    if n < LEAST_TRIALS:
        return None
    from scipy.stats import kendalltau, norm

    tau = float(kendalltau(*zip(*pairs.values(), strict=True)).statistic)
    if math.isnan(tau):
        return None
    centre = math.atanh(min(max(tau, -0.999), 0.999))
    half = norm.ppf(1 - LEVEL / 2) * math.sqrt(0.437 / (n - 4))
    low, high = math.tanh(centre - half), math.tanh(centre + half)
    return (
        f"{name} after partial and after full training: Kendall's tau over {n} architectures is "
        f"{tau:.2f} (95 % interval {low:.2f} to {high:.2f}); over all architectures it is "
        "mostly higher, as only promising ones are promoted"
    )


def front_noise_line(errors: Sequence[float], images: int, recipe: str) -> str | None:
    """Return a line for people where a front's errors do not differ by more than their noise.

    The best and the worst of `m` members are compared by the two-proportion z-test (Fleiss, Levin
    and Paik, Statistical Methods for Rates and Proportions, 2003, chapter 3) with the pooled share
    `p` of wrong images: `z = (p2 - p1) / sqrt(2 p (1 - p) / n)`, two-sided, at the level `LEVEL`
    divided by the `m (m - 1) / 2` pairs from which these two are chosen. The test takes the two
    errors for independent; on the same images they are not, and differ by less noise than that.

    Args:
        errors: Of the front's members, on the same split, in percent.
        images: Of that split; 0 where errors are published.
        recipe: Setting of the recipe that they were trained by.

    Returns:
        `None` where they differ, or where there are fewer than two members.
    """
    members = len(errors)
    if members < 2 or not images:
        return None
    best, worst = min(errors) / 100, max(errors) / 100
    pooled = (best + worst) / 2
    std = math.sqrt(2 * pooled * (1 - pooled) / images)
    # 2 (1 - Phi(z)) = erfc(z / sqrt(2))
    probability = math.erfc((worst - best) / std / math.sqrt(2)) if std > 0 else 1.0
    if probability * members * (members - 1) / 2 < LEVEL:
        return None
    return (
        f"the errors of the front's {members} members, {100 * best:.2f} to {100 * worst:.2f} %, "
        f"differ by no more than the noise of {images} images, which do not tell whose is the "
        f"least; raise {recipe}.epochs, or have more validation images"
    )


def front_line(results: StudyResults, judged: int, images: int) -> str | None:
    """Return a line where a study's front is empty, or its members cannot be told apart.

    Candidates are judged on `judged` images, verified architectures on all `images` of the
    validation split; see `front_noise_line`.
    """
    front = results.pareto()
    verified = int(results.trials()["verified"].sum())
    if front.empty and verified:
        limits = ", ".join(map(str, results.constraints))
        fix = "raise finalise.limit or search.evaluations, or loosen the limits"
        return f"none of the {verified} verified architectures keeps {limits}; {fix}"
    if "error" not in results.columns:
        return None
    column, recipe, counted = "error", "evaluation.recipe", judged
    if verified:
        column, recipe, counted = "error_final", "finalise.recipe", images
    return front_noise_line(front[column].dropna().tolist(), counted, recipe)
