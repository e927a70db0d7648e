"""Teachers that a recipe names: found, refused, and learned from in a study."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from small_spaces import mobilenet_of_few_blocks

import nas
from nas import data
from nas.core.errors import ConfigError
from nas.core.recipe import Recipe
from nas.core.records import read_json
from nas.export.record import FORMAT
from nas.network.shared import extreme
from nas.network.trained import FACTS, Preprocessing
from nas.study import teachers
from nas.study.composition import compose
from nas.study.reading import read
from nas.study.reporting import Reporter
from nas.training.job import TrainingJob
from nas.training.teacher import CachedTeacher, ModuleTeacher, OnnxTeacher

MODULE = """
import threading
import torch
from torch import nn

def network(outputs=10, side=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, outputs))

def function():
    return lambda images: images.mean((2, 3)).expand(-1, 10)

def of_other_classes():
    return network(outputs=7)

def of_other_images():
    return network(side=9)

def of_nan():
    return lambda images: torch.full((len(images), 10), float("nan"))

def of_nan_later():
    return lambda images: torch.full((len(images), 10), float("nan") if len(images) > 2 else 0.0)

def of_a_lock():
    lock = threading.Lock()
    return lambda images: images.mean((2, 3)).expand(-1, 10) if lock else None

def text():
    return "a network"

def broken():
    raise RuntimeError("no weights")
"""

SETTING = "evaluation.recipe.teacher.source"


@pytest.fixture(scope="module")
def job() -> TrainingJob:
    splits = data.get("digits").search_splits()
    return TrainingJob(
        space=mobilenet_of_few_blocks(),
        train=splits.train.take(np.arange(128)),
        held_out=splits.validation.take(np.arange(32)),
        preprocessing=Preprocessing.of(splits.train),
        recipe=Recipe.of(epochs=1),
    )


Find = Callable[..., Any]


@pytest.fixture
def find(job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Return what finds a teacher by its source, in a folder with a module of functions."""
    name = f"my_teachers_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def find(source: str, **settings: Any) -> Any:
        source = source.replace("MODULE", name)
        recipe = Recipe.of(epochs=1, teacher={"source": source, **settings})
        named = dataclasses.replace(job, recipe=recipe)
        return teachers.found(named, "evaluation.recipe", tmp_path / "runs")

    return find


def onnx_file(shape: tuple[int, ...], outputs: int) -> bytes:
    """Return a file that gives zeros for images of a shape."""
    zeros = helper.make_node("Constant", [], ["y"], value=from_array(np.zeros((1, outputs), "f")))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, outputs))
    graph = helper.make_graph([zeros], "zeros", [x], [y])
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


ONNX = {
    "three.onnx": ((1, 3, 8, 8), 10),
    "seven.onnx": ((1, 1, 8, 8), 7),
    "batch.onnx": ((4, 1, 8, 8), 10),
    "flat.onnx": ((1, 64), 10),
}


def test_no_teacher_and_the_own_average_are_none(job: TrainingJob) -> None:
    assert teachers.found(job, "evaluation.recipe", Path("runs")) is None
    recipe = Recipe.of(teacher={"source": "self"}, ema=0.1)
    by_self = dataclasses.replace(job, recipe=recipe)
    assert teachers.found(by_self, "evaluation.recipe", Path("runs")) is None


def test_functions_of_a_module_make_networks_and_callables(find: Find, job: TrainingJob) -> None:
    network, function = find("MODULE:network"), find("MODULE:function")
    assert isinstance(network, ModuleTeacher)
    assert "sha256" in network.provenance
    assert "sha256" not in function.provenance
    for teacher in (network, function):
        assert teacher.preprocessing == job.preprocessing
    assert find("MODULE:network").provenance == network.provenance


def test_an_onnx_file_sees_images_as_the_network_does(find: Find, job: TrainingJob) -> None:
    Path("teacher.onnx").write_bytes(onnx_file((1, 1, 8, 8), 10))
    teacher = find("teacher.onnx")
    assert isinstance(teacher, OnnxTeacher)
    assert teacher.one_by_one
    assert teacher.preprocessing == job.preprocessing


@pytest.mark.parametrize("own", [True, False])
def test_the_preprocessing_beside_an_exported_file_is_used(
    find: Find, job: TrainingJob, own: bool
) -> None:
    Path("model.onnx").write_bytes(onnx_file((1, 1, 8, 8), 10))
    names = job.train.task.output_names
    record = {
        "format": FORMAT,
        "input_shape": [1, 8, 8],
        "outputs": names if own else names[::-1],
        "preprocessing": {"scale": 16.0, "mean": [0.25], "std": [0.5]},
    }
    Path("architecture.json").write_text(json.dumps(record))
    if own:
        used = Preprocessing(mean=(0.25,), std=(0.5,), image_size=(8, 8), scale=16.0)
        assert find("model.onnx").preprocessing == used
    else:  # as many classes, but others
        with pytest.raises(ConfigError, match=f"^{SETTING}: got 'model.onnx'"):
            find("model.onnx")


def test_the_largest_network_is_the_one_with_the_most_operations(job: TrainingJob) -> None:
    space = job.space
    rng = np.random.default_rng(0)
    most = space.costs(space.samples(500, rng))["macs_m"].max()
    assert space.costs([extreme(space, largest=True)])["macs_m"].iloc[0] >= most


