"""Operations on pixels beside torchvision's, image by image with the same numbers."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomAffine, TrivialAugmentWide
from torchvision.transforms.v2 import functional as reference

from fmbench.config.augmentation import Affine, TrivialAugment
from fmbench.data import operations
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import generator

COUNT = 60


@pytest.fixture(params=[(1, 28, 28), (3, 20, 32)], ids=str)
def pixels(request):
    found = torch.randint(0, 256, (COUNT, *request.param), dtype=torch.uint8, generator=seeded())
    found[0] = 7  # one value alone
    found[1] //= 8  # dark
    found[2, :, 3:] = 255
    return found


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def uniform(low, high, seed=1):
    return torch.empty(COUNT).uniform_(low, high, generator=seeded(seed))


def assert_within_one(ours, theirs, share=0.0):
    """No pixel differs by more than 1 of 255, and at most a share of them at all."""
    difference = (ours.int() - theirs.int()).abs()
    assert ours.dtype == torch.uint8
    assert difference.max() <= 1
    assert (difference > 0).double().mean() <= share


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("shear", [0, 50])
def test_affine_maps_are_those_of_torchvision(pixels, mode, shear):
    angle, scale = uniform(-180, 180), uniform(0.5, 2, 2)
    across, down = uniform(-9, 9, 3).round(), uniform(-9, 9, 4).round()
    shears = uniform(-shear, shear, 5), uniform(-shear, shear, 6)
    matrices = operations.inverse_affine(angle, (across, down), scale, shears)
    theirs = [
        reference.affine(
            image,
            angle=numbers[0],
            translate=numbers[1:3],
            scale=numbers[3],
            shear=numbers[4:],
            interpolation=InterpolationMode(mode),
        )
        for image, numbers in zip(
            pixels, torch.stack([angle, across, down, scale, *shears], dim=1).tolist(), strict=True
        )
    ]
    # Where a sum of floats is a hair off, a grey or a place is rounded to the other side.
    ours, theirs = operations.warp(pixels, matrices, mode), torch.stack(theirs)
    assert ((ours != theirs).double().mean()) < 0.001
    if mode == "bilinear":
        assert_within_one(ours, theirs, 0.001)


def test_a_group_of_images_is_warped_as_each_is(pixels, monkeypatch):
    angle, none, one = uniform(-90, 90), torch.zeros(COUNT), torch.ones(COUNT)
    matrices = operations.inverse_affine(angle, (none, none), one, (none, none))
    whole = operations.warp(pixels, matrices, "bilinear")
    monkeypatch.setattr(operations, "IN_CACHE", 7)
    assert torch.equal(operations.warp(pixels, matrices, "bilinear"), whole)


def test_a_gpu_gets_the_images_that_a_processor_gets(pixels, monkeypatch):
    """It does each operation to all images and chooses, which is tried on a processor here."""
    parts = Augmentation(trivial_augment=TrivialAugment())
    draws = parts.draw(COUNT, tuple(pixels.shape[2:]), generator(0, 0, 1))
    numbers = [draws[name] for name in ("operation", "strength", "matrix")]
    by_groups = operations.trivial(pixels, *numbers)
    assert torch.equal(operations._of_all(pixels, *numbers), by_groups)


FACTOR = (0.01, 1.99)

#: torchvision's function for each, and the least and greatest of its numbers.
REFERENCES = {
    "brightness": (reference.adjust_brightness, *FACTOR),
    "color": (reference.adjust_saturation, *FACTOR),
    "contrast": (reference.adjust_contrast, *FACTOR),
    "sharpness": (reference.adjust_sharpness, *FACTOR),
    "posterize": (lambda image, bits: reference.posterize(image, int(bits)), 2, 8),
    "solarize": (reference.solarize, 0, 255),
    "autocontrast": (lambda image, _: reference.autocontrast(image), 0, 0),
    "equalize": (lambda image, _: reference.equalize(image), 0, 0),
}


@pytest.mark.parametrize("name", operations.POINTWISE)
def test_operations_are_those_of_torchvision(pixels, name):
    theirs, low, high = REFERENCES[name]
    numbers = uniform(low, high).round() if name == "posterize" else uniform(low, high)
    expected = torch.stack([theirs(*one) for one in zip(pixels, numbers.tolist(), strict=True)])
    # torchvision adds a part of a difference, where a sum of two parts is as long.
    share = {"sharpness": 0.02, "color": 0.001}.get(name, 0)
    assert_within_one(operations.POINTWISE[name](pixels, numbers), expected, share)


def test_the_space_is_that_of_torchvision():
    theirs = TrivialAugmentWide._AUGMENTATION_SPACE
    ours = dict(zip(operations.DRAWN, operations.strengths(31, 32), strict=True))
    assert {name.lower().replace("_", "") for name in ours} == {name.lower() for name in theirs}
    for name, strengths in ours.items():
        (makes, signed) = next(
            value for key, value in theirs.items() if key.lower() == name.replace("_", "")
        )
        expected = makes(31, 28, 28)
        if expected is None:
            assert not strengths.any()
            continue
        assert operations.SIGNED[operations.DRAWN.index(name)] == signed
        expected = expected * 255 if name == "solarize" else expected.float()
        if name.startswith("translate"):  # torchvision cuts when it applies it
            expected = expected.trunc()
        assert torch.equal(strengths, expected), name


def test_trivial_augment_applies_to_each_image_what_torchvision_does(pixels):
    parts = Augmentation(trivial_augment=TrivialAugment())
    draws = parts.draw(COUNT, tuple(pixels.shape[2:]), generator(0, 0, 1))
    assert len(draws["operation"].unique()) > 10
    names = {name.lower(): name for name in TrivialAugmentWide._AUGMENTATION_SPACE}
    theirs = TrivialAugmentWide()
    expected = []
    for image, place, strength in zip(pixels, draws["operation"], draws["strength"], strict=True):
        name = names[operations.DRAWN[place].replace("_", "")]
        magnitude = float(strength) - float(operations.FACTORS[place])
        magnitude = magnitude / 255 if name == "Solarize" else magnitude
        expected.append(
            theirs._apply_image_or_video_transform(
                image, name, magnitude, InterpolationMode.NEAREST, {}
            )
        )
    ids = torch.arange(COUNT)
    assert_within_one(parts.recolour(pixels, draws, ids), torch.stack(expected), 0.005)


def test_all_operations_strengths_and_signs_are_drawn_alike():
    count = 14 * 31 * 200
    draws = Augmentation(trivial_augment=TrivialAugment()).draw(count, (28, 28), generator(0, 0, 1))
    counts = draws["operation"].bincount(minlength=14).double()
    assert ((counts - count / 14).abs() < 5 * (count / 14) ** 0.5).all()
    for name in ("shear_x", "rotate", "solarize", "posterize", "brightness"):
        strength = draws["strength"][draws["operation"] == operations.DRAWN.index(name)]
        values, found = strength.unique(return_counts=True)
        assert len(values) == {"solarize": 31, "posterize": 7}.get(name, 61)
        if name not in ("solarize", "posterize"):
            middle = len(values) // 2
            assert values[middle] == (name == "brightness")
            # 0 is drawn as often as both signs of another strength.
            assert found[middle] > 1.5 * found.double().mean()


def test_affine_numbers_are_drawn_as_torchvision_does():
    """Their bounds, and the share of shifts that are 0, by the matrices."""
    part = Affine(30, 0.1, [0.8, 1.25], 10)
    matrices = Augmentation(affine=part).draw(50_000, (20, 32), generator(0, 0, 1))["affine"]
    a, b, _, d, e, _ = matrices.double().unbind(1)
    scale = (a * e - b * d).rsqrt()
    assert 0.8 <= scale.min() < 0.801
    assert 1.249 < scale.max() <= 1.2501
    theirs = RandomAffine(30, (0.1, 0.1), (0.8, 1.25), (-10, 10, -10, 10))
    image = torch.zeros(1, 20, 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [theirs.make_params([image]) for _ in range(2000)]
    forward = torch.linalg.inv(torch.stack([matrices[:, :2], matrices[:, 3:5]], 1).double())
    moved = matrices[:, [2, 5]].double()
    shift = -(forward @ moved[:, :, None])[:, :, 0]  # to the right and down
    torch.testing.assert_close(shift, shift.round(), atol=1e-4, rtol=0)
    for axis, most in ((0, 3), (1, 2)):
        ours = shift[:, axis].round()
        assert (ours.min(), ours.max()) == (-most, most)
        other = torch.tensor([one["translate"][axis] for one in drawn])
        assert (other.abs().max()) == most
        for value in range(-most, most + 1):
            ours_share, their_share = ((one == value).double().mean() for one in (ours, other))
            assert abs(ours_share - their_share) < 0.05
