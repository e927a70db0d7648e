"""Classification: one class an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
        >>> metrics = task.evaluate(logits, np.array([0, 1, 1, 0]))
        >>> metrics["error"], metrics["worst_class_error"]
        (25.0, 50.0)
        >>> task.read(logits)
        ['cat', 'dog', 'cat', 'cat']
    """

    class_names: tuple[str, ...]

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("error", "%", about="top-1 error"),
        Metric("balanced_error", "%", about="100 - mean recall of the classes"),
        Metric("macro_f1_error", "%", about="100 - mean F1 score of the classes"),
        Metric("worst_class_error", "%", about="100 - least recall of a class"),
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

    def distillation(
        self, outputs: torch.Tensor, taught: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Return `T^2 KL(softmax(taught / T) || softmax(outputs / T))`, `(n,)`.

        The factor keeps the gradients' size for every temperature `T` (Hinton et al.,
        arXiv:1503.02531, section 2).
        """
        from torch.nn import functional as F

        own, target = (F.log_softmax(each / temperature, dim=1) for each in (outputs, taught))
        divergence = F.kl_div(own, target, reduction="none", log_target=True).sum(1)
        return temperature**2 * divergence

    def sums(self, outputs: Array, targets: Array) -> Sums:
        """Return the confusion matrix, `(classes, classes + 1)`.

        A row counts the examples of a class by the class that they were given, in the last column
        those whose outputs are not finite.
        """
        finite = np.isfinite(outputs).all(axis=1)
        return self._confusion(np.where(finite, outputs.argmax(axis=1), self.output_size), targets)

    def scores(self, sums: Sums) -> dict[str, float]:
        """Return the metrics from a confusion matrix.

        Means over classes are of those that the split has examples of, the same ones for every
        network (scikit-learn's `balanced_accuracy_score`, and `f1_score` with these as `labels`).
        """
        present = sums.sum(axis=1) > 0
        examples, found = sums.sum(axis=1)[present], sums.diagonal()[present]
        given = sums.sum(axis=0)[:-1][present]
        recall, f1 = found / examples, 2 * found / (examples + given)
        return {
            "error": float(100 * (examples.sum() - found.sum()) / examples.sum()),
            "balanced_error": float(100 * (1 - recall.mean())),
            "macro_f1_error": float(100 * (1 - f1.mean())),
            "worst_class_error": float(100 * (1 - recall.min())),
        }

    def details(self, sums: Sums) -> dict[str, Any]:
        """Return the confusion matrix with the classes' names, and the recall of every class.

        `confusion_matrix` has a row a class and a column a class that was given;
        `recall_percent` is `None` for a class without examples.
        """
        recall = [
            float(100 * row[number] / row.sum()) if row.sum() else None
            for number, row in enumerate(sums)
        ]
        details = {
            "classes": list(self.class_names),
            "recall_percent": dict(zip(self.class_names, recall, strict=True)),
            "confusion_matrix": sums[:, :-1].astype(int).tolist(),
        }
        if sums[:, -1].any():
            details["outputs_not_finite"] = sums[:, -1].astype(int).tolist()
        return details

    def trivial(self, train: Array, validation: Array) -> dict[str, float]:
        targets = validation if len(validation) else np.arange(self.output_size)
        guess = np.bincount(train).argmax() if len(train) else 0
        return self.scores(self._confusion(np.full(len(targets), guess), targets))

    def strata(self, targets: Array) -> npt.NDArray[np.int64]:
        return targets

    def counts(self, targets: Array) -> dict[str, int]:
        numbers = np.bincount(targets, minlength=self.output_size).tolist()
        return dict(zip(self.class_names, numbers, strict=True))

    def _confusion(self, given: Array, targets: Array) -> Sums:
        shape = self.output_size, self.output_size + 1
        cells = np.bincount(
            targets.astype(np.int64) * shape[1] + given, minlength=shape[0] * shape[1]
        )
        return cells.reshape(shape).astype(np.float64)

    def read(self, outputs: Array) -> Sequence[str]:
        return [self.class_names[i] for i in outputs.argmax(axis=1)]
