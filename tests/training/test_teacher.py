"""Learning from another network, and from the average of one's own weights."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas import data
from nas.core.dataset import Examples
from nas.core.errors import CandidateFailure, ConfigError
from nas.core.recipe import Recipe
from nas.network.onnx import export_onnx
from nas.network.trained import Preprocessing
from nas.tasks.classification import Classification
from nas.training.teacher import (
    CachedTeacher,
    FeatureMatch,
    LastLinear,
    ModuleTeacher,
    OnnxTeacher,
    Teacher,
    TeacherNetwork,
)
from nas.training.trainer import train

CPU = torch.device("cpu")
FACTS = {"source": "a.onnx"}


@pytest.fixture(scope="module")
def images() -> Examples:
    return data.get("digits").search_splits().train.take(np.arange(320))


@pytest.fixture(scope="module")
def preprocessing(images: Examples) -> Preprocessing:
    return Preprocessing.of(images)


def network(seed: int, width: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * width, 10),
    )


@pytest.fixture(scope="module")
def taught_module(images: Examples, preprocessing: Preprocessing) -> nn.Sequential:
    """A network that knows the images."""
    module = network(5, width=16)
    torch.manual_seed(0)
    train(module, images, Recipe(epochs=8), preprocessing)
    return module


@pytest.fixture(scope="module")
def torch_teacher(taught_module: nn.Module, preprocessing: Preprocessing) -> ModuleTeacher:
    return ModuleTeacher(provenance=FACTS, module=taught_module, preprocessing=preprocessing)


def recipe(teacher: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    settings = {"epochs": 2, **changes}
    return Recipe.of(**settings, teacher={"source": "a.onnx", **(teacher or {})})


def trained(
    images: Examples, preprocessing: Preprocessing, recipe: Recipe, teacher: Teacher | None
) -> dict[str, torch.Tensor]:
    module = network(0)
    torch.manual_seed(1)
    train(module, images, recipe, preprocessing, teacher=teacher)
    return module.state_dict()


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=atol, rtol=0)


def test_distillation_of_a_classification_is_the_divergence_of_soft_targets() -> None:
    """Hinton et al. (2015): its gradient is `T (softmax(z / T) - softmax(v / T))` a logit."""
    task = Classification(class_names=("a", "b", "c"))
    own = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 3.0]], requires_grad=True)
    taught = torch.tensor([[2.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    losses = task.distillation(own, taught, 4.0)
    assert losses.shape == (2,)
    assert losses[0] > 0
    assert losses[1].item() == pytest.approx(0, abs=1e-6)
    losses.sum().backward()
    expected = 4 * (F.softmax(own / 4, 1) - F.softmax(taught / 4, 1))
    assert own.grad is not None
    torch.testing.assert_close(own.grad, expected.detach())


@pytest.mark.parametrize("batch", [1, None])
def test_an_onnx_teacher_says_what_the_same_network_in_torch_says(
    images: Examples, torch_teacher: ModuleTeacher, tmp_path: Path, batch: int | None
) -> None:
    module = torch_teacher.module
    assert isinstance(module, nn.Module)
    path = tmp_path / "teacher.onnx"
    if batch == 1:
        export_onnx(module, (1, 8, 8), path)
    else:
        free = {"x": {0: torch.export.Dim("n")}}
        named: Any = {"input_names": ["x"], "dynamic_shapes": (free["x"],), "dynamo": True}
        torch.onnx.export(module.eval(), (torch.zeros(2, 1, 8, 8),), path, **named)
    import onnx

    content = onnx.load(path).SerializeToString()
    teacher = OnnxTeacher(
        provenance=FACTS,
        model=np.frombuffer(content, np.uint8),
        preprocessing=torch_teacher.preprocessing,
        one_by_one=batch == 1,
    )
    preprocessing = torch_teacher.preprocessing
    states = [
        trained(images, preprocessing, recipe(), each.start(CPU))
        for each in (teacher, torch_teacher)
    ]
    assert_equal(*states, atol=1e-4)


def test_a_network_with_nothing_but_a_teacher_learns_to_answer_like_it(
    images: Examples, preprocessing: Preprocessing, torch_teacher: ModuleTeacher
) -> None:
    """The targets are wrong, so what is learned is the teacher's."""
    wrong = dataclasses.replace(images, targets=(images.targets + 1) % 10)
    teach = torch_teacher.start(CPU)
    module = network(0)
    torch.manual_seed(1)
    alone = recipe({"weight": 1.0, "temperature": 1.0}, epochs=10)
    train(module, wrong, alone, preprocessing, teacher=teach)
    pixels = torch.from_numpy(images.pixels[:])
    with torch.no_grad():
        own = module.eval()(preprocessing(pixels)).argmax(1)
    taught = teach(torch.arange(len(images)), pixels).outputs.argmax(1)
    assert (own == taught).float().mean() > 0.9


