import pytest
import torch

from fmbench.augment import Augmentation
from fmbench.loader import EvaluationLoader, Normalization, TrainLoader, generator


def loader(count=1000, batch_size=64, seed=0, images=None):
    return TrainLoader(
        torch.zeros(count, 28, 28, dtype=torch.uint8) if images is None else images,
        torch.arange(count),
        batch_size=batch_size,
        seed=seed,
        augmentation=Augmentation(),
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


def test_streams_of_one_seed_and_epoch_are_apart():
    streams = [
        torch.rand(4, generator=generator(*key)) for key in [(0, 1, 0), (1, 0, 0), (0, 1, 1)]
    ]
    assert not torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[0], streams[2])


def test_images_stay_with_their_labels_across_chunks():
    count = 5000
    images = torch.arange(count).remainder(251).to(torch.uint8)[:, None, None].expand(-1, 28, 28)
    for batch, labels in loader(count, images=images.contiguous()).epoch(3):
        pixels = (batch[:, 0, 13, 13] * 0.25 + 0.5) * 255
        assert torch.equal(pixels.round().long(), labels.remainder(251))


def test_normalization_is_that_of_torchvision():
    from torchvision.transforms.v2 import functional as reference

    pixels = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    expected = reference.normalize(pixels[:, None].float() / 255, [0.286], [0.353])[:, 0]
    torch.testing.assert_close(Normalization(0.286, 0.353)(pixels), expected)


def test_evaluation_keeps_the_order_and_gives_all():
    images = torch.arange(25).to(torch.uint8)[:, None, None].expand(-1, 28, 28).contiguous()
    evaluation = EvaluationLoader(
        images, torch.arange(25), normalization=Normalization(0.0, 1 / 255), batch_size=10
    )
    batches = list(evaluation)
    assert [len(labels) for _, labels in batches] == [10, 10, 5]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(25))
    seen = torch.cat([batch for batch, _ in batches])
    torch.testing.assert_close(seen[:, 0, 0, 0], torch.arange(25.0))
    assert len(evaluation) == 25
