"""Fashion-MNIST on disk: find, download, verify, read; and its synthetic twin.

Results compare only on known images, so every file is checked against the
SHA-256 of the official release (Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", 2017) before a pixel of it is used.
"""

import gzip
import hashlib
import http.client
import io
import math
import os
import struct
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, DataError, UserError
from fmbench.core.files import storage_error, write_whole
from fmbench.data import synthetic

log = logger(__name__)

#: Names the folder of the files, where `data.root` does not.
VARIABLE = "FMBENCH_DATA"

#: The types of IDX by their codes.
_IDX_TYPES = {
    code: np.dtype(name)
    for code, name in ((8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8"))
}

#: Seconds without a byte, and in all, before the next mirror gets its turn for a file.
_TIMEOUT, _LONGEST = 30, 600


@dataclass(frozen=True)
class OfficialFile:
    """One file of the release: sizes in bytes and SHA-256 in hex, as an archive and inside."""

    name: str
    archive_size: int
    content_size: int
    archive_sha256: str
    content_sha256: str

    @property
    def archive(self) -> str:
        """The name of the compressed file."""
        return f"{self.name}.gz"


# fmt: off
OFFICIAL_FILES = (
    OfficialFile("train-images-idx3-ubyte", 26_421_880, 47_040_016,
                 "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                 "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    OfficialFile("train-labels-idx1-ubyte", 29_515, 60_008,
                 "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                 "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    OfficialFile("t10k-images-idx3-ubyte", 4_422_102, 7_840_016,
                 "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                 "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    OfficialFile("t10k-labels-idx1-ubyte", 5_148, 10_008,
                 "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                 "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)
# fmt: on


#: SHA-256 of the content of MNIST's files (LeCun, Cortes, Burges), which have the same names.
MNIST_SHA256 = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

# A path with its size in bytes and its time of change in ns: a file replaced since is another file.
FoundFile = tuple[Path, int, int]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Ten classes of 28 x 28 grey images. The arrays are read-only, runs of a process share them.

    Attributes:
        name: `fashion_mnist` or `synthetic`.
        classes: The name of each label.
        train_images: uint8 (N, 28, 28), 0 black to 255 white.
        train_labels: uint8 (N,), 0 to 9.
        test_images: uint8 (M, 28, 28).
        test_labels: uint8 (M,).
        sha256: Hex digest of the content, so that a record tells which images were used.
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    sha256: str

    def __post_init__(self) -> None:
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            array.setflags(write=False)


def load(config: Mapping[str, Any], base: Path = Path()) -> Dataset:
    """Load a data set; again in the same process it costs a look at the file system.

    Args:
        config: The `data` group. For `fashion_mnist`: `root`, the folder with the files or with
            torchvision's `FashionMNIST/raw`, where null means FMBENCH_DATA, else `data`;
            `mirrors`, base URLs; `download`, whether missing files may be fetched from them. For
            `synthetic`: `train_size`, `test_size`, `seed`.
        base: The folder that relative paths start from.

    Returns:
        The data set, verified.

    Raises:
        ConfigError: The name is unknown, or a value of the group is not allowed.
        DataError: A file is missing and cannot be fetched, or is not the official one.
        StorageError: A file that was fetched cannot be written.
    """
    name = config["name"]
    if name == "synthetic":
        return _draw(config["train_size"], config["test_size"], config["seed"])
    if name != "fashion_mnist":
        raise ConfigError(f"data.name={name}: unknown; allowed are fashion_mnist, synthetic")
    variable = None if config["root"] else os.environ.get(VARIABLE)
    root = config["root"] or variable or "data"
    try:
        root = (base / Path(root).expanduser()).absolute()
    except RuntimeError as error:
        raise ConfigError(f"data.root={root}: no such user; allowed is any folder") from error
    try:
        return _find_and_read(root, config["mirrors"] if config["download"] else None)
    except UserError as error:
        if not variable:
            raise
        # The value of a variable is in no record, nor in a log that lies beside it.
        raise type(error)(str(error).replace(str(root), f"${VARIABLE}")) from None


def _find_and_read(root: Path, mirrors: Sequence[str] | None) -> Dataset:
    folders = (root, root / "FashionMNIST" / "raw")  # the second is where torchvision puts them
    found = _find(folders)
    missing = [official for official in OFFICIAL_FILES if official not in found]
    if missing:
        if mirrors is not None:
            for official, (path, _, _) in found.items():
                _content(official, path)  # nothing is downloaded among the files of another set
        _download(missing, mirrors, folders)
        found = _find(folders)
    return _read(tuple(found[official] for official in OFFICIAL_FILES))


@lru_cache(maxsize=3)
def _read(found: tuple[FoundFile, ...]) -> Dataset:
    train_images, train_labels, test_images, test_labels = (
        read_idx(_content(official, path), str(path))
        for official, (path, _, _) in zip(OFFICIAL_FILES, found, strict=True)
    )
    arrays = train_images, train_labels, test_images, test_labels
    digests = (official.content_sha256 for official in OFFICIAL_FILES)
    return Dataset("fashion_mnist", synthetic.CLASSES, *arrays, _combine(digests))


def read_idx(data: bytes, where: str) -> np.ndarray:
    """Read a file in IDX, the format of the MNIST family.

    A header of two zero bytes, a type, the number of dimensions and each size as 32 bits, then the
    values, all big-endian ("THE IDX FILE FORMAT", http://yann.lecun.com/exdb/mnist/).

    Args:
        data: The whole file, not compressed.
        where: The name of the file in an error.

    Returns:
        An array of the type and the shape that the header gives: a read-only view of `data`.

    Raises:
        DataError: The header is wrong, or the file is shorter or longer than it tells.
    """
    begins = len(data) >= 4 and data[:2] == b"\0\0" and data[2] in _IDX_TYPES and data[3] <= 4
    if not begins or len(data) < (start := 4 + 4 * data[3]):
        raise DataError(f"{where}: not an IDX file, it begins with {data[:12]!r}")
    dtype = _IDX_TYPES[data[2]]
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DataError(f"{where}: {len(data):,} bytes; {expected:,} expected of {shape}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _inflate(archive: bytes, limit: int) -> bytes:
    """Inflate a gzip file, to `limit` + 1 bytes at most.

    Raises:
        OSError: It is damaged.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as file:
            return file.read(limit + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error


@lru_cache(maxsize=3)
def _draw(train_size: int, test_size: int, seed: int) -> Dataset:
    arrays = synthetic.draw(train_size, test_size, seed)
    digests = (hashlib.sha256(array.data).hexdigest() for array in arrays)
    return Dataset("synthetic", synthetic.CLASSES, *arrays, _combine(digests))


def _combine(digests: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


#: Of all images and labels of Fashion-MNIST, as the records of runs have it.
OFFICIAL_SHA256 = _combine(official.content_sha256 for official in OFFICIAL_FILES)


def _find(folders: Sequence[Path]) -> dict[OfficialFile, FoundFile]:
    found = {}
    for official in OFFICIAL_FILES:
        # The extracted file goes first: torchvision leaves both, and it reads three times as fast.
        names = (official.name, official.archive)
        candidates = (folder / name for folder in folders for name in names)
        try:
            path = next((path for path in candidates if path.is_file()), None)
            if path:
                status = path.stat()
                found[official] = (path, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise DataError(f"data.root={folders[0]}: cannot be searched ({error})") from error
    return found


def _content(official: OfficialFile, path: Path) -> bytes:
    as_archive = path.name == official.archive
    size, sha256 = official.content_size, official.content_sha256
    if as_archive:
        size, sha256 = official.archive_size, official.archive_sha256
    try:
        with path.open("rb") as file:
            data = file.read(size + 1)  # no more of a wrong file than shows that it is
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if fault := _fault(data, size, sha256):
        # It is somebody's: whatever is downloaded here has been verified before it got its name.
        with suppress(OSError):
            content = _inflate(data, official.content_size) if as_archive else data
            if hashlib.sha256(content).hexdigest() in MNIST_SHA256:
                fault += ": it is MNIST's"
        raise DataError(
            f"{path}: not the official file of Fashion-MNIST, {fault}; let data.root (or "
            f"{VARIABLE}) name another folder, into which it is downloaded"
        )
    return _inflate(data, official.content_size) if as_archive else data


def _fault(data: bytes, size: int, sha256: str) -> str | None:
    """Says in which way data read up to `size` + 1 bytes is not what is expected, if it is not."""
    if len(data) != size:
        found = f"more than {size:,}" if len(data) > size else f"{len(data):,}"
        return f"{found} bytes where {size:,} are expected"
    found = hashlib.sha256(data).hexdigest()
    return None if found == sha256 else f"SHA-256 {found} where {sha256} is expected"


def _download(
    missing: Sequence[OfficialFile], mirrors: Sequence[str] | None, folders: Sequence[Path]
) -> None:
    reason = "data.download is false" if mirrors is None else "data.mirrors is empty"
    order = list(mirrors or ())
    unfit = [url for url in order if not url.lower().startswith(("http:", "https:", "file:"))]
    if unfit:
        raise ConfigError(f"data.mirrors: {unfit[0]} is not allowed; http, https and file URLs are")
    for position, official in enumerate(missing):
        for mirror in order:
            url = f"{mirror.rstrip('/')}/{official.archive}"
            try:
                archive = _fetch(url, official)
            except DataError as error:
                reason = str(error)
                continue
            _store(archive, folders[0] / official.archive)
            order.remove(mirror)
            order.insert(0, mirror)  # the one that answered is asked first from now on
            break
        else:
            names = ", ".join(other.archive for other in missing[position:])
            raise DataError(
                f"Fashion-MNIST: missing {names}; put them into {folders[0]} or {folders[1]}, "
                f"or take data=synthetic ({reason})"
            )


def _fetch(url: str, official: OfficialFile) -> bytes:
    """Returns the archive behind a URL, verified; DataError says why there is none."""
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_ask(url, official.archive_size + 1))
        except Exception as error:  # noqa: BLE001 - raised again below
            answers.put(error)

    # A server that sends a byte now and then is never late for the next one, in the headings
    # neither. So it is waited for in a thread, which the end of the program does not wait for.
    threading.Thread(target=ask, daemon=True).start()
    try:
        archive = answers.get(timeout=_LONGEST)
    except Empty:
        raise DataError(f"{url}: too slow, not here after {_LONGEST} s") from None
    if isinstance(archive, (OSError, http.client.HTTPException, ValueError)):
        reason = " ".join(str(archive).strip("<>").split()) or type(archive).__name__
        raise DataError(f"{url}: {reason}") from archive
    if isinstance(archive, Exception):
        raise archive
    fault = _fault(archive, official.archive_size, official.archive_sha256)
    if fault:
        raise DataError(f"{url}: {fault}")
    return archive


def _ask(url: str, most: int) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310 - checked above
            log.info("downloading %s", url)
            archive: bytes = response.read(most)
            return archive
    except urllib.error.HTTPError as error:
        error.close()  # an answer like any other, with a connection to it
        raise


def _store(archive: bytes, target: Path) -> None:
    # Whoever downloads at the same time never sees half a file.
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(target.parent, error) from error
    write_whole(target, archive)
