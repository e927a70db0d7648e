"""Search by gradients: how relaxed networks are trained, and what they are to find."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.core.errors import ConfigError, UnknownNameError

RELAXATIONS = ("policy", "sampled", "mixed")


@dataclass(frozen=True)
class Goal:
    """What one relaxed training is to find: an accurate network of a given cost.

    Attributes:
        target: Of the cost, in its unit.
        seed: Of the training.
    """

    target: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class RelaxationSettings:
    """How a relaxed network is trained: shared weights, and a distribution for every gene.

    The loss of the architecture weights is the task's, on the half of the training images that the
    other weights are not trained on, and `cost_weight` times the expectation of
    |log(cost / target)|, the absolute reward of TuNAS (Bender et al., CVPR 2020, section 3.2).

    Attributes:
        relaxation: How the task's loss is differentiated with respect to the distributions.
            `policy` runs networks that are drawn from them, and follows the gradient of the
            expected loss (REINFORCE, as in TuNAS and in ProxylessNAS, Cai et al., ICLR 2019); it
            works for every gene. `mixed` runs all choices of a categorical gene at once, where
            these have outputs of one shape, weighted by their probabilities (DARTS, Liu et al.,
            ICLR 2019); `sampled` runs one of them, drawn by Gumbel noise, whose gradient is that
            of the softmax (GDAS, Dong and Yang, CVPR 2019). Both treat other genes as `policy`.
        epochs: Passes over the images, half of which train the weights.
        train_samples: Training images that are used; `None` for all.
        warmup: Share of the steps that train the weights alone, of networks that are drawn
            uniformly.
        samples: Networks of a step of the architecture weights, where any gene is drawn by
            `policy`.
        learning_rate: Of the architecture weights, by Adam; `None` for 6 divided by the number of
            their steps, as far as those of DARTS can move (50 epochs of 390 steps at 0.0003).
        weight_decay: Of the architecture weights.
        cost_weight: Of the expected cost's deviation from the target.
        order: 2 takes the weights after a step on training images into account when the
            architecture weights are changed (DARTS, equation 7); 1 takes those before.
        beta: Weight, at the end, of the mean logarithm of the summed exponentials of the
            architecture weights of a gene, which keeps them alike; it grows linearly (beta-DARTS,
            Ye et al., CVPR 2022). 0 for none.
        operation_dropout: Probability, at the beginning, with which operations without parameters
            are dropped for an image; it falls linearly to 0 (P-DARTS, Chen et al., ICCV 2019).
        eigenvalue_ratio: The training ends, with the architecture weights of a tenth of the
            training before, when the dominant eigenvalue of the validation loss's Hessian in the
            architecture weights was less than this share of the present one there (R-DARTS, Zela
            et al., ICLR 2020, section 4.3, has 0.75). 0 for never.
    """

    relaxation: str = "policy"
    epochs: int = 10
    train_samples: int | None = None
    warmup: float = 0.3
    samples: int = 4
    learning_rate: float | None = None
    weight_decay: float = 0.0
    cost_weight: float = 1.0
    order: int = 1
    beta: float = 0.0
    operation_dropout: float = 0.0
    eigenvalue_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.relaxation not in RELAXATIONS:
            raise UnknownNameError("search.algorithm.relaxation", self.relaxation, RELAXATIONS)
        for name, least in (("epochs", 1), ("train_samples", 4), ("samples", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"search.algorithm.{name}", value, f"{least} or more")
        self._check_ranges()
        if self.order not in (1, 2):
            raise ConfigError("search.algorithm.order", self.order, "1 or 2")
        self._check_guards()

    def _check_ranges(self) -> None:
        for name in ("warmup", "operation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                expected = "at least 0 and below 1"
                raise ConfigError(f"search.algorithm.{name}", getattr(self, name), expected)
        for name in ("weight_decay", "cost_weight", "beta", "eigenvalue_ratio"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"search.algorithm.{name}", getattr(self, name), "0 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            expected = "a finite number above 0, or null"
            raise ConfigError("search.algorithm.learning_rate", self.learning_rate, expected)

    def _check_guards(self) -> None:
        # By the other relaxations there is no path for these through the network's outputs.
        for name, off in (("order", 1), ("operation_dropout", 0.0), ("eigenvalue_ratio", 0.0)):
            if getattr(self, name) != off and self.relaxation != "mixed":
                expected = f"{off:g}, or search.algorithm.relaxation=mixed"
                raise ConfigError(f"search.algorithm.{name}", getattr(self, name), expected)
