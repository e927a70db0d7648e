"""Accuracy of two fixed networks by the preset `full`, beside the recipe before, at equal seconds.

Run `python experiments/training/fixed.py [--seeds N]`. Both are trained on the train and validation
images of Fashion-MNIST together, and judged once on its test split. The numbers of epochs of the
former recipe are those that take as many processor seconds. Rows go to `fixed.csv`, the table to
`fixed.md`.
"""

from __future__ import annotations

from networks import FORMER, RESIDUAL, VIT, many_images
from trainings import Run, arguments, write_table

from nas.core.recipe import Recipe

NETWORKS = {
    "MobileNet": (RESIDUAL, many_images("convolution", epochs=30), 20),
    "transformer": (VIT, many_images("transformer", epochs=30), 17),
}
"""Network, the preset, and the epochs of the former recipe that take as long."""


def main() -> None:
    """Train what is missing and write the table."""
    chosen = arguments(NETWORKS)
    write_table(
        [
            Run(name=f"{name}, {title}", network=network, recipe=how, seed=seed, judged_on="test")
            for seed in range(chosen.seeds)
            for name in chosen.networks
            for network, recipe, epochs in [NETWORKS[name]]
            for title, how in {
                "full": recipe,
                "former recipe": Recipe.of(epochs=epochs, **FORMER),
            }.items()
        ],
        "fixed",
    )


if __name__ == "__main__":
    main()
