"""Classification: what its metrics, its trivial guess and its checks are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
)
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
    targets = np.zeros(4, np.int64)
    assert TASK.evaluate(logits, targets)["error"] == 50.0
    details = TASK.details(TASK.sums(logits, targets))
    assert details["outputs_not_finite"] == [2, 0, 0]
    assert details["recall_percent"] == {"ant": 50.0, "bee": None, "cat": None}


def scikit_learn(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    present = np.unique(targets)
    recall = recall_score(targets, predicted, labels=present, average=None, zero_division=0)
    macro_f1 = f1_score(targets, predicted, labels=present, average="macro", zero_division=0)
    return {
        "error": 100 * (1 - accuracy_score(targets, predicted)),
        "balanced_error": 100 * (1 - balanced_accuracy_score(targets, predicted)),
        "macro_f1_error": 100 * (1 - macro_f1),
        "worst_class_error": 100 * (1 - recall.min()),
    }


# A class that the networks give may have no example, and one with examples may never be given.
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(
    targets=arrays(np.uint8, st.integers(1, 40), elements=st.integers(0, 3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_metrics_are_those_of_scikit_learn(targets: np.ndarray, seed: int):
    task = Classification(class_names=("ant", "bee", "cat", "dog"))
    logits = np.random.default_rng(seed).normal(size=(len(targets), 4))
    metrics = task.evaluate(logits, targets)
    assert list(metrics) == [metric.name for metric in task.metrics]
    assert metrics == pytest.approx(scikit_learn(logits.argmax(axis=1), targets))
    details = task.details(task.sums(logits, targets))
    expected = confusion_matrix(targets, logits.argmax(axis=1), labels=range(4))
    assert details["confusion_matrix"] == expected.tolist()
    assert details == json.loads(json.dumps(details))


def test_an_unbalanced_split_hides_a_class_from_the_error_only():
    targets = np.array([0] * 98 + [1] * 2)
    logits = np.tile([1.0, 0.0, 0.0], (100, 1))
    metrics = TASK.evaluate(logits, targets)
    assert metrics["error"] == pytest.approx(2.0)
    assert metrics["balanced_error"] == 50.0
    assert metrics["worst_class_error"] == 100.0
    assert metrics == TASK.trivial(targets, targets)


@pytest.mark.parametrize("targets", [np.array([0, 3]), np.array([0.0, 1.0]), np.zeros((2, 2), int)])
def test_targets_of_another_form_are_refused(targets: np.ndarray):
    with pytest.raises(DataError, match="0 to 2"):
        TASK.check(targets)
