"""Public sets are found, fetched and verified, or refused in one line; the synthetic is drawn."""

import contextlib
import gzip
import hashlib
import http.server
import logging
import os
import shutil
import struct
import threading
import time

import numpy as np
import pytest

from fmbench.core.errors import ConfigError, DataError, StorageError
from fmbench.data import known, synthetic
from fmbench.data.load import load

DEAD = "http://127.0.0.1:9/"  # the discard port: nothing listens, the refusal comes at once
FIRST, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _empty_cache():
    known._read.cache_clear()
    synthetic._load.cache_clear()


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A folder with a small release in place of the official one: 20 and 10 random images."""
    folder = tmp_path / "release"
    folder.mkdir()
    rng = np.random.default_rng(0)
    digests, lengths = [], []
    for prefix, count in (("train", 20), ("t10k", 10)):
        pixels = rng.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        labels = bytes(np.arange(count, dtype=np.uint8) % 10)
        for name, content in (
            (f"{prefix}-images-idx3-ubyte", struct.pack(">4I", 0x803, count, 28, 28) + pixels),
            (f"{prefix}-labels-idx1-ubyte", struct.pack(">2I", 0x801, count) + labels),
        ):
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            digests.append(sha256(content))
            lengths.append(len(content))
    monkeypatch.setitem(known._SHA256, "fashion_mnist", tuple(digests))
    monkeypatch.setattr(known, "_IDX_SIZES", tuple(lengths))
    monkeypatch.delenv("FMBENCH_DATA", raising=False)
    return folder


def config(root, mirrors=(), download=True):
    return {
        "name": "fashion_mnist",
        "root": str(root),
        "mirrors": list(mirrors),
        "download": download,
        "mean": 0.286,
        "std": 0.353,
        "split": {"name": "standard", "validation": None, "seed": 0},
    }


def drawn(**changes):
    return {"name": "synthetic", "train_size": 50, "test_size": 20, "seed": 0} | changes


def refused(settings, error=DataError):
    with pytest.raises(error) as caught:
        load(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def extract(folder, into):
    into.mkdir(parents=True, exist_ok=True)
    for archive in folder.glob("*.gz"):
        (into / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Reading


def test_reads_the_four_files_into_their_places(release):
    dataset = load(config(release, download=False))
    assert dataset.name == "fashion_mnist"
    assert dataset.classes[0] == "T-shirt/top"
    assert dataset.classes[9] == "Ankle boot"
    (images, labels), (test_images, test_labels) = map(dataset.part, ("train", "test"))
    assert images.shape == (20, 1, 28, 28)
    assert test_images.shape == (10, 1, 28, 28)
    np.testing.assert_array_equal(labels, np.arange(20) % 10)
    np.testing.assert_array_equal(test_labels, np.arange(10))
    pixels = gzip.decompress((release / f"{FIRST}.gz").read_bytes())[16:]
    assert images.tobytes() == pixels


@pytest.mark.parametrize("which", ["real", "synthetic"])
def test_arrays_are_read_only(release, which):
    dataset = load(config(release) if which == "real" else drawn())
    for name in ("images", "labels"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(dataset, name)[0] = 1


def test_archives_extracted_files_and_both_folders_are_the_same_data_set(release, tmp_path):
    expected = load(config(release))
    extract(release, tmp_path / "extracted")
    shutil.copytree(release, tmp_path / "torchvision" / "FashionMNIST" / "raw")
    extract(release, tmp_path / "both" / "FashionMNIST" / "raw")
    shutil.copytree(release, tmp_path / "both", dirs_exist_ok=True)
    for root in ("extracted", "torchvision", "both"):
        dataset = load(config(tmp_path / root, download=False))
        assert dataset.sha256 == expected.sha256
        np.testing.assert_array_equal(dataset.images, expected.images)


def test_root_may_start_with_a_tilde(release, monkeypatch):
    monkeypatch.setenv("HOME", str(release.parent))
    assert load(config("~/release", download=False)).train == 20
    assert "no such user" in refused(config("~nobody-of-that-name/x"), ConfigError)


def test_without_a_root_the_variable_says_where_else_it_is_data(release, tmp_path, monkeypatch):
    given = config("", download=False) | {"root": None}
    monkeypatch.setenv("FMBENCH_DATA", str(release))
    assert load(given).train == 20
    monkeypatch.setenv("FMBENCH_DATA", "release")
    assert load(given, tmp_path).train == 20
    assert "put them into $FMBENCH_DATA or $FMBENCH_DATA/" in refused(given)
    monkeypatch.setenv("FMBENCH_DATA", "")
    release.rename(tmp_path / "data")
    assert load(given, tmp_path).train == 20


def test_second_load_is_the_same_object_at_once(release):
    first = load(config(release))
    start = time.perf_counter()
    assert load(config(release)) is first
    assert time.perf_counter() - start < 0.05


def test_file_damaged_after_the_first_load_is_noticed(release):
    load(config(release))
    path = release / f"{LABELS}.gz"
    archive = bytearray(path.read_bytes())
    archive[-1] ^= 1
    path.write_bytes(archive)
    os.utime(path, ns=(1, 1))
    refused(config(release))


def flip_a_bit(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("stored", ["archive", "extracted"])
@pytest.mark.parametrize(("damage", "said"), [
    (flip_a_bit, "SHA-256 "),
    (lambda content: content[:-1], " bytes where "),
    (lambda content: content + b"\1", "more than "),
    (lambda content: b"<!DOCTYPE html>\n<html></html>", "29 bytes where "),
    (lambda content: b"", "0 bytes where "),
])  # fmt: skip
def test_wrong_file_is_named_and_left_alone(release, tmp_path, stored, damage, said):
    root = release
    if stored == "extracted":
        root = tmp_path / "extracted"
        extract(release, root)
    wrong = next(root.glob("t10k-images*"))
    content = damage(wrong.read_bytes())
    wrong.write_bytes(content)
    message = refused(config(root, download=False))
    assert message.startswith(f"{wrong}: not the official file of Fashion-MNIST, ")
    assert said in message or (stored == "archive" and "a damaged archive" in message)
    assert "let data.root (or FMBENCH_DATA) name another folder" in message
    assert wrong.read_bytes() == content


def test_files_of_another_set_are_passed_over(release, tmp_path):
    root = tmp_path / "mnist"
    root.mkdir()
    (root / f"{LABELS}.gz").write_bytes(b"another set's")
    assert load(config(root, [release.as_uri()])).train == 20
    assert names(root) == ["fashion_mnist", f"{LABELS}.gz"]
    assert names(root / "fashion_mnist") == names(release)


def test_nothing_is_written_over_a_file(release, tmp_path):
    there = tmp_path / "root" / "fashion_mnist" / f"{LABELS}.gz"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"somebody's")
    said = refused(config(tmp_path / "root", [release.as_uri()]))
    assert said.startswith(f"{there}: not the official file of Fashion-MNIST, a damaged archive")
    assert there.read_bytes() == b"somebody's"


@pytest.mark.parametrize("stored", ["archive", "extracted"])
def test_files_of_mnist_are_called_so(release, monkeypatch, stored):
    """They have the names and the format of Fashion-MNIST's."""
    path = next(release.glob("t10k-images*"))
    content = flip_a_bit(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(content))
    if stored == "extracted":
        path = path.rename(path.with_suffix(""))
        path.write_bytes(content)
    monkeypatch.setitem(known._TITLES, "MNIST", (sha256(content),))
    before = path.read_bytes()
    assert "it is MNIST's" in refused(config(release, download=False))
    assert path.read_bytes() == before


