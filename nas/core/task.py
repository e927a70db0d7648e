"""What networks predict, as the rooms that train, judge and export them see it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Sums = npt.NDArray[np.float64]

DETAILS = "test_details.json"
"""The file of a verified or exported network with what `Task.details` returns."""


@dataclass(frozen=True)
class Metric:
    """A number that says how badly a network does its task: 0 is the best value.

    What grows with quality is given as its difference from the best value, as in `100 - macro F1`,
    so that every metric is made small and limited from above.

    Attributes:
        name: As in the metrics of an evaluation, and in columns; `search.objectives` and
            `search.constraints` take it.
        unit: Of the number; empty for a pure number.
        about: What it is, in a few words.
    """

    name: str
    unit: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What is predicted: the form of targets and outputs, the loss and the metrics.

    Targets are arrays whose first axis counts the examples. Outputs are what the networks of a
    search space return for a batch, `(n, ...)`.

    Attributes:
        metrics: Each may be an objective or have a limit. The first one is `error`, in percent.
        error_is_share: Whether `error` is the share of the examples that are wrong, so that tests
            for counts apply to it.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    error_is_share: ClassVar[bool] = False

    @property
    @abstractmethod
    def output_size(self) -> int:
        """What a search space is given as `num_classes`: channels of the output."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each of the `output_size` channels stands for; by default its number."""
        return tuple(map(str, range(self.output_size)))

    @property
    @abstractmethod
    def summary(self) -> str:
        """The task in a few words for people, such as `10 classes`."""

    @property
    @abstractmethod
    def reading(self) -> str:
        """How an exported network's `outputs` are read, in a sentence or two of Markdown."""

    @abstractmethod
    def check(self, targets: Array) -> None:
        """Check the form of targets.

        Raises:
            DataError: They have another one; says which is expected.
        """

    @abstractmethod
    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """Return the loss of every example, `(n,)`, with a gradient.

        Where an example has several targets (one a pixel), its loss is their mean.

        Args:
            outputs: Of the network.
            targets: Of the same examples, on the device of `outputs`.
            label_smoothing: Share of the target's probability that all classes receive alike, from
                0 to 1; a task without classes ignores it.
        """

    def distillation(
        self, outputs: torch.Tensor, taught: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Return how far outputs are from a teacher's, `(n,)`, with a gradient.

        It is their mean squared difference, unless a task knows better.

        Args:
            outputs: Of the network.
            taught: Of the teacher, for the same examples.
            temperature: By which logits are divided where a task makes probabilities of them.
        """
        del temperature
        return (outputs - taught).square().flatten(1).mean(1)

    @abstractmethod
    def sums(self, outputs: Array, targets: Array) -> Sums:
        """Return sums over a batch, from which `scores` makes the metrics.

        Those of several batches are added. Outputs that are not finite count as wrong.
        """

    @abstractmethod
    def scores(self, sums: Sums) -> dict[str, float]:
        """Return the value of every metric from the sums over all examples."""

    def details(self, sums: Sums) -> dict[str, Any]:
        """Return what a report shows of the test split beside the metrics, as plain JSON values.

        By default nothing. `recall_percent`, by class, is listed in the model card of an export.
        """
        del sums
        return {}

    def evaluate(self, outputs: Array, targets: Array) -> dict[str, float]:
        """Return the value of every metric for outputs that are there as a whole."""
        return self.scores(self.sums(outputs, targets))

    @abstractmethod
    def trivial(self, train: Array, validation: Array) -> dict[str, float]:
        """Return the metrics of the best constant prediction.

        Args:
            train: Targets from which the constant is taken.
            validation: Targets on which it is judged; none where there are no examples, and the
                value is that of balanced targets.
        """

    @abstractmethod
    def strata(self, targets: Array) -> npt.NDArray[np.int64]:
        """Return the group of every example, `(n,)`; samples have as many of each as they can."""

    def weights(self, targets: Array) -> npt.NDArray[np.float64]:
        """Return weights of the examples, `(n,)`, that make all strata count equally.

        Their mean is 1: an example weighs n / (number of strata * examples of its stratum), where
        only strata with examples count (King and Zeng, 2001, "Logistic Regression in Rare Events
        Data"; scikit-learn's `class_weight="balanced"`).
        """
        _, inverse, counts = np.unique(
            self.strata(targets), return_inverse=True, return_counts=True
        )
        share: npt.NDArray[np.float64] = len(targets) / (len(counts) * counts)
        return share[inverse]

    @abstractmethod
    def counts(self, targets: Array) -> dict[str, int]:
        """Return what a data set's fingerprint counts, by name, such as examples of a class."""

    @abstractmethod
    def read(self, outputs: Array) -> Sequence[str]:
        """Return for people what the outputs of an exported network say, one text an example."""

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
