"""The synthetic garments: the same bits everywhere, all classes, and a worthwhile task."""

import hashlib

import numpy as np
import pytest

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
