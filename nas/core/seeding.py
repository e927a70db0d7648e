"""Randomness as an argument: every stream derives from the study's seed or from an `arch_id`."""

from __future__ import annotations

import numpy as np

STREAMS = ("search", "calibration", "reference", "survey", "feasible", "foreseen")
"""Each for one use. New names come last, so that the streams of the others stay."""


def stream(seed: int, name: str) -> np.random.Generator:
    """Return a study's random stream for one of `STREAMS`, which are independent."""
    children = np.random.SeedSequence(seed).spawn(len(STREAMS))
    return np.random.default_rng(children[STREAMS.index(name)])


def training_seed(study_seed: int, arch_id: str) -> int:
    """Return the seed that one architecture is trained with.

    It depends on the architecture and not on when or where it is trained, so the number of
    workers changes nothing.
    """
    entropy = [study_seed, *arch_id.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
