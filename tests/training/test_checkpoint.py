import errno
import hashlib
import io
import os
import random
import struct
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import python, written

from fmbench.core.errors import StorageError
from fmbench.training import checkpoint
from fmbench.training.checkpoint import (
    MAGIC,
    Bounds,
    Checkpoints,
    DamagedError,
    bounds,
    random_states,
    read_state,
    restore_random_states,
    write_state,
)

CPU = torch.device("cpu")


def to_bytes(state):
    return written(write_state, state)


def from_bytes(content):
    return read_state(io.BytesIO(content))


class Clock:
    """Shows the time that it is set to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def checkpoints(folder, clock=None, every=None):
    options = {"clock": clock} if clock else {}
    return Checkpoints(folder / "new", folder / "old", every=every, **options)


def test_a_state_comes_back_as_it_was():
    state = {
        "weights": OrderedDict(a=torch.randn(3, 4), b=torch.tensor(7)),
        "bf16": torch.randn(2).bfloat16(),
        "list": [1, 2.5, "three", None, True],
    }
    read = from_bytes(to_bytes(state))
    assert torch.equal(read["weights"]["a"], state["weights"]["a"])
    assert torch.equal(read["bf16"], state["bf16"])
    assert read["list"] == state["list"]


def forged(content):
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def test_a_number_that_is_not_as_it_was_written_is_damage():
    content = bytearray(to_bytes({"a": torch.zeros(1000)}))
    content[content.index(bytes(2000)) + 1000] = 1  # PyTorch alone reads it
    with pytest.raises(DamagedError, match="SHA-256"):
        from_bytes(bytes(content))


class Starts:
    def __reduce__(self):
        return print, ("started",)


@pytest.mark.parametrize("content", [
    b"",
    b"fmbench checkpoint 2\n",
    MAGIC,
    to_bytes({"a": 1})[:-1],
    to_bytes({"a": 1}) + b"\0",
    forged(b""),
    forged(b"PK\x03\x04 no archive"),
    forged(to_bytes({"a": 1})),
])  # fmt: skip
def test_what_is_no_checkpoint_is_damaged(content):
    with pytest.raises(DamagedError):
        from_bytes(content)


def archive(*entries, end=b""):
    """An archive as PyTorch writes it, of names, contents and how they are stored.

    An entry is stored, deflated, or the same bytes as the entry of another name.
    """
    out, places, directory = io.BytesIO(), {}, b""
    for name, content, how in [
        *(("archive/byteorder", b"little", "stored"), ("archive/version", b"3", "stored")),
        *entries,
    ]:
        if how not in places:
            compress = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = content if how == "stored" else compress.compress(content) + compress.flush()
            method = 0 if how == "stored" else 8
            sizes = method, zlib.crc32(content), len(packed), len(content)
            places[name] = *sizes, out.tell()
            head = struct.pack(
                "<4s3HI3I2H", b"PK\3\4", 20, 0, sizes[0], 0, *sizes[1:], len(name), 0
            )
            out.write(head + name.encode() + packed)
        *sizes, begin = places.get(how) or places[name]
        directory += struct.pack(
            "<4s4HI3I5H2I", b"PK\1\2", 20, 20, 0, sizes[0], 0, *sizes[1:], len(name), 0, 0, 0, 0, 0,
            begin,
        ) + name.encode()  # fmt: skip
    at, count = out.tell(), len(entries) + 2
    out.write(directory)
    out.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count,
                          len(directory), at))  # fmt: skip
    out.write(struct.pack("<4sIQI", b"PK\6\7", 0, at + len(directory), 1))
    out.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), at, 0))
    return out.getvalue() + end


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(key, count, made=None):
    """The pickle of a tensor of so many float32, all of the storage of a key."""
    how = made or b"J" + struct.pack("<i", count) + b"\x85K\1\x85"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        + text(key) + text("cpu") + b"J" + struct.pack("<i", count) + b"tQK\0" + how
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def pickled(*values):
    items = b"".join(text(str(number)) + value for number, value in enumerate(values))
    return "archive/data.pkl", b"\x80\2}(" + items + b"u.", "stored"


#: What takes much more memory than it has bytes, with PyTorch's reader alone.
NUMBERS = bytes(range(256)) * 40
COUNT = len(NUMBERS) // 4
SPELT = ["".join(letter.upper() if number >> place & 1 else letter
                 for place, letter in enumerate("abcdef")) for number in range(64)]  # fmt: skip
WIDE = tensor("0", 1, b"J" + struct.pack("<i", 10**6) + b"\x85K\0\x85")
HUGE = {
    "compressed numbers": archive(
        pickled(tensor("0", COUNT)), ("archive/data/0", bytes(len(NUMBERS)), "deflated")
    ),
    "a compressed pickle": archive((*pickled(text(" " * 10**5))[:2], "deflated")),
    "entries of the same bytes": archive(
        pickled(*[tensor(str(number), COUNT) for number in range(64)]),
        ("archive/data/0", NUMBERS, "stored"),
        *[(f"archive/data/{number}", None, "archive/data/0") for number in range(1, 64)],
    ),
    "an entry by many spellings of its name": archive(
        pickled(*[tensor(name, COUNT) for name in SPELT]),
        ("archive/data/abcdef", NUMBERS, "stored"),
    ),
    "bytes as many as asked for": archive(
        pickled(b"cbuiltins\nbytearray\nJ" + struct.pack("<i", 10**6) + b"\x85R")
    ),
    "a text in four bytes each": archive(
        pickled(b"c_codecs\nencode\n" + text("x" * 1000) + text("utf-32") + b"\x86R")
    ),
    "one number as many, in another type": archive(
        pickled(
            b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n(" + WIDE
            + b"ctorch\nfloat64\n" + text("cpu") + b"\x89tR"
        ),
        ("archive/data/0", bytes(4), "stored"),
    ),
}  # fmt: skip


def two_directories():
    """One that PyTorch is pointed at, and at the end of the file one that leaves out an entry."""
    whole = archive(
        ("archive/data/0", bytes(len(NUMBERS)), "deflated"), pickled(tensor("0", COUNT))
    )
    at, last = len(whole) - 98, 46 + len("archive/data.pkl")
    less = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, last, at - last)
    return whole[:-42] + less + whole[-42:]


def test_an_archive_of_ones_own_making_is_read():
    content = archive(pickled(tensor("0", COUNT)), ("archive/data/0", NUMBERS, "stored"))
    assert from_bytes(forged(content))["0"].numpy().tobytes() == NUMBERS


@pytest.mark.parametrize("content", HUGE.values(), ids=HUGE)
def test_an_archive_takes_no_more_memory_than_it_has_bytes(content):
    with pytest.raises(DamagedError) as raised:
        from_bytes(forged(content))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [
    two_directories(),
    archive(pickled(), end=b"\0"),
    archive(pickled())[:-1] + b"\1",
    b"more" + archive(pickled()),
    archive(pickled()) + archive((*pickled()[:2], "deflated"))[-98:],
    archive(pickled(), pickled()),
    archive(("archive/DATA.PKL", b"}.", "stored"), pickled()),
    archive(),
    archive(pickled())[:-98] + archive(pickled(), ("x", b"", "stored"))[-98:],
    b"PK\5\6" + bytes(18),
])  # fmt: skip
def test_an_archive_that_two_readers_may_take_for_two_is_damaged(content):
    with pytest.raises(DamagedError):
        from_bytes(forged(content))


@pytest.mark.parametrize(("state", "said"), [
    ({"a": Starts()}, "it holds more than tensors, numbers and texts"), ([1], "no state")
])  # fmt: skip
def test_a_checkpoint_starts_nothing(state, said, capsys):
    content = io.BytesIO()
    torch.save(state, content)
    with pytest.raises(DamagedError, match=said):
        from_bytes(forged(content.getvalue()))
    assert capsys.readouterr().out == ""


def test_the_one_before_is_kept_and_used_where_the_newest_is_damaged(tmp_path, caplog):
    kept = checkpoints(tmp_path)
    assert kept.read() is None
    for number in (1, 2, 3):
        kept.write({"number": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    assert kept.read() == {"number": 3}
    (tmp_path / "new").write_bytes(b"half")
    assert kept.read() == {"number": 2}
    assert "new is damaged and not used" in caplog.text
    (tmp_path / "new").unlink()  # killed between the two renames
    assert kept.read() == {"number": 2}
    (tmp_path / "old").write_bytes(b"")
    assert kept.read() is None
    kept.remove()
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_those_that_are_there(tmp_path, monkeypatch):
    kept = checkpoints(tmp_path)
    kept.write({"number": 1})
    kept.write({"number": 2})

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"new: cannot be written: No space left"):
        kept.write({"number": 3})
    assert kept.read() == {"number": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a_disk_that_fills_up_while_pytorch_writes_is_said(tmp_path, monkeypatch):
    """PyTorch's writer must not see the error: some of its versions end the process."""
    kept = checkpoints(tmp_path)
    kept.write({"number": 1})
    opened = Path.open

    class Full(io.FileIO):
        def write(self, content):
            if self.tell() + len(content) > 5000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    def limited(self, mode="r", *arguments, **options):
        return Full(self, "x") if mode == "xb" else opened(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", limited)
    with pytest.raises(StorageError, match=r"new: cannot be written: No space left"):
        kept.write({"a": torch.zeros(1000), "b": torch.zeros(1000)})
    assert kept.read() == {"number": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_state_is_written_tensor_by_tensor():
    longest = 0

    class File(io.BytesIO):
        def write(self, content):
            nonlocal longest
            longest = max(longest, len(content))
            return super().write(content)

    file = File()
    write_state({str(number): torch.zeros(10_000) for number in range(10)}, file)
    assert longest <= 40_000
    file.seek(0)
    assert set(read_state(file)) == set(map(str, range(10)))


#: Peak memory beyond what is there before, in sizes of the model.
PEAKS = r"""
import re, sys
from pathlib import Path
import torch
from torch import nn
from fmbench.training.checkpoint import Checkpoints
from fmbench.core.files import whole_file
from fmbench.training.weights import write_weights

def look(name):
    said = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\s+(\d+)", said).group(1)) * 1024

def peak(work):
    Path("/proc/self/clear_refs").write_text("5")
    before = look("VmRSS")
    kept = work()
    return (look("VmHWM") - before) / size

def weights():
    with whole_file(Path("weights")) as file:
        write_weights(net, file, config={}, classes=["Bag"], key="k")

net = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(20)])
size = sum(value.nbytes for value in net.state_dict().values())
kept = Checkpoints(Path("new"), Path("old"), every=1)
kept.write({"number": 1})
kept.proven = False
weights()
print(*[peak(work) for work in (lambda: kept.write(net.state_dict()), kept.read, weights)])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts peaks")
def test_checkpoints_and_weights_need_no_memory_for_copies(tmp_path):
    done = python("-c", PEAKS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    write, read, weights = map(float, done.stdout.split())
    assert write < 0.3
    assert read < 1.3  # what is read is there once
    assert weights < 0.3


@pytest.mark.parametrize(("state", "said"), [
    ({"schedule": np.float64}, "cannot read it"), ({"schedule": lambda: 0}, "cannot be written")
])  # fmt: skip
def test_a_state_that_could_not_be_read_again_is_not_written(state, said, tmp_path):
    with pytest.raises(DamagedError, match=said):
        checkpoints(tmp_path).write(state)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_not_kept_for_the_one_before(tmp_path):
    first = checkpoints(tmp_path)
    first.write({"number": 1})
    first.write({"number": 2})
    (tmp_path / "new").write_bytes(b"half")
    again = checkpoints(tmp_path)
    assert again.read() == {"number": 1}
    again.write({"number": 3})
    assert from_bytes((tmp_path / "old").read_bytes()) == {"number": 1}
    again.write({"number": 4})
    assert from_bytes((tmp_path / "old").read_bytes()) == {"number": 3}


def test_the_newest_is_kept_for_the_one_before_also_where_that_is_damaged(tmp_path):
    first = checkpoints(tmp_path)
    first.write({"number": 1})
    first.write({"number": 2})
    (tmp_path / "old").write_bytes(b"half")
    assert first.read() == {"number": 2}
    first.write({"number": 3})
    assert from_bytes((tmp_path / "old").read_bytes()) == {"number": 2}


def test_a_lack_of_memory_is_no_damage(tmp_path, monkeypatch):
    kept = checkpoints(tmp_path)
    kept.write({"number": 1})

    def lacks(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(torch, "load", lacks)
    with pytest.raises(MemoryError):
        kept.read()


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    """No pipe is waited for, no device is read without end; a file may have holes."""
    path = tmp_path / "new"
    for make, why in (
        (path.mkdir, "not a regular file"),
        (lambda: os.mkfifo(path), "not a regular file"),
        (lambda: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda: path.touch() or os.truncate(path, 10**13), "too large: 10,000,000,000,000 bytes"),
    ):
        make()
        with pytest.raises(StorageError) as raised:
            checkpoints(tmp_path).read(Bounds(10**6, 10**6))
        assert str(raised.value).startswith(f"{path}: cannot be read: {why}")
        path.rmdir() if path.is_dir() else path.unlink()


def test_what_is_no_tensor_in_a_checkpoint_has_its_own_bound(tmp_path):
    kept = checkpoints(tmp_path)
    kept.write({"history": "x" * 10_000, "a": torch.zeros(10_000)})
    assert kept.read(Bounds(10**5, 11_000)) is not None
    assert kept.read(Bounds(10**5, 9_000)) is None
    assert kept.damaged == [tmp_path / "new"]
    with pytest.raises(StorageError, match="too large"):
        kept.read(Bounds(10_000, 11_000))


def test_the_bound_of_a_checkpoint_follows_from_the_model():
    small, large = torch.nn.Linear(10, 10), torch.nn.Linear(1000, 1000)
    for model in (small, large):
        optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
        found = bounds(model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1), epochs=9)
        assert found.file - found.texts == 5 * sum(one.nbytes for one in model.parameters())
        assert found.texts < 5 * 10**6
    whose = bounds(small, optimizer, object(), epochs=9)  # of one's own: may keep anything
    assert whose.file > 10**8


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (0, []), (None, [])])
def test_checkpoints_after_so_many_epochs(every, due, tmp_path, clock):
    kept = checkpoints(tmp_path, clock, every)
    assert [epochs for epochs in (1, 2, 3, 4) if kept.due_after(epochs)] == due
    clock.now += 10_000
    assert kept.due_within() == (every is None)  # within an epoch only as time allows


def test_checkpoints_as_time_allows(tmp_path, clock, monkeypatch):
    kept = checkpoints(tmp_path, clock)
    clock.now += 4.9
    assert not kept.due_after(1)
    clock.now += 0.2
    assert kept.due_after(1)
    assert not kept.due_within()
    clock.now += 300
    assert kept.due_within()

    def slow(*_arguments, **_options):
        clock.now += 10

    monkeypatch.setattr(checkpoint, "write_state", slow)
    kept.proven = True
    kept.write({"a": 1})
    clock.now += 499  # 2 % of the time
    assert not kept.due_after(2)
    assert not kept.due_within()
    clock.now += 2
    assert kept.due_after(2)
    assert kept.due_within()


def test_every_source_of_random_numbers_goes_on():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    random.gauss(0, 1)  # keeps a second number for the next call, as NumPy does
    np.random.standard_normal()
    states = from_bytes(to_bytes(random_states(CPU)))

    def draw():
        return (random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist(),
                torch.rand(3).tolist(), torch.randn(5).tolist())  # fmt: skip

    first = draw()
    assert draw() != first
    restore_random_states(states, CPU)
    assert draw() == first
