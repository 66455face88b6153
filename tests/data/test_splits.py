"""The three protocols divide the images as published, and every part has every class."""

from dataclasses import replace

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


# Folds and fewer images


def folds(data, role="validation", count=5, seed=0, **changes):
    split = {"name": "kfold", "folds": count, "role": role, "validation": 0, "seed": seed}
    return [make_split(data, {"split": split | {"fold": fold}, **changes}) for fold in range(count)]


def test_each_image_is_held_out_once_and_the_test_set_stays():
    data = balanced(1_003, 200)
    made = folds(data)
    held_out = np.concatenate([split.validation for split in made])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(1_003))
    for split in made:
        np.testing.assert_array_equal(split.test, np.arange(1_003, 1_203))
        assert len(split.train) + len(split.validation) == 1_003
        counts = np.bincount(data.labels[split.validation], minlength=10)
        assert counts.max() - counts.min() <= 2  # stratified
        assert 200 <= len(split.validation) <= 201
    assert len({split.hash for split in made}) == 5
    assert len({split.folds for split in made}) == 1  # what their row is known by
    assert folds(data, seed=1)[0].folds != made[0].folds
    assert make_split(data, config("standard")).folds is None


def test_folds_of_fewer_images_are_another_row():
    data = balanced(1_000, 200)
    rows = [folds(data, limit=limit)[0].folds for limit in (None, 100, 200)]
    assert len({*rows, folds(data, limit_test=100)[0].folds}) == 4


def test_a_fold_tests_only_where_there_is_no_test_part():
    data = balanced(300, 60)
    with pytest.raises(ConfigError, match="has a test part of its own"):
        folds(data, role="test")
    made = folds(replace(data, set_aside=True), role="test")
    tested = np.concatenate([split.test for split in made])
    np.testing.assert_array_equal(np.sort(tested), np.arange(360))
    assert all(len(split.validation) == 0 for split in made)


@pytest.mark.parametrize(("changes", "said"), [
    ({"folds": 1}, "data.split.folds=1: allowed are 2 to 100"),
    ({"folds": 101}, "data.split.folds=101"),
    ({"fold": 5}, "data.split.fold=5: allowed are 0 to 4"),
    ({"fold": -1}, "data.split.fold=-1"),
    ({"role": "train"}, "data.split.role=train: must be one of validation, test"),
])  # fmt: skip
def test_folds_that_cannot_be(changes, said):
    split = {"name": "kfold", "folds": 5, "fold": 0, "role": "validation", "seed": 0}
    with pytest.raises(ConfigError, match=said):
        make_split(balanced(1_000, 200), {"split": split | {"validation": 0} | changes})


def test_smaller_limits_are_parts_of_larger_ones_in_proportion():
    data = dataset(np.repeat(np.arange(10), np.arange(20, 120, 10)), np.arange(200) % 10)
    whole = make_split(data, config("holdout", seed=3))
    seen = np.array([], dtype=np.int64)
    for limit in (10, 11, 30, 100, 250, len(whole.train)):
        split = make_split(data, config("holdout", seed=3) | {"limit": limit, "limit_test": 50})
        assert len(split.train) == limit
        assert set(seen) <= set(split.train) <= set(whole.train)
        np.testing.assert_array_equal(split.validation, whole.validation)
        assert len(split.test) == 50
        assert np.bincount(data.labels[split.test]).tolist() == [5] * 10
        shares = np.bincount(data.labels[split.train]) / np.bincount(data.labels[whole.train])
        if limit >= 100:
            assert np.ptp(shares) < 12 / limit
        seen = split.train
    np.testing.assert_array_equal(seen, whole.train)
    other = make_split(data, config("holdout", seed=4) | {"limit": 100})
    assert set(other.train) != set(
        make_split(data, config("holdout", seed=3) | {"limit": 100}).train
    )


@pytest.mark.parametrize(("key", "limit"), [("limit", 9), ("limit", 1_001), ("limit_test", 201)])
def test_limits_that_cannot_be(key, limit):
    with pytest.raises(ConfigError, match=f"data.{key}={limit}: allowed are 10, one a class, to "):
        make_split(balanced(1_000, 200), config("standard") | {key: limit})


def test_an_official_validation_part_is_used():
    data = replace(balanced(1_000, 200), train=900, validation=100)
    for given in (None, 0):
        split = make_split(data, config("standard", given))
        np.testing.assert_array_equal(split.validation, np.arange(900, 1_000))
        np.testing.assert_array_equal(split.test, np.arange(1_000, 1_200))
    with pytest.raises(ConfigError, match="has an official validation part"):
        make_split(data, config("standard", 50))


def test_the_custom_split_is_of_the_sets_that_published_it():
    with pytest.raises(ConfigError, match=r"data.split=custom: is a protocol of fashion_mnist"):
        make_split(replace(balanced(1_000, 200), name="folder x"), config("custom"))
