"""A kept model predicts what it predicted in its run; one from a stranger does no harm."""

import contextlib
import functools
import json
import os
import random
import re
import struct
import sys

import numpy as np
import pytest
import torch
from commands import CHECKOUT, KEPT, TINY, compose, raises_one_line, written
from torch import nn

import fmbench
from fmbench.core.errors import ConfigError, DataError, StorageError, UserError
from fmbench.data import synthetic
from fmbench.data.load import load
from fmbench.models.lenet5 import LeNet5
from fmbench.predict import model as module
from fmbench.training.weights import write_weights

README = (CHECKOUT / "README.md").read_text("utf-8")


def kept(folder, *overrides):
    return fmbench.run([*KEPT, f"hydra.run.dir={folder}", *overrides])


def drawn_images(folder):
    config = json.loads((folder / "result.json").read_text())["config"]
    return torch.from_numpy(load(config["data"]).part("test")[0].copy())


def predictions(folder):
    return np.load(folder / "predictions.npy").tolist()


def test_it_predicts_what_the_run_predicted(kept_run):
    model = fmbench.load_model(kept_run)
    images = drawn_images(kept_run)
    assert model(images).argmax(1).tolist() == predictions(kept_run)
    assert len(set(predictions(kept_run))) > 4  # it has learnt something: no guess comes to this
    assert torch.equal(model(images), model(images.squeeze(1)))
    probabilities = model.probabilities(images)
    assert torch.equal(probabilities, model(images).softmax(1))
    assert not probabilities.requires_grad


def test_it_comes_ready_with_what_belongs_to_it(kept_run):
    model = fmbench.load_model(str(kept_run))
    record = json.loads((kept_run / "result.json").read_text())
    assert isinstance(model, nn.Module)
    assert not any(module.training for module in model.modules())
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config == record["config"]
    assert model.key == record["key"]
    assert model.classes == synthetic.CLASSES
    white = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    assert model.normalization(white).max().item() == pytest.approx((1 - 0.188) / 0.281)
    assert type(model.model).__name__ == "LeNet5"
    assert model.net is model.model


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [
    ["model=torchvision", "model.name=shufflenet_v2_x0_5"],
    ["model=densenet", "model.depth=10", "augmentation=crop_flip"],
    ["model=resnet18", "model.width=4", "data.split=holdout"],
], ids=lambda overrides: overrides[0])  # fmt: skip
def test_models_with_norms_predict_it_too(tmp_path, overrides):
    record = kept(tmp_path / "run", "data.train_size=200", *overrides)
    model = fmbench.load_model(tmp_path / "run")
    assert model(drawn_images(tmp_path / "run")).argmax(1).tolist() == predictions(tmp_path / "run")
    assert sum(p.numel() for p in model.parameters()) == record.parameters


def test_a_run_in_bf16_keeps_weights_in_float32(tmp_path):
    record = kept(tmp_path / "run", "precision=bf16")
    assert record.fingerprint["precision"] == "bf16"
    model = fmbench.load_model(tmp_path / "run")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    images = drawn_images(tmp_path / "run")
    same = model(images).argmax(1).numpy() == np.array(predictions(tmp_path / "run"))
    assert same.mean() > 0.9
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).argmax(1).tolist() == predictions(tmp_path / "run")


def test_the_same_run_leaves_the_same_file(tmp_path, kept_run):
    kept(tmp_path / "again")
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (kept_run / name).read_bytes()


def test_only_a_completed_run_that_is_asked_to_leaves_one(tmp_path):
    plain = fmbench.run([*TINY, f"hydra.run.dir={tmp_path / 'plain'}"])
    assert plain.status == "completed"
    lost = kept(tmp_path / "lost", "optimizer.lr=1e38", "scheduler=constant")
    assert lost.status == "diverged"
    assert list(tmp_path.rglob("model.safetensors")) == []
    for folder in ("plain", "lost"):
        refused(tmp_path / folder, "holds no ", "keep_model=true", error=DataError)


