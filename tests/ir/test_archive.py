"""Archive: one file, whole or not at all; anything else is refused without reading or allocating much."""

import io
import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opteq_cvx.errors import FileError
from opteq_cvx.ir import archive

TENSORS = {
    "f": np.arange(6.0).reshape(2, 3),
    "i": np.array([1, 2]),
    "s": np.array(2.5),
    "h": np.ones(3, dtype=np.float32),
    "b": np.array([True]),
    "empty": np.zeros((0, 2)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "a.opteq"
    archive.write(target, {"layer": {"ünïcode": [1, 2.5, None]}}, TENSORS)
    return target


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {n: file.read(n) for n in file.namelist()}


def test_round_trip(path: Path) -> None:
    document, tensors = archive.read(path)
    assert document["layer"] == {"ünïcode": [1, 2.5, None]}
    assert tensors.keys() == TENSORS.keys()
    for key, value in TENSORS.items():
        np.testing.assert_array_equal(tensors[key], value)
        assert tensors[key].dtype == value.dtype
        assert tensors[key].shape == value.shape
    with zipfile.ZipFile(path) as file:
        assert {i.compress_type for i in file.infolist()} == {zipfile.ZIP_STORED}
    assert list(path.parent.iterdir()) == [path]


def test_equal_contents_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "b.opteq"
    archive.write(again, {"layer": {"ünïcode": [1, 2.5, None]}}, TENSORS)
    assert again.read_bytes() == path.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_litter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        archive.write(path, {}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nan_in_json_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        archive.write(tmp_path / "a", {"x": float("nan")}, {})
    assert list(tmp_path.iterdir()) == []


def test_truncation_at_every_offset(path: Path) -> None:
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(FileError, match="Fix: "):
            archive.read(path)


def test_flipped_bytes_are_refused_or_harmless(path: Path) -> None:
    whole, expected = path.read_bytes(), archive.read(path)[0]
    refused = 0
    for n in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[n] ^= 0x41
        path.write_bytes(bytes(damaged))
        try:
            assert archive.read(path)[0] == expected
        except FileError:
            refused += 1
    assert refused > len(whole) / 6


def safetensors(header: dict[str, Any] | bytes, body: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


F64 = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
BODIES = {
    "header length beyond the file": safetensors({"a": F64}, bytes(8), length=2**40),
    "header length 2^64 - 1": safetensors({"a": F64}, bytes(8), length=2**64 - 1),
    "huge shape": safetensors({"a": {**F64, "shape": [10**15]}}, bytes(8)),
    "overflowing shape": safetensors({"a": {**F64, "shape": [2**33, 2**33]}}, bytes(8)),
    "offsets beyond the data": safetensors({"a": {**F64, "shape": [10**6], "data_offsets": [0, 8 * 10**6]}}, bytes(8)),
    "negative shape": safetensors({"a": {**F64, "shape": [-1]}}, bytes(8)),
    "overlapping tensors": safetensors({"a": F64, "b": F64}, bytes(8)),
    "data after the last tensor": safetensors({"a": F64}, bytes(80)),
    "unknown dtype": safetensors({"a": {**F64, "dtype": "OBJECT"}}, bytes(8)),
    "header is no JSON": safetensors(b"{'a': ", bytes(8)),
    "empty": b"",
    "seven bytes": bytes(7),
}


@pytest.mark.parametrize("name", BODIES)
def test_hostile_tensors(path: Path, name: str) -> None:
    pack(path, {**members(path), archive.TENSORS: BODIES[name]})
    tracemalloc.start()
    with pytest.raises(FileError):
        archive.read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


GOOD = {"format": archive.FORMAT, "schema": archive.SCHEMA}
DOCUMENTS = {
    "version 999": (json.dumps({**GOOD, "schema": 999}), "schema version 999"),
    "no version": (json.dumps({"format": archive.FORMAT}), "schema version None"),
    "version True": (json.dumps({**GOOD, "schema": True}), "schema version True"),
    "version 1.0": (json.dumps({**GOOD, "schema": 1.0}), r"schema version 1\.0"),
    "other format": (json.dumps({**GOOD, "format": "zip"}), "no layer"),
    "a list": ("[]", "no layer"),
    "NaN": (f'{{"format": "{archive.FORMAT}", "schema": 1, "x": NaN}}', "NaN is not JSON"),
    "Infinity": (f'{{"format": "{archive.FORMAT}", "schema": 1, "x": -Infinity}}', "Infinity is not JSON"),
    "twice": (f'{{"format": "{archive.FORMAT}", "schema": 1, "schema": 1}}', "twice"),
    "deep": ("[" * 200_000, "RecursionError"),
    "long number": ("1" * 10_000, "ValueError"),
    "empty": ("", "JSONDecodeError"),
    "not text": (b"\xff\xfe", "UnicodeDecodeError"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_hostile_documents(path: Path, name: str) -> None:
    text, words = DOCUMENTS[name]
    pack(path, {**members(path), archive.PROGRAM: text if isinstance(text, bytes) else text.encode()})
    with pytest.raises(FileError, match=words):
        archive.read(path)


@pytest.mark.parametrize("extra", ["../evil", "/etc/passwd", "C:\\evil", "program.json/", "sub/program.json"])
def test_other_members_are_refused_and_nothing_is_extracted(path: Path, extra: str) -> None:
    good = members(path)
    for content in (
        {**good, extra: b"x"},
        {extra: good[archive.PROGRAM], archive.TENSORS: good[archive.TENSORS]},
    ):
        pack(path, content)
        with pytest.raises(FileError, match="members"):
            archive.read(path)
    assert list(path.parent.iterdir()) == [path]


def test_missing_and_doubled_members(path: Path) -> None:
    good = members(path)
    pack(path, {archive.PROGRAM: good[archive.PROGRAM]})
    with pytest.raises(FileError, match="members"):
        archive.read(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(archive.PROGRAM, good[archive.PROGRAM])
        file.writestr(archive.TENSORS, good[archive.TENSORS])
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr(archive.PROGRAM, good[archive.PROGRAM])
    with pytest.raises(FileError, match="members"):
        archive.read(path)


def test_zip_bombs_are_refused_before_they_unfold(path: Path) -> None:
    pack(path, {archive.PROGRAM: bytes(2**26), archive.TENSORS: b""}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(FileError, match="compressed"):
        archive.read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_declared_sizes_are_not_believed(path: Path) -> None:
    raw = path.read_bytes()
    buffer = io.BytesIO(raw)
    with zipfile.ZipFile(buffer) as file:
        size = file.getinfo(archive.TENSORS).file_size
    central = raw.rindex(b"PK\x01\x02")
    huge = bytearray(raw)
    assert struct.unpack_from("<II", raw, central + 20) == (size, size)
    struct.pack_into("<II", huge, central + 20, 2**31, 2**31)
    path.write_bytes(bytes(huge))
    tracemalloc.start()
    with pytest.raises(FileError, match="more bytes"):
        archive.read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_missing_file_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive.read(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        archive.write(tmp_path / "none" / "a", {}, {})
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FileError, match="not a zip"):
        archive.read(tmp_path / "text")
