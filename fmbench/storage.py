"""Files that exist whole or not at all."""

import os
import secrets
from pathlib import Path

from fmbench.errors import StorageError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Under a temporary name first, flushed to the disk, then renamed.

    Raises:
        StorageError: it could not be written; the old content, if any, is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """What a person should read of a write that failed."""
    return StorageError(f"{path}: cannot be written: {error.strerror or error}")
