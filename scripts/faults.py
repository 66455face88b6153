"""Inject faults into fmbench's runs, and check what is left.

    python scripts/faults.py
    python scripts/faults.py kills --count 20
    python scripts/daemons.py slurm python scripts/faults.py sweeps --launcher submitit_slurm

A killed run is started again until it is done: in the end its weights, predictions and record are
those of a run that nobody disturbed. docs/reliability.md says what is promised after each fault.

Works in a temporary folder, on synthetic images, and needs a system that can fork.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

import fmbench
from fmbench.cli.main import main as main_of_fmbench
from fmbench.core.errors import UserError
from fmbench.core.files import LOCK_NAME
from fmbench.records.folder import RunFolder
from fmbench.records.reader import read_results
from fmbench.records.record import Record
from fmbench.records.trials import Search
from fmbench.training.checkpoint import DamagedError, read_state, write_state

RUN = [
    "data=synthetic", "data.train_size=400", "data.test_size=100", "data.split.validation=50",
    "model=lenet5", "epochs=4", "threads=1", "augmentation=crop_flip", "keep_model=true",
    "checkpoint_every=1", "evaluation.every=1",
]  # fmt: skip

#: The same as the command of another process, which finds fmbench where this one did.
COMMAND = [sys.executable, "-m", "fmbench", *RUN]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

#: A search whose trials are the same in whatever order they end.
SEARCH = [
    "epochs=12", "sweep=lr_batch", "sweep.pruner=none", "hydra/sweeper/sampler=random",
    "batch_size=choice(64,128)",
]  # fmt: skip

#: The largest file, in bytes: less than a config, a record, a model, a checkpoint, and enough.
SIZES = (0, 100, 400, 1000, 3000, 10_000, 100_000, 300_000, 1_000_000)

#: Bytes of a disk: less than Hydra's files, a record, a history, a model, checkpoints, and enough.
DISKS = (4096, 12_288, 16_384, 24_576, 65_536, 262_144, 1_048_576, 4_194_304)

#: What differs between a run in one go and one in many.
CLOCKS = ("seconds", "images_per_second", "started", "peak_memory", "restarts", "git")


def run(folder: Path) -> None:
    """A short run in a folder, or the rest of one."""
    try:
        fmbench.run([*RUN, f"hydra.run.dir={folder}"])
    except UserError as error:
        sys.exit(error.exit_status)


def command(folder: Path) -> None:
    """The same as the command."""
    sys.argv = ["fmbench", *RUN, f"hydra.run.dir={folder}"]
    main_of_fmbench()


def started(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What came of a program that was started in a folder."""
    return subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def begin(work: Callable[..., None], *arguments: Any) -> Any:
    """Do some work in a process of its own, that has all it needs imported, and says nothing."""

    def silently() -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        work(*arguments)

    process = multiprocessing.get_context("fork").Process(target=silently)
    process.start()
    return process


def status_of(work: Callable[..., None], *arguments: Any) -> int:
    """The exit status of some work in such a process, or the signal that ended it, negative."""
    process = begin(work, *arguments)
    process.join()
    return int(process.exitcode)


