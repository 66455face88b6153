import shutil

import pytest
import torch
from commands import TINY, compose, raises_one_line
from torch import nn

import fmbench
from fmbench.core import machine
from fmbench.core.errors import ConfigError
from fmbench.runs import prepare, run
from fmbench.training.compiled import compile_model, sizes_of_parts
from fmbench.training.device import Device
from fmbench.training.step import micro_batches

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)


class Refusing(nn.Linear):
    def compile(self, **_options):
        raise RuntimeError("Failed to find C++ compiler.\nPlease specify one")


def test_a_model_that_cannot_be_compiled_is_refused_in_one_line():
    raises_one_line(
        lambda: compile_model(
            Refusing(3, 2), torch.zeros(4, 3), trained={4}, evaluated={4}, device=CPU
        ),
        *(ConfigError, "compile=true", "C++ compiler", "compile=false"),
    )


def test_graphs_of_compiled_models_are_refused():
    config = compose(*TINY, "compile=true", "cuda_graphs=true")
    raises_one_line(lambda: prepare.configuration.check(config), ConfigError, "take one of them")


@pytest.mark.parametrize(("batch", "most"), [(48, None), (48, 20), (8, 3), (49, 12), (5, 2)])
def test_the_sizes_that_are_compiled_are_those_of_the_parts(batch, most):
    images = torch.zeros(batch, 1)
    sizes = {len(part) for part, _ in micro_batches(images, images, most)}
    assert sizes == set(sizes_of_parts({batch}, most))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, images):
        return self.linear(images)


class Calls(list):
    def __init__(self):
        super().__init__()
        self.threads = []  # at each compilation


@pytest.fixture
def calls(monkeypatch):
    """Compiles without a C++ compiler; counts the calls of what was compiled."""
    found = Calls()

    def backend(graph, _inputs):
        found.threads.append(torch.get_num_threads())
        return lambda *inputs: found.append(1) or graph(*inputs)

    compiled = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compiled(self, backend=backend, **options)
    )
    yield found
    torch.compiler.reset()


@pytest.mark.slow
def test_a_run_is_compiled_once_for_the_threads_that_it_takes(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "threads", lambda: 2)
    monkeypatch.setattr(run, "_choose_threads", lambda *_, **__: 1)
    monkeypatch.chdir(tmp_path)
    chosen = ["compile=true", "threads=null", "device=cpu", "data.split=holdout", "precision=fp32"]
    run_dir = ["keep_checkpoint=true", "hydra.run.dir=here"]
    record = fmbench.run([*TINY, *chosen, *run_dir, "evaluation.test=never"])
    assert record.fingerprint["threads"] == 1
    assert calls.threads == [1] * 3  # batches of 64 and 52, and the validation images
    tested = fmbench.run([*TINY, *chosen, *run_dir])
    assert calls.threads == [1] * 7  # the test images too
    assert tested.seconds["compile"] == record.seconds["compile"] > 0


@pytest.mark.slow
def test_each_model_of_a_process_is_compiled(calls):
    """PyTorch has at most eight compilations of one piece of code, and here four a model."""
    for size in (10, 11, 12):
        model, images = Small(), torch.zeros(size, 3)
        compile_model(model, images, trained={size, 8}, evaluated={size, 8}, device=CPU)
        calls.clear()
        model.train()(images)
        assert calls == [1]


@pytest.mark.slow
def test_a_model_that_would_run_uncompiled_is_refused(calls):
    raises_one_line(
        lambda: compile_model(
            Small(), torch.zeros(9, 3), trained={*range(2, 12)}, evaluated={9}, device=CPU
        ),
        *(ConfigError, "compile=true", "compile=false"),
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_model_has_the_same_weights_and_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    images = torch.randn(8, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.eval()(images)
    assert compile_model(model, images, trained={8, 3}, evaluated={8}, device=CPU) > 0
    torch.testing.assert_close(model.eval()(images), expected)
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
