"""What is tried on one batch before a run: what a model dies of, and in which memory it runs."""

import random
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import tutorials
from commands import TINY, compose, raises_one_line, records
from commands import fmbench as run_command
from torch import nn

import fmbench
from fmbench.core.errors import ConfigError
from fmbench.models.resnet18 import ResNet18
from fmbench.runs import prepare
from fmbench.runs import run as runs
from fmbench.training import rehearsal
from fmbench.training.checkpoint import preserved
from fmbench.training.device import Device
from fmbench.training.weights import write_weights

CPU = torch.device("cpu")

#: Of an image.
SHAPE = 1, 28, 28


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Runs a model of `tutorials`, which is trusted."""
    monkeypatch.setenv("FMBENCH_TRUST", "tutorials")

    def run(name, *overrides):
        chosen = [f"model._target_=tutorials.{name}"]
        folder = f"hydra.run.dir={tmp_path / 'run'}"
        return fmbench.run([*TINY, "epochs=1", *chosen, folder, *overrides])

    return run


VIEW = "view size is not compatible"


@pytest.mark.parametrize(("name", "overrides", "memory_format", "joins"), [
    ("Blitz", [], "contiguous", False),
    ("LazyResNet", [], "contiguous", False),
    ("NormedMLP", [], "channels_last", False),
    ("NormedMLP", ["batch_size=199"], "channels_last", True),
    ("RowsLSTM", [], "channels_last", False),
    ("PatchTransformer", [], "channels_last", False),
    ("Spectral", [], "channels_last", False),
    ("Squeezed", [], "channels_last", False),
    ("Squeezed", ["batch_size=199"], "channels_last", True),
])  # fmt: skip
def test_models_of_tutorials_work(own, tmp_path, name, overrides, memory_format, joins):  # noqa: PLR0917
    record = own(name, "keep_model=true", "precision=fp32", *overrides)
    assert record.fingerprint["memory_format"] == memory_format
    assert record.joins_last_batch is joins
    if name == "Squeezed":  # it cannot say what one picture shows
        return
    model = fmbench.load_model(tmp_path / "run")
    images = torch.tensor(prepare.read_inputs(compose(*TINY)).dataset.part("test")[0])
    said = np.load(tmp_path / "run" / "predictions.npy")
    assert model(images).argmax(1).tolist() == said.tolist()


@pytest.mark.parametrize(("name", "overrides", "parts"), [
    ("Blitz", ["+model.hidden=400"], ["the model fails in training on 64 images: RuntimeError: ",
     "(64x256 and 400x120) (tutorials.py, line "]),
    ("Blitz", ["memory_format=channels_last"], ["memory_format=channels_last: ", VIEW,
     "must be auto or contiguous"]),
    ("Colour", [], ["the model fails on the two images that give lazy layers", "3 channels"]),
    ("FixedBatch", [], ["the model fails in training on 8 images", "cannot be multiplied"]),
    ("FixedBatch", ["data.train_size=192"], ["the model fails in evaluation on 50 images"]),
    ("Auxiliary", [], ["the model gives a tuple of 2, must be (64, 10)"]),
    ("Squeezed", ["+model.outputs=5"], ["the model gives (64, 5), must be (64, 10)"]),
    ("Squeezed", ["data.test_size=1001"], ["the model gives (10,) in evaluation, must be (1, 10)"]),
    ("Grown", [], ["the model makes fc.weight in its forward pass", "make it in __init__"]),
    ("NormedMLP", ["batch_size=1"], ["the model fails in training on 1 image", "Expected more"]),
    # The last batch of 3 images is cut into 2 and 1.
    ("NormedMLP", ["grad_accumulation=32", "data.train_size=195"],
     ["the model fails in training on 1 image", "Expected more"]),
])  # fmt: skip
def test_other_models_are_refused_in_a_line(own, tmp_path, name, overrides, parts):
    raises_one_line(lambda: own(name, *overrides), ConfigError, *parts)
    (record,) = records(tmp_path)
    assert record["status"] == "failed"
    assert not (tmp_path / "run" / "history.jsonl").exists()


@pytest.mark.parametrize(("fault", "parts"), [
    ("shape", ["gives images of shape (4, 1, 27, 28), must be (4, 1, 28, 28)"]),
    ("dtype", ["gives images of dtype torch.float64, must be torch.float32"]),
    ("tuple", ["gives a tuple, must be a tensor"]),
    ("infinite", ["not finite"]),
    ("random", ["gives other images for the same draws"]),
    ("batch", ["gives another image alone than in a batch"]),
    ("least", ["gives another image alone than in a batch"]),
    ("first", ["gives another image alone than in a batch"]),
    ("error", ["draws (4, 1): RuntimeError", "(tutorials.py, line "]),
    ("count", ["draws is 1.5, must be a whole number"]),
    ("missing", ["it fails, called with images (4, 1, 28, 28) and draws (4, 1): KeyError"]),
])  # fmt: skip
def test_transforms_that_are_no_functions_of_image_and_draws_are_refused(monkeypatch, fault, parts):
    monkeypatch.setenv("FMBENCH_TRUST", "tutorials")
    before = torch.get_rng_state()
    own = f"augmentation.own={{_target_: tutorials.Wrong, fault: {fault}}}"
    name = "augmentation.own (tutorials.Wrong): "
    raises_one_line(lambda: prepare.rehearse(compose(*TINY, own)), ConfigError, name, *parts)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_transform_with_parameters_is_refused(monkeypatch):
    monkeypatch.setenv("FMBENCH_TRUST", "tutorials")
    own = "augmentation.own={_target_: tutorials.Blurred}"
    parts = ["augmentation.own (tutorials.Blurred): has a parameter, weight"]
    raises_one_line(lambda: prepare.rehearse(compose(*TINY, own)), ConfigError, *parts)
    prepare.rehearse(
        compose(*TINY, "augmentation.own={_target_: tutorials.Blurred,trained: false}")
    )


def test_transforms_are_built_under_the_whitelist(monkeypatch):
    own = "augmentation.own={_target_: tutorials.Speckle, amount: 0.5}"
    refused = (
        "augmentation.own._target_=tutorials.Speckle: not allowed; type FMBENCH_TRUST=tutorials "
    )
    raises_one_line(lambda: prepare.rehearse(compose(*TINY, own)), ConfigError, refused)
    monkeypatch.setenv("FMBENCH_TRUST", "tutorials")
    prepare.rehearse(compose(*TINY, own))
    prepare.rehearse(compose(*TINY, "augmentation.own=[{_target_: tutorials.Speckle}]"))
    for wrong, said in (
        ("{_target_: tutorials.Speckle, size: 1}", "unexpected keyword argument 'size'"),
        ("{_target_: tutorials.NormedMLP}", "has a parameter"),
        ("{_target_: tutorials.Nothing}", "Nothing"),
    ):
        config = compose(*TINY, f"augmentation.own={wrong}")
        raises_one_line(lambda c=config: prepare.rehearse(c), ConfigError, "augmentation.own", said)


MUON = ["optimizer._target_=torch.optim.Muon", "~optimizer.betas", "~optimizer.fused"]


def test_an_optimizer_is_shown_the_parameters_of_the_model(own):
    """Muon takes matrices alone."""
    assert own("Matrices", "optimizer=adamw", *MUON).status == "completed"
    refused = compose(*TINY, "model=lenet5", "optimizer=adamw", *MUON)
    raises_one_line(lambda: prepare.rehearse(refused), ConfigError, "Muon", "[6, 1, 5, 5]")


class Layer(nn.Module):
    """One convolution by whatever name, before a head."""

    def __init__(self, channels=4, kernel=1, groups=1, turns=False, **how):
        super().__init__()
        self.how = {"stride": 2, "groups": groups} | how
        self.turns = turns
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(8, channels // groups, kernel, kernel) / 9)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        if self.turns:
            x = x.to(memory_format=torch.channels_last)
        return self.head(F.conv2d(x, self.weight, **self.how).mean((2, 3)))


def rehearsed(module, *overrides, memory_format="auto", model=None, graphs=False):
    """A trainer; `model` names what the module is of, where that is no model of fmbench."""
    config = compose(*TINY, *overrides)
    inputs = prepare.read_inputs(config)
    config = {**config, "model": {"_target_": model}} if model else config
    device = Device(
        CPU, "fp32", 1, deterministic=False, memory_format=memory_format, cuda_graphs=graphs
    )
    return prepare.make_trainer(config, inputs, module, device, flops=1)


@pytest.mark.parametrize(("model", "memory_format"), [
    (Layer, "contiguous"),
    (lambda: Layer(channels=1), "contiguous"),
    (lambda: Layer(stride=(1, 2)), "contiguous"),
    (lambda: Layer(channels=16, groups=4), "contiguous"),
    (lambda: ResNet18(depths=(1, 1), width=4), "contiguous"),
    (lambda: ResNet18(depths=(1, 1), width=8), "channels_last"),
    (lambda: Layer(channels=8), "channels_last"),
    (lambda: Layer(stride=1), "channels_last"),
    (lambda: Layer(kernel=3), "channels_last"),
])  # fmt: skip
def test_a_convolution_that_damages_memory_does_not_run_in_channels_last(model, memory_format):
    """Whatever the processor: a run is the same everywhere."""
    trainer = rehearsed(model())
    assert trainer.device.memory_format == memory_format
    last = [weight for weight in trainer.model.parameters() if weight.dim() == 4][-1]
    assert last.is_contiguous() is (memory_format == "contiguous") or 1 in last.shape[1:]


def test_channels_last_with_such_a_convolution_is_refused():
    wanted = "1 x 1 convolution with stride 2 and 4 input channels"
    raises_one_line(
        lambda: rehearsed(Layer(), memory_format="channels_last"),
        ConfigError, "memory_format=channels_last: the model", wanted, "must be auto or contiguous",
    )  # fmt: skip
    for memory_format in ("auto", "contiguous"):  # a model that turns its images by itself
        raises_one_line(
            lambda chosen=memory_format: rehearsed(Layer(turns=True), memory_format=chosen),
            ConfigError, wanted,
        )  # fmt: skip


NARROW = ["model=resnet18", "model.width=4", "model.depths=[1,1]", "epochs=1", "keep_model=true"]


@pytest.mark.parametrize("kept_as", ["contiguous", "channels_last"])
def test_a_kept_model_is_loaded_into_memory_that_it_may_run_in(tmp_path, monkeypatch, kept_as):
    """It may have run on a GPU, in channels_last."""
    monkeypatch.setattr(
        runs,
        "write_weights",
        lambda *model, **texts: write_weights(*model, **texts | {"memory_format": kept_as}),
    )
    fmbench.run([*TINY, *NARROW, f"hydra.run.dir={tmp_path / 'run'}"])
    model = fmbench.load_model(tmp_path / "run").model
    assert all(weight.is_contiguous() for weight in model.parameters())


class Remembers(nn.Module):
    """All that a model may keep, and every source of random numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)
        self.calls, self.seen, self.by_name = 0, [], {}
        self.generator = torch.Generator().manual_seed(1)
        self.aside = torch.zeros(1)
        self.through = lambda x: self.norm(x * 1)  # leads from a copy to the model itself

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        self.by_name[len(x)] = True
        self.aside += 1
        x = self.through(self.conv(x)).relu().mean((2, 3))
        noise = torch.rand(1, generator=self.generator) + random.random() + np.random.rand()
        return self.head(F.dropout(x, 0.5, self.training)) + noise