def test_a_file_that_cannot_be_written_fails_the_run(tmp_path, monkeypatch):
    from fmbench.records.folder import RunFolder

    def full(self, _content):
        raise StorageError("no space")

    monkeypatch.setattr(RunFolder, "write_model", full)
    with pytest.raises(StorageError, match="no space"):
        kept(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_model_that_cannot_be_kept_is_refused_before_it_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(LeNet5, "get_extra_state", lambda _: {"a": 1})
    raises_one_line(lambda: kept(tmp_path / "run"), ConfigError, "keep_model=true: _extra_state")
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_loading_leaves_random_numbers_and_settings_alone(kept_run):
    def state():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    threads, before = torch.get_num_threads(), state()
    fmbench.load_model(kept_run)
    assert state() == before
    assert torch.get_num_threads() == threads


def test_the_example_of_the_readme_runs(kept_run):
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "load_model" in block]
    names = {}
    exec(block.replace("outputs/lenet", str(kept_run)), names)
    assert names["shares"].shape == (5, 10)
    assert set(names["names"]) <= set(synthetic.CLASSES)


def test_images_of_another_kind_are_refused(kept_run):
    model = fmbench.load_model(kept_run)
    for images in (
        torch.zeros(1, 28, 28),
        torch.zeros(1, 28, 28, dtype=torch.int64),
        torch.zeros(28, 28, dtype=torch.uint8),
        torch.zeros(1, 3, 28, 28, dtype=torch.uint8),
        torch.zeros(1, 28, 27, dtype=torch.uint8),
    ):
        raises_one_line(lambda images=images: model(images), DataError, "must be torch.uint8")


#: Of a run whose predictions nobody looks at.
SHORT = ["epochs=1", "data.train_size=64", "data.test_size=10"]


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """A model of one's own that is hard to keep, and the overrides that choose it."""
    (tmp_path / "hardnet.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Hard(nn.Module):\n"
        "    def __init__(self, width, on_meta=False):\n"
        "        super().__init__()\n"
        "        assert on_meta or not torch.ones(1).item() - 1\n"
        "        self.first = nn.Linear(784, width, bias=False)\n"
        "        self.second = nn.Linear(width, width, bias=False)\n"
        "        self.second.weight = nn.Parameter(torch.eye(width))\n"
        "        self.third = self.second\n"
        "        self.register_buffer('drawn', torch.randn(width, 10), persistent=False)\n"
        "    def forward(self, images):\n"
        "        hidden = self.first(images.flatten(1)).relu()\n"
        "        return self.third(self.second(hidden)) @ self.drawn\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FMBENCH_TRUST", "hardnet")
    # No file in conf/model is needed to name a class.
    return ["model._target_=hardnet.Hard", "+model.width=16"]


@pytest.mark.parametrize("more", [[], ["+model.on_meta=true"]], ids=["cpu", "meta"])
def test_tied_weights_and_what_is_drawn_outside_the_state_come_back(tmp_path, own_model, more):
    kept(tmp_path / "run", *own_model, *more, "seed=5")
    model = fmbench.load_model(tmp_path / "run")
    assert model.model.third.weight is model.net.second.weight
    assert not torch.equal(model.model.second.weight, torch.eye(16))
    assert model(drawn_images(tmp_path / "run")).argmax(1).tolist() == predictions(tmp_path / "run")
    assert len(set(predictions(tmp_path / "run"))) > 2


def test_a_model_whose_code_was_changed_is_told(tmp_path, own_model, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "hardnet", raising=False)
    kept(tmp_path / "run", *own_model, *SHORT)
    fmbench.load_model(tmp_path / "run")
    assert "has changed" not in caplog.text
    path = tmp_path / "hardnet.py"
    text = path.read_text()
    path.write_text(text.replace(".relu()", ".tanh()  # the same weights fit"))
    monkeypatch.delitem(sys.modules, "hardnet")
    fmbench.load_model(tmp_path / "run")
    assert "the code of hardnet.Hard has changed since it was trained" in caplog.text
    path.write_text(text)


def test_a_model_of_ones_own_needs_trust_again(tmp_path, own_model, monkeypatch):
    kept(tmp_path / "run", *own_model, *SHORT)
    monkeypatch.setenv("FMBENCH_TRUST", "")
    raises_one_line(
        lambda: fmbench.load_model(tmp_path / "run"), ConfigError, "hardnet.Hard", "FMBENCH_TRUST"
    )


# What a stranger may put into a folder.

