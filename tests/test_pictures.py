"""Pictures of all kinds come down to what a net was trained on, or to one line."""

import io
import os
import random
import struct

import numpy as np
import pytest
from commands import python, raises_one_line
from PIL import Image, ImageDraw

from fmbench import data, pictures
from fmbench.errors import DataError
from fmbench.pictures import FORMATS, read, sheet

SYNTHETIC = data.load({"name": "synthetic", "train_size": 10, "test_size": 50, "seed": 0})

#: What a box of 112 x 224, dark on light or light on dark, comes down to: 14 x 28, in the middle.
#: It fills blocks of JPEG, which would blur its edges otherwise.
BOX = np.zeros((28, 28), dtype=np.uint8)
BOX[:, 7:21] = 255


def box(mode="RGB", ground="white", ink="black", size=(300, 400), place=(32, 96, 143, 319)):
    image = Image.new(mode, size, ground)
    ImageDraw.Draw(image).rectangle(place, fill=ink)
    return image


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def close(found, expected, tolerance=3):
    assert found.dtype == np.uint8
    assert found.shape == (28, 28)
    assert np.abs(found.astype(int) - expected).max() <= tolerance


def alike(found, expected):
    """Edges that fall within a pixel, or that JPEG has blurred, may differ."""
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


# An image of the data set stays what it is.


@pytest.mark.parametrize(
    "export",
    [
        Image.fromarray,
        lambda image: Image.fromarray(image).convert("RGB"),
        lambda image: Image.fromarray(image).convert("RGBA"),
        lambda image: Image.fromarray(image).convert("LA"),
        lambda image: Image.fromarray(image).convert("P"),
        lambda image: Image.fromarray(image.astype(np.uint16) * 257),
    ],
    ids=["L", "RGB", "RGBA", "LA", "P", "I;16"],
)
def test_a_grey_picture_of_28_x_28_is_taken_as_it_is(tmp_path, export):
    for image in SYNTHETIC.test_images:
        assert np.array_equal(read(saved(tmp_path, export(image))), image)
        assert np.array_equal(read(saved(tmp_path, export(255 - image))), image)


def test_a_faint_one_too(tmp_path):
    faint = SYNTHETIC.test_images[0] // 20
    assert np.array_equal(read(saved(tmp_path, Image.fromarray(faint))), faint)


def test_the_background_may_be_said(tmp_path):
    image = SYNTHETIC.test_images[0]
    dark = saved(tmp_path, Image.fromarray(image))
    assert np.array_equal(read(dark, "dark"), image)
    assert np.array_equal(read(dark, "light"), 255 - image)
    light = saved(tmp_path, box())
    close(read(light, "light"), BOX)
    close(read(light, "dark"), np.zeros((28, 28)))  # the box is all there is, and black
    framed = box(ink=(100, 100, 100), place=(100, 100, 199, 299))
    ImageDraw.Draw(framed).rectangle((0, 0, 299, 399), outline="black", width=10)
    found = read(saved(tmp_path, framed), "light")
    assert found[:4].max() == found[:, :8].max() == 0
    assert np.abs(found[10:18, 12:16].astype(int) - 155).max() <= 3


@pytest.mark.real_data
def test_no_image_of_fashion_mnist_is_taken_for_light(fashion_mnist_root, tmp_path):
    config = {"name": "fashion_mnist", "root": fashion_mnist_root, "download": False, "mirrors": []}
    for image in data.load(config).test_images[:2000]:
        assert pictures._ground(np.repeat(image[..., None], 3, 2).astype(np.float32))[0] <= 127
    for image in data.load(config).train_images[[26299, 41623]]:  # bags with a light border
        assert np.array_equal(read(saved(tmp_path, Image.fromarray(image))), image)


# Every kind of picture.


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (box(), "a.png"),
        (box(ground="black", ink="white"), "a.png"),
        (box("1", 1, 0), "a.png"),
        (box("L", 255, 0), "a.png"),
        (box("L", 0, 255), "a.gif"),
        (box("P"), "a.png"),
        (box("RGBA"), "a.png"),
        (box("RGBA", (0, 0, 0, 0), "black"), "a.png"),
        (box("RGBA", (0, 0, 0, 0), "white"), "a.png"),
        (box("RGBA", (255, 255, 255, 0), "white"), "a.webp"),
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
        (box(size=(3000, 4000), place=(300, 900, 1299, 2899)), "a.png"),
        (box(size=(30, 40), place=(3, 9, 12, 28)), "a.png"),
        (box(ground=(200, 200, 200)), "a.png"),
        (box(ground=(40, 60, 40), ink="white"), "a.png"),
        (box(ground=(255, 240, 245)), "a.jpg"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.mode}{value.size}",
)
def test_any_kind_of_picture_comes_down_to_the_same(tmp_path, image, name):
    found = read(saved(tmp_path, image, name))
    if name.endswith(".jpg") or image.width == 3000:
        alike(found, BOX)
    else:
        close(found, BOX)


