"""Optimizers of a user's own, which are tried on small parameters before a run."""

import time

import pytest
import torch
from commands import TINY, compose, raises_one_line
from torch import nn

from fmbench.core.errors import ConfigError
from fmbench.runs import prepare
from fmbench.training.rehearsal import rehearse_optimizer

CPU = torch.device("cpu")


class Momentum(torch.optim.Optimizer):
    """As it should be; the others go wrong in one place."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    self.update(one, group["lr"])

    def update(self, one, lr):
        if not self.state[one]:
            self.state[one]["m"] = torch.zeros_like(one)
        one.sub_(lr * self.state[one]["m"].lerp_(one.grad, 0.1))


class Noisy(Momentum):
    """Draws, and keeps what needs no checkpoint."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.watched = self.param_groups[0]["params"]
        self.shapes = None
        self.rate = lambda: lr

    def update(self, one, lr):
        self.shapes = self.shapes or [one.shape for one in self.watched]
        super().update(one, self.rate())
        one.add_(torch.randn_like(one), alpha=lr)


class Saves(Momentum):
    """Puts what it counts into its groups."""

    def update(self, one, lr):
        group = self.param_groups[0]
        group["updates"] = group.get("updates", 0) + 1
        super().update(one, lr / group["updates"])


class Ranked(Momentum):
    """Needs longer sides than a small parameter has."""

    def update(self, one, lr):
        super().update(one, lr)
        assert one.ndim < 2 or min(one.shape) >= 6


class Hidden(Momentum):
    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.m = {}

    def update(self, one, lr):
        one.sub_(lr * self.m.setdefault(one, torch.zeros_like(one)).lerp_(one.grad, 0.1))


class Counts(Momentum):
    steps = 0

    def update(self, one, lr):
        self.steps += 1
        super().update(one, lr / self.steps)


class Timed(Momentum):
    def update(self, one, lr):
        self.at = time.perf_counter()
        super().update(one, lr)


class FromStart(Momentum):
    """Keeps the weights of the first step, which are others after a pause."""

    start = None

    def update(self, one, lr):
        self.start = self.start or [one.clone() for one in self.param_groups[0]["params"]]
        super().update(one, lr)


class Closed(Momentum):
    """Remembers where no attribute shows it."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        seen = []
        self.count = lambda: seen.append(0) or len(seen)

    def update(self, one, lr):
        super().update(one, lr / self.count())


class Closure(Momentum):
    def step(self, closure):
        closure()


class Tracked(Momentum):
    def step(self):
        for one in self.param_groups[0]["params"]:
            one -= 0.1 * one.grad  # noqa: PLW2901


class NoState(Momentum):
    def state_dict(self):
        raise NotImplementedError


class NumPyState(Momentum):
    def update(self, one, lr):
        self.state[one]["m"] = one.grad.numpy()


class OwnNames(Momentum):
    def state_dict(self):
        return {"momenta": [one["m"] for one in self.state.values()]}


NO_CHECKPOINT = "which no checkpoint holds; what an optimizer remembers must be in self.state"

FAULTS = [
    (Closure, ["optimizer: it fails in step(), which is called without arguments", "'closure'"]),
    (Tracked, ["outside torch.no_grad(): RuntimeError: a leaf Variable", "(test_own_"]),
    (Hidden, ["optimizer: changes m in a step", NO_CHECKPOINT]),
    (FromStart, ["optimizer: changes start in a step", NO_CHECKPOINT]),
    (Closed, ["optimizer: steps otherwise after it has loaded its state_dict"]),
    (NoState, ["optimizer: it fails in state_dict(): NotImplementedError"]),
    (NumPyState, ["optimizer: it has a state that does not load back", "more than tensors"]),
    (OwnNames, ["optimizer: it has a state that does not load back", "'state'"]),
]  # fmt: skip


def over(kind, shapes=((8, 6), (8,))):
    def make(most):
        sides = [[min(side, most or side) for side in shape] for shape in shapes]
        return kind([nn.Parameter(torch.zeros(one)) for one in sides])

    return make


@pytest.mark.parametrize(("kind", "parts"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_an_optimizer_that_cannot_train_or_resume_is_refused(kind, parts):
    raises_one_line(lambda: rehearse_optimizer(over(kind), CPU), ConfigError, *parts)


@pytest.mark.parametrize("kind", [Momentum, Noisy, Saves, Counts, Timed, Ranked, torch.optim.AdamW])
def test_an_optimizer_that_can_is_not(kind):
    before = torch.get_rng_state()
    rehearse_optimizer(over(kind), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_that_counts_cannot_be_recorded():
    said = "cuda_graphs=true: optimizer: changes steps when it is called"
    raises_one_line(lambda: rehearse_optimizer(over(Counts), CPU, recorded=True), ConfigError, said)
    rehearse_optimizer(over(Saves), CPU, recorded=True)  # see `refuse_unrecordable`


@pytest.fixture
def trusted(monkeypatch):
    monkeypatch.setenv("FMBENCH_TRUST", __name__)

    def composed(kind):
        config = compose(*TINY)
        return {**config, "optimizer": {"_target_": f"{__name__}.{kind}", "lr": 0.01}}

    return composed


def test_a_run_tries_it_first(trusted):
    """A single run before its folder is made, a run of a sweep and a plan when they are made."""
    config = trusted("Hidden")
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, "optimizer: changes m")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images = torch.zeros(2, 1, 28, 28)
    raises_one_line(
        lambda: prepare.make_optimizer(config, model, images), ConfigError, "optimizer: changes m"
    )


def test_the_trial_leaves_the_model_and_takes_no_memory_of_its_size(trusted, monkeypatch):
    config, sizes = trusted("Momentum"), []
    monkeypatch.setattr(
        prepare.rehearsal,
        "rehearse_optimizer",
        lambda make, device, **options: (
            sizes.extend(one.numel() for one in make(4).param_groups[0]["params"]),
            rehearse_optimizer(make, device, **options),
        ),
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    weights = [one.clone() for one in model.parameters()]
    optimizer = prepare.make_optimizer(config, model, torch.zeros(2, 1, 28, 28))
    assert sizes == [16, 4]
    assert not optimizer.state
    torch.testing.assert_close(list(model.parameters()), weights, rtol=0, atol=0)
    assert all(one.grad is None for one in model.parameters())
    prepare.make_optimizer(compose(*TINY, "optimizer=adamw"), model, torch.zeros(2, 1, 28, 28))
    assert len(sizes) == 2  # PyTorch's own is not tried
