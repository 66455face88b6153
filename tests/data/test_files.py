"""A user's own data become one data set, whatever they lie in; what is bad is one line."""

import io
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from own_data import CLASSES, as_set, config, images, npz, pictures, refused
from PIL import Image

from fmbench.core.errors import ConfigError
from fmbench.data import load as module
from fmbench.data import synthetic
from fmbench.data.dataset import statistics
from fmbench.data.load import load
from fmbench.data.own import natural

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

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
    refused(
        config("arrays", path),
        "bytes of arrays in all; at most half of the memory is allowed, 500,000",
    )


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
