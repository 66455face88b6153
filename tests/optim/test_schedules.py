import itertools
import math

import pytest
import torch
from commands import raises_one_line

from fmbench.core.errors import ConfigError
from fmbench.optim import schedules

BATCHES = 10


def optimizer(lr=1.0, kind=torch.optim.SGD, **options):
    return kind([torch.nn.Parameter(torch.zeros(1))], lr=lr, **options)


def flat_rates(*arguments, **options):
    """The learning rate of every step, one after the other."""
    return list(itertools.chain.from_iterable(rates(*arguments, **options)))


def rates(make, epochs, opt=None, **options):
    """The learning rate of every step, a list for each epoch."""
    opt = opt or optimizer()
    plan = make(opt, epochs=epochs, batches=BATCHES, **options)
    table = []
    for _ in range(epochs):
        row = []
        for _ in range(BATCHES):
            row.append(opt.param_groups[0]["lr"])
            opt.step()
            plan.after_batch()
        plan.after_epoch()
        table.append(row)
    return table


def test_constant():
    assert rates(schedules.constant, 3) == [[1.0] * BATCHES] * 3


def test_step_decays_between_epochs():
    table = rates(schedules.step, 5, step_size=2, gamma=0.5)
    assert [row[0] for row in table] == [1, 1, 0.5, 0.5, 0.25]
    assert all(len(set(row)) == 1 for row in table)


def test_multistep_decays_before_the_epochs_named_counting_from_0():
    # Table A of the benchmark: x0.1 before 0-based epochs 6, 13, 20, 27 of 30.
    table = rates(schedules.multistep, 30, milestones=[6, 13, 20, 27], gamma=0.1)
    firsts = [row[0] for row in table]
    for epoch, rate in enumerate(firsts):
        decays = sum(epoch >= milestone for milestone in (6, 13, 20, 27))
        assert rate == pytest.approx(0.1**decays), epoch
    assert all(len(set(row)) == 1 for row in table)


def test_cosine_falls_every_batch_to_the_least():
    flat = flat_rates(schedules.cosine, 4, min_lr=0.1)
    steps = 4 * BATCHES
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]
    assert flat == pytest.approx(expected)


def test_cosine_of_one_group_is_pytorchs_to_the_bit():
    opt = optimizer(0.1)
    plain = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 4 * BATCHES, 0.01)
    expected = []
    for _ in range(4 * BATCHES):
        expected.append(opt.param_groups[0]["lr"])
        opt.step()
        plain.step()
    assert flat_rates(schedules.cosine, 4, optimizer(0.1), min_lr=0.01) == expected


def test_onecycle_climbs_to_the_rate_and_ends_far_below():
    opt = optimizer(momentum=0.9)
    flat = flat_rates(schedules.onecycle, 10, opt, cycle_momentum=True)
    assert max(flat) == pytest.approx(1.0, rel=1e-3)
    assert flat.index(max(flat)) in (19, 20)  # a fifth of 100 steps climb
    assert flat[0] == pytest.approx(0.1)
    assert flat[-1] < 0.01
    assert opt.param_groups[0]["lr"] == pytest.approx(1e-5)
    assert opt.param_groups[0]["momentum"] == pytest.approx(0.95)


def test_onecycle_takes_optimizers_without_momentum_and_adam():
    assert max(flat_rates(schedules.onecycle, 3)) == pytest.approx(1.0, rel=0.02)
    adam = optimizer(kind=torch.optim.Adam)
    rates(schedules.onecycle, 3, adam, cycle_momentum=True)
    assert adam.param_groups[0]["betas"][0] == pytest.approx(0.95)


def test_onecycle_leaves_the_momentum_alone_unless_told():
    opt = optimizer(momentum=0.5)
    rates(schedules.onecycle, 3, opt)
    assert opt.param_groups[0]["momentum"] == 0.5
    raises_one_line(
        lambda: rates(schedules.onecycle, 3, cycle_momentum=True), ConfigError, "no momentum"
    )


def test_state_goes_on_where_it_was():
    whole = flat_rates(schedules.cosine, 4)
    opt = optimizer()
    plan = schedules.cosine(opt, epochs=4, batches=BATCHES)
    for _ in range(15):
        opt.step()
        plan.after_batch()
    other = optimizer()
    resumed = schedules.cosine(other, epochs=4, batches=BATCHES)
    other.load_state_dict(opt.state_dict())
    resumed.load_state_dict(plan.state_dict())
    assert other.param_groups[0]["lr"] == pytest.approx(whole[15])
    other.step()
    resumed.after_batch()
    assert other.param_groups[0]["lr"] == pytest.approx(whole[16])


