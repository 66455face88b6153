"""Files that exist whole or not at all."""

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fmbench.core.console import logger
from fmbench.core.errors import StorageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logger(__name__)

#: The file in a folder that its lock is on.
LOCK_NAME = ".fmbench.lock"

#: What a file system says that has no locks.
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)

#: Files of a run or a sweep that are written where they are: locks, logs, Hydra's own, databases.
#: All others are written anew and renamed, which harms no other name that the old ones have.
_IN_PLACE = re.compile(
    r"\.fmbench\.lock|.*\.log|(config|hydra|overrides|multirun)\.yaml|study\.db.*"
)

_SHARED = "is a hard link, the file has another name elsewhere"

#: What submitit leaves for each job: a link under a random name, which is never opened again.
_OF_SUBMITIT = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh")

#: Bytes of a lock file that are read; it holds a line.
_LONGEST_LINE = 1000


#: To open a file for reading: at once, whatever it is.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def open_regular(path: str | Path, most: int, *, links: bool = True) -> IO[bytes]:
    """Open for reading a file that may be a stranger's.

    A pipe in its place would have its reader wait for ever, and a device may never end: neither is
    read, and to open one does not wait.

    Args:
        path: of the file.
        most: bytes that it may have.
        links: whether it may be reached through a link as the last part of `path`.

    Returns:
        The file, open in binary mode. It may grow meanwhile: read no more than its size.

    Raises:
        OSError: it is not there, is no regular file, or is too large; `strerror` says what.
    """
    return os.fdopen(_opened(path, most, links=links)[0], "rb")


def _opened(path: str | Path, most: int, *, links: bool) -> tuple[int, int]:
    """The descriptor of a file, and its size; raises as `open_regular` does."""
    try:
        opened = os.open(path, _READ if links else _READ | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno == errno.ELOOP and not links and os.path.islink(path):  # noqa: PTH114
            raise OSError(errno.ELOOP, "is a link", os.fspath(path)) from None
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path)) from None
        raise
    status = os.fstat(opened)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return opened, status.st_size
    os.close(opened)
    if stat.S_ISREG(status.st_mode):
        why = f"too large: {status.st_size:,} bytes, at most {most:,} are read"
        raise OSError(errno.EFBIG, why, os.fspath(path))
    raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def read_regular(path: str | Path, most: int, *, links: bool = True) -> bytes:
    """All of a file that may be a stranger's; see `open_regular`.

    Raises:
        OSError: it is not there, is no regular file, or is too large; `strerror` says what.
    """
    opened, size = _opened(path, most, links=links)
    try:
        # No more than it says: what the system makes up while it is read says that it is empty.
        content = os.read(opened, size)
        while len(content) < size and (more := os.read(opened, size - len(content))):
            content += more
        return content
    finally:
        os.close(opened)


def append_regular(path: str | Path, flags: int) -> int:
    """An `opener` of `open` for a file that is appended to, in a folder that may be a stranger's.

    Nothing is written through a link, nor into a file that has another name elsewhere (a hard
    link); a pipe is not waited for.

    Raises:
        OSError: there is such a thing in its place; `strerror` says what.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        opened = os.open(path, flags, 0o666)
    except OSError as error:
        why = {errno.ELOOP: "is a link", errno.ENXIO: "not a regular file"}.get(error.errno or 0)
        raise OSError(error.errno, why or error.strerror, os.fspath(path)) from None
    status = os.fstat(opened)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return opened
    os.close(opened)
    why = _SHARED if stat.S_ISREG(status.st_mode) else "not a regular file"
    raise OSError(errno.EINVAL, why, os.fspath(path))


def make_folder(path: Path) -> None:
    """Make a folder inside one that fmbench writes in, unless it is there.

    Raises:
        StorageError: it cannot be made, or is a link.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    if path.is_symlink():  # what else somebody keeps behind it is not to be written over
        raise StorageError(f"{path}: cannot be written: it is a link")


def refuse_links(folder: Path) -> None:
    """Refuse a folder that holds links: what is written into it would be written elsewhere.

    It may be a stranger's, with a link to a file of the user's in the place of a log. The folder
    itself may be a link, and any folder above it: those are the user's own layout.

    Args:
        folder: of a run or a sweep; all below it is looked at. Nothing is opened.

    Raises:
        StorageError: it holds a link, a pipe, a socket or a device, a file that is written where it
            is and has another name elsewhere (a hard link), or a folder that cannot be listed.
    """
    left = [os.fspath(folder)]
    while left:
        place = left.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    elif why := _leads_elsewhere(entry):
                        raise StorageError(
                            f"{entry.path}: {why}; nothing is written into a folder that holds "
                            "such a thing: take another folder"
                        )
        except FileNotFoundError:  # gone meanwhile: a run of the sweep may be at work
            continue
        except OSError as error:
            if place != os.fspath(folder):  # of the folder itself whoever opens it says more
                raise StorageError(f"{place}: cannot be read: {error.strerror}") from error


