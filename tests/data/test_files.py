"""A user's own data become one data set, whatever they lie in; what is bad is one line."""

import io
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fmbench.core.errors import ConfigError, DataError
from fmbench.data import cache, synthetic
from fmbench.data import load as module
from fmbench.data.dataset import statistics
from fmbench.data.load import load
from fmbench.data.own import natural

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASSES = ["cat", "dog", "mouse 2", "mouse 10"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMBENCH_CACHE", str(tmp_path / "cache"))
    module._prepared.cache_clear()


def config(kind, root, **changes):
    usual = {
        "name": kind, "root": str(root), "test": None, "size": None, "fit": "crop",
        "channels": None, "classes": None, "test_fraction": 0.25, "seed": 0, "keys": None,
        "label": None, "image": None, "cache": "auto", "cache_gb": 1,
    }  # fmt: skip
    return usual | changes


def images(count=40, shape=(8, 8), seed=0):
    """Images, and labels of four classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 4


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def pictures(folder, count=12, shape=(8, 8), suffix="png", names=CLASSES):
    """A picture of each class in turn, in folders of the classes; returns its arrays."""
    some, labels = images(count, shape)
    for number, (image, label) in enumerate(zip(some, labels, strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.{suffix}")
    return some, labels


def refused(given, *parts, error=DataError):
    with pytest.raises(error) as raised:
        load(given)
    said = str(raised.value)
    assert "\n" not in said
    for part in parts:
        assert part in said, said


def as_set(dataset, part):
    """The images of a part with the names of their classes, whatever their order."""
    some, labels = dataset.part(part)
    return sorted((image.tobytes(), dataset.classes[label])
                  for image, label in zip(some, labels, strict=True))  # fmt: skip


# The same images in every form


@pytest.fixture
def drawn():
    """Fashion-MNIST's twin, small."""
    return synthetic.load({"train_size": 60, "test_size": 20, "seed": 0})


def test_every_form_gives_the_same_data_set(drawn, tmp_path):
    parts = {part: drawn.part(part) for part in ("train", "test")}
    kaggle, hugging, folder = tmp_path / "kaggle", tmp_path / "hugging", tmp_path / "folder"
    for place in (kaggle, hugging):
        place.mkdir()
    features = {"info": {"features": {"label": {"names": list(drawn.classes)}}}}
    for part, (some, labels) in parts.items():
        columns = [f"pixel{n + 1}" for n in range(784)]
        frame = pd.DataFrame(some.reshape(len(some), -1), columns=columns)
        frame.insert(0, "label", labels)
        frame.to_csv(kaggle / f"{part}.csv", index=False)
        encoded = []
        for number, (image, label) in enumerate(zip(some[:, 0], labels, strict=True)):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            encoded.append({"bytes": content.getvalue(), "path": None})
            # A slash is in the name of one of the classes.
            place = folder / part / drawn.classes[label].replace("/", ":")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(content.getvalue())
        table = pa.table({"image": encoded, "label": labels.astype(np.int64)})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, hugging / f"{part}-00000.parquet")
    archive = npz(
        tmp_path / "set.npz",
        **{f"{part}_{what}": array[:, 0] if what == "images" else array[:, None]
           for part, pair in parts.items()
           for what, array in zip(("images", "labels"), pair, strict=True)},
    )  # fmt: skip
    names = list(drawn.classes)
    found = {
        "csv": load(config("csv", kaggle, classes=names)),
        "parquet": load(config("parquet", hugging)),
        "arrays": load(config("arrays", archive, classes=names)),
    }
    for kind, dataset in found.items():
        assert dataset.classes == drawn.classes, kind
        assert np.array_equal(dataset.images, drawn.images), kind
        assert np.array_equal(dataset.labels, drawn.labels), kind
        assert dataset.name == {"csv": "csv kaggle", "parquet": "parquet hugging",
                                "arrays": "arrays set"}[kind]  # fmt: skip
    assert len({dataset.sha256 for dataset in found.values()}) == 1
    by_class = load(config("folder", folder))
    for part in parts:
        expected = [(image, name.replace("/", ":")) for image, name in as_set(drawn, part)]
        assert as_set(by_class, part) == sorted(expected)


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


