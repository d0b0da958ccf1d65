"""Laws of every bound linear map against its dense truth."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.linmap import LinearMap
from opteq_cvx.ir.param import Const, Leaf, ParamExpr
from opteq_cvx.maps.gather import Window, gather_operator
from opteq_cvx.maps.operator import Operator, bind, dense, norm_bound
from tests.maps.cases import CASES, Case

# torch.func.jvp loads torch's table of forward derivatives, which still calls torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

ROOT = Path(__file__).parents[2]
EXACT = 1e-12  # a handful of additions and products in float64
ROWS = 3

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
coefficient_rows = pytest.mark.parametrize("rows", [1, ROWS], ids=["shared", "per sample"])


def values_of(case: Case, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random coefficients (rows, *shape) by name."""
    g = torch.Generator().manual_seed(seed)
    return {p.name: torch.randn(rows, *p.shape, dtype=torch.float64, generator=g) for p in case.leaves}


class Table:
    """Leaves from a table, dense constants in the table's dtype: the least that `bind` asks for."""

    def __init__(self, values: Mapping[str, Tensor], dtype: torch.dtype = torch.float64) -> None:
        self.values = values
        self.dtype = dtype

    def __call__(self, expr: ParamExpr) -> Tensor:
        if isinstance(expr, Leaf):
            return self.values[expr.name]
        assert isinstance(expr, Const)
        return torch.tensor(expr.dense(), dtype=self.dtype)[None]


def bound(case: Case, values: Mapping[str, Tensor]) -> Operator:
    """The case's operator at these coefficients."""
    return bind(case.linear, Table(values))


