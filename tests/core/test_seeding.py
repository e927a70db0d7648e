from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nas.core.seeding import STREAMS, stream, training_seed


def test_streams_repeat():
    for name in STREAMS:
        assert stream(7, name).integers(2**62) == stream(7, name).integers(2**62)


def test_streams_are_independent():
    draws = np.array([stream(s, name).random(2000) for s in (0, 1) for name in STREAMS])
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.12  # 5 standard deviations of 28 pairs


def test_unknown_stream():
    with pytest.raises(ValueError):  # noqa: PT011 - a mistake in a program, not in a setting
        stream(0, "weather")


def test_every_stream_is_used_in_one_place():
    """Two uses of one name would draw the same numbers for different purposes."""
    root = Path(__file__).parents[2]
    used: Counter[str] = Counter()
    for folder in ("nas", "search_spaces", "latency_predictors"):
        for file in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and _called(node) == "stream":
                    name = node.args[1]
                    assert isinstance(name, ast.Constant), f"{file}:{node.lineno}: not a literal"
                    used[str(name.value)] += 1
    assert used == Counter(STREAMS)


def _called(node: ast.Call) -> str:
    function = node.func
    return getattr(function, "id", None) or getattr(function, "attr", "")


def test_training_seed_depends_on_seed_and_architecture():
    seeds = {training_seed(s, a) for s in range(20) for a in ("0123456789ab", "0123456789ac", "x")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_training_seed_is_the_same_in_every_process():
    code = "from nas.core.seeding import training_seed; print(training_seed(3, '0123456789ab'))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) == training_seed(3, "0123456789ab") == 514544521


def test_importing_the_core_is_light():
    code = (
        "import sys, nas.core.trial, nas.core.host, nas.core.objective, nas.core.registry\n"
        "print([m for m in ('torch', 'ray', 'pandas', 'sklearn') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
