"""How near predictions are to measurements."""

from __future__ import annotations

import numpy as np

from nas.core.prediction import FloatArray, Prediction


def scores(predicted_ms: FloatArray, measured_ms: FloatArray) -> dict[str, float]:
    """Return shares of predictions near the measured latency, in %, and the rank correlation."""
    from scipy.stats import spearmanr

    errors = 100 * np.abs(predicted_ms / measured_ms - 1)
    return {
        "within_5_percent": float(100 * np.mean(errors <= 5)),
        "within_10_percent": float(100 * np.mean(errors <= 10)),
        "median_error_percent": float(np.median(errors)),
        "largest_error_percent": float(errors.max()),
        "spearman": float(spearmanr(predicted_ms, measured_ms).statistic),
    }


def coverage_percent(prediction: Prediction, measured_ms: FloatArray, coverage: float) -> float:
    """Return the share of measured latencies within their interval, in %."""
    low, high = prediction.interval_ms(coverage)
    return float(100 * np.mean((low <= measured_ms) & (measured_ms <= high)))