def test_a_palette_may_have_transparent_colours(tmp_path):
    image = Image.new("P", (300, 400), 1)
    image.putpalette([0, 0, 0, 90, 0, 90])
    ImageDraw.Draw(image).rectangle((32, 96, 143, 319), fill=0)
    for transparency in (1, b"\xff\x00"):
        close(read(saved(tmp_path, image, transparency=transparency)), BOX)


def test_transparent_clothing_keeps_its_tone_unless_it_is_nearly_white(tmp_path):
    for ink, expected in (((200,) * 3, 55), ((20,) * 3, 235), ((240,) * 3, 240)):
        image = box("RGBA", (0, 0, 0, 0), (*ink, 255))
        close(read(saved(tmp_path, image)), BOX / 255 * expected)
    close(read(saved(tmp_path, image), "light"), BOX / 255 * 15)
    close(
        read(saved(tmp_path, box("RGBA", (0, 0, 0, 0), (20, 20, 20, 255))), "dark"), BOX / 255 * 20
    )


def test_a_picture_is_turned_as_its_camera_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    alike(read(saved(tmp_path, box(), "a.jpg", exif=exif)).T, BOX)


def test_the_first_of_several_frames_counts(tmp_path):
    frames = [box(ground="black", ink="white")]
    path = saved(tmp_path, box(), "a.gif", save_all=True, append_images=frames)
    close(read(path), BOX)


# What is done to it.


def test_edges_near_the_colour_of_the_corners_are_trimmed(tmp_path):
    noise = np.random.default_rng(0).integers(-6, 7, (400, 300, 3))
    near = np.asarray(box(ground=(240, 240, 240)), dtype=int)
    noisy = Image.fromarray((near + noise).clip(0, 255).astype(np.uint8))
    alike(read(saved(tmp_path, noisy)), BOX)
    # A mark 12 % from the background is seen; one 4 % from it is not.
    for tone, columns in ((255 - 30, 28), (255 - 10, 14)):
        marked = box()
        ImageDraw.Draw(marked).rectangle((250, 96, 299, 101), fill=(tone,) * 3)
        found = read(saved(tmp_path, marked))
        assert np.ptp(np.flatnonzero(found.max(0) > 5)) + 1 == columns


@pytest.mark.parametrize("corner", [(0, 0), (299, 0), (0, 399), (299, 399)])
def test_a_corner_may_be_covered(tmp_path, corner):
    image = box()
    x, y = corner
    ImageDraw.Draw(image).rectangle((x - 20, y - 20, x + 20, y + 20), fill="black")
    found = read(saved(tmp_path, image))
    assert found.mean() < 100  # were the corner taken for the background, most would be white
    assert found.max() == 255


def test_proportions_are_kept_and_the_picture_is_in_the_middle(tmp_path):
    found = read(saved(tmp_path, box(place=(30, 90, 229, 139))))
    assert np.flatnonzero(found.max(1)).tolist() == list(range(10, 17))
    assert found.max(0).min() == 255
    for place, line in (((7, 20, 290, 20), np.s_[13, :]), ((150, 3, 150, 390), np.s_[:, 13])):
        found = read(saved(tmp_path, box(place=place)))
        assert (found[line] == 255).all()
        assert (found > 0).sum() == 28


def test_pixels_are_averaged(tmp_path):
    stripes = np.asarray(box()).copy()
    stripes[96:320:2, 32:144] = 255
    found = read(saved(tmp_path, Image.fromarray(stripes)))
    assert abs(int(found[4:24, 9:19].mean()) - 127) < 12
    assert found[4:24, 9:19].std() < 40


@pytest.mark.parametrize("slope", [(1, 0), (0, 1), (0.5, 0.5), (-0.7, 0.3)])
@pytest.mark.parametrize(("ground", "ink"), [(210, 70), (60, 200)])
def test_light_may_fall_from_one_side(tmp_path, slope, ground, ink):
    down, across = np.mgrid[-1:1:400j, -1:1:300j]
    light = 1 + 0.2 * (slope[0] * down + slope[1] * across)
    lit = (np.asarray(box("L", ground, ink)) * light).clip(0, 255).astype(np.uint8)
    found = read(saved(tmp_path, Image.fromarray(lit)))
    alike(found, BOX)
    assert found[:, :5].max() <= 5
    if ground > ink:  # clothing of one tone stays so
        assert np.ptp(found[4:24, 9:19]) <= 4
    refused(saved(tmp_path, Image.fromarray((ground * light).astype(np.uint8))), "of one colour")


def test_a_background_seen_at_one_edge_only_has_no_slope():
    pixels = np.zeros((40, 30, 3), dtype=np.float32)
    pixels[0] = 200
    assert np.abs(pictures._surface(pixels, pixels[0, 0]) - 200).max() < 1


def test_noise_of_a_large_picture_does_not_hinder_trimming(tmp_path):
    image = box("L", 230, 20, size=(2400, 3200), place=(256, 768, 1151, 2559))
    noise = np.random.default_rng(0).integers(-24, 25, (3200, 2400))
    noisy = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    alike(read(saved(tmp_path, noisy)), BOX)


