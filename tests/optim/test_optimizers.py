"""Optimizers: each trains, resumes to the same bits, and takes the step of its formula."""

import io
import math

import numpy as np
import pytest
import torch
import yaml
from commands import CHECKOUT, TINY, compose, raises_one_line
from torch import nn
from torch.nn import functional

import fmbench
from fmbench.config import schema
from fmbench.core.errors import ConfigError
from fmbench.data.load import load
from fmbench.optim import by_name, groups, schedules
from fmbench.optim.lion import Lion
from fmbench.optim.muon import COEFFICIENTS, Muon, orthogonalized
from fmbench.records.record import keys, recorded_config
from fmbench.runs import prepare
from fmbench.training.device import Device
from fmbench.training.step import EagerStep

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)
IMAGES = prepare.ImageFacts((1, 28, 28), 10)
#: Options of which an extra brings the package.
EXTRAS = {"extra": "optimizers", "schedule_free_adamw": "schedulefree",
          "schedule_free_sgd": "schedulefree"}  # fmt: skip
PACKAGES = {"optimizers": "pytorch_optimizer", "schedulefree": "schedulefree"}
OPTIONS = [
    pytest.param(path.stem, marks=getattr(pytest.mark, EXTRAS.get(path.stem, "filterwarnings")))
    if path.stem in EXTRAS
    else path.stem
    for path in sorted((CHECKOUT / "conf/optimizer").glob("*.yaml"))
]
SHORT = [*TINY, "data.train_size=48", "data.test_size=10", "batch_size=16"]


def need(option):
    if option in EXTRAS:
        pytest.importorskip(PACKAGES[EXTRAS[option]], reason=f"needs the extra {EXTRAS[option]}")


def trainer(*overrides):
    config = compose(*SHORT, *overrides)
    inputs = prepare.read_inputs(config)
    torch.manual_seed(0)
    model = prepare.make_model(config, IMAGES)
    return prepare.make_trainer(config, inputs, model, CPU, 10**6)


class Stop(Exception):  # noqa: N818 - ends a run
    pass


def weights(built):
    return [one.detach().clone() for one in built.model.parameters()]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_optimizer_trains_and_resumes_in_the_middle_to_the_same_bits(option):
    need(option)
    given = [f"optimizer={option}", "scheduler=cosine"]
    straight = trainer(*given)
    start = weights(straight)
    losses = [epoch.train.loss for epoch in straight.fit(lambda *_: None)]
    assert all(map(math.isfinite, losses))
    assert not torch.equal(start[0], weights(straight)[0])

    begun, count = trainer(*given), 0

    def stop():
        nonlocal count
        # Two batches into the second epoch, after three of training and one of the evaluation.
        count += begun.started is not None
        if count == 5:
            raise Stop

    with pytest.raises(Stop):
        list(begun.fit(lambda *_: None, stop))
    file = io.BytesIO()
    torch.save(begun.state_dict(), file)
    file.seek(0)
    resumed = trainer(*given)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert (resumed.position.epoch, resumed.position.seen) == (1, 32)
    list(resumed.fit(lambda *_: None))
    torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=0)


@pytest.mark.parametrize("path", sorted((CHECKOUT / "conf/optimizer").glob("*.yaml")), ids=str)
def test_the_defaults_of_an_option_are_arguments_of_its_class(path):
    need(path.stem)
    option = yaml.safe_load(path.read_text("utf-8"))
    optimizer = trainer(f"optimizer={path.stem}", "scheduler=constant").optimizer
    group = optimizer.param_groups[0]
    for key in option.keys() - {"_target_", "name", "search", "defaults"}:
        assert group[key] in (option[key], tuple(np.atleast_1d(option[key]))), key


def one_step(kind, start, gradient, steps=2, **arguments):
    one = nn.Parameter(start.clone())
    optimizer = kind([one], **arguments)
    for _ in range(steps):
        one.grad = gradient.clone()
        optimizer.step()
    return one.detach()


