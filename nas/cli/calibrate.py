"""`nas calibrate`: measure networks of a space on a device and fit a latency predictor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas.cli.parser import settings_parser
from nas.cli.search import composed
from nas.core.output import output_is_optional

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nas.core.prediction import LatencyPredictor


def calibrate_command(arguments: Sequence[str]) -> int:
    """Calibrate a predictor, or several with `--multirun`; return the exit status.

    Raises:
        HwnasError: The configuration cannot be composed.
    """
    return composed(settings_parser("calibrate").parse_intermixed_args(arguments), _calibrate)


def _calibrate(config: DictConfig) -> None:
    from nas.study.reading import read_calibration

    settings = read_calibration(config)
    output_is_optional()
    shape = " x ".join(map(str, settings.space.input_shape))
    _write(
        f"{settings.predictor.samples} networks for images of {shape} and "
        f"{settings.space.num_classes} classes; measurements are kept in {settings.store.folder}"
    )
    from nas.cli.console import print_records
    from nas.devices.measuring.environment import threads_line
    from nas.study.calibration import REPEATED, Calibration, accuracy_line, held_out_accuracy
    from nas.study.reporting import Reporter

    if line := threads_line(settings.device):
        _write(line)
    reporter = Reporter()
    with reporter.progress("calibration", settings.predictor.samples) as show:
        calibration = Calibration.measured(settings, show)
    predictor, cost = calibration.predictor, calibration.cost
    if predictor is not None:
        _print_comparison(predictor)
    _write(accuracy_line(calibration))
    if predictor is not None:
        again = min(REPEATED, settings.predictor.samples)
        with reporter.progress("measuring some of them again", again) as show:
            rows = held_out_accuracy(settings, predictor, show)
        print_records(rows, list(rows[0]))
    reused = ""
    if cost["reused"]:
        took = f"in {cost['seconds_reused']:.0f} s"
        reused = f", {cost['reused']} had been measured before, {took}"
    _write(f"{cost['measured']} networks measured{reused}; {cost['seconds'] / 60:.1f} min in all")
    folder = settings.folder.as_posix()
    if predictor is not None:
        _write(f"{folder}: in Python, latency_predictors.load({folder!r}).predict(genotypes)")


def _print_comparison(predictor: LatencyPredictor) -> None:
    """Print the errors of all candidates, and which one was chosen."""
    from nas.cli.console import print_records

    if not predictor.compared:
        errors = predictor.held_out_errors()
        rms = np.sqrt(np.mean(errors**2))
        _write(f"cross-validated error: {100 * rms:.1f} % (rms)")
        return
    ranked = sorted(predictor.compared.items(), key=lambda pair: pair[1])
    chosen = ranked[0][0]
    records = [
        {
            "predictor": name,
            "error (rms)": f"{100 * error:.1f} %",
            "chosen": "*" if name == chosen else "",
        }
        for name, error in ranked
    ]
    print_records(records, list(records[0]))
    _write(f"chosen: {chosen}, which predicts samples best that it was not fitted to")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