def test_an_archive_is_inflated_to_a_byte_beyond_the_size_expected():
    bomb = gzip.compress(bytes(1_000_000))
    assert known._inflate(bomb, 100) == bytes(101)
    trailer = bytearray(gzip.compress(b"x" * 50))
    trailer[-8] ^= 1
    for wrong in (b"<html>", bomb[:-9], bytes(trailer)):
        with pytest.raises(DataError, match="a damaged archive"):
            known._inflate(wrong, 2_000_000)


def idx(dtype, values, code):
    """An IDX file of an array."""
    header = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(dtype).tobytes()


IMAGES = idx("u1", np.arange(24).reshape(2, 3, 4), 8)


@pytest.mark.parametrize(
    ("dtype", "code"), [("u1", 8), ("i1", 9), (">i2", 11), (">i4", 12), (">f4", 13), (">f8", 14)]
)
def test_idx_of_every_type_and_shape(dtype, code):
    for values in (np.arange(24).reshape(2, 3, 4), np.arange(5), np.zeros((0, 28, 28))):
        found = known.read_idx(idx(dtype, values, code))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, values)
        assert not found.flags.writeable


@pytest.mark.parametrize(("content", "said"), [
    (b"", "not an IDX file"),
    (b"<!DOCTYPE html>", "not an IDX file"),
    (IMAGES[:7], "not an IDX file"),
    (b"\0\0\x0a" + IMAGES[3:], "not an IDX file"),
    (b"\0\0\x08\x46" + struct.pack(">70I", *[1] * 70) + b"x", "not an IDX file"),
    (IMAGES[:-1], "39 bytes; 40 expected"),
    (IMAGES + b"\0", "41 bytes; 40 expected"),
    (struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "16 bytes; "),
])  # fmt: skip
def test_what_is_no_idx_file_is_refused(content, said):
    with pytest.raises(DataError) as caught:
        known.read_idx(content)
    assert str(caught.value).startswith(said)


