"""Corrupted images: pure functions of image and seed, that get worse with their severity."""

import pytest
import torch

from fmbench.config import schema
from fmbench.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupted
from fmbench.data.loader import EvaluationLoader, Normalization
from fmbench.data.synthetic import draw


@pytest.fixture(scope="module")
def images():
    """Twelve drawn garments, (12, 1, 28, 28)."""
    return torch.from_numpy(draw(12, 10, 0)[0])[:, None]


def distances(images, name):
    """The mean distance of the corrupted images, by severity."""
    return [
        float((corrupt(images, name, severity).float() - images.float()).abs().mean())
        for severity in SEVERITIES
    ]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_further_from_the_image(images, name):
    before = images.clone()
    found = distances(images, name)
    assert torch.equal(images, before)
    assert found[0] > 0
    assert found == sorted(found)
    assert found[-1] < 130  # something of it is left


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 3, 32, 20), (2, 1, 8, 8), (1, 3, 64, 64)])
def test_any_size_in_grey_and_colour(name, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    for severity in (1, 5):
        made = corrupt(images, name, severity)
        assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert not torch.equal(made, images)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_depends_on_the_image_and_the_seed_alone(images, name):
    made = corrupt(images, name, 3)
    order = torch.tensor([5, 0, 5])
    assert torch.equal(corrupt(images[order], name, 3), made[order])
    random = name not in ("gaussian_blur", "brightness", "contrast", "pixelate")
    assert torch.equal(corrupt(images, name, 3, seed=1), made) == (not random)


def test_another_image_gets_other_noise(images):
    grey = torch.full((2, 1, 28, 28), 128, dtype=torch.uint8)
    grey[1, 0, 0, 0] = 129
    made = corrupt(grey, "gaussian_noise", 3).float() - grey.float()
    together = torch.corrcoef(made.flatten(1))[0, 1]
    assert abs(together) < 0.15  # five standard errors of 784 pixels


def test_noise_has_the_mean_and_spread_that_it_says():
    grey = torch.full((1, 1, 120, 130), 128, dtype=torch.uint8)
    normal = corrupt(grey, "gaussian_noise", 2).float()
    assert normal.mean() == pytest.approx(128, abs=0.7)
    assert normal.std() == pytest.approx(0.08 * 255, rel=0.03)
    shot = corrupt(grey, "shot_noise", 1).float() * 60 / 255
    assert shot.mean() == pytest.approx(60 * 128 / 255, rel=0.01)
    assert shot.var() == pytest.approx(60 * 128 / 255, rel=0.05)  # as a Poisson number's
    impulse = corrupt(grey, "impulse_noise", 5)
    assert (impulse == 0).float().mean() == pytest.approx(0.1, abs=0.01)
    assert (impulse == 255).float().mean() == pytest.approx(0.1, abs=0.01)
    black = torch.zeros((1, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(corrupt(black, "shot_noise", 5), black)


def test_impulses_and_moves_are_the_same_in_all_channels():
    images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8).expand(-1, 3, -1, -1)
    for name in set(CORRUPTIONS) - {"gaussian_noise", "shot_noise"}:
        made = corrupt(images, name, 4)
        assert torch.equal(made, made[:, :1].expand(-1, 3, -1, -1)), name


def test_a_dot_goes_where_the_map_takes_it():
    dot = torch.zeros((1, 1, 29, 29), dtype=torch.uint8)
    dot[0, 0, 14, 24] = 255  # ten to the right of the middle
    turned = corrupt(dot, "rotate", 4)  # 30 degrees
    row, column = divmod(int(turned.argmax()), 29)
    assert abs(row - 14) == 5
    assert column == 14 + 9  # 10 * cos(30 degrees) = 8.7
    blurred = corrupt(dot, "gaussian_blur", 3).float()
    assert blurred.sum() == pytest.approx(255, rel=0.1)
    moved = corrupt(dot, "translate", 5)
    row, column = divmod(int(moved.argmax()), 29)
    away = ((row - 14) ** 2 + (column - 24) ** 2) ** 0.5
    assert away == pytest.approx(6 * 29 / 28, abs=1)


def test_a_loader_gives_what_corrupt_does_at_any_batch_size(images):
    labels = torch.arange(12)
    plain = Normalization(0.0, 1.0)
    whole, parts = (
        torch.cat([batch for batch, _ in corrupted(
            EvaluationLoader(images, labels, normalization=plain, batch_size=size), "scale", 4
        )])
        for size in (12, 5)
    )  # fmt: skip
    assert torch.equal(whole, parts)
    assert torch.equal(plain.undo(whole), corrupt(images, "scale", 4))


def test_the_values_are_those_of_version_1(images):
    """A change of a pixel is another version: figures would not compare."""
    sums = [int(corrupt(images, name, 3).long().sum()) for name in CORRUPTIONS]
    assert sums == [
        416697,
        348160,
        406721,
        349627,
        349961,
        348892,
        345468,
        331924,
        344146,
        341529,
        1059524,
        349814,
        349117,
        664180,
    ]


def test_the_names_that_a_config_takes():
    assert tuple(CORRUPTIONS) == schema.CORRUPTIONS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_gpu_differs_by_one_grey_level_at_most(images, name):
    for severity in SEVERITIES:
        there = corrupt(images.cuda(), name, severity).cpu().int()
        assert (there - corrupt(images, name, severity).int()).abs().max() <= 1
