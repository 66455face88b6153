"""Public sets of small images: find, download, verify and read them.

Results compare only on known images. So no byte of a file is decoded before its digest has been
compared with the published one: of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017) and MNIST (LeCun,
Cortes and Burges) the SHA-256 of the content, of the others the MD5 that torchvision names, with
the address. A pickle of CIFAR is opened only then.
"""

import gzip
import hashlib
import http.client
import io
import math
import os
import pickle
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, DataError, UserError
from fmbench.core.files import storage_error, write_whole
from fmbench.data import synthetic
from fmbench.data.dataset import Dataset, combined, joined
from fmbench.data.idx import read_idx
from fmbench.data.titles import TITLES

log = logger(__name__)

#: Names the folder of the files, where `data.root` does not.
VARIABLE = "FMBENCH_DATA"

#: Seconds without a byte, and in all for each started 50 MB, before the next address gets its turn.
_TIMEOUT, _LONGEST = 30, 600

#: Bytes of the largest file of all: that of EMNIST has 562 MB.
_MOST = 700_000_000

Parts = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class File:
    """One file of a set; digests are `sha256:` or `md5:` and hex digits.

    The digest of the content is None where only the archive's is published, which is read then.
    That of the archive is None where the content's is enough.
    """

    name: str  # as it is extracted, with the folder that it is extracted into
    archive: str  # the file that is downloaded, in which it lies
    digest: str | None
    archive_digest: str | None = None
    size: int = _MOST  # bytes of what has the digest; `_MOST` where it is not published
    urls: tuple[str, ...] = ()  # of the archive


@dataclass(frozen=True)
class KnownSet:
    """A public set."""

    title: str  # as its authors write it, with the subset
    files: tuple[File, ...]  # all that are read
    folder: str  # where torchvision puts them, below a root
    # From the contents of the files to the parts, and the name of each label.
    read: Callable[[Sequence[bytes]], tuple[Parts, Sequence[str]]]


# A path with its size in bytes and its time of change in ns: a file replaced since is another file.
FoundFile = tuple[Path, int, int]


_IDX_NAMES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)

