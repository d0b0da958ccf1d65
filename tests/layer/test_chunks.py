"""Batches in chunks: the same values and gradients, less memory, smaller chunks where memory is short."""

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import opteq_cvx as oc
from opteq_cvx.errors import InputError, SolveWarning


@pytest.fixture(scope="module")
def layer() -> oc.EquilibriumLayer:
    x, lam = oc.Input(4, name="x"), oc.Input(name="lam", nonneg=True)
    W = oc.Weight((6, 4), name="W", init=np.random.default_rng(0).normal(size=(6, 4)))
    u = cp.Variable(6, name="u")
    energy = cp.sum_squares(u - W @ x) + lam * cp.norm1(u) + cp.norm(u, 2)
    return oc.compile(cp.Problem(cp.Minimize(energy), [cp.sum(u) <= 1]), [x, lam], [u, u[:2]], tolerance=1e-9).double()


def data(*batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*batch, 4, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("batch", [(23,), (3, 5), (1,), (), (0,)], ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_change_neither_values_nor_gradients(
    layer: oc.EquilibriumLayer, batch: tuple[int, ...], chunk: int
) -> None:
    found: list[tuple[Tensor, ...]] = []
    for options in ({}, {"chunk": chunk}):
        inputs = data(*batch)
        values = layer(*inputs, **options)
        leaves = (*inputs, *layer.parameters())
        grads = torch.autograd.grad(values[0].pow(2).sum() + values[1].sum(), leaves)
        found.append((*values, *grads))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)


def test_no_more_than_a_chunk_is_solved_at_once_and_little_is_kept(
    layer: oc.EquilibriumLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, run, kept = list[int](), layer._run, 0

    def watched(inputs: Any, named: Any, *args: Any, **more: Any) -> Any:
        sizes.append(max(v.shape[0] for v in named.values()))
        return run(inputs, named, *args, **more)

    def pack(t: Tensor) -> Tensor:
        nonlocal kept
        kept += t.nbytes
        return t

    x, lam = data(60)
    with saved_tensors_hooks(pack, lambda t: t):
        layer(x, lam)
    whole, kept = kept, 0
    monkeypatch.setattr(layer, "_run", watched)
    with saved_tensors_hooks(pack, lambda t: t):
        (u, _) = layer(x, lam, chunk=8)
    assert sizes == [8] * 7 + [4]
    assert kept < whole / 4
    u.sum().backward()
    assert sorted(sizes[8:]) == [4] + [8] * 7


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_out_of_memory_falls_back_to_smaller_chunks(
    layer: oc.EquilibriumLayer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run, sizes, most = layer._run, list[int](), 3

    def short(inputs: Any, named: Any, *args: Any, **more: Any) -> Any:
        sizes.append(max(v.shape[0] for v in named.values()))
        if sizes[-1] > most:
            raise error
        return run(inputs, named, *args, **more)

    x, lam = data(13)
    (expected, _) = layer(x, lam)
    monkeypatch.setattr(layer, "_run", short)
    (found, _) = layer(x, lam, chunk=8)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 1]
    most = 0
    with pytest.raises(type(error)):
        layer(x, lam, chunk=8)


def test_other_errors_are_not_taken_for_lack_of_memory(
    layer: oc.EquilibriumLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(*args: Any, **more: Any) -> Any:
        calls.append(None)
        raise RuntimeError("something else")

    monkeypatch.setattr(layer, "_run", broken)
    with pytest.raises(RuntimeError, match="something else"):
        layer(*data(9), chunk=4)
    assert len(calls) == 1


def test_failures_are_reported_in_forward_only(layer: oc.EquilibriumLayer) -> None:
    x, lam = data(6)
    spoiled = x.detach().clone()
    spoiled[4] = torch.nan
    spoiled.requires_grad_()
    with pytest.warns(SolveWarning, match="1 of 3 samples"), oc.record() as log:
        (u, _) = layer(spoiled, lam, chunk=3)
    assert len(log) == 2
    with warnings.catch_warnings(), oc.record() as log:
        warnings.simplefilter("error")
        u.sum().backward()
    assert len(log) == 0
    assert spoiled.grad is not None
    assert bool((spoiled.grad[4] == 0).all())
    assert bool((spoiled.grad[:4] != 0).any())


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_holds_at_least_one_sample(layer: oc.EquilibriumLayer, chunk: int) -> None:
    with pytest.raises(InputError, match="chunk="):
        layer(*data(5), chunk=chunk)
