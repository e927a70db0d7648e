"""Classification: one class an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from nas.core.errors import DataError
from nas.core.task import Array, Sums
from nas.tasks import Metric, Task, register

if TYPE_CHECKING:
    import torch


@register("classification")
@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Targets are classes `(n,)`, int64 from 0; outputs are logits `(n, classes)`.

    Attributes:
        class_names: Name of every class, in the order of the logits.

    Example:
        >>> import numpy as np
        >>> task = Classification(class_names=("cat", "dog"))
        >>> logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.5], [4.0, 0.0]])
        >>> task.evaluate(logits, np.array([0, 1, 1, 0]))
        {'error': 25.0}
        >>> task.read(logits)
        ['cat', 'dog', 'cat', 'cat']
    """

    class_names: tuple[str, ...]

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("error", "%", larger_is_better=False, about="top-1 error"),
    )
    error_is_share: ClassVar[bool] = True

    @property
    def output_size(self) -> int:
        return len(self.class_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.class_names

    @property
    def summary(self) -> str:
        return f"{self.output_size} classes"

    @property
    def reading(self) -> str:
        return (
            "`outputs` holds a logit for every class, in the order above; the largest one is that "
            "of the most probable class. Every image is given one of these classes, whatever it "
            "shows."
        )

    def check(self, targets: Array) -> None:
        form = f"(n,) integers from 0 to {self.output_size - 1}, one for each of {self.summary}"
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            got = f"shape {targets.shape} and type {targets.dtype}"
            raise DataError(f"targets of a classification: got {got}, expected {form}")
        if len(targets) and not 0 <= targets.min() <= targets.max() < self.output_size:
            got = f"{targets.min()} to {targets.max()}"
            raise DataError(f"targets of a classification: got {got}, expected {form}")

    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def sums(self, outputs: Array, targets: Array) -> Sums:
        right = (outputs.argmax(axis=1) == targets) & np.isfinite(outputs).all(axis=1)
        return np.array([np.sum(~right), len(targets)], dtype=np.float64)

    def scores(self, sums: Sums) -> dict[str, float]:
        wrong, total = sums
        return {"error": float(100 * wrong / total)}

    def trivial(self, train: Array, validation: Array) -> dict[str, float]:
        if not len(validation):
            return {"error": 100 * (1 - 1 / self.output_size)}
        guess = np.bincount(train).argmax()
        return {"error": float(100 * np.mean(validation != guess))}

    def strata(self, targets: Array) -> npt.NDArray[np.int64]:
        return targets

    def counts(self, targets: Array) -> dict[str, int]:
        numbers = np.bincount(targets, minlength=self.output_size).tolist()
        return dict(zip(self.class_names, numbers, strict=True))

    def read(self, outputs: Array) -> Sequence[str]:
        return [self.class_names[i] for i in outputs.argmax(axis=1)]