def weight_normed():
    model = nn.Sequential(Remembers())
    nn.utils.weight_norm(model[0].head)
    model[0].aside = 0
    return model


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("build", [Remembers, weight_normed])
def test_steps_that_are_tried_leave_nothing(build):
    def kept(model):
        inner = model[0] if isinstance(model, nn.Sequential) else model
        return (
            {name: value.clone() for name, value in model.state_dict().items()},
            (inner.calls, list(inner.seen), dict(inner.by_name), float(inner.aside)),
            (inner.generator.get_state(), torch.get_rng_state()),
            (random.getstate(), np.random.get_state()[1].tolist()),
            [module.training for module in model.modules()],
        )

    def step(model, optimizer):
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    model = build()
    images, labels = torch.randn(8, 1, 28, 28), torch.arange(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    model(images).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    values = [gradient.clone() for gradient in gradients]
    seen, addresses = (model[0] if build is weight_normed else model).seen, []
    before, momentum = kept(model), [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    for _ in range(2):
        with preserved(model, optimizer, device=CPU) as (tried, steps):
            tried.eval()
            for _ in range(2):
                step(tried, steps)
            changed = [not torch.equal(a, b) for a, b in zip(
                before[0].values(), model.state_dict().values(), strict=True)]  # fmt: skip
            assert any(changed)
        torch.testing.assert_close(kept(model), before, rtol=0, atol=0)
        addresses.append([p.data_ptr() for p in model.parameters()])
        assert all(a.grad is b for a, b in zip(model.parameters(), gradients, strict=True))
    assert addresses[0] == addresses[1]
    assert (model[0] if build is weight_normed else model).seen is seen
    torch.testing.assert_close(gradients, values, rtol=0, atol=0)
    after = [state["momentum_buffer"] for state in optimizer.state.values()]
    torch.testing.assert_close(after, momentum, rtol=0, atol=0)


def test_a_run_has_the_bits_that_it_has_without_a_rehearsal(monkeypatch):
    def trained():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        trainer = rehearsed(Remembers(), "epochs=2", memory_format="channels_last")
        epochs = list(trainer.fit(lambda *_sums: None))
        return epochs[-1].train, trainer.model.state_dict(), trainer.model.seen

    def without(model, _loader, *, device, **_others):
        device.place(model)
        return device, False

    with_it = trained()
    monkeypatch.setattr(rehearsal, "rehearse", without)
    torch.testing.assert_close(with_it, trained(), rtol=0, atol=0)


class Net(nn.Sequential):
    """A model of the user's own, which keeps something from call to call."""

    def __init__(self, keeps):
        super().__init__(
            nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 10)
        )
        self.calls, self.seen, self.made, self.keeps = 0, [], None, keeps
        self.generator = torch.Generator()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("aside", torch.zeros(()), persistent=False)

    def forward(self, x):
        x = super().forward(x)
        return x + 0 * self.keeps(self, x) if self.training else x


class Extra(Net):
    """Its counter is in its `state_dict`, as the number that it is."""

    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, state):
        self.calls = state


