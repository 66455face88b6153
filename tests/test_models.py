"""The nets: sizes that the literature states, and what training asks of any net."""

import importlib
import inspect
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision import models as tv_models

import fmbench
from fmbench.cost import count_flops, count_parameters, meta_copy
from fmbench.errors import ConfigError
from fmbench.models.densenet import DenseNet
from fmbench.models.lenet import LeNet
from fmbench.models.lenet5 import LeNet5
from fmbench.models.resnet18 import ResNet18
from fmbench.models.torchvision import Torchvision

OPTIONS = sorted((Path(fmbench.__file__).parent.parent / "conf" / "model").glob("*.yaml"))

# What a laptop runs in milliseconds, with the structure of the full net.
SMALL = {
    "lenet": LeNet,
    "lenet5": LeNet5,
    "resnet18": partial(ResNet18, depths=(1, 2, 1), width=8),
    "densenet": partial(DenseNet, depth=16, growth=6),
    "torchvision": partial(Torchvision, name="shufflenet_v2_x0_5", upsample=32),
}
every_net = pytest.mark.parametrize("build", SMALL.values(), ids=SMALL.keys())
own_net = pytest.mark.parametrize(
    "build", [b for n, b in SMALL.items() if n != "torchvision"], ids=list(SMALL)[:-1]
)

# One net of each torchvision family: all eighty take half a minute.
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": None,
    "googlenet": None,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": None,
    "mobilenet_v2": None,
    "mobilenet_v3_small": None,
    "regnet_y_128gf": None,
    "resnet18": None,
    "shufflenet_v2_x0_5": None,
    "squeezenet1_0": None,
    "swin_t": None,
    "swin_v2_t": None,
    "vgg11": 32,
    "vit_b_16": 32,
    "vit_h_14": None,
}


def images(n: int = 4, channels: int = 1) -> torch.Tensor:
    return torch.randn(n, channels, 28, 28, generator=torch.Generator().manual_seed(0))


def on_meta(build, **settings) -> nn.Module:
    with torch.device("meta"):
        return build(**settings)


# Sizes


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (LeNet, 61_706),
        (LeNet5, 44_426),
        (ResNet18, 11_172_810),
        (DenseNet, 768_730),
        (Torchvision, 1_527_818),
    ],
)
def test_parameters_are_those_of_the_published_nets(build, parameters):
    assert count_parameters(on_meta(build)) == parameters


def test_densenet_has_the_size_the_paper_states():
    """Table 2 of the paper, CIFAR: 0.8M for L=100 k=12, 15.3M for L=250 k=24."""
    colour = partial(on_meta, DenseNet, channels=3)
    assert round(count_parameters(colour()) / 1e6, 1) == 0.8
    assert round(count_parameters(colour(depth=250, growth=24)) / 1e6, 1) == 15.3


def test_lenets_differ_in_activations_and_pooling():
    """Parameter counts see neither, nor their order."""

    def layers(net):
        return [type(layer).__name__ for layer in (*net.features, *net.classifier)]

    block = ["Conv2d", "ReLU", "MaxPool2d"]
    assert layers(LeNet()) == [*block, *block, "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    block = ["Conv2d", "Tanh", "AvgPool2d"]
    assert layers(LeNet5()) == [*block, *block, "Conv2d", "Tanh", "Linear", "Tanh", "Linear"]


@pytest.mark.parametrize(
    ("build", "sides"),
    [(ResNet18, [28, 14, 7, 4]), (DenseNet, [28, 14, 7])],
)
def test_stages_see_the_sides_of_the_small_image_form(build, sides):
    seen = []
    net = on_meta(build).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
    net(images(1).to("meta"))
    assert list(dict.fromkeys(seen)) == sides


def assert_same_function(net: nn.Module, reference: nn.Module) -> None:
    """Give both nets the same random weights, which they hold in the same order, and compare."""
    torch.manual_seed(0)
    for mine, theirs in zip(
        net.state_dict().values(), reference.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():
            mine.copy_(torch.rand_like(mine) - 0.3 if mine.dim() == 1 else mine)
            theirs.copy_(mine)
    with torch.no_grad():
        torch.testing.assert_close(net.train()(images()), reference.train()(images()))


def test_resnet18_is_torchvisions_but_for_the_stem():
    reference = tv_models.resnet18(num_classes=10)
    reference.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    assert_same_function(ResNet18(), reference)


def test_densenet_is_torchvisions_but_for_the_stem():
    reference = tv_models.DenseNet(
        growth_rate=12, block_config=(2, 2, 2), num_init_features=24, num_classes=10
    )
    reference.features.conv0 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, nn.Identity())
    assert_same_function(DenseNet(depth=16), reference)


def test_flops_of_lenet_match_a_count_by_hand():
    convolutions = 28 * 28 * 6 * (1 * 5 * 5) + 10 * 10 * 16 * (6 * 5 * 5)
    linears = 400 * 120 + 120 * 84 + 84 * 10
    assert count_flops(LeNet) == 2 * (convolutions + linears) == 833_040


def test_flops_are_per_image_and_alike_from_a_net_and_its_factory():
    net = DenseNet(depth=16)
    assert (
        count_flops(net)
        == count_flops(net, (8, 1, 28, 28))
        == count_flops(partial(DenseNet, depth=16))
    )


@pytest.mark.parametrize(
    ("name", "gigamacs"), [("resnet18", 1.81), ("vit_b_16", 17.56), ("swin_t", 4.49)]
)
def test_flops_match_those_torchvision_publishes(name, gigamacs):
    build = partial(Torchvision, name=name, upsample=224, channels=3, classes=1000)
    assert round(count_flops(build, (1, 3, 28, 28)) / 2e9, 2) == gigamacs


def test_counting_flops_leaves_the_net_as_it_was():
    net = SMALL["densenet"]().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert count_flops(net) > 0
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_flops_are_those_of_evaluation():
    # In training a batch norm refuses one value per channel, and the count would be unknown.
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.BatchNorm1d(4)).train()
    assert count_flops(net) == 2 * 784 * 4


