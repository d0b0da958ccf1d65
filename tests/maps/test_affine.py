"""Affine expressions: Σ_v K_v v + b and the adjoint of its linear part."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from opteq_cvx.ir.frozen import freeze_index
from opteq_cvx.ir.linmap import Gather, LeftMul
from opteq_cvx.ir.param import Leaf, Stage, const
from opteq_cvx.ir.program import Affine
from opteq_cvx.maps.affine import affine, affine_adjoint, bind_affine
from opteq_cvx.maps.evaluate import Environment

W, B = Leaf("W", (4, 3), Stage.WEIGHT), Leaf("b", (4,), Stage.INPUT)
EXPRESSION = Affine((("x", LeftMul(W, (3,))), ("y", Gather(freeze_index([0, -1, 1, 0]), (2,)))), B)


def test_value_and_adjoint() -> None:
    """The sum of the parts, sample by sample, in NumPy."""
    values = {"W": torch.randn(1, 4, 3, dtype=torch.float64), "b": torch.randn(5, 4, dtype=torch.float64)}
    env = Environment(values, torch.float64, "cpu")
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    out = affine(EXPRESSION, {"x": x, "y": y}, env)
    extended = np.concatenate([y.numpy(), np.zeros((5, 1))], axis=1)
    expected = x.numpy() @ values["W"][0].numpy().T + extended[:, [0, 2, 1, 0]] + values["b"].numpy()
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-12)

    back = affine_adjoint(EXPRESSION, out, env)
    np.testing.assert_allclose(back["x"].numpy(), out.numpy() @ values["W"][0].numpy(), rtol=1e-12)
    left = (out - values["b"]) * out
    right = (x * back["x"]).sum() + (y * back["y"]).sum()
    torch.testing.assert_close(left.sum(), right, rtol=1e-12, atol=1e-12)
    assert {k: tuple(v.shape) for k, v in bind_affine(EXPRESSION, env).adjoint(out).items()} == {
        "x": (5, 3),
        "y": (5, 2),
    }


@pytest.mark.parametrize("rows", [(1, 1, 1), (3, 1, 1), (1, 3, 1), (1, 1, 3)])
def test_whatever_has_a_batch_gives_the_result_one(rows: tuple[int, int, int]) -> None:
    """The batch of the result is the largest of coefficient, offset and variable."""
    of_w, of_b, of_x = rows
    env = Environment({"W": torch.ones(of_w, 4, 3), "b": torch.ones(of_b, 4)}, torch.float32, "cpu")
    out = affine(EXPRESSION, {"x": torch.ones(of_x, 3), "y": torch.ones(1, 2)}, env)
    assert out.shape == (max(rows), 4)
    assert out.dtype == torch.float32


def test_a_zero_offset_is_left_out() -> None:
    """Adding zeros would cost a pass over memory in every iteration."""
    linear = Affine(EXPRESSION.parts, const(np.zeros(4)))
    env = Environment({"W": torch.ones(1, 4, 3, dtype=torch.float64)}, torch.float64, "cpu")
    assert bind_affine(linear, env).offset is None
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    assert affine(linear, {"x": x, "y": y}, env).tolist() == [[4.0, 3.0, 4.0, 4.0]] * 2


def test_a_constant_alone() -> None:
    """No variable: the offset, once for every row of nothing."""
    env = Environment({}, torch.float64, "cpu")
    assert torch.equal(affine(Affine((), const([1.0, 2.0])), {}, env), torch.tensor([[1.0, 2.0]]).double())


def test_gradients() -> None:
    """In variables, coefficient and offset."""

    def f(*tensors: torch.Tensor) -> torch.Tensor:
        w, b, x, y = tensors
        return affine(EXPRESSION, {"x": x, "y": y}, Environment({"W": w, "b": b}, torch.float64, "cpu"))

    shapes = ((1, 4, 3), (2, 4), (2, 3), (1, 2))
    assert gradcheck(f, [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes])