def calls(net, _x):
    net.calls += 1
    return net.calls


def seen(net, _x):
    net.seen.append(1)
    return len(net.seen)


def sometimes(net, _x):
    """A number in the first call, a tensor in every third."""
    net.calls += 1
    net.made = torch.ones(()) if net.calls % 3 == 0 else None
    return net.calls


def clocked(net, _x):
    net.made = time.perf_counter()
    return 0


def boxed(net, _x):
    net.made = [torch.ones(()), *(net.made or [])]
    return len(net.made)


def named(net, _x):
    net.made = f"{net.made}."
    return 0


def drawn(net, _x):
    return torch.rand((), generator=net.generator)


def aside(net, _x):
    return net.aside.add_(1).clone()


def mask(net, x):
    """What is made in the first call stays."""
    if net.made is None:
        net.made = torch.randn(x.shape[1])
    return net.made


def last(net, x):
    """What the last call gave, random numbers and a buffer in it."""
    net.count += 1
    net.made = x * net.count
    return 0


@pytest.mark.parametrize(("keeps", "name"), [
    (boxed, "made"), (drawn, "generator"), (aside, "aside"), (named, "made"), (seen, "seen"),
    (sometimes, "made"),
])  # fmt: skip
def test_a_model_that_remembers_outside_its_buffers_is_refused(keeps, name):
    refused = f"the model changes {name} when it is called, which no checkpoint holds"
    raises_one_line(
        lambda: rehearsed(Net(keeps), model="mine.Net"), ConfigError, refused, "register_buffer"
    )
    rehearsed(Net(keeps))  # one of fmbench's is not asked