def test_unreadable_file_or_folder_is_one_line(release, monkeypatch):
    def deny(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(known.Path, "open", deny)
        assert "cannot be read" in refused(config(release))
    monkeypatch.setattr(known.Path, "is_file", deny)
    assert "cannot be searched" in refused(config(release))


# Downloading


def test_downloads_into_a_new_root_and_says_so(release, tmp_path, caplog):
    root = tmp_path / "new" / "folder"
    with caplog.at_level(logging.INFO, logger="fmbench.data.known"):
        dataset = load(config(root, [release.as_uri() + "/"]))
    assert dataset.train == 20
    assert names(root / "fashion_mnist") == names(release)
    assert len(caplog.messages) == 4
    assert caplog.messages[0] == f"downloading {release.as_uri()}/{FIRST}.gz"


def test_downloads_only_what_is_missing(release, tmp_path):
    root = tmp_path / "root"
    extract(release, root)
    (root / LABELS).unlink()
    load(config(root, [release.as_uri()]))
    assert names(root / "fashion_mnist") == [f"{LABELS}.gz"]


def test_next_mirror_serves_where_the_first_is_dead_empty_or_wrong(release, tmp_path, caplog):
    wrong, empty = tmp_path / "wrong", tmp_path / "empty"
    shutil.copytree(release, wrong)
    for path in wrong.iterdir():
        path.write_bytes(flip_a_bit(path.read_bytes()))
    empty.mkdir()
    mirrors = [DEAD, empty.as_uri(), wrong.as_uri(), release.as_uri()]
    with caplog.at_level(logging.INFO, logger="fmbench.data.known"):
        load(config(tmp_path / "root", mirrors))
    assert names(tmp_path / "root" / "fashion_mnist") == names(release)
    # Only who answers is named; the mirror that had the right file is asked first from then on.
    assert len(caplog.messages) == 1 + 4


@pytest.mark.parametrize("mirror", ["dead", "damaged", "page"])
def test_nothing_is_left_behind_where_nothing_can_be_had(release, tmp_path, mirror):
    root, mirrors = tmp_path / "absent", [DEAD]
    if mirror != "dead":
        for path in release.iterdir():
            archive = path.read_bytes()
            changed = {"damaged": flip_a_bit(archive), "page": b"<html>"}
            path.write_bytes(changed[mirror])
        mirrors = [release.as_uri()]
    message = refused(config(root, mirrors))
    for file in known.known_set("fashion_mnist").files:
        assert file.archive in message
    assert f"put them into {root} or {root / 'FashionMNIST' / 'raw'}" in message
    assert "data=synthetic" in message
    assert mirrors[0].rstrip("/") in message
    assert not root.exists()


def test_message_names_only_what_is_still_missing(release, tmp_path):
    (release / "t10k-images-idx3-ubyte.gz").unlink()
    message = refused(config(tmp_path / "root", [release.as_uri()]))
    assert "missing t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz;" in message
    assert names(tmp_path / "root" / "fashion_mnist") == [f"{FIRST}.gz", f"{LABELS}.gz"]


def test_message_says_why_nothing_was_tried(release, tmp_path):
    off = config(tmp_path / "none", [release.as_uri()], download=False)
    assert "data.download is false" in refused(off)
    assert "data.mirrors is empty" in refused(config(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "data:,x", "/some/folder", "C:\\mirror"])
def test_other_schemes_are_refused_before_any_request(release, tmp_path, url):
    message = refused(config(tmp_path / "root", [release.as_uri(), url]), ConfigError)
    assert url in message
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "url", ["http://[", "http://127.0.0.1:port", "file://", "http:", "http://"]
)
def test_malformed_mirror_is_one_failure_among_others(release, tmp_path, url):
    assert "data=synthetic" in refused(config(tmp_path / "root", [url]))
    load(config(tmp_path / "root", [url, release.as_uri()]))


