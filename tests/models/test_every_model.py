"""What training asks of any model."""

import copy
import inspect

import pytest
import torch
from small_models import every_model, images, own_model
from torch import nn


def step(model: nn.Module, x: torch.Tensor, run=None) -> dict[str, torch.Tensor]:
    """The logits of one pass in training and the gradients it leaves, always with one seed."""
    torch.manual_seed(1)
    logits = model(x) if run is None else run(x)
    nn.functional.cross_entropy(logits, torch.arange(len(x)) % 10).backward()
    return {"logits": logits.detach()} | {name: p.grad for name, p in model.named_parameters()}


def assert_same_step(computed: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To be called in float64: in float32 a value that rounds to the other side of zero takes
    another way through ReLU, and one such value in a small model moves gradients by a percent."""
    assert computed.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(computed[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


@every_model
def test_logits_have_a_row_per_image_and_a_column_per_class(build):
    model = build(channels=3, classes=7).eval()
    assert model(images(2, channels=3)).shape == (2, 7)


@every_model
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_every_weight_gets_a_finite_gradient(build, autocast):
    torch.manual_seed(0)
    model = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = step(model, images(8))
    assert found["logits"].dtype == (torch.bfloat16 if autocast else torch.float32)
    for name, tensor in found.items():
        assert tensor is not None, name
        assert tensor.isfinite().all(), name
        assert tensor.any(), name


@own_model
def test_bf16_computes_about_the_same(build):
    torch.manual_seed(0)
    model = build().train()
    expected = step(model, images(8))["logits"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        computed = step(model, images(8))["logits"]
    assert (computed.float() - expected).norm() < 0.05 * expected.norm()


@every_model
def test_channels_last_computes_the_same(build):
    torch.manual_seed(0)
    model = build().train().double()
    x = images(8).double()
    # Not so with dropout of maps, off by default: it draws in the order of memory.
    expected = step(copy.deepcopy(model), x)
    last = model.to(memory_format=torch.channels_last)
    assert_same_step(step(last, x.to(memory_format=torch.channels_last)), expected)


@own_model
def test_logits_depend_on_every_pixel_and_on_no_other_image(build):
    torch.manual_seed(0)
    model = build(channels=2).eval()
    x = images(32, channels=2).requires_grad_()
    model(x)[1:].square().sum().backward()
    # A max-pooling hides some pixels of one image, not the same pixel of 31 images.
    assert x.grad[1:].abs().sum(0).all()
    assert not x.grad[0].any()


@every_model
def test_same_seed_same_weights(build):
    def weights(seed):
        torch.manual_seed(seed)
        return build().state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
@own_model
def test_compiles_without_a_graph_break_and_computes_the_same(build):
    """Both ways, in training: dropout and Shake-Shake draw what they draw without a compiler."""
    torch.compiler.reset()
    torch.manual_seed(0)
    drops = "dropout" in inspect.signature(getattr(build, "func", build)).parameters
    model = build(**{"dropout": 0.3} if drops else {}).train().double()
    x = images(8).double()
    expected = step(copy.deepcopy(model), x)
    captured = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same_step(step(model, x, captured), expected)
    with torch.no_grad():
        captured = torch.compile(model.eval(), backend="eager", fullgraph=True)
        torch.testing.assert_close(captured(x), model(x))
