"""Readers of data: what comes out, and what damaged files are told."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from opteq_cvx.errors import FileError, InputError
from opteq_cvx.train.data import DIGITS_TEST, load_data
from opteq_cvx.train.idx import read_idx

RANDOM = np.random.default_rng(0)


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX encoding, written from the format's description."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, zipped: bool = True, train: int = 20, test: int = 7) -> dict[str, np.ndarray]:
    """Four files in MNIST's layout with random images of 4 × 3 pixels."""
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = RANDOM.integers(0, 256, (count, 4, 3))
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count) % 5
    for name, array in arrays.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inner", ["", "mnist"])
def test_an_idx_folder_is_read(tmp_path: Path, zipped: bool, inner: str) -> None:
    home = tmp_path / inner
    home.mkdir(exist_ok=True)
    arrays = write_mnist(home, zipped=zipped)
    data = load_data("mnist", tmp_path)
    assert (data.features, data.classes, len(data.train), len(data.test)) == (12, 5, 20, 7)
    expected = arrays["train-images-idx3-ubyte"].reshape(20, 12) / 255
    np.testing.assert_allclose(data.train.x.numpy(), expected, rtol=1e-6)
    assert data.test.y.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert data.train.x.dtype == torch.float32


GOOD = idx_bytes(RANDOM.integers(0, 256, (3, 2, 2)))
DAMAGED = {
    "cut short": GOOD[:-1],
    "too long": GOOD + b"\0",
    "cut in the header": GOOD[:10],
    "empty": b"",
    "another type": GOOD[:2] + b"\x0d" + GOOD[3:],
    "another number of axes": GOOD[:3] + b"\x01" + GOOD[4:],
    "a huge size": GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:],
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_idx_file_is_named(tmp_path: Path, case: str, zipped: bool) -> None:
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(DAMAGED[case], mtime=0) if zipped else DAMAGED[case])
    with pytest.raises(FileError, match=r"'images(\.gz)?': .*Fix: "):
        read_idx(path, 3)


@pytest.mark.parametrize(
    "content", [gzip.compress(GOOD, mtime=0)[:-9], b"no gzip at all", gzip.compress(GOOD, mtime=0)[:12]]
)
def test_a_damaged_gzip_stream_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(FileError, match="does not decompress"):
        read_idx(path, 3)


def test_images_and_labels_must_agree(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(19))))
    with pytest.raises(FileError, match=r"\(20, 4, 3\) with labels of shape \(19,\)"):
        load_data("mnist", tmp_path)


def test_a_missing_file_or_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        load_data("mnist", tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        load_data("mnist", tmp_path / "nowhere")
    with pytest.raises(InputError, match="--data-dir"):
        load_data("fashion_mnist")
    with pytest.raises(InputError, match="no data is called 'cifar'"):
        load_data("cifar", tmp_path)


def test_an_npz_file_is_read(tmp_path: Path) -> None:
    x, y = RANDOM.normal(size=(6, 2, 2)), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    data = load_data("mine.npz", tmp_path)
    assert (data.name, data.features, data.classes, len(data.test)) == ("mine", 4, 3, 2)
    np.testing.assert_allclose(data.train.x.numpy(), x.reshape(6, 4), rtol=1e-6)


def test_npz_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    x, y = RANDOM.normal(size=(6, 4)), np.arange(6)
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    wrong = {
        "lacks y_test": {k: v for k, v in good.items() if k != "y_test"},
        "one shape": good | {"x_test": x[:, :3]},
        "integers": good | {"y_train": y * 1.0},
        "cannot be read": good | {"y_train": np.array([None] * 6, dtype=object)},
        "n > 0": good | {"x_test": x[:0], "y_test": y[:0]},
    }
    for words, arrays in wrong.items():
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(FileError, match=words):
            load_data("wrong.npz", tmp_path)
    (tmp_path / "wrong.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(FileError, match="cannot be read"):
        load_data("wrong.npz", tmp_path)


def test_the_digits_are_complete_and_split_without_overlap() -> None:
    data = load_data("digits")
    assert (len(data.train), len(data.test), data.features, data.classes) == (
        1797 - DIGITS_TEST,
        DIGITS_TEST,
        64,
        10,
    )
    assert float(data.train.x.min()) == 0.0
    assert float(data.train.x.max()) == 1.0
    rows = {tuple(r.tolist()) for r in data.train.x}
    assert not any(tuple(r.tolist()) in rows for r in data.test.x)
    assert (load_data("digits").train.x == data.train.x).all()
