"""Programs whose multipliers are checked: one for each way in which a constraint reaches the iteration."""

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DualCase:
    """`build(b)` is a problem in a parameter b; `plan` the splitting that it must get."""

    name: str
    plan: str
    shape: tuple[int, ...]
    build: Callable[[cp.Parameter], cp.Problem]
    values: tuple[NDArray[np.float64], ...]


N = 4
RNG = np.random.default_rng(7)
HALF = RNG.normal(size=(N, N))
CURVED = HALF @ HALF.T + np.eye(N)
ROWS = RNG.normal(size=(3, N))
WEIGHTS = np.linspace(0.5, 2.0, N)
SYMMETRIC = HALF + HALF.T
VALUES = tuple(RNG.normal(size=N) for _ in range(3))


def near(x: cp.Expression, b: cp.Parameter) -> cp.Expression:
    """½‖x − b‖², whose plan is a closed form."""
    return cp.sum_squares(x - b) / 2


def curved(x: cp.Expression, b: cp.Parameter) -> cp.Expression:
    """½xᵀQx − ⟨b, x⟩, whose plan iterates."""
    return cp.quad_form(x, CURVED) / 2 - b @ x


Build = Callable[[cp.Variable, cp.Parameter], tuple[cp.Expression, list[object]]]


def case(name: str, plan: str, make: Build, attributes: dict[str, object] | None = None) -> DualCase:
    def build(b: cp.Parameter) -> cp.Problem:
        cost, constraints = make(cp.Variable(N, **(attributes or {})), b)
        return cp.Problem(cp.Minimize(cost), constraints)

    return DualCase(name, plan, (N,), build, VALUES)


def maximized(b: cp.Parameter) -> cp.Problem:
    x = cp.Variable(N)
    return cp.Problem(cp.Maximize(b @ x - cp.sum_squares(x)), [cp.sum(x) == 1, x <= 0.5])


def semidefinite(b: cp.Parameter) -> cp.Problem:
    x = cp.Variable((N, N), symmetric=True)
    goal = cp.sum_squares(x - SYMMETRIC - cp.diag(b)) / 2
    return cp.Problem(cp.Minimize(goal), [x >> 0, cp.trace(x) == 1])


def asymmetric(b: cp.Parameter) -> cp.Problem:
    x = cp.Variable((N, N))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - SYMMETRIC) + b @ x @ np.ones(N)), [x >> np.eye(N)])


def exponential(b: cp.Parameter) -> cp.Problem:
    x, y, z = (cp.Variable(N) for _ in range(3))
    return cp.Problem(cp.Minimize(cp.sum(z) + near(x, b) + cp.sum_squares(y - 2)), [cp.ExpCone(x, y, z), y <= 1.5])


def power(b: cp.Parameter) -> cp.Problem:
    x, y, z = (cp.Variable(N) for _ in range(3))
    goal = near(x, b) + cp.sum_squares(y) - 2 * cp.sum(z)
    return cp.Problem(cp.Minimize(goal), [cp.PowCone3D(x, y, z, 0.3), x + y <= 2])


def powers(b: cp.Parameter) -> cp.Problem:
    w, z, alpha = cp.Variable((3, N)), cp.Variable(N), np.full((3, N), 1 / 3)
    goal = cp.sum_squares(w) - b**2 @ z - cp.sum(z)
    return cp.Problem(cp.Minimize(goal), [cp.PowConeND(w, z, alpha), w[0] <= 0.3])


def cones(b: cp.Parameter) -> cp.Problem:
    x, t = cp.Variable((3, N)), cp.Variable(N)
    goal = cp.sum(t) + cp.sum_squares(x - 1) - b @ x[0]
    return cp.Problem(cp.Minimize(goal), [cp.SOC(t, x, axis=0), t >= 1.2])


def mixed(b: cp.Parameter) -> cp.Problem:
    x, t = cp.Variable(N), cp.Variable()
    soft = [cp.norm2(x - b) <= t, x[0] + x[1] == 1, cp.exp(x[2]) <= x[3], cp.SOC(t + 1, x)]
    return cp.Problem(cp.Minimize(t + 0.5 * t**2), soft)


def nuclear(b: cp.Parameter) -> cp.Problem:
    x = cp.Variable((N, N))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - SYMMETRIC) + b @ x @ np.ones(N)), [cp.normNuc(x) <= 1])


