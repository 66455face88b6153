"""Augmentation: exact against slow references for given draws, and the draws by statistics.

All seeds are fixed, so the statistics are what they are: a test that passes, passes always. Their
bounds are five standard deviations, or what they should exceed once in a thousand.
"""

import itertools
import math
from unittest import mock

import pytest
import torch
from commands import CHECKOUT, compose, raises_one_line
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms import RandomErasing
from torchvision.transforms.v2 import functional as reference

from fmbench.config.augmentation import (
    AlternatingFlip,
    Crop,
    CutMix,
    Cutout,
    Erasing,
    Flip,
    Mixup,
    Parts,
)
from fmbench.core.errors import ConfigError
from fmbench.data import operations
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import Normalization, TrainLoader, generator

OPTIONS = sorted(path.stem for path in (CHECKOUT / "conf" / "augmentation").glob("*.yaml"))

#: Of an image.
SIZE = 28, 28

#: Every option as it is, and what no option has.
AUGMENTATIONS = {
    **{option: (f"augmentation={option}",) for option in OPTIONS},
    "all parts": ("augmentation=crop_flip_cutout", "augmentation.erasing={probability: 0.7}"),
    "odd and inside": ("augmentation.cutout={size: 7, inside: true, probability: 0.5}",),
    "a large crop": ("augmentation.crop={padding: 28}", "augmentation.flip={probability: 1}"),
    "both mix": (
        "augmentation=crop_flip_cutout",
        "augmentation.mixup={}",
        "augmentation.cutmix={probability: 1}",
        "augmentation.affine={}",
        "augmentation.trivial_augment={}",
    ),
}


@pytest.fixture(params=AUGMENTATIONS, scope="module")
def augmentation(request):
    return Augmentation.from_config(compose(*AUGMENTATIONS[request.param])["augmentation"])


