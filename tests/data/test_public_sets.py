"""The sets that torchvision knows, on small files in their formats; their digests are replaced."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from fmbench.core.errors import ConfigError, DataError
from fmbench.data import known
from fmbench.data.load import load


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    known._read.cache_clear()
    monkeypatch.delenv("FMBENCH_DATA", raising=False)


def config(name, root, **changes):
    return {"name": name, "root": str(root), "download": False, **changes}


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(values, kind=8):
    header = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


def some(count, shape=(28, 28), classes=10):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, *shape), np.uint8), (np.arange(count) % classes)


def placed(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return md5(content)


@pytest.mark.parametrize("where", ["", "kmnist", "KMNIST/raw"])
def test_kmnist(tmp_path, monkeypatch, where):
    listed = []
    for part, count in (("train", 20), ("t10k", 10)):
        images, labels = some(count)
        for name, values in (
            (f"{part}-images-idx3-ubyte.gz", images),
            (f"{part}-labels-idx1-ubyte.gz", labels.astype(np.uint8)),
        ):
            content = gzip.compress(idx(values))
            listed.append((name, placed(tmp_path / where, name, content)))
    monkeypatch.setattr(datasets.KMNIST, "resources", listed)
    dataset = load(config("kmnist", tmp_path))
    assert dataset.classes[:2] == ("o", "ki")
    assert np.array_equal(dataset.part("train")[0][:, 0], some(20)[0])
    assert np.array_equal(dataset.part("test")[1], some(10)[1])


@pytest.mark.parametrize(("subset", "test"), [(None, 12_000), ("test10k", 10_000)])
def test_qmnist(tmp_path, monkeypatch, subset, test):
    listed = {}
    for part, count in (("train", 20), ("test", 12_000)):
        images, labels = some(count, (2, 2))
        table = np.zeros((count, 8), dtype=">i4")
        table[:, 0], table[:, 1] = labels, 7
        pairs = []
        for what, content in (
            ("images-idx3-ubyte", idx(images)),
            ("labels-idx2-int", idx(table, 12)),
        ):
            name = f"qmnist-{part}-{what}.gz"
            pairs.append((f"https://x/{name}", placed(tmp_path, name, gzip.compress(content))))
        listed[part] = pairs
    monkeypatch.setattr(datasets.QMNIST, "resources", listed)
    dataset = load(config("qmnist", tmp_path, subset=subset))
    assert (dataset.train, len(dataset.part("test")[1])) == (20, test)
    assert np.array_equal(dataset.part("test")[1], some(12_000, (2, 2))[1][:test])


@pytest.mark.parametrize(("subset", "classes", "first"), [("balanced", 47, 0), ("letters", 26, 1)])
def test_emnist_is_upright_and_letters_begin_with_0(tmp_path, monkeypatch, subset, classes, first):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for part, count in (("train", 2 * classes), ("test", classes)):
            images, labels = some(count, classes=classes)
            for what, values in (("images-idx3", images), ("labels-idx1", labels + first)):
                name = f"gzip/emnist-{subset}-{part}-{what}-ubyte.gz"
                archive.writestr(name, gzip.compress(idx(values.astype(np.uint8))))
    digest = placed(tmp_path / "EMNIST" / "raw", "gzip.zip", content.getvalue())
    monkeypatch.setattr(datasets.EMNIST, "md5", digest)
    dataset = load(config("emnist", tmp_path, subset=subset))
    assert len(dataset.classes) == classes
    images, labels = some(2 * classes, classes=classes)
    assert np.array_equal(dataset.part("train")[0][:, 0], images.swapaxes(1, 2))
    assert np.array_equal(dataset.part("train")[1], labels)
    with pytest.raises(ConfigError, match="EMNIST has byclass, bymerge"):
        load(config("emnist", tmp_path, subset="other"))


@pytest.fixture(params=["archive", "extracted"])
def cifar(request, tmp_path, monkeypatch):
    """CIFAR-10 of five batches of ten images; returns its folder."""
    folder = datasets.CIFAR10.base_folder
    files = {}
    for number in range(6):
        images, labels = some(10 + (number == 5), (3, 32, 32))
        name = "test_batch" if number == 5 else f"data_batch_{number + 1}"
        batch = {"data": images.reshape(len(images), -1), "labels": labels.tolist()}
        files[name] = pickle.dumps(batch)
    files["batches.meta"] = pickle.dumps({"label_names": [f"c{n}" for n in range(10)]})
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    if request.param == "archive":
        placed(tmp_path, datasets.CIFAR10.filename, content.getvalue())
    else:
        for name, text in files.items():
            placed(tmp_path / folder, name, text)
    digests = {name: md5(text) for name, text in files.items()}
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(content.getvalue()))
    batches = [[name, digests[name]] for name in sorted(files) if name.startswith("data")]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", batches)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    meta = datasets.CIFAR10.meta | {"md5": digests["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return tmp_path


def test_cifar(cifar):
    dataset = load(config("cifar10", cifar))
    assert dataset.classes == tuple(f"c{n}" for n in range(10))
    assert dataset.shape == (3, 32, 32)
    assert (dataset.train, len(dataset.labels)) == (50, 61)
    assert np.array_equal(dataset.part("test")[0], some(11, (3, 32, 32))[0])


def test_a_pickle_is_opened_only_after_its_digest_fits(cifar, tmp_path, monkeypatch):
    for path in cifar.rglob("*"):
        if path.is_file():
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(DataError, match=r"not the official file of CIFAR-10, MD5 \w+ where"):
        load(config("cifar10", cifar))


def test_svhn(tmp_path, monkeypatch):
    listed = {}
    for part, count in (("train", 20), ("test", 10)):
        images, labels = some(count, (4, 4, 3))
        content = io.BytesIO()
        labels = np.where(labels == 0, 10, labels)  # as its authors number a nought
        savemat(content, {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]})
        name = f"{part}_32x32.mat"
        listed[part] = [f"http://x/{name}", name, placed(tmp_path, name, content.getvalue())]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    dataset = load(config("svhn", tmp_path))
    images, labels = some(20, (4, 4, 3))
    assert np.array_equal(dataset.part("train")[0], images.transpose(0, 3, 1, 2))
    assert np.array_equal(dataset.part("train")[1], labels)


@pytest.mark.slow
@pytest.mark.real_data
def test_mnist_and_fashion_mnist_from_one_folder(fashion_mnist_root, tmp_path):
    """Files of the same names: each set takes its own."""
    mnist = fashion_mnist_root.parent / "mnist"
    if not mnist.is_dir():
        pytest.skip("MNIST is not beside Fashion-MNIST")
    for name, folder in (("fashion-mnist", fashion_mnist_root), ("mnist", mnist)):
        (tmp_path / name).symlink_to(folder)
    both = {name: load(config(name, tmp_path, mirrors=[])) for name in ("mnist", "fashion_mnist")}
    assert both["fashion_mnist"].sha256 == known.OFFICIAL_SHA256
    assert both["mnist"].classes == tuple("0123456789")
    assert both["mnist"].part("train")[0].mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    said = "mnist.*not the official file of MNIST, SHA-256 .* it is Fashion-MNIST's"
    with pytest.raises(DataError, match=said):
        load(config("mnist", fashion_mnist_root, mirrors=[]))
