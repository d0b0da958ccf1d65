"""Checkpoint files that are truncated, damaged or hostile are refused with words, whatever is in them."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from opteq_cvx.errors import FileError
from opteq_cvx.train.checkpoint import Position, load_checkpoint, save_checkpoint

POSITION = Position(epoch=1, step=2, seed=3, total=4)


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network and its optimizer after one step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "checkpoint"
    save_checkpoint(target, *parts(), POSITION, {"loss": 0.5})
    return target


def test_a_whole_file_is_read(path: Path) -> None:
    assert load_checkpoint(path, *parts()) == (POSITION, {"loss": 0.5})


def test_truncated_files_are_refused(path: Path) -> None:
    whole = path.read_bytes()
    for n in {*range(0, len(whole), 97), len(whole) - 1}:
        path.write_bytes(whole[:n])
        with pytest.raises(FileError, match="Fix: "):
            load_checkpoint(path, *parts())


STATE: dict[str, Any] = {"schema": 1, "position": {"epoch": 1, "step": 2, "seed": 3, "total": 4}, "extra": {}}
STATES: dict[str, str] = {
    "a list": "[]",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "no position": json.dumps({**STATE, "position": None}),
    "a position of other names": json.dumps({**STATE, "position": {"epoch": 1}}),
    "a position in words": json.dumps({**STATE, "position": {**STATE["position"], "step": "2"}}),
    "extra is a list": json.dumps({**STATE, "extra": []}),
    "another schema": json.dumps({**STATE, "schema": 99}),
}


@pytest.mark.parametrize("name", STATES)
def test_hostile_states_are_refused(path: Path, name: str) -> None:
    save_file(load_file(path), path, metadata={"state": STATES[name]})
    with pytest.raises(FileError, match="Fix: "):
        load_checkpoint(path, *parts())


EDITS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "no random state": lambda t: t.pop("random.cpu"),
    "a random state of floats": lambda t: t.update({"random.cpu": torch.zeros(3)}),
    "a short random state": lambda t: t.update({"random.cpu": torch.zeros(3, dtype=torch.uint8)}),
    "a weight too few": lambda t: t.pop("model.weight"),
    "a weight of another shape": lambda t: t.update({"model.weight": torch.zeros(7)}),
    "momentum of another shape": lambda t: t.update({"optimizer.0.exp_avg": torch.zeros(7)}),
    "momentum of no parameter": lambda t: t.update({"optimizer.9.exp_avg": torch.zeros(7)}),
    "momentum without a number": lambda t: t.update({"optimizer.x.exp_avg": torch.zeros(7)}),
}


@pytest.mark.parametrize("name", EDITS)
def test_hostile_tensors_are_refused(path: Path, name: str) -> None:
    tensors = load_file(path)
    EDITS[name](tensors)
    save_file(tensors, path, metadata={"state": json.dumps(STATE)})
    with pytest.raises(FileError, match="Fix: "):
        load_checkpoint(path, *parts())


class Evil:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_pickles_and_huge_headers_are_refused_unopened(path: Path, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F64", "shape": [10**14], "data_offsets": [0, 8 * 10**14]}}).encode()
    for content in (pickle.dumps(Evil(tmp_path / "owned")), struct.pack("<Q", len(header)) + header, bytes(8)):
        path.write_bytes(content)
        with pytest.raises(FileError):
            load_checkpoint(path, *parts())
    assert not (tmp_path / "owned").exists()
