"""The file of weights: what goes in comes out, and what is no such file is refused."""

import json
import subprocess
import sys

import pytest
import torch
from commands import raises_one_line, written
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

import fmbench
from fmbench.core.errors import ConfigError, DataError
from fmbench.training.weights import (
    DTYPES,
    MOST_CHARACTERS,
    compare,
    not_far_beyond,
    read_header,
    refuse_unkeepable,
    write_weights,
)

CONFIG = {"seed": 3, "model": {"_target_": "x.Net"}, "data": {"mean": 0.25, "std": 0.5}}
TEXTS = {"config": json.dumps(CONFIG), "classes": '["Bag", "Coat"]', "key": "k"}


class Tied(nn.Module):
    """One tensor under two names, one that is a view of it, one spread by strides."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("row", self.first.weight.detach()[0])
        self.register_buffer("spread", torch.ones(1).expand(4))
        self.convolution = nn.Conv2d(4, 2, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(2)


def layout(model):
    names = {torch.float32: "F32", torch.int64: "I64"}
    return {n: (names[t.dtype], tuple(t.shape)) for n, t in model.state_dict().items()}


def write(model, path):
    path.write_bytes(written(write_weights, model, config=CONFIG, classes=["Bag", "Coat"], key="k"))
    return path


def test_every_tensor_is_kept_whole_whatever_its_memory(tmp_path):
    model = Tied()
    with safe_open(write(model, tmp_path / "file"), framework="pt") as file:
        said = {"memory_format": "channels_last", "fmbench_version": fmbench.__version__}
        assert file.metadata() == TEXTS | said
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert set(kept) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(kept[name], tensor), name
        assert kept[name].dtype == tensor.dtype
        assert kept[name].is_contiguous()
    assert kept["norm.num_batches_tracked"].dtype == torch.int64


def test_the_bytes_are_those_of_the_library():
    model = Tied()
    for number, dtype in enumerate(DTYPES.values()):
        for letter in "ba":
            model.register_buffer(f"{letter}{number}", torch.ones(number, 3).to(dtype))
    ours = written(write_weights, model, config=CONFIG, classes=["Bag", "Coat"], key="k")
    contiguous = {name: value.clone(memory_format=torch.contiguous_format)
                  for name, value in model.state_dict().items()}  # fmt: skip
    theirs = save(contiguous)
    ends = [8 + int.from_bytes(content[:8], "little") for content in (ours, theirs)]
    assert ours[ends[0] :] == theirs[ends[1] :]
    header, expected = json.loads(ours[8 : ends[0]]), json.loads(theirs[8 : ends[1]])
    assert list(header.items())[1:] == list(expected.items())


def test_numbers_begin_at_a_multiple_of_eight_bytes(tmp_path):
    for length in range(8):
        texts = {"config": CONFIG, "classes": ["x" * length], "key": "k"}
        content = written(write_weights, nn.Linear(1, 1), **texts)
        assert int.from_bytes(content[:8], "little") % 8 == 0


@pytest.mark.slow
def test_the_same_net_gives_the_same_bytes_in_every_process(tmp_path):
    probe = (
        "import hashlib, io; from torch import nn\n"
        "from fmbench.training.weights import write_weights\n"
        "model, kept = nn.BatchNorm2d(2), io.BytesIO()\n"
        "write_weights(model, kept, config={'a': 1}, classes=['Bag'], key='k')\n"
        "print(hashlib.sha256(kept.getvalue()).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_what_cannot_be_kept_is_refused_before_training():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    refuse_unkeepable(Tied())
    raises_one_line(lambda: refuse_unkeepable(Extra(1, 1)), ConfigError, "_extra_state", "dict")
    odd = nn.Module()
    odd.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    raises_one_line(lambda: refuse_unkeepable(odd), ConfigError, "keep_model=true: phase")


def test_a_header_is_read():
    header = read_header(TEXTS)
    assert header.config == CONFIG
    assert header.classes == ("Bag", "Coat")
    assert header.key == "k"
    assert header.normalization(torch.tensor([255], dtype=torch.uint8)).item() == 1.5


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"config": None}, "no config"),
        ({"classes": None}, "no classes"),
        ({"key": None}, "no key"),
        ({"config": "{"}, "JSONDecodeError"),
        ({"config": "[" * 100_000}, "over 10,000 values"),
        ({"classes": "[" * 100_000}, "RecursionError"),
        ({"config": "[]"}, "TypeError"),
        ({"config": "{}"}, "KeyError"),
        ({"config": json.dumps(CONFIG | {"padding": "x" * MOST_CHARACTERS})}, "over 1,048,576"),
        ({"config": json.dumps(CONFIG | {"model": None})}, "TypeError"),
        ({"config": json.dumps(CONFIG | {"model": {"_target_": 3}})}, "config.model._target_"),
        ({"config": json.dumps(CONFIG | {"model": {"_target_": "${oc.env:HOME}"}})}, "cannot be"),
        ({"config": json.dumps(CONFIG | {"seed": -1})}, "config.seed cannot be"),
        ({"config": json.dumps(CONFIG | {"seed": "1"})}, "config.seed cannot be"),
        ({"config": json.dumps(CONFIG | {"data": {"mean": 0, "std": 0}})}, "ZeroDivisionError"),
        ({"config": json.dumps(CONFIG | {"data": {"mean": 0, "std": "1"}})}, "TypeError"),
        ({"config": json.dumps(CONFIG | {"data": {"mean": float("nan"), "std": 1}})}, "data"),
        ({"classes": '"Bag"'}, "classes cannot be"),
        ({"classes": "[1]"}, "classes cannot be"),
        ({"classes": '["\\u001b[2J"]'}, "classes cannot be"),
    ],
)
def test_a_header_that_is_none_is_refused(changes, part):
    texts = {name: text for name, text in (TEXTS | changes).items() if text is not None}
    raises_one_line(lambda: read_header(texts), DataError, "header", part)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda found: found.pop("norm.bias"), "lacks norm.bias"),
        (lambda found: found.update(other=("F32", (1,))), "holds 'other'"),
        (lambda found: found.update({"\x1b[2J": ("F32", (1,))}), r"holds '\x1b[2J'"),
        (lambda found: found.update(row=("F32", (4,))), "row is F32 [4], but torch.float32 [3]"),
        (lambda found: found.update(row=("F16", (3,))), "row is F16 [3], but torch.float32 [3]"),
        (lambda found: found.update(row=("F8_E4M3", (3,))), "row is F8_E4M3"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_of_another_net_are_refused(device, change, part):
    with torch.device(device):
        model = Tied()
    found = layout(Tied())
    compare(found, model)
    change(found)
    raises_one_line(lambda: compare(found, model), DataError, part)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_net_far_beyond_its_file_is_stopped_as_it_is_made(device):
    found = layout(Tied())

    def deep():
        with not_far_beyond(found), torch.device(device):
            nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))

    def wide():
        with not_far_beyond(found), torch.device(device):
            nn.Linear(20_000, 20_000)

    for make in (deep, wide):
        raises_one_line(make, DataError, "far larger")
    with not_far_beyond(found):
        Tied()
    nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))  # the watch has ended