def test_lion_is_algorithm_2_of_its_paper():
    torch.manual_seed(1)
    start, gradients = torch.randn(4, 3), torch.randn(3, 4, 3)
    one = nn.Parameter(start.clone())
    optimizer = Lion([one], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    weight, momentum = start.double(), torch.zeros(4, 3).double()
    for gradient in gradients:
        one.grad = gradient.clone()
        optimizer.step()
        update = (0.9 * momentum + 0.1 * gradient).sign()
        momentum = 0.99 * momentum + 0.01 * gradient
        weight = weight - 0.01 * (update + 0.1 * weight)
    torch.testing.assert_close(one.detach(), weight.float())


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
def test_the_iteration_of_muon_acts_on_singular_values_alone(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / matrix.double().norm()
    a, b, c = COEFFICIENTS
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    wanted = left @ values.diag() @ right
    torch.testing.assert_close(orthogonalized(matrix), wanted.float(), atol=1e-4, rtol=1e-4)
    assert 0.6 < values.min() <= values.max() < 1.3


def test_a_step_of_muon_is_pytorchs_on_matrices_and_adamws_on_the_rest():
    torch.manual_seed(1)
    shapes = {"first.weight": (4, 1, 3, 3), "norm.weight": (4,), "conv.weight": (6, 4, 3, 3),
              "conv.bias": (6,), "last.weight": (10, 6)}  # fmt: skip
    named = [(name, nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]
    start = {name: one.detach().clone() for name, one in named}
    optimizer = Muon(named, lr=0.01, weight_decay=0.1, momentum=0.9)
    gradients = {name: torch.randn(shape) for name, shape in shapes.items()}
    for _ in range(2):
        for name, one in named:
            one.grad = gradients[name].clone()
        optimizer.step()
    options = {"lr": 0.01, "weight_decay": 0.1}
    for name, one in named:
        if name == "conv.weight":
            rows = (start[name].reshape(6, -1), gradients[name].reshape(6, -1))
            wanted = one_step(
                torch.optim.Muon, *rows, **options, momentum=0.9, adjust_lr_fn="match_rms_adamw"
            ).reshape(one.shape)
            moved = (wanted - start[name]).norm()  # PyTorch's is in bfloat16
            assert (one.detach() - wanted).norm() < 0.02 * moved
        else:
            wanted = one_step(
                torch.optim.AdamW, start[name], gradients[name], **options, betas=(0.9, 0.95)
            )
            torch.testing.assert_close(one.detach(), wanted)


def test_muon_trains_nearly_all_weights_of_resnet18():
    config = compose("model=resnet18", "optimizer=muon")
    model = prepare.make_model(config, IMAGES)
    optimizer = prepare.make_optimizer(config, model, torch.zeros(2, *IMAGES.shape))
    muon, rest = optimizer.param_groups
    count = sum(one.numel() for one in muon["params"])
    assert count / sum(one.numel() for one in model.parameters()) > 0.99
    assert sorted(one.shape[0] for one in rest["params"] if one.ndim > 1) == [10, 64]
    assert len(muon["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_muon_refuses_a_model_without_inner_matrices():
    named = list(nn.Linear(3, 3).named_parameters())
    raises_one_line(lambda: Muon(named), ConfigError, "no matrix or convolution between")


class Backwards(nn.Module):
    """Uses its layers in another order than it has them, and one never."""

    def __init__(self):
        super().__init__()
        self.last, self.idle, self.first = nn.Linear(4, 2), nn.Linear(1, 1), nn.Linear(3, 4)

    def forward(self, images):
        return self.last(self.first(images))


def test_parameters_are_named_in_the_order_of_their_use():
    model = Backwards()
    named, matrices = groups.by_use(model, torch.zeros(2, 3))
    names = [name for name, _ in named]
    assert matrices == ["first.weight", "last.weight"]
    assert names[:4] == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert names[4:] == ["idle.weight", "idle.bias"]
    assert model.training


def test_to_find_the_order_of_use_no_gpu_is_started(monkeypatch):
    def started(*_):
        raise AssertionError

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", started)
    groups.by_use(Backwards(), torch.zeros(2, 3))


class Scaled(nn.Module):
    """Layers, parameters that are none, and an auxiliary head that only training uses."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.scale, self.place = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(4, 9))
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.last, self.auxiliary = nn.Linear(4, 10), nn.Linear(4, 10)

    def forward(self, images):
        inner = (self.inner(self.stem(images)) * self.scale).flatten(2)
        inner = inner[..., :9].add(self.place).transpose(1, 2)
        inner = self.attention(inner, inner, inner, need_weights=False)[0].mean(1)
        return self.last(inner) + (self.auxiliary(inner) if self.training else 0)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_muon_takes_inner_layers_that_are_used_and_nothing_else(device):
    model = Scaled().to(device)
    named, matrices = groups.by_use(model, torch.zeros(2, 1, 9, 9, device=device))
    names = {id(one): name for name, one in named}
    muon, rest = Muon(named, matrices=matrices).param_groups
    found = [names[id(one)] for one in muon["params"]]
    assert found == ["inner.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    assert len(rest["params"]) == len(named) - 3


def test_muon_of_a_run_is_told_what_layers_are():
    config = compose("optimizer=muon")
    optimizer = prepare.make_optimizer(config, Scaled(), torch.zeros(2, 1, 9, 9))
    assert len(optimizer.param_groups[0]["params"]) == 3


@pytest.mark.slow
def test_groups_spare_norms_and_biases():
    given = ["model=resnet_light", "optimizer.decay_norms=false", "optimizer.bias_lr_factor=3"]
    optimizer = trainer(*given).optimizer
    there = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert [decay for _, decay in there] == [5e-4, 0, 0]
    assert [rate / there[0][0] for rate, _ in there] == pytest.approx([1, 1, 3])
    assert {one.ndim for one in optimizer.param_groups[0]["params"]} == {2, 4}
    assert {one.ndim for group in optimizer.param_groups[1:] for one in group["params"]} == {1}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (schedules.constant, {}),
        (schedules.step, {"step_size": 1}),
        (schedules.multistep, {"milestones": [1, 2]}),
        (schedules.cosine, {}),
        (schedules.cosine, {"min_lr": 0.05}),
        (schedules.onecycle, {}),
    ],
)
def test_schedules_keep_the_ratio_of_the_groups(make, options):
    named = list(nn.Linear(2, 2).named_parameters())
    optimizer = torch.optim.SGD([one for _, one in named], lr=0.1)
    groups.split(optimizer, named, bias_lr_factor=3)
    schedule = make(optimizer, epochs=3, batches=4, **options)
    for _ in range(3):
        for _ in range(4):
            weight, bias = (group["lr"] for group in optimizer.param_groups)
            assert bias / weight == pytest.approx(3)
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch()


def test_groups_are_of_options_of_ones_own_and_no_part_of_neutral_keys(tmp_path):
    plain, grouped = compose(), compose("optimizer.decay_norms=false")
    assert plain["optimizer"].items() >= schema.GROUPED.items()
    found = [recorded_config(config) for config in (plain, grouped)]
    assert not found[0]["optimizer"].keys() & schema.GROUPED.keys()
    assert found[1]["optimizer"]["decay_norms"] is False
    assert keys(found[0], "images", "split") != keys(found[1], "images", "split")


def test_a_gradient_is_clipped_to_its_norm():
    torch.manual_seed(0)
    model, before = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), None
    before = model[1].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    images, labels = 100 * torch.randn(8, 1, 2, 2), torch.arange(8) % 3

    def loss(logits, targets):
        return functional.cross_entropy(logits, targets)

    EagerStep(model, optimizer, device=CPU, loss=loss, clip_norm=0.5)(images, labels)
    moved = torch.cat([(model[1].weight - before).flatten(), model[1].bias.grad])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(["optimizer=schedule_free_sgd"], marks=pytest.mark.schedulefree),
        pytest.param(["optimizer=schedule_free_adamw"], marks=pytest.mark.schedulefree),
        pytest.param(["optimizer=extra", "optimizer.name=ScheduleFreeSGD", "optimizer.lr=1"],
                     marks=pytest.mark.optimizers),
    ],
)  # fmt: skip
def test_a_schedule_free_run_evaluates_and_keeps_the_mean_of_its_steps(
    given, monkeypatch, tmp_path
):
    """x of the paper's equation 5, with equal weights: the mean of all z."""
    need(given[0].partition("=")[2])
    make, total, steps, there = prepare.make_optimizer, {}, 0, None

    def watched(config, model, images):
        nonlocal there
        optimizer = make(config, model, images)

        def add(*_):
            nonlocal steps
            steps += 1
            for name, one in model.named_parameters():
                total[name] = total.get(name, 0) + optimizer.state[one]["z"].double()

        optimizer.register_step_post_hook(add)
        there = model
        return optimizer

    monkeypatch.setattr(prepare, "make_optimizer", watched)
    fixed = ["scheduler=constant", "keep_model=true", "device=cpu", "precision=fp32", "seed=0"]
    made = fmbench.run([*SHORT, *given, *fixed, f"hydra.run.dir={tmp_path / 'run'}"])
    assert steps == 6
    brought = {"timm", "schedulefree", "pytorch_optimizer"} & made.fingerprint.keys()
    assert brought == {PACKAGES[EXTRAS[given[0].partition("=")[2]]]}
    kept = fmbench.load_model(tmp_path / "run")
    weights = dict(kept.model.named_parameters())
    for name, one in there.named_parameters():
        torch.testing.assert_close(weights[name], (total[name] / steps).float())
        assert not torch.allclose(weights[name], one)
    images, labels = map(torch.tensor, load(made.config["data"]).part("test"))
    loss = functional.cross_entropy(kept(images), labels.long())
    assert made.test_loss == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("option", ["schedule_free_sgd", "schedule_free_adamw"])
@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        ([], "constant"),
        (["scheduler=cosine"], "cosine"),
        (["experiment=resnet_light"], "multistep"),
    ],
)
def test_a_schedule_free_option_has_a_constant_rate_unless_told(option, overrides, chosen):
    found = compose(f"optimizer={option}", *overrides)["scheduler"]["_target_"]
    assert found == f"fmbench.optim.schedules.{chosen}"
    assert compose()["scheduler"]["_target_"] == "fmbench.optim.schedules.onecycle"


def test_a_schedule_free_optimizer_with_another_schedule_is_told_of(caplog):
    need("schedule_free_sgd")
    trainer("optimizer=schedule_free_sgd")
    assert not caplog.messages
    trainer("optimizer=schedule_free_sgd", "scheduler=cosine")
    assert "optimizer: SGDScheduleFree is made for scheduler=constant" in caplog.text


def test_by_name_is_the_class_itself():
    one = nn.Parameter(torch.zeros(2))
    made = by_name.torch_optimizer([one], name="RAdam", lr=0.1, betas=(0.8, 0.9))
    assert type(made) is torch.optim.RAdam
    assert made.defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["optimizer=torch", "optimizer.name=RAdm"], "the closest are RAdam"),
        (["optimizer=torch", "optimizer.name=LBFGS"], "by a closure"),
        (["optimizer=torch", "optimizer.name=SparseAdam"], "sparse gradients alone"),
        (["optimizer=torch", "optimizer.name=Muon"], "take optimizer=muon"),
        (["optimizer=torch", "+optimizer.beta=1"], "RAdam has no such argument; there are: lr, "),
        (["optimizer.bias_lr_factor=0"], "optimizer.bias_lr_factor=0: must be a number above 0"),
        (["optimizer=torch", "optimizer.name=Rprop", "optimizer.decay_norms=false"],
         "this optimizer has no weight_decay"),
        (["optimizer=muon", "scheduler.cycle_momentum=true"], "two momenta, as muon has"),
        (["optimizer.decay_norms=1"], "optimizer.decay_norms=1: must be true or false"),
        (["clip_norm=0"], "clip_norm=0.0: must be 1e-09 or more"),
        (["optimizer=lion", "optimizer.betas=[1,0]"], "betas=[1, 0]: must be"),
    ],
)  # fmt: skip
def test_rehearsal_refuses(overrides, part):
    raises_one_line(lambda: prepare.rehearse(compose(*SHORT, *overrides)), ConfigError, part)


