import copy
import itertools
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from commands import raises_one_line
from test_trainer import CPU, PLAIN, image_set, silent
from torch import nn

from fmbench.core.errors import ConfigError
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, TrainLoader
from fmbench.optim import schedules
from fmbench.optim.schedule_free import schedule_free_sgd
from fmbench.training.averaging import OptimizerAverage, ema, recompute_statistics, swa
from fmbench.training.checkpoint import read_state, write_state
from fmbench.training.early_stop import EarlyStop
from fmbench.training.losses import CrossEntropy, Focal, SquaredError
from fmbench.training.step import EagerStep, GraphStep
from fmbench.training.trainer import Trainer, evaluate

LOSS = CrossEntropy(classes=10)


class ScheduleFree(torch.optim.SGD):
    """Evaluates half of its weights, as a schedule-free optimizer does something like it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.mode = "evaluation"

    @torch.no_grad()
    def _scale(self, factor):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(factor)

    def train(self):
        if self.mode != "training":
            self._scale(3.0)
        self.mode = "training"

    def eval(self):
        if self.mode == "training":
            self._scale(1 / 3)
        self.mode = "evaluation"

    def step(self, closure=None):
        assert self.mode == "training"
        return super().step(closure)


def trainer(
    *, average=None, schedule=schedules.constant, loss=LOSS, epochs=2, optimizer=torch.optim.SGD,
    micro_batch=None, norm=True, kind=EagerStep, lr=0.01, momentum=0.9, **options,
):  # fmt: skip
    """Of a tiny model on 200 images in 4 batches of 48 and one of 8, validated on the same."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 6), nn.BatchNorm1d(6) if norm else nn.ReLU()]
    model = nn.Sequential(*layers, nn.Dropout(0.2 if norm else 0), nn.Linear(6, 10))
    images, labels = image_set()
    loader = TrainLoader(
        images, labels, batch_size=48, seed=0, augmentation=Augmentation(), normalization=PLAIN
    )
    evaluation = EvaluationLoader(images, labels, normalization=PLAIN, batch_size=100)
    made = optimizer(model.parameters(), lr=lr, momentum=momentum)
    sizes = {"epochs": epochs, "batches": len(loader)}
    return Trainer(
        model, loader=loader, validation=evaluation, test=evaluation, optimizer=made,
        schedule=schedule(made, **sizes), epochs=epochs, evaluate_every=None,
        make_step=partial(kind, device=CPU, loss=loss, micro_batch=micro_batch), device=CPU,
        average=average(model, made, **sizes) if average else None, **options,
    )  # fmt: skip


def of_weights(make, **options):
    return lambda model, _optimizer, **sizes: make(model, **sizes, **options)


def of_optimizer(model, optimizer, **_sizes):
    return OptimizerAverage(model, optimizer)


METHODS = {
    **{name: {"schedule": getattr(schedules, name)} for name in (
        "linear", "cosine_warmup", "polynomial", "wsd", "exponential"
    )},
    "plateau": {
        "schedule": partial(schedules.plateau, patience=1, metric="loss"), "epochs": 3, "lr": 2.0,
    },
    "ema": {"average": of_weights(ema)},
    "swa": {"average": of_weights(swa, start=0), "epochs": 3},
    "schedule-free": {"average": of_optimizer, "optimizer": ScheduleFree},
    "focal": {"loss": Focal(classes=10)},
    "mse": {"loss": SquaredError(classes=10)},
    "accumulation": {"micro_batch": 20},
    "early stop": {"early_stop": EarlyStop(patience=2), "epochs": 9},
    "flips": {"flips": True},
}  # fmt: skip


if find_spec("schedulefree") is not None:
    METHODS["schedulefree"] = {"average": of_optimizer, "optimizer": schedule_free_sgd, "lr": 0.5}


def through_a_file(state, path):
    with path.open("wb") as file:
        write_state(state, file)
    with path.open("rb") as file:
        return read_state(file)


class KilledError(Exception):
    pass


