import copy
import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import EvaluationLoader, Normalization, TrainLoader
from fmbench.optim.schedules import constant, onecycle
from fmbench.training.device import Device
from fmbench.training.losses import CrossEntropy
from fmbench.training.step import EagerStep
from fmbench.training.trainer import Trainer, evaluate

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)
PLAIN_LOSS = CrossEntropy(classes=10)
PLAIN = Normalization(0.0, 1.0)


def image_set():
    """200 images of two classes, light on the left or on the right."""
    labels = torch.arange(200) % 2
    images = torch.full((200, 1, 28, 28), 20, dtype=torch.uint8)
    images[labels == 0, :, :, :14] = 220
    images[labels == 1, :, :, 14:] = 220
    return images, labels


def trainer(*, lr=0.01, epochs=3, evaluate_every=None, validation=False, label_smoothing=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images, labels = image_set()
    loader = TrainLoader(
        images, labels, batch_size=16, seed=0, augmentation=Augmentation(), normalization=PLAIN
    )
    evaluation = EvaluationLoader(images, labels, normalization=PLAIN, batch_size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Trainer(
        model,
        loader=loader,
        validation=evaluation if validation else None,
        test=evaluation,
        optimizer=optimizer,
        schedule=constant(optimizer, epochs=epochs, batches=len(loader)),
        epochs=epochs,
        evaluate_every=evaluate_every,
        make_step=partial(
            EagerStep, device=CPU, loss=CrossEntropy(classes=10, label_smoothing=label_smoothing)
        ),
        device=CPU,
    )


def silent(*_sums):
    pass


def test_trials_of_the_threads_leave_nothing(monkeypatch):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(10, 10)).eval()
    tried = trainer(epochs=9)
    tried.device = dataclasses.replace(CPU, threads=2)
    tried.model = model
    tried.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tried.schedule = onecycle(tried.optimizer, epochs=9, batches=13)
    before = copy.deepcopy(
        (model.state_dict(), tried.optimizer.state_dict(), torch.get_rng_state())
    )
    seen = []

    def trial(step, most, **_):
        for _ in range(3):
            step()
        seen.append((most, not torch.equal(model[1].weight, before[0]["1.weight"])))
        return 1

    monkeypatch.setattr("fmbench.training.trainer.faster_threads", trial)
    assert tried.faster_threads(flops=1000) == 1
    assert seen == [(2, True)]
    after = model.state_dict(), tried.optimizer.state_dict(), torch.get_rng_state()
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not tried.optimizer.state
    assert not model.training
    # One thread, a large model, and a run that is over at once leave nothing to try.
    assert tried.faster_threads(flops=None) == tried.faster_threads(flops=10**12) == 2
    tried.epochs = 1
    assert tried.faster_threads(flops=1000) == 2
    assert len(seen) == 1


def test_learns_and_tests_once_at_the_end():
    epochs = list(trainer().fit(silent))
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
    assert [epoch.test is not None for epoch in epochs] == [False, False, True]
    assert epochs[-1].train.loss < epochs[0].train.loss / 2
    assert epochs[-1].test.accuracy == 1.0
    classes, confidences, _ = epochs[-1].answers
    assert classes.dtype == torch.uint8
    assert torch.equal(classes.long(), image_set()[1])
    assert confidences.shape == classes.shape
    assert confidences.dtype == torch.float32
    assert all(epoch.learning_rate == 0.01 for epoch in epochs)


def test_test_every_and_validation():
    epochs = list(trainer(epochs=5, evaluate_every=2, validation=True).fit(silent))
    assert [epoch.test is not None for epoch in epochs] == [False, True, False, True, True]
    assert all(epoch.validation is not None for epoch in epochs)


def test_looking_at_the_test_set_changes_no_weight():
    looking, blind = trainer(evaluate_every=1), trainer()
    list(looking.fit(silent))
    list(blind.fit(silent))
    for one, other in zip(looking.model.parameters(), blind.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_report_sees_running_sums_of_all_images():
    seen = []
    list(trainer(epochs=1).fit(lambda *sums: seen.append([float(value) for value in sums])))
    assert [images for images, _, _ in seen] == [*range(16, 200, 16), 200]
    assert all(0 <= correct <= images for images, _, correct in seen)


def test_training_metrics_are_means_over_images_not_batches():
    one = trainer(lr=1e-12, epochs=1)
    (epoch,) = one.fit(silent)
    exact, _ = evaluate(one.model, one.test, device=CPU)
    assert epoch.train.loss == pytest.approx(exact.loss, rel=1e-5)
    assert epoch.train.accuracy == exact.accuracy


def test_label_smoothing_raises_the_training_loss_only():
    smooth = list(trainer(label_smoothing=0.3).fit(silent))[-1]
    sharp = list(trainer().fit(silent))[-1]
    assert smooth.train.loss > sharp.train.loss + 0.2
    assert smooth.test.loss < smooth.train.loss


def test_evaluation_runs_without_dropout_or_gradients():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(784, 10))
    images, labels = image_set()
    loader = EvaluationLoader(images, labels, normalization=PLAIN, batch_size=64)
    first, answers = evaluate(model.train(), loader, device=CPU)
    second, again = evaluate(model.train(), loader, device=CPU)
    assert first == second
    assert torch.equal(answers.classes, again.classes)
    with torch.no_grad():
        shares = model(PLAIN(images).unsqueeze(1)).softmax(1)
    torch.testing.assert_close(answers.confidences, shares.amax(1))


def test_balanced_accuracy_is_the_mean_of_the_recalls_of_the_classes_there_are():
    """Of this confusion matrix, a row a label: 6 2 0 0 / 1 1 0 0 / 0 3 0 1 / no image of the last.

    The recalls are 6/8, 1/2 and 0/4; 7 of 14 images are right.
    """
    confusion = [[6, 2, 0, 0], [1, 1, 0, 0], [0, 3, 0, 1], [0, 0, 0, 0]]
    cells = [(label, guess) for label in range(4) for guess in range(4)
             for _ in range(confusion[label][guess])]  # fmt: skip
    labels, guesses = torch.tensor(cells).T
    model = nn.Sequential(nn.Flatten(), nn.Embedding.from_pretrained(torch.eye(4)), nn.Flatten())
    loader = EvaluationLoader(
        guesses.byte().view(-1, 1, 1, 1), labels, normalization=lambda x: x.long(), batch_size=4
    )
    metrics, answers = evaluate(model, loader, device=CPU)
    assert torch.equal(answers.classes.long(), guesses)
    assert metrics.accuracy == 7 / 14
    assert metrics.balanced_accuracy == pytest.approx((6 / 8 + 1 / 2 + 0 / 4) / 3)


def test_clock_of_training_excludes_evaluation(monkeypatch):
    fit = trainer(epochs=2, evaluate_every=1)
    ticks = iter([0.0, 10.0, 11.0, 20.0, 25.0, 26.0])
    monkeypatch.setattr(fit, "_now", lambda: next(ticks))
    epochs = list(fit.fit(silent))
    assert [epoch.seconds for epoch in epochs] == [10.0, 5.0]
    assert dataclasses.asdict(fit.clocks) == {"train": 15.0, "evaluate": 2.0}


class Probe(nn.Module):
    """Notes in which mode and precision it is called."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.calls = []

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        self.calls.append((self.training, torch.is_grad_enabled(), logits.dtype))
        return logits


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_modes_and_precision_of_training_and_evaluation(precision, dtype):
    fit = trainer(epochs=2, validation=True)
    fit.model = Probe()
    fit.optimizer = torch.optim.SGD(fit.model.parameters(), lr=0.01)
    fit.schedule = constant(fit.optimizer, epochs=2, batches=len(fit.loader))
    fit.device = dataclasses.replace(CPU, precision=precision)
    fit.make_step = partial(EagerStep, device=fit.device, loss=PLAIN_LOSS)
    list(fit.fit(silent))
    looks = [(False, False, dtype)] * 4  # 200 images, 64 at once
    one = [(True, True, dtype)] * len(fit.loader) + looks
    assert fit.model.calls == [*one, *one, *looks]


def test_schedule_is_stepped_after_every_batch_and_every_epoch():
    fit = trainer(epochs=2)
    calls = []
    fit.schedule.after_batch = lambda: calls.append("batch")
    fit.schedule.after_epoch = lambda: calls.append("epoch")
    list(fit.fit(silent))
    assert calls == [*["batch"] * len(fit.loader), "epoch"] * 2


def test_two_steps_are_those_of_gradient_descent():
    fit = trainer(lr=0.1, epochs=1)
    fit.loader.batch_size = 100
    reference = [parameter.detach().clone() for parameter in fit.model.parameters()]
    for images, labels in fit.loader.epoch(0):
        weight, bias = (parameter.requires_grad_() for parameter in reference)
        logits = images.flatten(1) @ weight.T + bias
        loss = -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()
        gradients = torch.autograd.grad(loss, [weight, bias])
        reference = [
            (parameter - 0.1 * gradient).detach()
            for parameter, gradient in zip((weight, bias), gradients, strict=True)
        ]
    list(fit.fit(silent))
    for parameter, expected in zip(fit.model.parameters(), reference, strict=True):
        torch.testing.assert_close(parameter.detach(), expected)
