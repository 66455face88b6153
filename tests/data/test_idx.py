"""The IDX reader takes exactly what the format says, and refuses the rest in one line."""

import gzip
import struct

import numpy as np
import pytest

from fmbench.core.errors import DataError
from fmbench.data import idx


def images_file(count=3, height=28, width=28, magic=0x803):
    pixels = np.arange(count * height * width) % 251
    return struct.pack(">4I", magic, count, height, width) + pixels.astype(np.uint8).tobytes()


def labels_file(labels, magic=0x801):
    return struct.pack(">2I", magic, len(labels)) + bytes(labels)


def refused(function, *arguments):
    with pytest.raises(DataError) as caught:
        function(*arguments, "some-file")
    message = str(caught.value)
    assert message.startswith("some-file: ")
    assert "\n" not in message
    return message


def test_images_come_out_in_order():
    images = idx.read_images(images_file(), "some-file")
    assert images.shape == (3, 28, 28)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images.ravel(), np.arange(3 * 784) % 251)


def test_labels_come_out_in_order():
    labels = idx.read_labels(labels_file([3, 0, 9]), "some-file")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [3, 0, 9]


@pytest.mark.parametrize("magic", [0x801, 0x802, 0x803 << 8, 0x903])
def test_images_with_another_magic_number(magic):
    assert "expected 0x00000803" in refused(idx.read_images, images_file(magic=magic))


def test_labels_with_another_magic_number():
    assert "expected 0x00000801" in refused(idx.read_labels, labels_file([1, 2], magic=0x803))


@pytest.mark.parametrize(("height", "width"), [(28, 27), (27, 28), (32, 32), (14, 56)])
def test_images_of_another_size(height, width):
    message = refused(idx.read_images, images_file(height=height, width=width))
    assert f"{height} x {width}" in message


def test_images_a_byte_short_or_long():
    data = images_file()
    assert "2,367 bytes; expected 2,368" in refused(idx.read_images, data[:-1])
    assert "2,369 bytes; expected 2,368" in refused(idx.read_images, data + b"\0")


def test_labels_a_byte_short_or_long():
    data = labels_file([1, 2, 3])
    refused(idx.read_labels, data[:-1])
    refused(idx.read_labels, data + b"\0")


def test_count_too_large_for_memory_is_only_a_wrong_length():
    refused(idx.read_images, struct.pack(">4I", 0x803, 0xFFFFFFFF, 28, 28))


@pytest.mark.parametrize("length", [0, 1, 7, 15])
def test_header_cut_short(length):
    assert "too few" in refused(idx.read_images, images_file()[:length])


def test_label_beyond_the_classes():
    message = refused(idx.read_labels, labels_file([0, 9, 10, 255]))
    assert "label 10 at position 2" in message


def test_decompress_gives_back_the_content():
    content = bytes(range(256)) * 40
    assert idx.decompress(gzip.compress(content), len(content), "some-file") == content
    assert idx.decompress(gzip.compress(content), len(content) + 5, "some-file") == content
    assert idx.decompress(gzip.compress(b""), 0, "some-file") == b""


def test_decompress_stops_at_the_limit(monkeypatch):
    asked = []
    real = idx.zlib.decompressobj

    class Watched:
        def __init__(self, window):
            self.inner = real(window)

        def decompress(self, data, max_length):
            asked.append(max_length)
            return self.inner.decompress(data, max_length)

    monkeypatch.setattr(idx.zlib, "decompressobj", Watched)
    bomb = gzip.compress(bytes(1_000_000))
    assert "more than the 100 bytes" in refused(idx.decompress, bomb, 100)
    assert asked == [101]


def test_decompress_one_byte_over_the_limit():
    refused(idx.decompress, gzip.compress(bytes(101)), 100)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html>\n<html>", b"", b"\x1f", b"PK\x03\x04zip"])
def test_decompress_refuses_what_is_not_gzip(page):
    assert "not a gzip file" in refused(idx.decompress, page, 100)


def test_decompress_refuses_every_truncation():
    archive = gzip.compress(bytes(range(100)))
    for length in range(2, len(archive)):
        assert "cut short" in refused(idx.decompress, archive[:length], 100)


def test_decompress_refuses_a_wrong_crc_and_a_wrong_length():
    archive = bytearray(gzip.compress(bytes(range(100))))
    for position in (-8, -4):  # the trailer is the CRC, then the length (RFC 1952, 2.3)
        damaged = archive.copy()
        damaged[position] ^= 1
        assert "damaged" in refused(idx.decompress, bytes(damaged), 100)


def test_decompress_refuses_bytes_after_the_end():
    archive = gzip.compress(b"x" * 10)
    assert "1 bytes after" in refused(idx.decompress, archive + b"\0", 100)
    refused(idx.decompress, archive + archive, 100)  # a second member is one too many
