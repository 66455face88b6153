import copy
import dataclasses
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from fmbench.core.errors import ConfigError, is_out_of_memory
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, Normalization, TrainLoader
from fmbench.optim.schedules import cosine, onecycle
from fmbench.training.device import Device, select
from fmbench.training.losses import CrossEntropy
from fmbench.training.step import WARM_UP, EagerStep, GraphStep, faster_threads
from fmbench.training.trainer import Trainer, train_epoch

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)
PLAIN_LOSS = CrossEntropy(classes=10)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Machine:
    """A clock that nothing but steps moves, by so many seconds for each number of threads.

    For a share of them one thread has a core.
    """

    def __init__(self, seconds, kernels=0.0, share=1.0):
        self.seconds, self.kernels, self.share = seconds, kernels, share
        self.now, self.threads, self.steps = 0.0, None, Counter()

    def use(self, threads):
        self.threads = threads

    def step(self):
        self.now += self.seconds[self.threads]
        if not self.steps[self.threads]:
            self.now += self.kernels
        self.steps[self.threads] += 1

    def faster(self, steps=10_000):
        return faster_threads(
            self.step,
            max(self.seconds),
            steps=steps,
            clock=lambda: self.now,
            cpu=lambda: self.now * self.share,
            use=self.use,
        )


@pytest.mark.parametrize(("seconds", "expected"), [
    # The table of docs/performance.md: nothing else, and two other programs at work.
    ({1: 8 / 5930, 2: 8 / 6700}, 2),
    ({1: 64 / 11400, 2: 64 / 17900}, 2),
    ({1: 256 / 9000, 2: 256 / 14600}, 2),
    ({1: 8 / 4100, 2: 8 / 1360}, 1),
    ({1: 64 / 4800, 2: 64 / 3700}, 1),
    ({1: 256 / 6300, 2: 256 / 650}, 1),
    # Of the same all are taken.
    ({1: 0.001, 2: 0.00103}, 2),
    # A step alone is long.
    ({1: 0.14, 2: 0.08}, 2),
    ({1: 0.2, 2: 0.9}, 2),
    # Many cores.
    ({1: 0.1, 64: 0.004}, 64),
    ({1: 0.005, 64: 0.2}, 1),
])  # fmt: skip
@pytest.mark.parametrize("kernels", [0.0, 0.05])
def test_the_faster_number_of_threads(seconds, expected, kernels):
    machine = Machine(seconds, kernels)
    assert machine.faster() == expected
    assert machine.now < 0.6


@pytest.mark.parametrize(("seconds", "share", "expected"), [
    ({1: 0.18, 2: 5.0}, 0.3, 1),  # all are not even tried
    ({1: 0.01, 2: 5.0}, 0.3, 1),
    ({1: 0.18, 2: 5.0}, 0.6, 1),
    ({1: 0.02, 2: 0.4}, 0.6, 1),
    ({1: 0.13, 2: 0.17}, 0.6, 1),  # no time for a turn of each
    ({1: 0.13, 2: 0.17}, 0.97, 2),
    ({1: 0.01, 2: 0.008}, 0.6, 2),
    ({1: 0.18, 2: 0.1}, 0.97, 2),
    ({1: 0.002, 2: 0.0019}, 0.65, 1),  # short turns flatter all
    ({1: 0.002, 2: 0.0019}, 0.97, 2),
])  # fmt: skip
def test_one_thread_that_hardly_gets_a_core(seconds, share, expected):
    machine = Machine(seconds, share=share)
    assert machine.faster() == expected
    assert machine.now < 0.6


def test_kernels_that_take_long_to_make_on_a_busy_machine():
    assert Machine({1: 64 / 4800, 2: 64 / 3000}, kernels=0.15).faster() == 1
    assert Machine({1: 256 / 6300, 2: 256 / 650}, kernels=0.15).faster() == 1


def test_a_short_run_is_not_held_up_by_trials():
    machine = Machine({1: 0.002, 2: 0.001})
    assert machine.faster(steps=60) == 2
    assert machine.now < 0.1 * 60 * 0.002 + 0.025


