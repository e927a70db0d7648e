from __future__ import annotations

from pathlib import Path

import numpy as np
from synthetic_device import SyntheticDevice

import latency_predictors
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace
from nas.study.calibration import REPEATED, Calibration, held_out_accuracy
from nas.study.settings import CalibrationSettings


def test_predictions_are_scored_beside_a_second_measurement(
    few_blocks: SearchSpace, tmp_path: Path
) -> None:
    device = SyntheticDevice()
    settings = CalibrationSettings(
        seed=0,
        space=few_blocks,
        device=device,
        predictor=latency_predictors.get("ridge", samples=REPEATED + 4),
        store=MeasurementStore(tmp_path),
        folder=tmp_path / "predictor",
        memory=False,
    )
    predictor = Calibration.measured(settings).predictor
    first = device.measured
    predicted, repeated = held_out_accuracy(settings, predictor)
    assert device.measured == first + REPEATED
    assert predicted["networks"] == REPEATED + 4
    assert repeated["networks"] == REPEATED
    # The device has no noise.
    assert repeated["within_5_percent"] == 100
    errors = 100 * np.abs(predictor.held_out_errors())
    np.testing.assert_allclose(predicted["median_error_percent"], np.median(errors))
    assert held_out_accuracy(settings, predictor) == [predicted, repeated]
    assert device.measured == first + REPEATED
