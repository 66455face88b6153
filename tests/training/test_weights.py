"""The file of weights: what goes in comes out, and what is no such file is refused."""

import io
import json
import struct

import pytest
import torch
from commands import raises_one_line
from safetensors.torch import load
from torch import nn

from fmbench.core.errors import ConfigError, DataError
from fmbench.training.weights import (
    DTYPES,
    MAX_HEADER,
    bounded_by,
    read_weights,
    refuse_unkeepable,
    write_weights,
)

CONFIG = {"seed": 3, "model": {"_target_": "x.Net"}, "data": {"mean": 0.25, "std": 0.5}}
GIVEN = {
    "config": CONFIG, "classes": ["Bag", "Coat"], "key": "k", "memory_format": "contiguous",
    "source": None, "shape": [1, 28, 28], "mean": 0.25, "std": 0.5,
}  # fmt: skip


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


def written(model, **changes):
    file = io.BytesIO()
    write_weights(model, file, **(GIVEN | changes))
    return file.getvalue()


def with_texts(content, texts):
    """The same file with other metadata, which has texts of any name."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end]) | {"__metadata__": texts}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[end:]


@pytest.fixture
def read(tmp_path):
    def call(content):
        (tmp_path / "file").write_bytes(content)
        return read_weights(tmp_path / "file")

    return call


def test_every_tensor_is_kept_whole_whatever_its_memory_and_type(read):
    model = Tied()
    for number, dtype in enumerate(DTYPES):
        for letter in "ba":
            model.register_buffer(f"{letter}{number}", torch.ones(number, 3).to(dtype))
    description, found = read(written(model))
    assert description == GIVEN
    assert found.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
        assert found[name].is_contiguous()
    assert load(written(model)).keys() == found.keys()  # as the library reads it


def test_the_same_model_gives_the_same_bytes_and_numbers_are_aligned():
    model = Tied()
    for length in range(8):
        content = written(model, key="k" * length)
        assert content == written(model, key="k" * length)
        assert int.from_bytes(content[:8], "little") % 8 == 0


def test_what_cannot_be_kept_is_refused_before_training():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    refuse_unkeepable(Tied())
    raises_one_line(lambda: refuse_unkeepable(Extra(1, 1)), ConfigError, "_extra_state", "dict")
    odd = nn.Module()
    odd.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    raises_one_line(lambda: refuse_unkeepable(odd), ConfigError, "keep_model=true: phase")


def test_a_file_of_0_1_is_read(read):
    texts = {"config": json.dumps(CONFIG), "classes": '["Bag", "Coat"]', "key": "k", "source": "s"}
    description, state = read(with_texts(written(nn.Linear(1, 1)), texts))
    assert description == GIVEN | {"memory_format": "channels_last", "source": "s"}
    assert set(state) == {"weight", "bias"}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "[" * 1000, "[" * 100_000,
        *(
            json.dumps(GIVEN | change)
            for change in (
                {"key": 1}, {"config": {}}, {"config": []}, {"classes": 1}, {"classes": [1]},
                {"config": CONFIG | {"model": {"_target_": "${oc.env:HOME}"}}},
                {"config": CONFIG | {"seed": -1}}, {"config": CONFIG | {"seed": "1"}},
                {"std": 0}, {"mean": [0.5], "std": [0]}, {"mean": [0.5, 0.5], "std": [1, 1]},
                {"shape": [1, 28]}, {"shape": [1, 28, -1]},
                {"mean": float("nan")},
                {"config": CONFIG | {"more": list(range(10_001))}},
            )
        ),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(read, text):
    content = with_texts(written(nn.Linear(1, 1)), {"fmbench": text})
    raises_one_line(lambda: read(content), DataError, "header is not that of a run")


@pytest.mark.parametrize(("length", "said"), [
    (MAX_HEADER + 8, "at most 4,194,304"), (200, "not a whole safetensors file"),
])  # fmt: skip
def test_a_header_too_long_is_refused(read, length, said):
    content = struct.pack("<Q", length) + b" " * 100
    raises_one_line(lambda: read(content), DataError, said)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_far_beyond_its_file_is_stopped_as_it_is_built(device):
    state = Tied().state_dict()

    def deep():
        with bounded_by(state), torch.device(device):
            nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))

    def wide():
        with bounded_by(state), torch.device(device):
            nn.Linear(20_000, 20_000)

    for build in (deep, wide):
        raises_one_line(build, DataError, "far larger")
    with bounded_by(state):
        Tied()
    nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))  # the watch has ended
