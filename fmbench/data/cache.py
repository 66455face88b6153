"""A prepared copy of a user's data, so that the second start is at once.

A file of NumPy arrays for each data set, found by the name, size and modification time of every
source file and by what the config says of reading them. It holds a digest of the arrays, which is
checked when it is read: a copy that is damaged or of another version is made anew. A folder that
cannot be written to is no error. Whoever may write to the folder is trusted with the images.
"""

import contextlib
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from fmbench.core.console import logger
from fmbench.core.errors import StorageError
from fmbench.core.files import whole_file
from fmbench.data.dataset import Dataset

log = logger(__name__)

#: Names the folder of the copies.
VARIABLE = "FMBENCH_CACHE"

#: Of the format of a copy, and of how data are read: a change of either makes them anew.
_VERSION = 2

#: Of the name of a copy; nothing else in the folder is touched.
_SUFFIX = ".fmbench.npz"
_OURS = re.compile(r"[0-9a-f]{32}" + re.escape(_SUFFIX))

_FIELDS = ("name", "classes", "train", "validation", "sha256", "set_aside")


def folder() -> Path:
    """Where the copies lie: `FMBENCH_CACHE`, else the user's cache folder."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("fmbench") / "data")


def key(sources: Mapping[str, Sequence[Path]], reading: Mapping[str, Any]) -> str:
    """The name of the copy of some files, by part, each with its size and its times in ns.

    Raises:
        OSError: A file cannot be looked at.
    """
    files = []
    for part, paths in sources.items():
        for path in paths:
            status = path.stat()
            times = status.st_mtime_ns, status.st_ctime_ns
            files.append([part, str(path), status.st_size, *times])
    text = json.dumps([_VERSION, files, sorted(map(repr, reading.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read(name: str) -> Dataset | None:
    """The data set of a copy; None where there is none, or a damaged one."""
    path = folder() / f"{name}{_SUFFIX}"
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
            text = archive["about"].tobytes()
        about = json.loads(text)
        sound = about.pop("digest") == _digest(images, labels, about) and about.pop("key") == name
        if not sound:
            return None
        os.utime(path)  # the ones that are used stay longest
        about["classes"] = tuple(about["classes"])
        return Dataset(images=images, labels=labels, **about)
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, MemoryError,
            zipfile.BadZipFile, zlib.error):  # fmt: skip
        return None


def write(name: str, dataset: Dataset, most: float) -> None:
    """Keep a copy; of all copies those that were used last stay, up to `most` GB."""
    if dataset.images.nbytes + dataset.labels.nbytes > most * 1e9:
        return
    about: dict[str, Any] = {field: getattr(dataset, field) for field in _FIELDS} | {"key": name}
    about["digest"] = _digest(dataset.images, dataset.labels, about)
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        with whole_file(where / f"{name}{_SUFFIX}") as file:
            np.savez(file, images=dataset.images, labels=dataset.labels, about=text)
    except (OSError, StorageError) as error:
        log.info("no prepared copy of %s is kept: %s", dataset.name, error)
        return
    _shrink(where, most * 1e9)


def _shrink(where: Path, most: float) -> None:
    copies = []
    for path in where.iterdir():
        if _OURS.fullmatch(path.name):
            with contextlib.suppress(OSError):
                copies.append((path.stat().st_mtime, path.stat().st_size, path))
    left = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies):
        if left <= most:
            break
        with contextlib.suppress(OSError):  # another process may have removed it
            path.unlink()
        left -= size


def _digest(images: np.ndarray, labels: np.ndarray, about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True, default=list).encode())
    for array in (images, labels):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