def left(folder: Path) -> dict[str, Any]:
    """All that a run left, but for its clocks."""
    record = json.loads((folder / "result.json").read_text("utf-8"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return {
        "names": sorted(path.name for path in folder.iterdir() if path.name != "fmbench.log"),
        "record": {name: value for name, value in record.items() if name not in CLOCKS},
        "history": [{**line, "seconds": None, "wall": None} for line in history],
        "predictions": (folder / "predictions.npy").read_bytes(),
        "model": (folder / "model.safetensors").read_bytes(),
    }


def whole(folder: Path) -> dict[str, Any]:
    """What an undisturbed run leaves."""
    assert status_of(run, folder / "whole") == 0
    return left(folder / "whole")


def check(place: Path, expected: dict[str, Any] | None = None) -> None:
    """Check a run's files: none half-written and, if it has ended, all as expected."""
    if (place / "result.json").exists():
        Record.from_json((place / "result.json").read_text("utf-8"))
    for name, value in left(place).items() if expected else ():
        assert value == expected[name], (place, name, value, expected[name])


def kills(folder: Path, count: int = 200) -> str:
    """Kill runs at random instants, each until it is done."""
    start = time.perf_counter()
    expected, seconds = whole(folder), time.perf_counter() - start
    drawn = random.Random(0)
    place, killed, runs = folder / "run", 0, 0
    while killed < count or place.exists():
        process = begin(run, place)
        time.sleep(drawn.uniform(0, seconds))
        process.kill()
        process.join()
        if process.exitcode:
            killed += 1
            check(place)
        else:
            runs += 1
            check(place, expected)
            shutil.rmtree(place)
    return f"{killed} kills in {runs} runs, each with the bits of an undisturbed one"


def writes(folder: Path, count: int | None = None) -> str:
    """Kill a run at every write, flush, rename and removal, or at about so many, evenly spread."""
    expected = whole(folder)
    assert status_of(_killed_at, 0, folder / "all") == 0
    total = int((folder / "writes").read_text())
    moments = range(total, 0, -max(1, total // (count or total)))
    for moment in moments:
        place = folder / f"write{moment}"
        assert status_of(_killed_at, moment, place) == -signal.SIGKILL, moment
        check(place)
        assert status_of(run, place) == 0, moment
        check(place, expected)
        shutil.rmtree(place)
    return f"killed at {len(moments)} of {total} writes, flushes, renames and removals"


def _killed_at(moment: int, place: Path) -> None:
    """A run that kills itself at a moment, counted from 1; a write is done by half.

    At 0 never: how many moments there are is left beside its folder.
    """
    reached, opened = 0, Path.open

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal reached
            reached += 1
            if reached == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    class Half(io.FileIO):
        def write(self, content: Any) -> int:
            if reached + 1 == moment:
                super().write(bytes(content)[: len(content) // 2])
            return guarded(super().write)(content)

    def open_path(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode in ("xb", "ab"):
            return io.BufferedWriter(Half(self, mode[0]))
        return opened(self, mode, *arguments, **options)

    os.fsync = guarded(os.fsync)
    Path.replace, Path.unlink = guarded(Path.replace), guarded(Path.unlink)
    Path.open = open_path
    run(place)
    if not moment:
        (place.parent / "writes").write_text(str(reached))


def disk(folder: Path, sizes: tuple[int, ...] = SIZES) -> str:
    """Let no file grow beyond a size, from Python and as the command; then start again without."""
    expected = whole(folder)

    def limited(start: Callable[[Path], None], place: Path, size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        place.mkdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        start(place)

    failed = 0
    for start, size in product((run, command), sizes):
        place = folder / f"{start.__name__}{size}"
        status = status_of(limited, start, place, size)
        assert status in (0, 5), (start, size, status)
        failed += status == 5
        nothing_half_written(place, folder / "whole")
        assert status_of(start, place) == 0, size
        check(place, expected)
    return f"{2 * len(sizes)} runs, {failed} of them ended by it; all went on afterwards"


def nothing_half_written(place: Path, undisturbed: Path) -> None:
    """Check the files of a run that a disk was too small for."""
    check(place)
    config = Path(".hydra", "config.yaml")
    if (place / config).exists():
        assert (place / config).read_bytes() == (undisturbed / config).read_bytes()
    assert not list(place.glob(".*.json*")), "half-written files are left"


def can_mount(place: Path) -> bool:
    """Whether a file system may be mounted, in a namespace of its own."""
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(place)]
    return shutil.which("unshare") is not None and started(words, place).returncode == 0


def small(folder: Path, sizes: tuple[int, ...] = DISKS) -> str:
    """Run the command on a disk that is full before the run ends; make room and start again."""
    expected = whole(folder)
    mount = folder / "mount"
    mount.mkdir()
    if not can_mount(mount):
        return "not done: nothing can be mounted here"
    starts = shlex.join([*COMMAND, f"hydra.run.dir={mount}/run"])
    failed = 0
    for size in sizes:
        full, afterwards = folder / f"full{size}", folder / f"afterwards{size}"
        # The mount goes with the last process in its namespace.
        script = f"""
            mount -t tmpfs -o size={size} tmpfs {mount} || exit 97
            {starts} 2> {folder}/said; status=$?
            cp -r {mount}/run {full}
            mount -o remount,size=100m {mount}
            {starts} || exit 98
            cp -r {mount}/run {afterwards}
            exit $status
        """
        status = started(["unshare", "-rm", "sh", "-c", script], folder).returncode
        said = (folder / "said").read_text("utf-8")
        assert status in (0, 5), (size, status, said)
        assert "Traceback" not in said, said
        assert (said.splitlines()[-1].startswith("fmbench: ") and str(mount) in said) or not status
        failed += status == 5
        nothing_half_written(full, folder / "whole")
        check(afterwards, expected)
    return f"{len(sizes)} disks, {failed} of them too small for the run; all went on afterwards"


def closed(folder: Path) -> str:
    """Run the command where nothing may be written: as a user without rights, on a closed disk."""
    folder.chmod(0o755)
    shut, mount = folder / "closed", folder / "mount"
    shut.mkdir(0o555)
    mount.mkdir()
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    places = {"folder": shut, "below": shut / "run"}
    starts = {name: [*nobody, *COMMAND, f"hydra.run.dir={at}"] for name, at in places.items()}
    if nobody and started([*nobody, sys.executable, "-c", "import fmbench"], folder).returncode:
        starts = {}  # nobody may read the program
    if can_mount(mount):
        script = f"mount -t tmpfs -o ro tmpfs {mount} && {shlex.join(COMMAND)}"
        for name, place in (("disk", mount), ("below a disk", mount / "run")):
            starts[name] = ["unshare", "-rm", "sh", "-c", f"{script} hydra.run.dir={place}"]
    for name, words in starts.items():
        found = started(words, folder)
        line = found.stderr.strip()
        assert found.returncode == 5, (name, line)
        assert line.startswith(f"fmbench: {folder}"), line
        assert "\n" not in line, line
        assert {path.name for path in folder.rglob("*")} == {"closed", "mount"}
    return f"refused in a line, nothing made: {', '.join(starts)}"


def truncated(folder: Path, step: int = 1) -> str:
    """Cut a record off at every byte: it is named as unreadable, and never half-read."""
    whole(folder)
    content = (folder / "whole" / "result.json").read_bytes()
    place = folder / "cut" / "result.json"
    place.parent.mkdir()
    lengths, unreadable = range(0, len(content), step), 0
    for length in lengths:
        place.write_bytes(content[:length])
        found = read_results(place.parent)
        # Of a whole record only the line's end may be missing.
        assert len(found.frame) == (length == len(content) - 1), length
        assert len(found.problems) == (length < len(content) - 1), length
        unreadable += len(found.problems)
    return f"{unreadable} of {len(lengths)} lengths named as unreadable"


def flipped(_folder: Path, step: int = 1) -> str:
    """Change one byte of a checkpoint: it is never used."""
    torch.manual_seed(0)
    file = io.BytesIO()
    write_state({"weights": torch.randn(100), "epoch": 3}, file)
    content = file.getvalue()
    places = range(0, len(content), step)
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        with contextlib.suppress(DamagedError):
            read_state(io.BytesIO(changed))
            raise AssertionError(place)
    read_state(io.BytesIO(content))
    return f"{len(places)} bytes, none of them unnoticed"


def together(folder: Path, records: int = 2000, processes: int = 8) -> str:
    """Write records from many processes while they are being read."""
    whole(folder)
    record = Record.from_json((folder / "whole" / "result.json").read_text("utf-8"))

    def write(first: int) -> None:
        for number in range(first, records, processes):
            with RunFolder(folder / "many" / str(number)) as place:
                for record.status in ("running", "completed"):
                    place.write_record(record)

    (folder / "many").mkdir()
    writers = [begin(write, first) for first in range(processes)]
    looks = 0
    while len((found := read_results(folder / "many")).frame) < records:
        assert not found.problems, found.problems
        looks += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert (read_results(folder / "many").frame["status"] == "completed").all()
    return f"{records} records of {processes} processes, read {looks} times meanwhile, all whole"


def sweeps(folder: Path, launcher: str = "processes", trials: int = 12) -> str:
    """Kill a search three times, and with it or before it one of its runs; then let it end.

    Trials are drawn at random, each by its number: what is left is that of an undisturbed search,
    but for trials whose run was killed and that nobody resumes.
    """
    words = [*COMMAND[:3], "-m", *RUN[:-2], *SEARCH, f"sweep.trials={trials}", "sweep.jobs=2"]
    words.append(f"hydra/launcher={launcher}")
    alone = started([*words, "hydra.sweep.dir=alone"], folder)
    assert alone.returncode == 0, alone.stderr[-2000:]
    place, killed = folder / "sweep", 0
    words.append("hydra.sweep.dir=sweep")
    for ended, whose in ((1, "worker"), (3, "driver"), (5, "both")):
        with subprocess.Popen(
            words, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as driver:
            until(lambda least=ended: len(done(place)) >= least, driver)
            if whose != "driver":
                os.kill(until(lambda: at_work(place), driver), signal.SIGKILL)
                killed += 1
            if whose == "worker":  # what it does about it before it is killed in turn
                until(lambda least=ended: len(done(place)) >= least + 2, driver)
            driver.kill()
    last = started(words, folder)
    assert last.returncode in (0, 4), last.stderr[-2000:]
    first, second = (Search.from_json((folder / name / "search.json").read_text())
                     for name in ("alone", "sweep"))  # fmt: skip
    records = read_results(place)
    assert not records.problems, records.problems
    assert len(records.frame) == trials
    assert records.frame["test_accuracy"].notna().sum() == 1
    numbers = [trial.number for trial in second.trials]
    assert sorted(numbers) == list(range(trials)), numbers
    expected = {trial.number: trial for trial in first.trials}
    failed = [trial for trial in second.trials if trial.state == "failed"]
    assert len(failed) <= killed, failed
    for trial in second.trials:
        then = expected[trial.number]
        assert trial.parameters == then.parameters, trial
        assert trial in failed or trial.values == then.values, (trial, then)
    return (
        f"3 drivers and {killed} runs of {launcher} killed: {trials} trials, none twice, "
        f"{len(failed)} failed, the others as undisturbed"
    )


def until(what: Callable[[], Any], driver: "subprocess.Popen[bytes]", seconds: float = 300) -> Any:
    """What it gives as soon as that is true; the driver must not have ended."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert driver.poll() is None, f"the search has ended, {driver.returncode}"
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.05)
    return found


def done(sweep: Path) -> list[Path]:
    """The runs of a search that have ended."""
    records = sweep.glob("[0-9]*/result.json")
    return [path for path in records if '"status": "completed"' in path.read_text("utf-8")]


def at_work(sweep: Path) -> int | None:
    """A process that trains: it has the lock of a run's folder open, and an epoch behind it."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    held = link.readlink()
                    inside = held.name == LOCK_NAME and held.parent.parent == sweep.resolve()
                    if inside and (held.parent / "history.jsonl").exists():
                        return int(process.name)
    return None


FAULTS = {
    function.__name__: function
    for function in (kills, writes, disk, small, closed, truncated, flipped, together, sweeps)
}


def main() -> None:
    """Do them all, or those that are named; say what came of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="*", choices=FAULTS, help="all, if none is named")
    parser.add_argument("--count", type=int, help="of kills and writes")
    parser.add_argument("--launcher", default="processes", help="of sweeps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    for name in arguments.faults or FAULTS:
        start = time.perf_counter()
        counted = arguments.count and name in ("kills", "writes")
        options: dict[str, Any] = {"count": arguments.count} if counted else {}
        if name == "sweeps":
            options = {"launcher": arguments.launcher}
        with tempfile.TemporaryDirectory() as folder:
            said = FAULTS[name](Path(folder), **options)
        print(f"{name:<10} {said} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
