"""Each part of a recipe does what its definition says, and all of them together can be cut."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import search_spaces
from nas import data
from nas.core.dataset import Examples, SearchSplits
from nas.core.errors import ConfigError
from nas.core.recipe import (
    FAMILIES,
    OPTIMIZERS,
    POLICIES,
    PRESETS,
    SCHEDULES,
    OptimizerSettings,
    Recipe,
)
from nas.core.recipe import OPTIMIZER_VALUES as VALUES
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.job import check_recipe
from nas.training.muon import orthogonal
from nas.training.optimizers import optimizers_of, parameter_groups
from nas.training.trainer import Training, train

EVERYTHING = Recipe.of(
    epochs=3,
    train_samples=300,
    ema=0.1,
    balance="sampling",
    patience=50,
    initial_resolution=0.5,
    optimizer={"clip_norm": 1.0, "layer_decay": 0.8},
    augmentation={"flip": True, "crop": 0.5, "colour": 0.2, "erase": 0.5}
    | {"mixup": 0.2, "cutmix": 1.0, "mixed": 0.5},
    regularisation={"label_smoothing": 0.1, "drop_path": 0.2, "dropout": 0.2},
    compute={"accumulate": 2, "recompute": True},
)


@pytest.fixture(scope="module")
def digits() -> SearchSplits:
    return data.get("digits").search_splits()


def a_space(name: str) -> SearchSpace:
    return search_spaces.get(name, input_shape=(1, 8, 8), num_classes=10)


def trained(
    digits: SearchSplits, space: SearchSpace, recipe: Recipe, *fidelities: float
) -> tuple[nn.Module, list[Training]]:
    """Train in parts, each in a process of its own as far as torch can tell."""
    parts: list[Training] = []
    for fidelity in fidelities:
        torch.manual_seed(3)
        network = space.build(space.canonical([0] * len(space.genes)))
        training = train(
            network,
            digits.train,
            recipe,
            Preprocessing.of(digits.train),
            held_out=digits.validation,
            fidelity=fidelity,
            checkpoint=parts[-1].checkpoint if parts else None,
        )
        parts.append(training)
    return network, parts


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("space", ["mobilenet", "vit"])
def test_a_checkpoint_goes_on_with_every_part_of_a_recipe(
    digits: SearchSplits, space: str, optimizer: str
):
    policy = POLICIES[OPTIMIZERS.index(optimizer)]
    recipe = replace(
        EVERYTHING,
        optimizer=replace(EVERYTHING.optimizer, name=optimizer, learning_rate=1e-3),
        augmentation=replace(EVERYTHING.augmentation, policy=policy),
    )
    whole, [once] = trained(digits, a_space(space), recipe, 1.0)
    parts, trainings = trained(digits, a_space(space), recipe, 0.2, 0.6, 1.0)
    weights = parts.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in whole.state_dict().items())
    history = [record for training in trainings for record in training.history]
    assert [r["epoch"] for r in history] == [1, 2, 3]
    assert [r["loss"] for r in history] == [r["loss"] for r in once.history]
    assert [r["error"] for r in history] == [r["error"] for r in once.history]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_sets_the_rates_of_all_steps(
    digits: SearchSplits, monkeypatch: pytest.MonkeyPatch, name: str
):
    recipe = Recipe.of(schedule={"name": name, "warmup": 0.25})
    rates = []
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self: rates.append(self.param_groups[0]["lr"])
    )
    recipe = replace(recipe, epochs=1, train_samples=8 * 64)
    train(Constant(), digits.train, recipe, Preprocessing.of(digits.train))
    expected = [0.1 * recipe.schedule.share((step + 0.5) / 8) for step in range(8)]
    assert rates == pytest.approx(expected)
    assert min(rates) > 0


def test_blocks_further_from_the_output_learn_more_slowly():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    recipe = Recipe.of(optimizer={"layer_decay": 0.5, "learning_rate": 0.4})
    rates = {
        parameter: group["lr"]
        for group in parameter_groups(network, recipe)
        for parameter in group["params"]
    }
    weights = [rates[block.weight] for block in network]
    assert weights == pytest.approx([0.1, 0.2, 0.4])
    assert len(rates) == 6


def test_tokens_and_positions_do_not_decay():
    space = a_space("vit")
    network = space.build(space.canonical([0] * len(space.genes)))
    named = {parameter: name for name, parameter in network.named_parameters()}
    recipe = Recipe.of("fast", "transformer")
    groups = {group["weight_decay"]: group["params"] for group in parameter_groups(network, recipe)}
    still = {named[parameter].rpartition(".")[2] for parameter in groups[0.0]}
    assert {"positions", "bias"} <= still
    assert all(named[p].endswith("weight") for p in groups[recipe.optimizer.weight_decay])
    assert sum(len(group) for group in groups.values()) == len(named)


class Constant(nn.Module):
    """Returns its weights, whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(1, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.logits(torch.ones(len(x), 1))
        return logits


def test_averaged_weights_are_the_exponential_mean(digits: SearchSplits):
    seen = []

    class Noting(Constant):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(self.logits.weight.detach().clone())
            return super().forward(x)

    network = Noting()
    recipe = Recipe.of(epochs=1, train_samples=640, ema=0.3)
    train(network, digits.train, recipe, Preprocessing.of(digits.train))
    raw = Noting()
    raw.load_state_dict({"logits.weight": seen[0]})
    torch.manual_seed(0)
    decay = math.exp(-1 / (0.3 * 10))
    # The last weights are seen by no forward pass: they are the mean's last summand.
    before = seen[1]
    for weights in seen[2:]:
        before = decay * before + (1 - decay) * weights
    last = (network.logits.weight.detach() - decay * before) / (1 - decay)
    assert len(seen) == 10
    assert (last - seen[-1]).abs().max() < (seen[-1] - seen[0]).abs().max()
    assert not torch.allclose(network.logits.weight, last)


def rare(digits: SearchSplits) -> Examples:
    """Digits of which the class 0 is ten times as frequent as each other one."""
    targets = digits.train.targets
    zeros = np.flatnonzero(targets == 0)
    others = [np.flatnonzero(targets == label)[:10] for label in range(1, 10)]
    return digits.train.take(np.concatenate([zeros[:100], *others]))


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balanced_classes_count_equally(digits: SearchSplits, balance: str):
    images = rare(digits)
    probabilities = {}
    for name in ("none", balance):
        torch.manual_seed(0)
        network = Constant()
        nn.init.zeros_(network.logits.weight)
        recipe = Recipe.of(epochs=60, balance=name, optimizer={"weight_decay": 0.0})
        train(network, images, recipe, Preprocessing.of(images))
        probabilities[name] = network(torch.zeros(1, 1)).softmax(1)[0, 0].item()
    assert probabilities["none"] == pytest.approx(100 / 190, abs=0.05)
    assert probabilities[balance] == pytest.approx(0.1, abs=0.04)


def test_patience_ends_a_training_and_hands_over_its_best_weights(digits: SearchSplits):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recipe = Recipe.of(epochs=50, patience=2)
    preprocessing = Preprocessing.of(digits.train)
    training = train(network, digits.train, recipe, preprocessing, held_out=digits.validation)
    errors = [record["error"] for record in training.history]
    best = int(np.argmin(errors))
    assert training.reached == 1
    assert training.checkpoint is None
    assert len(errors) == best + 3 < 50
    from nas.training.trainer import evaluate

    assert evaluate(network, digits.validation, preprocessing)["error"] == errors[best]


def test_gradients_are_clipped(digits: SearchSplits):
    """The first step of SGD without momentum is the rate times the clipped gradient."""
    steps = {}
    for clip_norm in (None, 1e-3):
        torch.manual_seed(0)
        network = Constant()
        before = network.logits.weight.detach().clone()
        optimizer = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": clip_norm}
        recipe = Recipe.of(epochs=1, train_samples=64, optimizer=optimizer)
        train(network, digits.train, recipe, Preprocessing.of(digits.train))
        steps[clip_norm] = (network.logits.weight.detach() - before).norm().item()
        rate = 0.1 * recipe.schedule.share(0.5)
    assert steps[1e-3] == pytest.approx(1e-3 * rate, rel=1e-3)
    assert steps[None] > 10 * steps[1e-3]


def test_a_training_says_what_every_epoch_was_like(digits: SearchSplits):
    _, [training] = trained(digits, a_space("mobilenet"), Recipe(epochs=3, train_samples=200), 1.0)
    assert [record["epoch"] for record in training.history] == [1, 2, 3]
    assert all(record["images_per_s"] > 0 for record in training.history)
    assert training.history[0]["loss"] > training.history[-1]["loss"] > 0


def test_muon_makes_matrices_orthogonal():
    """Singular values between 0.68 and 1.13 (Jordan et al., 2024), whatever they were."""
    torch.manual_seed(0)
    for shape in ((3, 8, 8), (2, 4, 30), (2, 30, 4), (1, 1, 5)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.6 < values.min() <= values.max() < 1.25


def test_muon_steps_matrices_and_adamw_the_rest():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 4, 3, bias=False),
        nn.Flatten(),
        nn.Linear(16, 16),
        nn.Linear(16, 2),
    )
    recipe = Recipe.of(optimizer={"name": "muon", "learning_rate": 0.01, "weight_decay": 0.0})
    muon, adamw = optimizers_of(network, recipe)
    named = {parameter: name for name, parameter in network.named_parameters()}
    assert [named[p] for group in muon.param_groups for p in group["params"]] == [
        "2.weight",
        "4.weight",
    ]
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(named) - 2
    before = network[2].weight.detach().clone()
    network(torch.randn(4, 1, 8, 8)).sum().backward()
    muon.step()
    step = (network[2].weight.detach() - before).flatten(1)
    gradient = network[2].weight.grad
    assert gradient is not None
    # The first update is the orthogonal part of the gradient.
    expected = -0.01 * 0.2 * 72**0.5 * orthogonal(gradient.flatten(1)[None])[0]
    torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-6)
    assert (step * gradient.flatten(1)).sum() < 0


