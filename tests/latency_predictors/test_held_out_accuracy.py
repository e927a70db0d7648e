from __future__ import annotations

from pathlib import Path

import numpy as np
from synthetic_device import SyntheticDevice, latencies_ms

import latency_predictors
from latency_predictors.calibration.accuracy import REPEATED, held_out_accuracy
from latency_predictors.calibration.sampling import choose
from nas.devices.store import MeasurementStore
from nas.network.space import SearchSpace


def test_predictions_are_scored_beside_a_second_measurement(
    few_blocks: SearchSpace, tmp_path: Path
) -> None:
    device, store = SyntheticDevice(), MeasurementStore(tmp_path)
    genotypes = choose(few_blocks, REPEATED + 4, seed=0)
    latency_ms = latencies_ms(few_blocks, genotypes)
    predictor = latency_predictors.get("ridge").fit(few_blocks, genotypes, latency_ms)

    def rows() -> list[dict[str, float]]:
        return held_out_accuracy(
            predictor, few_blocks, device, genotypes, latency_ms, store=store, seconds=0.1, seed=0
        )

    predicted, repeated = rows()
    assert predicted["networks"] == REPEATED + 4
    assert repeated["networks"] == REPEATED
    # The device has no noise.
    assert repeated["within_5_percent"] == 100
    errors = 100 * np.abs(predictor.held_out_errors())
    np.testing.assert_allclose(predicted["median_error_percent"], np.median(errors))
    measured = device.measured
    assert rows() == [predicted, repeated]
    assert device.measured == measured
