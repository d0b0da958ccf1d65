"""Operations on parameters: CVXPY's value, differences' gradient, a batch that is a loop."""

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.autograd import gradcheck

from opteq_cvx.errors import InputError, UnsupportedError
from opteq_cvx.ir.frozen import FrozenDict, freeze_index
from opteq_cvx.ir.linmap import Gather, LeftMul
from opteq_cvx.ir.param import Apply, Leaf, ParamExpr, Stage, add, const
from opteq_cvx.maps.evaluate import RULES, Environment
from tests.maps.rules_table import ROWS, Row, definite, density, normal, symmetric

VALUE = 1e-10  # the same formula in float64; eigenvalue routines differ in the last digits
BATCH = 3
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)

UNTABLED = {
    "log_normcdf": "CVXPY's is a piecewise approximation made of other atoms; tested below",
    "gmatmul": "its matrix is in the atom's data; tested below",
    "dist_ratio": "its points are in the atom's data; tested below",
    "cholesky": "the conic route's own, no function of CVXPY; tested below",
    "signed_sqrt": "the radius of a ball given by its square, no function of CVXPY; tests/frontend/test_ellipsoids.py",
    "inverse_factor": "matrix_frac's own, no function of CVXPY; tested below",
}


def draw(row: Row, batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Random arguments (batch, *shape) by name."""
    rng = np.random.default_rng(seed)
    return {
        leaf.name: torch.tensor(np.stack([f(rng, leaf.shape) for _ in range(batch)]))
        for leaf, f in zip(row.leaves, row.draws, strict=True)
    }


def evaluate(expr: ParamExpr, values: dict[str, Tensor]) -> Tensor:
    """The value in float64 on the CPU."""
    return Environment(values, torch.float64, "cpu")(expr)


def close(a: Tensor, b: Tensor) -> None:
    """Same shape and entries."""
    torch.testing.assert_close(a, b, rtol=VALUE, atol=VALUE)


@rows
class TestRules:
    """What holds for every operation."""

    def test_value_is_cvxpys_sample_by_sample(self, row: Row) -> None:
        values, node = draw(row, BATCH), row.node()
        out = evaluate(node, values)
        assert out.shape == (BATCH, *node.shape)
        for i in range(BATCH):
            parameters = row.parameters()
            for parameter, leaf in zip(parameters, row.leaves, strict=True):
                parameter.value = values[leaf.name][i].numpy()
            expected = np.asarray(row.reference(*parameters).value, dtype=np.float64)
            expected = expected.reshape(
                node.shape
            )  # upper_tri and keepdims: CVXPY's value has another shape than its atom
            np.testing.assert_allclose(out[i].numpy(), expected, rtol=VALUE, atol=VALUE)

    def test_shared_arguments_broadcast(self, row: Row) -> None:
        values, node = draw(row, BATCH), row.node()
        for shared in values:
            mixed = {k: v[:1] if k == shared else v for k, v in values.items()}
            full = {k: v.expand(BATCH, *v.shape[1:]) for k, v in mixed.items()}
            close(evaluate(node, mixed).expand(BATCH, *node.shape), evaluate(node, full))

    def test_dtype_is_kept_and_arguments_unchanged(self, row: Row) -> None:
        values, node = draw(row, BATCH), row.node()
        narrow = {k: v.float() for k, v in values.items()}
        before = {k: v.clone() for k, v in narrow.items()}
        out = Environment(narrow, torch.float32, "cpu")(node)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.double(), evaluate(node, values), rtol=2e-4, atol=2e-4)
        assert all(torch.equal(narrow[k], before[k]) for k in narrow)


@pytest.mark.parametrize("row", [row for row in ROWS if row.smooth], ids=lambda row: row.title)
def test_gradient_is_the_difference_quotient(row: Row) -> None:
    """Away from kinks; matrices that must be symmetric are moved symmetrically."""
    values, node = draw(row, 2), row.node()

    def f(*arguments: Tensor) -> Tensor:
        pairs = zip(row.leaves, row.draws, arguments, strict=True)
        tied = {p.name: (v + v.mT) / 2 if d in (symmetric, definite, density) else v for p, d, v in pairs}
        return evaluate(node, tied)

    assert gradcheck(f, [v.requires_grad_() for v in values.values()])


def test_every_rule_has_a_row() -> None:
    """A rule without a row of the table is untested."""
    assert set(RULES) == {row.op for row in ROWS} | set(UNTABLED)


def vector(name: str, n: int = 4) -> Leaf:
    """An input vector."""
    return Leaf(name, (n,), Stage.INPUT)


def test_rules_whose_data_hides_in_the_atom() -> None:
    """gmatmul's matrix and dist_ratio's points come as arguments of ours."""
    a, x = np.array([[1.0, 0.5], [-1.0, 2.0], [0.0, 1.0]]), np.array([0.7, 1.9])
    values = {"x": torch.tensor(x)[None]}
    parameter = cp.Parameter(2, pos=True, value=x)
    out = evaluate(Apply("gmatmul", (const(a), vector("x", 2)), (3,)), values)
    np.testing.assert_allclose(out[0], cp.gmatmul(a, parameter).value, rtol=VALUE)
    out = evaluate(Apply("dist_ratio", (vector("x", 2), const([1.0, 0.0]), const([0.0, 3.0])), ()), values)
    np.testing.assert_allclose(out[0], cp.dist_ratio(parameter, [1.0, 0.0], [0.0, 3.0]).value, rtol=VALUE)


def test_the_running_maximum_of_a_flat_matrix() -> None:
    """cummax(x, axis=None), which CVXPY builds and cannot evaluate."""
    x = np.array([[0.5, -1.0, 2.0], [1.5, 3.0, 0.0]])
    node = Apply("cummax", (Leaf("x", (2, 3), Stage.INPUT),), (2, 3), FrozenDict(axis=None))
    expected = [[0.5, 0.5, 2.0], [2.0, 3.0, 3.0]]
    close(evaluate(node, {"x": torch.tensor(x)[None]}), torch.tensor([expected], dtype=torch.float64))


def test_log_normcdf_is_exact() -> None:
    """log Φ itself, which CVXPY approximates."""
    from scipy.special import log_ndtr

    x = np.linspace(-6, 6, 7)
    out = evaluate(Apply("log_normcdf", (vector("x", 7),), (7,)), {"x": torch.tensor(x)[None]})
    np.testing.assert_allclose(out[0], log_ndtr(x), rtol=VALUE)


OUTSIDE = (
    ("entr", cp.entr, [[-1.0, 0.0, 2.0]]),
    ("kl_div", cp.kl_div, [[0.0, 1.0, -1.0, 0.0], [2.0, 0.0, 1.0, 0.0]]),
    ("rel_entr", cp.rel_entr, [[0.0, 1.0, -1.0, 0.0], [2.0, 0.0, 1.0, -1.0]]),
    ("log_det", cp.log_det, [np.diag([1.0, -2.0])]),
    ("tr_inv", cp.tr_inv, [np.diag([1.0, -2.0])]),
    ("log_sum_exp", cp.log_sum_exp, [[1000.0, 999.0]]),
    ("logistic", cp.logistic, [[1000.0, -1000.0]]),
    ("log1p", cp.log1p, [[-1.0, 1e-12]]),
)


@pytest.mark.parametrize(("op", "f", "values"), OUTSIDE, ids=[row[0] for row in OUTSIDE])
def test_values_at_and_beyond_the_edge(op: str, f: object, values: list[object]) -> None:
    """Infinities where CVXPY has them, no overflow where it has none."""
    arrays = [np.asarray(v, dtype=np.float64) for v in values]
    parameters = [cp.Parameter(a.shape, value=a) for a in arrays]
    assert callable(f)
    with np.errstate(all="ignore"):
        reference = f(*parameters)
        expected = reference.value
    leaves = tuple(Leaf(f"p{i}", a.shape, Stage.INPUT) for i, a in enumerate(arrays))
    table = {f"p{i}": torch.tensor(a)[None].requires_grad_() for i, a in enumerate(arrays)}
    out = evaluate(Apply(op, leaves, reference.shape), table)
    np.testing.assert_allclose(out[0].detach(), expected, rtol=VALUE)


@pytest.mark.parametrize("p", [0.5, -1.0])
def test_pnorm_below_one_of_negative_and_zero_entries(p: float) -> None:
    """Concave norms: −∞ outside the orthant, 0 at its boundary for p < 0."""
    node = Apply("pnorm", (vector("x", 2),), (), FrozenDict(p=p))
    values = np.array([[1.0, -1.0], [0.0, 1.0]])
    out = evaluate(node, {"x": torch.tensor(values)})
    for value, row in zip(out, values, strict=True):
        assert float(value) == cp.pnorm(cp.Constant(row), p).value


def test_gradients_are_finite_at_kinks_and_edges() -> None:
    """Norms at 0, entropies at 0 of the other argument: no NaN leaks through a branch that was not taken."""
    x = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    for op, attrs in (("pnorm", {"p": 2}), ("norm1", {}), ("norm_inf", {}), ("sum_largest", {"k": 1.0})):
        out = evaluate(Apply(op, (vector("x", 2),), (), FrozenDict(attrs)), {"x": x})
        assert torch.isfinite(torch.autograd.grad(out.sum(), x)[0]).all(), op
    out = evaluate(Apply("rel_entr", (vector("x", 2), vector("y", 2)), (2,)), {"x": x, "y": x.detach() + 1})
    assert torch.isfinite(torch.autograd.grad(out.sum(), x)[0]).all()


class TestSparse:
    """A sparse constant factor is multiplied as such."""

    A = sp.csr_array(
        np.random.default_rng(0).standard_normal((4, 3)) * np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]])
    )

    @pytest.mark.parametrize("shape", [(3,), (3, 2), (5, 3, 2)])
    def test_from_the_left(self, shape: tuple[int, ...]) -> None:
        leaf = Leaf("x", shape, Stage.INPUT)
        x = torch.tensor(normal(np.random.default_rng(1), (2, *shape))).requires_grad_()
        out_shape = (4,) if len(shape) == 1 else (*shape[:-2], 4, shape[-1])
        node = Apply("matmul", (const(self.A), leaf), out_shape)
        np.testing.assert_allclose(
            evaluate(node, {"x": x}).detach(),
            np.stack([self.A.toarray() @ v for v in x.detach().numpy()]),
            rtol=VALUE,
        )
        assert gradcheck(lambda v: evaluate(node, {"x": v}), [x])

    @pytest.mark.parametrize("shape", [(4,), (2, 4), (5, 2, 4)])
    def test_from_the_right(self, shape: tuple[int, ...]) -> None:
        leaf = Leaf("x", shape, Stage.INPUT)
        x = torch.tensor(normal(np.random.default_rng(1), (2, *shape)))
        node = Apply("matmul", (leaf, const(self.A)), (*shape[:-1], 3))
        np.testing.assert_allclose(evaluate(node, {"x": x}), x.numpy() @ self.A.toarray(), rtol=VALUE, atol=VALUE)

    def test_both(self) -> None:
        node = Apply("matmul", (const(self.A), const(sp.csr_array(self.A.T))), (4, 4))
        np.testing.assert_allclose(evaluate(node, {})[0], (self.A @ self.A.T).toarray(), rtol=VALUE, atol=VALUE)

    def test_elsewhere_it_is_dense(self) -> None:
        node = Apply("abs", (const(self.A),), (4, 3))
        np.testing.assert_allclose(evaluate(node, {})[0], abs(self.A).toarray())

    def test_the_dense_matrix_is_never_built(self) -> None:
        n = 300_000  # dense: 720 GB
        node = Apply("matmul", (const(sp.eye_array(n, format="csr")), Leaf("x", (n,), Stage.INPUT)), (n,))
        x = torch.randn(1, n, dtype=torch.float64)
        assert torch.equal(evaluate(node, {"x": x}), x)


class TestMaps:
    """Linear functionals of the frontend: a map, or its adjoint, on an expression."""

    W = Leaf("W", (4, 3), Stage.WEIGHT)

    @pytest.mark.parametrize(("op", "shape", "to"), [("map", 3, 4), ("map_apply", 3, 4), ("map_adjoint", 4, 3)])
    def test_coefficients_come_from_the_environment(self, op: str, shape: int, to: int) -> None:
        node = Apply(op, (vector("x", shape), self.W), (to,), FrozenDict(map=LeftMul(self.W, (3,))))
        values = {
            "W": torch.randn(1, 4, 3, dtype=torch.float64),
            "x": torch.randn(2, shape, dtype=torch.float64),
        }
        k = values["W"][0] if op != "map_adjoint" else values["W"][0].T
        close(evaluate(node, values), values["x"] @ k.T)
        assert node.stage == Stage.INPUT

    def test_scatter(self) -> None:
        node = Apply("map_adjoint", (vector("x", 3),), (2,), FrozenDict(map=Gather(freeze_index([0, 0, -1]), (2,))))
        out = evaluate(node, {"x": torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)})
        assert out.tolist() == [[3.0, 0.0]]


def test_each_expression_is_computed_once() -> None:
    """Shared parts are shared, in the value and in the graph."""
    x = vector("x")
    shared = Apply("exp", (x,), (4,))
    env = Environment({"x": torch.randn(2, 4)}, torch.float32, "cpu")
    assert env(shared) is env(shared)
    env(Apply("multiply", (shared, shared), (4,)))
    assert env(shared) is env(shared)


def test_deep_expressions_do_not_recurse() -> None:
    """A sum written in a loop nests deeper than Python's stack."""
    x = vector("x")
    total: ParamExpr = x
    for _ in range(5000):
        total = add(total, x)
    value = torch.ones(1, 4, dtype=torch.float64)
    assert torch.equal(evaluate(total, {"x": value}), 5001 * value)


def test_constants_are_rebuilt_from_float64() -> None:
    """One third in float64 where float64 is asked for, its rounding in float32."""
    third = const([1 / 3])
    assert float(Environment({}, torch.float64, "cpu")(third)) == 1 / 3
    assert Environment({}, torch.float32, "cpu")(third).dtype == torch.float32


def test_an_unknown_operation_is_named() -> None:
    """Refused by name, with the remedy."""
    with pytest.raises(UnsupportedError, match=r'"frobnicate".*Fix: compute it in torch'):
        evaluate(Apply("frobnicate", (vector("x"),), (4,)), {"x": torch.ones(1, 4)})


@pytest.mark.parametrize(("values", "text"), [({}, "has no value"), ({"x": torch.ones(2, 5)}, r"shape \(2, 5\)")])
def test_a_missing_or_misshapen_value_is_named(values: dict[str, Tensor], text: str) -> None:
    """The parameter's name and what was found."""
    with pytest.raises(InputError, match=f'"x".*{text}'):
        evaluate(vector("x"), values)


def test_cholesky_is_the_factor_of_semidefinite_matrices() -> None:
    """A singular matrix has a factor to rounding, an indefinite one none; the derivative is that of the product."""
    node = Apply("cholesky", (Leaf("P", (3, 3), Stage.INPUT),), (3, 3))
    rng = np.random.default_rng(0)
    half = rng.standard_normal((3, 2))
    good, bad = half @ half.T, np.diag([1.0, -1.0, 2.0])
    p = torch.tensor(np.stack([good, good + np.eye(3), bad]), requires_grad=True)
    lower = Environment({"P": p}, torch.float64, "cpu")(node)
    torch.testing.assert_close(lower[:2] @ lower[:2].mT, p[:2], atol=1e-12, rtol=1e-12)
    assert lower[2].isnan().all()
    x = torch.tensor(rng.standard_normal(3))
    (grad,) = torch.autograd.grad((lower[1].mT @ x).square().sum(), p)
    torch.testing.assert_close(grad[1], x[:, None] * x, atol=1e-10, rtol=1e-10)


def test_inverse_factor_gives_the_fraction() -> None:
    """‖L⁻¹x‖² = xᵀP⁻¹x, value and derivative; NaN for an indefinite matrix, whose neighbours are untouched."""
    node = Apply("inverse_factor", (Leaf("P", (3, 3), Stage.INPUT),), (3, 3))
    rng = np.random.default_rng(0)
    half = rng.standard_normal((3, 3))
    good, bad = half @ half.T + 0.1 * np.eye(3), np.diag([1.0, -1.0, 2.0])
    p = torch.tensor(np.stack([good, bad]), requires_grad=True)
    inverse = Environment({"P": p}, torch.float64, "cpu")(node)
    assert inverse[1].isnan().all()
    x = torch.tensor(rng.standard_normal(3))
    fraction = (inverse[0] @ x).square().sum()
    solved = torch.tensor(np.linalg.solve(good, x.numpy()))
    torch.testing.assert_close(fraction, x @ solved, atol=1e-10, rtol=1e-10)
    (grad,) = torch.autograd.grad(fraction, p)
    torch.testing.assert_close(grad[0], -solved[:, None] * solved, atol=1e-9, rtol=1e-9)
