"""The three protocols divide the images as published, and every part has every class."""

import numpy as np
import pytest

from fmbench.core.errors import ConfigError
from fmbench.data.dataset import Dataset
from fmbench.data.splits import Split, make_split

CLASSES = tuple(f"class {label}" for label in range(10))


def dataset(train_labels, test_labels):
    labels = np.array([*train_labels, *test_labels], dtype=np.uint8)
    images = np.zeros((len(labels), 1, 1, 1), dtype=np.uint8)
    return Dataset("synthetic", CLASSES, images, labels, len(train_labels), 0, "0" * 64)


def balanced(train_size, test_size):
    rng = np.random.default_rng(5)
    train, test = (rng.permutation(np.arange(size) % 10) for size in (train_size, test_size))
    return dataset(train, test)


@pytest.fixture(scope="module")
def full_size():
    return balanced(60_000, 10_000)


def config(name, validation=None, seed=0):
    return {"split": {"name": name, "validation": validation, "seed": seed}}


@pytest.mark.parametrize(("name", "validation", "sizes"), [
    ("standard", None, (60_000, 0, 10_000)),
    ("standard", 0, (60_000, 0, 10_000)),
    ("standard", 5_000, (55_000, 5_000, 10_000)),
    ("holdout", None, (54_000, 6_000, 10_000)),
    ("holdout", 1_000, (59_000, 1_000, 10_000)),
    ("holdout", 0, (60_000, 0, 10_000)),
    ("custom", None, (30_000, 0, 40_000)),
    ("custom", 0, (30_000, 0, 40_000)),
    ("custom", 3_000, (27_000, 3_000, 40_000)),
])  # fmt: skip
def test_published_sizes(full_size, name, validation, sizes):
    split = make_split(full_size, config(name, validation))
    parts = (split.train, split.validation, split.test)
    assert tuple(map(len, parts)) == sizes
    assert all(part.dtype == np.int64 and not part.flags.writeable for part in parts)
    assert split.name == name
    everything = np.sort(np.concatenate(parts))
    np.testing.assert_array_equal(everything, np.arange(70_000))  # disjoint, none forgotten


def test_standard_keeps_the_official_order(full_size):
    split = make_split(full_size, config("standard"))
    np.testing.assert_array_equal(split.train, np.arange(60_000))
    np.testing.assert_array_equal(split.test, np.arange(60_000, 70_000))


def test_custom_tests_on_the_official_test_set_then_the_other_half(full_size):
    split = make_split(full_size, config("custom"))
    np.testing.assert_array_equal(split.train, np.arange(30_000))
    np.testing.assert_array_equal(split.test[:10_000], np.arange(60_000, 70_000))
    np.testing.assert_array_equal(split.test[10_000:], np.arange(30_000, 60_000))


@pytest.mark.parametrize("name", ["standard", "holdout", "custom"])
def test_validation_comes_from_the_training_part_only(name):
    data = balanced(1_000, 200)
    whole, carved = make_split(data, config(name, 0)), make_split(data, config(name, 70))
    np.testing.assert_array_equal(whole.test, carved.test)
    rest = whole.train[~np.isin(whole.train, carved.validation)]
    np.testing.assert_array_equal(carved.train, rest)  # the order stays
    assert set(carved.validation) <= set(whole.train)


def test_validation_is_stratified_by_largest_remainder():
    counts = [7, 22, 9, 11, 6, 8, 9, 8, 12, 8]
    # A fifth: 1.4 4.4 1.8 2.2 1.2 1.6 1.8 1.6 2.4 1.6. The floors sum to 15, so the five largest
    # remainders get one more.
    expected = [1, 4, 2, 2, 1, 2, 2, 2, 2, 2]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), counts))
    split = make_split(dataset(labels, range(10)), config("standard", 20, seed=3))
    assert np.bincount(labels[split.validation], minlength=10).tolist() == expected


def test_seed_decides_the_draw():
    data = balanced(1_000, 200)
    first, again, other = (make_split(data, config("holdout", None, seed)) for seed in (1, 1, 2))
    assert first.hash == again.hash
    assert first.hash != other.hash
    assert not np.array_equal(first.validation, other.validation)


def test_draw_is_the_same_on_every_machine(full_size):
    # Published records name this hash: a change means that old and new runs do not compare.
    assert make_split(full_size, config("holdout")).hash.startswith("1c6e958f382a905f")


def test_hash_is_about_images_not_names():
    parts = [np.arange(5), np.arange(5, 7), np.arange(7, 9)]
    split = Split("standard", *parts)
    assert split.hash == Split("custom", *parts).hash
    assert len(split.hash) == 64
    moved = [np.arange(6), np.arange(6, 7), np.arange(7, 9)]
    assert split.hash != Split("standard", *moved).hash
    swapped = [parts[0], parts[2], parts[1]]
    assert split.hash != Split("standard", *swapped).hash


@pytest.mark.parametrize(("settings", "said"), [
    (config("costum"), "standard, holdout, custom"),
    (config("standard", -1), "allowed are 0 to 999"),
    (config("standard", 1_000), "allowed are 0 to 999"),
    (config("custom", 500), "allowed are 0 to 499"),
    (config("holdout", 60_000), "allowed are 0 to 999"),
    (config("holdout", None, -1), "data.split.seed=-1"),
    (config("standard", 9), "validation part of 9 images has none of class class"),
    (config("standard", 991), "training part of 9 images has none of class class"),
])  # fmt: skip
def test_refuses_in_one_line(settings, said):
    with pytest.raises(ConfigError) as caught:
        make_split(balanced(1_000, 200), settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("train", "test", "name", "said"), [
    # The first half holds classes 0 to 4 only.
    (np.sort(np.arange(100) % 10), range(10), "custom", "training part of 50 images has none of"),
    (np.arange(100) % 10, range(9), "standard", "test part of 9 images has none of class class 9"),
])  # fmt: skip
def test_refuses_a_part_without_a_class(train, test, name, said):
    with pytest.raises(ConfigError, match=said):
        make_split(dataset(train, test), config(name))


def test_odd_and_small_sets_scale():
    split = make_split(balanced(101, 30), config("custom"))
    assert (len(split.train), len(split.test)) == (50, 81)
    split = make_split(balanced(105, 30), config("holdout"))
    assert (len(split.train), len(split.validation)) == (95, 10)
