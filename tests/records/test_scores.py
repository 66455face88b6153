"""The scores, against other people's programs and against their definitions, spelled out."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional import classification as torch_metrics

from fmbench.records.scores import scores, selective_risks

CLASSES = 7


def drawn(images: int = 1000, *, sharpness: float = 2.0, seed: int = 0):
    """Probabilities, predictions and labels that have something to do with each other."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    logits = rng.normal(size=(images, CLASSES)) * sharpness
    logits[np.arange(images), labels] += sharpness
    shares = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return probabilities, probabilities.argmax(1).astype(np.uint8), labels.astype(np.uint8)


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 8.0])
def test_scikit_learn_gives_the_same(sharpness):
    probabilities, predicted, labels = drawn(sharpness=sharpness)
    found = scores(probabilities, predicted, labels)
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    theirs = {
        "nll": sklearn_metrics.log_loss(labels, exact, labels=range(CLASSES)),
        "brier": sklearn_metrics.brier_score_loss(
            labels, exact, labels=range(CLASSES), scale_by_half=False
        ),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro"),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
        "worst_class_accuracy": sklearn_metrics.recall_score(labels, predicted, average=None).min(),
    }
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 4.0])
def test_torchmetrics_gives_the_same(sharpness):
    probabilities, predicted, labels = drawn(sharpness=sharpness)
    assert probabilities.max() < 1  # which has a bin of its own there
    found = scores(probabilities, predicted, labels)
    given = torch.from_numpy(probabilities), torch.from_numpy(labels.astype(np.int64))
    theirs = {
        "ece": torch_metrics.multiclass_calibration_error(*given, CLASSES, n_bins=15, norm="l1"),
        "macro_f1": torch_metrics.multiclass_f1_score(*given, CLASSES, average="macro"),
        "balanced_accuracy": torch_metrics.multiclass_accuracy(*given, CLASSES, average="macro"),
    }
    theirs = {name: float(value) for name, value in theirs.items()}
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


def by_definition(confidences, right):
    """AURC of Geifman et al. 2019: the mean selective risk over the thresholds of all images."""
    risks = []
    for threshold in confidences:
        answered = [one for one, sure in zip(right, confidences, strict=True) if sure >= threshold]
        risks.append(1 - sum(answered) / len(answered))
    return math.fsum(risks) / len(risks)


@pytest.mark.parametrize("levels", [1_000_000, 5])
def test_aurc_is_that_of_its_definition_with_and_without_equal_confidences(levels):
    rng = np.random.default_rng(3)
    confidences = np.round(rng.random(300) * levels) / levels
    right = rng.random(300) < confidences
    found = selective_risks(confidences, right)
    assert found.mean() == pytest.approx(by_definition(confidences, right), abs=1e-12)
    mixed = rng.permutation(300)
    assert selective_risks(confidences[mixed], right[mixed]).tolist() == found.tolist()


def test_the_other_scores_of_confidence_are_those_of_their_definitions():
    probabilities, predicted, labels = drawn(images=151)
    found = scores(probabilities, predicted, labels)
    pairs = sorted((float(p.max()), p.argmax() == y) for p, y in zip(probabilities, labels))  # noqa: B905
    groups = np.array_split(np.arange(151), 15)
    assert {len(group) for group in groups} == {10, 11}
    gaps = [abs(sum(pairs[i][1] - pairs[i][0] for i in group)) for group in groups]
    assert found["adaptive_ece"] == pytest.approx(sum(gaps) / 151, abs=1e-6)
    most = pairs[::-1][: math.ceil(0.9 * 151)]
    assert found["accuracy_at_90"] == pytest.approx(sum(one for _, one in most) / len(most))


def test_a_bin_holds_its_upper_edge_and_the_last_one_the_certain():
    confidences = [0.5, 0.5, 1.0, 1.0]
    probabilities = np.array([[p, 1 - p] for p in confidences], np.float32)
    found = scores(probabilities, np.zeros(4, int), np.array([0, 1, 0, 1]))
    assert found["ece"] == pytest.approx((abs(1 - 1) + abs(1 - 2)) / 4)


def test_a_right_class_of_probability_0_counts_as_the_floor():
    probabilities = np.array([[1, 0, 0]], np.float32)
    found = scores(probabilities, np.array([0]), np.array([2]))
    assert found["nll"] == 40
    assert found["brier"] == 2
    # Of one image, which is wrong: classes that nobody has are in no mean.
    assert (found["macro_f1"], found["balanced_accuracy"]) == (0, 0)
    assert (found["worst_class"], found["worst_class_accuracy"]) == (2, 0)
    assert (found["aurc"], found["accuracy_at_90"], found["ece"]) == (1, 0, 1)


def test_a_perfect_model_has_perfect_scores():
    labels = np.arange(5)
    found = scores(np.eye(5, dtype=np.float32), labels, labels)
    best = dict.fromkeys(("nll", "brier", "ece", "adaptive_ece", "aurc", "worst_class"), 0)
    ones = ("accuracy_at_90", "macro_f1", "balanced_accuracy", "worst_class_accuracy")
    assert found == best | dict.fromkeys(ones, 1)