# PyTorch says so where a process resumes after the last step of an epoch.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("after", [3, 6, 9])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_killed_and_resumed_to_the_same_bits(method, after, tmp_path):
    """After some batches: in the first epoch, in its evaluation, between its parts, later."""
    made = partial(trainer, **copy.deepcopy({k: v for k, v in method.items() if k != "average"}),
                   average=method.get("average"))  # fmt: skip
    whole = made()
    expected = list(whole.fit(silent))
    killed, states, counted = made(), [], itertools.count(1)
    killed.early_stop = copy.deepcopy(method.get("early_stop", EarlyStop()))

    def between():
        if next(counted) == after:
            states.append(through_a_file(killed.state_dict(), tmp_path / "state"))
            raise KilledError

    before = []
    with pytest.raises(KilledError):
        before.extend(killed.fit(silent, between))
    resumed = made()
    resumed.early_stop = copy.deepcopy(method.get("early_stop", EarlyStop()))
    resumed.load_state_dict(states[0])
    rest = list(resumed.fit(silent))
    assert len(rest) >= 1
    for one, two in zip(expected[-len(rest) :], rest, strict=True):
        assert (one.train, one.validation, one.test) == (two.train, two.validation, two.test)
        assert (one.learning_rate, one.last) == (two.learning_rate, two.last)
    for first, second in [(whole.model, resumed.model), (whole.evaluated(), resumed.evaluated())]:
        for name, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), name


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def trained(fit):
    """The weights of training after each step, and the epochs."""
    found, after_batch = [], fit.schedule.after_batch

    def noted():
        after_batch()
        found.append(weights(fit.model))

    fit.schedule.after_batch = noted
    return found, list(fit.fit(silent))


def test_an_exponential_average_is_that_of_the_formula():
    fit = trainer(average=of_weights(ema, decay=0.5))
    found, _ = trained(fit)
    average = found[0]
    for t, value in enumerate(found[1:], 2):
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * value
    torch.testing.assert_close(weights(fit.evaluated()), average)


