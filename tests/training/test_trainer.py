from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas import data
from nas.core.dataset import Examples, SearchSplits
from nas.core.errors import CandidateFailure
from nas.core.host import measuring
from nas.core.recipe import Recipe
from nas.network.trained import Preprocessing
from nas.training.trainer import evaluate, train

PATIENCE_S = 60


@pytest.fixture(scope="module")
def digits() -> SearchSplits:
    return data.get("digits").search_splits()


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def some(images: Examples, count: int) -> Examples:
    return images.take(np.arange(count))


class Spy(torch.optim.SGD):
    """Notes the settings of every step."""

    steps: list[list[dict[str, float]]]

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        Spy.steps = []

    def step(self, closure: None = None) -> None:
        noted = ("lr", "momentum", "nesterov", "weight_decay")
        self.steps.append([{name: group[name] for name in noted} for group in self.param_groups])
        super().step(closure)


class BatchSizes(nn.Module):
    """Notes the size of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits


def test_digits_are_learned(digits: SearchSplits):
    """Guessing is wrong in 90 %; a small network reaches a few percent in seconds."""
    network, preprocessing = small_network(), Preprocessing.of(digits.train)
    before = evaluate(network, digits.validation, preprocessing)["error"]
    torch.manual_seed(1)
    train(network, digits.train, Recipe(epochs=5), preprocessing)
    assert before > 70
    assert evaluate(network, digits.validation, preprocessing)["error"] < 8


def test_error_is_the_share_of_wrong_answers(digits: SearchSplits):
    class Threes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.eye(10)[3])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 10)

    preprocessing = Preprocessing.of(digits.train)
    expected = 100 * (digits.train.targets != 3).mean()
    assert evaluate(Threes(), digits.train, preprocessing)["error"] == pytest.approx(expected)
    assert len(digits.train) > 1000  # more than one batch


def test_the_error_is_counted_without_touching_the_network(digits: SearchSplits):
    network, preprocessing = small_network(), Preprocessing.of(digits.train)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    first = evaluate(network, digits.validation, preprocessing)
    assert evaluate(network, digits.validation, preprocessing) == first
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_equal_seeds_train_equal_networks(digits: SearchSplits):
    preprocessing = Preprocessing.of(digits.train)
    recipe = Recipe.of(epochs=2, train_samples=300, augmentation={"flip": True})
    weights = []
    for seed in (1, 1, 2):
        network = small_network()
        torch.manual_seed(seed)
        train(network, digits.train, recipe, preprocessing)
        weights.append(network[0].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_absurd_learning_rate_diverges(digits: SearchSplits):
    recipe = Recipe.of(epochs=3, optimizer={"learning_rate": 1e30})
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with pytest.raises(CandidateFailure, match=r"diverged: the loss became (nan|inf) in step \d+"):
        train(network, digits.train, recipe, Preprocessing.of(digits.train))


def test_a_network_that_returns_nan_has_diverged(digits: SearchSplits):
    network = small_network()
    nn.init.constant_(network[7].bias, math.nan)
    with pytest.raises(CandidateFailure, match="diverged: the network returns values") as caught:
        evaluate(network, digits.validation, Preprocessing.of(digits.train))
    assert caught.value.cause == "diverged"


def test_a_deadline_that_has_passed_is_a_timeout(digits: SearchSplits):
    with pytest.raises(CandidateFailure, match="timeout: stopped after 0 of 34 training steps"):
        train(
            small_network(),
            digits.train,
            Recipe(epochs=2),
            Preprocessing.of(digits.train),
            deadline=time.monotonic() - 1,
        )


def test_a_deadline_ends_a_long_training(digits: SearchSplits):
    with pytest.raises(CandidateFailure, match=r"timeout: stopped after \d+ of 1700000 training"):
        train(
            small_network(),
            digits.train,
            Recipe(epochs=100_000),
            Preprocessing.of(digits.train),
            deadline=time.monotonic() + 0.3,
        )


@pytest.mark.parametrize(
    ("images", "samples", "sizes"),
    [
        (130, None, [65] * 4),  # a rest of 2 is divided among the batches
        (128, None, [64] * 4),
        (95, None, [95] * 2),
        (97, None, [49, 48] * 2),
        (130, 70, [70] * 2),
        (40, None, [40] * 2),  # fewer than a batch
        (130, 1000, [65] * 4),
    ],
)
def test_batches_are_of_nearly_one_size_and_leave_no_image_out(
    digits: SearchSplits, images: int, samples: int | None, sizes: list[int]
):
    network = BatchSizes()
    recipe = Recipe(epochs=2, train_samples=samples)
    train(network, some(digits.train, images), recipe, Preprocessing.of(digits.train))
    assert network.sizes == sizes


def test_the_recipe_is_what_the_optimizer_does(
    digits: SearchSplits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.optim, "SGD", Spy)
    recipe = Recipe.of(
        epochs=4, optimizer={"learning_rate": 0.3, "momentum": 0.7, "weight_decay": 0.01}
    )
    network = small_network()
    train(network, digits.train, recipe, Preprocessing.of(digits.train))
    assert len(Spy.steps) == 4 * round(len(digits.train) / 64)
    rates = [groups[0]["lr"] for groups in Spy.steps]
    peak = int(np.argmax(rates))
    assert max(rates) == pytest.approx(0.3, rel=0.02)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.01 * max(rates)
    for decayed, others in Spy.steps:
        assert (decayed["momentum"], others["momentum"]) == (0.7, 0.7)
        assert decayed["nesterov"]
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0)


def test_only_weights_of_convolutions_and_linear_layers_decay(
    digits: SearchSplits, monkeypatch: pytest.MonkeyPatch
):
    groups: list[list[dict[str, object]]] = []

    class Groups(torch.optim.SGD):
        def __init__(self, params: list[dict[str, object]], **settings: object) -> None:
            groups.append(params)
            super().__init__(params, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim, "SGD", Groups)
    network = small_network()
    train(network, some(digits.train, 64), Recipe(epochs=1), Preprocessing.of(digits.train))
    names = {parameter: name for name, parameter in network.named_parameters()}
    decayed, others = ([names[p] for p in group["params"]] for group in groups[0])  # type: ignore
    assert decayed == ["0.weight", "3.weight", "7.weight"]
    assert others == ["1.weight", "1.bias", "4.weight", "4.bias", "7.bias"]


def test_training_needs_no_momentum(digits: SearchSplits):
    network = small_network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    recipe = Recipe.of(epochs=1, optimizer={"momentum": 0.0})
    train(network, some(digits.train, 64), recipe, Preprocessing.of(digits.train))
    assert all((a != b).any() for a, b in zip(before, network.parameters(), strict=True))


TRAINING_ELSEWHERE = """
import sys
import torch
from pathlib import Path
from nas import data
from nas.core.recipe import Recipe
from nas.network.trained import Preprocessing
from nas.training.trainer import train

torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
steps = Path(sys.argv[1]).open("a", buffering=1)
network.register_forward_hook(lambda *a: steps.write(".\\n") and None)
images = data.get("digits").search_splits().train
train(network, images, Recipe(epochs=10**6), Preprocessing.of(images))
"""


def test_a_measurement_pauses_training_in_another_process(tmp_path: Path):
    steps = tmp_path / "steps"
    steps.touch()

    def wait_for_steps(more_than: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while steps.stat().st_size <= more_than:
            assert other.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    command = [sys.executable, "-c", TRAINING_ELSEWHERE, str(steps)]
    with subprocess.Popen(command) as other:
        try:
            wait_for_steps(0)
            with measuring():
                before = steps.stat().st_size
                time.sleep(0.3)
                assert steps.stat().st_size == before
            wait_for_steps(before)
        finally:
            other.kill()
