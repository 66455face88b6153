"""Do to fmbench what happens to programs, and look at what is left.

    python scripts/faults.py
    python scripts/faults.py kills --count 20

- kills: SIGKILL at random instants of short runs, each started again until it is done; in the end
  the weights, the predictions and the record are those of a run that nobody disturbed.
- writes: SIGKILL at the first write, flush, rename or removal of a run's files, at the second,
  and so on until none is left; started again after each.
- disk: the largest file that may be written is so small that one write after the other fails; the
  run says so in a line with exit status 5, and what was whole before is whole.
- truncated: a record cut off at every byte is named as unreadable, and never half-read.
- flipped: a checkpoint with one byte changed is never used.
- together: 8 processes write 2,000 records while the results are being read.

Works in a temporary folder, on drawn images, and needs a system that can fork.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fmbench
from fmbench.checkpoint import DamagedError, from_bytes, to_bytes
from fmbench.errors import UserError
from fmbench.record import Record
from fmbench.results import read_results
from fmbench.runfolder import RunFolder

RUN = [
    "data=synthetic", "data.train_size=400", "data.test_size=100", "data.split.validation=50",
    "model=lenet5", "epochs=4", "threads=1", "augmentation=crop_flip", "keep_model=true",
    "checkpoint_every=1", "test_every=1",
]  # fmt: skip

#: The largest file, in bytes: less than a config, a record, a net, a checkpoint, and enough.
SIZES = (0, 100, 400, 1000, 3000, 10_000, 100_000, 300_000, 1_000_000)

#: What differs between a run in one go and one in many.
CLOCKS = ("seconds", "images_per_second", "started", "peak_memory", "restarts", "git")


def run(folder: Path) -> None:
    """A short run in a folder, or the rest of one."""
    fmbench.run([*RUN, f"hydra.run.dir={folder}"])


def child(work: Callable[[], None], log: Path) -> int:
    """Do some work in a process of its own, that has all it needs imported; its number."""
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        status = 0
    except UserError as error:
        os.write(2, f"fmbench: {error}\n".encode())
        status = error.exit_status
    finally:
        os._exit(status)


def ended(number: int) -> int:
    """Wait for a process: its exit status, or the signal that ended it, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def left(folder: Path) -> tuple[Any, ...]:
    """All that a run left, but for its clocks."""
    record = json.loads((folder / "result.json").read_text("utf-8"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for line in history:
        del line["seconds"]
    names = sorted(path.name for path in folder.iterdir() if path.name != "fmbench.log")
    return (
        names,
        {name: value for name, value in record.items() if name not in CLOCKS},
        history,
        (folder / "predictions.npy").read_bytes(),
        (folder / "model.safetensors").read_bytes(),
    )


def same(found: tuple[Any, ...], expected: tuple[Any, ...], where: Any) -> None:
    """Compare what two runs left, and say what differs."""
    for one, other in zip(found, expected, strict=True):
        assert one == other, (where, one, other)


def whole(folder: Path) -> tuple[tuple[Any, ...], float]:
    """What an undisturbed run leaves, and how many seconds it takes."""
    start = time.perf_counter()
    assert ended(child(lambda: run(folder / "whole"), folder / "log")) == 0
    return left(folder / "whole"), time.perf_counter() - start


def kills(folder: Path, count: int = 200, seed: int = 0) -> str:
    """Kill runs at random instants."""
    expected, seconds = whole(folder)
    drawn = random.Random(seed)
    killed = runs = 0
    while killed < count:
        place = folder / f"run{runs}"
        runs += 1
        while True:
            number = child(lambda place=place: run(place), folder / "log")
            time.sleep(drawn.uniform(0, seconds))
            os.kill(number, signal.SIGKILL)
            if ended(number) == 0:
                break
            killed += 1
            if (place / "result.json").exists():
                Record.from_json((place / "result.json").read_text("utf-8"))
        same(left(place), expected, place)
        shutil.rmtree(place)
    return f"{killed} kills in {runs} runs, each with the bits of an undisturbed one"


def writes(folder: Path, count: int = 10_000) -> str:
    """Kill a run at every write, flush, rename and removal."""
    expected, _ = whole(folder)
    for moment in range(1, count + 1):
        place = folder / f"write{moment}"
        status = ended(child(lambda n=moment, p=place: _killed_at(n, p), folder / "log"))
        if (place / "result.json").exists():
            Record.from_json((place / "result.json").read_text("utf-8"))
        if status == 0:
            same(left(place), expected, moment)
            return f"killed at each of {moment - 1} writes, flushes, renames and removals"
        assert status == -signal.SIGKILL, (moment, status)
        assert ended(child(lambda p=place: run(p), folder / "log")) == 0, moment
        same(left(place), expected, moment)
        shutil.rmtree(place)
    return f"killed at each of the first {count} writes, flushes, renames and removals"


def _killed_at(moment: int, place: Path) -> None:
    """A run that kills itself at a moment, counted from 1; a write is done by half."""
    left_over = moment

    def due() -> bool:
        nonlocal left_over
        left_over -= 1
        return left_over == 0

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if due():
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    class Half(io.FileIO):
        def write(self, content: Any) -> int:
            if due():
                super().write(bytes(content)[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write(content)

    opened = Path.open

    def open_path(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode in ("xb", "ab"):
            return Half(self, mode[0])
        return opened(self, mode, *arguments, **options)

    os.fsync = guarded(os.fsync)
    Path.replace = guarded(Path.replace)  # type: ignore[method-assign]
    Path.unlink = guarded(Path.unlink)  # type: ignore[method-assign]
    Path.open = open_path  # type: ignore[assignment, method-assign]
    run(place)


def disk(folder: Path, sizes: tuple[int, ...] = SIZES) -> str:
    """Let no file grow beyond a size; then take the limit away and start again."""
    expected, _ = whole(folder)
    failed = 0
    for size in sizes:
        place, log = folder / f"disk{size}", Path(os.devnull)  # a log would be limited too

        def limited(size: int = size, place: Path = place) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            place.mkdir()
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            run(place)

        status = ended(child(limited, log))
        assert status in (0, 5), (size, status)
        failed += status == 5
        if (place / "result.json").exists():
            Record.from_json((place / "result.json").read_text("utf-8"))
        assert not list(place.glob(".*.json*")), "half-written files are left"
        assert ended(child(lambda place=place: run(place), log)) == 0, size
        same(left(place), expected, size)
    return f"{len(sizes)} limits, {failed} of them end the run; all went on afterwards"


def truncated(folder: Path, step: int = 1) -> str:
    """Cut a record off at every byte."""
    whole(folder)
    content = (folder / "whole" / "result.json").read_bytes()
    place = folder / "cut" / "result.json"
    place.parent.mkdir()
    unreadable = 0
    for length in range(0, len(content), step):
        place.write_bytes(content[:length])
        found = read_results(place.parent)
        if len(found.frame):  # only the line's end may be missing
            assert length == len(content) - 1, length
        else:
            assert len(found.problems) == 1, length
            unreadable += 1
    return f"{unreadable} of {len(range(0, len(content), step))} lengths named as unreadable"


def flipped(_folder: Path, step: int = 1) -> str:
    """Change one byte of a checkpoint."""
    torch.manual_seed(0)
    content = bytearray(to_bytes({"weights": torch.randn(100), "epoch": 3}))
    for place in range(0, len(content), step):
        content[place] ^= 1 << (place % 8)
        with contextlib.suppress(DamagedError):
            from_bytes(bytes(content))
            raise AssertionError(place)
        content[place] ^= 1 << (place % 8)
    from_bytes(bytes(content))
    return f"{len(range(0, len(content), step))} bytes, none of them unnoticed"


def together(folder: Path, records: int = 2000, processes: int = 8) -> str:
    """Write records from many processes while they are being read."""
    whole(folder)
    record = Record.from_json((folder / "whole" / "result.json").read_text("utf-8"))

    def write(first: int) -> None:
        for number in range(first, records, processes):
            with RunFolder(folder / "many" / str(number)) as place:
                record.status = "running"
                place.write_record(record)
                record.status = "completed"
                place.write_record(record)

    (folder / "many").mkdir()
    numbers = [child(lambda n=n: write(n), folder / "log") for n in range(processes)]
    looks = 0
    while len((found := read_results(folder / "many")).frame) < records:
        assert not found.problems, found.problems
        looks += 1
    assert [ended(number) for number in numbers] == [0] * processes
    assert (read_results(folder / "many").frame["status"] == "completed").all()
    return f"{records} records of {processes} processes, read {looks} times meanwhile, all whole"


FAULTS = {
    function.__name__: function for function in (kills, writes, disk, truncated, flipped, together)
}


def main() -> None:
    """Do them all, or those that are named; say what came of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}; all")
    parser.add_argument("--count", type=int, help="of kills and writes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    for name in arguments.faults or FAULTS:
        start = time.perf_counter()
        counted = arguments.count and name in ("kills", "writes")
        options = {"count": arguments.count} if counted else {}
        with tempfile.TemporaryDirectory() as folder:
            said = FAULTS[name](Path(folder), **options)
        print(f"{name:<10} {said} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
