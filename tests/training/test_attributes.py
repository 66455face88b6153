"""Numbers that a user's model, optimizer or loss keeps as attributes: a checkpoint holds them."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from commands import raises_one_line
from test_checkpoint import from_bytes, to_bytes
from test_trainer import CPU, PLAIN, image_set, silent
from torch import nn

from fmbench.core.errors import ConfigError
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, TrainLoader
from fmbench.optim import schedules
from fmbench.training.attributes import Numbers, numbers, put_numbers, refuse_counting
from fmbench.training.averaging import no_average, swa
from fmbench.training.step import EagerStep
from fmbench.training.trainer import Trainer


class Counting(nn.Module):
    """Each call counts, and changes what the next ones give."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls, self.most = nn.Linear(784, 10), 0, "unknown"
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        self.batches += torch.rand(())
        self.most = max(self.calls / 2, 1.0)
        return self.inner(images.flatten(1)) / self.most + self.batches * images.flatten(1)[:, :10]


class Descent(torch.optim.SGD):
    steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.steps += 1
        for one in self.param_groups[0]["params"]:
            one.grad /= self.steps
        return super().step(closure)


class Rising:
    calls = 0

    def __call__(self, logits, labels):
        self.calls += 1
        return F.cross_entropy(logits, labels) * self.calls


from_start = partial(swa, start=0)


def trainer(average=from_start):
    """On 200 images in 4 batches, 3 epochs."""
    torch.manual_seed(0)
    model, (images, labels) = Counting(), image_set()
    loader = TrainLoader(
        images, labels, batch_size=50, seed=0, augmentation=Augmentation(), normalization=PLAIN
    )
    optimizer = Descent(model.parameters(), lr=0.1)
    return Trainer(
        model,
        loader=loader,
        validation=EvaluationLoader(images, labels, normalization=PLAIN, batch_size=50),
        test=None,
        optimizer=optimizer,
        schedule=schedules.constant(optimizer, epochs=3, batches=4),
        epochs=3,
        evaluate_every=None,
        make_step=partial(EagerStep, device=CPU, loss=Rising()),
        device=CPU,
        average=average(model, epochs=3, batches=4),
    )


def outcome(of, epochs):
    made = [epoch.validation.loss for epoch in of.fit(silent)]
    assert len(made) == epochs
    counted = (of.model.calls, of.model.most, of.optimizer.steps, of.step.loss.calls)
    evaluated = of.evaluated()
    return made[-1], of.model.state_dict(), counted, evaluated.state_dict(), evaluated.calls


def test_a_run_that_counts_in_attributes_resumes_to_the_same_bits():
    begun, whole, resumed = trainer(), trainer(), trainer()
    torch.manual_seed(0)
    expected = outcome(whole, 3)
    torch.manual_seed(0)
    next(begun.fit(silent))
    state = from_bytes(to_bytes(begun.state_dict()))
    assert {*state["numbers"]} == {"model", "optimizer", "average", "loss"}
    assert state["numbers"]["model"] == {"calls": 4, "most": 2.0}
    resumed.load_state_dict(state)
    torch.testing.assert_close(outcome(resumed, 2), expected, rtol=0, atol=0)


@pytest.mark.parametrize("average", [from_start, no_average])
def test_a_run_that_is_stopped_in_an_evaluation_repeats_it_to_the_same_bits(average):
    whole, begun, resumed = (trainer(average) for _ in range(3))
    torch.manual_seed(0)
    expected, saved = outcome(whole, 3), []

    def between():
        saved.append(to_bytes(begun.state_dict()))
        if len(saved) == 4 + 3:  # batches of training and of evaluation
            raise KeyboardInterrupt

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        next(begun.fit(silent, between))
    resumed.load_state_dict(from_bytes(saved[-1]))
    torch.testing.assert_close(outcome(resumed, 3), expected, rtol=0, atol=0)


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.whole, self.share, self.where, self.most = True, math.pi, "a/path", math.nan
        self.table, self.shape, self.none = {"a": 1}, torch.Size([1, 2]), None
        self.itself = [self.table]
        self.itself.append(self.itself)
        self.register_buffer("held", torch.ones(()))


def test_only_numbers_of_the_users_own_classes_are_held():
    part = nn.Sequential(Part())
    assert str(numbers(part)) == str(
        {"0.whole": True, "0.share": math.pi, "0.most": math.nan, "0.none": None}
    )
    for other in (nn.Linear(2, 2), torch.optim.SGD(part.parameters(), lr=1), F.mse_loss, None):
        assert numbers(other) == {}
    held = Numbers(model=part, loss=None)
    assert held.state_dict() == {}
    refuse_counting(part, numbers(part), "compile", "the model")  # NaN stays NaN
    part[0].whole, part[0].late = 1, 5
    assert repr(held.state_dict()) == repr({"model": {"0.whole": 1, "0.late": 5}})


@pytest.mark.parametrize(("name", "value"), [
    ("0.share", "a/path"), ("0.share", [1]), ("0.training", False), ("0.forward", None),
    ("0._buffers", None), ("0.conv.stride", 2), ("share", 1.0), ("1.share", 1.0), ("0.held", 1),
    ("0.conv", 1),
])  # fmt: skip
def test_a_checkpoint_sets_nothing_but_such_numbers(name, value):
    part = nn.Sequential(Part())
    before = str(numbers(part))
    with pytest.raises(ValueError, match="has no number"):
        put_numbers(part, {name: value})
    with pytest.raises(ValueError, match="has no number"):
        put_numbers(Descent(part.parameters(), lr=1), {"state": None})
    assert str(numbers(part)) == before
    assert part[0].training


def test_what_does_not_run_again_may_not_count():
    model = Counting()
    before = numbers(model)
    refuse_counting(model, before, "compile", "the model")
    model(torch.zeros(1, 784))
    said = "compile=true: the model changes calls when it is called, a number that such a step"
    raises_one_line(
        lambda: refuse_counting(model, before, "compile", "the model"), ConfigError, said
    )