def test_a_net_that_cannot_run_on_meta_has_unknown_flops():
    class ReadsItsInput(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    assert count_flops(ReadsItsInput()) is None
    assert count_flops(ReadsItsInput) is None


def test_a_meta_copy_keeps_ties_and_frozen_weights():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    net[1].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    copied = meta_copy(net)
    assert {tensor.device.type for tensor in copied.state_dict().values()} == {"meta"}
    assert copied[1].weight is copied[0].weight
    assert count_parameters(copied) == count_parameters(net) == 9 + 3 + 6


# What training asks of a net


@every_net
def test_logits_have_a_row_per_image_and_a_column_per_class(build):
    net = build(channels=3, classes=7).eval()
    assert net(images(2, channels=3)).shape == (2, 7)


@every_net
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_every_weight_gets_a_finite_gradient(build, autocast):
    torch.manual_seed(0)
    net = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = net(images(8))
        assert logits.dtype == (torch.bfloat16 if autocast else torch.float32)
        loss = nn.functional.cross_entropy(logits, torch.arange(8))
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_net
def test_channels_last_computes_the_same(build):
    torch.manual_seed(0)
    net = build().eval()
    expected = net(images())
    net = net.to(memory_format=torch.channels_last)
    computed = net(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-4)


@own_net
def test_logits_depend_on_every_pixel_and_on_no_other_image(build):
    torch.manual_seed(0)
    net = build(channels=2).eval()
    x = images(32, channels=2).requires_grad_()
    net(x)[1:].square().sum().backward()
    # A max-pooling hides some pixels of one image, not the same pixel of 31 images.
    assert x.grad[1:].abs().sum(0).all()
    assert not x.grad[0].any()


@every_net
def test_same_seed_same_weights(build):
    def weights(seed):
        torch.manual_seed(seed)
        return build().state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@own_net
def test_compiles_without_a_graph_break(build):
    net = build().eval()
    captured = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(captured(images()), net(images()))


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")),
    reason="torch.compile needs a C++ compiler on the CPU",
)
def test_compiled_lenet_computes_the_same():
    """Takes seconds the first time on a machine; the compiler's cache shortens the next."""
    torch.manual_seed(0)
    net = LeNet().eval()
    with torch.no_grad():
        computed = torch.compile(net)(images())
        torch.testing.assert_close(computed, net(images()), rtol=1e-4, atol=1e-5)


# Initialisation


def test_residual_and_dense_nets_start_he_normal_by_fan_out():
    torch.manual_seed(0)
    for net in (ResNet18(width=32), DenseNet(depth=22, growth=24)):
        checked = 0
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
                fan_out = module.out_channels * module.kernel_size[0] ** 2
                assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
                checked += 1
        assert checked > 3
        assert not net.classifier.bias.any()


def test_first_convolution_of_torchvision_keeps_the_spread_of_its_responses():
    def stem(channels):
        torch.manual_seed(0)
        net = Torchvision(name="resnet18", channels=channels)
        return net.net.conv1.weight

    colour, grey, six = stem(3), stem(1), stem(6)
    assert (colour.shape[1], grey.shape[1], six.shape[1]) == (3, 1, 6)
    torch.testing.assert_close(grey, colour[:, :1] * 3**0.5)
    torch.testing.assert_close(six.square().sum(), colour.square().sum())


# torchvision


def test_every_family_of_torchvision_is_covered():
    names = tv_models.list_models(module=tv_models)
    modules = {tv_models.get_model_builder(name).__module__ for name in names}
    assert {tv_models.get_model_builder(name).__module__ for name in FAMILIES} == modules


