"""Classification: what its metrics, its trivial guess and its checks are."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from nas.core.errors import DataError
from nas.tasks.classification import Classification

TASK = Classification(class_names=("ant", "bee", "cat"))


def trivial(train: list[int], validation: list[int]) -> float:
    return TASK.trivial(np.array(train, np.int64), np.array(validation, np.int64))["error"]


def test_a_trivial_guess_is_the_most_frequent_training_class():
    # Among the validation labels another class is more frequent, which a guess cannot know.
    assert trivial([1, 1, 0], [1, 2, 2, 2]) == 75.0
    assert trivial([1, 2], [1, 1, 2, 0]) == 50.0


def test_without_examples_a_guess_is_one_of_equally_frequent_classes():
    assert trivial([], []) == pytest.approx(200 / 3)


def test_metrics_do_not_depend_on_the_batches():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(20, 3)), rng.integers(0, 3, 20)
    parts = [TASK.sums(logits[part], targets[part]) for part in (slice(0, 7), slice(7, 20))]
    assert TASK.scores(sum(parts)) == TASK.evaluate(logits, targets)


def test_weights_make_classes_count_equally():
    targets = np.array([0, 0, 0, 2])  # no example of class 1
    weights = TASK.weights(targets)
    assert weights == pytest.approx(compute_sample_weight("balanced", targets))
    assert weights.mean() == 1.0


def test_outputs_that_are_not_finite_are_wrong():
    logits = np.array([[1.0, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [1.0, 0, 0]])
    assert TASK.evaluate(logits, np.zeros(4, np.int64)) == {"error": 50.0}


@pytest.mark.parametrize("targets", [np.array([0, 3]), np.array([0.0, 1.0]), np.zeros((2, 2), int)])
def test_targets_of_another_form_are_refused(targets: np.ndarray):
    with pytest.raises(DataError, match="0 to 2"):
        TASK.check(targets)
