"""What several test modules share."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import KEPT

from fmbench.cli import main as cli
from fmbench.core.signals import SIGNALS

# Workers share the cores: threads of PyTorch that wait for each other keep others from them.
# It is read when PyTorch is imported, which nothing here does, and by processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts in the background, or `nohup` anywhere, ignores some of these, and so would
# everything that the tests start.
for _number in SIGNALS:
    if signal.getsignal(_number) is signal.SIG_IGN:
        _first = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, _first)

#: Exit status, standard output, standard error.
Said = tuple[int, str, str]


#: How many modules there were when garbage was last looked for among what they hold.
_looked_through = 0


def pytest_collection_finish() -> None:
    """Have garbage looked for less often: what was imported alone makes that take a while."""
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _imports_are_no_garbage() -> None:
    """A run looks for garbage where the process holds much; in what was imported there is none."""
    global _looked_through  # noqa: PLW0603 - of the process, as what is imported
    gc.enable()  # a command that is about to end its process leaves it off
    if len(sys.modules) > _looked_through + 100:
        _looked_through = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    """Have what was imported taken apart as it would be, which some of it complains without."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Hydra gives the root logger handlers that write to the streams of the test that ran it."""
    loggers = [logging.getLogger(name) for name in (None, "fmbench", "fmbench.epochs")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.level = handlers, level


@pytest.fixture(autouse=True)
def _modules_of_a_test_end_with_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two tests write modules of one name, each into a folder of its own."""
    before = list(sys.modules)
    yield
    if before == list(sys.modules):
        return
    written = str(tmp_path_factory.getbasetemp())
    for name in sys.modules.keys() - set(before):
        said = vars(sys.modules[name])  # torch.classes has an attribute of any name
        places = said.get("__path__") or [said.get("__file__")]
        if any(str(place).startswith(written) for place in places):
            del sys.modules[name]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run `fmbench ARGUMENTS`, or another `main`, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FMBENCH_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the commands add the current folder
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # or have no process find any there

    def call(*arguments: str, main: Callable[[], object] = cli.main) -> Said:
        monkeypatch.setattr(sys, "argv", ["fmbench", *arguments])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call a `main` that ends its process."""

    def call(main: Callable[[list[str]], object], *arguments: object) -> Said:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return stop.value.code, printed.out, printed.err

    return call


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps in this process draw none into their reports, which takes longer than all the rest."""
    from fmbench.report import benchmark

    monkeypatch.setattr(benchmark, "figures", lambda *_: ())


@pytest.fixture(scope="session")
def fashion_mnist_root() -> Path:
    """A folder with the real Fashion-MNIST files; tests that need it carry the mark real_data."""
    checkout = Path(__file__).resolve().parents[1]
    root = Path(os.environ.get("FMBENCH_DATA") or checkout / "data").resolve()
    if not any(root.glob("**/t10k-labels-idx1-ubyte*")):
        pytest.skip(f"no Fashion-MNIST files in {root}; FMBENCH_DATA may name another folder")
    return root


@pytest.fixture(scope="session")
def kept_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run in fp32 that kept its model: LeNet-5 on drawn images."""
    import fmbench

    folder = tmp_path_factory.mktemp("kept") / "run"
    fmbench.run([*KEPT, f"hydra.run.dir={folder}"])
    return folder


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Runs set PyTorch's threads and determinism for the whole process."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")