def _leads_elsewhere(entry: "os.DirEntry[str]") -> str | None:
    """Why nothing may be written beside this file; None where nothing speaks against it."""
    if entry.is_symlink():
        return None if _OF_SUBMITIT.fullmatch(entry.name) else "is a link"
    if entry.is_file(follow_symlinks=False) and not _IN_PLACE.fullmatch(entry.name):
        return None
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # gone meanwhile
        return None
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    return _SHARED if status.st_nlink > 1 else None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: of the file.
        content: all of it.

    Raises:
        StorageError: it could not be written; the old content, if any, is still there.
    """
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: Path, *, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to be written in the block, which takes its name when all of it is there.

    Under a temporary name first, flushed to the disk, then renamed.

    Args:
        path: of the file.
        keep: where the old content goes; between the two renames only this name is there.

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
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def temporaries(folder: Path, name: str) -> Iterator[Path]:
    """What `write_whole` left of a file when its process was killed, and nobody else's file."""
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9]+\.[0-9a-f]{{8}}")
    return (path for path in folder.glob(f".{name}.*") if ours.fullmatch(path.name))


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror}") from error


def _flush_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def file_lock(path: Path, *, seconds: float = 0) -> "BaseFileLock":
    """A lock on a file, to be acquired; whoever has it is named in the file.

    It is the system's (`flock`), on a file opened for writing, which Linux passes on to an NFS
    server. It goes with the process, however that ends; the file stays. A forked child does not
    have it, and nothing is written through a link.

    Whoever may open the file, to read it too, can lock it and keep all others out. So only those
    can who may write into its folder.

    Args:
        path: of the file; made if it is not there.
        seconds: to wait for another holder before `filelock.Timeout` is raised.
    """
    from filelock import FileLock

    mode = _mode_of_lock(path.parent)
    return FileLock(
        path,
        timeout=seconds,
        mode=mode,
        thread_local=False,  # another thread of a notebook may let it go
        fallback_to_soft=False,  # a file that says "locked" by being there would outlive a kill
        preserve_lock_file=True,
        on_acquired=partial(_sign, mode=mode),
    )


def _mode_of_lock(folder: Path) -> int:
    """The permissions of a lock file: for its owner, and for those who share the folder."""
    try:
        shared = folder.stat().st_mode
    except OSError:
        return 0o600
    if shared & stat.S_ISVTX:  # as /tmp: there nobody can write into others' files
        return 0o600
    group, others = shared & stat.S_IWGRP, shared & stat.S_IWOTH
    return 0o600 | (0o060 if group else 0) | (0o006 if others else 0)


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
        os.lseek(lock, 0, os.SEEK_SET)
        os.write(lock, json.dumps(who).encode() + b"\n")


def _holder(path: Path) -> str:
    """Who is at work, as a lock file says; it may be a stranger's, and say anything."""
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            said = json.loads(os.read(opened, _LONGEST_LINE))
        finally:
            os.close(opened)
        host, process, since = (said[name] for name in ("host", "process", "since"))
    except (LookupError, OSError, TypeError, ValueError, RecursionError):
        return "another process is at work there"
    if (host, process) == (socket.gethostname(), os.getpid()):
        return f"this process is at work there already (since {since})"
    return f"another process is at work there (process {process} on {host}, since {since})"


class FolderLock:
    """Keeps others out of a folder while this process lives, by a lock on a file in it.

    Where the file system has no locks nothing is locked, and a line says so.

    Args:
        folder: that is there.

    Raises:
        StorageError: another process has it, or this one has it already, or its file cannot be
            written.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import Timeout

        self.path = folder / LOCK_NAME
        self.lock: BaseFileLock | None = file_lock(self.path)
        try:
            self.lock.acquire()
        except Timeout:
            raise StorageError(
                f"{folder}: {_holder(self.path)}; take another folder, or wait"
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StorageError(f"{self.path}: cannot be written: it is a link") from error
            if error.errno not in _NO_LOCKS:
                raise storage_error(self.path, error) from error
            _say_unlocked(os.fspath(folder.parent.absolute()))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing is held by a copy, which a launcher sends to another process."""
        return vars(self) | {"lock": None}

    def release(self, *, remove_file: bool = False) -> None:
        """Let others in; calling it again is harmless.

        Args:
            remove_file: of a folder that is to go too. Who has opened the file by then and locks it
                afterwards finds that it is gone, and makes another.
        """
        if self.lock is None:
            return
        if remove_file and self.lock.is_locked:
            with contextlib.suppress(OSError):
                self.path.unlink()
        with contextlib.suppress(OSError):  # of a network disk that is gone
            self.lock.release()


@cache
def _say_unlocked(folder: str) -> None:
    log.warning(
        "%s: its file system has no locks: two runs in one folder are not kept apart", folder
    )


def storage_error(path: Path, error: OSError) -> StorageError:
    """What a person should read of a write that failed."""
    return StorageError(f"{path}: cannot be written: {error.strerror or error}")
