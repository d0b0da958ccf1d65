"""Misuse is refused with what was found and what to write instead: one row each, the words a user would read."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.errors import CompileError, NotConvexError, OpteqError, UnsupportedError
from opteq_cvx.frontend import read
from opteq_cvx.frontend.affine import affine
from opteq_cvx.frontend.factor import factor
from opteq_cvx.frontend.hoist import hoist
from opteq_cvx.frontend.listed import as_list, gathered
from opteq_cvx.frontend.selected import read_selected, second_objective
from opteq_cvx.frontend.terms import function_terms, set_terms
from opteq_cvx.frontend.ties import check_ties
from opteq_cvx.frontend.tree import param_node, tree
from opteq_cvx.ir.param import const
from opteq_cvx.ir.program import Origin
from tests.frontend.test_structure import Roll, scope

x, y, s = cp.Variable(3, name="x"), cp.Variable(3, name="y"), cp.Variable(name="s")
q, A, K = cp.Parameter(3, name="q"), cp.Parameter((3, 3), name="A"), cp.Parameter((2, 2), name="K")
z, lam = cp.Variable(3, complex=True, name="z"), cp.Parameter(nonneg=True, name="lam")
h, k = cp.Variable(pos=True, name="h"), cp.Variable(pos=True, name="k")
STRANGER = cp.Variable(name="stranger")
HERE = Origin("objective[0]", "here")


def plain(*constraints: Any) -> cp.Problem:
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), list(constraints))


def complexes() -> cp.Problem:
    return cp.Problem(cp.Minimize(cp.sum_squares(z - 1)), [cp.real(z)[0] >= 2, z[1] == 1j])


def geometric() -> cp.Problem:
    return cp.Problem(cp.Minimize(h + 1 / h))


class Bump(cp.atoms.elementwise.elementwise.Elementwise):
    """A user's own convex function, of which CVXPY's table knows nothing."""

    numeric = is_atom_concave = is_decr = _grad = lambda self, *_: False

    def is_atom_convex(self) -> bool:
        return True

    def is_incr(self, idx: int) -> bool:
        return True

    def sign_from_args(self) -> tuple[bool, bool]:
        return True, False


class Nowhere(Bump):
    """One that is nowhere defined, which CVXPY writes as the value None."""

    def numeric(self, values: Any) -> None:
        return None


class Stern(Bump):
    """One that calls itself convex of no argument at all."""

    def is_convex(self) -> bool:
        return False


class Twice(Roll):
    """A user's own affine atom whose matrix is the square of its parameter: no linear function of it."""

    def numeric(self, values: list[np.ndarray]) -> np.ndarray:
        return values[0] @ values[0] @ values[1]

    def shape_from_args(self) -> tuple[int, ...]:
        return self.args[1].shape

    def graph_implementation(self, arg_objs: list, shape: tuple, data: object = None) -> tuple:
        matrix = cp.Constant(arg_objs[0].data @ arg_objs[0].data).canonical_form[0]
        return cp.lin_ops.lin_utils.mul_expr(matrix, arg_objs[1], shape), []


