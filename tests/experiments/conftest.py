"""The modules of experiments, which are not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from small_spaces import mobilenet_of_few_blocks, small_mobilenet

from nas.network.space import SearchSpace

TESTS = Path(__file__).resolve().parents[1]
EXPERIMENTS = TESTS.parent / "experiments"

# Appended, so that the installed packages come before folders of the same name.
for folder in (
    EXPERIMENTS / "search_efficiency",
    EXPERIMENTS / "latency_predictors",
    TESTS / "latency_predictors",
):
    sys.path.append(str(folder))


def script(name: str) -> ModuleType:
    """Import `experiments/NAME/run.py` under a name of its own."""
    path = EXPERIMENTS / name / "run.py"
    spec = importlib.util.spec_from_file_location(f"run_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def predictor_script() -> ModuleType:
    return script("latency_predictors")


@pytest.fixture(scope="session")
def memory_script() -> ModuleType:
    return script("peak_memory")


@pytest.fixture(scope="package")
def space() -> SearchSpace:
    return small_mobilenet()


@pytest.fixture(scope="package")
def few_blocks() -> SearchSpace:
    return mobilenet_of_few_blocks()
