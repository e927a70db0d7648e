"""A new component is one new file in its room; nothing else is written or changed.

Every test writes one file into a folder that is added to a package's path, as if it stood in the
package, and uses the component by its name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _shared.tabular import TabularBenchmark

import latency_predictors
import nas.devices
import search_spaces
from nas import logging, objectives, tasks
from nas.core.dataset import Examples, SearchSplits
from nas.core.objective import Facts
from nas.core.recipe import Recipe
from nas.core.registry import Registry
from nas.devices import runtimes
from nas.evaluation import proxies
from nas.evaluation.proxies import Batch
from nas.network.trained import Preprocessing
from nas.search import algorithms
from nas.search.problem import SearchProblem
from nas.study.composition import compose
from nas.study.reading import read
from nas.training.trainer import evaluate, train

AddFile = Callable[[Registry[Any], str, str, str], None]

SPACE = '''
"""A stack of convolutions, whose depth and width are searched."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import nn

from nas.core.space import Gene
from nas.network.blocks import Block, Choices, ModuleSpec
from nas.network.space import SearchSpace
from search_spaces import register


class Convolution(nn.Sequential):
    def __init__(self, input_shape, channels):
        super().__init__(nn.Conv2d(input_shape[0], channels, 3, padding=1), nn.ReLU())


class Head(nn.Sequential):
    def __init__(self, input_shape, num_classes):
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(input_shape[0], num_classes)
        )


@register("stack")
@dataclass(frozen=True, kw_only=True)
class StackSpace(SearchSpace):
    max_depth: int = 3

    @property
    def genes(self) -> tuple[Gene, ...]:
        return (Gene("depth", tuple(range(1, self.max_depth + 1))), Gene("width", (4, 8)))

    def blocks(self) -> Iterator[Block]:
        for i in range(self.max_depth):
            yield Block(f"block{i}", partial(self._block, i))
        yield Block("head", lambda _: ModuleSpec(Head, {"num_classes": self.num_classes}))

    def _block(self, i: int, chosen: Choices) -> ModuleSpec | None:
        if chosen["depth"] <= i:
            return None
        return ModuleSpec(Convolution, {"channels": chosen["width"]})
'''

OBJECTIVE = '''
"""Size of the weights in float16."""

from dataclasses import dataclass
from typing import ClassVar

from nas.core.objective import Objective
from nas.objectives import register


@register("half_size_mb")
@dataclass(frozen=True, kw_only=True)
class HalfSizeMb(Objective):
    unit: ClassVar[str] = "MB"
    column: ClassVar[str] = "half_size_mb"

    def before_training(self, genotypes, facts):
        return 2 * facts.costs(genotypes)["params_m"].to_numpy(float)
'''

ALGORITHM = '''
"""Hill climbing on the error: mutations of the best architecture so far."""

from dataclasses import dataclass

from nas.search.algorithms import AlgorithmSettings, register
from nas.search.proposer import Proposer


@register("hill_climbing")
@dataclass(frozen=True, kw_only=True)
class HillClimbingSettings(AlgorithmSettings):
    initial: int = 8

    def start(self, problem, seed):
        return HillClimbing(problem, seed, initial=self.initial)


class HillClimbing(Proposer):
    best = None

    def _suggest(self, n, pending):
        space = self.problem.space
        return self._admitted([space.mutate(self.best.genotype, self.rng)])[:n]

    def _learn(self, trials):
        trials = [*trials, *([self.best] if self.best else [])]
        self.best = min(trials, key=lambda trial: trial.values["error"])
'''

PREDICTOR = '''
"""Latency in proportion to the parameters."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from latency_predictors import register
from latency_predictors.calibration.base import Regression, RegressionSettings


class ParametersRegression(Regression):
    name = "parameters"

    def features(self, genotypes):
        return self.space.costs(genotypes)[["params_m"]].to_numpy()

    def fit(self, features, latency_ms):
        self._slope = np.median(latency_ms / features[:, 0])

    def evaluate(self, features):
        mean_ms = features[:, 0] * self._slope
        return np.stack([mean_ms, 0.1 * mean_ms], 1)


@register("parameters")
@dataclass(frozen=True, kw_only=True)
class ParametersSettings(RegressionSettings):
    regression: ClassVar[type[Regression]] = ParametersRegression
'''

TASK = '''
"""The mean brightness of an image, from 0 to 1."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.core.errors import DataError
from nas.tasks import Metric, Task, register