def test_a_network_of_the_space_is_not_built_from_the_stream_of_the_search(find: Find) -> None:
    state = torch.get_rng_state()
    teacher = find("space:largest", features=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(teacher.provenance["arch_id"]) == 12


@pytest.mark.parametrize(
    "source",
    [
        "nowhere.onnx",
        "text.onnx",
        "three.onnx",
        "seven.onnx",
        "batch.onnx",
        "flat.onnx",
        "resnet50",
        "no_such_module:network",
        "MODULE:no_such_function",
        "MODULE:text",
        "MODULE:broken",
        "MODULE:of_other_classes",
        "MODULE:of_other_images",
        "MODULE:of_nan",
        "MODULE:of_a_lock",
        "no_such_study:best",
        "space:resnet",
    ],
)
def test_what_cannot_be_a_teacher_is_refused_in_one_line(find: Find, source: str) -> None:
    if source in ONNX:
        Path(source).write_bytes(onnx_file(*ONNX[source]))
    Path("text.onnx").write_text("no ONNX")
    with pytest.raises(ConfigError, match=f"^{SETTING}: got ") as caught:
        find(source)
    assert "\n" not in str(caught.value)


def test_a_cached_teacher_is_not_sent_to_workers(find: Find) -> None:
    assert find("MODULE:of_a_lock", cached=True) is not None


def test_kept_outputs_are_finite(find: Find, job: TrainingJob, tmp_path: Path) -> None:
    source = find("MODULE:of_nan_later").provenance["source"]
    recipe = Recipe.of(epochs=1, teacher={"source": source, "cached": True})
    named = dataclasses.replace(job, recipe=recipe)
    folder, settings = tmp_path / "teachers", read(compose(["data=digits"]))
    with pytest.raises(ConfigError, match=f"^{SETTING}: got .*finite"):
        teachers.taught(named, "evaluation.recipe", settings, folder, Reporter())
    assert not [*folder.glob("*.npy")]


def test_features_need_a_network_that_ends_with_a_linear_layer(find: Find) -> None:
    Path("teacher.onnx").write_bytes(onnx_file((1, 1, 8, 8), 10))
    assert find("MODULE:network", features=0.5) is not None
    for source in ("teacher.onnx", "MODULE:function"):
        with pytest.raises(ConfigError, match=r"^evaluation\.recipe\.teacher\.features: got 0\.5"):
            find(source, features=0.5)


def test_trainings_take_longer_with_a_teacher_unless_it_is_cached(
    find: Find, job: TrainingJob
) -> None:
    for cached in (False, True):
        teacher = find("MODULE:network", cached=cached)
        settings = {"source": teacher.provenance["source"], "cached": cached}
        named = dataclasses.replace(job, recipe=Recipe.of(epochs=1, teacher=settings))
        timed = teachers.timed(named, teacher)
        assert (timed.teacher is None) == cached
        assert timed.estimated_seconds((0,) * len(job.space.genes)) > 0


QUICK = {
    "data": "digits",
    "objectives": ["error"],
    "evaluations": 2,
    "settings": {
        "search_space.stage_channels": [16, 24],
        "search_space.stage_strides": [1, 2],
        "search_space.stem_stride": 1,
        "search_space.resolutions": [8],
        "search_space.max_depth": 1,
        "evaluation.recipe.epochs": 1,
        "evaluation.recipe.train_samples": 256,
        "finalise.recipe.epochs": 2,
        "finalise.limit": 1,
    },
}


def study(name: str, runs: Path, **settings: Any) -> Any:
    quick: dict[str, Any] = {**QUICK, "name": name}
    return nas.search(**{**quick, "settings": {**quick["settings"], "runs": runs, **settings}})


@pytest.mark.slow
def test_a_study_learns_from_its_space_and_another_one_from_that_study(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    search, final = (f"{section}.recipe.teacher" for section in ("evaluation", "finalise"))
    first = study(
        "first",
        runs,
        **{f"{search}.source": "space:largest", f"{final}.source": "self"},
        **{"finalise.recipe.ema": 0.1},
    )
    kept = [*(runs / "first" / "teachers").glob("*/network.json")]
    assert len(kept) == 1
    second = study(
        "second",
        runs,
        **{f"{search}.source": "first:best", f"{search}.features": 0.1},
        **{f"{final}.source": "first:best", f"{final}.cached": True},
    )
    arch_id = str(first.pick("best")["arch_id"])
    member = str(second.pick("best")["arch_id"])
    facts = read_json(runs / "second" / "finalised" / member / FACTS)["provenance"]["teacher"]
    assert (facts["source"], facts["study"], facts["arch_id"]) == ("first:best", "first", arch_id)
    [outputs] = (runs / "second" / "teachers").glob("*.npy")
    assert np.load(outputs).shape == (1079, 10)
    # A file that was exported is the same teacher.
    first.export("best", out := tmp_path / "out")
    job = TrainingJob(
        space=mobilenet_of_few_blocks(),
        train=data.get("digits").search_splits().train,
        held_out=data.get("digits").search_splits().validation,
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,), image_size=(8, 8)),
        recipe=Recipe.of(teacher={"source": str(out / "model.onnx")}),
    )
    exported = teachers.found(job, "evaluation.recipe", runs)
    assert exported is not None
    again = CachedTeacher.of(exported, job.train, threads=1).outputs
    np.testing.assert_allclose(again, np.load(outputs), atol=1e-4)
    with pytest.raises(ConfigError, match="another"):
        study("second", runs, **{f"{search}.source": "self", "evaluation.recipe.ema": 0.1})
