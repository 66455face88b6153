"""MLflow: a run of its own for each run, on the user's server or in `mlflow.db`.

Only the environment says where the server is, as with every program that uses MLflow: a config
could be a stranger's, and would choose who gets the numbers.
"""

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fmbench.core.files import file_lock, read_regular, write_whole
from fmbench.records.record import COMPLETED, DIVERGED, FAILED, MLFLOW_NAME, Record
from fmbench.tracking import SERVER_VARIABLE, Line, final, settings

#: The database where there is no server; MLflow's own default, so that `mlflow ui` finds it.
DATABASE_NAME = "mlflow.db"

#: Held while a database is opened: of runs that make its tables at once all but one would fail.
LOCK_NAME = ".mlflow.lock"

#: Seconds to wait for it, and for another run's writing; the tables take about five.
_PATIENCE = 60.0

#: MLflow's words for how a run has ended; of all others "KILLED".
_STATUS = {COMPLETED: "FINISHED", DIVERGED: "FAILED", FAILED: "FAILED"}

_LOGGERS = ("mlflow", "alembic", "urllib3")

#: A metric's name, its step and its value.
Point = tuple[str, int, float]

#: Characters of a value; MLflow takes 6,000.
_LONGEST = 5000

#: Most metrics, and most parameters, in one request.
_METRICS, _PARAMETERS = 1000, 100

#: Shows that a run is that of the folder which names it.
_TAG = "fmbench.token"


@dataclass
class MLflow:
    """Writes parameters, metrics and tags of one run.

    MLflow takes no point back: of an epoch that was computed twice the first numbers stay.
    """

    folder: Path  # of the run; keeps the id of its MLflow run
    experiment: str  # what MLflow files it under; made if it is not there
    base: Path  # where the database is, if there is no server
    step: int = 0  # epochs that it has been told of
    known: dict[tuple[str, int], float] = field(default_factory=dict)  # values by metric and step

    def begin(self, record: Record, history: Sequence[Line]) -> None:
        """Begin a run, or resume the one that the folder names."""
        with self._connected():
            known = self._find()
            if known is None:
                self._create(record)
            new = [
                self.entities.Param(name, _text(value))
                for name, value in settings(record).items()
                if name not in (known or ())
            ]
            for start in range(0, len(new), _PARAMETERS):
                self.client.log_batch(self.run, params=new[start : start + _PARAMETERS])
            self._log(point for line in history for point in _points(line))
        self.step = len(history)

    def settle(self, record: Record) -> None:
        """Write how a run has ended whose own process could not, if it had begun."""
        with self._connected():
            if self._find() is not None:
                self._terminate(record)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        import mlflow

        self.entities = mlflow.entities
        where = os.environ.get(SERVER_VARIABLE) or _database(self.base)
        alone = nullcontext() if where.startswith("http") else _alone(self.base / LOCK_NAME)
        with _silenced():  # after the import, which turns them up
            with alone:
                self.client = mlflow.MlflowClient(tracking_uri=where)
            yield

    def _find(self) -> set[str] | None:
        """Resume the run that the folder names; its parameters, or None where there is none."""
        try:
            noted = json.loads(read_regular(self.folder / MLFLOW_NAME, 1000))
            named, token = noted["run"], noted.get("token")
        except (AttributeError, LookupError, OSError, TypeError, ValueError, RecursionError):
            return None
        try:
            found = self.client.get_run(str(named))
        except Exception as error:
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                return None  # removed, or on another server
            raise
        # A folder that was received may name any run of the user's; those of an older fmbench have
        # no token.
        tags = found.data.tags
        ours = tags.get("mlflow.source.name") == "fmbench" and tags.get(_TAG) == token
        if not ours or found.info.lifecycle_stage != "active":
            return None
        self.run = found.info.run_id
        for metric in found.data.metrics:
            points = self.client.get_metric_history(self.run, metric)
            self.known |= {(metric, point.step): point.value for point in points}
        self.client.update_run(self.run, status="RUNNING")
        return set(found.data.params)

    def _create(self, record: Record) -> None:
        token = secrets.token_hex(16)
        tags = {
            "mlflow.source.name": "fmbench",
            "mlflow.source.git.commit": record.git["commit"] if record.git else None,
            "fmbench.version": record.fmbench_version,
            _TAG: token,
            "fmbench.status": record.status,
        }
        name = "/".join([record.model, *self.folder.absolute().parts[-2:]])
        created = self.client.create_run(
            self._experiment(),
            run_name=name,
            tags={key: value for key, value in tags.items() if value is not None},
        )
        self.run = created.info.run_id
        noted = json.dumps({"run": self.run, "token": token}) + "\n"
        write_whole(self.folder / MLFLOW_NAME, noted.encode())

    def _experiment(self) -> str:
        """The experiment's id; another run may be making it just now."""
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self.client.create_experiment(self.experiment))
            except Exception:
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def epoch(self, line: Line) -> None:
        """Write an epoch's numbers."""
        with _silenced():
            self._log(_points(line))
        self.step += 1

    def end(self, record: Record) -> None:
        """Write how the run has ended."""
        with _silenced():
            self._log((f"final_{name}", self.step, value) for name, value in final(record).items())
            self._terminate(record)

    def _terminate(self, record: Record) -> None:
        tags = {
            "fmbench.status": record.status,
            "fmbench.error": (record.error or "")[:_LONGEST],
            "fmbench.key": record.key,
            "fmbench.device": record.device or "",
        }
        of_run = [self.entities.RunTag(key, value) for key, value in tags.items()]
        self.client.log_batch(self.run, tags=of_run)
        self.client.set_terminated(self.run, _STATUS.get(record.status, "KILLED"))

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _log(self, points: Iterable[Point]) -> None:
        now = int(time.time() * 1000)
        new = [
            self.entities.Metric(name, value, now, step)
            for name, step, value in points
            # A completed run may be evaluated on the test set later: what that changes counts.
            if (name, step) not in self.known
            or (name.startswith("final_") and self.known[name, step] != value)
        ]
        for start in range(0, len(new), _METRICS):
            self.client.log_batch(self.run, metrics=new[start : start + _METRICS])


def _text(value: str | float) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]


def _points(line: Line) -> Iterator[Point]:
    return ((name, line["epoch"], value) for name, value in line.items() if name != "epoch")


def _database(base: Path) -> str:
    path = str((base / DATABASE_NAME).absolute())
    if re.search("[?#%]", path):
        raise ValueError(f"{path}: its URL cannot be written; {SERVER_VARIABLE} may name another")
    # Seconds to wait for another run that is writing; SQLite's own five are few on a busy disk.
    return f"sqlite:///{path}?timeout={_PATIENCE}"


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence loggers that say in many lines what is said in one here."""
    levels = {each: each.level for each in map(logging.getLogger, _LOGGERS)}
    for each in levels:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in levels.items():
            each.setLevel(level)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file's lock, for which others are waited; where it cannot be had, do without."""
    lock = file_lock(path, seconds=_PATIENCE)
    with suppress(OSError):  # filelock's Timeout is one
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()
