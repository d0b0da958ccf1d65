"""Archive: JSON data and arrays in one file, written whole or not at all, and read with suspicion.

The file is a ZIP of two members, stored uncompressed: `program.json` and `tensors.safetensors`.
Nothing in it is ever extracted to a path or executed, and no size is believed before it is compared
with the file's own.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from safetensors import numpy as safetensors

from opteq_cvx.errors import FileError, message
from opteq_cvx.ir.codec import Tensors, damaged

SCHEMA = 4
"""Version of the file's contents; raised whenever an IR class changes its fields or meaning."""

FORMAT = "opteq_cvx layer"
PROGRAM, TENSORS = "program.json", "tensors.safetensors"


def write(path: str | os.PathLike[str], document: Mapping[str, Any], tensors: Tensors) -> None:
    """Write both members to `path` atomically: a temporary file beside it, synced, then renamed over it.

    Raises:
        OSError: the folder does not exist or cannot be written; an older file at `path` is untouched.
    """
    target = Path(path)
    text = json.dumps({"format": FORMAT, "schema": SCHEMA, **document}, allow_nan=False, ensure_ascii=False)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for member, content in ((PROGRAM, text.encode()), (TENSORS, safetensors.save(tensors))):
                    # A fixed date: equal layers give equal files.
                    info = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
                    archive.writestr(info, content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Tensors]:
    """The document and the arrays of a file.

    Raises:
        FileError: not such a file, damaged, truncated, or of another schema version.
        OSError: there is no file at `path`, or it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            members = _members(file)
            document = json.loads(members[PROGRAM].decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
            _check_version(document)
            return document, {k: np.array(v) for k, v in safetensors.load(members[TENSORS]).items()}
        except FileError:
            raise
        except Exception as error:  # zipfile, json and safetensors raise a dozen types on hostile bytes
            raise damaged(f"{os.fspath(path)!r}: {type(error).__name__}: {error}") from error


def _members(file: BinaryIO) -> dict[str, bytes]:
    """The bytes of the two members, whose declared sizes are compared with the file's before reading."""
    total = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if sorted(i.filename for i in infos) != [PROGRAM, TENSORS]:
            raise damaged(f"members {[i.filename[:80] for i in infos[:8]]}")
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                raise damaged(f"member {info.filename} is compressed or encrypted")
            if info.file_size != info.compress_size:
                raise damaged(f"member {info.filename} declares {info.file_size} bytes")
        if sum(i.file_size for i in infos) > total:
            raise damaged(f"members declare more bytes than the file's {total}")
        return {i.filename: archive.read(i) for i in infos}


def _check_version(document: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise damaged("no layer of opteq_cvx")
    found = document.get("schema")
    if type(found) is not int or found != SCHEMA:
        fix = "load it with the version of opteq_cvx that wrote it, or compile and save the problem again"
        raise FileError(message(f"schema version {found!r}", f"version {SCHEMA}", fix))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs):
        raise ValueError("a key occurs twice")
    return items


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