#: SHA-256 of the contents of the files above.
_SHA256 = {
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_IDX_SIZES = (47_040_016, 60_008, 7_840_016, 10_008)

#: Of all images and labels of Fashion-MNIST, as the records of runs have it.
OFFICIAL_SHA256 = combined(_SHA256["fashion_mnist"])

#: Sets whose files have the same names and sizes.
_TITLES = {TITLES[name]: digests for name, digests in _SHA256.items()}

_DIGITS = tuple("0123456789")


def known_set(name: str, subset: str | None = None) -> KnownSet:
    """The files of a set, and how they are read.

    Args:
        name: An option of `data`.
        subset: Of EMNIST: byclass, bymerge, balanced, letters, digits or mnist. Of QMNIST: None for
            all 60,000 test images, or test10k for the first 10,000, which are MNIST's.

    Raises:
        ConfigError: There is no such subset.
    """
    if name in _SHA256:
        return _of_mnist(name)
    from torchvision import datasets

    # The class that names the addresses and digests of a set.
    return _BUILDERS[name](TITLES[name], getattr(datasets, name.upper()), subset)


#: The options of `data` that are read here.
NAMES = tuple(TITLES)


def _of_mnist(name: str) -> KnownSet:
    title, classes = TITLES[name], synthetic.CLASSES if name == "fashion_mnist" else _DIGITS
    files = tuple(
        File(file, f"{file}.gz", f"sha256:{digest}", size=size)
        for file, digest, size in zip(_IDX_NAMES, _SHA256[name], _IDX_SIZES, strict=True)
    )
    folder = f"{title.replace('-', '')}/raw"
    return KnownSet(title, files, folder, lambda found: (_of_idx(found), classes))


def _kmnist(title: str, published: Any, _subset: str | None) -> KnownSet:
    files = tuple(
        File(_stem(file), file, None, f"md5:{md5}", urls=tuple(url + file for url in mirrors))
        for mirrors in [published.mirrors]
        for file, md5 in published.resources
    )
    return KnownSet(title, files, "KMNIST/raw", lambda found: (_of_idx(found), published.classes))


def _qmnist(title: str, published: Any, subset: str | None) -> KnownSet:
    if subset not in (None, "test10k"):
        raise ConfigError(f"data.subset={subset}: QMNIST has null (all test images) and test10k")
    files = tuple(
        File(_stem(url), f"{_stem(url)}.gz", None, f"md5:{md5}", urls=(url,))
        for part in ("train", "test")
        for url, md5 in published.resources[part]
    )

    def read(contents: Sequence[bytes]) -> tuple[Parts, Sequence[str]]:
        parts = _of_idx(contents)
        end = None if subset is None else 10_000
        parts["test"] = parts["test"][0][:end], parts["test"][1][:end]
        return parts, _DIGITS

    return KnownSet(title, files, "QMNIST/raw", read)


def _emnist(title: str, published: Any, subset: str | None) -> KnownSet:
    if subset not in published.splits:
        raise ConfigError(f"data.subset={subset}: EMNIST has {', '.join(published.splits)}")
    files = tuple(
        File(
            f"gzip/emnist-{subset}-{part}-{kind}-ubyte.gz",
            "gzip.zip",
            None,
            f"md5:{published.md5}",
            urls=(published.url,),
        )
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    )

    def read(contents: Sequence[bytes]) -> tuple[Parts, Sequence[str]]:
        # The images lie on their side, mirrored; the labels of the letters begin with 1.
        inflated = [_inflate(content, _MOST) for content in contents]
        parts = {
            part: (images.swapaxes(1, 2), labels - np.uint8(subset == "letters"))
            for part, (images, labels) in _of_idx(inflated).items()
        }
        return parts, [name for name in published.classes_split_dict[subset] if name != "N/A"]

    return KnownSet(f"{title} {subset}", files, "EMNIST/raw", read)


def _cifar(title: str, published: Any, _subset: str | None) -> KnownSet:
    folder, meta, batches = published.base_folder, published.meta, len(published.train_list)
    files = tuple(
        File(
            *(f"{folder}/{batch}", published.filename, f"md5:{md5}", f"md5:{published.tgz_md5}"),
            urls=(published.url,),
        )
        for batch, md5 in [
            *published.train_list,
            *published.test_list,
            (meta["filename"], meta["md5"]),
        ]
    )

    def read(contents: Sequence[bytes]) -> tuple[Parts, Sequence[str]]:
        # Their digests were compared with the published ones.
        *found, names = (pickle.loads(text, encoding="latin1") for text in contents)  # noqa: S301
        parts = {"train": _of_batches(found[:batches]), "test": _of_batches(found[batches:])}
        return parts, names[meta["key"]]

    return KnownSet(title, files, "", read)


def _of_batches(batches: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    key = "labels" if "labels" in batches[0] else "fine_labels"
    images = np.concatenate([batch["data"] for batch in batches])
    return images.reshape(-1, 3, 32, 32), np.concatenate([batch[key] for batch in batches])


def _svhn(title: str, published: Any, _subset: str | None) -> KnownSet:
    listed = [published.split_list[part] for part in ("train", "test")]
    files = tuple(File(file, file, f"md5:{md5}", urls=(url,)) for url, file, md5 in listed)
    return KnownSet(title, files, "SVHN", _read_svhn)


def _read_svhn(contents: Sequence[bytes]) -> tuple[Parts, Sequence[str]]:
    from scipy.io import loadmat

    found = [loadmat(io.BytesIO(content)) for content in contents]
    # Images are (H, W, C, N); the label of the digit 0 is 10.
    parts = [
        (part["X"].transpose(3, 2, 0, 1), part["y"].ravel().astype(int) % 10) for part in found
    ]
    return {"train": parts[0], "test": parts[1]}, _DIGITS


def _of_idx(contents: Sequence[bytes]) -> Parts:
    arrays = [read_idx(content) for content in contents]
    # The labels of QMNIST are a table, whose first column is the class.
    images, labels = arrays[::2], [a[:, 0] if a.ndim == 2 else a for a in arrays[1::2]]
    return {"train": (images[0], labels[0]), "test": (images[1], labels[1])}


#: What makes each set of what torchvision publishes of it.
_BUILDERS: Mapping[str, Callable[[str, Any, str | None], KnownSet]] = {
    "kmnist": _kmnist,
    "qmnist": _qmnist,
    "emnist": _emnist,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "svhn": _svhn,
}


# Finding and verifying


class _MissingError(Exception):
    """Files of a set that no folder has, and what was found in their place, with the reason."""

    def __init__(self, files: list[File], rejected: list[str]) -> None:
        super().__init__(", ".join(file.archive for file in files))
        self.files, self.rejected = files, rejected


def load(config: Mapping[str, Any], base: Path = Path()) -> Dataset:
    """Load a known set; again in the same process it costs a look at the file system.

    Args:
        config: The `data` group: `root`, a folder, where null means FMBENCH_DATA, else `data`;
            `download`, whether missing files may be fetched; of Fashion-MNIST `mirrors`, base URLs;
            of EMNIST and QMNIST `subset`.
        base: The folder that relative paths start from.

    Returns:
        The data set, verified. The files are looked for in each root, in its folder of the set's
        name, and where torchvision puts them; files of another set that are called the same are
        passed over.

    Raises:
        ConfigError: A value of the group is not allowed.
        DataError: A file is missing and cannot be fetched, or is not the official one.
        StorageError: A file that was fetched cannot be written.
    """
    name, subset = config["name"], config.get("subset")
    known = known_set(name, subset)
    variable = os.environ.get(VARIABLE)
    roots = [folder(base, root) for root in (config["root"], variable) if root]
    roots = roots or [folder(base, "data")]
    inner = ("", name, name.replace("_", "-"), known.folder)
    folders = list(dict.fromkeys(root / folder for root in roots for folder in inner))
    try:
        try:
            return _read(name, subset, _find(known, folders))
        except _MissingError as missing:
            mirrors = config.get("mirrors", ())
            _download(known, missing, folders[:4], mirrors if config["download"] else None)
            try:
                return _read(name, subset, _find(known, folders))
            except _MissingError as wrong:  # it lies where it would have been downloaded to
                raise DataError(_advice(wrong)) from wrong
    except UserError as error:
        # The value of a variable is in no record, nor in a log that lies beside it.
        if not variable:
            raise
        hidden = str(folder(base, variable))
        raise type(error)(str(error).replace(hidden, f"${VARIABLE}")) from None


def folder(base: Path, root: str) -> Path:
    """A folder that a config names, relative to `base`; `~` is the user's home.

    Raises:
        ConfigError: There is no such user.
    """
    try:
        return (base / Path(root).expanduser()).absolute()
    except RuntimeError as error:
        raise ConfigError(f"data.root={root}: no such user; allowed is any folder") from error


def _find(known: KnownSet, folders: Sequence[Path]) -> tuple[tuple[FoundFile, ...], ...]:
    """All that may be each file of a set: extracted, or the archive that holds it."""
    found = []
    for file in known.files:
        # The extracted file goes first: it reads three times as fast.
        names = [file.name] * (file.digest is not None) + [file.archive]
        candidates = []
        for path in dict.fromkeys(folder / name for name in names for folder in folders):
            try:
                if path.is_file():
                    status = path.stat()
                    candidates.append((path, status.st_size, status.st_mtime_ns))
            except OSError as error:
                raise DataError(f"data.root={folders[0]}: cannot be searched ({error})") from error
        found.append(tuple(candidates))
    return tuple(found)


@lru_cache(maxsize=3)
def _read(name: str, subset: str | None, found: tuple[tuple[FoundFile, ...], ...]) -> Dataset:
    known = known_set(name, subset)
    opened: dict[Path, Callable[[str], bytes]] = {}
    contents, missing, rejected = [], [], []
    for file, candidates in zip(known.files, found, strict=True):
        for path, _, _ in candidates:
            try:
                contents.append(_content(file, path, opened))
                break
            except DataError as error:
                rejected.append(f"{path}: not the official file of {known.title}, {error}")
        else:
            missing.append(file)
    if missing:
        raise _MissingError(missing, rejected)
    try:
        parts, classes = known.read(contents)
    except DataError as error:
        raise DataError(f"{known.title}: {error}") from error
    digests = _SHA256.get(name)
    return joined(name, classes, parts, combined(digests) if digests else None)


def _content(file: File, path: Path, opened: dict[Path, Callable[[str], bytes]]) -> bytes:
    """The verified content of a file, extracted or out of its archive; errors lack the path."""
    if path.name != file.archive or file.name == file.archive:
        return _verified(_bytes(path, file.size), file.digest, file.size)
    if file.archive_digest is None:
        return _verified(_inflate(_bytes(path), file.size), file.digest, file.size)
    if path not in opened:
        opened[path] = _members(_verified(_bytes(path), file.archive_digest), file.archive)
    try:
        return opened[path](file.name)
    except KeyError as error:
        raise DataError(f"it holds no {file.name}") from error


def _bytes(path: Path, most: int = _MOST) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(most + 1)  # no more of a wrong file than shows that it is
    except OSError as error:
        raise DataError(f"it cannot be read ({error})") from error


def _verified(data: bytes, digest: str | None, size: int = _MOST) -> bytes:
    """The data, if they have the published digest, and the published size, where there is one."""
    if len(data) > size or (size < _MOST and len(data) < size):
        found = f"more than {size:,}" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{found} bytes where {size:,} are expected")
    algorithm, _, expected = str(digest).partition(":")
    found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if found != expected:
        other = next((title for title, known in _TITLES.items() if found in known), None)
        name = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
        what = f": it is {other}'s" if other else ""
        raise DataError(f"{name} {found} where {expected} is expected{what}")
    return data


def _inflate(archive: bytes, limit: int) -> bytes:
    """Inflate a gzip file, to `limit` + 1 bytes at most; a DataError where it is damaged."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as file:
            return file.read(limit + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"a damaged archive ({error})") from error


def _members(archive: bytes, name: str) -> Callable[[str], bytes]:
    """What gives the content of each file in a verified archive."""
    if name.endswith(".zip"):
        return zipfile.ZipFile(io.BytesIO(archive)).read
    if name.endswith(".tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            streams = ((member.name, tar.extractfile(member)) for member in tar)
            return {name: stream.read() for name, stream in streams if stream}.__getitem__
    return lambda _: _inflate(archive, _MOST)


# Downloading


def _download(
    known: KnownSet, missing: _MissingError, folders: Sequence[Path], mirrors: Sequence[str] | None
) -> None:
    """Fetch what is missing into the folder of the set's name, the second of the folders.

    The first is the root. Mirrors are base URLs of a set that has no addresses of its own; None:
    nothing may be fetched.
    """
    reason = "data.download is false" if mirrors is None else "data.mirrors is empty"
    order = list(mirrors or ())
    unfit = [url for url in order if not url.lower().startswith(("http:", "https:", "file:"))]
    if unfit:
        raise ConfigError(f"data.mirrors: {unfit[0]} is not allowed; http, https and file URLs are")
    archives = {file.archive: file for file in missing.files}
    for name, file in list(archives.items()):
        target = folders[1] / name
        urls = [f"{mirror.rstrip('/')}/{name}" for mirror in order] or list(file.urls)
        if target.exists():
            del archives[name]
            continue
        for url in urls if mirrors is not None else ():
            try:
                archive = _fetch(url, file)
            except DataError as error:
                reason = str(error)
                continue
            _store(archive, target)
            del archives[name]
            if order:  # the one that answered is asked first from now on
                order.insert(0, order.pop(urls.index(url)))
            break
        if name in archives:
            break
    if not archives:
        return
    if missing.rejected:
        raise DataError(_advice(missing))
    raise DataError(
        f"{known.title}: missing {', '.join(archives)}; put them into {folders[0]} or "
        f"{folders[-1]}, or take data=synthetic ({reason})"
    )


def _advice(missing: _MissingError) -> str:
    return (
        f"{missing.rejected[0]}; let data.root (or {VARIABLE}) name another folder, into which it "
        "is downloaded"
    )


def _fetch(url: str, file: File) -> bytes:
    """Returns the archive behind a URL, verified; DataError says why there is none."""
    longest = _LONGEST * math.ceil(file.size / 50_000_000)
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_ask(url, file.size + 1000))  # an archive is hardly ever larger
        except Exception as error:  # noqa: BLE001 - raised again below
            answers.put(error)

    # A server that sends a byte now and then is never late for the next one, in the headings
    # neither. So it is waited for in a thread, which the end of the program does not wait for.
    threading.Thread(target=ask, daemon=True).start()
    try:
        archive = answers.get(timeout=longest)
    except Empty:
        raise DataError(f"{url}: too slow, not here after {longest} s") from None
    if isinstance(archive, (OSError, http.client.HTTPException, ValueError)):
        reason = " ".join(str(archive).strip("<>").split()) or type(archive).__name__
        raise DataError(f"{url}: {reason}") from archive
    if isinstance(archive, Exception):
        raise archive
    try:
        if file.archive_digest is not None:
            return _verified(archive, file.archive_digest)
        content = archive if file.name == file.archive else _inflate(archive, file.size)
        _verified(content, file.digest, file.size)
    except DataError as error:
        raise DataError(f"{url}: {error}") from error
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


def _stem(path: str) -> str:
    """`train-images-idx3-ubyte` of an address of `train-images-idx3-ubyte.gz`."""
    return path.rpartition("/")[2].removesuffix(".gz")
