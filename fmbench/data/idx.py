"""A strict reader of IDX, the format of the MNIST family, and of the gzip around it.

An IDX file is a big-endian header followed by the raw values: two zero bytes, a type code (0x08 for
unsigned bytes), the number of dimensions, then one 32-bit size per dimension. The format is
described on the MNIST page, "THE IDX FILE FORMAT", http://yann.lecun.com/exdb/mnist/.

Nothing is guessed here: a file that is a byte too short or too long is refused.
"""

import math
import struct
import zlib

import numpy as np

from fmbench.core.errors import DataError

IMAGE_MAGIC = 0x00000803
LABEL_MAGIC = 0x00000801
SIDE = 28
CLASSES = 10

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # tells zlib to expect a gzip header and to check its CRC


def read_images(data: bytes, where: str) -> np.ndarray:
    """Reads an IDX file of 28 x 28 grey images.

    Args:
        data: The whole file, not compressed.
        where: What to call the file in an error.

    Returns:
        uint8 (N, 28, 28), 0 black to 255 white: a read-only view of `data`.

    Raises:
        DataError: The magic number, the image size or the length is not what it has to be.
    """
    count, height, width = _sizes(data, IMAGE_MAGIC, 3, where)
    if (height, width) != (SIDE, SIDE):
        raise DataError(f"{where}: images of {height} x {width} pixels; expected {SIDE} x {SIDE}")
    return _values(data, (count, SIDE, SIDE), where)


def read_labels(data: bytes, where: str) -> np.ndarray:
    """Reads an IDX file of class labels.

    Args:
        data: The whole file, not compressed.
        where: What to call the file in an error.

    Returns:
        uint8 (N,), each 0 to 9: a read-only view of `data`.

    Raises:
        DataError: The magic number or the length is wrong, or a label is no class.
    """
    (count,) = _sizes(data, LABEL_MAGIC, 1, where)
    labels = _values(data, (count,), where)
    strays = np.flatnonzero(labels >= CLASSES)
    if strays.size:
        first = int(strays[0])
        raise DataError(f"{where}: label {labels[first]} at position {first}; expected 0 to 9")
    return labels


def decompress(archive: bytes, limit: int, where: str) -> bytes:
    """Inflates one gzip member (RFC 1952), never to more than `limit` + 1 bytes.

    Args:
        archive: The whole `.gz` file.
        limit: The most bytes that the content may have.
        where: What to call the file in an error.

    Returns:
        The content, its CRC and length checked.

    Raises:
        DataError: Not gzip, damaged, cut short, too large inside, or followed by other bytes.
    """
    if not archive.startswith(_GZIP_MAGIC):
        raise DataError(f"{where}: not a gzip file, it begins with {archive[:12]!r}")
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # The byte beyond the limit is what lets zlib go on to the trailer of a file that just fits.
        content = inflater.decompress(archive, limit + 1)
    except zlib.error as error:
        raise DataError(f"{where}: damaged gzip file ({error})") from error
    if len(content) > limit:
        raise DataError(f"{where}: inflates to more than the {limit:,} bytes expected")
    if not inflater.eof:
        raise DataError(f"{where}: gzip file cut short at {len(archive):,} bytes")
    if inflater.unused_data:
        raise DataError(f"{where}: {len(inflater.unused_data):,} bytes after the end of the gzip")
    return content


def _sizes(data: bytes, magic: int, dimensions: int, where: str) -> tuple[int, ...]:
    header = struct.Struct(f">{1 + dimensions}I")
    if len(data) < header.size:
        raise DataError(
            f"{where}: {len(data)} bytes are too few for an IDX header of {header.size}"
        )
    found, *sizes = header.unpack_from(data)
    if found != magic:
        raise DataError(f"{where}: IDX magic number 0x{found:08x}; expected 0x{magic:08x}")
    return tuple(sizes)


def _values(data: bytes, shape: tuple[int, ...], where: str) -> np.ndarray:
    header = 4 + 4 * len(shape)
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise DataError(
            f"{where}: {len(data):,} bytes; expected {expected:,} for {shape[0]:,} items"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
