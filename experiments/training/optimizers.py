"""What an optimizer makes of a fixed network: the choice of the presets.

Run `python experiments/training/optimizers.py [--seeds N]`. It trains a transformer, a network of
depthwise convolutions and one of ordinary convolutions on the train split of Fashion-MNIST, by
recipes that differ in the optimizer, and judges them on the validation split. Rows go to
`optimizers.csv`, the table to `optimizers.md`.
"""

from __future__ import annotations

import argparse
from typing import Any

from networks import DEPTHWISE, FUSED, VIT
from trainings import Run, write_table

from nas.core.recipe import Recipe

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.05}},
    "muon": {
        "optimizer": {
            "name": "muon",
            "learning_rate": 3e-3,
            "scaling": "sqrt",
            "momentum": 0.95,
            "weight_decay": 0.05,
        }
    },
}
OPTIMIZERS["muon, batches of 128"] = {**OPTIMIZERS["muon"], "batch_size": 128}

NETWORKS = {"transformer": VIT, "depthwise": DEPTHWISE, "fused": FUSED}
EPOCHS = 4


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    runs = [
        Run(
            name=f"{network}, {optimizer}",
            network=NETWORKS[network],
            recipe=Recipe.of(epochs=EPOCHS, augmentation={"flip": True}, **changes),
            seed=seed,
        )
        for seed in range(arguments.seeds)
        for network in arguments.networks
        for optimizer, changes in OPTIMIZERS.items()
    ]
    write_table(runs, "optimizers")


if __name__ == "__main__":
    main()