class FakeGraph:
    """A recorder for the CPU: what it replays sees the optimizer's numbers of the recording.

    Like a graph it does nothing when recorded, and never looks at a number again; only tensors
    that were there may change.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.recorded = self.replayed = 0

    def __call__(self, function):
        self.recorded += 1
        assert all(group.get("capturable", True) for group in self.optimizer.param_groups)
        assert all(isinstance(group["lr"], torch.Tensor) for group in self.optimizer.param_groups)
        options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]

        def replay():
            self.replayed += 1
            kept = [dict(group) for group in self.optimizer.param_groups]
            for group, then in zip(self.optimizer.param_groups, options, strict=True):
                group.update(then)
            function()
            for group, now in zip(self.optimizer.param_groups, kept, strict=True):
                group.update(now)

        return replay


def make(optimizer_class=torch.optim.SGD, schedule=cosine, device=CPU, **options):
    """Model, loader (7 full batches of 16 and one of 8), optimizer, schedule over two epochs.

    No bias before batch norm: its gradient is rounding alone, which Adam would blow up to steps.
    """
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 5, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(2304, 10)).to(device.torch)
    drawn = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (120, 1, 28, 28), dtype=torch.uint8, generator=drawn)
    labels = torch.randint(0, 10, (120,), generator=drawn)
    loader = TrainLoader(
        images.to(device.torch),
        labels.to(device.torch),
        batch_size=16,
        seed=0,
        augmentation=Augmentation(),
        normalization=Normalization(0.3, 0.3),
    )
    options = {"lr": 0.01, "fused": True} | options
    if optimizer_class is torch.optim.SGD:
        options = {"momentum": 0.9, "nesterov": True} | options
    optimizer = optimizer_class(model.parameters(), **options)
    return model, loader, optimizer, schedule(optimizer, epochs=2, batches=len(loader))


def eager_step(model, optimizer, label_smoothing=0.0, device=CPU):
    loss = CrossEntropy(classes=10, label_smoothing=label_smoothing)
    return EagerStep(model, optimizer, device=device, loss=loss)


def graph_step(model, optimizer, recorder=None, label_smoothing=0.0, device=CPU):
    step = eager_step(model, optimizer, label_smoothing, device)
    return GraphStep(step, batch_size=16, **({"recorder": recorder} if recorder else {}))


def train(model, loader, step, schedule):
    return [
        train_epoch(model, loader.epoch(epoch), step, schedule, report=lambda *_sums: None)
        for epoch in range(2)
    ]


@pytest.mark.parametrize(("schedule", "optimizer_class"), [
    (onecycle, torch.optim.AdamW),
    pytest.param(cosine, torch.optim.SGD, marks=pytest.mark.slow),
])  # fmt: skip
def test_recorded_steps_compute_what_eager_ones_do(optimizer_class, schedule):
    """The same numbers but for the learning rate, which a graph holds in float32."""
    model, loader, optimizer, rates = make(optimizer_class, schedule)
    eager = train(model, loader, eager_step(model, optimizer, 0.1), rates)
    other, loader, optimizer, rates = make(optimizer_class, schedule)
    recorder = FakeGraph(optimizer)
    replayed = train(other, loader, graph_step(other, optimizer, recorder, 0.1), rates)

    assert (recorder.recorded, recorder.replayed) == (1, 14 - WARM_UP)
    for one, two in zip(eager, replayed, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-4)
        assert two.accuracy == pytest.approx(one.accuracy, abs=0.01)
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    rate = optimizer.param_groups[0]["lr"]
    assert isinstance(rate, float)
    assert rate == rates.scheduler.get_last_lr()[0]


def test_recorded_steps_take_shares_of_the_classes():
    """As mixup gives them; no prediction is right or wrong then."""

    def mixed(loader):
        for epoch in range(2):
            yield [
                (images, 0.7 * one_hot + 0.3 * one_hot.roll(1, 0))
                for images, labels in loader.epoch(epoch)
                for one_hot in [nn.functional.one_hot(labels, 10).float()]
            ]

    found = []
    for recorded in (False, True):
        model, loader, optimizer, rates = make()
        step = eager_step(model, optimizer)
        if recorded:
            step = graph_step(model, optimizer, FakeGraph(optimizer))
        for batches in mixed(loader):
            metrics = train_epoch(model, batches, step, rates, report=lambda *_sums: None)
            assert metrics.accuracy is None
        found.append((metrics.loss, *model.parameters()))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_the_metrics_are_means_of_each_epoch_alone():
    model, loader, optimizer, schedule = make(lr=1e-12)
    step = graph_step(model, optimizer, FakeGraph(optimizer))
    metrics = train(model, loader, step, schedule)
    # The weights stand still: each mean is that of all 120 images, the last batch's eight too.
    for epoch, found in enumerate(metrics):
        losses, correct = [], 0
        for images, labels in loader.epoch(epoch):
            logits = model(images)
            losses += nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
            correct += int((logits.argmax(1) == labels).sum())
        assert found.loss == pytest.approx(sum(losses) / 120, rel=1e-4)
        assert found.accuracy == pytest.approx(correct / 120, abs=0.01)


def test_a_schedule_that_changes_more_than_the_rate_is_refused():
    model, loader, optimizer, _ = make()
    schedule = onecycle(optimizer, epochs=2, batches=len(loader), cycle_momentum=True)
    step = graph_step(model, optimizer, FakeGraph(optimizer))
    with pytest.raises(ConfigError, match=r"cuda_graphs=true.*optimizer\.momentum.*false"):
        train(model, loader, step, schedule)


def recording(recorder):
    """Train with recorded steps, on the CPU."""
    model, loader, optimizer, schedule = make()
    train(model, loader, graph_step(model, optimizer, recorder), schedule)


def runs_out(_function):
    raise torch.OutOfMemoryError("CUDA out of memory")


def runs_out_and_cannot_end(_function):
    try:
        runs_out(_function)
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def cannot_be_instantiated(_function):
    raise RuntimeError("CUDA error: out of memory\nand more")


@pytest.mark.parametrize("recorder", [runs_out, runs_out_and_cannot_end, cannot_be_instantiated])
def test_a_lack_of_memory_is_no_mistake_of_the_config(recorder):
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        recording(recorder)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "RMSprop", "ASGD", "Adamax"])
def test_what_was_counted_on_the_cpu_moves_where_a_graph_can_follow(name):
    """In a run that was begun without graphs; `meta` stands for a GPU."""
    one = nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = getattr(torch.optim, name)([one], lr=0.1)
    optimizer.state[one] = {"step": torch.tensor(4.0), "kept": torch.zeros(3)}
    step = graph_step(nn.Module(), optimizer, lambda function: function)
    with pytest.raises(NotImplementedError):  # by the model, which is none
        step(torch.zeros(16, 1), torch.zeros(16, dtype=torch.int64))
    assert optimizer.param_groups[0]["capturable"] is True
    assert [value.device.type for value in optimizer.state[one].values()] == ["meta", "cpu"]


def test_what_cannot_be_recorded_says_so_and_leaves_the_rate_a_number():
    model, loader, optimizer, schedule = make()

    def recorder(_function):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    step = graph_step(model, optimizer, recorder)
    with pytest.raises(ConfigError, match=r"cannot be recorded \(operation .* capturing\); take"):
        train(model, loader, step, schedule)
    assert isinstance(optimizer.param_groups[0]["lr"], float)


@pytest.mark.parametrize(("graphs", "kind"), [(False, EagerStep), (True, GraphStep)])
def test_the_device_says_how_steps_are_taken(graphs, kind):
    model, loader, optimizer, schedule = make()
    device = Device(torch.device("cpu"), "fp32", 1, deterministic=False, cuda_graphs=graphs)
    evaluation = EvaluationLoader(
        torch.zeros(4, 1, 28, 28, dtype=torch.uint8),
        torch.zeros(4, dtype=torch.int64),
        normalization=Normalization(0.0, 1.0),
        batch_size=4,
    )
    trainer = Trainer(
        model,
        loader=loader,
        validation=None,
        test=evaluation,
        optimizer=optimizer,
        schedule=schedule,
        epochs=2,
        evaluate_every=None,
        make_step=partial(EagerStep, device=device, loss=PLAIN_LOSS),
        device=device,
    )
    assert isinstance(trainer.step, kind)


def on_gpu(precision, *, graphs):
    """The GPU as a run has it set up."""
    selected = select("cuda", threads=1, deterministic=True, cuda_graphs=graphs)
    return dataclasses.replace(selected, precision=precision)


def replays(step):
    """Count the replays of a step that is yet to record."""
    counted = []
    record = step.recorder

    def recorder(function):
        replay = record(function)
        return lambda: (counted.append(1), replay())

    step.recorder = recorder
    return counted


@needs_gpu
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_on_the_gpu_computes_what_eager_steps_do(optimizer_class, precision):
    weights, metrics = [], []
    for graphs in (False, True):
        device = on_gpu(precision, graphs=graphs)
        model, loader, optimizer, schedule = make(optimizer_class, device=device)
        step = (graph_step if graphs else eager_step)(
            model, optimizer, label_smoothing=0.1, device=device
        )
        if graphs:
            counted = replays(step)
        metrics.append(train(model, loader, step, schedule))
        weights.append(copy.deepcopy(model.state_dict()))
    assert len(counted) == 14 - WARM_UP
    for one, two in zip(*metrics, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-3)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-2, atol=1e-3)


@needs_gpu
def test_the_same_seed_gives_the_same_bits_with_graphs():
    found = []
    for _ in range(2):
        device = on_gpu("fp32", graphs=True)
        model, loader, optimizer, schedule = make(device=device)
        step = graph_step(model, optimizer, device=device)
        counted = replays(step)
        train(model, loader, step, schedule)
        assert len(counted) == 14 - WARM_UP
        found.append(torch.cat([value.flatten().cpu() for value in model.parameters()]))
    assert torch.equal(*found)


@needs_gpu
def test_dropout_draws_anew_in_every_replay():
    device = on_gpu("fp32", graphs=True)
    model, loader, optimizer, _schedule = make(device=device, lr=1e-12)
    model.insert(4, nn.Dropout(0.5))
    step = graph_step(model, optimizer, device=device)
    images, labels = next(loader.epoch(0))
    losses = []
    for _ in range(WARM_UP + 5):
        step.begin_epoch()
        step(images, labels)
        losses.append(step.loss_sum.item())
    assert len(set(losses)) == len(losses)
