"""The Inception model: its module computed by hand, its pools and its sides."""

import torch
from small_models import images, on_meta, randomise, sides
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from fmbench.models.inception_light import InceptionLight, InceptionModule


def test_sides_and_features_are_those_published():
    model = on_meta(InceptionLight)
    assert sides(model, InceptionModule, nn.AdaptiveAvgPool2d) == [26, 16, 16, 10]
    widths = [m.out_features for m in model.classifier if isinstance(m, nn.Linear)]
    assert model.classifier[0].in_features == 4 * 512 * 10 * 10 == 204_800
    assert widths == [1024, 128, 10]
    kinds = [type(layer).__name__ for layer in model.classifier]
    assert kinds == [*(2 * ["Linear", "ReLU", "Dropout"]), "Linear"]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_module_is_four_branches_side_by_side():
    module = randomise(InceptionModule(3, 2)).train()
    weights = list(module.parameters())

    def conv(x, padding=0):
        """Convolution with bias, batch norm, ReLU, with the next of the module's weights."""
        weight, bias, scale, shift = (weights.pop(0) for _ in range(4))
        assert bias.shape == (2,)
        x = F.conv2d(x, weight, bias, padding=padding)
        return F.relu(F.batch_norm(x, None, None, scale, shift, training=True))

    x = images(4, channels=3, side=9)
    expected = [
        conv(x),
        conv(conv(x, padding=1)),
        # Zeros are padded to the image and not to the maps: what the 5 x 5 sees beyond the border
        # is what the 1 x 1 and its norm make of zero.
        conv(conv(F.pad(x, (2, 2, 2, 2)))),
        conv(F.max_pool2d(x, 3, stride=1, padding=1)),
    ]
    assert not weights
    torch.testing.assert_close(module(x), torch.cat(expected, dim=1))
    kernels = [m.kernel_size[0] for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [1, 3, 1, 1, 5, 1]


def test_pools_are_means_over_windows_of_two_and_three():
    pool = InceptionLight(width=4).features[4]
    x = images(1, channels=1, side=26)
    top, bottom = 3 * 26 // 16, -(-4 * 26 // 16)  # the window of the fourth output
    assert (top, bottom) == (4, 7)
    torch.testing.assert_close(pool(x)[0, 0, 3, 0], x[0, 0, 4:7, 0:2].mean())
    assert pool(x).shape[-1] == 16
