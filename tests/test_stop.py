import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
from commands import CHECKOUT, TINY, records

from fmbench.stop import StopRequested, listening
from fmbench.summary import stopped_line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_is_noted_and_what_was_there_comes_back(number):
    before = signal.getsignal(number)
    with listening() as listener:
        assert listener.asked is None
        os.kill(os.getpid(), number)
        assert listener.asked == number
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_stops_at_once():
    with listening() as listener:
        os.kill(os.getpid(), signal.SIGINT)
        assert listener.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(raised.value, StopRequested)


def stop(nothing_called):
    with listening() as listener:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert nothing_called()
        raise StopRequested(listener.asked, saved=True)


def test_another_packages_handler_has_its_turn_once_the_run_is_saved(monkeypatch):
    called = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        with pytest.raises(StopRequested):
            stop(lambda: called == [])
        assert called == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("pass_on", [False, True])
def test_a_signal_that_comes_too_late_for_a_run_stops_its_sweep(pass_on, monkeypatch):
    raised = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    with listening(pass_on=pass_on):
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised == ([signal.SIGTERM] if pass_on else [])


def test_a_run_hears_what_was_asked_before_it_began():
    with listening() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with listening() as inner:
            assert inner.asked == signal.SIGTERM
        assert outer.asked == signal.SIGTERM


def test_a_run_of_a_sweep_goes_on_by_its_own_overrides():
    stop = StopRequested(signal.SIGTERM, saved=True)
    stop.folder, stop.arguments = "/a", ["--config-dir=mine", "seed=1"]
    stop = pickle.loads(pickle.dumps(stop))
    line = stopped_line(stop, ["-m", "seed=1,2"])
    assert line.endswith("python -m fmbench --config-dir=mine seed=1 hydra.run.dir=/a")


def test_a_thread_changes_no_handler():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with listening() as listener:
            found.append((signal.getsignal(signal.SIGTERM), listener.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, None)]


def test_a_stop_travels_between_processes():
    stop = pickle.loads(pickle.dumps(StopRequested(signal.SIGTERM, saved=True)))
    assert (stop.number, stop.saved, str(stop)) == (signal.SIGTERM, True, "stopped by SIGTERM")
    assert stop.exit_status == 143


@pytest.mark.parametrize(("folder", "said"), [
    ("/a/b-1_2.c", "hydra.run.dir=/a/b-1_2.c"),
    ("/a/größe", "'hydra.run.dir='\"'\"'/a/größe'\"'\"''"),
    ("/a/b c=d", "'hydra.run.dir='\"'\"'/a/b c=d'\"'\"''"),
])  # fmt: skip
def test_the_line_names_the_command_that_goes_on(folder, said):
    stop = StopRequested(signal.SIGTERM, saved=True)
    stop.folder = folder
    line = stopped_line(stop, ["model=lenet", "hydra.run.dir=else", "name=a b"])
    assert line.startswith(
        "stopped by SIGTERM, saved; this goes on: python -m fmbench model=lenet "
    )
    assert line.endswith(f"'name=a b' {said}")
    stop.saved = False
    assert "could not be saved; this starts again from the last checkpoint" in stopped_line(
        stop, []
    )
    stop.folder = None
    assert stopped_line(stop, []) == "stopped by SIGTERM"


def start(folder, *overrides):
    return subprocess.Popen(
        [sys.executable, "-m", "fmbench", *TINY, "epochs=1000000", *overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sigterm_to_the_command(tmp_path):
    with start(tmp_path, "hydra.run.dir=here") as child:
        try:
            wait_for(lambda: list(tmp_path.rglob("history.jsonl")))
            child.terminate()
            _, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 143
    said = err.splitlines()[-1]
    assert said.startswith("fmbench: stopped by SIGTERM, saved; this goes on: python -m fmbench ")
    assert said.endswith(f"hydra.run.dir={tmp_path / 'here'}")
    assert "Traceback" not in err
    (record,) = records(tmp_path)
    assert record["status"] == "interrupted"
    assert (tmp_path / "here" / "checkpoint.pt").is_file()


def test_a_second_process_in_the_folder_is_refused(tmp_path):
    with start(tmp_path, "hydra.run.dir=here") as child:
        try:
            wait_for(lambda: list(tmp_path.rglob("history.jsonl")))
            hydra_files = sorted((tmp_path / "here" / ".hydra").iterdir())
            before = [path.read_bytes() for path in hydra_files]
            with start(tmp_path, "hydra.run.dir=here", "keep_model=true") as other:
                _, err = other.communicate(timeout=60)
            assert [path.read_bytes() for path in hydra_files] == before
        finally:
            child.kill()
    assert other.returncode == 5
    assert err.splitlines()[-1].startswith("fmbench: ")
    assert "another process is at work there" in err.splitlines()[-1]
