"""Trackers: TensorBoard or MLflow, which receive a run's numbers where `logger` names one.

A tracker changes no result, ends no run: it is no part of a run's key or record, it may be
another one each time the run is resumed, and one that fails is dropped for the rest of the run.
"""

import json
import os
import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fmbench.config.whitelist import TARGETS
from fmbench.core.console import logger
from fmbench.core.errors import one_line, require_package
from fmbench.records.folder import read_record
from fmbench.records.record import FINAL, MLFLOW_NAME, Record, leaves

log = logger(__name__)

#: Whose name, and password, a URL may hold.
_USER = re.compile(r"://[^/\s@]*@")

#: Where MLflow looks for its server.
SERVER_VARIABLE = "MLFLOW_TRACKING_URI"

#: How MLflow behaves in fmbench's own processes unless the user has set it: it reports no usage to
#: its makers, and does not hold a run up for minutes when its server is gone.
MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

#: A line of `history.jsonl`.
Line = Mapping[str, Any]


class Tracker(Protocol):
    """What receives a run's numbers; whatever a method raises, the run goes on without it."""

    def begin(self, record: Record, history: Sequence[Line]) -> None:
        """The run begins, or is resumed after these epochs: these are to be held, each once."""

    def epoch(self, line: Line) -> None:
        """An epoch has ended."""

    def end(self, record: Record) -> None:
        """The run has ended, or was stopped: the record says how."""

    def close(self) -> None:
        """Close what is open: the last call, also after another one has failed."""


@dataclass
class Tracking:
    """A run's tracker, kept from harming the run."""

    logger: Mapping[str, Any]  # the keys of that name
    folder: Path  # of the run
    base: Path  # where the program was started
    tracker: Tracker | None = None

    def begin(self, record: Record, history: Sequence[Line]) -> None:
        """Begin, or resume after these epochs."""
        with self._safely():
            self.tracker = _make(self.logger, self.folder, self.base)
            if self.tracker is not None:
                self.tracker.begin(record, history)

    def epoch(self, line: Line) -> None:
        """Hand on an epoch that has ended."""
        with self._safely():
            if self.tracker is not None:
                self.tracker.epoch(line)

    def end(self, record: Record) -> None:
        """Hand on how the run has ended."""
        with self._safely():
            if self.tracker is not None:
                self.tracker.end(record)
            self._close()

    @contextmanager
    def _safely(self) -> Iterator[None]:
        with _safely(self.logger["name"]):
            try:
                yield
            except Exception:
                self._close()
                raise

    def _close(self) -> None:
        tracker, self.tracker = self.tracker, None
        if tracker is not None:
            with suppress(Exception):
                tracker.close()


def mlflow_defaults() -> None:
    """Set `MLFLOW_DEFAULTS` for this process, which must be fmbench's own, and those it starts."""
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)


@contextmanager
def _safely(name: str) -> Iterator[None]:
    """Say in a line what a tracker raises, and go on; Python's random numbers stay the run's."""
    state = random.getstate()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:  # noqa: BLE001 - of whatever package
        said = _without_address(str(error))[:300]
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        log.warning("logger=%s: %s; the run goes on without", name, reason)
    finally:
        random.setstate(state)


def _without_address(text: str) -> str:
    """A text on one line, without what the environment says of the server."""
    text = _USER.sub("://***@", one_line(text))
    where = _USER.sub("://", os.environ.get(SERVER_VARIABLE, ""))
    with suppress(ValueError):
        url = urlsplit(where)
        for part in (where, url.netloc, url.hostname, url.query):
            if part and len(part) > 1:
                text = text.replace(part, f"${SERVER_VARIABLE}")
    return text


def settle(folder: Path, base: Path) -> None:
    """Tell MLflow how a run has ended whose own process could not, as its record says."""
    if (folder / MLFLOW_NAME).is_file():
        with _safely("mlflow"):
            from fmbench.tracking.mlflow import MLflow

            MLflow(folder, "", base).settle(read_record(folder))


def refuse_missing(logger: Mapping[str, Any]) -> None:
    """Refuse, by a ConfigError, a tracker that is not installed; `logger` are the keys of it."""
    if (name := logger["name"]) != "none":
        require_package(f"logger={name}", name, name)


def _make(logger: Mapping[str, Any], folder: Path, base: Path) -> Tracker | None:
    if logger["name"] == "tensorboard":
        from fmbench.tracking.tensorboard import TensorBoard

        return TensorBoard(folder)
    if logger["name"] == "mlflow":
        from fmbench.tracking.mlflow import MLflow

        return MLflow(folder, logger["experiment"], base)
    return None


def settings(record: Record) -> dict[str, str | int | float | bool]:
    """The settings of a run: the options chosen, and every key that a record keeps.

    By the names that overrides have; lists and null as JSON. Of an option with a target of its own
    the class is named.
    """
    chosen = record.choices | {group: getattr(record, group) for group in TARGETS}
    if record.experiment is not None:
        chosen["experiment"] = record.experiment
    values = {key: _plain(value) for key, value in leaves(record.config)}
    return values | {name: str(option) for name, option in chosen.items()}


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value, default=str)


def final(record: Record) -> dict[str, float]:
    """The numbers of a run at its end: accuracies 0 to 1, seconds; none of one that may resume."""
    if record.status not in FINAL:
        return {}
    names = "test_accuracy", "best_test_accuracy", "validation_accuracy", "parameters", "flops"
    values = {name: getattr(record, name) for name in names}
    values |= {f"{of}_seconds": record.seconds[of] for of in ("train", "evaluate", "total")}
    return {name: float(value) for name, value in values.items() if value is not None}
