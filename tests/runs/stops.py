"""Runs that are stopped, and what they leave."""

import contextlib
import json
import signal

import pytest
from commands import TINY

import fmbench as package
from fmbench.core.signals import StopRequested
from fmbench.runs.checkpointing import RunState

#: 200 images in batches of 64: four steps an epoch; 20 of them for validation, so that an epoch has
#: a moment of evaluation in it.
RUN = [*TINY, "epochs=3", "data.split.validation=20", "evaluation.every=1", "keep_model=true"]


#: Where a look into the folder would tell a run that was stopped from one that was not.
CLOCKS = ("seconds", "images_per_second", "started", "peak_memory", "restarts")


#: A moment that no run reaches.
NEVER = -1


@contextlib.contextmanager
def asked_to_stop(moment, number=signal.SIGTERM):
    """Ask the run to stop at the n-th moment at which it may be, counted from 1."""
    count = 0
    between = RunState.after_batch

    def counted(self):
        nonlocal count
        count += 1
        if count == moment:
            self.listener.asked = number
        between(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunState, "after_batch", counted)
        yield


def run(folder, *overrides):
    return package.run([*RUN, f"hydra.run.dir={folder}", *overrides])


def stopped(folder, moment, *overrides, number=signal.SIGTERM):
    with asked_to_stop(moment, number), pytest.raises(StopRequested) as raised:
        run(folder, *overrides)
    assert raised.value.saved
    return raised.value


def result(folder):
    """All that a run left, but for its clocks and its log."""
    record = json.loads((folder / "result.json").read_text("utf-8"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for line in history:
        del line["seconds"], line["wall"]
    return (
        {name: value for name, value in record.items() if name not in CLOCKS},
        history,
        (folder / "predictions.npy").read_bytes(),
        (folder / "model.safetensors").read_bytes(),
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".hydra")
