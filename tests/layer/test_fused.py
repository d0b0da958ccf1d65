"""Steps in one kernel: the prox as data against the atoms' own, the kernel under Triton's interpreter, whole layers."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.descent import SharedSteps
from opteq_cvx.fused import available
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.forward_backward import ForwardBackward

N, ROOT = 6, Path(__file__).parents[2]
Made = tuple[cp.Expression, list[cp.Constraint]]


def signs(u: cp.Variable, lam: cp.Parameter) -> Made:
    return 0.0 * lam, [u >= 0]


def bounds(u: cp.Variable, lam: cp.Parameter) -> Made:
    return 0.0 * lam, [u >= -lam, u <= 0.4]


def shrinkage(u: cp.Variable, lam: cp.Parameter) -> Made:
    return lam * cp.norm1(u), []


def weighted(u: cp.Variable, lam: cp.Parameter) -> Made:
    return cp.norm1(cp.multiply(np.arange(1.0, N + 1), u)) * lam, [u <= 0.1]


def mixed(u: cp.Variable, lam: cp.Parameter) -> Made:
    return lam * cp.norm1(u[:2]), [u[3:5] >= 0, u[5] <= 0]


def round_ball(u: cp.Variable, lam: cp.Parameter) -> Made:
    return lam * cp.norm(u), []


CLIPPED = [signs, bounds, shrinkage, weighted, mixed]


def made(terms: Callable[[cp.Variable, cp.Parameter], Made], **options: object) -> oc.EquilibriumLayer:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(N, N))
    q, lam, u = oc.Input(N, name="q"), oc.Input(nonneg=True, name="lam"), cp.Variable(N, name="u")
    cost, constraints = terms(u, lam)
    whole = 0.5 * cp.quad_form(u, np.eye(N) + root @ root.T / N) - q @ u + cost
    return oc.compile(cp.Problem(cp.Minimize(whole), constraints), inputs=[q, lam], **options)  # type: ignore[arg-type]


def data(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    q = torch.randn(5, N, generator=g, dtype=torch.float64)
    return q.to(dtype), torch.rand(5, generator=g, dtype=torch.float64).to(dtype)


def steps(layer: oc.EquilibriumLayer) -> SharedSteps:
    map_ = layer.plan.splitting
    assert isinstance(map_, ForwardBackward)
    q, lam = data()
    theta = map_.theta(Environment({"q": q, "lam": lam}, torch.float64, "cpu"))
    found = map_.runner(theta, map_.prepare(theta))
    assert isinstance(found, SharedSteps)
    return found


@pytest.mark.parametrize("terms", CLIPPED, ids=lambda t: t.__name__)
@pytest.mark.parametrize("a", [1.0, 2.3])
def test_the_prox_as_data_is_the_prox_of_the_atoms(
    terms: Callable[[cp.Variable, cp.Parameter], Made], a: float
) -> None:
    found = steps(made(terms))
    clip = found.clip() if found.clip is not None else None
    assert clip is not None
    v = 2 * torch.randn(5, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(clip.scaled(a)(v), found.prox(a)(v.clone()), rtol=1e-14, atol=1e-14)


def test_other_proxes_are_no_clips() -> None:
    found = steps(made(round_ball))
    assert found.clip is not None
    assert found.clip() is None


@pytest.mark.parametrize("terms", [*CLIPPED, round_ball], ids=lambda t: t.__name__)
def test_a_layer_takes_the_same_steps(terms: Callable[[cp.Variable, cp.Parameter], Made]) -> None:
    plain, fused = made(terms).double(), made(terms, iteration=oc.Inertial(fused=True)).double()
    a, b = plain.solve(*data()), fused.solve(*data())
    torch.testing.assert_close(a.values[0], b.values[0], rtol=1e-10, atol=1e-10)
    assert torch.equal(a.stats.steps, b.stats.steps)


def test_the_kernel_is_asked_for_only_where_it_runs() -> None:
    assert not available(torch.device("cpu"), N, torch.float64)
    assert not available(torch.device("cuda"), 2048, torch.float32)
    assert not available(torch.device("cuda"), 0, torch.float32)


INTERPRETED = """
import torch
from opteq_cvx import fused
from tests.layer.test_fused import CLIPPED, data, made
import opteq_cvx as oc
launches = []
launch = fused._launch
fused._launch = lambda *args: launches.append(1) or launch(*args)
for terms in CLIPPED:
    layer, plain = made(terms, iteration=oc.Inertial(fused=True)), made(terms)
    found, wanted = layer.solve(*data(torch.float32)), plain.double().solve(*data())
    assert launches, "no kernel was launched"
    torch.testing.assert_close(found.values[0].double(), wanted.values[0], rtol=2e-4, atol=2e-4)
g = torch.Generator().manual_seed(0)
for rows, n, shared in ((1, 1, True), (3, 7, False), (17, 40, True), (33, 65, False)):
    m = torch.randn(n, n, generator=g) / n
    z, before = torch.randn(2, rows, n, generator=g)
    many = 1 if shared else rows
    c, high = torch.randn(many, n, generator=g), torch.rand(many, n, generator=g)
    clip = fused.Clip(0.1 * torch.rand(1, n, generator=g), torch.full((1, n), -torch.inf), high)
    kept = z.clone(), before.clone()
    found = fused.burst(z, before, m, c, clip, 0.3, 4)
    assert torch.equal(z, kept[0]) and torch.equal(before, kept[1])
    x, y = z.double(), before.double()
    for _ in range(4):
        v = x @ m.double() + c - 0.3 * y
        v = torch.sign(v) * torch.relu(v.abs() - clip.threshold)
        x, y = torch.minimum(v, high.double()), x
    torch.testing.assert_close(found[0].double(), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1].double(), y, rtol=1e-5, atol=1e-5)
print("kernel launches", len(launches))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed (it comes with CUDA)")
def test_the_kernel_under_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "kernel launches" in done.stdout


COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from opteq_cvx.fused import INNER, ROWS, warps
from opteq_cvx.fused_kernel import burst
for columns in (16, 64, 256, 512):
    types = {name: "*fp32" for name in burst.arg_names if name.endswith("_ptr")}
    types |= {"momentum": "fp32", "rows": "i32", "n": "i32", "count": "i32"}
    fixed = {"c_rows": True, "t_rows": False, "low_rows": False, "high_rows": True}
    fixed |= {"ROWS": ROWS, "COLUMNS": columns, "INNER": INNER}
    source = ASTSource(fn=burst, signature=types | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
    for capability in (80, 90):
        options = {"num_warps": warps(columns), "num_stages": 2}
        made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert made.metadata.shared <= 48 * 1024
print("compiled")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed (it comes with CUDA)")
def test_the_kernel_compiles_for_devices_that_are_not_here() -> None:
    """To machine code for A100 and H100, within the shared memory that every device has."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "compiled" in done.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("terms", CLIPPED, ids=lambda t: t.__name__)
def test_the_kernel_on_a_device(terms: Callable[[cp.Variable, cp.Parameter], Made]) -> None:
    layer = made(terms, iteration=oc.Inertial(fused=True)).cuda()
    found = layer.solve(*(t.cuda() for t in data(torch.float32))).values[0]
    wanted = made(terms).double().solve(*data()).values[0]
    torch.testing.assert_close(found.double().cpu(), wanted, rtol=2e-4, atol=2e-4)
