"""Pictures of all kinds come down to what a model was trained on, or to one line."""

import io
import os
import random
import struct

import numpy as np
import pytest
from commands import python, raises_one_line
from PIL import Image, ImageDraw

from fmbench.core.errors import DataError
from fmbench.data.load import load
from fmbench.predict import photographs
from fmbench.predict.photographs import FORMATS, read, sheet

_DATA = load({"name": "synthetic", "train_size": 10, "test_size": 50, "seed": 0})
SYNTHETIC = _DATA.part("test")[0][:, 0]

#: What a box of 112 x 224, dark on light or light on dark, comes down to: 14 x 28, in the middle.
#: It fills blocks of JPEG, which would blur its edges otherwise.
BOX = np.zeros((28, 28), dtype=np.uint8)
BOX[:, 7:21] = 255


def box(mode="RGB", ground="white", ink="black", size=(384, 512), place=(32, 96, 143, 319)):
    image = Image.new(mode, size, ground)
    ImageDraw.Draw(image).rectangle(place, fill=ink)
    return image


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def close(found, expected):
    assert found.dtype == np.uint8
    assert found.shape == (28, 28)
    assert np.abs(found.astype(int) - expected).max() <= 3


def alike(found, expected):
    """Edges that fall within a pixel, or that JPEG has blurred, may differ."""
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


# An image of the data set stays what it is.


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_a_picture_of_28_x_28_is_at_most_inverted(tmp_path, mode):
    for image in (*SYNTHETIC[:20], SYNTHETIC[0] // 20):
        for shown in (image, 255 - image):
            sixteen = mode == "I;16"
            picture = Image.fromarray(shown.astype(np.uint16) * 257 if sixteen else shown)
            path = saved(tmp_path, picture if sixteen else picture.convert(mode))
            assert np.array_equal(read(path), image)


def test_the_background_may_be_said(tmp_path):
    image = SYNTHETIC[0]
    dark = saved(tmp_path, Image.fromarray(image))
    assert np.array_equal(read(dark, "dark"), image)
    assert np.array_equal(read(dark, "light"), 255 - image)
    light = saved(tmp_path, box())
    close(read(light, "light"), BOX)
    close(read(light, "dark"), np.zeros((28, 28)))  # the box is all there is, and black


@pytest.mark.real_data
def test_no_image_of_fashion_mnist_is_taken_for_light(fashion_mnist_root):
    config = {"name": "fashion_mnist", "root": fashion_mnist_root, "download": False, "mirrors": []}
    loaded = load(config)
    for images in (loaded.part(part)[0][:, 0] for part in ("train", "test")):
        edges = images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]
        assert np.concatenate(edges, axis=1).mean(axis=1).max() <= 127


# Every kind of picture.