def heights(b: cp.Parameter) -> cp.Problem:
    x, t, s = cp.Variable((3, N)), cp.Variable(N), cp.Variable()
    below = [cp.sum(cp.exp(x), axis=0) <= 2 * t, 2 * cp.log_sum_exp(x[0] - b) <= s + 1]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + cp.sum_squares(t) + cp.square(s) - b @ x[1]), below)


def largest(b: cp.Parameter) -> cp.Problem:
    """The largest of norms, and of sums of squares: one multiplier for all rows."""
    x, y, z = cp.Variable((3, N)), cp.Variable((3, N)), cp.Variable((3, N))
    rows = cp.Constant(np.outer([1.0, 2.0, 0.1], np.ones(N)))
    near_ = sum(cp.sum_squares(v - cp.multiply(rows, cp.vstack([b, b, b]))) / 2 for v in (x, y, z))
    below = [
        3 * cp.mixed_norm(x, 2, "inf") <= 1.5,
        2 * cp.max(cp.norm(y, 1, axis=1)) <= 1,
        2 * cp.max(cp.sum(cp.square(z), axis=1)) <= 1,
    ]
    return cp.Problem(cp.Minimize(near_), below)


def paraboloids(b: cp.Parameter) -> cp.Problem:
    x, t, s = cp.Variable(N), cp.Variable(N), cp.Variable()
    below = [2 * cp.square(x - b) <= t, 3 * cp.sum_squares(x) <= s + 1, cp.sum(cp.power(x, 3)) <= 2 * s]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + cp.sum_squares(t) + cp.square(s)), below)


def by_sorting(b: cp.Parameter) -> cp.Problem:
    x, t = cp.Variable((3, N)), cp.Variable(3)
    below = [cp.norm1(x[0]) <= t[0], cp.max(x[1]) <= t[1], 2 * cp.norm_inf(x[2]) <= t[2]]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + cp.sum_squares(t) - cp.sum(x @ b)), below)


def square(x: cp.Variable) -> cp.Expression:
    return cp.reshape(x, (2, 2), order="C")


