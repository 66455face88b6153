"""Running fmbench as its users do, in a process of its own or in this one."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest

from fmbench.cli import main as cli
from fmbench.config import checks as configuration

CHECKOUT = Path(__file__).resolve().parents[1]

#: A run that is over in a blink: drawn images, LeNet-5. One thread, because two that share a busy
#: core wait for each other most of the time.
TINY = [
    "data=synthetic", "data.train_size=200", "data.test_size=50", "model=lenet5", "epochs=2",
    "threads=1",
]  # fmt: skip

#: For a sweep in a process of its own: no report at its end, which takes longer than small runs.
UNREPORTED = "~hydra.callbacks.sweep_report"

#: A run whose model has learnt something and is kept.
KEPT = [*TINY, "data.train_size=1000", "data.test_size=100", "keep_model=true", "precision=fp32"]


def compose(*overrides: str) -> dict[str, Any]:
    """The resolved config of these overrides."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        return configuration.resolve(hydra.compose("config", overrides=list(overrides)))


def python(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` with fmbench importable, in `cwd`, without network or data set."""
    inherited = {name: value for name, value in os.environ.items() if name != "FMBENCH_DATA"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(CHECKOUT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def fmbench(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m fmbench ARGUMENTS`."""
    return python("-m", "fmbench", *arguments, cwd=cwd, **options)


@contextlib.contextmanager
def started(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """`python -m fmbench ARGUMENTS` under way; it does not outlive the block."""
    usual = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-m", "fmbench", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **(environment or {})},
        **(usual | options),
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def in_one_go(folder: Path, *arguments: str) -> SimpleNamespace:
    """`fmbench ARGUMENTS` in this process and folder, without pictures; what it wrote and said."""
    from fmbench.report import benchmark

    root = logging.getLogger()
    before, out, err = list(root.handlers), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(benchmark, "figures", lambda *_: ())
        patch.setattr(sys, "argv", ["fmbench", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    root.handlers = before
    return SimpleNamespace(folder=folder, out=out.getvalue(), err=err.getvalue())


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition gives, once it holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def written(write: Callable[..., None], *arguments: Any, **options: Any) -> bytes:
    """What a function writes into the file that it is given."""
    file = io.BytesIO()
    write(*arguments, file=file, **options)
    return file.getvalue()


def write_option(path: str, text: str | bytes, folder: str = "mine") -> Path:
    """Write an option into a folder for --config-dir, below the current one."""
    file = Path(folder, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def records(folder: Path) -> list[dict[str, Any]]:
    """The records below a folder, by the order of their paths."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.rglob("result.json"))]


def raises_one_line(call: Callable[[], object], error: type[Exception], *parts: str) -> None:
    """Assert that a call raises an error of one line that holds all the parts."""
    try:
        call()
    except error as raised:
        text = str(raised)
        assert "\n" not in text
        for part in parts:
            assert part in text
        return
    raise AssertionError(f"nothing was raised; expected {error.__name__}")
