"""What can be said of a search before it begins, or where it found nothing, in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from latency_predictors import PredictorSettings
from nas.core.errors import counted
from nas.core.objective import Objective
from nas.core.trial import Trial
from nas.search.feasibility import FeasibilityReport
from nas.search.problem import SearchProblem
from nas.search.stopping import BY_TIME
from nas.study.reporting import duration


def feasibility_lines(problem: SearchProblem, report: FeasibilityReport) -> list[str]:
    """Return what a report has found: a line for all limits, one for each, one for each range."""
    lines, used = [], {**problem.objectives, **problem.limited}
    if report.keeping:
        share = _share(len(report.feasible), report.samples)
        judged = len(report.keeping) == len(problem.constraints)
        limits = "every limit" if judged else "those limits that can be judged now"
        lines.append(f"{share} of {report.samples} random architectures keep {limits}")
    alone = all(report.keeping.values()) and len(report.keeping) > 1
    if alone and not report.feasible:
        lines.append("  each limit by itself can be kept: together they leave hardly anything")
    for constraint in problem.constraints:
        kept = report.keeping.get(constraint)
        if kept is not None:
            lines.append(f"  {constraint}: kept by {_share(kept, report.samples)}")
            continue
        ready = used[constraint.objective].ready(problem.facts)
        awaited = "training" if ready else "the device is calibrated"
        lines.append(f"  {constraint}: cannot be judged before {awaited}")
    for name, objective in used.items():
        lines.append(f"  {name}: {_range_text(name, objective, problem, report)}")
    return lines


def _range_text(
    name: str, objective: Objective, problem: SearchProblem, report: FeasibilityReport
) -> str:
    if not objective.ready(problem.facts):
        return "known once the device is calibrated"
    if name not in report.reach:
        return "known after training only"
    reach, within = report.reach[name], report.within.get(name)
    text = f"reaches from {reach.low:.4g} to {reach.high:.4g} {objective.unit}"
    if within is None or within == reach:
        return text
    return f"{text}; within the limits from {within.low:.4g} to {within.high:.4g}"


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.3g} %"


def calibration_line(settings: PredictorSettings) -> str:
    """Return what a calibration that has not been made would take."""
    samples, seconds = settings.samples, settings.seconds_per_sample
    return (
        "the device is not calibrated for this study: that would measure "
        f"{counted(samples, 'network')} for up to {seconds:g} s each "
        f"({duration(samples * seconds)}), and export them; those that were measured before are "
        "not measured again"
    )


def nothing_complete_line(trials: Sequence[Trial], stopped_by: str) -> str:
    """Return why a search that ended at the limit `stopped_by` has no front, and what to do."""
    if not trials and stopped_by in BY_TIME:
        setting = "budget" if stopped_by == "budget" else "search.stop.wall_clock_s"
        line = "no candidate was trained in the time that was left for the search"
        return f"{line}; raise {setting} and repeat the command: what is finished is kept"
    if not trials:
        return "no trial is complete: every candidate breaks a limit when it is measured"
    [(cause, count)] = Counter(str(trial.failure) for trial in trials).most_common(1)
    often = f"{count} of {len(trials)} trials failed" if count > 1 else "failed"
    line = f"no trial is complete: {often}: {cause}"
    if stopped_by != "failures":
        return line
    fix = "mend that and give the study another name, or raise search.stop.failures to go on"
    return f"{line}; the search gave up, its trials are kept; {fix}"
