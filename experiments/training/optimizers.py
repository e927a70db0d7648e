"""What an optimizer makes of a fixed network in a short training: the choice of the preset `fast`.

Run `python experiments/training/optimizers.py [--seeds N]`. It trains a transformer, a network of
depthwise convolutions and one of ordinary convolutions on 8,000 images of the train split of
Fashion-MNIST, as candidates are trained, by recipes that differ in the optimizer, and judges them
on the validation split. Rows go to `optimizers.csv`, the table to `optimizers.md`.
"""

from __future__ import annotations

from networks import DEPTHWISE, FUSED, VIT
from trainings import Run, arguments, write_table

from nas.core.recipe import Recipe

OPTIMIZERS = ("sgd", "adamw", "muon")
NETWORKS = {"transformer": VIT, "depthwise": DEPTHWISE, "fused": FUSED}
EPOCHS, IMAGES = 4, 8000


def main() -> None:
    """Train what is missing and write the table."""
    chosen = arguments(NETWORKS)
    runs = [
        Run(
            name=f"{network}, {optimizer}",
            network=NETWORKS[network],
            recipe=Recipe.of(
                epochs=EPOCHS,
                train_samples=IMAGES,
                optimizer={"name": optimizer},
                augmentation={"flip": True},
            ),
            seed=seed,
        )
        for seed in range(chosen.seeds)
        for network in chosen.networks
        for optimizer in OPTIMIZERS
    ]
    write_table(runs, "optimizers")


if __name__ == "__main__":
    main()
