"""Scores of probabilities and predictions: calibration, selective prediction, classes.

Computed once, when a run ends, from its float32 probabilities; a record keeps them.
"""

import numpy as np

from fmbench.records.record import Scores

#: Bins of both calibration errors.
BINS = 15

#: Share of the images that are answered where the least confident are left out.
COVERAGE = 0.9

#: Natural logarithm below which a probability counts as this: one image has a bounded share in NLL.
FLOOR = -40.0


def scores(probabilities: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> Scores:
    """All scores of one part of the split, each 0 to 1 but `nll`, `brier` and `worst_class`.

    - `nll`: mean of -ln of the probability of the right class, in nats; a logarithm below `FLOOR`
      counts as `FLOOR`.
    - `brier`: mean squared distance to the one-hot label, summed over the classes, 0 to 2
      (Brier 1950).
    - `ece`: expected calibration error of the predicted class, 15 bins of equal width (Naeini et
      al. 2015; Guo et al. 2017, equation 3). A bin holds its upper edge.
    - `adaptive_ece`: the same with 15 bins of as equally many images as can be, in the order of
      their confidence (Nguyen and O'Connor 2015).
    - `aurc`: the area under the risk-coverage curve, see `selective_risks`.
    - `accuracy_at_90`: accuracy on the most confident 90 % of the images, with all that are as
      confident as the last of them.
    - `macro_f1`: mean F1 of the classes that occur among labels or predictions.
    - `balanced_accuracy`: mean recall of the classes that occur among the labels (Brodersen et al.
      2010); `worst_class_accuracy` is the least of them and `worst_class` the number of its class.

    Args:
        probabilities: (N, classes) float32 of at least one image.
        predicted: (N,) classes; the confidence is the probability of this class.
        labels: (N,) the right classes.
    """
    places = np.arange(len(labels))
    confidences = probabilities[places, predicted].astype(np.float64)
    right = predicted == labels
    return Scores(
        **of_probabilities(probabilities, labels),
        **of_confidences(confidences, right),
        **of_classes(predicted, labels, probabilities.shape[1]),
    )


def of_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """The scores that need the probabilities of all classes: `nll` and `brier`."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    with np.errstate(divide="ignore"):
        logarithms = np.maximum(np.log(of_label), FLOOR)
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    brier = np.mean(squares - 2 * of_label + 1)
    return Scores(nll=float(-logarithms.mean()), brier=max(0.0, float(brier)))


def of_confidences(confidences: np.ndarray, right: np.ndarray) -> Scores:
    """Those that need the confidence in the predicted class, (N,), and whether it is right."""
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, BINS - 1)
    rising = np.sort(confidences)
    sizes = [len(part) for part in np.array_split(rising, BINS)]
    # Images of one confidence are in one bin, so that the order of the images changes nothing.
    equal = np.repeat(np.arange(BINS), sizes)[np.searchsorted(rising, confidences)]
    risks = selective_risks(confidences, right)
    covered = int(np.ceil(COVERAGE * len(right)))
    return Scores(
        ece=_calibration_error(bins, confidences, right),
        adaptive_ece=_calibration_error(equal, confidences, right),
        aurc=float(risks.mean()),
        accuracy_at_90=float(1 - risks[covered - 1]),
    )


def selective_risks(confidences: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The risk-coverage curve: (N,) error rates, of the most confident image, the two most, ... .

    Images of one confidence are answered together or not at all, so that the order of the images
    changes nothing: each has the error rate among all that are at least as confident. The mean is
    AURC, the area under the curve, with the loss 0 or 1 and the confidence in the predicted class
    (Geifman, Uziel and El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", section 2).
    """
    order = np.argsort(-confidences, kind="stable")
    falling = -confidences[order]
    ends = np.searchsorted(falling, falling, side="right")
    errors = np.cumsum(~right[order])
    risks: np.ndarray = errors[ends - 1] / ends
    return risks


def _calibration_error(bins: np.ndarray, confidences: np.ndarray, right: np.ndarray) -> float:
    """The mean over the images of |accuracy - mean confidence| of their bin."""
    gaps = np.bincount(bins, weights=right - confidences, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def of_classes(predicted: np.ndarray, labels: np.ndarray, classes: int) -> Scores:
    """Those that need the predicted classes alone."""
    right = predicted == labels
    images, answers, found = (
        np.bincount(some, minlength=classes) for some in (labels, predicted, labels[right])
    )
    occurs, either = images > 0, images + answers > 0
    recalls = found[occurs] / images[occurs]
    worst = int(recalls.argmin())
    return Scores(
        macro_f1=float(np.mean(2 * found[either] / (images + answers)[either])),
        balanced_accuracy=float(recalls.mean()),
        worst_class_accuracy=float(recalls[worst]),
        worst_class=int(np.flatnonzero(occurs)[worst]),
    )