@pytest.mark.parametrize("model", [
    *(lambda keeps=one: Net(keeps) for one in (calls, clocked, mask, last)),
    lambda: Extra(calls),
])  # fmt: skip
def test_a_model_that_remembers_what_it_may_is_not(model):
    before, made = torch.get_rng_state(), model()
    torch.set_rng_state(before)
    state = {name: str(value) for name, value in made.state_dict().items()}
    rehearsed(made, model="mine.Net")
    assert {name: str(value) for name, value in made.state_dict().items()} == state
    assert (made.made, made.calls, made.seen) == (None, 0, [])
    assert torch.equal(torch.get_rng_state(), before)


def replaced(net, _x):
    net.count = net.count + 1
    return 0


def of_python(_net, _x):
    return random.random()


def of_numpy(_net, x):
    return torch.as_tensor(np.random.rand(*x.shape), dtype=x.dtype)


@pytest.mark.parametrize(("keeps", "said"), [
    (calls, "the model changes calls when it is called, a number that such a step"),
    (replaced, "the model puts another tensor in place of its buffer count, which a recorded step"),
    (of_python, "the model or the loss draws random numbers outside the GPU"),
    (of_numpy, "the model or the loss draws random numbers outside the GPU"),
])  # fmt: skip
def test_a_model_that_a_recorded_step_cannot_follow_is_refused(keeps, said):
    raises_one_line(
        lambda: rehearsed(Net(keeps), model="mine.Net", graphs=True),
        ConfigError, f"cuda_graphs=true: {said}", "cuda_graphs=false",
    )  # fmt: skip
    rehearsed(Net(keeps), model="mine.Net")


@pytest.mark.parametrize("keeps", [mask, last])
def test_a_model_that_it_can_follow_is_not(keeps):
    rehearsed(Net(keeps), model="mine.Net", graphs=True)


class Forgets(nn.Module):
    """Of `super().__init__()`, before a layer or for good."""

    def __init__(self, layer):
        if layer:
            self.layer = nn.Flatten()


