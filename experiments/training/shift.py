"""What random shifts of the images are worth in short and in long trainings.

Run `python experiments/training/shift.py`. Networks are trained by the presets with different
shifts, and judged on validation images of Fashion-MNIST or of the digits. Rows go to `shift.csv`,
the table to `shift.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from networks import DEPTHWISE, FUSED, RESIDUAL, VIT, many_images
from trainings import Network, Run, write_table

from nas.core.recipe import Recipe

THREE_QUARTERS = replace(
    RESIDUAL,
    choices={**RESIDUAL.choices, "width": 0.75},
    settings={**RESIDUAL.settings, "widths": (0.5, 0.75, 1.0)},
)
SHORT = {"ordinary": FUSED, "depthwise": DEPTHWISE, "residual": THREE_QUARTERS}

DIGITS = {
    kind: Network(
        space="mobilenet",
        settings={
            "resolutions": (6, 8, 12, 16),
            "widths": (0.5, 1.0, 2.0),
            "stage_channels": (16, 32),
            "stage_strides": (1, 2),
            "head_channels": 64,
            "kinds": ("mbconv", "fused", "residual"),
        },
        choices={
            "width": 2.0,
            "resolution": 16,
            "depth": 2,
            "kernel": 3,
            "expansion": 4,
            "kind": kind,
            "squeeze_excite": False,
            "activation": "hswish",
        },
    )
    for kind in ("mbconv", "fused")
}


def of_digits(name: str, kind: str, shift: float, seed: int, recipe: Recipe) -> Run:
    """Return a training on the digits."""
    title = f"digits, {kind}, {name}, shift {shift:g}"
    return Run(name=title, network=DIGITS[kind], recipe=recipe, seed=seed, dataset=("digits", ()))


def runs() -> Iterator[Run]:
    """Yield all trainings."""
    for name, network in SHORT.items():
        for shift in (0.125, 0.0):
            augmentation = {"flip": True, "shift": shift}
            recipe = Recipe.of(epochs=4, train_samples=6000, augmentation=augmentation)
            title = f"{name}, fast, 6,000 images, shift {shift:g}"
            yield Run(name=title, network=network, recipe=recipe, seed=0)
    short, long = {"epochs": 8, "train_samples": 20_000}, {"epochs": 30}
    for shift, how in ((0.125, short), (0.07, short), (0.0, short), (0.07, long), (0.0, long)):
        recipe = many_images("transformer", augmentation={"shift": shift}, **how)
        title = f"transformer, full, {how.get('train_samples', 50_000):,} images, shift {shift:g}"
        yield Run(name=title, network=VIT, recipe=recipe, seed=0)
    for shift, epochs in ((0.125, 11), (0.07, 12), (0.0, 11)):
        recipe = many_images("convolution", epochs=epochs, augmentation={"shift": shift})
        title = f"residual, full, 50,000 images, shift {shift:g}"
        yield Run(name=title, network=THREE_QUARTERS, recipe=recipe, seed=0)
    for kind in DIGITS:
        for shift in (0.125, 0.0):
            for seed in range(4):
                recipe = Recipe.of(epochs=5, augmentation={"shift": shift})
                yield of_digits("fast", kind, shift, seed, recipe)
    for shift in (0.125, 0.0):
        for seed in range(5):
            augmentation = {"mixup": 0.2, "shift": shift}
            recipe = Recipe.of("full", batch_size=32, augmentation=augmentation)
            yield of_digits("full", "mbconv", shift, seed, recipe)


if __name__ == "__main__":
    write_table(list(runs()), "shift")
