"""The synthetic garments: the same bits everywhere, all classes, and a worthwhile task."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from fmbench.core.errors import ConfigError
from fmbench.data import synthetic


def digest(arrays):
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(array.tobytes())
    return whole.hexdigest()


def test_shapes_and_types():
    train_images, train_labels, test_images, test_labels = synthetic.draw(1_234, 56, seed=0)
    assert train_images.shape == (1_234, 28, 28)
    assert train_labels.shape == (1_234,)
    assert test_images.shape == (56, 28, 28)
    assert test_labels.shape == (56,)
    assert {array.dtype for array in (train_images, train_labels, test_labels)} == {
        np.dtype(np.uint8)
    }
    assert train_images.min() == 0
    assert train_images.max() == 255


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


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def accuracy(build, arrays, epochs, lr):
    images, labels, test_images, test_labels = map(torch.from_numpy, arrays)
    images, test_images = ((pixels[:, None] / 255 - 0.2) / 0.3 for pixels in (images, test_images))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), lr)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch].long())
                loss.backward()
                optimizer.step()
    with torch.inference_mode():
        return (model(test_images).argmax(dim=1) == test_labels).float().mean().item()


@pytest.fixture
def _one_thread():
    # On a busy machine threads that wait for each other cost ten times what they save here.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_lenet_beats_a_linear_model_and_nothing_is_perfect():
    arrays = synthetic.draw(6_000, 1_000, seed=0)
    straight = accuracy(linear, arrays, epochs=3, lr=1e-3)
    curved = accuracy(lenet, arrays, epochs=3, lr=2e-3)
    assert 0.65 < straight < 0.85
    assert straight + 0.05 < curved < 0.97