@pytest.mark.parametrize(("layer", "part"), [
    (True, "AttributeError: cannot assign module before Module.__init__() call"),
    (False, "its __init__ does not call super().__init__()"),
])  # fmt: skip
def test_a_model_without_its_base_is_refused(monkeypatch, layer, part):
    monkeypatch.setenv("FMBENCH_TRUST", __name__)
    config = {**compose(*TINY), "model": {"_target_": f"{__name__}.Forgets", "layer": layer}}
    said = f"model ({__name__}.Forgets): {part}"
    raises_one_line(lambda: prepare.rehearse(config), ConfigError, said)
    raises_one_line(
        lambda: prepare.make_model(config, prepare.ImageFacts(SHAPE, 10)), ConfigError, said
    )


def test_a_model_that_is_refused_runs_in_no_memory_format(monkeypatch):
    said = []
    monkeypatch.setattr(rehearsal.log, "info", lambda text, *parts: said.append(text % parts))
    raises_one_line(lambda: rehearsed(nn.Sequential(nn.Flatten(), nn.Linear(784, 5))), ConfigError)
    assert said == []
    rehearsed(Layer())
    (line,) = said
    assert line.startswith("runs in contiguous memory, since in channels_last the model calls a 1")


def test_a_model_that_takes_multiples_of_four_alone_is_not_refused():
    class Fours(nn.Linear):
        def forward(self, x):
            return super().forward(x.reshape(4, len(x) // 4, -1)).flatten(0, 1)

    assert rehearsed(Fours(784, 10), "data.test_size=40").loader.joins_last is False


def test_memory_that_is_not_to_be_had_stays_what_it_is():
    class Large(nn.Linear):
        def forward(self, _x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        rehearsed(Large(784, 10))


@pytest.mark.parametrize(("count", "sizes"), [(129, [64, 65]), (65, [65]), (130, [64, 64, 2])])
def test_one_image_is_joined_to_the_batch_before_it(count, sizes):
    trainer = rehearsed(tutorials.NormedMLP(), f"data.train_size={count}", "epochs=2")
    loader = trainer.loader
    assert [len(labels) for _, labels in loader.epoch(0)] == sizes
    assert len(loader) == len(sizes)
    assert trainer.schedule.scheduler.total_steps == 2 * len(sizes) + 1
    rest = [len(labels) for _, labels in loader.epoch(0, seen=sizes[0])]
    assert rest == sizes[1:]
    assert len(list(trainer.fit(lambda *_sums: None))) == 2


def test_images_that_are_joined_cross_no_chunk(monkeypatch):
    monkeypatch.setattr("fmbench.data.loader.CHUNK", 64)
    loader = rehearsed(tutorials.NormedMLP(), "data.train_size=129").loader
    batches = list(loader.epoch(0))
    assert [len(labels) for _, labels in batches] == [64, 65]
    loader.joins_last = False
    alone = list(loader.epoch(0))
    assert [len(labels) for _, labels in alone] == [64, 64, 1]
    for place in (0, 1):
        joined, apart = (torch.cat([batch[place] for batch in way]) for way in (batches, alone))
        assert torch.equal(joined, apart)


def test_lazy_weights_are_drawn_when_the_model_is_made():
    torch.manual_seed(3)
    model = tutorials.LazyResNet()
    rehearsal.materialize(model, SHAPE)
    drawn = torch.get_rng_state()
    torch.manual_seed(3)
    again = tutorials.LazyResNet()
    rehearsal.materialize(again, SHAPE)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    assert torch.equal(drawn, torch.get_rng_state())
    assert model.training
    assert model.stem[1].num_batches_tracked == 0
    assert torch.equal(model.stem[1].running_mean, torch.zeros(4))


def test_a_lazy_layer_that_evaluation_does_not_call_is_named():
    class Forgotten(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aux = nn.LazyLinear(10), nn.LazyLinear(10)

        def forward(self, x):
            return self.used(x.flatten(1))

    raises_one_line(lambda: rehearsal.materialize(Forgotten(), SHAPE), ConfigError, "aux.weight")


@pytest.mark.slow
def test_a_narrow_model_trains_on_a_processor_without_avx512(tmp_path):
    """Where it was trained in channels_last it died, or never ended."""
    older = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = run_command(*TINY, *NARROW, cwd=tmp_path, environment=older, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (
        "runs in contiguous memory, since in channels_last the model calls a 1 x 1" in done.stderr
    )
    assert records(tmp_path)[0]["fingerprint"]["memory_format"] == "contiguous"
