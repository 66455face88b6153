"""The synthetic garments: the same bits everywhere, all classes, and a worthwhile task."""

import hashlib

import numpy as np
import pytest
from commands import TINY

import fmbench
from fmbench.core.errors import ConfigError
from fmbench.data import synthetic


def digest(arrays):
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(array.tobytes())
    return whole.hexdigest()


def test_same_seed_same_bits_on_every_machine():
    # Records name the digest of this set: a change means that old and new runs do not compare.
    assert digest(synthetic.draw(600, 100, seed=0)).startswith("72173e63bc533953")


def test_seeds_and_the_two_sets_differ():
    first, second = synthetic.draw(600, 600, seed=0), synthetic.draw(600, 600, seed=1)
    images = [first[0], first[2], second[0], second[2]]
    rows = np.concatenate(images).reshape(2_400, -1)
    assert len(np.unique(rows, axis=0)) == 2_400


def test_an_image_does_not_depend_on_the_size_of_its_set():
    small, large = synthetic.draw(510, 10, seed=4), synthetic.draw(1_700, 600, seed=4)
    for part, whole in zip(small, large, strict=True):
        np.testing.assert_array_equal(part, whole[: len(part)])


@pytest.mark.parametrize("size", [10, 11, 999, 1_000])
def test_classes_are_balanced_and_shuffled(size):
    labels = synthetic.draw(size, 10, seed=0)[1]
    counts = np.bincount(labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert not np.array_equal(labels[:10], np.arange(10))
    if size >= 999:
        assert not np.array_equal(labels[:10], labels[10:20])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [((9, 10, 0), "train_size=9"), ((10, 9, 0), "test_size=9"), ((10, 10, -1), "seed=-1")],
)
def test_refuses_sizes_without_every_class(sizes, said):
    with pytest.raises(ConfigError, match=said):
        synthetic.draw(*sizes)


def test_silhouettes_are_those_of_their_class():
    images, labels, _, _ = synthetic.draw(4_000, 10, seed=0)
    mean = {
        name: images[labels == label].mean(axis=0) for label, name in enumerate(synthetic.CLASSES)
    }
    between_the_legs = mean["Trouser"][22, 13:15].mean()
    assert between_the_legs < 0.85 * mean["Trouser"][22, 9:12].mean()
    hands = np.s_[18:22, [4, 5, 22, 23]]
    assert mean["Pullover"][hands].mean() > 2 * mean["T-shirt/top"][hands].mean()
    shaft = np.s_[6:11, 16:22]
    assert mean["Ankle boot"][shaft].mean() > 2 * mean["Sneaker"][shaft].mean()
    hem, chest = np.s_[23, 7:21], np.s_[8, 7:21]
    assert mean["Dress"][hem].mean() > mean["Dress"][chest].mean()
    for shoe in ("Sandal", "Sneaker", "Ankle boot"):  # the toe is on the left, the heel higher
        assert mean[shoe][14, 18:24].mean() > mean[shoe][14, 4:10].mean()


@pytest.mark.slow
def test_lenet_beats_a_linear_model_and_nothing_is_perfect(tmp_path):
    images, labels, test_images, test_labels = synthetic.draw(6_000, 1_000, seed=0)
    pixels, test_pixels = (some.reshape(-1, 784) / 255 - 0.2 for some in (images, test_images))
    weights = np.linalg.solve(pixels.T @ pixels + 100 * np.eye(784), pixels.T @ np.eye(10)[labels])
    linear = ((test_pixels @ weights).argmax(1) == test_labels).mean()
    sizes = ["data.train_size=6000", "data.test_size=1000", "batch_size=64", "epochs=3"]
    trained = fmbench.run(
        [*TINY, *sizes, "optimizer=adam", "optimizer.lr=0.002", f"hydra.run.dir={tmp_path}"]
    )
    assert 0.65 < linear < 0.85
    assert linear + 0.05 < trained.test_accuracy < 0.97