# Arrays


@pytest.mark.parametrize("names", [
    ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),
])  # fmt: skip
def test_known_names_of_arrays_and_an_official_validation_part(tmp_path, names):
    pairs = [images(count, seed=count) for count in (40, 8, 12)]
    arrays = [array for pair in pairs for array in pair]
    dataset = load(config("arrays", npz(tmp_path / "a.npz", **dict(zip(names, arrays)))))  # noqa: B905
    for part, (some, labels) in zip(("train", "validation", "test"), pairs, strict=True):
        assert np.array_equal(dataset.part(part)[0][:, 0], some)
        assert np.array_equal(dataset.part(part)[1], labels)


def test_names_of_arrays_that_are_given(tmp_path):
    some, labels = images()
    path = npz(tmp_path / "a.npz", pictures=some, digits=labels)
    refused(config("arrays", path), "no arrays of images and labels", "pictures, digits")
    keys = {"train_images": "pictures", "train_labels": "digits"}
    assert load(config("arrays", path, keys=keys)).train == 30
    refused(config("arrays", path, keys=keys | {"train_labels": "no"}), "has no array no")


@pytest.mark.parametrize(("made", "expected"), [
    (lambda some: some / 255.0, lambda some: some),
    (lambda some: some.astype(np.int64), lambda some: some),
    (lambda some: some.astype(np.uint16) * 257, lambda some: some),
    (lambda some: some.astype(np.float32), lambda some: some),
    (lambda some: some > 127, lambda some: (some > 127) * 255),
], ids=["0 to 1", "whole", "16 bits", "floats", "bool"])  # fmt: skip
def test_pixels_of_other_types(tmp_path, made, expected):
    some, labels = images()
    dataset = load(config("arrays", npz(tmp_path / "a.npz", x=made(some), y=labels)))
    whole = sorted(image.tobytes() for image in dataset.images)
    assert whole == sorted(np.uint8(image).tobytes() for image in expected(some))


@pytest.mark.parametrize(("shape", "changes", "expected"), [
    ((8, 8, 3), {}, (3, 8, 8)),
    ((3, 8, 8), {}, (3, 8, 8)),
    ((8, 8, 1), {}, (1, 8, 8)),
    ((8, 8, 3), {"channels": 1}, (1, 8, 8)),
    ((8, 8), {"channels": 3}, (3, 8, 8)),
    ((8, 12), {}, (1, 8, 12)),
    ((8, 12), {"size": 6}, (1, 6, 6)),
    ((8, 12, 3), {"size": 16, "fit": "pad"}, (3, 16, 16)),
])  # fmt: skip
def test_shapes(tmp_path, shape, changes, expected):
    some, labels = images(shape=shape)
    dataset = load(config("arrays", npz(tmp_path / "a.npz", x=some, y=labels), **changes))
    assert dataset.shape == expected


def test_a_test_part_is_set_aside_by_class_and_seed(tmp_path):
    path = npz(tmp_path / "a.npz", x=images()[0], y=images()[1])
    dataset = load(config("arrays", path))
    assert (dataset.train, dataset.set_aside) == (30, True)
    assert np.bincount(dataset.part("test")[1]).tolist() in ([3, 3, 2, 2], [2, 3, 2, 3])
    assert dataset.described()["set_aside"]
    other = load(config("arrays", path, seed=1))
    assert other.sha256 != dataset.sha256  # another test set
    assert not np.array_equal(other.images, dataset.images)


def test_duplicates_and_classes_are_counted(tmp_path):
    some, labels = images(12)
    path = npz(tmp_path / "a.npz", x_train=some, y_train=labels, x_test=some[:8], y_test=labels[:8])
    said = load(config("arrays", path)).described()
    assert (said["duplicates"], said["rarest"], said["commonest"]) == (8, 5, 5)
    assert said["classes"] == ["0", "1", "2", "3"]
    assert said["shape"] == [1, 8, 8]