CASES = (
    case("bounds", "closed form", lambda x, b: (near(x, b), [x >= -0.2, x <= 0.3])),
    case("crossing_bounds", "closed form", lambda x, b: (near(x, b), [x >= -0.2, x[:2] >= 0.1, x[1:] <= 0.3])),
    case("simplex", "closed form", lambda x, b: (near(x, b), [x >= 0, cp.sum(x) == 1])),
    case("simplex_attribute", "closed form", lambda x, b: (near(x, b), [cp.sum(x) == 1]), {"nonneg": True}),
    case("capped_simplex", "closed form", lambda x, b: (near(x, b), [x >= 0, x <= 0.4, cp.sum(x) == 1])),
    case(
        "transport",
        "closed form",
        lambda x, b: (
            near(x, b),
            [square(x) @ [1, 1] == [1, 1.5], x >= 0, 2 * cp.sum(square(x), axis=0)[1] == 1 + b[0]],
        ),
    ),
    case(
        "transport_line_by_line",
        "closed form",
        lambda x, b: (
            near(x, b),
            [
                x >= 0,
                x <= 3,
                cp.sum(square(x)[0]) == 1,
                2 * cp.sum(square(x)[1]) == 3,
                cp.sum(square(x)[:, 1]) == 0.8,
            ],
        ),
    ),
    case("plane", "closed form", lambda x, b: (near(x, b), [x >= 0, 2 * x[0] + x[1] >= 0.8, x[2] + x[3] <= 0.1])),
    case("monotone", "closed form", lambda x, b: (near(x, b), [cp.diff(x) >= 0])),
    case("decreasing", "closed form", lambda x, b: (near(x, b), [x[:-1] >= x[1:]])),
    case("ball", "closed form", lambda x, b: (near(x, b), [cp.norm2(x) <= 0.5])),
    case("orthant", "forward–backward", lambda x, b: (curved(x, b), [x >= 0])),
    case("halves", "forward–backward", lambda x, b: (curved(x, b), [x[:2] >= 0.1, x[2:] <= -0.1])),
    case("curved_simplex", "forward–backward", lambda x, b: (curved(x, b), [x >= 0, cp.sum(x) == 1])),
    case("scaled_plane", "forward–backward", lambda x, b: (curved(x, b), [x >= -1, x <= 0.5, ROWS[0] @ x <= -0.2])),
    case("l1_bound", "forward–backward", lambda x, b: (curved(x, b) + cp.norm1(x), [x >= 0.1])),
    case("huber_bound", "forward–backward", lambda x, b: (curved(x, b) + cp.sum(cp.huber(x)), [x <= -0.1])),
    case("entropy_bound", "forward–backward", lambda x, b: (curved(x, b) - cp.sum(cp.entr(x)), [x <= 0.2])),
    case("squares", "forward–backward", lambda x, b: (curved(x, b), [3 * cp.sum_squares(x) <= 0.1])),
    case("l2", "forward–backward", lambda x, b: (curved(x, b), [cp.norm2(x) <= 0.1])),
    case("l1", "forward–backward", lambda x, b: (curved(x, b), [2 * cp.norm1(x) <= 0.1])),
    case("linf", "forward–backward", lambda x, b: (curved(x, b), [cp.norm_inf(x) <= 0.05])),
    case("absolute", "forward–backward", lambda x, b: (curved(x, b), [cp.abs(x) <= 0.05])),
    case("scaled_bound", "forward–backward", lambda x, b: (curved(x, b), [2 * x <= 0.1])),
    case("rows", "Douglas–Rachford", lambda x, b: (curved(x, b), [ROWS @ x <= -0.1])),
    case("equalities", "forward–backward, after elimination", lambda x, b: (curved(x, b), [ROWS[:2] @ x == 1])),
    case("linear", "Douglas–Rachford", lambda x, b: (cp.sum(x) + curved(x, b), [ROWS @ x >= 1, x >= b - 1])),
    case("epigraph", "Douglas–Rachford", lambda x, b: (curved(x, b), [cp.sum(cp.exp(x)) <= 3, cp.sum(x) == -1.5])),
    case("logistic", "closed form", lambda x, b: (near(x, b), [cp.sum(cp.logistic(x)) <= 1])),
    case("weighted", "forward–backward", lambda x, b: (curved(x, b), [3 * (WEIGHTS @ cp.exp(x)) <= 2 + b[0] ** 2])),
    case("each", "closed form", lambda x, b: (near(x, b), [2 * cp.logistic(x) <= 0.7])),
    case("entries", "closed form", lambda x, b: (near(x, b), [3 * cp.square(x) <= 0.1])),
    case("weighted_squares", "Douglas–Rachford", lambda x, b: (near(x, b), [2 * (WEIGHTS @ cp.square(x)) <= 0.3])),
    case("weighted_l1", "closed form", lambda x, b: (near(x, b), [2 * (WEIGHTS @ cp.abs(x)) <= 0.3])),
    case(
        "groups",
        "closed form",
        lambda x, b: (near(x, b), [cp.mixed_norm(cp.reshape(x, (2, 2), order="C"), 2, 1) <= 0.2]),
    ),
    case("largest", "closed form", lambda x, b: (near(x, b), [cp.max(x) <= 0.1])),
    case("slopes", "Douglas–Rachford", lambda x, b: (curved(x, b), [cp.log_sum_exp(ROWS @ x) <= 1])),
    case("pair", "closed form", lambda x, b: (near(x, b), [cp.exp(x[0]) <= x[1], cp.norm1(x[2:]) <= 0.1])),
    DualCase("heights", "Douglas–Rachford", (N,), heights, VALUES),
    DualCase("largest", "closed form", (N,), largest, VALUES),
    DualCase("paraboloids", "Douglas–Rachford", (N,), paraboloids, VALUES),
    DualCase("sorted", "Douglas–Rachford", (N,), by_sorting, VALUES),
    DualCase("nuclear", "closed form", (N,), nuclear, VALUES),
    DualCase("maximized", "closed form", (N,), maximized, VALUES),
    DualCase("semidefinite", "Douglas–Rachford", (N,), semidefinite, VALUES),
    DualCase("asymmetric", "Douglas–Rachford", (N,), asymmetric, VALUES),
    DualCase("exponential", "Douglas–Rachford", (N,), exponential, VALUES),
    DualCase("power", "Douglas–Rachford", (N,), power, VALUES),
    DualCase("powers", "Douglas–Rachford", (N,), powers, VALUES),
    DualCase("cones", "Douglas–Rachford", (N,), cones, VALUES),
    DualCase("mixed", "Douglas–Rachford", (N,), mixed, VALUES),
)