def test_what_was_cached_is_what_a_teacher_says_of_plain_images(
    images: Examples, preprocessing: Preprocessing, torch_teacher: ModuleTeacher
) -> None:
    cached = CachedTeacher.of(torch_teacher, images, threads=1)
    assert cached.outputs.shape == (len(images), 10)
    states = [
        trained(images, preprocessing, recipe({"cached": isinstance(each, CachedTeacher)}), teach)
        for each in (cached, torch_teacher)
        for teach in [each.start(CPU)]
    ]
    assert_equal(*states, atol=1e-5)


def test_a_cached_teacher_looks_up_exactly(images: Examples) -> None:
    outputs = np.arange(len(images) * 10, dtype=np.float32).reshape(-1, 10)
    teach = CachedTeacher(provenance=FACTS, outputs=outputs).start(CPU)
    positions = torch.tensor([3, 0, 319])
    found = teach(positions, torch.from_numpy(images.pixels[positions.numpy()])).outputs
    assert np.array_equal(found.numpy(), outputs[[3, 0, 319]])


def test_a_teacher_of_larger_images_gets_them_resized(images: Examples) -> None:
    preprocessing = dataclasses.replace(Preprocessing.of(images), image_size=(16, 12))
    sizes = []

    def module(x: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape))
        return x.mean((2, 3)).expand(-1, 10)

    teacher = ModuleTeacher(provenance=FACTS, module=module, preprocessing=preprocessing)
    pixels = torch.full((4, 1, 8, 8), 200, dtype=torch.uint8)
    outputs = teacher.start(CPU)(torch.arange(4), pixels).outputs
    assert sizes == [(4, 1, 16, 12)]
    expected = (200 / 255 - preprocessing.mean[0]) / preprocessing.std[0]
    assert torch.allclose(outputs, torch.full((4, 10), expected))


CONTINUED = {
    "outputs": ({}, {}),
    "features": ({"features": 0.5}, {}),
    "self": ({"source": "self", "weight": 0.5}, {"ema": 0.2}),
    "adamw": ({"features": 0.5}, {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}),
}


@pytest.mark.parametrize(("settings", "changes"), CONTINUED.values(), ids=CONTINUED)
def test_a_training_that_is_continued_ends_as_one_that_was_not_interrupted(
    images: Examples,
    preprocessing: Preprocessing,
    torch_teacher: ModuleTeacher,
    settings: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    by = recipe(settings, **changes)
    teacher = None
    if by.teacher.source != "self":
        teacher = torch_teacher.start(CPU, features=by.teacher.features > 0)
    whole = trained(images, preprocessing, by, teacher)
    module, checkpoint = network(0), None
    for fidelity in (0.5, 1.0):
        torch.manual_seed(1)
        checkpoint = train(
            module,
            images,
            by,
            preprocessing,
            teacher=teacher,
            fidelity=fidelity,
            checkpoint=checkpoint,
        ).checkpoint
    assert_equal(module.state_dict(), whole, atol=0)


def test_every_part_of_the_teacher_changes_what_is_learned(
    images: Examples, preprocessing: Preprocessing, torch_teacher: ModuleTeacher
) -> None:
    teach = torch_teacher.start(CPU, features=True)
    without = Recipe.of(epochs=2)
    states = [trained(images, preprocessing, without, None)]
    parts = ({}, {"weight": 0.9}, {"temperature": 1.0}, {"features": 1.0})
    states += [trained(images, preprocessing, recipe(part), teach) for part in parts]
    by_self = recipe({"source": "self"}, ema=0.2)
    states.append(trained(images, preprocessing, by_self, None))
    weights = [state["4.weight"] for state in states]
    for number, weight in enumerate(weights):
        assert not any(torch.equal(weight, other) for other in weights[:number])


def test_features_come_to_match_and_leave_no_trace_in_the_network(
    images: Examples, preprocessing: Preprocessing, torch_teacher: ModuleTeacher
) -> None:
    teach = torch_teacher.start(CPU, features=True)
    module = network(0)
    before = copy.deepcopy(module.state_dict())
    pixels = torch.from_numpy(images.pixels[:])
    taught = teach(torch.arange(len(images)), pixels)
    assert taught.features is not None
    assert taught.features.shape == (len(images), 256)
    torch.manual_seed(1)
    train(module, images, recipe({"features": 1.0}, epochs=6), preprocessing, teacher=teach)
    assert module.state_dict().keys() == before.keys()
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in module.modules())

    def unexplained(module: nn.Module) -> float:
        """Return the share of the teacher's features that the best linear map does not explain."""
        last = LastLinear(module, preprocessing(pixels[:1]))
        with torch.no_grad(), last.reading() as read:
            module.eval()(preprocessing(pixels))
        target = taught.features - taught.features.mean(0)
        own = read[0] - read[0].mean(0)
        ridge = own.T @ own + torch.eye(own.shape[1])
        left = target - own @ torch.linalg.solve(ridge, own.T @ target)
        return float(left.square().sum() / target.square().sum())

    assert unexplained(module) < unexplained(network(0))