@pytest.mark.parametrize(
    "interruption", [OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_interrupted_write_leaves_no_temporary_file(release, tmp_path, monkeypatch, interruption):
    def interrupt(descriptor):
        raise interruption

    monkeypatch.setattr(os, "fsync", interrupt)
    expected = StorageError if isinstance(interruption, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        load(config(tmp_path / "root", [release.as_uri()]))
    assert names(tmp_path / "root" / "fashion_mnist") == []


def test_root_that_is_a_file_is_one_line(release, tmp_path):
    (tmp_path / "root").write_text("not a folder")
    assert "cannot be written" in refused(
        config(tmp_path / "root", [release.as_uri()]), StorageError
    )


def test_file_is_complete_and_on_disk_before_it_gets_its_name(release, tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, known.Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("sync"), fsync(number)))

    def rename(path, target):
        steps.append("rename")
        assert path.parent == target.parent
        assert path.read_bytes() == (release / target.name).read_bytes()
        assert not target.exists()
        return replace(path, target)

    monkeypatch.setattr(known.Path, "replace", rename)
    load(config(tmp_path / "root", [release.as_uri()]))
    assert steps == ["sync", "rename", "sync"] * 4  # of the file, and of the folder's names


def test_many_download_at_once(release, tmp_path):
    start = threading.Barrier(6)
    digests = []

    def download():
        start.wait()
        digests.append(load(config(tmp_path / "root", [release.as_uri()])).sha256)

    threads = [threading.Thread(target=download) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 6
    assert len(set(digests)) == 1
    assert names(tmp_path / "root" / "fashion_mnist") == names(release)


@pytest.fixture
def server(release):
    """A web server: /good has the release, /endless never ends, the rest is 404.

    /slow and /slowly send a byte now and then, of the file or of a heading.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            folder, name = self.path.strip("/").split("/")
            if folder not in ("good", "endless", "short", "slow", "slowly"):
                self.send_error(404)
                return
            self.send_response(200)
            if folder.startswith("slow"):
                if folder == "slow":
                    self.end_headers()
                else:
                    self.flush_headers()
                with contextlib.suppress(ConnectionError):
                    while not over.wait(0.01):
                        self.wfile.write(b"x")
                return
            archive = (release / name).read_bytes()
            if folder == "short":
                self.send_header("Content-Length", str(len(archive)))
                archive = archive[:-5]
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(archive)
                while folder == "endless":
                    self.wfile.write(b"x" * 65_536)

        def log_message(self, *arguments):
            pass

    over = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        over.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("folder", ["slow", "slowly"])
def test_mirror_that_sends_a_byte_now_and_then_is_given_up(
    server, release, tmp_path, monkeypatch, folder
):
    monkeypatch.setattr(known, "_LONGEST", 0.2)
    message = refused(config(tmp_path / "root", [f"{server}/{folder}"]))
    assert f"({server}/{folder}/{FIRST}.gz: too slow, not here after 0.2 s)" in message
    load(config(tmp_path / "root", [f"{server}/{folder}", f"{server}/good"]))
    assert names(tmp_path / "root" / "fashion_mnist") == names(release)


def test_downloads_over_http(server, release, tmp_path):
    load(config(tmp_path / "root", [f"{server}/absent", f"{server}/good"]))
    assert names(tmp_path / "root" / "fashion_mnist") == names(release)


@pytest.mark.parametrize(
    ("folder", "said"), [("absent", "404"), ("endless", "a damaged archive"), ("short", "")]
)
def test_mirror_that_errs_never_ends_or_hangs_up(server, tmp_path, folder, said):
    message = refused(config(tmp_path / "root", [f"{server}/{folder}"]))
    assert f"({server}/{folder}/{FIRST}.gz: " in message
    assert said in message.partition(f"/{folder}/")[2]
    assert not (tmp_path / "root").exists()


# Names, the twin, the real thing


def test_unknown_name_lists_what_is_allowed():
    assert "fashion_mnist, mnist," in refused({"name": "minst"}, ConfigError)


def test_synthetic_set_has_the_sizes_asked_for_and_is_cached():
    dataset = load(drawn())
    assert dataset.name == "synthetic"
    assert dataset.part("train")[0].shape == (50, 1, 28, 28)
    assert dataset.part("test")[1].shape == (20,)
    assert load(drawn()) is dataset
    for seed in range(1, 5):  # a few are kept
        load(drawn(seed=seed))
    assert load(drawn()) is not dataset


def test_sha256_tells_sets_apart():
    changes = ({}, {"seed": 1}, {"train_size": 60}, {"test_size": 30})
    digests = {load(drawn(**change)).sha256 for change in changes}
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)


@pytest.mark.real_data
def test_the_official_release(fashion_mnist_root):
    dataset = load(config(fashion_mnist_root, download=False))
    assert dataset.images.shape == (70_000, 1, 28, 28)
    (images, labels), (_, test_labels) = map(dataset.part, ("train", "test"))
    assert np.bincount(labels).tolist() == [6_000] * 10
    assert np.bincount(test_labels).tolist() == [1_000] * 10
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert images.std() / 255 == pytest.approx(0.3530, abs=5e-5)
    assert dataset.sha256 == known.OFFICIAL_SHA256
    # docs/results.md says so.
    assert len({image.tobytes() for image in dataset.images}) == 70_000
    assert dataset.duplicates == 0


@pytest.mark.slow
@pytest.mark.real_data
def test_near_copies_in_the_official_release(fashion_mnist_root):
    """What docs/results.md says of test images that are nearly images of the training set."""
    dataset = load(config(fashion_mnist_root, download=False))
    (images, labels), (test_images, test_labels) = map(dataset.part, ("train", "test"))
    train, test = (some.reshape(-1, 784).astype(np.float32) for some in (images, test_images))
    copies = set()
    for start in range(0, 10_000, 500):
        some = test[start : start + 500]
        squares = (some**2).sum(1)[:, None] + (train**2).sum(1) - 2 * some @ train.T
        seen, like = np.nonzero(squares < 784 * 5**2)
        assert (test_labels[start + seen] == labels[like]).all()
        copies |= set((start + seen).tolist())
    assert copies == {2115, 2605, 4926, 4998, 6210, 9867}
