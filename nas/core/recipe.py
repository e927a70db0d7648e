"""How a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with Nesterov momentum on a one-cycle schedule, with light augmentation.

    Attributes:
        epochs: Passes over the training images.
        train_samples: Images trained on, the first of a seeded permutation; `None` for all.
        batch_size: Images a step.
        learning_rate: Peak of the one-cycle schedule (Smith and Topin, 2019).
        momentum: Of Nesterov's method.
        weight_decay: Of convolution and linear weights; biases and normalisations have none.
        label_smoothing: Of the cross entropy (Szegedy et al., CVPR 2016).
        auxiliary_weight: Of the losses of a network's auxiliary classifiers, where its space has
            any; without a weight they are not built. DARTS has 0.4.
        shift: Largest random shift in pixels, in both directions.
        horizontal_flip: Whether half of the images are mirrored.
        initial_resolution: Share of the images' sides that training begins with. They grow with
            the steps (progressive learning, Tan and Le, ICML 2021), so that partial trainings have
            smaller images; 1 keeps them as they are.
        full_resolution_from: Share of the training from which images have their own size.
    """

    epochs: int = 4
    train_samples: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.0
    shift: int = 0
    horizontal_flip: bool = False
    initial_resolution: float = 1.0
    full_resolution_from: float = 0.5

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "train_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"recipe.{name}", value, "1 or more")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError("recipe.learning_rate", self.learning_rate, "a finite number above 0")
        for name in ("weight_decay", "auxiliary_weight", "shift"):
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe.{name}", getattr(self, name), "0 or more")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"recipe.{name}", getattr(self, name), "at least 0 and below 1")
        for name in ("initial_resolution", "full_resolution_from"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"recipe.{name}", getattr(self, name), "above 0, and 1 at most")

    def resolution(self, progress: float) -> float:
        """Return the share of the images' sides that is seen after a share of the training."""
        grown = min(progress / self.full_resolution_from, 1.0)
        return self.initial_resolution + (1.0 - self.initial_resolution) * grown
