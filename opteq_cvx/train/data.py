"""Labelled data in memory: scikit-learn's digits, MNIST, Fashion-MNIST, CIFAR-10 and NPZ files.

Nothing is downloaded: a reader takes a folder, and the digits ship inside scikit-learn.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from opteq_cvx.errors import FileError, InputError, message
from opteq_cvx.extras import require
from opteq_cvx.train.cifar import cifar10
from opteq_cvx.train.idx import read_idx

DIGITS_TEST = 360
"""Samples of the digits kept for testing: a fifth of the 1797."""
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
IDX_NAMES, CIFAR = ("mnist", "fashion_mnist"), "cifar10"


@dataclass(frozen=True, slots=True)
class Split:
    """Samples x (n, features), float32, and labels y (n,), int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class Data:
    """A classification task with labels 0 … classes − 1; `image` is the shape (C, H, W) of samples that are images."""

    name: str
    train: Split
    test: Split
    classes: int
    image: tuple[int, int, int] | None = None

    @property
    def features(self) -> int:
        """Numbers per sample."""
        return self.train.x.shape[1]


def load_data(name: str, folder: Path | None = None, *, per_class: int | None = None) -> Data:
    """The data called `name`: "digits", "mnist", "fashion_mnist", "cifar10", or an `.npz` file in `folder`.

    Args:
        per_class: of the training samples keep the first so many of each class; the test stays whole.

    Raises:
        InputError: an unknown name, or a folder that is missing.
        FileError: a file that is damaged or does not fit the others.
    """
    data = _load(name, folder)
    return data if per_class is None else _fewer(data, per_class)


def _load(name: str, folder: Path | None) -> Data:
    if name == "digits":
        return digits()
    if name not in (*IDX_NAMES, CIFAR) and not name.endswith(".npz"):
        known = ", ".join(("digits", *IDX_NAMES, CIFAR, "or a file name ending in .npz"))
        raise InputError(message(f"no data is called '{name}'", known, "correct the name"))
    if folder is None or not folder.is_dir():
        where = "no folder was given" if folder is None else f"'{folder}' is not a folder"
        raise InputError(message(where, f"the folder with the files of {name}", "pass --data-dir DIR"))
    if name == CIFAR:
        (x, y), (x_test, y_test) = cifar10(folder)
        return _data(name, (x / np.float32(255), y, x_test / np.float32(255), y_test))
    return npz(folder / name) if name.endswith(".npz") else idx_folder(folder, name)


def _fewer(data: Data, per_class: int) -> Data:
    """The first `per_class` training samples of each class, in the order of the file."""
    if per_class < 1:
        raise InputError(message(f"per_class is {per_class}", "at least 1", "raise it or leave it out"))
    y = data.train.y
    rank = torch.zeros_like(y)
    for label in range(data.classes):
        rank[y == label] = torch.arange(int((y == label).sum()))
    keep = rank < per_class
    return replace(data, train=Split(data.train.x[keep], y[keep]))


def digits() -> Data:
    """The 1797 digits of 8 × 8 pixels that ship with scikit-learn, in [0, 1]; a fixed fifth is the test."""
    bunch = require("sklearn.datasets", extra="train").load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x, y = np.asarray(bunch.data)[order] / 16.0, np.asarray(bunch.target)[order]
    held = DIGITS_TEST
    return _data("digits", (x[held:], y[held:], x[:held], y[:held]))


def idx_folder(folder: Path, name: str) -> Data:
    """MNIST's four files in `folder` (or in `folder/name`), plain or gzipped, pixels scaled to [0, 1].

    Raises:
        InputError: a file is missing.
        FileError: a file is damaged, or images and labels differ in number.
    """
    inner = folder / name
    home = inner if inner.is_dir() else folder
    arrays: list[npt.NDArray[np.generic]] = []
    for part in ("train", "t10k"):
        arrays.append(read_idx(_find(home, f"{part}-images-idx3-ubyte"), 3) / np.float32(255))
        arrays.append(read_idx(_find(home, f"{part}-labels-idx1-ubyte"), 1))
    return _data(name, (arrays[0], arrays[1], arrays[2], arrays[3]))


def npz(path: Path) -> Data:
    """An `.npz` file with the arrays x_train, y_train, x_test, y_test; x is taken as it is.

    Raises:
        InputError: no such file.
        FileError: damaged, with pickled objects, without one of the arrays, or of unequal lengths.
    """
    if not path.is_file():
        raise InputError(message(f"'{path}' is not a file", "an .npz file", "correct the name"))
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            missing = [key for key in NPZ_KEYS if key not in archive]
            if missing:
                lacks = f"it lacks {', '.join(missing)}"
                fix = "save it with numpy.savez and these names"
                raise FileError(message(lacks, ", ".join(NPZ_KEYS), fix, origin=f"'{path.name}'"))
            x, y, x_test, y_test = (archive[key] for key in NPZ_KEYS)
    except (BadZipFile, ValueError, OSError) as error:
        if isinstance(error, FileError):
            raise
        fix = "save it again with numpy.savez"
        raise FileError(message(f"it cannot be read ({error})", "arrays", fix, origin=f"'{path.name}'")) from error
    return _data(path.stem, (x, y, x_test, y_test))


def _find(folder: Path, stem: str) -> Path:
    """The plain or gzipped file called `stem` in `folder`."""
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    fix = "put it there or give another --data-dir"
    raise InputError(message(f"'{folder}' has no {stem}", f"{stem} or {stem}.gz", fix))


Arrays = tuple[npt.NDArray[np.generic], npt.NDArray[np.generic], npt.NDArray[np.generic], npt.NDArray[np.generic]]


def _data(name: str, arrays: Arrays) -> Data:
    """Flatten, convert and check: as many labels as samples, both splits alike, labels that count from 0."""
    x, y, x_test, y_test = arrays
    for samples, labels in ((x, y), (x_test, y_test)):
        if labels.ndim != 1 or samples.ndim < 2 or len(samples) != len(labels) or len(labels) == 0:
            found = f"samples of shape {samples.shape} with labels of shape {labels.shape}"
            raise FileError(message(found, "(n, ...) and (n,) with n > 0", "check the files", origin=name))
    if x.shape[1:] != x_test.shape[1:]:
        found = f"training samples of shape {x.shape[1:]}, test samples of shape {x_test.shape[1:]}"
        raise FileError(message(found, "one shape", "check the files", origin=name))
    if not all(np.issubdtype(v.dtype, np.integer) for v in (y, y_test)) or min(y.min(), y_test.min()) < 0:
        raise FileError(message("labels that do not count from 0", "integers ≥ 0", "recode them", origin=name))
    classes = int(max(y.max(), y_test.max())) + 1
    return Data(name, _split(x, y), _split(x_test, y_test), classes, _image(x.shape[1:]))


def _image(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The shape (C, H, W) of samples (H, W) or (C, H, W); None for vectors."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None


def _split(x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> Split:
    """Arrays as tensors, samples flattened."""
    flat = np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32)
    return Split(torch.from_numpy(flat), torch.from_numpy(np.asarray(y, dtype=np.int64)))