ROWS: dict[str, tuple[Callable[[], Any], type[OpteqError], str]] = {
    # problems
    "no problem": (lambda: gathered([]), CompileError, "no problem"),
    "text as a problem": (lambda: gathered(["a"]), CompileError, r"a str among the problems.*cp\.Problem\(\.\.\.\)"),
    "a number as a problem": (
        lambda: gathered(3),
        CompileError,
        r"an int in place of a problem.*cp\.Problem\(\.\.\.\)",
    ),
    "an expression as a problem": (lambda: gathered(cp.norm1(x)), CompileError, "in place of a problem.*wrap it"),
    "two geometric programs": (
        lambda: read([geometric(), cp.Problem(cp.Minimize(k + 1 / k))], gp=True),
        UnsupportedError,
        "2 problems with gp=True.*compile each",
    ),
    "a complex one of two": (
        lambda: read([plain(), complexes()]),
        UnsupportedError,
        "variable 'z' is declared complex",
    ),
    # outputs
    "one variable as outputs": (
        lambda: as_list(x, "outputs"),
        CompileError,
        r"outputs is the expression x.*outputs=\[x\]",
    ),
    "one number as outputs": (lambda: as_list(s, "outputs"), CompileError, r"outputs=\[s\]"),
    "one parameter as inputs": (
        lambda: as_list(lam, "inputs"),
        CompileError,
        r"inputs is the expression lam.*inputs=\[lam\]",
    ),
    "one constraint as outputs": (
        lambda: as_list(x >= 1, "outputs"),
        CompileError,
        r"the constraint x >= 1.*outputs=\[x >= 1\]",
    ),
    "a complex output": (
        lambda: read(plain(), outputs=[1j * x]),
        CompileError,
        "has complex values.*real and imaginary",
    ),
    "complex values inside an output": (
        lambda: read(plain(), outputs=[cp.real(1j * x)]),
        UnsupportedError,
        "complex values.*real and imaginary parts",
    ),
    "complex values of parameters inside an output": (
        lambda: read(plain(), inputs=[q], outputs=[x + cp.real(1j * q)]),
        UnsupportedError,
        "complex values.*real and imaginary parts",
    ),
    "text as an output of a complex program": (
        lambda: read(complexes(), outputs=["z"]),
        CompileError,
        "outputs holds a str",
    ),
    "a stranger as an output of a complex program": (
        lambda: read(complexes(), outputs=[z[0] + STRANGER]),
        CompileError,
        "'stranger', which is no variable of the problem",
    ),
    "a norm as an output of a complex program": (
        lambda: read(complexes(), outputs=[cp.norm(z)]),
        CompileError,
        r'the output "norm2\(z\)" is convex',
    ),
    "a dual variable of a complex program": (
        lambda: [c := complexes(), read(c, outputs=[c.constraints[0].dual_variables[0]])],
        UnsupportedError,
        "a dual variable of a complex program.*list the constraint itself",
    ),
    "a complex equality as an output": (
        lambda: [c := complexes(), read(c, outputs=[c.constraints[1]])],
        UnsupportedError,
        r'multipliers of "z\[1\] == .*which is complex.*constrain real',
    ),
    "text as an output of a geometric program": (
        lambda: read(geometric(), outputs=["h"], gp=True),
        UnsupportedError,
        'output "h" of a geometric program.*torch',
    ),
    # convexity
    "a complex program that is not convex": (
        lambda: read(cp.Problem(cp.Maximize(cp.norm(z)))),
        NotConvexError,
        "complex problem that does not follow the DCP rules",
    ),
    "a cone of a convex function": (
        lambda: read(plain(cp.NonNeg(cp.norm1(x) - 1))),
        NotConvexError,
        r"expression that is to be nonnegative is convex.*larger one",
    ),
    "a concave function below an affine one": (
        lambda: read(plain(cp.sqrt(s) <= x)),
        NotConvexError,
        r"smaller side minus the larger one is concave.*smaller side of <=",
    ),
    "a product of convex functions": (
        lambda: read(cp.Problem(cp.Minimize(cp.sum(cp.multiply(cp.exp(x), cp.exp(y)))))),
        NotConvexError,
        "multiplies two expressions that both hold variables",
    ),
    "a nonincreasing function of a convex one": (
        lambda: read(cp.Problem(cp.Minimize(cp.sum(cp.inv_pos(cp.square(x)))))),
        NotConvexError,
        r"composes the convex power, nonincreasing in its argument 0, with the convex.*make that argument concave",
    ),
    "a stack of a convex and a concave function": (
        lambda: read(cp.Problem(cp.Minimize(cp.max(cp.hstack([cp.norm1(x), cp.sqrt(s)]))))),
        NotConvexError,
        r"composes the convex hstack, nondecreasing in its argument 1, with the concave .*make that argument convex",
    ),
    "a user's own function that is stricter than its rules": (
        lambda: read(cp.Problem(cp.Minimize(cp.sum(Stern(cp.square(x)))))),
        NotConvexError,
        "does not follow the rules of Stern.*convex functions of affine arguments",
    ),
    "a parameter of a function inside another one": (
        lambda: read(cp.Problem(cp.Minimize(cp.exp(cp.dotsort(x, q)))), inputs=[q]),
        UnsupportedError,
        "argument 1 of dotsort depends on a parameter inside another function.*its own term",
    ),
    "a constant quadratic form that is indefinite": (
        lambda: factor(const(np.diag([1.0, -2.0])), HERE),
        NotConvexError,
        "has the eigenvalue -2.*project it",
    ),
    "a matrix fraction of an indefinite constant": (
        lambda: read(cp.Problem(cp.Minimize(cp.matrix_frac(x, cp.Constant(np.diag([1.0, 2.0, -1.0])))))),
        NotConvexError,
        r'the matrix of "matrix_frac\(x, .*\)" is not positive definite.*project it',
    ),
    "a negative coefficient": (
        lambda: function_terms(tree(cp.norm1(x), scope(x)), const(-1.0), scope(x), HERE),
        NotConvexError,
        r"convex function abs\(x\) has a negative coefficient.*maximize",
    ),
    "a set that no atom is": (
        lambda: set_terms(param_node(const(1.0), "1"), HERE),
        UnsupportedError,
        "no projection onto the cone param.*another cone",
    ),
    # functions
    "a user's own function": (
        lambda: read(cp.Problem(cp.Minimize(cp.sum(Bump(x))))),
        UnsupportedError,
        "the function Bump is not one of CVXPY's",
    ),
    "a user's own function of parameters": (
        lambda: hoist(Bump(q), scope(q)),
        UnsupportedError,
        "Bump of parameters is not one of CVXPY's functions.*opteq_cvx.Input",
    ),
    "a user's own affine function of two parameters": (
        lambda: affine(Twice(A, x), scope(x, A)),
        UnsupportedError,
        "affine function Twice has coefficients that depend on parameters.*products, sums, stacks",
    ),
    "a constant argument outside a user's own function": (
        lambda: read(cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(Nowhere(np.ones(3)), x))))),
        UnsupportedError,
        r"a constant without a value.*give it a value",
    ),
    "an unknown parameter": (
        lambda: hoist(q + 1, scope()),
        CompileError,
        "parameter 'q' is neither an input nor a weight",
    ),
    # ties
    "a list as ties": (lambda: check_ties([x], [(q, x)]), CompileError, r"ties is a list.*dictionary"),
    "a tie to a number": (lambda: check_ties([x], {q: 3.0}), CompileError, r"tie q = 3.0 gives float"),
    "a tie of a variable": (
        lambda: check_ties([x], {y: x}),
        CompileError,
        r"ties binds the Variable 'y'.*cp\.Parameter or opteq_cvx\.Input",
    ),
    "a parameter that is an input and tied": (
        lambda: read(cp.Problem(cp.Minimize(cp.sum_squares(x - q))), inputs=[q], ties={q: 0.5 * x}),
        CompileError,
        "'q' is an input and tied to an output.*one role",
    ),
    # second objectives
    "a second objective that is no objective": (
        lambda: second_objective(plain(), cp.norm1(x)),
        CompileError,
        r"select=.*wrap the expression in cp\.Minimize",
    ),
    "a second objective that is not convex": (
        lambda: read_selected(plain(), cp.Maximize(cp.norm1(x))),
        NotConvexError,
        r'the second objective "norm1\(x\)" is convex',
    ),
    "a second objective of a stranger": (
        lambda: read_selected(plain(), cp.Minimize(cp.square(STRANGER))),
        CompileError,
        "'stranger', which is no variable of the problem",
    ),
    "a second objective beside multipliers": (
        lambda: [
            p := plain(x >= 2),
            read_selected(p, cp.Minimize(cp.sum(x)), outputs=[x, *p.constraints[0].dual_variables]),
        ],
        CompileError,
        "a dual variable among the outputs.*compile without select=",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_misuse_is_refused_in_words(name: str) -> None:
    make, kind, words = ROWS[name]
    with pytest.raises(kind, match=words):
        make()