def test_the_stronger_an_outline_the_more_it_is_sharpened(tmp_path):
    image = box(ink=(155, 155, 155))
    for top, tone in ((168, 145), (240, 55)):
        ImageDraw.Draw(image).rectangle((32, top, 143, 319), fill=(tone,) * 3)
    column = read(saved(tmp_path, image))[:, 13].astype(int)
    assert np.abs(column[:15] - ([100] * 9 + [110] * 6)).max() <= 1
    assert column[17] < 100
    assert column[18] > 210


def test_outlines_are_sharpened_and_flat_parts_are_not(tmp_path):
    image = box(ink=(155, 155, 155))
    ImageDraw.Draw(image).rectangle((32, 208, 143, 319), fill=(105, 105, 105))
    found = read(saved(tmp_path, image)).astype(int)
    assert set(found[2:11, 13]) == {100}
    assert set(found[18:26, 13]) == {150}
    assert found[13, 13] < 95
    assert found[14, 13] > 155


def test_any_background_becomes_black_and_white_stays_white(tmp_path):
    for ground, ink, expected in ((200, 0, 255), (200, 100, 127), (60, 255, 255), (60, 157, 127)):
        path = saved(tmp_path, box("L", ground, ink))
        close(read(path), BOX / 255 * expected)


# What cannot be used.


def refused(path, *parts, background="auto"):
    raises_one_line(lambda: read(path, background), DataError, str(path)[:50], *parts)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (300, 400), "white"),
        Image.new("RGB", (300, 400), (1, 2, 3)),
        Image.new("L", (28, 28), 7),
        Image.new("RGBA", (300, 400), (0, 0, 0, 0)),
        Image.new("F", (300, 400), 0.5),
        Image.new("L", (1, 1), 0),
        box(ground="white", ink=(250, 250, 250)),
    ],
    ids=lambda image: f"{image.mode}{image.size}",
)
def test_a_picture_of_one_colour_shows_nothing(tmp_path, image):
    path = saved(tmp_path, image, "a.tif" if image.mode == "F" else "a.png")
    for background in pictures.BACKGROUNDS:
        refused(path, "all of one colour", background=background)


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


@pytest.mark.parametrize(("name", "mode", "options"), [
    ("i16.png", "I;16", {}), ("la.png", "LA", {}), ("f.tif", "F", {"compression": "tiff_lzw"}),
    ("cmyk.tif", "CMYK", {"compression": "tiff_lzw"}), ("rgb.webp", "RGB", {}),
    ("scans.jpg", "RGB", {"progressive": True}), ("turned.png", "RGB", {"exif": b"turned"}),
])  # fmt: skip
def test_a_picture_that_takes_more_memory_than_its_pixels_say_is_refused(
    tmp_path, monkeypatch, name, mode, options
):
    path = tmp_path / name
    if "exif" in options:
        options["exif"] = Image.Exif()
        options["exif"][0x112] = 6
    picture = Image.new(mode, (100, 50))
    picture.paste(200, (10, 10, 40, 40)) if mode in ("I;16", "F") else None
    picture.save(path, **options)
    monkeypatch.setattr(pictures, "MOST_MEMORY", 5_000 * (2 if mode == "I;16" else 4))
    refused(path, "pixels of its kind take")


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    with Image.effect_noise((100, 50), 60) as picture:
        picture.convert("RGB").save(path, progressive=True)
    assert pictures.read(path).shape == (28, 28)
    content = path.read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + last * 40 + content[-2:])
    refused(path, "a JPEG of over 40 scans")
    with Image.open(path) as file:
        file.load()  # Pillow takes it, and as long as it takes


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_many_greys_become_256_the_same_at_once_and_by_rows(mode):
    values = np.random.default_rng(0).uniform(0, 65535, (700, 3000))
    values = values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    low, high = (values.min(), values.max()) if mode == "F" else (0, 65535)
    wanted = ((values.astype(np.float64) - low) * (255 / (high - low))).round()
    assert np.array_equal(np.asarray(pictures._grey(Image.fromarray(values))), wanted)


def test_a_picture_that_never_ends_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "no such file")
    assert not pictures.may_write_sheet(tmp_path / "pipe.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp", "a.ppm"])
def test_a_damaged_picture_is_read_or_refused(tmp_path, name):
    image = Image.fromarray(SYNTHETIC.test_images[0]).resize((60, 80)).convert("RGB")
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
        "from fmbench.errors import DataError; from fmbench.pictures import read\n"
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
    image = Image.open(io.BytesIO(sheet(list(SYNTHETIC.test_images[:13]))))
    assert image.size == (10 * 30 * 6, 2 * 30 * 6)
    small = np.asarray(image)[3::6, 3::6]
    for place, expected in enumerate(SYNTHETIC.test_images[:13]):
        top, left = 30 * (place // 10) + 1, 30 * (place % 10) + 1
        assert np.array_equal(small[top : top + 28, left : left + 28], expected)
    assert Image.open(io.BytesIO(sheet([SYNTHETIC.test_images[0]]))).size == (180, 180)