def test_the_linear_layer_that_gives_the_outputs_is_the_last_one() -> None:
    module = network(0)
    module.train()
    mean = module[1].running_mean.clone()
    assert LastLinear(module, torch.zeros(1, 1, 8, 8)).size == 128
    assert module.training
    assert torch.equal(module[1].running_mean, mean)
    with pytest.raises(ValueError, match="linear"):
        LastLinear(nn.Sequential(*module, nn.ReLU()), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="linear"):
        LastLinear(nn.Sequential(nn.Flatten()), torch.zeros(1, 1, 8, 8))


def test_a_map_of_features_to_themselves_has_no_loss() -> None:
    match = FeatureMatch(network(0), torch.zeros(1, 1, 8, 8), torch.zeros(1, 128))
    nn.init.eye_(match.map.weight)
    features = torch.randn(5, 128)
    assert match(features, features).item() == 0


@pytest.mark.parametrize("kind", ["onnx", "cached", "callable"])
def test_features_are_of_networks_in_torch(kind: str, preprocessing: Preprocessing) -> None:
    teachers: dict[str, TeacherNetwork] = {
        "onnx": OnnxTeacher(
            provenance=FACTS,
            model=np.zeros(1, np.uint8),
            preprocessing=preprocessing,
            one_by_one=True,
        ),
        "cached": CachedTeacher(provenance=FACTS, outputs=np.zeros((1, 10), np.float32)),
        "callable": ModuleTeacher(
            provenance=FACTS, module=lambda x: x, preprocessing=preprocessing
        ),
    }
    with pytest.raises(ValueError, match=r"\w"):
        teachers[kind].start(CPU, features=True)


def test_a_recipe_and_a_training_have_the_same_teacher_or_none(
    images: Examples, preprocessing: Preprocessing, torch_teacher: ModuleTeacher
) -> None:
    with pytest.raises(TypeError, match=r"a\.onnx"):
        trained(images, preprocessing, recipe(), None)
    with pytest.raises(TypeError, match="None"):
        trained(images, preprocessing, Recipe(), torch_teacher.start(CPU))


def test_a_training_that_diverges_by_its_teacher_says_so(
    images: Examples, preprocessing: Preprocessing
) -> None:
    for outputs, whose in ((np.nan, True), (0.0, False)):
        kept = np.full((len(images), 10), outputs, np.float32)
        teach = CachedTeacher(provenance=FACTS, outputs=kept).start(CPU)
        rate = {"learning_rate": 0.1 if whose else 1e30}
        with pytest.raises(CandidateFailure, match="diverged") as caught:
            trained(images, preprocessing, recipe(optimizer=rate), teach)
        assert ("teacher" in str(caught.value)) == whose


def test_outputs_of_another_shape_are_refused(
    images: Examples, preprocessing: Preprocessing
) -> None:
    outputs = np.zeros((len(images), 1), np.float32)
    teach = CachedTeacher(provenance=FACTS, outputs=outputs).start(CPU)
    with pytest.raises(ValueError, match="outputs of the teacher"):
        trained(images, preprocessing, recipe(), teach)


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("teacher.source", {"teacher": {"source": "self"}}),
        ("teacher.cached", {"teacher": {"source": "self", "cached": True}, "ema": 0.1}),
        ("teacher.features", {"teacher": {"source": "self", "features": 1.0}, "ema": 0.1}),
        ("teacher.features", {"teacher": {"source": "a.onnx", "features": 1.0, "cached": True}}),
        ("teacher.features", {"teacher": {"source": "a.onnx", "features": -1.0}}),
        (
            "teacher.cached",
            {"teacher": {"source": "a", "cached": True}, "augmentation": {"mixup": 0.2}},
        ),
        (
            "teacher.cached",
            {"teacher": {"source": "a", "cached": True}, "augmentation": {"cutmix": 1}},
        ),
        (
            "compute.compile",
            {"teacher": {"source": "a", "features": 1.0}, "compute": {"compile": True}},
        ),
    ],
)
def test_settings_that_do_not_go_together(setting: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^recipe\.{setting}: got"):
        Recipe.of(**changes)


def test_a_cached_teacher_goes_with_what_leaves_images_unmixed() -> None:
    augmentation = {"crop": 0.5, "flip": True, "mixup": 0.2, "mixed": 0.0}
    Recipe.of(teacher={"source": "a", "cached": True}, augmentation=augmentation)
