from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from fmbench.config.augmentation import read
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, Normalization, TrainLoader, generator


def loader(count=1000, batch_size=64, seed=0, images=None, augmentation=None):
    return TrainLoader(
        torch.zeros(count, 1, 28, 28, dtype=torch.uint8) if images is None else images,
        torch.arange(count),
        batch_size=batch_size,
        seed=seed,
        augmentation=augmentation or Augmentation(),
        normalization=Normalization(0.5, 0.25),
    )


def order(loader, epoch):
    return torch.cat([labels for _, labels in loader.epoch(epoch)])


@pytest.mark.parametrize(("count", "batch_size"), [(1000, 64), (5000, 7), (10, 10), (9, 4), (1, 1)])
def test_an_epoch_gives_every_image_once_in_batches_of_the_size(count, batch_size):
    batches = list(loader(count, batch_size).epoch(0))
    assert len(batches) == len(loader(count, batch_size))
    assert [len(labels) for _, labels in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(count))
    assert all(images.shape[1:] == (1, 28, 28) for images, _ in batches)
    assert all(images.dtype == torch.float32 for images, _ in batches)


def test_order_is_a_function_of_seed_and_epoch_alone():
    first = order(loader(seed=1), epoch=5)
    again = loader(seed=1, batch_size=10)
    order(again, epoch=4)
    assert torch.equal(first, order(again, epoch=5))
    assert not torch.equal(first, order(again, epoch=6))
    assert not torch.equal(first, order(loader(seed=2), epoch=5))


def test_draws_made_ahead_are_those_made_when_they_are_needed(monkeypatch):
    """As beside a GPU: the next epoch is drawn in another thread, by the same generators."""
    parts = read({"crop": {}, "flip": {}, "cutout": {}, "erasing": {}})
    plain, ahead = (loader(200, augmentation=Augmentation(**vars(parts))) for _ in range(2))
    plain.windows = ahead.windows = plain.augmentation.windows(
        torch.randint(0, 256, (200, 1, 28, 28), dtype=torch.uint8)
    )
    before = torch.get_rng_state()
    asked = []

    def noted(*key):
        asked.append(key)
        return generator(*key)

    # In order, from within an epoch, one twice, one that nobody expected, and the first again.
    epochs = [(0, 0), (1, 0), (2, 128), (2, 0), (7, 64), (8, 0), (0, 0), (9, 0)]
    expected = [list(plain.epoch(epoch, seen=seen)) for epoch, seen in epochs]
    monkeypatch.setattr("fmbench.data.loader.generator", noted)
    with ThreadPoolExecutor(1) as ahead.pool:
        found = [list(ahead.epoch(epoch, seen=seen)) for epoch, seen in epochs]
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert {key[:2] for key in asked} == {(0, epoch) for epoch in (0, 1, 2, 3, 7, 8, 9, 10)}
    assert asked.count((0, 9, 0)) == 1  # drawn ahead, and kept while another was made


def test_a_resumed_epoch_makes_images_in_the_groups_of_one_in_one_go(monkeypatch):
    """So that a transform of one's own has the same bits, however it adds up."""
    monkeypatch.setattr("fmbench.data.loader.CHUNK", 40)
    weight = torch.ones((), requires_grad=True)
    groups = []

    def own(images, draws):
        groups.append(tuple(draws[:, 0].tolist()))
        return images * weight

    there = loader(100, batch_size=20, augmentation=Augmentation(transforms=[own]))
    whole = list(there.epoch(1))
    assert [len(group) for group in groups] == [40, 40, 20]
    in_one_go, groups = groups, []
    rest = list(there.epoch(1, seen=60))
    assert groups == in_one_go[1:]
    assert [labels.tolist() for _, labels in rest] == [labels.tolist() for _, labels in whole[3:]]
    assert not rest[0][0].requires_grad
    assert torch.is_grad_enabled()


def test_streams_of_one_seed_and_epoch_are_apart():
    streams = [
        torch.rand(4, generator=generator(*key)) for key in [(0, 1, 0), (1, 0, 0), (0, 1, 1)]
    ]
    assert not torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[0], streams[2])


def test_images_stay_with_their_labels_across_chunks():
    count = 5000
    images = (
        torch.arange(count)
        .remainder(251)
        .to(torch.uint8)[:, None, None, None]
        .expand(-1, 1, 28, 28)
    )
    for batch, labels in loader(count, images=images.contiguous()).epoch(3):
        pixels = (batch[:, 0, 13, 13] * 0.25 + 0.5) * 255
        assert torch.equal(pixels.round().long(), labels.remainder(251))


def test_normalization_is_that_of_torchvision_and_can_be_undone():
    pixels = torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8)
    for numbers in [((0.286, 0.5, 0.9), (0.353, 0.2, 0.01)), ((0.0,) * 3, (1.0,) * 3)]:
        ours = Normalization(*numbers)
        torch.testing.assert_close(ours(pixels), reference.normalize(pixels / 255, *numbers))
        assert torch.equal(ours.undo(ours(pixels)), pixels)


def test_evaluation_keeps_the_order_and_gives_all():
    images = (
        torch.arange(25).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28).contiguous()
    )
    evaluation = EvaluationLoader(
        images, torch.arange(25), normalization=Normalization(0.0, 1 / 255), batch_size=10
    )
    batches = list(evaluation)
    assert [len(labels) for _, labels in batches] == [10, 10, 5]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(25))
    seen = torch.cat([batch for batch, _ in batches])
    torch.testing.assert_close(seen[:, 0, 0, 0], torch.arange(25.0))
    assert len(evaluation) == 25
