"""What a checkpoint says takes the place of what a trainer has only where it is of its kind."""

import copy
import math
from functools import partial

import pytest
import torch
from test_checkpoint import from_bytes, to_bytes
from test_trainer import CPU, PLAIN, PLAIN_LOSS, image_set, silent
from torch import nn

from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import TrainLoader
from fmbench.optim import schedules
from fmbench.training.checkpoint import DamagedError, bounds
from fmbench.training.step import EagerStep
from fmbench.training.trainer import Trainer


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, fused=True)


def trainer(optimizer=adam, make=schedules.cosine, **options):
    """Of a small model in channels_last, on 200 images in 4 batches, 3 epochs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=5), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10)
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = TrainLoader(
        *image_set(), batch_size=50, seed=0, augmentation=Augmentation(), normalization=PLAIN
    )
    made = optimizer(model.parameters())
    return Trainer(
        model,
        loader=loader,
        validation=None,
        test=None,
        optimizer=made,
        schedule=make(made, epochs=3, batches=len(loader), **options),
        epochs=3,
        evaluate_every=None,
        make_step=partial(EagerStep, device=CPU, loss=PLAIN_LOSS),
        device=CPU,
    )


def saved(*what, **options):
    """The state of a trainer after its first epoch, as a checkpoint gives it back."""
    first = trainer(*what, **options)
    next(first.fit(silent))
    return from_bytes(to_bytes(first.state_dict()))


def weights(of):
    for _ in of.fit(silent):
        pass
    return {name: value.clone() for name, value in of.model.state_dict().items()}


@pytest.fixture(scope="module")
def state():
    return saved()


def own(parameters):
    """One of the user's, with state that comes later, and none of it of a parameter's shape."""

    class Own(torch.optim.SGD):
        def step(self, closure=None):
            self.defaults["steps"] = self.defaults.get("steps", 0) + 1
            for parameter in self.param_groups[0]["params"]:
                if self.defaults["steps"] > 2:
                    self.state[parameter].setdefault("late", torch.ones(7))
                self.state[parameter]["kept"] = [1, "two", None]
            super().step(closure)

    return Own(parameters, lr=0.01, momentum=0.9)


OPTIMIZERS = [
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    *("RMSprop", "Rprop", "SGD"),
]
EACH = {name: lambda p, name=name: getattr(torch.optim, name)(p, lr=0.01) for name in OPTIMIZERS}
EACH |= {
    "own": own,
    "fused": adam,
    "amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, fused=True),
    "frozen": lambda p: torch.optim.Adam(list(p)[2:]),
}


@pytest.mark.parametrize("optimizer", EACH.values(), ids=EACH)
def test_every_optimizer_goes_on_to_the_same_bits(optimizer):
    whole = weights(trainer(optimizer))
    again = trainer(optimizer)
    again.load_state_dict(saved(optimizer))
    found = weights(again)
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    stored = again.optimizer.state_dict()
    size = len(to_bytes(stored)) + len(to_bytes(again.model.state_dict()))
    assert size < bounds(again.model, again.optimizer, again.schedule.scheduler, epochs=3).file


SCHEDULES = {
    "constant": (schedules.constant, {}),
    "step": (schedules.step, {"step_size": 1}),
    "multistep": (schedules.multistep, {"milestones": [1, 2]}),
    "onecycle": (schedules.onecycle, {"cycle_momentum": True}),
}


@pytest.mark.parametrize(("make", "options"), SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_goes_on_and_only_in_its_own_way(make, options):
    again = trainer(adam, make, **options)
    state = saved(adam, make, **options)
    again.load_state_dict(copy.deepcopy(state))
    assert len(list(again.fit(silent))) == 2
    again = trainer(adam, make, **options)
    for key in state["schedule"]:
        for other in ("x", None, -1, [[]], math.nan, 10**9, torch.ones(3)):
            wrong = copy.deepcopy(state)
            wrong["schedule"][key] = other
            before = again.schedule.state_dict()
            with pytest.raises((DamagedError, RuntimeError)):
                again.load_state_dict(wrong)
            assert again.schedule.state_dict() == before


def at(*path, to):
    """Put another value at a place."""

    def change(state):
        *way, last = path
        for key in way:
            state = state[key]
        state[last] = to(state[last]) if callable(to) else to

    return change


STATE = ("optimizer", "state", 0)
AVERAGE = (*STATE, "exp_avg")
GROUP = ("optimizer", "param_groups", 0)


WRONG = {
    # Fused steps read and write as many numbers as the parameter has.
    "shape": at(*AVERAGE, to=torch.zeros(1)),
    "type": at(*AVERAGE, to=lambda tensor: tensor.double()),
    "layout": at(*AVERAGE, to=lambda tensor: tensor.contiguous().to_sparse()),
    "meta": at(*AVERAGE, to=lambda tensor: tensor.to("meta")),
    "no tensor": at(*AVERAGE, to=5),
    "steps of another shape": at(*STATE, "step", to=torch.zeros(3)),
    "steps that are none": at(*STATE, "step", to=torch.tensor(math.nan)),
    "too little": lambda state: state["optimizer"]["state"][0].pop("exp_avg_sq"),
    "too much": at(*STATE, "max_exp_avg_sq", to=torch.zeros(1)),
    "another parameter": at("optimizer", "state", 99, to={}),
    "no state": at("optimizer", "state", to=None),
    "no optimizer": at("optimizer", to=7),
    "amsgrad": at(*GROUP, "amsgrad", to=True),
    "not fused": at(*GROUP, "fused", to=False),
    "betas": at(*GROUP, "betas", to=0.5),
    "eps": at(*GROUP, "eps", to="x"),
    "rate": at(*GROUP, "lr", to="x"),
    "rate that is none": at(*GROUP, "lr", to=math.nan),
    "other parameters": at(*GROUP, "params", to=[0, 0, 0, 0]),
    "a setting more": at(*GROUP, "evil", to=1),
    "no schedule": at("schedule", to=None),
    "method of the schedule": at("schedule", "step", to=1),
    # The model's own.
    "weights": at("model", "0.weight", to=torch.zeros(3)),
    "weights of another type": at("model", "0.weight", to=lambda tensor: tensor.half()),
    "weights too few": lambda state: state["model"].pop("3.bias"),
    "weights too many": at("model", "evil", to=torch.zeros(1)),
    "counted batches": at("model", "1.num_batches_tracked", to=torch.tensor(0.5)),
    "no model": at("model", to=[]),
    # Sums, clocks and the position.
    "sums": at("sums", "loss", to=torch.zeros(2)),
    "no sums": at("sums", to={}),
    "epoch below": at("position", "epoch", to=-1),
    "epoch beyond": at("position", "epoch", to=4),
    "images beyond": at("position", "seen", to=250),
    "half a batch": at("position", "seen", to=25),
    "rate of the epoch": at("position", "learning_rate", to="x"),
    "seconds": at("position", "seconds", to=math.inf),
    "no position": at("position", to=None),
    "clock": at("clocks", "train", to=-1.0),
    "clocks": at("clocks", to={"train": 0.0}),
    # Random numbers: NumPy would read where it is told to.
    "numpy below": at("random", "numpy", 2, to=-5),
    "numpy beyond": at("random", "numpy", 2, to=10**9),
    "numpy of another length": at("random", "numpy", 1, to=torch.zeros(3, dtype=torch.int64)),
    "numpy's name": at("random", "numpy", 0, to="PCG64"),
    "python": at("random", "python", 1, to=[10**30] * 625),
    "python's position": at("random", "python", 1, to=[0] * 624 + [10**6]),
    "torch": at("random", "torch", to=torch.zeros(3, dtype=torch.uint8)),
    "torch all ones": at("random", "torch", to=lambda tensor: torch.full_like(tensor, 255)),
    "no random numbers": at("random", to=[]),
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_of_another_kind_is_refused(change, state):
    wrong = copy.deepcopy(state)
    change(wrong)
    again = trainer()
    with pytest.raises(Exception) as raised:  # noqa: PT011 - `checkpointing.restore` says all in one line
        again.load_state_dict(wrong)
    assert "\n" not in str(raised.value) or not isinstance(raised.value, DamagedError)


@pytest.mark.parametrize("shared", [
    torch.zeros(1).expand(10, 288),
    torch.zeros(10, 288),
    torch.zeros(288, 10).T,
    torch.zeros(10, 300)[:, :288],
], ids=["one number", "one tensor", "other strides", "a part of one"])  # fmt: skip
def test_numbers_that_share_their_memory_get_memory_of_their_own(shared, state):
    """One number for all, and one tensor in two places: a step would write into both."""
    wrong = copy.deepcopy(state)
    for key in ("exp_avg", "exp_avg_sq"):
        wrong["optimizer"]["state"][4][key] = shared
    again = trainer()
    again.load_state_dict(wrong)
    parameter = again.optimizer.param_groups[0]["params"][4]
    first, second = (again.optimizer.state[parameter][key] for key in ("exp_avg", "exp_avg_sq"))
    assert first.is_contiguous()
    assert first.untyped_storage().nbytes() == parameter.nbytes
    assert first.data_ptr() != second.data_ptr()


def test_state_lies_in_memory_as_its_parameter_does(state):
    other = copy.deepcopy(state)
    for entries in other["optimizer"]["state"].values():
        for key in ("exp_avg", "exp_avg_sq"):
            entries[key] = entries[key].contiguous()
    again = trainer()
    again.load_state_dict(other)
    for parameter in again.model.parameters():
        assert again.optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()


def test_what_an_optimizer_of_ones_own_keeps_is_not_larger_than_its_file():
    state = saved(own)
    state["optimizer"]["state"][0]["late"] = torch.zeros(1).expand(10**12)
    with pytest.raises(DamagedError, match="is not stored number by number"):
        trainer(own).load_state_dict(state)
