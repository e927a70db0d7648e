"""The modules of experiments, which are not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import search_spaces
from nas.network.space import SearchSpace

TESTS = Path(__file__).resolve().parents[1]
EXPERIMENTS = TESTS.parent / "experiments"

FIELDS = {
    "input_shape": (1, 8, 8),
    "num_classes": 10,
    "stem_stride": 1,
    "stage_channels": (16, 24),
    "stage_strides": (1, 2),
    "max_depth": 2,
}

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


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Small matrices are worked on faster without threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def space() -> SearchSpace:
    return search_spaces.get("mobilenet", **FIELDS, resolutions=(8, 12, 16))


@pytest.fixture(scope="package")
def few_blocks() -> SearchSpace:
    """A space of few distinct blocks, so that the files of its networks are soon written."""
    fewer = {"kernels": (3, 5), "expansions": (2, 4), "activations": ("relu6",)}
    return search_spaces.get("mobilenet", **FIELDS, **fewer, resolutions=(8,), widths=(1.0,))
