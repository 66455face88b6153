"""Atomic writes, bounded reads, locks; and what a folder may hold that may be a stranger's."""

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fmbench.core.console import logger
from fmbench.core.errors import StorageError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logger(__name__)

#: The file in a folder that its lock is on.
LOCK_NAME = ".fmbench.lock"

#: Seconds within which a folder's lock must come free: longer than a look at it takes (`lock_of`).
_A_LOOK = 0.2

#: What a file system without locks says.
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)

#: Files of a run or a sweep that are written where they are: locks, logs, Hydra's own, databases.
#: All others are written anew and renamed, which harms no other name that the old ones have.
_IN_PLACE = re.compile(
    r"\.fmbench\.lock|.*\.log|(config|hydra|overrides|multirun)\.yaml|study\.(db|journal).*"
)

#: What submitit leaves for each job: a link under a random name, which is never opened again.
_OF_SUBMITIT = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh")

_LINK, _SPECIAL = "is a link", "not a regular file"
_SHARED = "is a hard link, the file has another name elsewhere"

#: To open at once, whatever it is: a pipe would be waited for.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def _open(path: str | Path, flags: int) -> tuple[int, os.stat_result]:
    """The descriptor and the state of a regular file; raises OSError where it is none."""
    try:
        opened = os.open(path, flags | _AT_ONCE, 0o666)
    except OSError as error:
        why = error.strerror
        if error.errno == errno.ENXIO:  # a socket, or a pipe that nobody reads
            why = _SPECIAL
        if error.errno == errno.ELOOP and flags & _NO_LINK:
            why = _LINK
        raise OSError(error.errno, why, os.fspath(path)) from None
    status = os.fstat(opened)
    if stat.S_ISREG(status.st_mode):
        return opened, status
    os.close(opened)
    raise OSError(errno.EINVAL, _SPECIAL, os.fspath(path))


def open_regular(path: str | Path, most: int) -> IO[bytes]:
    """Open for reading a file that may be a stranger's: no pipe, no device, at most `most` bytes.

    It may grow meanwhile: read no more than its size.

    Raises:
        OSError: it is not there, is no regular file, or is too large; `strerror` says what.
    """
    opened, status = _open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    if status.st_size <= most:
        return os.fdopen(opened, "rb")
    os.close(opened)
    why = f"too large: {status.st_size:,} bytes, at most {most:,} are read"
    raise OSError(errno.EFBIG, why, os.fspath(path))


def read_regular(path: str | Path, most: int) -> bytes:
    """All of a file that may be a stranger's; see `open_regular`."""
    with open_regular(path, most) as file:
        # No more than its size: what the system makes up while it is read has none, and no end.
        return file.read(os.fstat(file.fileno()).st_size)


def append_regular(path: str | Path, flags: int) -> int:
    """An `opener` of `open` for a file that is appended to, in a folder that may be a stranger's.

    Raises:
        OSError: there is a link, a pipe, or a file that has another name elsewhere (a hard link);
            `strerror` says what.
    """
    opened, status = _open(path, flags | _NO_LINK)
    if status.st_nlink <= 1:
        return opened
    os.close(opened)
    raise OSError(errno.EINVAL, _SHARED, os.fspath(path))


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there; StorageError where it cannot be made, or is a link."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    if path.is_symlink():  # what else somebody keeps behind it is not to be written over
        raise StorageError(f"{path}: cannot be written: it {_LINK}")


