"""One layer from many threads and processes: equal answers, no state shared; copies are apart; pickling is refused."""

import copy
import gc
import multiprocessing
import pickle
import resource
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

import opteq_cvx as oc
from opteq_cvx.errors import OpteqError

THREADS = 16


def make() -> oc.EquilibriumLayer:
    """A layer with a weight, an input, constraints and a status to fail with."""
    x = oc.Input(4, name="x")
    W = oc.Weight((6, 4), name="W", init=np.random.default_rng(0).normal(size=(6, 4)))
    u = cp.Variable(6, name="u")
    objective = cp.Minimize(cp.sum_squares(u - W @ x) + 0.3 * cp.norm1(u))
    return oc.compile(cp.Problem(objective, [cp.sum(u) <= 1, u >= -1]), [x], [u], tolerance=1e-8).double()


def batch(seed: int) -> Tensor:
    """(1 … 7, 4) inputs, one sample of some batches not finite."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1 + seed % 7, 4, generator=generator, dtype=torch.float64)
    if seed % 5 == 0:
        x[0, 0] = torch.nan
    return x


def answer(layer: oc.EquilibriumLayer, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, codes and the gradient in the inputs."""
    x = batch(seed).requires_grad_()
    solution = layer.solve(x)
    (grad,) = torch.autograd.grad(solution.values[0].square().sum(), x)
    return solution.values[0].detach(), solution.status.codes, grad


def hammered(seconds: float) -> int:
    """Answers of one layer, in many threads at once, equal to those of one thread; how many were compared."""
    layer, seeds = make(), range(12)
    alone, end = [answer(layer, s) for s in seeds], time.monotonic() + seconds

    def work(number: int) -> int:
        count = 0
        while count == 0 or time.monotonic() < end:
            seed = (number + count) % len(seeds)
            found = answer(layer, seed)
            assert torch.equal(found[1], alone[seed][1])
            for a, b in zip(found, alone[seed], strict=True):
                torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-7, equal_nan=True)
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(work, range(THREADS)))


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_a_layer_answers_many_threads_as_it_answers_one() -> None:
    assert hammered(1.0) >= THREADS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_a_layer_answers_many_threads_for_a_minute() -> None:
    assert hammered(60.0) >= 100 * THREADS


def test_what_a_thread_records_is_its_own() -> None:
    layer = make()

    def work(calls: int) -> int:
        with oc.record() as log:
            for _ in range(calls):
                layer(batch(1))
        assert all(entry.status.all_converged and entry.stats.distance_bound is not None for entry in log)
        return len(log)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(1, 5))) == [1, 2, 3, 4]


class Solutions(Dataset[Tensor]):
    """Solutions as a data set; the layer travels as a file, which is what spawned workers need."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __len__(self) -> int:
        return 4

    @override
    def __getitem__(self, index: int) -> Tensor:
        return oc.load(self.path)(batch(index + 1)[0])[0].detach()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loaders_solve_in_their_workers(tmp_path: object, method: str) -> None:
    layer, path = make(), f"{tmp_path}/layer.opteq"
    oc.save(layer, path)
    context = multiprocessing.get_context(method)
    loader = DataLoader(Solutions(path), batch_size=2, num_workers=2, multiprocessing_context=context)
    found = torch.cat(list(loader))
    expected = torch.stack([layer(batch(i + 1)[0])[0].detach() for i in range(4)])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


def test_a_copy_has_weights_of_its_own() -> None:
    layer = make()
    twin, x = copy.deepcopy(layer), batch(3)
    before = layer(x)[0].detach()
    assert torch.equal(twin(x)[0], before)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(layer(x)[0], before)
    assert not torch.allclose(twin(x)[0], before)


def test_pickling_is_refused_with_the_remedy() -> None:
    with pytest.raises(OpteqError, match="save"):
        pickle.dumps(make())


def test_calls_leave_the_generators_and_defaults_alone() -> None:
    layer, x = make(), batch(3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state = (
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002  the global generator is the point
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )
    first = answer(layer, 3)
    layer(x)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]  # noqa: NPY002
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == state[2:]
    for a, b in zip(answer(make(), 3), first, strict=True):
        assert torch.equal(a, b)  # another layer of the same program: the same numbers, bit by bit


@pytest.mark.slow
def test_a_thousand_solves_of_changing_shapes_leak_nothing() -> None:
    layer = make()

    def turn(count: int) -> None:
        for i in range(count):
            x = torch.randn(1 + i % 40, 4, dtype=torch.float64, requires_grad=True)
            layer(x)[0].sum().backward()
            layer.zero_grad()
        gc.collect()

    turn(200)
    tracemalloc.start()
    before, resident = tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    turn(1000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000  # bytes of Python objects: 200 a solve would already be seen
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 64 * 1024  # KiB, tensors included