def points(linear: LinearMap, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Random x (rows, *in) and y (rows, *out)."""
    g = torch.Generator().manual_seed(7)
    x = torch.randn(rows, *linear.shape_in, dtype=torch.float64, generator=g)
    return x, torch.randn(rows, *linear.shape_out, dtype=torch.float64, generator=g)


def truth_of(case: Case, values: Mapping[str, Tensor], sample: int) -> Tensor:
    """The dense truth of one sample."""
    row = {k: v[min(sample, v.shape[0] - 1)].numpy() for k, v in values.items()}
    return torch.tensor(np.asarray(case.truth(row), dtype=np.float64))


def close(a: Tensor, b: Tensor, tolerance: float = EXACT) -> None:
    """Same shape and entries."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@cases
@coefficient_rows
class TestLaws:
    """What holds for every map, with coefficients shared by the batch and per sample."""

    def test_apply_and_adjoint_are_the_matrix(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        operator, (x, y) = bound(case, values), points(case.linear)
        forward, backward = operator.apply(x), operator.adjoint(y)
        assert forward.shape == (ROWS, *operator.shape_out) == (ROWS, *case.linear.shape_out)
        assert backward.shape == (ROWS, *operator.shape_in) == (ROWS, *case.linear.shape_in)
        for i in range(ROWS):
            k = truth_of(case, values, i)
            close(forward[i].reshape(-1), k @ x[i].reshape(-1))
            close(backward[i].reshape(-1), k.T @ y[i].reshape(-1))

    def test_adjoint_identity(self, case: Case, rows: int) -> None:
        operator, (x, y) = bound(case, values_of(case, rows)), points(case.linear)
        left, right = operator.apply(x) * y, x * operator.adjoint(y)
        close(left.reshape(ROWS, -1).sum(1), right.reshape(ROWS, -1).sum(1))

    def test_dense_is_the_matrix(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        k = dense(case.linear, Table(values))
        assert k.shape[0] in (1, rows)
        for i in range(rows):
            close(k[min(i, k.shape[0] - 1)], truth_of(case, values, i))

    def test_lifted_acts_on_each_column(self, case: Case, rows: int) -> None:
        operator = bound(case, values_of(case, rows))
        lifted = operator.lift(2).lift(3)
        x = torch.randn(ROWS, *lifted.shape_in, dtype=torch.float64)
        y = torch.randn(ROWS, *lifted.shape_out, dtype=torch.float64)
        for i in range(2):
            for j in range(3):
                close(lifted.apply(x)[..., i, j], operator.apply(x[..., i, j]))
                close(lifted.adjoint(y)[..., i, j], operator.adjoint(y[..., i, j]))

    def test_a_shared_argument_broadcasts(self, case: Case, rows: int) -> None:
        operator, (x, y) = bound(case, values_of(case, rows)), points(case.linear, rows=1)
        for value, f in ((x, operator.apply), (y, operator.adjoint)):
            alone, repeated = f(value), f(value.repeat(ROWS, *(1,) * (value.ndim - 1)))
            close(alone.expand_as(repeated), repeated)

    def test_batch_is_a_loop(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        whole, (x, y) = bound(case, values), points(case.linear)
        for i in range(ROWS):
            own = {k: v[min(i, v.shape[0] - 1)][None] for k, v in values.items()}
            one = bound(case, own)
            close(whole.apply(x)[i : i + 1], one.apply(x[i : i + 1]))
            close(whole.adjoint(y)[i : i + 1], one.adjoint(y[i : i + 1]))

    def test_first_and_second_derivatives(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        names, (x, y) = list(values), points(case.linear, rows=2 if rows == 1 else ROWS)

        def both(x: Tensor, y: Tensor, *coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            table = dict(zip(names, coefficients, strict=True))
            operator = bound(case, table)
            k = dense(case.linear, Table(table))
            touched = sum(t.square().sum() for t in (x, y, *coefficients))  # every input occurs, in the zero map too
            return operator.apply(x) + touched, operator.adjoint(y) + touched, k + touched

        inputs = [t.requires_grad_() for t in (x, y, *values.values())]
        assert gradcheck(both, inputs, fast_mode=True)
        assert gradgradcheck(both, inputs, fast_mode=True)

    def test_forward_mode_and_vmap(self, case: Case, rows: int) -> None:
        operator, (x, y) = bound(case, values_of(case, rows)), points(case.linear)
        for value, f in ((x, operator.apply), (y, operator.adjoint)):
            tangent = torch.randn_like(value)
            out, moved = torch.func.jvp(f, (value,), (tangent,))
            close(out, f(value))
            close(moved, f(tangent))
            stacked = torch.stack([value, tangent, value + tangent], dim=1)
            close(torch.func.vmap(f, in_dims=1)(stacked)[1], f(tangent))
            gradient = torch.func.vmap(torch.func.grad(lambda v, f=f: f(v[None]).square().sum()))(value)
            assert gradient.shape == value.shape

    def test_dtype_is_kept(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        x, y = points(case.linear)
        narrow = bind(case.linear, Table({k: v.float() for k, v in values.items()}, torch.float32))
        wide = bound(case, values)
        for f, g, value in ((narrow.apply, wide.apply, x), (narrow.adjoint, wide.adjoint, y)):
            out = f(value.float())
            assert out.dtype == torch.float32
            torch.testing.assert_close(out.double(), g(value), rtol=1e-5, atol=1e-5)
        k = dense(case.linear, Table({k: v.float() for k, v in values.items()}, torch.float32))
        assert k.dtype == torch.float32

    def test_arguments_are_not_changed(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        x, y = points(case.linear)
        before = [t.clone() for t in (x, y, *values.values())]
        operator = bound(case, values)
        for evaluate in (operator.apply, operator.adjoint):
            evaluate(x if evaluate == operator.apply else y)
        for evaluate in (dense, norm_bound):
            evaluate(case.linear, Table(values))
        for now, then in zip((x, y, *values.values()), before, strict=True):
            assert torch.equal(now, then)

    def test_norm_bound_is_above_the_norm(self, case: Case, rows: int) -> None:
        values = values_of(case, rows)
        bounds = norm_bound(case.linear, Table(values))
        assert bounds.shape in ((1,), (rows,))
        for i in range(rows):
            norm = float(torch.linalg.matrix_norm(truth_of(case, values, i), ord=2))
            limit = float(bounds[min(i, bounds.shape[0] - 1)])
            assert limit >= norm
            assert limit <= norm * (1 + 1e-9) + 1e-300  # all of these are small: the bound is exact


@pytest.mark.parametrize("case", [c for c in CASES if c.leaves], ids=lambda case: case.name)
@coefficient_rows
def test_vmap_over_coefficients(case: Case, rows: int) -> None:
    """Two settings of the coefficients at once, as `vmap` over weights does it."""
    first, second = values_of(case, rows, seed=1), values_of(case, rows, seed=2)
    x, _ = points(case.linear)
    stacked = {k: torch.stack([first[k], second[k]]) for k in first}
    out = torch.func.vmap(lambda table: bound(case, table).apply(x))(stacked)
    close(out[0], bound(case, first).apply(x))
    close(out[1], bound(case, second).apply(x))


def test_the_table_has_every_kind_of_map() -> None:
    """A class added to the IR needs a row."""
    kinds = {type(case.linear).__name__ for case in CASES}
    assert kinds == {kind.__name__ for kind in LinearMap.__args__}


def test_gather_in_ranges_reads_a_view() -> None:
    """A contiguous selection costs no copy."""
    case = next(c for c in CASES if c.name == "gather range")
    x, _ = points(case.linear)
    assert bound(case, {}).apply(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_sparse_products_survive_transforms_in_any_order() -> None:
    """The constants that an operator keeps are plain tensors, also when a transform built them first."""
    case = next(c for c in CASES if c.name == "sparse")
    x, _ = points(case.linear)
    operator = bound(case, {})
    hessian = torch.func.vmap(torch.func.hessian(lambda v: operator.apply(v[None]).square().sum()))(x)
    k = truth_of(case, {}, 0)
    close(hessian.reshape(ROWS, 6, 6)[0], 2 * k.T @ k, 1e-11)
    close(operator.apply(x)[0].reshape(-1), k @ x[0].reshape(-1))


def test_the_traceable_product_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `torch.compile` a sparse product is a gather and a scatter, with the same derivatives."""
    operator = bound(next(c for c in CASES if c.name == "sparse"), {})
    x, y = points(CASES[-1].linear)[0].reshape(ROWS, 2, 3), torch.randn(ROWS, 5, 1, dtype=torch.float64)
    expected = operator.apply(x), operator.adjoint(y)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    close(operator.apply(x), expected[0])
    close(operator.adjoint(y), expected[1])
    assert gradcheck(operator.apply, [x.requires_grad_()])


TRACES = """
import torch
from tests.maps.cases import CASES
from tests.maps.test_operator import bound, close, points, values_of

for case in CASES:
    operator = bound(case, values_of(case, 1))
    x, y = points(case.linear)
    torch._dynamo.reset()
    both = lambda x, y: (operator.apply(x), operator.adjoint(y))
    compiled = torch.compile(both, fullgraph=True, backend="eager")
    for traced, plain in zip(compiled(x, y), both(x, y), strict=True):
        close(traced, plain)
"""


@pytest.mark.slow
def test_every_operator_compiles_without_graph_breaks() -> None:
    """In a process of its own: the runtime shape checks of this one cannot be traced."""
    run = subprocess.run(
        [sys.executable, "-c", TRACES], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr


def test_sizes_of_lifted_operators() -> None:
    """Shapes are static."""
    for case in CASES:
        lifted = bound(case, values_of(case, 1)).lift(4)
        assert size(lifted.shape_in) == 4 * size(case.linear.shape_in)
        assert size(lifted.shape_out) == 4 * size(case.linear.shape_out)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 4), st.integers(0, 4), st.data())
def test_parts_of_matrices_are_slices(height: int, width: int, before: int, after: int, data: st.DataObject) -> None:
    """Any X[a:b, c:d] inside a longer vector, read and written back as NumPy does."""
    a, c = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    b, d = data.draw(st.integers(a + 1, height)), data.draw(st.integers(c + 1, width))
    n = before + height * width + after
    index = (before + np.arange(height * width).reshape(height, width))[a:b, c:d]
    operator = gather_operator(index.copy(), (n,))
    x = np.random.default_rng(0).normal(size=(2, n))
    found = operator.apply(torch.from_numpy(x))
    assert np.array_equal(found.numpy(), x[:, index])
    back = np.zeros((2, n))
    back[:, index] = found.numpy()
    assert np.array_equal(operator.adjoint(found).numpy(), back)
    if b - a > 1 and d - c > 1 and d - c < width:
        assert isinstance(operator.read, Window)