@register("brightness")
@dataclass(frozen=True, kw_only=True)
class Brightness(Task):
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("error", "%", about="mean absolute error"),
    )
    output_size = 1
    summary = "brightness"
    reading = "`outputs` is the brightness."

    def check(self, targets):
        if targets.ndim != 1 or targets.dtype != np.float32:
            raise DataError(f"targets: got {targets.dtype}, expected float32 of shape (n,)")

    def losses(self, outputs, targets, label_smoothing):
        return (outputs[:, 0] - targets).square()

    def sums(self, outputs, targets):
        return np.array([np.abs(outputs[:, 0] - targets).sum(), len(targets)])

    def scores(self, sums):
        return {"error": float(100 * sums[0] / sums[1])}

    def trivial(self, train, validation):
        return {"error": float(100 * np.abs(validation - np.median(train)).mean())}

    def strata(self, targets):
        return np.zeros(len(targets), int)

    def counts(self, targets):
        return {"images": len(targets)}

    def read(self, outputs):
        return [f"{value:.2f}" for value in outputs[:, 0]]
'''

LOGGER = '''
"""The best error so far, in a text file."""

from dataclasses import dataclass

from nas.logging import Logger, LoggingSettings, register


@register("best_error")
@dataclass(frozen=True, kw_only=True)
class BestError(LoggingSettings):
    file: str = "best.txt"

    def start(self, study, folder):
        return BestErrorLogger(folder / self.file)


class BestErrorLogger(Logger):
    def __init__(self, path):
        self.path, self.errors = path, []

    def trial(self, trial, numbers, history):
        self.errors.append(numbers["error"])
        self.path.write_text(f"{min(self.errors):.2f} %")
'''

PROXY = '''
"""The number of blocks in a row."""

from dataclasses import dataclass

from nas.evaluation.proxies import Proxy, register


@register("blocks")
@dataclass(frozen=True, kw_only=True)
class Blocks(Proxy):
    weight: float = 1.0

    def scores(self, network, batch):
        return {"blocks": self.weight * len(network.placed_blocks)}
'''

RUNTIME = '''
"""The reference implementation of ONNX: slow, in NumPy."""

from dataclasses import dataclass
from typing import ClassVar

from nas.devices.measuring.runtime import LoadedNetwork, Runtime
from nas.devices.runtimes import register


@register("onnx_reference")
@dataclass(frozen=True, kw_only=True)
class OnnxReference(Runtime):
    package: ClassVar[str] = "onnx"

    def load(self, path, images, execution):
        from onnx.reference import ReferenceEvaluator

        return Evaluated(ReferenceEvaluator(str(path)), images)


class Evaluated(LoadedNetwork):
    def __init__(self, evaluator, images):
        self.evaluator, self.images = evaluator, images

    def infer(self):
        (name,) = self.evaluator.input_names
        (self.outputs,) = self.evaluator.run(None, {name: self.images})

    def run(self, images):
        self.images = images
        self.infer()
        return self.outputs

    def inspect(self):
        return {"provider": "cpu", "threads": 1}
