import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from commands import TINY, compose, raises_one_line
from torch import nn
from tutorials import Centered

from fmbench.core.errors import ConfigError
from fmbench.runs import prepare
from fmbench.training.device import Device
from fmbench.training.losses import (
    CrossEntropy,
    Focal,
    SquaredError,
    read_weights,
    refuse_unusable,
    tried,
)
from fmbench.training.step import NOT_COUNTED, EagerStep
from fmbench.training.trainer import train_epoch

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)

COUNTS = [50, 30, 15, 5]
WEIGHTS = [0.5, 1.0, 2.0, 0.0]

LOSSES = {
    "plain": CrossEntropy(classes=4),
    "smooth and weighted": CrossEntropy(
        classes=4, class_counts=COUNTS, label_smoothing=0.1, class_weights="balanced"
    ),
    "focal": Focal(classes=4),
    "focal of roots": Focal(classes=4, gamma=0.5, class_weights=WEIGHTS),
    "square": SquaredError(classes=4),
    "rescaled square": SquaredError(classes=4, weight=5.0, target=3.0),
}


def batch(images=6):
    drawn = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, 4, generator=drawn)
    return logits.requires_grad_(), torch.randint(0, 4, (images,), generator=drawn)


def by_hand(loss, logits, label):
    """The loss of one image, in Python's own numbers."""
    p = [math.exp(value) for value in logits]
    p = [value / sum(p) for value in p]
    if isinstance(loss, SquaredError):
        others = sum(value**2 for index, value in enumerate(logits) if index != label)
        return (loss.weight * (logits[label] - loss.target) ** 2 + others) / 4
    weights = [1.0] * 4 if loss.weights is None else loss.weights.tolist()
    if isinstance(loss, Focal):
        return -weights[label] * (1 - p[label]) ** loss.gamma * math.log(p[label])
    spread = loss.label_smoothing
    each = [-weight * math.log(share) for weight, share in zip(weights, p, strict=True)]
    return (1 - spread) * each[label] + spread * sum(each) / 4


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_what_the_papers_say(loss):
    logits, labels = batch()
    each = [by_hand(loss, *pair) for pair in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert loss(logits, labels).item() == pytest.approx(sum(each) / 6, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_shares_of_classes_weigh_the_losses_of_the_classes(loss):
    logits, labels = batch()
    one_hot = F.one_hot(labels, 4).float()
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, labels))
    mixed = 0.3 * one_hot + 0.7 * one_hot.flip(0)
    halves = 0.3 * loss(logits, labels) + 0.7 * loss(logits, labels.flip(0))
    torch.testing.assert_close(loss(logits, mixed), halves)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_finite_where_the_model_is_sure(loss):
    logits = torch.tensor([[200.0, 0.0, 0.0, 0.0]] * 2, requires_grad=True)
    loss(logits, torch.tensor([0, 1])).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_focal_loss_of_gamma_0_is_cross_entropy():
    logits, labels = batch()
    torch.testing.assert_close(
        Focal(classes=4, gamma=0)(logits, labels), F.cross_entropy(logits, labels)
    )


def test_balanced_weights_have_mean_1_over_the_training_images():
    weights = read_weights("balanced", 4, COUNTS)
    assert (weights * torch.tensor(COUNTS)).sum() / 100 == pytest.approx(1)
    assert (weights * torch.tensor(COUNTS)).tolist() == pytest.approx([25] * 4)
    with pytest.raises(ConfigError, match="class 1 has no training images"):
        read_weights("balanced", 4, [1, 0, 1, 0])


@pytest.mark.parametrize(("overrides", "parts"), [
    (["loss.class_weights=[1,2]"], ["loss.class_weights=[1, 2]", "each of 10 classes"]),
    (["loss.class_weights=2"], ["loss.class_weights=2: must be null, balanced, or a number"]),
    (["loss.class_weights=true"], ["loss.class_weights=True: must be null"]),
    (["loss.class_weights=[1e300,1,1,1,1,1,1,1,1,1]"], ["1e+300", "0 to 1e+06 and not all 0"]),
    (["loss.class_weights=inverse"], ["loss.class_weights=inverse", "balanced"]),
    (["loss=focal", "loss.gamma=-1"], ["loss.gamma=-1", "0 or more"]),
    (["loss=mse", "loss.weight=0"], ["loss.weight=0", "above 0"]),
    (["+loss.temperature=2"], ["loss", "temperature"]),
    (["loss=focal", "label_smoothing=0.1"], ["label_smoothing=0.1", "loss=cross_entropy"]),
    (["label_smoothing=0.1", "loss.label_smoothing=0.2"], ["loss's is 0.2"]),
    (["loss._target_=torch.load"], ["loss._target_=torch.load", "not allowed"]),
])  # fmt: skip
def test_what_no_loss_can_be_made_of_is_refused_before_anything_is_written(overrides, parts):
    config = compose(*TINY, *overrides)
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, *parts)


