import pytest
import torch
from commands import compose, raises_one_line
from torchvision.transforms.v2 import functional as reference

from fmbench.augment import Augmentation, Crop, Cutout, Erasing, Flip
from fmbench.errors import ConfigError
from fmbench.loader import Normalization, TrainLoader, generator


@pytest.fixture
def images():
    return torch.randint(
        0, 256, (300, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def through_loader(images, augmentation, batch_size=64, epoch=0):
    """Every image as the loader gives it, back in the order of the set; pixels as floats."""
    loader = TrainLoader(
        images,
        torch.arange(len(images)),
        batch_size=batch_size,
        seed=3,
        augmentation=augmentation,
        normalization=Normalization(mean=0.0, std=1 / 255),
    )
    batches = list(loader.epoch(epoch))
    out = torch.cat([batch for batch, _ in batches])
    order = torch.cat([labels for _, labels in batches])
    return out[order.argsort()].squeeze(1)


def draws_of(augmentation, count, epoch=0):
    return augmentation.draw(count, generator(3, epoch, 1))


def test_crop_and_flip_match_torchvision_image_by_image(images):
    augmentation = Augmentation(crop=Crop(4), flip=Flip(0.5))
    draws = draws_of(augmentation, len(images))
    result = through_loader(images, augmentation)
    for index, image in enumerate(images):
        expected = reference.pad(image[None], [4])
        expected = reference.crop(
            expected, int(draws["crop_top"][index]), int(draws["crop_left"][index]), 28, 28
        )
        if draws["flip"][index]:
            expected = reference.horizontal_flip(expected)
        assert torch.equal(result[index], expected[0].float()), index


@pytest.mark.parametrize(
    ("name", "part"),
    [("cutout", Cutout(16)), ("cutout", Cutout(7, inside=True)), ("erasing", Erasing(1.0))],
)
def test_rectangles_match_torchvision_image_by_image(images, name, part):
    augmentation = Augmentation(**{name: part})
    rectangles = draws_of(augmentation, len(images))[name]
    result = through_loader(images, augmentation)
    for index, (top, bottom, left, right) in enumerate(rectangles.clamp(0, 28).tolist()):
        expected = reference.erase(
            images[index][None].float(), top, left, bottom - top, right - left, torch.tensor(0.0)
        )
        assert torch.equal(result[index], expected[0]), index


def test_each_image_has_its_own_draw_and_all_places_are_as_likely():
    draws = Crop(4).draw(90_000, generator(0, 0, 1))
    for side in draws.values():
        counts = side.bincount(minlength=9)
        assert len(counts) == 9
        # Five standard deviations of a binomial with p = 1/9.
        assert (counts - 10_000).abs().max() < 5 * (90_000 * 8 / 81) ** 0.5
    pairs = draws["crop_top"] * 9 + draws["crop_left"]
    assert (pairs.bincount(minlength=81) - 90_000 / 81).abs().max() < 5 * (90_000 / 81) ** 0.5


def test_flip_and_cutout_probabilities():
    flipped = Flip(0.3).draw(50_000, generator(0, 0, 1))["flip"].float().mean()
    assert flipped.item() == pytest.approx(0.3, abs=0.011)
    top, bottom, *_ = Cutout(8, probability=0.25).draw(50_000, generator(0, 0, 1))["cutout"].T
    assert (bottom > top).float().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("size", [1, 7, 16, 28])
def test_cutout_inside_stays_inside_and_outside_is_centred_anywhere(size):
    inside = Cutout(size, inside=True).draw(20_000, generator(0, 0, 1))["cutout"]
    assert inside.min() == 0
    assert inside.max() == 28
    outside = Cutout(size).draw(20_000, generator(0, 0, 1))["cutout"]
    assert (outside[:, 1] - outside[:, 0] == size).all()
    assert outside[:, 0].min() == -(size // 2)
    assert outside[:, 1].max() == 28 + size // 2


def test_erasing_has_the_areas_and_shapes_of_the_paper():
    top, bottom, left, right = Erasing(1.0).draw(20_000, generator(0, 0, 1))["erasing"].T
    height, width = (bottom - top).double(), (right - left).double()
    area = height * width / 28**2
    assert top.min() >= 0
    assert bottom.max() <= 28
    assert left.min() >= 0
    assert right.max() <= 28
    assert (height > 0).all()
    assert area.min() > 0.01
    assert area.max() < 0.36
    # Uniform area between 0.02 and 0.33; tall and wide shapes alike.
    assert area.mean().item() == pytest.approx(0.175, abs=0.01)
    assert (height > width).double().mean().item() == pytest.approx(0.5, abs=0.03)
    never = Erasing(0.0).draw(100, generator(0, 0, 1))["erasing"]
    assert (never[:, 0] == never[:, 1]).all()


@pytest.mark.parametrize("option", ["crop_flip", "crop_flip_cutout", "crop_flip_erasing"])
def test_batch_size_changes_nothing_and_epochs_differ(images, option):
    augmentation = Augmentation.from_config(compose(f"augmentation={option}")["augmentation"])
    small = through_loader(images, augmentation, batch_size=7)
    assert torch.equal(small, through_loader(images, augmentation, batch_size=300))
    assert not torch.equal(small, through_loader(images, augmentation, epoch=1))


def test_no_parts_leave_the_images_as_they_are(images):
    assert torch.equal(through_loader(images, Augmentation()), images.float())


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"crop": {"padding": 0}}, ["crop.padding=0"]),
        ({"crop": {"padding": 29}}, ["crop.padding=29", "28"]),
        ({"flip": {"probability": 1.5}}, ["flip.probability=1.5"]),
        ({"cutout": {"size": 40}}, ["cutout.size=40"]),
        ({"cutout": {"probability": -1}}, ["cutout.probability=-1"]),
        ({"erasing": {"scale": [0.5, 0.1]}}, ["erasing.scale"]),
        ({"erasing": {"ratio": [0, 1]}}, ["erasing.ratio"]),
        ({"blur": {}}, ["augmentation.blur", "cutout"]),
        ({"crop": {"pad": 4}}, ["augmentation.crop", "pad"]),
    ],
)
def test_refuses(config, parts):
    raises_one_line(lambda: Augmentation.from_config(config), ConfigError, *parts)