def test_three_hundred_classes_take_two_bytes(tmp_path):
    some, _ = images(600)
    path = npz(tmp_path / "a.npz", x=some, y=np.arange(600) % 300)
    dataset = load(config("arrays", path, test_fraction=0.5))
    assert dataset.labels.dtype == np.uint16
    assert len(dataset.classes) == 300


def bad_arrays():
    some, labels = images()
    nan = some / 255.0
    nan[3, 2, 1] = np.nan
    return {
        "NaN": ({"x": nan, "y": labels}, "NaN"),
        "negative": ({"x": some.astype(int) - 9, "y": labels}, "a pixel is negative"),
        "large": ({"x": some * 1000.0, "y": labels}, "must be 0 to 255"),
        "a little": ({"x": some / 254.0, "y": labels}, "pixels are fractions up to 1.00394"),
        "12 bits": ({"x": some.astype(np.uint16) * 16, "y": labels}, "a pixel is 4080"),
        "long name": ({"x": some, "y": np.where(labels, "a" * 201, "b")}, "a class is called aaa"),
        "objects": ({"x": some.astype(object), "y": labels}, "cannot be read"),
        "flat": ({"x": some.reshape(40, 64), "y": labels}, "must be (N, H, W)"),
        "channels": ({"x": np.zeros((40, 8, 8, 4)), "y": labels}, "neither 1 nor 3 channels"),
        "fewer labels": ({"x": some, "y": labels[:-1]}, "40 images and 39 labels"),
        "one hot": ({"x": some, "y": np.eye(4)[labels]}, "labels must be (N,)"),
        "negative label": ({"x": some, "y": labels - 1}, "has the label -1"),
        "fraction": ({"x": some, "y": labels + 0.5}, "no whole number"),
        "one class": ({"x": some, "y": labels * 0}, "1 classes"),
        "empty text": ({"x": some, "y": np.where(labels, "a", "")}, "has no label"),
        "no images": ({"x": some[:0], "y": labels[:0]}, "must be (N, H, W)"),
        "test only": ({"x_test": some, "y_test": labels}, "has no training part"),
        "none in test": (
            {"x_train": some, "y_train": labels, "x_test": some[:2], "y_test": labels[:2]},
            "test: has no image of class 2",
        ),
        "another size": (
            {"x_train": some, "y_train": labels, "x_test": some[:, :4], "y_test": labels},
            "data.size and data.channels make them one",
        ),
    }


@pytest.mark.parametrize("fault", bad_arrays())
def test_bad_arrays(tmp_path, fault):
    arrays, said = bad_arrays()[fault]
    refused(config("arrays", npz(tmp_path / "a.npz", **arrays)), said)


def test_no_object_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = npz(tmp_path / "a.npz", x=np.array([Evil()] * 4, dtype=object), y=np.arange(4))
    refused(config("arrays", path), "array x cannot be read")
    assert not (tmp_path / "made").exists()


