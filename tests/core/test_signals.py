import os
import pickle
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import hydra
import pytest
from commands import CHECKOUT, TINY, python, records, started, wait_for
from fuzz import fuzz
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st

from fmbench import __main__, report
from fmbench.cli import callbacks
from fmbench.cli.summary import stopped_line
from fmbench.config import checks as configuration
from fmbench.config.trust import refuse_untrusted
from fmbench.core.signals import SIGNALS, StopRequested, listening, stop_in_order


@pytest.fixture(autouse=True)
def _python_is_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "executable", str(Path(sys.executable).with_name("python")))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_what_was_there_comes_back(number):
    before = signal.getsignal(number)
    with listening() as listener:
        assert listener.asked is None
        os.kill(os.getpid(), number)
        assert listener.asked == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_does_not_hear_a_signal_that_is_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with listening() as listener:
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) is signal.SIG_IGN
        assert listener.asked is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("before", [[], [signal.SIGTERM]])
def test_the_second_ctrl_c_stops_at_once(before):
    with listening() as listener:
        for number in [*before, signal.SIGINT]:
            os.kill(os.getpid(), number)
        assert listener.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(raised.value, StopRequested)


@pytest.mark.parametrize("first", [number for number in SIGNALS if number != signal.SIGINT])
@pytest.mark.parametrize("second", SIGNALS)
def test_only_ctrl_c_twice_stops_at_once(first, second):
    with listening() as listener:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
        assert listener.asked == second


def test_another_packages_handler_has_its_turn_once_the_run_is_saved():
    called = []

    def stop():
        with listening() as listener:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert called == []
            raise StopRequested(listener.asked, saved=True)

    before = signal.signal(
        signal.SIGUSR2, lambda *_: called.append(signal.getsignal(signal.SIGUSR2))
    )
    try:
        with pytest.raises(StopRequested):
            stop()
        assert called == [signal.getsignal(signal.SIGUSR2)]  # it may send the signal once more
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


def test_a_sweep_goes_on_by_its_own_command():
    stop = StopRequested(signal.SIGTERM, saved=True)
    stop.folder = "/a/0"
    given = ["-m", "--config-dir=mine", "seed=1,2", "hydra.sweep.dir=/old"]
    line = stopped_line(stop, given, sweep=Path("/a"))
    mine = Path("mine").absolute()
    assert line.endswith(f"python -m fmbench -m --config-dir={mine} seed=1,2 hydra.sweep.dir=/a")


def test_the_command_that_goes_on_does_so_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMBENCH_TRUST", "mine, torch.nn")
    stop = StopRequested(signal.SIGTERM, saved=True)
    given = [
        "--config-dir",
        "mine",
        "-cd=../other",
        "data.root=data",
        "model=mine",
        "data.root=~/x",
    ]
    words = shlex.split(stopped_line(stop, given, sweep=Path("multirun/1")).partition(": ")[2])
    assert words == [
        *("FMBENCH_TRUST=mine,torch.nn", words[1], "-m", "fmbench"),
        *("--config-dir", f"{tmp_path}/mine", f"-cd={tmp_path}/../other"),
        *(f"data.root={tmp_path}/data", "model=mine", "data.root=~/x"),
        f"hydra.sweep.dir={tmp_path}/multirun/1",
    ]


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
    stop = StopRequested(signal.SIGTERM, saved=True)
    stop.folder, stop.unrecorded, stop.again = Path("/a"), "no room", ("threads=1",)
    stop.hung_on = [stop]
    there = pickle.loads(pickle.dumps(stop))
    del stop.hung_on
    assert vars(there) == vars(stop)
    assert str(there) == "stopped by SIGTERM"
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
    assert line.startswith("stopped by SIGTERM, saved; resume with: python -m fmbench model=lenet ")
    assert line.endswith(f"'name=a b' {said}")
    stop.saved = False
    assert "could not be saved; resume from the last checkpoint with" in stopped_line(stop, [])
    stop.folder = None
    assert stopped_line(stop, []) == "stopped by SIGTERM"


def composed(command):
    """The run folder that a command makes Hydra compose."""
    words = shlex.split(command)
    assert words[1:3] == ["-m", "fmbench"]
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", words[3:], RunMode.RUN)
        refuse_untrusted(config)
    return config.hydra.run.dir


def command_for(folder):
    stop = StopRequested(signal.SIGTERM, saved=True)
    stop.folder = folder
    return stopped_line(stop, [])