@pytest.mark.parametrize(("image", "name"), [
    (box(), "a.png"),
    (box(ground="black", ink="white"), "a.png"),
    (box("1", 1, 0), "a.png"),
    (box("L", 255, 0), "a.png"),
    (box("L", 0, 255), "a.gif"),
    (box("P"), "a.png"),
    (box("RGBA"), "a.png"),
    (box("RGBA", (0, 0, 0, 0), "black"), "a.png"),
    (box("RGBA", (255, 255, 255, 0), "black"), "a.webp"),
    (box("LA", (0, 0), (0, 255)), "a.png"),
    (box("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)), "a.jpg"),
    (box("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)), "a.tif"),
    (box("I;16", 65535, 0), "a.png"),
    (box("I;16", 65535, 0), "a.pgm"),
    (box("I;16", 0, 65535), "a.tif"),
    (box("I", 65535, 0), "a.tif"),
    (box("F", 1.0, 0.0), "a.tif"),
    (box(), "a.jpg"),
    (box(), "a.bmp"),
    (box(), "a.ppm"),
    (box(size=(3072, 4096), place=(320, 928, 1343, 2975)), "a.png"),
    (box(size=(30, 40), place=(3, 9, 12, 28)), "a.png"),
    (box(ground=(200, 200, 200)), "a.png"),
    (box(ground=(40, 60, 40), ink="white"), "a.png"),
    (box(ground=(255, 240, 245)), "a.jpg"),
], ids=lambda value: value if isinstance(value, str) else f"{value.mode}{value.size}")  # fmt: skip
def test_any_kind_of_picture_comes_down_to_the_same(tmp_path, image, name):
    found = read(saved(tmp_path, image, name))
    if name.endswith(".jpg"):
        alike(found, BOX)
    else:
        close(found, BOX)


def test_a_palette_may_have_transparent_colours(tmp_path):
    image = Image.new("P", (384, 512), 1)
    image.putpalette([0, 0, 0, 90, 0, 90])
    ImageDraw.Draw(image).rectangle((32, 96, 143, 319), fill=0)
    for transparency in (1, b"\xff\x00"):
        close(read(saved(tmp_path, image, transparency=transparency)), BOX)


def test_a_transparent_background_counts_as_white_or_as_black_where_that_is_said(tmp_path):
    for ink, background, expected in ((200, "auto", 55), (20, "light", 235), (240, "dark", 240)):
        path = saved(tmp_path, box("RGBA", (0, 0, 0, 0), (ink, ink, ink, 255)))
        close(read(path, background), BOX / 255 * expected)


def test_a_picture_is_turned_as_its_camera_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    alike(read(saved(tmp_path, box(), "a.jpg", exif=exif)).T, BOX)


def test_the_first_of_several_frames_counts(tmp_path):
    frames = [box(ground="black", ink="white")]
    path = saved(tmp_path, box(), "a.gif", save_all=True, append_images=frames)
    close(read(path), BOX)


# What is done to it.


def test_what_differs_little_from_the_background_is_cut_off(tmp_path):
    for tone, columns in ((255 - 60, 28), (255 - 40, 14)):
        marked = box()
        ImageDraw.Draw(marked).rectangle((250, 96, 299, 101), fill=(tone,) * 3)
        found = read(saved(tmp_path, marked))
        assert np.ptp(np.flatnonzero(found.max(0) > 5)) + 1 == columns


@pytest.mark.parametrize(("ground", "ink"), [(210, 70), (60, 200)])
def test_noise_and_light_from_one_side_do_not_hinder(tmp_path, ground, ink):
    image = np.asarray(box("L", ground, ink))
    down, across = np.mgrid[-1:1:512j, -1:1:384j]
    light = 1 + 0.06 * (down + across)
    noise = np.random.default_rng(0).normal(0, 5, image.shape)
    for changed in (image * light, image + noise):
        alike(read(saved(tmp_path, Image.fromarray(changed.clip(0, 255).astype(np.uint8)))), BOX)


def test_proportions_are_kept_and_the_picture_is_in_the_middle(tmp_path):
    found = read(saved(tmp_path, box(place=(32, 96, 223, 143))))
    assert np.flatnonzero(found.max(1) > 9).tolist() == list(range(10, 17))
    assert found.max(0).min() == 255
    for place, line in (((8, 20, 283, 23), np.s_[13, :]), ((148, 4, 151, 383), np.s_[:, 13])):
        found = read(saved(tmp_path, box(place=place)))
        assert found[line].min() > 200
        assert (found > 0).sum() == 28


def test_pixels_are_averaged(tmp_path):
    stripes = np.asarray(box()).copy()
    stripes[96:320:2, 32:144] = 255
    found = read(saved(tmp_path, Image.fromarray(stripes)))
    assert abs(int(found[4:24, 9:19].mean()) - 127) < 12
    assert found[4:24, 9:19].std() < 40


def test_any_background_becomes_black_and_white_stays_white(tmp_path):
    for ground, ink, expected in ((255, 230, 25), (200, 0, 255), (200, 100, 127), (60, 157, 127)):
        path = saved(tmp_path, box("L", ground, ink))
        close(read(path), BOX / 255 * expected)


# What cannot be used.


def refused(path, *parts, background="auto"):
    raises_one_line(lambda: read(path, background), DataError, str(path)[:50], *parts)


@pytest.mark.parametrize("image", [
    Image.new("RGB", (300, 400), "white"),
    Image.new("RGB", (300, 400), (1, 2, 3)),
    Image.new("L", (28, 28), 7),
    Image.new("RGBA", (300, 400), (0, 0, 0, 0)),
    Image.new("F", (300, 400), 0.5),
    Image.new("L", (1, 1), 0),
    box(ground="white", ink=(245, 245, 245)),
], ids=lambda image: f"{image.mode}{image.size}")  # fmt: skip
def test_a_picture_of_one_colour_shows_nothing(tmp_path, image):
    path = saved(tmp_path, image, "a.tif" if image.mode == "F" else "a.png")
    for background in photographs.BACKGROUNDS:
        refused(path, "one colour", background=background)


def test_what_is_no_file(tmp_path):
    refused(tmp_path, "is a folder")
    refused(tmp_path / "gone.png", "no such file")
    refused(tmp_path / ("x" * 5000), "no such file")
    refused(tmp_path / "nul\0", "no such file")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "no such file")


@pytest.mark.parametrize(
    "content",
    [b"", b"a picture, really", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\0" * 5000],
)
def test_what_is_no_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "no picture; allowed are PNG, JPEG")


def test_a_picture_without_pixels(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 0 0 255\n")
    refused(tmp_path / "a.ppm")
    path = saved(tmp_path, Image.new("L", (5, 5), 3), "a.gif")
    content = bytearray(path.read_bytes())
    content[6:10] = bytes(4)  # the size of the screen
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(("width", "height"), [(11, 10), (30, 10)])
def test_a_picture_too_large_to_unpack(tmp_path, monkeypatch, width, height):
    path = saved(tmp_path, Image.new("L", (width, height), 0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(path, "larger than 100 pixels")


def test_a_bomb_is_not_unpacked(tmp_path):
    path = saved(tmp_path, box())
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp", "a.ppm"])
def test_a_damaged_picture_is_read_or_refused(tmp_path, name):
    image = Image.fromarray(SYNTHETIC[0]).resize((60, 80)).convert("RGB")
    path = saved(tmp_path, image, name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path)
    draw = random.Random(0)
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(draw.randrange(1, 6)):
            damaged[draw.randrange(min(len(content), 400))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read(path)
        except DataError:
            continue
        assert found.shape == (28, 28)


def test_what_pillow_warns_of_and_logs_stays_inside(tmp_path):
    entry = struct.pack("<HHLHH", 0x0112, 3, 2, 1, 1)  # two orientations, of which one is allowed
    exif = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4)
    warned = saved(tmp_path, box(), "warned.jpg", exif=exif)
    logged = saved(tmp_path, box(), "logged.tif")
    content = logged.read_bytes()
    samples = struct.pack("<HHL", 277, 3, 1)
    assert content.count(samples) == 1
    logged.write_bytes(content.replace(samples + b"\3", samples + b"\x63"))
    probe = (
        "import sys; from pathlib import Path\n"
        "from fmbench.core.errors import DataError; from fmbench.predict.photographs import read\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(read(Path(name)).shape)\n"
        "    except DataError as error: print(error)\n"
    )
    done = python("-W", "always", "-c", probe, str(warned), str(logged), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "(28, 28)"
    assert second.startswith(f"{logged}: ")


def test_only_formats_that_start_no_program_are_read():
    assert set(FORMATS) <= set(Image.OPEN) | {"AVIF"}
    assert not set(FORMATS) & {"EPS", "WMF", "FPX"}


def test_a_sheet_shows_the_images_in_their_order():
    image = Image.open(io.BytesIO(sheet(list(SYNTHETIC[:13, None]))))
    assert image.size == (10 * 30 * 6, 2 * 30 * 6)
    small = np.asarray(image)[3::6, 3::6]
    for place, expected in enumerate(SYNTHETIC[:13]):
        top, left = 30 * (place // 10) + 1, 30 * (place % 10) + 1
        assert np.array_equal(small[top : top + 28, left : left + 28], expected)
    assert Image.open(io.BytesIO(sheet([SYNTHETIC[:1]]))).size == (180, 180)
