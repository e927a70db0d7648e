"""Half of the channels removed at once, step by step, or never there; beside Torch-Pruning.

Run `python experiments/compression/pruning.py [--seeds N]`; it needs the extra `peers`. ResNet-18
is trained on Fashion-MNIST for every seed. Then half of the channels of all layers are removed, and
the network is trained for six epochs with the base as teacher: after all were removed, or two
epochs after each of three steps. What a teacher is worth says the same training without one. The
small network is also trained from scratch for as many epochs as the base and six more.
Torch-Pruning removes channels by its own global choice, until the network is as fast in ONNX
Runtime, and is trained as after one step. All are judged on the test split. Rows go to
`pruning.csv`, the table to `pruning.md`; seeds that are there are not done again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from base_networks import built, folder_of, space_of
from deployed import latencies_ms, written
from recipes import (
    BASE_EPOCHS,
    append_row,
    compressed,
    genotype_of,
    markdown,
    mean_and_deviation,
    recipe,
    splits,
    test_split,
)
from torch import nn

from nas.compression.base import Base
from nas.core.space import Genotype
from nas.network.space import SearchSpace
from nas.network.trained import Preprocessing
from nas.training.trainer import evaluate, train

HERE = Path(__file__).resolve().parent
EPOCHS = 6
STEPS = (0.75, 0.625, 0.5)
"""Shares of the base's channels that are left after each step."""


def halved(folder: Path) -> tuple[SearchSpace, Genotype]:
    """Return what keeps half of a base's channels."""
    space = space_of(folder, channels=(1.0, 0.5), precisions=("fp32",))
    return space, genotype_of(space, {"keep": 0.5})


def in_steps(base: Path, folder: Path, seed: int) -> nn.Module:
    """Remove channels step by step, with some epochs of training after each."""
    whole, left = halved(base)[0], 1.0
    for step, share in enumerate(STEPS):
        now = share / left
        space = space_of(base, channels=(1.0, now), precisions=("fp32",))
        chosen, own_seed = genotype_of(space, {"keep": now}), 10 * seed + step
        network, _ = compressed(
            space, chosen, seed=own_seed, epochs=EPOCHS // len(STEPS), teacher=whole
        )
        base, left = Base.of(network, splits().input_shape).save(folder), share
    return network


def from_scratch(space: SearchSpace, genotype: Genotype, seed: int) -> nn.Module:
    """Train the small network without the base."""
    torch.manual_seed(seed)
    network, own = space.build(genotype), splits()
    for layer in network.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    train(network, own.train, recipe(BASE_EPOCHS + EPOCHS), Preprocessing.of(own.train))
    return network.eval()


def by_torch_pruning(base: Path, target_ms: float, folder: Path, seed: int) -> nn.Module:
    """Prune by Torch-Pruning to a latency, and train as after one step."""
    import torch_pruning

    example = torch.zeros(1, *splits().input_shape)

    def pruned(ratio: float) -> nn.Module:
        network = built("resnet18")
        network.load_state_dict(Base.load(base, splits().input_shape).tensors)
        network.eval()
        pruner = torch_pruning.pruner.BasePruner(
            network,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=[network.fc],
        )
        pruner.step()
        return network

    low, high = 0.0, 0.95
    for _ in range(7):
        middle = (low + high) / 2
        [(ms, _)] = latencies_ms([written(pruned(middle), folder / "searched.onnx")])
        low, high = (low, middle) if ms <= target_ms else (middle, high)
    small = Base.of(pruned(high), splits().input_shape).save(folder)
    space = space_of(small, channels=(1.0,), precisions=("fp32", "int8"))
    teacher = space_of(base, channels=(1.0,), precisions=("fp32", "int8"))
    network, _ = compressed(
        space, space.references()["base"], seed=seed, epochs=EPOCHS, teacher=teacher
    )
    return network


def networks(seed: int, folder: Path) -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks of a seed, by how they came about."""
    base = folder_of("resnet18", seed)
    space, genotype = halved(base)
    yield "base", compressed(space, space.references()["base"], seed=seed)[0]
    once, _ = compressed(space, genotype, seed=seed, epochs=EPOCHS)
    yield f"at once, {EPOCHS} epochs", once
    alone, _ = compressed(space, genotype, seed=seed, epochs=EPOCHS, taught=False)
    yield f"at once, {EPOCHS} epochs without a teacher", alone
    yield f"in {len(STEPS)} steps, {EPOCHS} epochs", in_steps(base, folder, seed)
    yield f"from scratch, {BASE_EPOCHS + EPOCHS} epochs", from_scratch(space, genotype, seed)
    [(target_ms, _)] = latencies_ms([written(once, folder / "once.onnx")])
    pruned = by_torch_pruning(base, target_ms, folder, seed)
    yield f"Torch-Pruning, {EPOCHS} epochs", pruned


def main() -> None:
    """Do what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    file = HERE / "pruning.csv"
    done = set(pd.read_csv(file)["seed"]) if file.is_file() else set()
    for seed in sorted(set(range(parser.parse_args().seeds)) - done):
        with tempfile.TemporaryDirectory() as name:
            folder, rows = Path(name), list[dict[str, Any]]()
            found = dict(networks(seed, folder))
            files = [written(each, folder / f"{i}.onnx") for i, each in enumerate(found.values())]
            timed = latencies_ms(files)
            for (way, network), (ms, ci) in zip(found.items(), timed, strict=True):
                preprocessing = Preprocessing.of(splits().train)
                error = evaluate(network, test_split(), preprocessing)["error"]
                millions = sum(p.numel() for p in network.parameters()) / 1e6
                row = {"network": way, "seed": seed, "error": error, "params_m": millions}
                rows.append({**row, "latency_ms": ms, "latency_ms_ci": ci})
        for row in rows:
            append_row(file, row)
    rows = pd.read_csv(file)
    rows["accuracy"] = 100 - rows["error"]
    groups = rows.groupby("network", sort=False)
    table = pd.DataFrame(
        {
            "accuracy, %": mean_and_deviation(groups["accuracy"]),
            "params, 10^6": groups["params_m"].mean().map("{:.3f}".format),
            "latency, ms": groups["latency_ms"].mean().map("{:.3f}".format),
            "seeds": groups["seed"].count(),
        }
    )
    text = markdown(table.reset_index())
    (HERE / "pruning.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