@pytest.mark.optimizers
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("SAM", "by a closure"),
        ("AdaHessian", "a second backward pass"),
        ("SOUP", "the closest are SOAP"),
        ("load_optimizer", "none of pytorch-optimizer's"),
    ],
)
def test_extra_refuses(name, part):
    need("extra")
    one = nn.Parameter(torch.zeros(2))
    raises_one_line(lambda: by_name.extra_optimizer([one], name=name), ConfigError, part)


@pytest.mark.optimizers
def test_extra_has_the_classes_that_it_names():
    package = pytest.importorskip("pytorch_optimizer", reason="needs the extra optimizers")
    for name in by_name.EXTRA:
        assert issubclass(getattr(package, name), torch.optim.Optimizer)


@pytest.mark.parametrize(("option", "extra"), EXTRAS.items())
def test_without_the_package_a_line_says_how_to_install_it(monkeypatch, option, extra):
    monkeypatch.setattr("fmbench.core.errors.find_spec", lambda name: None)
    config = compose(*SHORT, f"optimizer={option}")
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, "is not installed; pip install")


@pytest.mark.parametrize("option", OPTIONS)
def test_with_cuda_graphs_an_optimizer_is_refused_that_counts_outside_the_gpu(option):
    need(option)
    from fmbench.training.restore import refuse_unrecordable

    optimizer = trainer(f"optimizer={option}", "scheduler=constant").optimizer
    if option in ("sgd", "adam", "adamw", "nadamw", "radam", "rmsprop", "torch", "lion", "muon"):
        refuse_unrecordable(optimizer)
    else:
        raises_one_line(lambda: refuse_unrecordable(optimizer), ConfigError, "cuda_graphs=true: ")


@pytest.mark.parametrize("overrides", [
    ["optimizer.fused=false"], ["optimizer=torch", "optimizer.name=SGD", "optimizer.lr=0.1"],
])  # fmt: skip
def test_with_cuda_graphs_sgd_must_be_fused(overrides):
    """Else it asks the GPU for its learning rate, as a number."""
    from fmbench.training.restore import refuse_unrecordable

    optimizer = trainer(*overrides).optimizer
    said = "cuda_graphs=true: SGD with fused=false reads its learning rate from the GPU"
    raises_one_line(lambda: refuse_unrecordable(optimizer), ConfigError, said, "take fused=true")


class Signum(torch.optim.SGD):
    """Its step asks the GPU for no learning rate."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for one in group["params"]:
                one.sub_(group["lr"] * one.grad.sign())


def test_with_cuda_graphs_a_step_of_ones_own_in_place_of_sgds_need_not_be_fused():
    from fmbench.training.restore import refuse_unrecordable

    refuse_unrecordable(Signum([torch.zeros(3)], lr=0.1))
