"""The prepared copy of a user's own data, in the cache."""

import os

import numpy as np
import pytest
from own_data import config, pictures
from PIL import Image

from fmbench.data import cache
from fmbench.data import load as module
from fmbench.data.load import load

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_a_second_start_reads_the_copy(tmp_path, monkeypatch):
    pictures(tmp_path / "set")
    given = config("folder", tmp_path / "set")
    first = load(given)
    assert len(list((tmp_path / "cache").glob("*.fmbench.npz"))) == 1
    module._prepared.cache_clear()
    monkeypatch.setattr(module.files, "read_folder", lambda *_: pytest.fail("decoded again"))
    again = load(given)
    assert again.described() == first.described()
    assert np.array_equal(again.images, first.images)
    with pytest.raises(ValueError, match="read-only"):
        again.images[0] = 1


@pytest.mark.parametrize("change", ["file", "setting", "damage", "off"])
def test_a_copy_of_other_data_is_not_used(tmp_path, change):
    pictures(tmp_path / "set")
    given = config("folder", tmp_path / "set")
    first = load(given)
    (copy,) = (tmp_path / "cache").glob("*.fmbench.npz")
    module._prepared.cache_clear()
    if change == "file":
        Image.new("L", (8, 8)).save(tmp_path / "set" / "cat" / "0.png")
    elif change == "setting":
        given["size"] = 6
    elif change == "damage":
        content = bytearray(copy.read_bytes())
        content[len(content) // 2] ^= 1
        copy.write_bytes(content)
    else:
        given["cache"] = None
        copy.write_bytes(b"never read")
    again = load(given)
    assert (again.sha256 == first.sha256) == (change in ("damage", "off"))


def test_a_place_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    pictures(tmp_path / "set")
    (tmp_path / "file").touch()
    monkeypatch.setenv("FMBENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load(config("folder", tmp_path / "set")).labels) == 12


def test_copies_are_bounded_and_the_oldest_go(tmp_path, monkeypatch):
    sizes = []
    for number in range(4):
        pictures(tmp_path / f"set{number}", count=16, shape=(30, 30))
        load(config("folder", tmp_path / f"set{number}", cache_gb=40_000 / 1e9))
        copies = list((tmp_path / "cache").glob("*.fmbench.npz"))
        sizes.append(len(copies))
        for path in copies:
            os.utime(path, ns=(number, path.stat().st_mtime_ns - 10**12))
    assert sizes == [1, 2, 2, 2]
    assert load(config("folder", tmp_path / "set0", cache_gb=0)).train == 12


def test_a_stranger_cannot_put_objects_into_a_copy(tmp_path):
    pictures(tmp_path / "set")
    load(config("folder", tmp_path / "set"))
    (copy,) = (tmp_path / "cache").glob("*.fmbench.npz")
    np.savez(copy, images=np.array([{}], dtype=object))
    assert cache.read(copy.name.partition(".")[0]) is None
