"""CIFAR-10: the binary files of its authors, or one file of JPEG images.

A record of `data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin` is a label byte and 3072 pixels: 32 × 32 of
red, then green, then blue. The other form, `cifar10_jpeg.npz`, holds for each of "train" and "test" the bytes of all
images (`jpeg_train`), where each begins and the last ends (`offset_train`), and labels (`label_train`); JPEG loses
detail.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, and the data set's web page.
"""

import io
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from opteq_cvx.errors import FileError, InputError, message
from opteq_cvx.extras import require

SIDE, CLASSES = 32, 10
PIXELS = 3 * SIDE * SIDE
TRAIN, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"
JPEG = "cifar10_jpeg.npz"
Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""(n, 3, 32, 32) and labels (n,)."""


def cifar10(folder: Path) -> tuple[Images, Images]:
    """Training and test images in `folder`, `folder/cifar10` or `folder/cifar-10-batches-bin`.

    Raises:
        InputError: none of the files is there.
        MissingExtraError: JPEG images without Pillow.
        FileError: a file is damaged.
    """
    for home in (folder, folder / "cifar10", folder / "cifar-10-batches-bin"):
        if (home / TEST).is_file():
            parts = [read_records(home / name) for name in TRAIN]
            train = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
            return train, read_records(home / TEST)
        if (home / JPEG).is_file():
            return read_jpeg(home / JPEG, "train"), read_jpeg(home / JPEG, "test")
    fix = "put them there or give another --data-dir"
    raise InputError(message(f"'{folder}' has no {TEST} and no {JPEG}", f"{TRAIN[0]} … {TEST}, or {JPEG}", fix))


def read_records(path: Path) -> Images:
    """The records of one binary file."""
    if not path.is_file():
        raise InputError(message(f"'{path.parent}' has no {path.name}", "all six files", "put it there"))
    body = np.fromfile(path, np.uint8)
    if not body.size or body.size % (PIXELS + 1):
        raise _damaged(path, f"{body.size} bytes, not a number of records of {PIXELS + 1}")
    records = body.reshape(-1, PIXELS + 1)
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), _labels(path, records[:, 0])


def read_jpeg(path: Path, split: str) -> Images:
    """The images of one split of a file of JPEG images."""
    pillow = require("PIL.Image", extra="train")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            data, ends, labels = (archive[f"{part}_{split}"] for part in ("jpeg", "offset", "label"))
    except (BadZipFile, ValueError, OSError, KeyError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    sound = data.dtype == np.uint8 and data.ndim == ends.ndim == labels.ndim == 1 and ends.dtype.kind in "iu"
    if not sound or len(ends) != len(labels) + 1 or (np.diff(ends) < 0).any() or ends[0] < 0 or ends[-1] > data.size:
        raise _damaged(path, "offsets that do not fit its images")
    images = np.empty((len(labels), 3, SIDE, SIDE), np.uint8)
    for i, (start, stop) in enumerate(pairwise(ends)):
        try:
            image = pillow.open(io.BytesIO(data[start:stop].tobytes()), formats=("JPEG",))
            if image.size != (SIDE, SIDE):  # before anything is allocated for it
                raise _damaged(path, f"image {i} of '{split}' is {image.size[1]} × {image.size[0]}")
            images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except (OSError, SyntaxError, pillow.DecompressionBombError) as error:
            raise _damaged(path, f"image {i} of '{split}' cannot be decoded ({error})") from error
    return images, _labels(path, labels)


def _labels(path: Path, labels: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    found = np.asarray(labels, dtype=np.int64)
    if found.size and not 0 <= found.min() <= found.max() < CLASSES:
        raise _damaged(path, f"labels from {found.min()} to {found.max()}")
    return found


def _damaged(path: Path, found: str) -> FileError:
    return FileError(message(found, "CIFAR-10", "fetch the file again", origin=f"'{path.name}'"))
