"""IDX, the file format of the MNIST family."""

import math
import struct

import numpy as np

from fmbench.core.errors import DataError

#: The types of IDX by their codes.
_IDX_TYPES = {
    code: np.dtype(name)
    for code, name in ((8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8"))
}


def read_idx(data: bytes) -> np.ndarray:
    """Read a file in IDX, the format of the MNIST family.

    A header of two zero bytes, a type, the number of dimensions and each size as 32 bits, then the
    values, all big-endian ("THE IDX FILE FORMAT", http://yann.lecun.com/exdb/mnist/).

    Args:
        data: The whole file, not compressed.

    Returns:
        An array of the type and the shape that the header gives: a read-only view of `data`.

    Raises:
        DataError: The header is wrong, or the file is shorter or longer than it tells.
    """
    begins = len(data) >= 4 and data[:2] == b"\0\0" and data[2] in _IDX_TYPES and data[3] <= 4
    if not begins or len(data) < (start := 4 + 4 * data[3]):
        raise DataError(f"not an IDX file, it begins with {data[:12]!r}")
    dtype = _IDX_TYPES[data[2]]
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DataError(f"{len(data):,} bytes; {expected:,} expected of {shape}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