def entries_below(
    folder: str | Path, on_error: Callable[[OSError], None], *, without: str = ""
) -> Iterator["os.DirEntry[str]"]:
    """Everything below a folder, folders too; links, and folders of one name, are not followed.

    `os.walk` is recursive in Python 3.11: a folder of a stranger's may be deeper than its stack.
    `on_error` is told why a folder cannot be listed.
    """
    left = [os.fspath(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.name != without and entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    yield entry
        except OSError as error:
            on_error(error)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that holds links: what is written into it would be written elsewhere.

    It may be a stranger's, with a link to a file of the user's in the place of a log. The folder
    itself may be a link, and any folder above it: those are the user's own layout.

    Raises:
        StorageError: it holds a link, a pipe, a socket or a device, a file that is written where it
            is and has another name elsewhere (a hard link), or a folder that cannot be listed.
    """

    def unlisted(error: OSError) -> None:
        # A folder may be gone meanwhile, as a run of the sweep may be at work. Of the folder itself
        # whoever opens it says more.
        if not isinstance(error, FileNotFoundError) and error.filename != os.fspath(folder):
            raise StorageError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for entry in entries_below(folder, unlisted):
        if why := _leads_elsewhere(entry):
            raise StorageError(
                f"{entry.path}: {why}; nothing is written into a folder that holds such a thing: "
                "take another folder"
            )


def _leads_elsewhere(entry: "os.DirEntry[str]") -> str | None:
    """Why nothing may be written beside this file; None where nothing speaks against it."""
    if entry.is_symlink():
        return None if _OF_SUBMITIT.fullmatch(entry.name) else _LINK
    if entry.is_dir() or (entry.is_file() and not _IN_PLACE.fullmatch(entry.name)):
        return None
    try:
        status = entry.stat()
    except FileNotFoundError:  # gone meanwhile
        return None
    if not stat.S_ISREG(status.st_mode):
        return f"is {_SPECIAL}"
    return _SHARED if status.st_nlink > 1 else None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        StorageError: it could not be written; the old content, if any, is still there.
    """
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: Path, *, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to be written in the block, which takes its name when all of it is on the disk.

    The old content may be kept elsewhere: between the two renames only that name is there.

    Raises:
        StorageError: it could not be written; the old content, if any, is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    with contextlib.suppress(OSError):  # not every system lets a folder be flushed
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporaries(folder: Path, *names: str) -> list[Path]:
    """What `whole_file` left of files when its process was killed, and nobody else's file."""
    ours = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9]+\.[0-9a-f]{{8}}")
    return [path for path in folder.glob(".*") if ours.fullmatch(path.name)]


def remove(path: Path) -> None:
    """Remove a file, if it is there; StorageError where it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror}") from error


def as_text(path: str | Path) -> str:
    """A path as UTF-8 can hold it, whatever bytes its name is made of."""
    text = os.fspath(path)
    return text if text.isascii() else os.fsencode(text).decode("utf-8", "backslashreplace")


def storage_error(path: Path, error: OSError) -> StorageError:
    """A write that failed, as a line for a person."""
    return StorageError(f"{path}: cannot be written: {error.strerror or error}")


def file_lock(path: Path, *, seconds: float = 0) -> "BaseFileLock":
    """A lock on a file, to be acquired within so many seconds; its holder is named in the file.

    It is the system's (`flock`), on a file opened for writing, which Linux passes on to an NFS
    server. It goes with the process, however that ends; the file stays. Nothing is written through
    a link. Whoever may open the file can lock it: so only those can who may write into its folder.
    """
    from filelock import FileLock

    writers = 0
    with contextlib.suppress(OSError):
        folder = path.parent.stat().st_mode
        if not folder & stat.S_ISVTX:  # as /tmp: there nobody can write into others' files
            writers = folder & 0o022
    mode = 0o600 | writers | writers << 1  # they read and write
    return FileLock(
        path,
        timeout=seconds,
        mode=mode,
        thread_local=False,  # another thread of a notebook may release it
        fallback_to_soft=False,  # a file that says "locked" by being there would outlive a kill
        preserve_lock_file=True,
        on_acquired=partial(_sign, mode=mode),
    )


def _sign(lock: int, *, mode: int) -> None:
    """Write into a lock file, by its descriptor, who has it."""
    if os.fstat(lock).st_nlink > 1:  # an archive can make it another name of somebody's own file
        return
    since = datetime.now(UTC).isoformat(timespec="seconds")
    who = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    with contextlib.suppress(OSError, AttributeError):  # somebody else's; Windows has none
        os.fchmod(lock, mode)  # that of an older version could be read by all
    # On a full disk, or with a pipe in its place, it is locked all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(who).encode() + b"\n", 0)


def _holder(path: Path) -> str:
    """Who is at work, in words."""
    lock = lock_of(path.parent)
    if lock.host is None:
        return "another process is at work there"
    if (lock.host, lock.process) == (socket.gethostname(), os.getpid()):
        return f"this process is at work there already (since {lock.since})"
    who = f"process {lock.process} on {lock.host}, since {lock.since}"
    return f"another process is at work there ({who})"


@dataclass(frozen=True)
class Lock:
    """The lock of a folder, as a look at it shows; the names are those of who took it last."""

    held: bool | None  # None where that cannot be told from here
    host: str | None = None
    process: int | None = None
    since: str | None = None  # UTC, ISO 8601


def lock_of(folder: str | Path) -> Lock:
    """Look at the lock of a folder, which may be a stranger's; nothing is written.

    Where it is free it is shared for an instant, which `FolderLock` waits out. A file system may
    keep the locks of each machine to itself: one that another machine took and that is free here
    may be held there.
    """
    try:
        opened, _ = _open(os.path.join(folder, LOCK_NAME), os.O_RDONLY | _NO_LINK)  # noqa: PTH118
    except FileNotFoundError:
        return Lock(held=False)
    except OSError:
        return Lock(held=None)
    try:
        who = _signature(os.read(opened, 1000))
        if sys.platform == "win32":
            return Lock(None, *who)
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        here = who[0] in (None, socket.gethostname())
        return Lock(False if here else None, *who)
    except BlockingIOError:
        return Lock(True, *who)
    except OSError:
        return Lock(None, *who)
    finally:
        os.close(opened)


def _signature(text: bytes) -> tuple[str, int, str] | tuple[None, None, None]:
    """Host, process and time that `_sign` wrote; None where a file says anything else."""
    try:
        said = json.loads(text)
        host, process, since = (said[name] for name in ("host", "process", "since"))
    except (LookupError, TypeError, ValueError, RecursionError):
        return None, None, None
    known = type(host) is str and type(process) is int and type(since) is str
    return (host, process, since) if known else (None, None, None)


class HeldError(StorageError):
    """Another process, or this one, has the lock of a folder."""


class FolderLock:
    """Keeps others out of a folder while this process lives, by a lock on a file in it.

    Where the file system has no locks nothing is locked, and a line says so.

    Raises:
        StorageError: another process or this one has it already, or its file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import Timeout

        self.path = folder / LOCK_NAME
        self.lock: BaseFileLock | None = file_lock(self.path, seconds=_A_LOOK)
        try:
            self.lock.acquire()
        except Timeout:
            raise HeldError(
                f"{folder}: {_holder(self.path)}; take another folder, or wait"
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StorageError(f"{self.path}: cannot be written: it {_LINK}") from error
            if error.errno not in _NO_LOCKS:
                raise storage_error(self.path, error) from error
            _warn_unlocked(os.fspath(folder.parent.absolute()))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing is held by a copy, which a launcher sends to another process."""
        return vars(self) | {"lock": None}

    @property
    def is_held(self) -> bool:
        """Whether others are kept out; not where the file system has no locks."""
        return self.lock is not None and self.lock.is_locked

    def release(self, *, remove_file: bool = False) -> None:
        """Let others in; calling it again is harmless. `remove_file` of a folder that goes too."""
        if self.lock is not None:
            with contextlib.suppress(OSError):  # of a network disk that is gone
                if remove_file and self.lock.is_locked:
                    self.path.unlink()
                self.lock.release()


@cache
def _warn_unlocked(folder: str) -> None:
    log.warning(
        "%s: its file system has no locks: two runs in one folder are not kept apart", folder
    )