def test_an_archive_that_would_fill_the_memory(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz", x=np.zeros((40, 100, 100)), y=np.arange(40) % 4)
    memory = module.files.usable()._replace(memory=1_000_000)
    monkeypatch.setattr(module.files, "usable", lambda: memory)
    refused(config("arrays", path), "they may take half of the memory, 500,000")


@pytest.mark.parametrize(("kind", "least", "what"), [
    ("csv", 2 * 40 * (2 + 49 * 4), "rows"),  # of both files
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
    monkeypatch.setattr(pq, "read_table", reads)
    usable = module.files.usable()
    for memory, said in ((2 * least - 2, f"{kind}: its {what} take "), (3 * least, "reads")):
        monkeypatch.setattr(module.files, "usable", lambda m=memory: usable._replace(memory=m))
        refused(config(kind, tmp_path), said)
    refused_in = f"bytes; they may take half of the memory, {least - 1:,}"
    monkeypatch.setattr(module.files, "usable", lambda: usable._replace(memory=2 * least - 2))
    refused(config(kind, tmp_path), refused_in)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_no_archive_at_all(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    refused(config("arrays", tmp_path / "a.npz"), "no .npz file")


def test_a_damaged_array(tmp_path):
    path = npz(tmp_path / "a.npz", x=images()[0], y=images()[1])
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x.npy").header_offset
    content[start + 200] ^= 255
    path.write_bytes(content)
    refused(config("arrays", path), "array x cannot be read")


# Tables


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
    pq.write_table(pa.table({"image": [None, b"x"], "label": [0, 1]}), tmp_path / "b.parquet")
    refused(config("parquet", tmp_path / "b.parquet"), "no bytes of a picture")


def test_without_pyarrow_the_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setattr(module.files, "find_spec", lambda _: None)
    given = config("parquet", tmp_path / "a.parquet")
    refused(given, "pip install 'pyarrow>=17'", error=ConfigError)


# Folders


def test_folders_with_parts_or_without(tmp_path):
    train, labels = pictures(tmp_path / "a" / "train")
    test, _ = pictures(tmp_path / "a" / "Test", count=8)
    dataset = load(config("folder", tmp_path / "a"))
    assert dataset.classes == tuple(CLASSES)
    assert sorted(i.tobytes() for i in dataset.part("train")[0]) == sorted(map(bytes, train))
    assert sorted(i.tobytes() for i in dataset.part("test")[0]) == sorted(map(bytes, test))
    # By class, then by name, numbers as numbers.
    order = sorted(range(12), key=lambda number: (labels[number], number))
    assert np.array_equal(dataset.part("train")[0][:, 0], train[order])
    plain = load(config("folder", tmp_path / "a" / "train", test_fraction=0.34))
    assert (plain.train, plain.set_aside) == (8, True)


def test_what_is_no_picture_of_a_class_is_passed_over(tmp_path):
    pictures(tmp_path)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / "cat" / name).write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "inner.png").write_text("x")
    assert len(load(config("folder", tmp_path)).labels) == 12


def test_pictures_of_every_kind_in_one_folder(tmp_path):
    """Palette, CMYK, 16 bits, transparency onto white, a turned photograph, a moving picture."""
    grey = Image.fromarray(images()[0][0])
    colour = Image.fromarray(images(shape=(8, 8, 3))[0][0])
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    deep = Image.fromarray(np.full((8, 8), 65_535, dtype=np.uint16))
    turned = Image.new("L", (8, 8))
    turned.paste(255, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter to the right
    for name, picture, options in (
        ("0.png", grey, {}), ("1.jpg", colour.convert("CMYK"), {}), ("2.png", clear, {}),
        ("3.png", colour.convert("P"), {}), ("4.png", deep, {}), ("5.png", grey.convert("1"), {}),
        ("6.gif", grey, {"save_all": True, "append_images": [deep.convert("L")]}),
        ("7.png", turned, {"exif": exif}),
    ):  # fmt: skip
        for label in "ab":
            (tmp_path / label).mkdir(exist_ok=True)
            picture.save(tmp_path / label / name, **options)
    dataset = load(config("folder", tmp_path, test_fraction=0.1))
    assert dataset.shape == (3, 8, 8)
    images_of_a = dataset.images[dataset.labels == 0]
    found = {image.tobytes() for image in images_of_a}
    as_colour = np.asarray(grey)[None].repeat(3, axis=0)
    assert as_colour.tobytes() in found
    assert np.full((3, 8, 8), 255, np.uint8).tobytes() in found
    upright = np.zeros((3, 8, 8), np.uint8)
    upright[:, :, 4:] = 255
    assert upright.tobytes() in found
    grey_only = load(config("folder", tmp_path, channels=1, test_fraction=0.1))
    assert grey_only.shape == (1, 8, 8)


@pytest.mark.parametrize(("fit", "columns"), [
    ("crop", [(2, 8)]), ("stretch", [(1, 4), (4, 7)]), ("pad", [])
])  # fmt: skip
def test_what_is_not_square_is_cropped_padded_or_stretched(tmp_path, fit, columns):
    picture = np.zeros((8, 24), np.uint8)
    picture[:, 8:16] = 255  # the middle third
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(3):
            Image.fromarray(picture).save(tmp_path / label / f"{number}.png")
    dataset = load(config("folder", tmp_path, size=8, fit=fit, test_fraction=0.34))
    image = dataset.images[0, 0]
    assert {"crop": image.min() == 255, "stretch": 60 < image.mean() < 110,
            "pad": image[0].max() == 0 and image[4].max() > 200}[fit]  # fmt: skip


def test_bad_folders(tmp_path):
    refused(config("folder", tmp_path / "none"), "no such file or folder")
    refused(config("folder", ""), "data.root is missing", error=ConfigError)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    refused(config("folder", tmp_path / "empty"), "no pictures in class folders")
    pictures(tmp_path / "one", names=["only"] * 4)
    refused(config("folder", tmp_path / "one"), "1 classes")
    pictures(tmp_path / "sizes")
    Image.new("L", (9, 9)).save(tmp_path / "sizes" / "cat" / "a.png")
    refused(config("folder", tmp_path / "sizes"), "several sizes", "data.size=32 makes them one")
    pictures(tmp_path / "damaged")
    for name in ("0.png", "4.png"):
        path = tmp_path / "damaged" / "cat" / name
        path.write_bytes(path.read_bytes()[:60])
    refused(config("folder", tmp_path / "damaged"), "0.png: ", "(and 1 others)")
    pictures(tmp_path / "link")
    outside = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(outside)
    (tmp_path / "link" / "cat" / "x.png").symlink_to(outside)
    refused(config("folder", tmp_path / "link"), "x.png: is a link out of")


def test_natural_order():
    names = ["b", "a10", "a9", "a", "10", "9", "a9b"]
    assert sorted(names, key=natural) == ["9", "10", "a", "a9", "a9b", "a10", "b"]


# The prepared copy


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


# Numbers of the pixels


def test_statistics_are_those_of_numpy():
    some, _ = images(50, (3, 5, 6))
    chosen = np.arange(0, 50, 2)
    mean, std = statistics(some, chosen)
    np.testing.assert_allclose(mean, some[chosen].mean(axis=(0, 2, 3)) / 255)
    np.testing.assert_allclose(std, some[chosen].std(axis=(0, 2, 3)) / 255)
    assert statistics(np.full((4, 1, 2, 2), 7, np.uint8), np.arange(4))[1] == [1 / 255]


def test_files_of_other_names_are_neither_read_twice_nor_removed(tmp_path):
    some, labels = images(shape=(2, 2))
    frame = pd.DataFrame(some.reshape(40, 4), columns=list("abcd"))
    frame.insert(0, "label", labels)
    for name in ("train", "validation", "test"):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine.npz").write_bytes(bytes(10**6))
    dataset = load(config("csv", tmp_path, cache_gb=1e-5))
    assert [len(part) for part in dataset.parts.values()] == [40, 40, 40]
    assert (tmp_path / "cache" / "mine.npz").exists()
    # The same files in other parts are another data set.
    two = config("csv", tmp_path / "train.csv", test=str(tmp_path / "test.csv"))
    assert [len(part) for part in load(two).parts.values()] == [40, 0, 40]
    frame.to_csv(tmp_path / "train-2.csv", index=False)
    refused(config("csv", tmp_path), "2 CSV files for train")


@pytest.mark.parametrize(
    "keys", [{"train_image": "a"}, {"train_labels": "fine"}, {1: "a", "b": "c"}]
)
def test_keys_that_name_no_pair_are_refused(tmp_path, keys):
    some, labels = images()
    path = npz(tmp_path / "a.npz", train_images=some, train_labels=labels, fine=labels)
    refused(config("arrays", path, keys=keys), "data.keys: ", error=ConfigError)


def test_folders_that_would_mix_parts(tmp_path):
    pictures(tmp_path / "a" / "test")
    pictures(tmp_path / "a")
    refused(config("folder", tmp_path / "a"), "has a folder test, and no train")
    pictures(tmp_path / "b")
    (tmp_path / "b" / "cat" / ".checkpoints").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "b" / "cat" / ".checkpoints" / "x.png")
    assert len(load(config("folder", tmp_path / "b")).labels) == 12
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a" / "cat")
    refused(config("folder", tmp_path / "b"), "other: is a link out of")
