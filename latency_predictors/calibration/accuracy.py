"""How accurate predictions are."""

from __future__ import annotations

import numpy as np

from nas.core.prediction import FloatArray


def scores(predicted_ms: FloatArray, measured_ms: FloatArray) -> dict[str, float]:
    """Return how near predictions are to measured latencies, both of shape `(n,)`.

    Returns:
        `within_5_percent` and `within_10_percent` (shares of the predictions, in %),
        `median_error_percent`, `largest_error_percent` and `spearman`.
    """
    from scipy.stats import spearmanr

    errors = 100 * np.abs(predicted_ms / measured_ms - 1)
    return {
        "within_5_percent": float(100 * np.mean(errors <= 5)),
        "within_10_percent": float(100 * np.mean(errors <= 10)),
        "median_error_percent": float(np.median(errors)),
        "largest_error_percent": float(errors.max()),
        "spearman": float(spearmanr(predicted_ms, measured_ms).statistic),
    }