def test_drop_path_is_refused_where_no_network_of_a_space_has_a_branch():
    recipe = Recipe.of(regularisation={"drop_path": 0.1})
    with pytest.raises(ConfigError, match=r"recipe\.regularisation\.drop_path: got 0.1"):
        check_recipe(search_spaces.get("darts", input_shape=(3, 32, 32), num_classes=10), recipe)
    # Its smallest networks have none, its larger ones do.
    space = search_spaces.get(
        "mobilenet", input_shape=(3, 64, 64), num_classes=10, layout="mobilenet_v2"
    )
    check_recipe(space, recipe)
    with pytest.raises(ConfigError, match=r"recipe\.auxiliary_weight: got 0.4"):
        check_recipe(space, Recipe.of(auxiliary_weight=0.4))


def test_an_optimizer_brings_its_own_rates_unless_it_is_the_presets():
    for family in FAMILIES:
        for preset in PRESETS:
            own = Recipe.of(preset, family).optimizer
            for name in OPTIMIZERS:
                found = Recipe.of(preset, family, optimizer={"name": name}).optimizer
                expected = own if name == own.name else OptimizerSettings(**VALUES[name], name=name)
                assert found == expected
    changed = Recipe.of("full", optimizer={"name": "sgd", "learning_rate": 0.3}).optimizer
    assert changed == OptimizerSettings(learning_rate=0.3)


def test_a_training_does_not_end_before_it_has_seen_images_of_full_size(digits: SearchSplits):
    recipe = Recipe.of(
        epochs=6,
        train_samples=128,
        patience=1,
        initial_resolution=0.5,
        full_resolution_from=1.0,
        optimizer={"learning_rate": 1e-4},
    )
    _, [training] = trained(digits, a_space("mobilenet"), recipe, 1.0)
    assert len(training.history) == 6
