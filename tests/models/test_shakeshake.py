"""Shake-Shake: coefficients of their own for each way, and the shortcut that sees half."""

from functools import partial
from itertools import product

import pytest
import torch
from small_models import images, on_meta, randomise
from torch.nn import functional as F  # noqa: N812 - its usual name

from fmbench.models.shakeshake import Shake, ShakeBlock, ShakeShake, Subsampling

MODES = list(product(("shake", "even"), ("shake", "even", "keep"), ("image", "batch")))
every_mode = pytest.mark.parametrize(
    ("forward", "backward", "per"), MODES, ids=["-".join(modes) for modes in MODES]
)


def both_ways(shake, x1, x2, gradient):
    """The coefficients that were used: a from the mixture, b and 1 - b from the gradients."""
    x1, x2 = x1.clone().requires_grad_(), x2.clone().requires_grad_()
    mixed = shake(x1, x2)
    mixed.backward(gradient)
    a = (mixed.detach() - x2.detach()) / (x1.detach() - x2.detach())
    return a, x1.grad / gradient, x2.grad / gradient


def branches(n=6):
    """Two branches far from each other and a gradient far from zero, so that ratios are sharp."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.rand, (n, 3, 5, 5), generator=generator, dtype=torch.float64)
    return draw() + 1, draw() - 2, draw() + 1


def is_constant(values, dims):
    return bool((values - values.mean(dims, keepdim=True)).abs().max() < 1e-6)


@every_mode
def test_each_way_has_its_coefficients(forward, backward, per):
    torch.manual_seed(0)
    shake = Shake(forward=forward, backward=backward, evaluation="even", per=per).train()
    a, b, rest = both_ways(shake, *branches())
    torch.testing.assert_close(rest, 1 - b)
    for found, mode in ((a, forward), (b, backward)):
        assert is_constant(found, (1, 2, 3))  # an image has one
        source = forward if mode == "keep" else mode
        if source == "even":
            torch.testing.assert_close(found, torch.full_like(found, 0.5))
        else:
            assert is_constant(found, (0, 1, 2, 3)) == (per == "batch")
            assert 0 <= found.min() <= found.max() < 1
    if backward == "keep" or forward == backward == "even":
        torch.testing.assert_close(a, b)
    else:
        assert not torch.isclose(a, b).any()


@every_mode
def test_coefficients_are_drawn_anew_each_time_and_again_with_the_same_seed(forward, backward, per):
    shake = Shake(forward=forward, backward=backward, evaluation="even", per=per).train()
    torch.manual_seed(3)
    first, second = both_ways(shake, *branches()), both_ways(shake, *branches())
    torch.manual_seed(3)
    again = both_ways(shake, *branches())
    drawn = (forward == "shake", backward == "shake" or (backward, forward) == ("keep", "shake"))
    for way, random in enumerate(drawn):
        assert torch.equal(first[way], again[way])
        assert torch.equal(first[way], second[way]) != random


def test_coefficients_are_uniform():
    torch.manual_seed(0)
    shake = Shake(forward="shake", backward="shake", evaluation="even", per="image").train()
    a, b, _ = (found[:, 0, 0, 0] for found in both_ways(shake, *branches(n=4000)))
    for found in (a, b):
        quantiles = found.quantile(torch.arange(1, 10, dtype=torch.float64) / 10)
        assert (quantiles - torch.arange(1, 10) / 10).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.05


@every_mode
def test_gradients_beyond_the_mixture_are_those_of_the_branches(forward, backward, per):
    """What `b` scales is handed on whole: to a weight before the mixture, and to the input."""
    torch.manual_seed(0)
    shake = Shake(forward=forward, backward=backward, evaluation="even", per=per).train()
    x1, _, gradient = branches()
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = x1.clone().requires_grad_()
    torch.manual_seed(5)
    shake(weight * x, 3 * x).backward(gradient)
    torch.manual_seed(5)
    _, b, _ = both_ways(shake, weight.detach() * x1, 3 * x1, gradient)
    torch.testing.assert_close(x.grad, (2 * b + 3 * (1 - b)) * gradient)
    torch.testing.assert_close(weight.grad, (b * x1 * gradient).sum())


@pytest.mark.parametrize("per", ["image", "batch"])
@pytest.mark.parametrize("evaluation", ["even", "shake"])
def test_evaluation_has_its_own_mode_and_true_gradients(evaluation, per):
    torch.manual_seed(0)
    shake = Shake(forward="shake", backward="shake", evaluation=evaluation, per=per).eval()
    a, b, rest = both_ways(shake, *branches())
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(rest, 1 - b)
    halves = torch.isclose(a, torch.tensor(0.5, dtype=a.dtype))
    assert halves.all() if evaluation == "even" else not halves.any()
    assert is_constant(a, (0, 1, 2, 3)) == (evaluation == "even" or per == "batch")


@every_mode
def test_coefficients_are_drawn_on_the_device_and_never_read(forward, backward, per, monkeypatch):
    """On the meta device no value can be read, as on a GPU none can be without waiting for it."""
    x1, x2, gradient = (branch.to("meta") for branch in branches())
    draw, devices = torch.rand, []
    monkeypatch.setattr(
        torch, "rand", lambda *a, **kw: devices.append(kw["device"].type) or draw(*a, **kw)
    )
    shake = Shake(forward=forward, backward=backward, evaluation="shake", per=per)
    for training in (True, False):
        mixed = shake.train(training)(x1.requires_grad_(), x2)
        mixed.backward(gradient)
        assert mixed.shape == x1.grad.shape == x1.shape
    assert set(devices) == {"meta"}


def test_a_seed_means_the_same_coefficients_in_every_precision():
    found = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        shake = Shake(forward="shake", backward="shake", evaluation="even", per="image").train()
        x1 = torch.ones(5, 1, 2, 2, dtype=dtype, requires_grad=True)
        mixed = shake(x1, torch.zeros_like(x1))
        mixed.sum().backward()
        assert mixed.dtype == x1.grad.dtype == dtype
        found.append(torch.cat([mixed.detach(), x1.grad]).double())
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0], rtol=2**-8, atol=0)


@pytest.mark.slow
@every_mode
def test_mixing_compiles_without_a_graph_break(forward, backward, per):
    torch.compiler.reset()
    shake = Shake(forward=forward, backward=backward, evaluation="shake", per=per)
    captured = torch.compile(shake, backend="aot_eager", fullgraph=True)
    for training in (True, False):
        shake.train(training)
        torch.manual_seed(2)
        expected = both_ways(shake, *branches())
        torch.manual_seed(2)
        for found, wanted in zip(both_ways(captured, *branches()), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_subsampling_sees_even_pixels_and_odd_pixels():
    module = randomise(Subsampling(3)).train()
    x = images(4, channels=3, side=6)
    paths = []
    for offset, convolution in enumerate((module.even, module.odd)):
        maps = torch.zeros(4, 3, 3, 3)
        for row, column in product(range(3), range(3)):
            pixel = x[:, :, 2 * row + offset, 2 * column + offset]
            maps[:, :, row, column] = pixel @ convolution.weight[:, :, 0, 0].T
        paths.append(maps)
    scale, shift = module.norm.weight, module.norm.bias
    expected = F.batch_norm(torch.cat(paths, dim=1), None, None, scale, shift, training=True)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("halve", [False, True])
def test_block_is_relu_conv_bn_relu_conv_bn_twice_and_a_shortcut(halve):
    shake = Shake(forward="even", backward="even", evaluation="even", per="image")
    block = randomise(ShakeBlock(4, shake, halve=halve)).train()
    weights = [p for name, p in block.named_parameters() if name.startswith("branch")]

    def branch(x):
        for stride in (2 if halve else 1, 1):
            weight, scale, shift = (weights.pop(0) for _ in range(3))
            x = F.conv2d(F.relu(x), weight, stride=stride, padding=1)
            x = F.batch_norm(x, None, None, scale, shift, training=True)
        return x

    x = images(4, channels=4, side=8)
    before = x.clone()
    expected = (branch(x) + branch(x)) / 2
    expected = expected + (block.shortcut(F.relu(x)) if halve else x)
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before)  # the identity shortcut must not see an activated input


def test_model_is_a_stem_with_relu_then_stages_then_the_mean_without_relu():
    model = randomise(ShakeShake(depth=14, base_channels=4)).eval()
    with torch.no_grad():
        for tensor in model.buffers():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1)
        x = model.stem[1](F.conv2d(images(), model.stem[0].weight, padding=1)).relu()
        for block in model.blocks:
            x = block(x)
        assert (x < 0).any()
        expected = model.classifier(x.mean((2, 3)))
        torch.testing.assert_close(model(images()), expected)
    halving = [isinstance(block.shortcut, Subsampling) for block in model.blocks]
    assert halving == [False, False, True, False, True, False]


def test_every_block_is_told_the_modes():
    modes = {"forward": "shake", "backward": "even", "evaluation": "shake", "per": "batch"}
    model = on_meta(ShakeShake, **modes)
    shakes = [module for module in model.modules() if isinstance(module, Shake)]
    assert len(shakes) == 12
    for shake in shakes:
        assert shake.modes == ("shake", "even", "shake")
        assert not shake.per_image