LENET5 = {"_target_": "fmbench.models.lenet5.LeNet5"}
RESNET = {"_target_": "fmbench.models.resnet18.ResNet18"}
TORCHVISION = {"_target_": "fmbench.models.torchvision.Torchvision"}
DETECTION = {"_target_": "fmbench.models.torchvision._build", "name": "retinanet_resnet50_fpn",
             "size": 28, "classes": 10}  # fmt: skip


@functools.cache
def lenet5():
    return compose(*TINY, "model=lenet5")


def forge(folder, weights=None, **config):
    """A file of LeNet-5's weights, or others, that claims to be of a config."""
    folder.mkdir(exist_ok=True)
    content = written(
        write_weights,
        weights or LeNet5(),
        config=lenet5() | config,
        classes=synthetic.CLASSES,
        key="k",
        memory_format="channels_last",
        source=None,
        shape=[1, 28, 28],
        mean=0.188,
        std=0.281,
    )
    (folder / "model.safetensors").write_bytes(content)
    return folder


def refused(folder, *parts, error=UserError):
    with pytest.raises(error) as raised:
        fmbench.load_model(folder)
    text = str(raised.value)
    assert len(text) < 1000
    assert "\n" not in text
    assert all(part in text for part in ("model.safetensors", *parts)), text


@pytest.mark.parametrize(("model", "part"), [
    ({"_target_": "os.mkdir", "path": "harm"}, "os.mkdir"),
    ({"_target_": "fmbench.models.torchvision.torch.load", "f": "x"}, "whitelist"),
    (DETECTION, "whitelist"),
    ({"_target_": "fmbench.core.files.write_whole", "path": "harm", "content": "x"}, "whitelist"),
    ({"_target_": "torch.optim.SGD", "params": [], "lr": 1}, "SGD"),
    (LENET5 | {"classes": {"_target_": "os.mkdir", "path": "harm"}}, "os.mkdir"),
    (LENET5 | {"_partial_": True}, "no torch.nn.Module"),
    (LENET5 | {"_args_": [1]}, "LeNet5"),
    (LENET5 | {"classes": "${oc.env:HOME}"}, "not that of a run"),
    (LENET5 | {"nothing": 1}, "nothing"),
    (LENET5 | {"\x1b[2J\n": 1}, "LeNet5"),
    ({"_target_": "fmbench.models.lenet5.Nothing"}, "Nothing"),
    ({"_target_": ""}, ""),
    (LENET5 | {"classes": 5}, "size mismatch for classifier.2.weight"),
    (LENET5 | {"classes": 10**12}, "far larger"),
    (RESNET | {"depths": [1] * 60}, "far larger"),
    (RESNET | {"depths": [10**9]}, "far larger"),
    (RESNET | {"width": 2**60}, "cannot be"),
    (RESNET | {"width": "x" * 10**5}, "xxx..."),
    (TORCHVISION | {"name": "vit_h_14", "upsample": 224}, "far larger"),
    (TORCHVISION | {"upsample": 10**6}, "at most 1024"),
], ids=lambda value: str(value)[:90])  # fmt: skip
def test_a_config_that_asks_for_another_thing_is_refused(tmp_path, monkeypatch, model, part):
    monkeypatch.chdir(tmp_path)
    refused(forge(tmp_path / "run", model=model), part)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_no_memory_is_taken_for_a_model_that_does_not_fit(tmp_path, monkeypatch):
    made = []
    make = module.make_model
    monkeypatch.setattr(module, "make_model", lambda *given: made.append(1) or make(*given))
    refused(forge(tmp_path, model=RESNET | {"width": 16}), "Missing key", error=DataError)
    assert made == []
    fmbench.load_model(forge(tmp_path))
    assert made == [1]


def test_a_model_of_ones_own_that_is_giant_is_refused_where_it_has_no_meta(tmp_path, own_model):
    kept(tmp_path / "run", *own_model, *SHORT)
    model = fmbench.load_model(tmp_path / "run")
    for width, part in ((17, "size mismatch for first.weight"), (20_000, "far larger")):
        giant = {"_target_": "hardnet.Hard", "width": width}
        refused(forge(tmp_path / "forged", weights=model.model, model=giant), part, error=DataError)


