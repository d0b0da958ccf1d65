"""The IDX file format of MNIST and Fashion-MNIST, plain or gzipped.

A header `00 00 <type> <ndim>`, one big-endian 32-bit size per axis, then the entries in C order; images and
labels have type 0x08, unsigned bytes.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, section "file formats".
"""

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import FileError, message

UNSIGNED_BYTE = 0x08
MAX_ENTRIES = 2**31
"""No IDX file of interest is larger; a header that says otherwise is damaged, and nothing is allocated."""


def read_idx(path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """The array of an IDX file with `ndim` axes; `.gz` files are decompressed on the way.

    Raises:
        FileError: not an IDX file of unsigned bytes with `ndim` axes, or not as long as its header says.
    """
    unpack = gzip.open if path.suffix == ".gz" else open
    try:
        with unpack(path, "rb") as stream:
            return _parse(stream.read, path, ndim)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"it does not decompress ({error})") from error


def _parse(read: Callable[[int], bytes], path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """Header, then exactly as many bytes as it announces."""
    head = read(4 + 4 * ndim)
    if len(head) < 4 + 4 * ndim or head[:4] != bytes((0, 0, UNSIGNED_BYTE, ndim)):
        raise _damaged(path, f"its header begins with {head[:4].hex(' ') or 'nothing'}")
    shape = struct.unpack(f">{ndim}I", head[4:])
    count = math.prod(shape)
    if count > MAX_ENTRIES:
        raise _damaged(path, f"its header announces {count} entries")
    body = read(count + 1)
    if len(body) != count:
        many = "more" if len(body) > count else str(len(body))
        raise _damaged(path, f"its header announces {count} entries and it holds {many}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _damaged(path: Path, found: str) -> FileError:
    """The error of a file that is not what its name says."""
    return FileError(message(found, "an IDX file of unsigned bytes", "fetch the file again", origin=f"'{path.name}'"))
