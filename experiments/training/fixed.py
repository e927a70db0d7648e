"""Accuracy of fixed networks by the preset `full`, beside the recipe before, at equal seconds.

Run `python experiments/training/fixed.py [--seeds N] [--networks NAME ...]`. Networks are trained
on the train and validation images of Fashion-MNIST together, and judged once on its test split. The
numbers of epochs of the former recipe are those that take as many processor seconds. The wider
transformer is trained with a teacher besides, a MobileNet. Rows go to `fixed.csv`, the table to
`fixed.md`.
"""

from __future__ import annotations

from networks import FORMER, RESIDUAL, VIT, WIDE_VIT, many_images
from trainings import Network, Run, arguments, write_table

from nas.core.recipe import Recipe

EPOCHS = 30

TEACHER = Run(
    name="teacher",
    network=RESIDUAL,
    recipe=many_images("convolution", epochs=10),
    seed=0,
    judged_on="test",
    keep_weights=True,
)

NETWORKS: dict[str, tuple[Network, dict[str, Recipe]]] = {
    "MobileNet": (
        RESIDUAL,
        {
            "full": many_images("convolution", epochs=EPOCHS),
            "former recipe": Recipe.of(epochs=20, **FORMER),
        },
    ),
    "transformer": (
        VIT,
        {
            "full": many_images("transformer", epochs=EPOCHS),
            "former recipe": Recipe.of(epochs=17, **FORMER),
        },
    ),
    "transformer of width 96": (
        WIDE_VIT,
        {
            "full": many_images("transformer", epochs=EPOCHS),
            "full with a teacher": many_images(
                "transformer", epochs=EPOCHS, teacher={"source": "space:largest"}
            ),
        },
    ),
}
"""Networks, and the recipes that they are trained by."""


def main() -> None:
    """Train what is missing and write the table."""
    chosen = arguments(NETWORKS)
    runs = [
        Run(
            name=f"{name}, {title}",
            network=network,
            recipe=recipe,
            seed=seed,
            judged_on="test",
            teacher=None if recipe.teacher.source is None else TEACHER,
        )
        for seed in range(chosen.seeds)
        for name in chosen.networks
        for network, recipes in [NETWORKS[name]]
        for title, recipe in recipes.items()
    ]
    taught = any(run.teacher for run in runs)
    if taught:
        write_table([TEACHER], "fixed")
    write_table([*([TEACHER] if taught else []), *runs], "fixed")


if __name__ == "__main__":
    main()
