"""CIFAR-10's two forms: what comes out, and what damaged files are told."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opteq_cvx.errors import FileError, InputError
from opteq_cvx.train import load_data
from opteq_cvx.train.cifar import JPEG, TEST, TRAIN

RANDOM = np.random.default_rng(0)


def write_records(folder: Path, each: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Six files of random records, from the format's description; the training images and labels."""
    images, labels = [], []
    for name in (*TRAIN, TEST):
        x, y = RANDOM.integers(0, 256, (each, 3, 32, 32), dtype=np.uint8), RANDOM.integers(0, 10, each, dtype=np.uint8)
        (folder / name).write_bytes(
            b"".join(bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True))
        )
        images.append(x)
        labels.append(y)
    return np.concatenate(images[:-1]), np.concatenate(labels[:-1])


def smooth(i: int) -> np.ndarray:
    """An image (32, 32, 3) that JPEG keeps nearly."""
    ramp = np.linspace(0, 255, 32)
    return np.stack([np.tile(ramp, (32, 1)), np.tile(ramp[:, None], (1, 32)), np.full((32, 32), 20.0 * i)], 2)


def write_jpeg(folder: Path, **changes: np.ndarray) -> None:
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 6), ("test", 2)):
        pieces = []
        for i in range(count):
            stream = io.BytesIO()
            Image.fromarray(smooth(i).astype(np.uint8)).save(stream, "JPEG", quality=95, subsampling=0)
            pieces.append(stream.getvalue())
        arrays[f"jpeg_{split}"] = np.frombuffer(b"".join(pieces), np.uint8)
        arrays[f"offset_{split}"] = np.cumsum([0, *map(len, pieces)])
        arrays[f"label_{split}"] = np.arange(count, dtype=np.uint8) // 3
    np.savez(folder / JPEG, **(arrays | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("inner", ["", "cifar10", "cifar-10-batches-bin"])
def test_records_are_read(tmp_path: Path, inner: str) -> None:
    home = tmp_path / inner
    home.mkdir(exist_ok=True)
    x, y = write_records(home)
    data = load_data("cifar10", tmp_path)
    assert (data.image, data.features, len(data.train), len(data.test)) == ((3, 32, 32), 3072, 20, 4)
    np.testing.assert_allclose(data.train.x.numpy(), x.reshape(20, -1) / 255, rtol=1e-6)
    assert data.train.y.tolist() == y.tolist()


def test_jpeg_images_are_read(tmp_path: Path) -> None:
    write_jpeg(tmp_path)
    data = load_data("cifar10", tmp_path)
    assert (len(data.train), len(data.test), data.image) == (6, 2, (3, 32, 32))
    found = data.train.x.reshape(6, 3, 32, 32).numpy() * 255
    for i in range(6):
        assert np.abs(found[i] - smooth(i).transpose(2, 0, 1)).mean() < 3.0
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_subset_has_the_first_of_each_class(tmp_path: Path) -> None:
    write_jpeg(tmp_path)
    whole, part = load_data("cifar10", tmp_path), load_data("cifar10", tmp_path, per_class=2)
    assert part.train.y.tolist() == [0, 0, 1, 1]
    assert (part.train.x == whole.train.x[[0, 1, 3, 4]]).all()
    assert len(part.test) == len(whole.test)
    with pytest.raises(InputError, match="per_class is 0"):
        load_data("cifar10", tmp_path, per_class=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offset_train": np.array([0, 5])}, "offsets"),
        ({"offset_train": np.arange(7)}, "image 0 of 'train' cannot be decoded"),
        ({"offset_train": np.arange(7) * 10**9}, "offsets"),
        ({"offset_train": np.arange(7) - 3}, "offsets"),
        ({"offset_train": np.linspace(0, 9, 7)}, "offsets"),
        ({"label_train": np.full(6, 11, np.uint8)}, "labels from 11 to 11"),
        ({"jpeg_train": np.array([object()])}, "cannot be read"),
    ],
)
def test_damaged_jpeg_files_are_refused(tmp_path: Path, changes: dict[str, np.ndarray], words: str) -> None:
    write_jpeg(tmp_path, **changes)
    with pytest.raises(FileError, match=words):
        load_data("cifar10", tmp_path)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 16)).save(stream, "JPEG")
    data = np.frombuffer(stream.getvalue(), np.uint8)
    write_jpeg(tmp_path, jpeg_train=data, offset_train=np.array([0, data.size]), label_train=np.zeros(1, np.uint8))
    with pytest.raises(FileError, match="16 × 64"):
        load_data("cifar10", tmp_path)


def test_damaged_or_missing_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=TEST):
        load_data("cifar10", tmp_path)
    write_records(tmp_path)
    path = tmp_path / TRAIN[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileError, match="12291 bytes"):
        load_data("cifar10", tmp_path)
    path.write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(FileError, match="to 11"):
        load_data("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=TRAIN[2]):
        load_data("cifar10", tmp_path)