'''


@pytest.fixture
def add_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddFile]:
    """Write `PACKAGE/NAME.py` for one test: `add_file(registry, package, name, code)`."""
    added: list[tuple[Registry[Any], str, str]] = []

    def add(registry: Registry[Any], package: str, name: str, code: str) -> None:
        assert name not in registry.names()
        (tmp_path / f"{name}.py").write_text(code, "utf-8")
        room = importlib.import_module(package)
        monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
        importlib.invalidate_caches()
        added.append((registry, package, name))
        assert name in registry.names()

    yield add
    for registry, package, name in added:
        registry._classes.pop(name, None)
        sys.modules.pop(f"{package}.{name}", None)


def test_a_search_space(add_file: AddFile) -> None:
    add_file(search_spaces.registry, "search_spaces", "stack", SPACE)
    space = search_spaces.get("stack", input_shape=(1, 8, 8), num_classes=10)
    assert space.size == 3 * 2
    genotype = space.sample(np.random.default_rng(0))
    network = space.build(genotype).eval()
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    params = sum(p.numel() for p in network.parameters())
    assert space.costs([genotype])["params_m"].item() == pytest.approx(params / 1e6)


def test_an_objective(add_file: AddFile) -> None:
    add_file(objectives.registry, "nas.objectives", "half_size_mb", OBJECTIVE)
    space = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    problem = SearchProblem(
        space=space,
        objectives={name: objectives.get(name) for name in ("error", "half_size_mb")},
        constraints=(),
        limited={},
        facts=Facts(space.costs, None),
    )
    genotype = space.sample(np.random.default_rng(0))
    megabytes = 2 * space.costs([genotype])["params_m"].item()
    assert problem.known([genotype]) == [{"half_size_mb": pytest.approx(megabytes)}]


def test_a_proxy(add_file: AddFile) -> None:
    add_file(proxies.registry, "nas.evaluation.proxies", "blocks", PROXY)
    choice = ["evaluation.proxy.name=blocks", "evaluation.proxy.weight=2"]
    settings = read(compose(["evaluation=proxy", "search.objectives=[proxy_rank]", *choice]))
    own = settings.evaluation.proxy
    space = search_spaces.get("nasbench201", input_shape=(1, 8, 8), num_classes=10)
    network = space.build(space.references()["residual"])
    images = Batch(torch.zeros(2, 1, 8, 8), torch.zeros(2), None)
    assert own(network, images) == {"blocks": 2.0 * len(network.placed_blocks)}


def test_a_logger(add_file: AddFile, tmp_path: Path) -> None:
    add_file(logging.registry, "nas.logging", "best_error", LOGGER)
    study = nas.search(
        evaluations=5,
        name="table",
        settings={"runs": tmp_path / "runs"},
        overrides=["experiment=nasbench201", "logging=best_error"],
    )
    best = study.trials()["error"].min()
    assert (study.path / "best.txt").read_text() == f"{best:.2f} %"


def test_a_search_algorithm(add_file: AddFile) -> None:
    add_file(algorithms.registry, "nas.search.algorithms", "hill_climbing", ALGORITHM)
    table = TabularBenchmark.load("nasbench201", "cifar10", ["pixel3"])
    run = algorithms.get("hill_climbing", initial=5).start(table.problem, 0)
    trials = []
    for number in range(40):
        (genotype,) = run.ask(1)
        trials.append(table.trial(number, genotype))
        run.tell(trials[-1:])
    errors = [trial.values["error"] for trial in trials]
    assert len({trial.genotype for trial in trials}) == 40
    assert min(errors[5:]) < min(errors[:5])


def test_a_latency_predictor(add_file: AddFile, tmp_path: Path) -> None:
    add_file(latency_predictors.registry, "latency_predictors", "parameters", PREDICTOR)
    space = search_spaces.get("nasbench201", input_shape=(3, 32, 32), num_classes=10)
    genotypes = [tuple(row) for row in space.samples(20, np.random.default_rng(0)).tolist()]
    latency_ms = 3 * space.costs(genotypes)["params_m"].to_numpy()
    predictor = latency_predictors.get("parameters").fit(space, genotypes, latency_ms)
    predictor.save(tmp_path / "saved")
    for known in (predictor, latency_predictors.load(tmp_path / "saved")):
        np.testing.assert_allclose(known.predict(genotypes).mean_ms, latency_ms)
        np.testing.assert_allclose(known.held_out_errors(), 0, atol=1e-9)


def test_a_task(add_file: AddFile) -> None:
    add_file(tasks.registry, "nas.tasks", "brightness", TASK)
    task = tasks.get("brightness")
    rng = np.random.default_rng(0)
    pixels = (255 * rng.random((800, 1, 8, 8)) * rng.random((800, 1, 1, 1))).astype(np.uint8)
    targets = pixels.mean((1, 2, 3), dtype=np.float32) / 255
    splits = SearchSplits(
        Examples(pixels[:500], targets[:500], task), Examples(pixels[500:], targets[500:], task)
    )
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    preprocessing = Preprocessing.of(splits.train)
    train(
        network,
        splits.train,
        Recipe.of(epochs=20, optimizer={"learning_rate": 0.005}),
        preprocessing,
    )
    error = evaluate(network, splits.validation, preprocessing)["error"]
    assert error < splits.trivial()["error"] / 2


def test_a_runtime(add_file: AddFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The measuring process finds the file by the path alone.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.syspath_prepend(str(tmp_path))
    add_file(runtimes.registry, "nas.devices.runtimes", "onnx_reference", RUNTIME)
    importlib.import_module("onnx_reference")
    device = nas.devices.get("cpu", runtime={"name": "onnx_reference"})
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    images = np.random.default_rng(0).standard_normal((3, 1, 8, 8), dtype=np.float32)
    (prepared,) = device.prepare([network], (1, 8, 8), tmp_path)
    (outputs,) = device.outputs(prepared, [images])
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