class Spread:
    """A loader that gives shares of the classes, as mixup does."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def __len__(self):
        return len(self.loader)

    def epoch(self, *args, **options):
        for images, labels in self.loader.epoch(*args, **options):
            yield images, F.one_hot(labels, 10) * 0.8 + 0.02


def made(loss, *, spread=True, device=CPU):
    config = compose(*TINY)
    inputs = prepare.read_inputs(config)
    loader = prepare.make_train_loader(config, inputs, torch.device("cpu"))
    loader = Spread(loader) if spread else loader
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    prepare.rehearsal.rehearse(model, loader, loss=loss, classes=10, evaluated=[50], device=device)
    return model, loader


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, SquaredError])
def test_training_on_shares_counts_no_right_predictions(loss):
    model, loader = made(loss(classes=10))
    step = EagerStep(
        model, torch.optim.SGD(model.parameters(), 0.01), device=CPU, loss=loss(classes=10)
    )
    schedule = prepare.Schedule(torch.optim.lr_scheduler.ConstantLR(step.optimizer), "epoch")
    run = partial(train_epoch, model, step=step, schedule=schedule, report=lambda *_: None)
    found = run(loader.epoch(0))
    assert found.accuracy is None
    assert step.correct.item() == NOT_COUNTED
    assert math.isfinite(found.loss)
    assert run(loader.loader.epoch(1)).accuracy is not None


def of_labels_alone(logits, labels):
    return -logits.log_softmax(1).gather(1, labels[:, None]).mean()


@pytest.mark.parametrize(("loss", "parts"), [
    (of_labels_alone, ["loss: it fails on the shares", "(64, 10)", "test_losses.py"]),
    (nn.CrossEntropyLoss(reduction="none"), ["loss: gives (64,)", "the mean of a batch"]),
    (lambda logits, _: logits.detach().mean(), ["loss: gives () without a gradient", "detached"]),
])  # fmt: skip
def test_a_loss_of_ones_own_that_fails_is_refused_in_one_line(loss, parts):
    raises_one_line(lambda: made(loss), ConfigError, *parts)


def test_a_loss_of_labels_alone_trains_on_labels():
    made(of_labels_alone, spread=False)


@pytest.mark.parametrize(("fault", "parts"), [
    ("list", ["loss: changes seen", "register_buffer", "or numbers"]),
    ("not persistent", ["loss: changes aside"]),
    ("late", ["buffer late must be made in __init__"]),
    ("gradient", ["buffer center", "must be detached"]),
])  # fmt: skip
def test_a_loss_that_remembers_what_no_checkpoint_holds_is_refused(fault, parts):
    raises_one_line(lambda: made(Centered(classes=10, fault=fault)), ConfigError, *parts)


def test_a_loss_may_count_in_an_attribute_where_its_steps_are_not_recorded():
    loss = Centered(classes=10, fault="attribute")
    made(loss)
    assert loss.calls == 0

    def recorded():
        with tried(loss, recorded=True) as copy:
            copy(torch.zeros(2, 10, requires_grad=True), torch.zeros(2, dtype=torch.int64))

    raises_one_line(recorded, ConfigError, "cuda_graphs=true: the loss changes calls when")


def test_a_class_in_place_of_a_loss_is_refused():
    said = "loss: must give what is called with logits and targets, gives a type"
    raises_one_line(
        lambda: refuse_unusable(Focal, CPU.torch), ConfigError, said, "for a function add _partial_"
    )


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, logits, targets):
        self.calls += 1
        return F.cross_entropy(logits, targets)

    loss = __call__


@pytest.mark.parametrize("loss", [Counting(), Counting().loss])
def test_a_loss_that_is_no_module_may_count(loss):
    made(loss)
    assert getattr(loss, "__self__", loss).calls == 0


def test_a_function_may_remember_nothing():
    raises_one_line(lambda: made(partial(Counting())), ConfigError, "loss: changes ")


def test_a_recorded_step_follows_no_buffer_that_is_replaced():
    loss, (logits, labels) = Centered(classes=4, fault="replaced"), batch()
    with tried(loss) as copy:
        copy(logits, labels)

    def recorded():
        with tried(loss, recorded=True) as copy:
            copy(logits, labels)

    raises_one_line(recorded, ConfigError, "cuda_graphs=true: the loss puts", "center")


def test_trials_leave_what_a_loss_remembers():
    loss, options = Centered(classes=10), {"device": CPU, "spread": False}
    made(loss, **options)
    assert not loss.center.any()
    config = compose(*TINY, "epochs=20")
    inputs = prepare.read_inputs(config)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    trainer = prepare.make_trainer(config, inputs, model, CPU, flops=1)
    trainer.device = Device(torch.device("cpu"), "fp32", threads=2, deterministic=False)
    trainer.make_step = partial(trainer.make_step, loss=loss)
    trainer.faster_threads(flops=1)
    torch.set_num_threads(1)
    assert not loss.center.any()


def test_label_smoothing_has_two_names_and_one_key():
    top, inner = compose("label_smoothing=0.1"), compose("loss.label_smoothing=0.1")
    assert top["label_smoothing"] == inner["label_smoothing"] == 0.1
    recorded = prepare.configuration.schema.as_recorded
    assert recorded(top) == recorded(inner)
    assert "loss" not in recorded(top)
    assert recorded(compose("loss=focal"))["loss"]["gamma"] == 2.0