@pytest.mark.parametrize(("name", "smallest"), FAMILIES.items())
def test_torchvision_net_runs_or_says_the_size_it_needs(name, smallest):
    if smallest is not None:
        with pytest.raises(ConfigError) as refusal:
            on_meta(Torchvision, name=name)
        assert str(refusal.value) == (
            f"model.name={name} cannot take images of 28 x 28; "
            f"the smallest usual size that works is model.upsample={smallest}"
        )
    net = on_meta(Torchvision, name=name, upsample=smallest).train()
    with torch.no_grad():
        assert net(images(2).to("meta")).shape == (2, 10)


@pytest.mark.parametrize(("name", "upsample"), [("googlenet", None), ("inception_v3", 96)])
def test_auxiliary_heads_are_left_out(name, upsample):
    net = on_meta(Torchvision, name=name, upsample=upsample).train()
    assert isinstance(net(images(2).to("meta")), torch.Tensor)
    assert not [name for name, _ in net.named_parameters() if "aux" in name.lower()]


def test_upsampling_happens_only_when_asked():
    assert not any(isinstance(m, nn.Upsample) for m in Torchvision().modules())
    net = Torchvision(upsample=64)
    assert net.upsample(images()).shape == (4, 1, 64, 64)


def test_dropout_of_torchvision_is_its_own_unless_given():
    def rates(**settings):
        net = on_meta(Torchvision, **settings)
        return {m.p for m in net.modules() if isinstance(m, nn.Dropout)}

    assert rates() == {0.2}
    assert rates(dropout=0.4) == {0.4}


def test_a_refused_net_never_gets_its_weights(monkeypatch):
    built = []
    convolution = nn.Conv2d.__init__

    def spy(self, *args, **kwargs):
        convolution(self, *args, **kwargs)
        built.append(self.weight.device.type)

    monkeypatch.setattr(nn.Conv2d, "__init__", spy)
    with pytest.raises(ConfigError):
        Torchvision(name="vgg19")
    assert set(built) == {"meta"}


# Mistakes


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (LeNet, {"channels": 0}, "model.channels=0 is not allowed: a whole number, 1 or more"),
        (LeNet5, {"classes": True}, "model.classes=True is not allowed"),
        (ResNet18, {"width": 1.5}, "model.width=1.5 is not allowed"),
        (ResNet18, {"depths": []}, "one or more stages, as in [2,2,2,2]"),
        (ResNet18, {"depths": 18}, "model.depths=18 is not allowed: one or more stages"),
        (ResNet18, {"depths": [2, 0]}, "model.depths[1]=0 is not allowed"),
        (
            DenseNet,
            {"depth": 41},
            "(depth - 4) % 6 == 0 and depth >= 10 must hold, as for 40 or 46",
        ),
        (DenseNet, {"depth": 4}, "as for 10 or 16"),
        (DenseNet, {"depth": "deep"}, "model.depth=deep is not allowed: a whole number"),
        (DenseNet, {"growth": 0}, "model.growth=0 is not allowed"),
        (DenseNet, {"dropout": 1.0}, "a probability, 0 or more and below 1"),
        (DenseNet, {"compression": 0}, "model.compression=0 is not allowed: at most 1"),
        (DenseNet, {"compression": 1.1}, "model.compression=1.1 is not allowed"),
        (DenseNet, {"compression": 0.001}, "enough to keep one of"),
        (Torchvision, {"name": "ResNet19"}, "the closest are resnet18, "),
        (Torchvision, {"name": "fasterrcnn_resnet50_fpn"}, "classification nets"),
        (Torchvision, {"name": "maxvit_t", "upsample": 299}, "model.upsample=224"),
        (Torchvision, {"upsample": 0}, "model.upsample=0 is not allowed"),
        (Torchvision, {"upsample": 1025}, "model.upsample=1025 is not allowed: at most 1024"),
        (Torchvision, {"dropout": -1}, "a probability"),
        (Torchvision, {"name": "resnet18", "dropout": 0.1}, "has no dropout layer"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(build, settings, message):
    with pytest.raises(ConfigError) as mistake:
        build(**settings)
    assert message in str(mistake.value)
    assert "\n" not in str(mistake.value)


# Options


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_option_builds_the_net_it_is_named_after(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    settings = yaml.safe_load(text)
    module_name, _, name = settings.pop("_target_").rpartition(".")
    assert module_name == f"fmbench.models.{path.stem}"
    build = getattr(importlib.import_module(module_name), name)

    # The option shows every keyword with its default: what it does not show cannot be overridden.
    shown = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    assert shown == {k: p.default for k, p in inspect.signature(build).parameters.items()}

    net = on_meta(build, **settings)
    assert f"{count_parameters(net):,}" in text
    with torch.no_grad():
        assert net.eval()(images(2).to("meta")).shape == (2, 10)


def test_there_is_an_option_for_every_net():
    assert {path.stem for path in OPTIONS} >= SMALL.keys()


def test_naming_the_package_does_not_import_torch():
    code = "import sys, fmbench.models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
