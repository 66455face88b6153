"""Images in the rows of CSV and Parquet files."""

import numpy as np
import pandas as pd
import pytest
from own_data import CLASSES, as_set, config, images, refused

from fmbench.core.errors import ConfigError
from fmbench.data import load as module
from fmbench.data.load import load

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_two_files_of_a_table(tmp_path):
    for part, seed in (("a", 0), ("b", 1)):
        some, labels = images(seed=seed)
        frame = pd.DataFrame(some.reshape(len(some), -1))
        frame["class"] = labels
        frame.to_csv(tmp_path / f"{part}.csv", index=False)
    dataset = load(config("csv", tmp_path / "a.csv", test=str(tmp_path / "b.csv")))
    assert np.array_equal(dataset.part("train")[0][:, 0], images()[0])
    assert np.array_equal(dataset.part("test")[0][:, 0], images(seed=1)[0])
    assert not dataset.set_aside


@pytest.mark.parametrize("header", [True, False])
def test_a_table_in_colour_with_words_or_without_a_header(tmp_path, header):
    some, labels = images(shape=(3, 4, 4))
    frame = pd.DataFrame(some.reshape(len(some), -1))
    frame.insert(0, "label", np.array(CLASSES)[labels])
    frame.to_csv(tmp_path / "a.csv", index=False, header=header)
    dataset = load(config("csv", tmp_path / "a.csv"))
    assert dataset.classes == tuple(CLASSES)  # numbers as numbers
    assert dataset.shape == (3, 4, 4)
    assert set(as_set(dataset, "test")) < {(i.tobytes(), CLASSES[n])
                                           for i, n in zip(some, labels, strict=True)}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [
    ("label,a,b,c,d\n0,1,2,3,4\n1,1,2,3\n", "row 2 has no value in column d"),
    ("label,a,b,c,d\n0,1,2,3,4\n1,1,2,3,4,5\n", "no table"),
    ("label,a,b,c,d\n0,1,2,3,4,5\n1,1,2,3,4,5\n", "first line has 5 values, the second 6"),
    ('"label","a","b","c","d"\n0,1,2,3,4\n1,1,2,3,4\n', None),
    ("digit,0,1,2,3\n0,1,2,3,4\n1,1,2,3,4\n", "has no column of labels"),
    ("label,a,b,c,d\n0,1,2,,4\n1,1,2,3,4\n", "row 1 has no value in column c"),
    ("x,a,b,c,d\n0,1,2,3,4\n1,1,2,3,4\n", "has no column of labels"),
    ("label,a,b,c,d\n0,1,2,x,4\n1,1,2,3,4\n", "column c holds no pixels"),
    ("label,a,b,c\n0,1,2,3\n1,1,2,3\n", None),
    ("label,a,b\n0,1,2\n1,1,2\n", "2 pixels a row are no square image"),
    ("label,a,b,c,d\n0,1,2,300,4\n1,1,2,3,4\n", "a pixel is 300"),
    ("label,a,b,c,d\n0,1,2,-3,4\n1,1,2,3,4\n", "a pixel is negative (-3)"),
    ("", "has no column of labels"),
    ("label,a,b,c,d\n", "images must be"),
    ("\xff\xfe", "no text in UTF-8"),
])  # fmt: skip
def test_tables_of_all_kinds(tmp_path, text, said):
    (tmp_path / "a.csv").write_bytes(text.encode("latin1"))
    given = config("csv", tmp_path / "a.csv", test=str(tmp_path / "a.csv"))
    if said is None:
        assert load(given).train == 2
    else:
        refused(given, said)


def test_tables_name_their_columns(tmp_path):
    some, labels = images(shape=(2, 2))
    frame = pd.DataFrame(some.reshape(40, 4), columns=list("abcd"))
    frame["kind"] = labels
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert load(config("csv", tmp_path / "a.csv", label="kind")).train == 30
    refused(config("csv", tmp_path / "a.csv", label="sort"), "has no column of labels")
    pq.write_table(pa.table({"photo": [b"x"] * 4, "kind": [0, 1, 2, 3]}), tmp_path / "a.parquet")
    given = config("parquet", tmp_path / "a.parquet")
    refused(given, "has no column image; there are photo, kind")
    refused(given | {"image": "photo"}, "has no column label")
    refused(given | {"image": "photo", "label": "kind"}, "row 1: no picture", "and 3 others")