@pytest.fixture
def images():
    return torch.randint(
        0, 256, (300, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


#: Leaves whole numbers: what was pixel 64 is 0, and black is -64, so that no two steps that could
#: change places give the same.
MEAN = 64
WHOLE_NUMBERS = Normalization(mean=MEAN / 255, std=1 / 255)


def through_loader(images, augmentation, batch_size=64, epoch=0, memory=None):
    """Every image as the loader gives it, back in the order of the set; pixels as floats."""
    loader = TrainLoader(
        images,
        torch.arange(len(images)),
        batch_size=batch_size,
        seed=3,
        augmentation=augmentation,
        normalization=WHOLE_NUMBERS,
        classes=len(images),
        memory=memory,
    )
    out = torch.cat([batch for batch, _ in loader.epoch(epoch)])
    order = torch.cat([ids for ids, *_ in loader.chunks(epoch)])
    return out[order.argsort()].squeeze(1)


def test_images_are_the_same_where_no_copy_of_them_is_kept(images, augmentation):
    kept = through_loader(images, augmentation)
    assert torch.equal(through_loader(images, augmentation, memory=1), kept)


def drawn(augmentation, count, epoch=0):
    """What the loader above draws."""
    first, lasting = generator(3, epoch, 1), generator(3, 0, 2)
    return augmentation.draw(count, SIZE, first, epoch=epoch, lasting=lasting)


def unmixed(augmentation):
    """The same without what is done last; what is drawn for it is drawn last too."""
    return Augmentation(**{**vars(augmentation.parts), "mixup": None, "cutmix": None})


def rectangles(part, count):
    """The draws of Cutout or erasing alone: top, bottom, left, right."""
    (drawn,) = Augmentation(**part).draw(count, SIZE, generator(0, 0, 1)).values()
    return drawn.T


# --- what is done with given draws ------------------------------------------------------------


def by_torchvision(image, draws, padding):
    """One (1, 28, 28) uint8 image through torchvision's functions, with its own numbers."""
    out = image
    if "crop_top" in draws:
        out = reference.pad(out, [padding])
        out = reference.crop(out, int(draws["crop_top"]), int(draws["crop_left"]), 28, 28)
    if draws.get("flip"):
        out = reference.horizontal_flip(out)
    # These are held to torchvision in test_operations.py.
    if "affine" in draws:
        out = operations.warp(out[None], draws["affine"][None], "bilinear")[0]
    if "operation" in draws:
        numbers = (draws[name][None] for name in ("operation", "strength", "matrix"))
        out = operations.trivial(out[None], *numbers)[0]
    out = reference.normalize(out.float(), [float(MEAN)], [1.0])
    for name in ("cutout", "erasing"):
        if name in draws:
            top, bottom, left, right = draws[name].clamp(0, 28).tolist()
            blank = torch.tensor(0.0)
            out = reference.erase(out, top, left, bottom - top, right - left, blank)
    return out[0]


def test_each_image_goes_through_what_torchvision_does_with_its_draws(images, augmentation):
    draws = drawn(augmentation, len(images))
    result = through_loader(images, unmixed(augmentation))
    for index, image in enumerate(images):
        own = {name: drawn[index] for name, drawn in draws.items()}
        expected = by_torchvision(image, own, augmentation.padding)
        assert torch.equal(result[index], expected), index


def cutout_of_the_paper(image, row, column, size):
    """DeVries and Taylor, section 3.2: a zero mask around a centre; what is outside is lost."""
    centres = torch.arange(28) + 0.5
    rows, columns = ((centres - middle).abs() < size / 2 for middle in (row, column))
    return image.masked_fill(rows[:, None] & columns, 0)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("size", [1, 7, 16, 28])
def test_cutout_is_that_of_the_paper_image_by_image(images, size, inside):
    augmentation = Augmentation(cutout=Cutout(size, probability=0.8, inside=inside))
    images = images[:40]
    drawn = augmentation.draw(40, SIZE, generator(3, 0, 1))["cutout"]
    for image, result, (top, bottom, left, _) in zip(
        images[:, 0].float() - MEAN, through_loader(images, augmentation), drawn, strict=True
    ):
        # The centre, in pixels from the edge: whole for an even square, a half more for an odd one.
        cut = cutout_of_the_paper(image, top + size / 2, left + size / 2, size)
        assert torch.equal(result, cut if bottom > top else image)
    assert 20 < (drawn[:, 1] > drawn[:, 0]).sum() < 40


def test_batch_size_changes_nothing_and_epochs_differ(images, augmentation):
    small = through_loader(images, augmentation, batch_size=7)
    assert torch.equal(small, through_loader(images, augmentation, batch_size=300))
    # With a padding of 28 an epoch may be as black as the other.
    if drawn(augmentation, 1):
        assert not torch.equal(small, through_loader(images, augmentation, epoch=1))


# --- with other images ------------------------------------------------------------------------


def mixed_loader(images, augmentation, batch_size=64):
    labels = torch.arange(len(images)) % 10
    return TrainLoader(
        images, labels, batch_size=batch_size, seed=3, augmentation=augmentation,
        normalization=WHOLE_NUMBERS, classes=10,
    )  # fmt: skip


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("parts", [
    {"mixup": Mixup(0.4)},
    {"cutmix": CutMix(1.0, 0.7)},
    {"mixup": Mixup(1.0), "cutmix": CutMix(0.5, 1.0), "crop": Crop(), "cutout": Cutout(8)},
], ids="+".join)  # fmt: skip
def test_mixed_images_and_targets_are_those_of_the_formula(images, parts, epoch):
    """x = s x1 + (1 - s) x2, or x1 with a rectangle of x2; y = w y1 + (1 - w) y2."""
    augmentation = Augmentation(**parts)
    draws = drawn(augmentation, len(images), epoch)
    alone = through_loader(images, unmixed(augmentation), epoch=epoch)
    loader = mixed_loader(images, augmentation)
    position, order = 0, torch.cat([ids for ids, *_ in loader.chunks(epoch)]).tolist()
    assert sorted(order) == list(range(len(images)))
    for batch, targets in loader.epoch(epoch):
        for image, target in zip(batch[:, 0], targets, strict=True):
            first, second = order[position], order[(position + 1) % len(order)]
            expected, weight = alone[first].clone(), 1.0
            if "cutmix" in draws:
                top, bottom, left, right = draws["cutmix"][first].tolist()
                assert 0 <= top <= bottom <= 28
                assert 0 <= left <= right <= 28
                expected[top:bottom, left:right] = alone[second][top:bottom, left:right]
                weight -= (bottom - top) * (right - left) / 784
            if "mixup" in draws:
                share = draws["mixup"][first].item()
                expected = share * expected + (1 - share) * alone[second]
                weight *= share
                assert share in (1, weight)  # one of the two
            torch.testing.assert_close(image, expected, atol=1e-4, rtol=1e-5)
            wanted = torch.zeros(10)
            wanted[first % 10] += weight
            wanted[second % 10] += 1 - weight
            torch.testing.assert_close(target, wanted, atol=1e-6, rtol=0)
            position += 1
    assert position == len(order)


def test_targets_are_the_same_at_any_batch_size(images):
    augmentation = Augmentation(mixup=Mixup(), cutmix=CutMix())
    small, large = (
        torch.cat([targets for _, targets in mixed_loader(images, augmentation, size).epoch(0)])
        for size in (7, 300)
    )
    assert torch.equal(small, large)
    later = torch.cat(
        [targets for _, targets in mixed_loader(images, augmentation, 7).epoch(0, seen=49)]
    )
    assert torch.equal(later, small[49:])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    count = 50_000
    shares = drawn(Augmentation(mixup=Mixup(alpha)), count)["mixup"].double()
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    for share in quantiles.tolist():
        below = (shares < stats.beta.ppf(share, alpha, alpha)).double().mean()
        assert abs(below - share) < 5 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_shares_of_a_small_alpha_lie_at_the_ends(alpha):
    """Its gamma distribution has numbers below the least float64."""
    count = 50_000
    shares = drawn(Augmentation(mixup=Mixup(alpha)), count)["mixup"].double()
    for least, most in ((0, 0.01), (0.01, 0.99)):
        expected = stats.beta.cdf(most, alpha, alpha) - stats.beta.cdf(least, alpha, alpha)
        found = ((shares >= least) & (shares < most)).double().mean()
        assert abs(found - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


def test_rectangles_of_cutmix_are_those_of_its_paper():
    """Their middle is uniform, their sides are the root of what does not stay; some are cut off."""
    top, bottom, left, right = drawn(Augmentation(cutmix=CutMix(1.0, 1.0)), 50_000)["cutmix"].T
    inside = (top > 0) & (bottom < 28) & (left > 0) & (right < 28)
    assert torch.equal((bottom - top)[inside], (right - left)[inside])
    assert 0.1 < inside.double().mean() < 0.3
    # With Beta(1, 1) the area is uniform before it is cut off: so is the mean of all cut areas.
    torch.manual_seed(0)
    side = (28 * torch.rand(50_000).sqrt()).long() // 2
    middles = torch.randint(28, (2, 50_000))
    edges = [(one + side).clamp(max=28) - (one - side).clamp(min=0) for one in middles]
    expected = (edges[0] * edges[1]).double()
    found = ((bottom - top) * (right - left)).double()
    bound = 5 * math.sqrt((expected.var() + found.var()).item() / 50_000)
    assert abs(found.mean() - expected.mean()) < bound


@pytest.mark.parametrize("probability", [0, 0.3])
def test_cutmix_and_mixup_share_the_images(probability):
    draws = drawn(Augmentation(mixup=Mixup(), cutmix=CutMix(1.0, probability)), 20_000)
    top, bottom, *_ = draws["cutmix"].T
    assert abs((draws["mixup"] == 1).double().mean() - 0.5) < 0.03  # a few shares round to 1
    boxes = (bottom > top).double().mean()
    assert abs(boxes - 0.5 * probability) < 0.02
    assert not ((bottom > top) & (draws["mixup"] < 1)).any()


def test_draws_are_counted_and_small():
    augmentation = Augmentation(cutout=Cutout(), erasing=Erasing(), mixup=Mixup(), cutmix=CutMix())
    draws = augmentation.draw(50, SIZE, generator(0, 0, 1))
    assert augmentation.drawn(50, SIZE) == sum(one.nbytes for one in draws.values())
    assert augmentation.drawn(1, SIZE) == 3 * 4 * 2 + 2 * 4


def test_an_alternating_flip_mirrors_each_image_every_other_epoch(images):
    augmentation = Augmentation(alternating_flip=AlternatingFlip())
    plain = images[:, 0].float() - MEAN
    seen = [through_loader(images, augmentation, epoch=epoch) for epoch in range(4)]
    mirrored = [(one == plain.flip(-1)).all(-1).all(-1) for one in seen]
    for now, later in itertools.pairwise(mirrored):
        assert torch.equal(now, ~later)
    for one, flipped in zip(seen, mirrored, strict=True):
        assert torch.equal(one, torch.where(flipped[:, None, None], plain.flip(-1), plain))
    assert 100 < mirrored[0].sum() < 200
    assert not torch.equal(drawn(augmentation, 300)["flip"], augmentation.draw(
        300, SIZE, generator(4, 0, 1), lasting=generator(4, 0, 2)
    )["flip"])  # fmt: skip


# --- one's own --------------------------------------------------------------------------------


class Darken:
    draws = 2

    def __call__(self, images, draws):
        return images * (1 - 0.5 * draws[:, :1, None, None])


class Shift:
    def __call__(self, images, draws):
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1
        return images + draws[:, :, None, None]


def test_own_transforms_get_pixels_of_0_to_1_and_draws_of_their_own(images):
    parts = {"flip": Flip(1), "own": [{"_target_": "a"}, {"_target_": "b"}]}
    augmentation = Augmentation(transforms=[Darken(), Shift()], **parts)
    numbers = drawn(augmentation, len(images))["own"]
    assert numbers.shape == (300, 3)
    assert_independent(*drawn(augmentation, 9_000)["own"][:, :2].T)
    result = through_loader(images, augmentation)
    for image, found, own in zip(images[:, 0].flip(-1) / 255, result, numbers, strict=True):
        expected = (image * (1 - 0.5 * own[0]) + own[2]) * 255 - MEAN
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert torch.equal(result, through_loader(images, augmentation, batch_size=7))
    assert not torch.equal(result, through_loader(images, augmentation, epoch=1))


def test_the_rest_of_an_epoch_is_the_rest(images, augmentation):
    """As of a run that resumes in the middle of it."""
    loader = mixed_loader(images, augmentation)
    whole, rest = (
        [torch.cat(each) for each in zip(*loader.epoch(1, seen=seen), strict=True)]
        for seen in (0, 128)
    )
    for one, other in zip(whole, rest, strict=True):
        assert torch.equal(one[128:], other)


def test_no_parts_leave_the_images_as_they_are(images):
    assert torch.equal(through_loader(images, Augmentation()), images[:, 0].float() - MEAN)


def test_normalization_can_be_undone(images):
    for numbers in [(0.286, 0.353), (0.0, 1.0), (0.9, 0.01)]:
        normalization = Normalization(*numbers)
        assert torch.equal(normalization.undo(normalization(images)), images)


# --- what is drawn ----------------------------------------------------------------------------


def assert_uniform(values, cells):
    """That whole numbers fall on all of 0 to `cells` - 1 alike: a chi-squared test."""
    counts = values.bincount(minlength=cells).double()
    assert len(counts) == cells
    expected = len(values) / cells
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(statistic - (cells - 1)) < 5 * math.sqrt(2 * (cells - 1))


def assert_independent(first, second):
    """That one list of numbers says nothing about the other: chi-squared over quarters."""
    quarters = []
    for values in (first.double(), second.double()):
        borders = values.quantile(torch.tensor([0.25, 0.5, 0.75]).double()).unique()
        quarters.append((values[:, None] > borders).sum(dim=1))
    rows, columns = (int(values.max()) + 1 for values in quarters)
    counts = (quarters[0] * columns + quarters[1]).bincount(minlength=rows * columns)
    counts = counts.reshape(rows, columns).double()
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
    freedom = (rows - 1) * (columns - 1)
    assert freedom > 0
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    assert statistic - freedom < 5 * math.sqrt(2 * freedom)


def numbers_drawn(epoch, count=40_000):
    """One list of numbers for each thing that is drawn, over all parts together."""
    every = Augmentation(crop=Crop(), flip=Flip(), cutout=Cutout(), erasing=Erasing())
    draws = every.draw(count, SIZE, generator(0, epoch, 1))
    top, bottom, left, right = draws["erasing"].T
    return {
        **{name: draws[name] for name in ("crop_top", "crop_left", "flip")},
        "cutout_top": draws["cutout"][:, 0],
        "cutout_left": draws["cutout"][:, 2],
        "erasing_area": (bottom - top) * (right - left),
    }


def test_draws_tell_nothing_about_each_other():
    """Neither those of neighbours, nor an image's own: of other parts, of the next epoch."""
    now, later = numbers_drawn(epoch=0), numbers_drawn(epoch=1)
    names = list(now)
    for place, name in enumerate(names):
        assert_independent(now[name][:-1], now[name][1:])
        assert_independent(now[name], later[name])
        for other in names[place + 1 :]:
            assert_independent(now[name], now[other])


@pytest.mark.parametrize(("parts", "views"), [
    ({"crop": Crop(4)}, 9 * 9),
    ({"flip": Flip()}, 2),
    ({"crop": Crop(2), "flip": Flip()}, 5 * 5 * 2),
    ({"cutout": Cutout(27, inside=True)}, 2 * 2),
    pytest.param({"cutout": Cutout(16)}, 29 * 29, marks=pytest.mark.slow),
    pytest.param({"cutout": Cutout(27)}, 28 * 28, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_many_copies_of_one_image_become_all_the_views_there_are(images, parts, views):
    copies = images[:1].expand(20 * views, -1, -1, -1).contiguous()
    result = through_loader(copies, Augmentation(**parts))
    assert len(result.flatten(1).unique(dim=0)) == views


@pytest.mark.parametrize("padding", [1, 4, 28])
def test_all_windows_are_as_likely(padding):
    draws = Augmentation(crop=Crop(padding)).draw(90_000, SIZE, generator(0, 0, 1))
    places = 2 * padding + 1
    assert_uniform(draws["crop_top"], places)
    assert_uniform(draws["crop_left"], places)
    if padding < 28:
        assert_uniform(draws["crop_top"] * places + draws["crop_left"], places**2)


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_probabilities(probability):
    count = 50_000
    bound = 5 * math.sqrt(probability * (1 - probability) / count)
    flipped = Augmentation(flip=Flip(probability)).draw(count, SIZE, generator(0, 0, 1))["flip"]
    shares = [flipped.double().mean()]
    for part in ({"cutout": Cutout(8, probability)}, {"erasing": Erasing(probability)}):
        top, bottom, left, right = rectangles(part, count)
        assert torch.equal(bottom > top, right > left)
        shares.append((bottom > top).double().mean())
    for share in shares:
        assert abs(share.item() - probability) <= bound


@pytest.mark.parametrize("size", [1, 7, 16, 27, 28])
def test_all_centres_of_cutout_are_as_likely(size):
    """Any point of the image, as in the paper: a pixel for an odd square, a corner for an even."""
    top, bottom, left, right = rectangles({"cutout": Cutout(size)}, 100_000)
    assert (bottom - top == size).all()
    assert (right - left == size).all()
    centres = 28 + (size % 2 == 0)
    assert_uniform((top + size // 2) * centres + left + size // 2, centres**2)
    top, bottom, left, right = rectangles({"cutout": Cutout(size, inside=True)}, 100_000)
    assert (bottom - top == size).all()
    assert (right - left == size).all()
    places = 28 - size + 1
    if places > 1:
        assert_uniform(top * places + left, places**2)
    assert 0 <= min(top.min(), left.min()) <= max(bottom.max(), right.max()) <= 28


def of_torchvision(count, scale, ratio):
    """The rectangles of torchvision's RandomErasing: top, bottom, left, right; empty for none."""
    image = torch.zeros(1, 28, 28)
    drawn = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(count):
            top, left, height, width, _ = RandomErasing.get_params(image, scale, ratio, [0.0])
            if (height, width) == (28, 28):  # it found none that fits
                height = width = 0
            drawn.append((top, top + height, left, left + width))
    return torch.tensor(drawn).T


def assert_same_distribution(first, second):
    """The test of Kolmogorov and Smirnov: no share below any number differs too much."""
    values = torch.cat([first, second]).double().unique()
    shares = [
        torch.searchsorted(one.double().sort().values, values, right=True) / len(one)
        for one in (first, second)
    ]
    bound = 1.95 * math.sqrt(1 / len(first) + 1 / len(second))
    assert (shares[0] - shares[1]).abs().max() < bound


@pytest.mark.parametrize(("scale", "ratio"), [
    ([0.02, 0.33], [0.3, 3.3]),
    # Wide rather than tall; most tries do not fit.
    pytest.param([0.1, 0.2], [0.25, 2.0], marks=pytest.mark.slow),
    pytest.param([0.7, 1.0], [0.5, 2.0], marks=pytest.mark.slow),
])  # fmt: skip
def test_erasing_draws_as_torchvision_does(scale, ratio):
    theirs = of_torchvision(6_000, scale, ratio)
    ours = rectangles({"erasing": Erasing(1.0, scale, ratio)}, 50_000)
    for drawn in (theirs, ours):
        assert 0 <= drawn.min() <= drawn.max() <= 28

    def measures(top, bottom, left, right):
        height, width = bottom - top, right - left
        # The last: where it lies among the places there are for one of its height, and width.
        return [
            *(height, width, height * width, height / width, top, left, bottom, right, top - left),
            *(top / (28 - height).clamp(min=1), left / (28 - width).clamp(min=1)),
        ]

    empty = [bottom == top for top, bottom, *_ in (theirs, ours)]
    assert_same_distribution(*empty)
    theirs, ours = (drawn[:, ~none] for drawn, none in zip((theirs, ours), empty, strict=True))
    for one, other in zip(measures(*theirs), measures(*ours), strict=True):
        assert_same_distribution(one, other)


def test_drawing_leaves_the_global_random_numbers_alone():
    before = torch.random.get_rng_state()
    numbers_drawn(epoch=0, count=10)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- on a GPU ---------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Refuses what makes the host wait for the GPU, beyond what fake tensors refuse themselves.

    Those have no values, so they raise where one is asked for: by `.item()`, `if`, `nonzero`, by
    reading through a mask. They do not mind copies to the host, nor writing through a mask.
    """

    def __init__(self):
        super().__init__()
        self.copies_to_gpu = 0
        self.drawn = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        name = str(function)
        if "rand" in name or "uniform" in name:
            self.drawn += made
        if any(tensor.is_cuda for tensor in given):
            if not all(tensor.is_cuda for tensor in made):
                raise AssertionError(f"{name}: copies to the host")
            if any(not tensor.is_cuda and tensor.dim() for tensor in given):
                raise AssertionError(f"{name}: looks up what the host has")
            if "index" in name and any(tensor.dtype == torch.bool for tensor in given[1:]):
                raise AssertionError(f"{name}: counts the elements of a mask")
        elif any(tensor.is_cuda for tensor in made) and given:
            self.copies_to_gpu += 1
            if not (kwargs or {}).get("non_blocking"):
                raise AssertionError(f"{name}: the host waits for the copy")
        return result


def epoch_on_a_fake_gpu(augmentation, count=5000, memory=None):
    """Go through an epoch without a GPU and without a value; returns what was watched."""
    # Fake tensors cannot be pinned.
    with FakeTensorMode(), mock.patch.object(torch.Tensor, "pin_memory", lambda drawn: drawn):
        loader = TrainLoader(
            torch.empty(count, 1, 28, 28, dtype=torch.uint8, device="cuda"),
            torch.empty(count, dtype=torch.int64, device="cuda"),
            batch_size=500,
            seed=0,
            augmentation=augmentation,
            normalization=Normalization(0.5, 0.25),
            classes=10,
            memory=memory,
        )
        with Watch() as watch:
            for images, labels in loader.epoch(0):
                assert images.device.type == labels.device.type == "cuda"
                assert images.shape == (500, 1, 28, 28)
    return watch


def test_the_host_never_waits_for_a_gpu(augmentation):
    """All that an epoch sends to the GPU are the order and the draws, however many its batches."""
    names = drawn(augmentation, 1)
    for count, memory in ((3000, None), (5000, None), (5000, 1)):
        watch = epoch_on_a_fake_gpu(augmentation, count, memory)
        assert watch.copies_to_gpu == 1 + len(names)
        assert {tensor.device.type for tensor in watch.drawn} == {"cpu"}


FAULTS = {
    "item": lambda images, ids: images.sum().item(),
    "if": lambda images, ids: bool((images > 0).any()),
    "reading through a mask": lambda images, ids: images[images > 0],
    "writing through a mask": lambda images, ids: images.__setitem__(images > 0, images[0, 0]),
    "nonzero": lambda images, ids: ids.nonzero(),
    "to the host": lambda images, ids: images.cpu(),
    "indices of the host": lambda images, ids: images[torch.arange(3)],
    "numbers of the host": lambda images, ids: images * torch.ones(28).to(images.device),
    "draws of the gpu": lambda images, ids: torch.rand(3, device=images.device),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["move", "blank"])
def test_the_watch_sees_what_would_make_it_wait(monkeypatch, where, fault):
    """That the test above can fail."""
    original = getattr(Augmentation, where)

    def faulty(self, images, draws, ids):
        FAULTS[fault](images, ids)
        return original(self, images, draws, ids)

    monkeypatch.setattr(Augmentation, where, faulty)
    with pytest.raises((AssertionError, RuntimeError)):  # fake tensors raise the second
        test_the_host_never_waits_for_a_gpu(Augmentation(crop=Crop(), cutout=Cutout()))


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "parts"), [
    ({"crop": {"padding": 0}}, ["crop.padding=0"]),
    ({"crop": {"padding": 5000}}, ["crop.padding=5000", "4096"]),
    ({"crop": {"padding": True}}, ["crop.padding=True", "whole number"]),
    ({"crop": {"padding": 2.0}}, ["crop.padding=2.0", "whole number"]),
    ({"flip": {"probability": 1.5}}, ["flip.probability=1.5", "0 to 1"]),
    ({"flip": {"probability": True}}, ["flip.probability=True", "a number"]),
    ({"flip": {"probability": "yes"}}, ["flip.probability=yes", "a number"]),
    ({"flip": {"probability": None}}, ["flip.probability=None", "a number"]),
    ({"flip": {"probability": math.nan}}, ["flip.probability=nan"]),
    ({"cutout": {"size": 0}}, ["cutout.size=0"]),
    ({"cutout": {"size": "8"}}, ["cutout.size=8", "whole number"]),
    ({"cutout": {"probability": -1}}, ["cutout.probability=-1"]),
    ({"cutout": {"inside": 1}}, ["cutout.inside=1", "true or false"]),
    ({"erasing": {"probability": [1]}}, ["erasing.probability=[1]"]),
    ({"erasing": {"scale": [0.5, 0.1]}}, ["erasing.scale=[0.5, 0.1]", "rising"]),
    ({"erasing": {"scale": [0.5, 1.1]}}, ["erasing.scale", "at most 1"]),
    ({"erasing": {"scale": 0.5}}, ["erasing.scale=0.5"]),
    ({"erasing": {"scale": [True, True]}}, ["erasing.scale"]),
    ({"erasing": {"ratio": [0, 1]}}, ["erasing.ratio"]),
    ({"erasing": {"ratio": [1, math.inf]}}, ["erasing.ratio"]),
    ({"erasing": {"ratio": [1, 2, 3]}}, ["erasing.ratio=[1, 2, 3]"]),
    ({"affine": {"degrees": 181}}, ["affine.degrees=181", "0 to 180"]),
    ({"affine": {"degrees": -1}}, ["affine.degrees=-1"]),
    ({"affine": {"translate": 2}}, ["affine.translate=2", "0 to 1"]),
    ({"affine": {"scale": [0, 1]}}, ["affine.scale=[0, 1]"]),
    ({"affine": {"shear": 80}}, ["affine.shear=80", "0 to 60"]),
    ({"affine": {"shear": "a"}}, ["affine.shear=a", "a number"]),
    ({"trivial_augment": {"bins": 1}}, ["trivial_augment.bins=1", "2 to 1000"]),
    ({"trivial_augment": {"bins": 10**12}}, ["trivial_augment.bins=1000000000000", "2 to 1000"]),
    ({"trivial_augment": {"translate": 0.5}}, ["trivial_augment.translate=0.5"]),
    ({"mixup": {"alpha": 0}}, ["mixup.alpha=0", "0.001 to 1000"]),
    ({"cutmix": {"alpha": math.nan}}, ["cutmix.alpha=nan"]),
    ({"cutmix": {"probability": 2}}, ["cutmix.probability=2"]),
    ({"alternating_flip": {"a": 1}}, ["alternating_flip.a", "none"]),
    ({"alternating_flip": {}, "flip": {}}, ["alternating_flip", "augmentation.flip", "null"]),
    ({"own": {"a": 1}}, ["augmentation.own", "_target_"]),
    ({"own": [{"_target_": "a.b"}, 3]}, ["augmentation.own=3", "_target_"]),
    ({"blur": {}}, ["augmentation.blur", "cutout"]),
    ({"crop": {"pad": 4}}, ["augmentation.crop.pad", "padding"]),
    ({"crop": 4}, ["augmentation.crop=4", "null"]),
])  # fmt: skip
def test_refuses(config, parts):
    raises_one_line(lambda: Augmentation.from_config(config), ConfigError, *parts)


@pytest.mark.parametrize(("config", "part"), [
    ({"crop": {"padding": 29}}, "crop.padding=29: must be at most 28"),
    ({"cutout": {"size": 40}}, "cutout.size=40: must be at most 28"),
])  # fmt: skip
def test_refuses_what_is_larger_than_the_images(config, part):
    parts = Augmentation.from_config(config).parts
    parts.check(40)
    raises_one_line(lambda: parts.check(28), ConfigError, part)


def test_numbers_not_given_are_the_usual_ones():
    found = Augmentation.from_config({"flip": {}, "erasing": {"probability": 1}, "crop": None})
    assert found.parts == Parts(flip=Flip(0.5), erasing=Erasing(1.0))