@pytest.mark.parametrize(("make", "options", "part"), [
    (schedules.step, {"step_size": 0}, "scheduler.step_size=0"),
    (schedules.step, {"step_size": 1, "gamma": 0}, "scheduler.gamma=0"),
    (schedules.multistep, {"milestones": [3, 3]}, "scheduler.milestones=[3, 3]"),
    (schedules.multistep, {"milestones": [0]}, "scheduler.milestones=[0]"),
    (schedules.cosine, {"min_lr": -1}, "scheduler.min_lr=-1"),
    (schedules.onecycle, {"warmup": 0}, "scheduler.warmup=0"),
    (schedules.onecycle, {"div_factor": 0}, "scheduler.div_factor=0"),
])  # fmt: skip
def test_refuses(make, options, part):
    raises_one_line(
        lambda: make(optimizer(), epochs=5, batches=BATCHES, **options), ConfigError, part
    )


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 9, 10, 11, 20])
@pytest.mark.parametrize("warmup", [0.01, 0.2, 0.99])
def test_onecycle_of_a_few_steps(batches, warmup):
    opt = optimizer(momentum=0.9)
    plan = schedules.onecycle(opt, epochs=1, batches=batches, warmup=warmup)
    for _ in range(batches):
        assert 0 < opt.param_groups[0]["lr"] <= 1
        opt.step()
        plan.after_batch()


@pytest.mark.parametrize(("make", "options", "formula"), [
    (schedules.linear, {"warmup": 0.1}, lambda left: left),
    (schedules.linear, {"warmup": 0, "final": 0.2}, lambda left: 0.2 + 0.8 * left),
    (
        schedules.cosine_warmup,
        {"warmup": 0.1},
        lambda left: (1 + math.cos(math.pi * (1 - left))) / 2,
    ),
    (schedules.polynomial, {"power": 2, "warmup": 0.1}, lambda left: left**2),
    (schedules.wsd, {"warmup": 0.1, "decay": 0.25}, lambda left: min(1, left * 36 / 10)),
])  # fmt: skip
def test_schedules_with_a_climb_are_those_of_their_formulas(make, options, formula):
    """40 steps, 4 of which climb: then the share of the other 36 that is left decides."""
    climb = 4 if options["warmup"] else 0
    expected = [(t + 1) / 5 for t in range(climb)]
    expected += [formula((40 - t) / (40 - climb)) for t in range(climb, 40)]
    opt = torch.optim.SGD([
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 2.0},
    ])  # fmt: skip
    plan = make(opt, epochs=4, batches=BATCHES, **options)
    for factor in expected:
        assert [group["lr"] for group in opt.param_groups] == pytest.approx(
            [0.5 * factor, 2.0 * factor]
        )
        opt.step()
        plan.after_batch()


@pytest.mark.parametrize(("warmup", "decay"), [(0.9, 0.1), (0.8, 0.2), (0.5, 0.5)])
@pytest.mark.parametrize("epochs", [1, 3])
def test_warmup_and_decay_may_take_all_steps(warmup, decay, epochs):
    opt = optimizer()
    plan = schedules.wsd(opt, epochs=epochs, batches=1, warmup=warmup, decay=decay)
    found = []
    for _ in range(epochs):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        plan.after_batch()
    assert max(found) == 1
    assert opt.param_groups[0]["lr"] == 0


def test_exponential_decays_after_every_epoch():
    table = rates(schedules.exponential, 4, gamma=0.5)
    assert [row[0] for row in table] == [1, 0.5, 0.25, 0.125]


def test_a_plateau_is_pytorchs_and_its_drops_replay_it():
    values = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7, 0.65, 0.7]
    ours, theirs = optimizer(), optimizer()
    plan = schedules.plateau(ours, epochs=10, batches=BATCHES, factor=0.5, patience=2)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, "max", factor=0.5, patience=1, threshold=0
    )
    found = []
    for value in values:
        found.append(ours.param_groups[0]["lr"])
        plan.after_batch()
        plan.after_epoch()
        plan.after_validation(value)
        reference.step(value)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert plan.drops == [4, 7, 9]
    replayed = rates(schedules.plateau, 10, factor=0.5, drops=plan.drops)
    assert [row[0] for row in replayed] == found


@pytest.mark.parametrize(("make", "options", "part"), [
    (schedules.linear, {"warmup": 1}, "scheduler.warmup=1"),
    (schedules.cosine_warmup, {"final": 2}, "scheduler.final=2"),
    (schedules.polynomial, {"power": 0}, "scheduler.power=0"),
    (schedules.wsd, {"warmup": 0.5, "decay": 0.6}, "scheduler.decay=0.6"),
    (schedules.exponential, {"gamma": 0}, "scheduler.gamma=0"),
    (schedules.plateau, {"factor": 1}, "scheduler.factor=1"),
    (schedules.plateau, {"patience": 0}, "scheduler.patience=0"),
    (schedules.plateau, {"metric": "recall"}, "scheduler.metric=recall"),
    (schedules.plateau, {"drops": [2, 2]}, "scheduler.drops=[2, 2]"),
])  # fmt: skip
def test_later_schedules_refuse(make, options, part):
    raises_one_line(
        lambda: make(optimizer(), epochs=5, batches=BATCHES, **options), ConfigError, part
    )