def test_swa_is_the_mean_of_the_last_epochs():
    fit = trainer(average=of_weights(swa, start=0.5), epochs=4)
    found, epochs = trained(fit)
    ends = found[4::5]
    torch.testing.assert_close(weights(fit.evaluated()), (ends[2] + ends[3]) / 2)
    # Before there is an average, the weights of training are evaluated.
    plain = list(trainer(epochs=4).fit(silent))
    assert [one.validation == two.validation for one, two in zip(epochs, plain, strict=True)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_averages_leave_training_as_it_is():
    plain = trainer()
    expected = list(plain.fit(silent))
    for average in (of_weights(ema), of_weights(swa)):
        fit = trainer(average=average)
        assert [epoch.train for epoch in fit.fit(silent)] == [epoch.train for epoch in expected]
        for name, value in plain.model.state_dict().items():
            assert torch.equal(value, fit.model.state_dict()[name]), name


def test_a_schedule_free_optimizer_is_evaluated_in_its_mode_and_trains_on_in_the_other():
    fit = trainer(average=of_optimizer, optimizer=ScheduleFree, lr=1e-9)
    before = weights(fit.model)
    for _ in fit.fit(silent):
        assert fit.optimizer.mode == "training"
        torch.testing.assert_close(weights(fit.evaluated()), weights(fit.model) / 3)
    torch.testing.assert_close(weights(fit.model), before)


def test_statistics_are_those_of_the_images_under_the_weights():
    fit = trainer(average=of_weights(ema))
    list(fit.fit(silent))
    model = fit.evaluated()
    hidden = [nn.Flatten(), model[1]]
    batches = list(itertools.islice(fit.loader.epoch(0), 4))
    with torch.no_grad():
        means = [nn.Sequential(*hidden)(images).mean(0) for images, _ in batches]
    torch.testing.assert_close(model[2].running_mean, torch.stack(means).mean(0))
    assert not model.training
    assert model[2].momentum == 0.1
    state = torch.get_rng_state()
    recompute_statistics(model, [images for images, _ in batches], device=CPU)
    assert torch.equal(state, torch.get_rng_state())  # dropout drew nothing


@pytest.mark.parametrize(("make", "options", "part"), [
    (ema, {"decay": 1}, "averaging.decay=1"),
    (swa, {"start": 1}, "averaging.start=1"),
])  # fmt: skip
def test_refuses(make, options, part):
    raises_one_line(
        lambda: make(nn.Linear(1, 1), epochs=2, batches=2, **options), ConfigError, part
    )


@pytest.mark.parametrize("micro_batch", [7, 12, 24, 47])
def test_a_batch_in_parts_is_the_step_of_the_whole(micro_batch):
    plain = trainer(norm=False)
    expected = list(plain.fit(silent))
    parted = trainer(norm=False, micro_batch=micro_batch)
    for one, two in zip(expected, parted.fit(silent), strict=True):
        assert two.train.loss == pytest.approx(one.train.loss, rel=1e-5)
        assert two.train.accuracy == one.train.accuracy
    torch.testing.assert_close(weights(parted.model), weights(plain.model))


def test_a_recorded_step_takes_parts_too():
    whole, parted = trainer(norm=False), trainer(norm=False, micro_batch=20)
    parted.__dict__["step"] = GraphStep(
        parted.step, batch_size=48, recorder=lambda function: function
    )
    for one, two in zip(whole.fit(silent), parted.fit(silent), strict=True):
        assert two.train.loss == pytest.approx(one.train.loss, rel=1e-4)


def test_flips_evaluate_the_mean_of_an_image_and_its_mirror():
    fit = trainer(flips=True, epochs=1)
    (epoch,) = fit.fit(silent)
    images = torch.cat([images for images, _ in fit.test])
    with torch.no_grad():
        logits = (fit.model.eval()(images) + fit.model(images.flip(-1))) / 2
    assert epoch.test.accuracy == (logits.argmax(1) == fit.test.labels).float().mean().item()
    loss = nn.functional.cross_entropy(logits, fit.test.labels).item()
    assert epoch.test.loss == pytest.approx(loss, rel=1e-5)


def test_the_mean_of_an_image_and_its_mirror_is_not_rounded_to_bfloat16():
    class Left(nn.Module):
        def forward(self, images):
            left = images[:, 0, 0, 0]
            return torch.stack([left, 0 * left], dim=1).bfloat16()

    images = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    images[..., 0], images[..., 1] = 200, 3
    loader = EvaluationLoader(images, torch.zeros(1, dtype=torch.int64), normalization=PLAIN,
                              batch_size=1)  # fmt: skip
    of_both = [Left()(PLAIN(one)).float() for one in (images, images.flip(-1))]
    _, said = evaluate(Left(), loader, device=CPU, flips=True, most=2)
    assert torch.equal(said.probabilities, (sum(of_both) / 2).softmax(1))


def test_early_stopping_counts_the_epochs_without_a_better_value():
    stop = EarlyStop(patience=2)
    for epoch, value in enumerate([0.5, 0.6, 0.6, 0.7, 0.7], 1):
        stop.note(epoch, value)
        assert stop.why is None
    assert stop.ends(6, 0.8) is None
    stop.note(6, 0.69)
    assert stop.why == "no better validation accuracy for 2 epochs"
    losses = EarlyStop(patience=1, metric="loss")
    losses.note(1, 0.5)
    losses.note(2, 0.4)
    assert losses.why is None
    losses.note(3, 0.4)
    assert losses.why == "no better validation loss for 1 epoch"


def test_a_run_that_stops_early_is_replayed_without_validation():
    schedule = partial(schedules.plateau, patience=1, factor=0.5)
    stopped = trainer(schedule=schedule, epochs=30, early_stop=EarlyStop(patience=4), lr=1e-5)
    epochs = list(stopped.fit(silent))
    assert [epoch.last for epoch in epochs] == [False] * (len(epochs) - 1) + [True]
    assert epochs[-1].test is not None
    assert len(epochs) < 30
    drops = stopped.schedule.drops
    assert drops
    replay = trainer(
        schedule=partial(schedules.plateau, factor=0.5, drops=drops),
        epochs=30, early_stop=EarlyStop(after=len(epochs)), lr=1e-5,
    )  # fmt: skip
    replay.validation = None
    again = list(replay.fit(silent))
    assert [one.learning_rate for one in again] == [one.learning_rate for one in epochs]
    assert again[-1].test == epochs[-1].test
    assert torch.equal(weights(replay.model), weights(stopped.model))
