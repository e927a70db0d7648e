"""Accuracy of fixed networks by the preset `full`, beside the recipe before, at equal seconds.

Run `python experiments/training/fixed.py [--seeds N]`. Both are trained on the train and validation
images of Fashion-MNIST together, and judged once on its test split. The numbers of epochs of the
former recipe are those that take as many processor seconds. Rows go to `fixed.csv`, the table to
`fixed.md`.
"""

from __future__ import annotations

from networks import FORMER, RESIDUAL, VIT, WIDE_VIT, many_images
from trainings import Run, arguments, write_table

from nas.core.recipe import Recipe

NETWORKS = {
    "MobileNet": (RESIDUAL, "convolution", 20),
    "transformer": (VIT, "transformer", 17),
    "transformer of width 96": (WIDE_VIT, "transformer", 16),
}
"""Network, its family, and the epochs of the former recipe that take as long as the preset."""


def recipes(family: str, former_epochs: int) -> dict[str, Recipe]:
    """Return what a network is trained by."""
    found = {"full": many_images(family, epochs=30)}
    if family == "transformer":
        eighth = {"shift": 0.125}
        title = "full with shifts of an eighth"
        found[title] = many_images(family, epochs=30, augmentation=eighth)
    return found | {"former recipe": Recipe.of(epochs=former_epochs, **FORMER)}


def main() -> None:
    """Train what is missing and write the table."""
    chosen = arguments(NETWORKS)
    write_table(
        [
            Run(name=f"{name}, {title}", network=network, recipe=how, seed=seed, judged_on="test")
            for seed in range(chosen.seeds)
            for name in chosen.networks
            for network, family, epochs in [NETWORKS[name]]
            for title, how in recipes(family, epochs).items()
        ],
        "fixed",
    )


if __name__ == "__main__":
    main()
