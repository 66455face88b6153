"""TensorBoard: event files in `tensorboard/` of the run folder."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from fmbench.records.record import COMPLETED, FINAL, TENSORBOARD_NAME, Record
from fmbench.tracking import Line, final, settings

#: What every event file's name begins with; the second of its beginning follows.
_PREFIX = "events.out.tfevents."


class TensorBoard:
    """Writes scalars, and settings and status for the HParams page.

    TensorBoard keeps scalars as float32. Each start of the run writes all epochs so far into a file
    that takes the place of earlier ones. It is written here, not by PyTorch's writer, whose thread
    prints its errors as tracebacks.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / TENSORBOARD_NAME
        self.step = 0  # epochs that it has been told of
        self.writer: RecordWriter | None = None

    def begin(self, record: Record, history: Sequence[Line]) -> None:
        """Write the settings and the epochs so far."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.glob(f"{_PREFIX}*"):
            path.unlink()
        # TensorBoard reads files in the order of their names.
        path = self.path / f"{_PREFIX}{int(time.time()):010d}.{os.getpid()}"
        self.writer = RecordWriter(path.open("xb"))
        self._write(file_version="brain.Event:2")
        # One that is open forgets what it has read.
        self._write(step=0, session_log=SessionLog(status=SessionLog.START))
        self._write_session(record)
        for line in history:
            self._write_line(line)
        self.step = len(history)
        self.writer.flush()

    def epoch(self, line: Line) -> None:
        """Write an epoch's numbers, and have them on the disk."""
        assert self.writer is not None
        self._write_line(line)
        self.step += 1
        self.writer.flush()

    def end(self, record: Record) -> None:
        """Write how the run has ended."""
        for name, value in final(record).items():
            self._write_value(f"final/{name}", self.step, simple_value=value)
        status = f"{record.status}: {record.error}" if record.error else record.status
        self._write_value(
            "status/text_summary",
            self.step,
            metadata=create_summary_metadata(None, None),
            tensor=make_tensor_proto([status]),
        )
        if record.status in FINAL:
            good = record.status == COMPLETED
            status_info = SessionEndInfo(
                status=Status.Value("STATUS_SUCCESS" if good else "STATUS_FAILURE"),
                end_time_secs=time.time(),
            )
            self._write_hparams(metadata.SESSION_END_INFO_TAG, session_end_info=status_info)

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()

    def _write_session(self, record: Record) -> None:
        """Write the settings.

        Without a summary of the whole experiment: TensorBoard then makes its columns out of all
        runs that it sees, and would otherwise take those of the first run for all.
        """
        start = SessionStartInfo(start_time_secs=time.time())
        for name, value in settings(record).items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, str):
                start.hparams[name].string_value = value
            else:
                start.hparams[name].number_value = value
        self._write_hparams(metadata.SESSION_START_INFO_TAG, session_start_info=start)

    def _write_hparams(self, tag: str, **content: Any) -> None:
        data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
        of_plugin = SummaryMetadata.PluginData(
            plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString()
        )
        self._write_value(tag, 0, metadata=SummaryMetadata(plugin_data=of_plugin))

    def _write_line(self, line: Line) -> None:
        for name, value in line.items():
            if name != "epoch":
                self._write_value(_tag(name), line["epoch"], simple_value=value)

    def _write_value(self, tag: str, step: int, **content: Any) -> None:
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, **content)]))

    def _write(self, **content: Any) -> None:
        assert self.writer is not None
        self.writer.write(Event(wall_time=time.time(), **content).SerializeToString())


def _tag(name: str) -> str:
    """`loss/train` for `train_loss`: TensorBoard shows side by side what begins alike."""
    part, _, what = name.partition("_")
    return f"{what}/{part}" if what in ("loss", "accuracy") else name
