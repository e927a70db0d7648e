"""What every part of the preset `full` is worth: each is left out or exchanged in turn.

Run `python experiments/training/ablation.py [--seeds N]`. Networks are trained on 10,000 images of
the train split of Fashion-MNIST and judged on its validation split. Rows go to `ablation.csv`, the
table to `ablation.md`.
"""

from __future__ import annotations

from typing import Any

from networks import FUSED, VIT, many_images
from trainings import Run, arguments, write_table

EPOCHS, IMAGES = 10, 10_000
NETWORKS = {"fused": (FUSED, "convolution"), "transformer": (VIT, "transformer")}
CHANGES: dict[str, dict[str, Any]] = {
    "full": {},
    "no flip": {"augmentation": {"flip": False}},
    "no shift": {"augmentation": {"shift": 0.0}},
    "no averaging": {"ema": 0.0},
    "no label smoothing": {"regularisation": {"label_smoothing": 0.0}},
    "cosine": {"schedule": {"name": "cosine", "warmup": 0.1}},
    "adamw": {"optimizer": {"name": "adamw"}},
    "sgd": {"optimizer": {"name": "sgd"}},
    "batches of 64": {"batch_size": 64},
    "and erasing": {"augmentation": {"erase": 0.25}},
    "and mixup": {"augmentation": {"mixup": 0.2}},
    "and TrivialAugment": {"augmentation": {"policy": "trivial"}},
    "and drop path": {"regularisation": {"drop_path": 0.1}},
    "and growing images": {"initial_resolution": 0.5},
}


def main() -> None:
    """Train what is missing and write the table."""
    chosen = arguments(NETWORKS)
    write_table(
        [
            Run(
                name=f"{name}, {title}",
                network=network,
                recipe=many_images(family, epochs=EPOCHS, train_samples=IMAGES, **changes),
                seed=seed,
            )
            for seed in range(chosen.seeds)
            for name in chosen.networks
            for network, family in [NETWORKS[name]]
            for title, changes in CHANGES.items()
        ],
        "ablation",
    )


if __name__ == "__main__":
    main()