#: Names of folders, of what the shell, Hydra and OmegaConf each read in a way of their own.
NAMES = st.text(
    st.sampled_from("\\'\"${}:,=()[]~*?#!&;|<>`%@^+- \t0aé🙂")
    | st.characters(exclude_categories=["Cs"], exclude_characters="/\0"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..") and name.isprintable())


@pytest.mark.slow
@fuzz(60)
@given(st.lists(NAMES, min_size=1, max_size=2))
def test_the_command_names_the_folder_whatever_it_is_called(names):
    folder = Path("/", *names)
    assert composed(command_for(folder).partition("with: ")[2]) == str(folder)


@pytest.mark.parametrize("name", [
    r"a${b}", r"a\${b}", r"a\\${b}", "${", "$", "{x}", "'", "a'b\\\\'${c", "\\", "a\\\\", "a\\'",
])  # fmt: skip
def test_the_command_names_a_folder_with_what_hydra_would_follow(name):
    folder = Path("/tmp", name)
    assert composed(command_for(folder).partition("with: ")[2]) == str(folder)


@pytest.mark.parametrize("name", ["1_0", "null", "1e3", "true", "run"])
def test_below_a_folder_that_no_line_can_show_the_name_is_relative(name, tmp_path, monkeypatch):
    place = tmp_path / "two\nlines"
    place.mkdir()
    monkeypatch.chdir(place)
    said = command_for(place / name)
    assert "\n" not in said
    assert Path(composed(said.partition("with: ")[2])) == Path(name)


def linked(folder, *names):
    """A folder with links of these names to the Python that runs the tests."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(sys.executable)
    return folder


@pytest.mark.parametrize(("started", "on_the_path", "named"), [
    ("own/python", "own", "python"),
    ("own/python3", "own", "python"),
    ("own/python3", "other:own", "python3"),  # another environment's python is found first
    ("own/python3", "other", "own/python3"),
    ("own/python", "nowhere", "own/python"),
])  # fmt: skip
def test_the_command_starts_the_python_that_was_started(
    started, on_the_path, named, tmp_path, monkeypatch
):
    linked(tmp_path / "own", "python", "python3")
    linked(tmp_path / "other", "python")
    monkeypatch.setattr(sys, "executable", str(tmp_path / started))
    path = ":".join(str(tmp_path / folder) for folder in on_the_path.split(":"))
    monkeypatch.setenv("PATH", path)
    word = shlex.split(command_for("/a").partition("with: ")[2])[0]
    assert word == (str(tmp_path / named) if "/" in named else named)


def start(folder, *overrides, **options):
    return started(*TINY, "epochs=1000000", *overrides, cwd=folder, **options)


@pytest.mark.parametrize(("name", "status"), [
    ("SIGHUP", 129),
    pytest.param("SIGINT", 130, marks=pytest.mark.slow),
    pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
    pytest.param("SIGUSR1", 138, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_signal_to_the_command(name, status, tmp_path):
    with start(tmp_path, "hydra.run.dir=here") as child:
        wait_for(lambda: list(tmp_path.rglob("history.jsonl")))
        child.send_signal(getattr(signal, name))
        _, err = child.communicate(timeout=60)
    assert child.returncode == status
    said = err.splitlines()[-1]
    assert said.startswith(f"fmbench: stopped by {name}, saved; resume with: python -m fmbench ")
    assert said.endswith(f"hydra.run.dir={tmp_path / 'here'}")
    assert "Traceback" not in err
    (record,) = records(tmp_path)
    assert record["status"] == "interrupted"
    assert (tmp_path / "here" / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_what_is_ignored_at_the_start_stops_nothing(tmp_path):
    """As `nohup` has SIGHUP, and a shell SIGINT of what it starts in the background."""
    ignored = [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1]

    def ignore():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    with start(tmp_path, "hydra.run.dir=here", preexec_fn=ignore) as child:
        wait_for(lambda: list(tmp_path.rglob("history.jsonl")))
        for number in [*ignored, signal.SIGTERM]:
            child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert "Ctrl-C" not in err


@pytest.mark.slow
def test_sigterm_to_a_grid(tmp_path):
    first = "hydra.sweep.dir=grid"
    with start(tmp_path, "-m", "seed=0,1,2", first) as child:
        wait_for(lambda: list(tmp_path.rglob("history.jsonl")))
        child.terminate()
        _, err = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "Traceback" not in err
    (record,) = records(tmp_path)  # the second and the third have not begun
    assert (record["status"], record["seed"]) == ("interrupted", 0)
    assert (tmp_path / "grid" / "0" / "checkpoint.pt").is_file()
    said = err.splitlines()[-1]
    beginning = "fmbench: stopped by SIGTERM; resume with: python -m fmbench "
    assert said.startswith(beginning)
    assert said.endswith(f"hydra.sweep.dir={tmp_path / 'grid'}")
    arguments = shlex.split(said.removeprefix(beginning))
    with started(*arguments, cwd=tmp_path) as again:
        lines = iter(again.stderr.readline, "")
        assert any("resumes in epoch" in line for line in lines)
        again.terminate()
        again.communicate(timeout=60)
    (record,) = records(tmp_path)
    assert len(record["restarts"]) == 1


@pytest.mark.usefixtures("_handlers_as_they_were")
@pytest.mark.parametrize("sweep", [False, True])
def test_a_folder_that_hydra_cannot_name_is_refused(sweep, command, tmp_path):
    """Nor can it be the folder of a run that says how it goes on."""
    name = r"hydra.sweep.dir='a\${b}'" if sweep else r"hydra.run.dir='a\${b}'"
    given = [*TINY, *(["-m", "seed=0,1"] if sweep else []), name]
    said = "fmbench: a${b}: no folder may have '${' in its name; take another\n"
    assert command(*given, main=__main__.main) == (5, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.real_data
def test_the_command_goes_on_when_it_is_pasted(tmp_path, monkeypatch, fashion_mnist_root):
    """In the same place, whatever folder the run is in: the data are below a relative one."""
    (tmp_path / "my data").symlink_to(fashion_mnist_root)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    stop = StopRequested(signal.SIGTERM, saved=True)
    stop.folder = tmp_path / "a'b $c {d}\\"
    data = ["data=fashion_mnist", "data.root=my data", "hydra.job.chdir=true"]
    given = ["model=lenet5", "threads=1", "batch_size=1000", *data]
    pasted = stopped_line(stop, given).partition("with: ")[2]
    for begins in ("lenet5 (", "resumes in epoch 1 of 12"):
        with subprocess.Popen(
            f"exec {pasted}", shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True
        ) as child:
            try:
                said = next(line for line in child.stderr if begins in line)
                child.terminate()
                rest = child.stderr.read()
            finally:
                child.kill()
        assert child.returncode == 143, said + rest
        assert rest.splitlines()[-1].endswith(f"resume with: {pasted}")


@pytest.mark.slow
def test_a_second_process_in_the_folder_is_refused(tmp_path):
    with start(tmp_path, "hydra.run.dir=here"):
        wait_for(lambda: list(tmp_path.rglob("history.jsonl")))
        hydra_files = sorted((tmp_path / "here" / ".hydra").iterdir())
        before = [path.read_bytes() for path in hydra_files]
        with start(tmp_path, "hydra.run.dir=here", "keep_model=true") as other:
            _, err = other.communicate(timeout=60)
        assert [path.read_bytes() for path in hydra_files] == before
    assert other.returncode == 5
    assert err.splitlines()[-1].startswith("fmbench: ")
    assert "another process is at work there" in err.splitlines()[-1]


#: A signal arrives while a module is looked for.
WHILE_IMPORTING = """
import os, runpy, sys

class Trap:
    def find_spec(name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))

sys.meta_path.insert(0, Trap)
runpy.run_module("fmbench", run_name="__main__", alter_sys=True)
"""

SAID = [
    (signal.SIGINT, "fmbench: stopped from the keyboard\n"),
    (signal.SIGTERM, "fmbench: stopped by SIGTERM\n"),
    (signal.SIGUSR2, "fmbench: stopped by SIGUSR2\n"),
]


@pytest.mark.parametrize(("module", "number", "said"), [
    ("fmbench.cli.main", *SAID[0]), ("hydra", *SAID[1]), ("omegaconf.errors", *SAID[2])
])  # fmt: skip
def test_a_signal_while_it_is_imported(number, said, module, tmp_path):
    done = python("-c", WHILE_IMPORTING, module, str(int(number)), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _handlers_as_they_were():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sends(number, then):
    def call(*arguments, **options):
        os.kill(os.getpid(), number)
        return then(*arguments, **options)

    return call


@pytest.mark.usefixtures("_handlers_as_they_were")
@pytest.mark.parametrize(("number", "said"), SAID[:2])
def test_a_signal_before_a_run(number, said, command, monkeypatch, tmp_path):
    monkeypatch.setattr(callbacks, "held", sends(number, callbacks.held))
    assert command(*TINY, main=__main__.main) == (128 + number, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_handlers_as_they_were")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_sweep_is_reported(number, command, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "build", sends(number, report.build))
    got, _, err = command("-m", *TINY, "epochs=1", "seed=0", main=__main__.main)
    last = err.splitlines()[-1]
    assert (got, last.partition(";")[0]) == (128 + number, f"fmbench: stopped by {number.name}")
    assert "; resume with: python -m fmbench -m " in last
    assert "Traceback" not in err
    assert [record["status"] for record in records(tmp_path)] == ["completed"]
    assert not list(tmp_path.rglob("benchmark*"))


@pytest.mark.usefixtures("_handlers_as_they_were")
def test_a_signal_that_is_ignored_or_taken_is_left_alone():
    def taken(*_):
        pass

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, taken)
    stop_in_order()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is taken


@pytest.mark.usefixtures("_handlers_as_they_were")
def test_a_run_that_is_saved_is_not_stopped_once_more():
    stop_in_order()
    stop = StopRequested(signal.SIGTERM, saved=True)
    with pytest.raises(StopRequested) as raised, listening():
        raise stop
    assert raised.value is stop