def test_no_parquet_and_rows_without_a_picture(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    refused(config("parquet", tmp_path / "a.parquet"), "no Parquet file")
    for cells, said in (
        ([None, b"x"], "a row has no label, or no bytes of a picture"),
        ([[1], [2]], "b.parquet: column image holds list<element: int64>, no bytes of a picture"),
        (["a", "b"], "b.parquet: column image holds string, no bytes of a picture"),
        ([{"path": "a"}] * 2, "holds struct<path: string>, no bytes of a picture"),
        ([{"bytes": "a"}] * 2, "holds struct<bytes: string>, no bytes of a picture"),
    ):
        pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "b.parquet")
        refused(config("parquet", tmp_path / "b.parquet"), said)


def test_without_pyarrow_the_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setattr("fmbench.core.errors.find_spec", lambda _: None)
    given = config("parquet", tmp_path / "a.parquet")
    refused(given, "pip install 'pyarrow>=17'", error=ConfigError)


@pytest.mark.parametrize(("kind", "least", "what"), [
    ("csv", 2 * 40 * (2 + 49 * 4), "text"),  # of both files
    ("parquet", 40 * 200, "pictures"),  # without the other column
])  # fmt: skip
def test_tables_that_would_fill_the_memory_are_not_read(tmp_path, monkeypatch, kind, least, what):
    label = np.arange(40) % 4
    for part in ("train", "test"):
        if kind == "csv":
            rows = [f"{one}," + ",".join(["100"] * 49) + "\n" for one in label]
            (tmp_path / f"{part}.csv").write_text("".join(rows))
        else:
            columns = {"image": [{"bytes": bytes(200)}] * 40, "other": [bytes(9_999)] * 40}
            table = pa.table({**columns, "label": label})
            path = tmp_path / f"{part}.parquet"
            pq.write_table(table, path, compression=None, use_dictionary=False)

    def reads(*_, **__):
        raise OSError("reads")

    monkeypatch.setattr(pd, "read_csv", reads)
    monkeypatch.setattr(pq, "ParquetFile", reads)
    usable = module.files.usable()
    for memory, said in (
        (2 * least - 2, f"bytes of {what} in all; at most half of the memory is "),
        (3 * least, "reads"),
    ):
        monkeypatch.setattr(module.files, "usable", lambda m=memory: usable._replace(memory=m))
        refused(config(kind, tmp_path), said)


def test_a_small_parquet_file_with_one_picture_for_all_its_rows(tmp_path, monkeypatch):
    """Its pages hold the picture once; memory would hold it as often as there are rows."""
    path, read = tmp_path / "a.parquet", []
    pq.write_table(pa.table({"image": [bytes(1_000)] * 5_000, "label": [0, 1] * 2_500}), path)
    assert path.stat().st_size < 10_000
    usable = module.files.usable()
    monkeypatch.setattr(module.files, "usable", lambda: usable._replace(memory=200_000))
    batches = pq.ParquetFile.iter_batches

    def counted(file, rows, **options):
        for batch in batches(file, rows, **options):
            read.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    refused(config("parquet", path), "bytes of pictures in all; at most half of the memory is ")
    assert max(read) <= 100_000 < sum(read) <= 200_000


def test_words_as_labels_take_no_more_memory_than_numbers(tmp_path, monkeypatch):
    """The pixels are read as bytes; as the numbers that pandas takes they may be refused."""
    usable, seen, read_csv = module.files.usable(), [], pd.read_csv

    def reads(*arguments, **options):
        frame = read_csv(*arguments, **options)
        seen.append(frame.drop(columns="label").dtypes.unique().tolist())
        return frame

    monkeypatch.setattr(pd, "read_csv", reads)
    for name, pixel in (("words", "7"), ("fractions", "0.5")):
        rows = [f"{word}," + ",".join([pixel] * 49) for word in ["cat", "dog"] * 20]
        header = ",".join(["label", *map(str, range(49))])
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows, ""]))
    found = load(config("csv", tmp_path / "words.csv"))
    assert (found.classes, seen) == (("cat", "dog"), [[np.uint8]])
    size = (tmp_path / "fractions.csv").stat().st_size
    for memory, said in ((3 * size, "bytes of numbers in all; at most half"), (None, None)):
        monkeypatch.setattr(module.files, "usable", lambda m=memory: usable._replace(memory=m))
        given = config("csv", tmp_path / "fractions.csv")
        if said:
            refused(given, said)
        else:
            assert load(given).classes == ("cat", "dog")
    assert seen[1:] == [[np.float64]]


def test_labels_above_255_are_numbers(tmp_path):
    rows = [f"{label},1,2,3,4\n" for label in [300, 20] * 4]
    (tmp_path / "a.csv").write_text("label,a,b,c,d\n" + "".join(rows))
    found = load(config("csv", tmp_path / "a.csv", test_fraction=0.5))
    assert found.classes == ("20", "300")
