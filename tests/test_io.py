"""Save and load: the same layer comes back, without CVXPY; foreign files are refused."""

import os
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import FileError
from opteq_cvx.io import _starts, load, option_classes, save
from opteq_cvx.ir import archive
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.param import Leaf, Stage
from opteq_cvx.iterate import Halpern
from opteq_cvx.options import Options
from tests.io_helper import Mine


def make(dtype: torch.dtype = torch.float64, **options: Any) -> oc.EquilibriumLayer:
    x = oc.Input(3, name="x")
    W = oc.Weight((4, 4), name="W", norm=0.9, seed=0)
    U = oc.Weight((4, 3), name="U", seed=1)
    lam = oc.Weight(name="odd.name λ", nonneg=True, init=0.1)
    u = cp.Variable(4, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(4) - W @ W.T)) - (U @ x) @ u + lam * cp.norm1(u)
    return oc.compile(cp.Problem(cp.Minimize(energy)), outputs=[u, 2 * u + 1], **options).to(dtype)


@pytest.fixture(scope="module")
def layer() -> oc.EquilibriumLayer:
    return make()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_loaded_layer_is_the_same_layer(tmp_path: Path, dtype: torch.dtype) -> None:
    layer = make(dtype)
    path = tmp_path / "layer.opteq"
    save(layer, path)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = load(path)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), (other, b) in zip(layer.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other
        assert a.dtype == b.dtype == dtype
        assert torch.equal(a, b)
    x = torch.randn(5, 3, dtype=dtype)
    for a, b in zip(layer(x), twin(x), strict=True):
        assert torch.equal(a, b)
    assert (twin.input_names, twin.output_names) == (layer.input_names, layer.output_names)
    twin(x)[0].sum().backward()
    assert all(p.grad is not None for p in twin.parameters())


def test_options_survive(tmp_path: Path) -> None:
    layer = make(tolerance=1e-8, max_steps=123, on_failure="nan")
    save(layer, tmp_path / "a")
    options = load(tmp_path / "a").options
    assert (options.tolerance, options.max_steps, options.on_failure) == (1e-8, 123, "nan")
    assert type(options.iteration) is type(layer.options.iteration)
    assert type(options.adjoint) is type(layer.options.adjoint)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, layer: oc.EquilibriumLayer) -> None:
    save(layer, tmp_path / "a")
    save(load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_at_a_boundary_or_not_finite_come_back_silently(tmp_path: Path) -> None:
    layer = make(torch.float32)
    with torch.no_grad():
        layer.weights.raw("odd.name λ").fill_(-1e9)  # softplus underflows to exactly 0
        layer.weights.raw("U").fill_(float("nan"))
    save(layer, tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = load(tmp_path / "a")
    assert float(twin.weights["odd.name λ"].detach()) == 0.0
    assert bool(torch.isnan(twin.weights["U"]).all())


def test_bfloat16_weights_come_back_exactly(tmp_path: Path) -> None:
    layer = make(torch.bfloat16)
    save(layer, tmp_path / "a")
    for a, b in zip(layer.parameters(), load(tmp_path / "a").parameters(), strict=True):
        assert b.dtype == torch.bfloat16
        assert torch.equal(a, b)


def test_loading_and_running_imports_no_cvxpy(tmp_path: Path, layer: oc.EquilibriumLayer) -> None:
    save(layer, tmp_path / "a")
    script = (
        "import sys, torch, opteq_cvx as oc\n"
        f"layer = oc.load({os.fspath(tmp_path / 'a')!r})\n"
        "(u, v) = layer(torch.ones(3, dtype=torch.float64))\n"
        "assert not {'cvxpy', 'clarabel', 'cvxpylayers'} & set(sys.modules)\n"
        "print(u.tolist())\n"
    )
    root = Path(oc.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    expected = layer(torch.ones(3, dtype=torch.float64))[0].tolist()
    np.testing.assert_allclose(eval(run.stdout), expected, atol=1e-9)


def test_option_classes_are_found_through_the_annotations() -> None:
    names = option_classes().keys()
    assert {"Options", "Anderson", "Plain", "Halpern", "Implicit"} <= names


def test_a_third_partys_iteration_can_be_saved(tmp_path: Path, layer: oc.EquilibriumLayer) -> None:
    layer.options = Options(iteration=Mine(knob=7))
    try:
        save(layer, tmp_path / "a")
        found = load(tmp_path / "a").options.iteration
    finally:
        layer.options = Options()
    assert found == Mine(knob=7)


def test_options_without_an_encoding_are_named(tmp_path: Path, layer: oc.EquilibriumLayer) -> None:
    layer.options = Options(iteration=Halpern(anchor=torch.zeros(4)))
    try:
        with pytest.raises(FileError, match=r"Halpern\.anchor"):
            save(layer, tmp_path / "a")
    finally:
        layer.options = Options()
    assert list(tmp_path.iterdir()) == []


def rewrite(path: Path, edit: Any) -> None:
    document, tensors = archive.read(path)
    edit(document, tensors)
    archive.write(path, {k: v for k, v in document.items() if k not in ("format", "schema")}, tensors)


EDITS: dict[str, Any] = {
    "no layer": lambda d, t: d.pop("layer"),
    "no weights": lambda d, t: d.pop("weights"),
    "weights is a list": lambda d, t: d.update(weights=[]),
    "a weight too few": lambda d, t: d["weights"].pop("U"),
    "a weight too many": lambda d, t: d["weights"].update(V=d["weights"]["U"]),
    "a weight of another shape": lambda d, t: t.update(w0=np.zeros((2, 2))),
    "a weight of another dtype": lambda d, t: t.update(w0=t["w0"].astype(np.float32)),
    "a weight of an unknown dtype": lambda d, t: d["weights"]["U"].update(dtype="object"),
    "a missing tensor": lambda d, t: t.pop("w1"),
    "the root is no pair": lambda d, t: d["layer"].update(root=1),
    "the root is the program twice": lambda d, t: d["layer"]["root"]["tuple"].__setitem__(
        1, d["layer"]["root"]["tuple"][0]
    ),
    "options out of range": lambda d, t: next(n for n in d["layer"]["nodes"] if n["is"] == "Options").update(
        max_steps=-1
    ),
    "an unknown adjoint": lambda d, t: next(n for n in d["layer"]["nodes"] if n["is"] == "Implicit").update(
        {"is": "Evil"}
    ),
    "an unknown atom": lambda d, t: next(n for n in d["layer"]["nodes"] if n["is"] == "Term").update(atom="../evil"),
    "a huge weight": lambda d, t: next(n for n in d["layer"]["nodes"] if n.get("name") == "W").update(
        shape={"tuple": [10**5, 10**5]}
    ),
}


def test_a_small_file_cannot_ask_for_a_huge_dense_weight(tmp_path: Path) -> None:
    x, W = oc.Input(3, name="x"), oc.Weight((3, 3), name="W", diag=True)
    u = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - W @ x)))
    save(oc.compile(problem, outputs=[u]), tmp_path / "a")
    program = load(tmp_path / "a").program
    huge = Leaf("W", (2**15, 2**15), Stage.WEIGHT, FrozenDict(sparsity=(np.array([0]), np.array([1]))))
    with pytest.raises(FileError, match="mostly zeros"):
        _starts(replace(program, parameters=(program.parameters[0], huge)), {"W": torch.ones(1)})


@pytest.mark.parametrize("name", EDITS)
def test_inconsistent_files_are_refused(tmp_path: Path, layer: oc.EquilibriumLayer, name: str) -> None:
    path = tmp_path / "a"
    save(layer, path)
    rewrite(path, EDITS[name])
    with pytest.raises(FileError, match="Fix: "):
        load(path)


def test_truncated_files_are_refused(tmp_path: Path, layer: oc.EquilibriumLayer) -> None:
    path = tmp_path / "a"
    save(layer, path)
    whole = path.read_bytes()
    for n in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:n])
        with pytest.raises(FileError):
            load(path)


def test_there_is_no_pickle_in_the_file(tmp_path: Path, layer: oc.EquilibriumLayer) -> None:
    save(layer, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as file:
        assert sorted(file.namelist()) == ["program.json", "tensors.safetensors"]
