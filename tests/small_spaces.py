"""Small MobileNet spaces, for tests that calibrate predictors or train."""

from __future__ import annotations

import search_spaces
from nas.network.space import SearchSpace

_FIELDS = {
    "input_shape": (1, 8, 8),
    "num_classes": 10,
    "stem_stride": 1,
    "stage_channels": (16, 24),
    "stage_strides": (1, 2),
    "max_depth": 2,
}


def small_mobilenet() -> SearchSpace:
    """Two stages, three resolutions."""
    return search_spaces.get("mobilenet", **_FIELDS, resolutions=(8, 12, 16))


def mobilenet_of_few_blocks() -> SearchSpace:
    """A space of few distinct blocks, so that the files of its networks are soon written."""
    fewer = {"kernels": (3, 5), "expansions": (2, 4), "activations": ("relu6",)}
    return search_spaces.get("mobilenet", **_FIELDS, **fewer, resolutions=(8,), widths=(1.0,))