def test_a_model_that_fails_or_knows_other_classes_is_refused(tmp_path, own_model, monkeypatch):
    kept(tmp_path / "run", *own_model, *SHORT, "+model.on_meta=true")
    model = fmbench.load_model(tmp_path / "run")
    monkeypatch.setattr(type(model.model), "forward", lambda *_: 1 / 0)
    refused(tmp_path / "run", "ZeroDivisionError", error=DataError)
    monkeypatch.setattr(type(model.model), "forward", lambda _, images: images.flatten(1))
    refused(tmp_path / "run", "[1, 784] for 1 image of 10 classes", error=DataError)


def test_weights_that_are_not_numbers_of_the_model_are_refused(tmp_path):
    short = LeNet5()
    short.features[0].bias = None
    refused(forge(tmp_path, weights=short), 'Missing key(s) in state_dict: "features.0.bias"')
    short.more = nn.Parameter(torch.zeros(1))
    short.features[0].bias = nn.Parameter(torch.zeros(6))
    refused(forge(tmp_path, weights=short), 'Unexpected key(s) in state_dict: "more"')


def with_header(change):
    """Change the header, a dict, and leave the numbers."""

    def changed(content):
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[end:]

    return changed


def padded(content, length):
    """The same with spaces behind its header."""
    end = 8 + int.from_bytes(content[:8], "little")
    return struct.pack("<Q", length) + content[8:end].ljust(length) + content[end:]


def one_tensor(**entry):
    return with_header(lambda header: header["features.0.weight"].update(entry))


@pytest.mark.parametrize("damage", [
    lambda content: b"",
    lambda content: content[:500],
    lambda content: content[:-1],
    lambda content: content + b"x",
    lambda content: content[:8] + b"x" * (len(content) - 8),
    lambda content: struct.pack("<Q", 2**63) + content[8:],
    lambda content: struct.pack("<Q", len(content) - 8) + content[8:],
    lambda content: padded(content, 2**22 + 8),
    lambda content: b"\x80\x04\x95" + content,  # a pickle begins like this
    lambda content: b"PK\x03\x04" + content,  # and torch.save's like this
    one_tensor(shape=[6, 1, 5, 6]),
    one_tensor(shape=[2**40, 2**40]),
    one_tensor(dtype="F65"),
    one_tensor(data_offsets=[0, 2**50]),
    one_tensor(data_offsets=[600, 0]),
    with_header(lambda header: header.pop("features.0.weight")),
    with_header(lambda header: header.pop("__metadata__")),
    with_header(lambda header: header["__metadata__"].pop("fmbench")),
    with_header(lambda header: header["__metadata__"].update(fmbench="[" * 10_000)),
    with_header(lambda header: header["__metadata__"].update(fmbench="x" * 2**21)),
])  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = forge(tmp_path) / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    refused(tmp_path, error=DataError)


def test_a_header_may_end_in_spaces(tmp_path):
    path = forge(tmp_path) / "model.safetensors"
    path.write_bytes(padded(path.read_bytes(), 2**22))
    assert fmbench.load_model(tmp_path).key == "k"


@pytest.mark.slow
def test_any_byte_of_the_header_may_be_wrong(tmp_path):
    path = forge(tmp_path) / "model.safetensors"
    content = path.read_bytes()
    draw = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content)
        place = draw.randrange(8 + int.from_bytes(content[:8], "little"))
        damaged[place] = draw.randrange(256)
        path.write_bytes(damaged)
        # A digit of what the model does not depend on may differ; all else is a UserError.
        with contextlib.suppress(UserError):
            fmbench.load_model(tmp_path)


def test_what_is_no_folder_and_no_file_is_refused(tmp_path):
    for wrong in ("nowhere", "x" * 5000, "nul\0", __file__):
        raises_one_line(lambda wrong=wrong: fmbench.load_model(wrong), ConfigError, "not a folder")
    folder, pipe, loop = (tmp_path / name for name in ("folder", "pipe", "loop"))
    (folder / "model.safetensors").mkdir(parents=True)
    for other in (pipe, loop):
        other.mkdir()
    os.mkfifo(pipe / "model.safetensors")  # opening it would wait for ever
    (loop / "model.safetensors").symlink_to(loop / "model.safetensors")
    for other in (folder, pipe, loop):
        refused(other, "make the run again with keep_model=true", error=DataError)
