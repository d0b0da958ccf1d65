"""One drawing for each problem, at small sizes, named after the file and called with its `ProblemFile` and Axes.

A picture shows what the program does: how a solution follows its input, a matrix before and after, an iteration's way.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from notebooks.sketches import build, lines, outputs, profile, ray, stems, tables
from opteq_cvx.plot import path, trajectory
from opteq_cvx.plot.axes import COLORS, DASHES, MARKERS, on
from opteq_cvx.problem_file import ProblemFile

Draw = Callable[[ProblemFile, Any], None]
DRAWINGS: dict[str, Draw] = {}


def draws(function: Draw) -> Draw:
    """Register the drawing of the problem that the function is named after."""
    DRAWINGS[function.__name__] = function
    return function


@draws
def box_qp(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=4, actions=5)
    t, x = ray(4, -3, 3)
    lines(axes, t, outputs(layer, x)[0], "z[{}]", x="input, along a direction", y="action", title="Actions saturate")


@draws
def conv_deep(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=1, pixels=17, channels=2)
    image = np.zeros((1, 17, 17))
    image[0, 4:13, 4:13], image[0, 6:11, 6:11] = 1.0, 0.0
    u, v = outputs(layer, image)
    shown = {"image": image[0]} | {f"{name}[{k}]": m for name, z in (("u", u), ("v", v)) for k, m in enumerate(z)}
    tables(axes, shown, rows="pixel rows", columns="columns", signed=False)


@draws
def conv_opteq(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=1, pixels=17, channels=3)
    image = np.zeros((1, 17, 17))
    image[0, 4:13, 4:13], image[0, 6:11, 6:11] = 1.0, 0.0
    (u,) = outputs(layer, image)
    shown = {"image": image[0]} | {f"u[{k}]": m for k, m in enumerate(u)}
    tables(axes, shown, rows="pixel rows", columns="columns", signed=False)


@draws
def conv_sparse(file: ProblemFile, axes: Any) -> None:
    corner, bar = np.zeros((2, 5, 5))
    corner[:, 0], corner[4, :], bar[2, :] = 1.0, 1.0, 1.0
    layer = build(file, {"D": np.stack([corner, bar])[:, None] / 9, "lam": 0.15}, inputs=1, pixels=15, channels=2)
    image = np.zeros((1, 15, 15))
    image[0, 1:6, 2:7] += corner
    image[0, 8:13, 8:13] += corner
    image[0, 9:14, 1:6] += bar
    (u,) = outputs(layer, image)
    tables(axes, {"image": image[0], "corners": u[0], "bars": u[1]}, rows="pixel rows", columns="columns", signed=False)


@draws
def covariance_selection(file: ProblemFile, axes: Any) -> None:
    (x,) = file.sample(1, torch.Generator().manual_seed(1), size=8)
    shown = {}
    for lam in (0.02, 0.2):
        shown[f"Θ, λ = {lam}"] = outputs(build(file, {"lam": lam}, size=8), x[0])[0]
    tables(axes, shown, rows="variable", columns="variable")


@draws
def deep_opteq(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=4, hidden=16, width=5)
    t, x = ray(4, -3, 3)
    kinds = {"x": "input, along a direction", "y": "state", "title": "Three layers, in equilibrium"}
    lines(axes, t, outputs(layer, x)[0], "z[{}]", **kinds)


@draws
def entropic_transport(file: ProblemFile, axes: Any) -> None:
    rows, columns = 12, 14
    cost = 3.0 * (np.linspace(0, 1, rows)[:, None] - np.linspace(0, 1, columns)) ** 2
    r, c = (np.exp(-((np.arange(n) - m * n) ** 2) / (2 * (0.15 * n) ** 2)) for n, m in ((rows, 0.3), (columns, 0.6)))
    layer = build(file, {"C": cost}, rows=rows, columns=columns)
    (plan,) = outputs(layer, r / r.sum(), c / c.sum())
    tables(axes, {"transport plan P": plan}, rows="from", columns="to", signed=False)


@draws
def graph_diffusion(file: ProblemFile, axes: Any) -> None:
    layer = build(file, nodes=16, features=1, states=1, flows=4)
    layer.weights.set("B", np.ones((1, 1)))
    layer.weights.set("W", np.array([[1.5], [-1.5], [0.5], [-0.5]]))
    x = np.zeros((16, 1))
    x[8] = 3.0
    (z,) = outputs(layer, x)
    profile(axes, x[:, 0], (x + z)[:, 0], ("X", "X + Z"), x="node of the ring", y="state", title="A bump flows apart")


@draws
def graph_smoothing(file: ProblemFile, axes: Any) -> None:
    x = 2 * np.sin(np.linspace(0, 2 * np.pi, 30, endpoint=False))
    seen = np.where(np.arange(30) % 3 == 0, x, np.nan)
    (y,) = outputs(build(file, {"lam": 0.1, "rho": 1e-3}, nodes=30), x)
    profile(axes, seen, y, ("label", "y*"), x="node", y="value", title="Few labels reach all nodes")


@draws
def group_lasso(file: ProblemFile, axes: Any) -> None:
    layer = build(file, {"lam": 0.25}, inputs=16, groups=8)
    (x,) = file.sample(1, torch.Generator().manual_seed(1), inputs=16, groups=8)
    tables(axes, {"codes Z": outputs(layer, x[0])[0]}, rows="group", columns="component")


@draws
def hopfield(file: ProblemFile, axes: Any) -> None:
    angle = 2 * np.pi * np.arange(5) / 5
    W = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.8
    layer = build(file, {"W": W, "U": 5 * W}, inputs=2, patterns=5, width=2)
    t = np.linspace(0, 2 * np.pi, 121)
    (z,) = outputs(layer, np.stack([np.cos(t), np.sin(t)], axis=1))
    on(axes, x="z[0]", y="z[1]", title="What queries on a circle retrieve")
    axes.plot(*z.T, color=COLORS[0], label="z*")
    axes.plot(*W.T, "*", color=COLORS[3], markersize=11, label="patterns")
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize="x-small")


@draws
def isotonic_regression(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=6, outputs=24)
    rise = np.linspace(-1.5, 1.5, 24) + 0.4 * np.random.default_rng(0).normal(size=24)
    layer.weights.set("A", np.zeros((24, 6)))
    layer.weights.set("b", rise)
    (p,) = outputs(layer, np.zeros(6))
    profile(axes, rise, p, ("scores", "p*"), x="place", y="value", title="Pooled to a monotone sequence")


@draws
def lml_head(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=6, labels=12)
    layer.weights.set("W", 2.0 * np.random.default_rng(1).normal(size=(12, 6)))
    x = np.ones(6) * 0.4
    scores = layer.weights.numpy("W") @ x + layer.weights.numpy("b")
    found = {"scores": scores, "y* (sum 3)": outputs(layer, x)[0]}
    stems(axes, found, x="label", y="value", title="The three that count")


@draws
def low_rank_completion(file: ProblemFile, axes: Any) -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(12, 2)) @ generator.normal(size=(2, 10))
    i, j = np.mgrid[:12, :10]
    seen = np.where((i + j) % 3 != 2, X, np.nan)
    (Y,) = outputs(build(file, {"lam": 0.3}, rows=12, columns=10), X)
    tables(axes, {"observed": seen, "completed": Y, "truth": X}, rows="row", columns="column")


@draws
def model_predictive_control(file: ProblemFile, axes: Any) -> None:
    A, B = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.0], [0.4]])
    costs = {"A": A, "B": B, "Q": [1.0, 0.3], "R": [0.3]}
    layer, x = build(file, costs, states=2, controls=1), np.array([2.5, 0.0])
    states, controls = [x], []
    for _ in range(30):
        controls.append(outputs(layer, states[-1])[0][0])
        states.append(A @ states[-1] + B @ controls[-1:])
    on(axes, x="step", y="value", title="Closed loop")
    for k, (name, values) in enumerate(
        {"position": np.array(states)[:-1, 0], "control u₁": np.array(controls)}.items()
    ):
        axes.plot(values, color=COLORS[k], linestyle=DASHES[k], label=name)
    axes.legend(frameon=False, fontsize="x-small")


@draws
def mondeq(file: ProblemFile, axes: Any) -> None:
    generator, found = np.random.default_rng(0), {}
    B = 0.25 * generator.normal(size=(12, 12))
    for name, skew in (("B = 0: a convex program", 0.0), ("with skew part", 1.0)):
        W = 0.7 * np.eye(12) + skew * (B - B.T)
        found[name] = np.linalg.eigvals(W)
    layer = build(file, {"A": np.zeros((12, 12)), "B": B}, inputs=4, hidden=12)
    assert np.isfinite(outputs(layer, np.ones(4))[0]).all()
    on(axes, x="real part", y="imaginary part", title="Eigenvalues of W: what turns has no objective")
    for k, (name, values) in enumerate(found.items()):
        axes.plot(values.real, values.imag, MARKERS[k], color=COLORS[k], markersize=4, label=name)
    axes.axvline(1.0, color="#707070", linewidth=0.8, linestyle=":", label="well-posed to the left")
    axes.legend(frameon=False, fontsize="x-small")
    axes.set_xlim(-0.2, 1.2)


@draws
def multibranch_opteq(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=8, fine=24, width=16)
    (x,) = file.sample(1, torch.Generator().manual_seed(0), inputs=8, fine=24, width=16)
    fine, coarse = outputs(layer, x[0])
    on(axes, x="place", y="activity", title="Two resolutions, one equilibrium")
    axes.step(np.arange(24), fine, where="mid", color=COLORS[0], label="fine branch")
    axes.step(np.linspace(0.5, 22.5, len(coarse)), coarse, where="mid", color=COLORS[1], label="coarse branch")
    axes.legend(frameon=False, fontsize="x-small")


@draws
def nash_game(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=6, actions=8)
    (x,) = file.sample(1, torch.Generator().manual_seed(0), inputs=6, actions=8)
    found = {f"player {k + 1}": u for k, u in enumerate(outputs(layer, 2 * x[0]))}
    stems(axes, found, x="action", y="effort", title="The equilibrium of three players")


@draws
def nearest_correlation(file: ProblemFile, axes: Any) -> None:
    layer = build(file, features=3, size=7)
    noisy = np.eye(7) + 0.7 * np.random.default_rng(1).normal(size=(7, 7))
    layer.weights.set("G", np.stack([noisy.reshape(-1), *np.zeros((2, 49))]))
    (X,) = outputs(layer, np.array([1.0, 0.0, 0.0]))
    tables(axes, {"proposed": (noisy + noisy.T) / 2, "nearest": X}, rows="variable", columns="variable")


@draws
def opteq_unit(file: ProblemFile, axes: Any) -> None:
    weights = {"W": np.array([[0.78, 0.1], [-0.48, 0.5]]), "U": np.eye(2), "b": np.zeros(2)}
    layer = build(file, weights, inputs=2, hidden=2)
    seen = trajectory(layer, torch.tensor([0.4, 0.25], dtype=torch.float64), steps=40)
    path(seen.variables[:, 0], seen.energy(), axes=axes)


@draws
def portfolio(file: ProblemFile, axes: Any) -> None:
    layer = build(file, {"F": 0.3 * np.ones((5, 1)), "d": np.ones(5), "cost": 0.1}, assets=5, factors=1)
    t = np.linspace(0, 3, 121)
    mu = t[:, None] * np.array([1.0, 0.7, 0.4, 0.1, -0.2])
    (w,) = outputs(layer, mu, np.full(mu.shape, 0.2))
    on(axes, x="size of the expected returns", y="share", title="Holdings, costs of trading included")
    axes.stackplot(t, w.T, colors=COLORS, labels=[f"asset {k}" for k in range(5)])
    axes.legend(fontsize="x-small", loc="upper left")
    axes.set(xlim=(0, 3), ylim=(0, 1))


@draws
def quantile_bands(file: ProblemFile, axes: Any) -> None:
    layer = build(file, inputs=1, levels=4, targets=1)
    slopes, heights = np.array([[0.6], [0.1], [0.4], [-0.3]]), np.array([-1.0, -0.2, 0.5, 0.9])
    layer.weights.set("A", slopes)
    layer.weights.set("b", heights)
    t = np.linspace(-1, 3, 121)
    (q,) = outputs(layer, t[:, None])
    for k, line in enumerate((t[:, None] * slopes.T + heights).T):
        axes.plot(t, line, color="#808080", linewidth=0.8, linestyle=":", label="predicted" if k == 0 else None)
    lines(axes, t, q[:, :, 0], "q{}", x="input", y="quantile", title="Bands that would cross are pooled")


@draws
def robust_pca(file: ProblemFile, axes: Any) -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(10, 1)) @ generator.normal(size=(1, 12))
    X[generator.integers(0, 10, 6), generator.integers(0, 12, 6)] += 4.0
    L, S = outputs(build(file, rows=10, columns=12), X)
    tables(axes, {"X": X, "low rank L": L, "sparse S": S}, rows="row", columns="column")


@draws
def sparse_coding(file: ProblemFile, axes: Any) -> None:
    D = np.random.default_rng(0).normal(size=(16, 32))
    layer = build(file, {"D": 0.99 * D / np.linalg.norm(D, 2), "lam": 0.05}, inputs=16, codes=32)
    truth = np.zeros(32)
    truth[[3, 11, 25]] = 3.0, -2.5, 2.0
    found = outputs(layer, layer.weights.numpy("D") @ truth)[0]
    stems(axes, {"code behind the data": truth, "z*": found}, x="column of D", y="code", title="A sparse code of x")


@draws
def sparsemax_head(file: ProblemFile, axes: Any) -> None:
    layer = build(file, {"W": np.random.default_rng(0).normal(size=(5, 3))}, inputs=3, classes=5)
    t, x = ray(3, -2, 2)
    lines(axes, t, outputs(layer, x)[0], "p[{}]", x="input, along a direction", y="probability", title="Exact zeros")


@draws
def super_resolution(file: ProblemFile, axes: Any) -> None:
    x = 1.2 + np.sin(np.linspace(0, 2.5 * np.pi, 10))
    layer = build(file, {"lam": 20.0}, coarse=10)
    profile(
        axes,
        np.repeat(x, 3),
        outputs(layer, x)[0],
        ("means", "y*"),
        x="place",
        y="value",
        title="The smoothest of many",
    )


@draws
def support_vector_head(file: ProblemFile, axes: Any) -> None:
    layer = build(file, {"C": 0.6}, inputs=3, labels=10)
    scores = np.random.default_rng(3).normal(size=10)
    layer.weights.set("A", np.zeros((10, 3)))
    layer.weights.set("b", scores)
    signs = np.array([1, 0, -1, 0, 1, 0, -1, 0, 1, 0])
    found = {"score": scores, "s*": outputs(layer, np.zeros(3), signs)[0], "known sign": signs}
    stems(axes, found, x="label", y="value", title="Known labels push their margins")


@draws
def trend_filter(file: ProblemFile, axes: Any) -> None:
    knots = np.interp(np.arange(60), [0, 20, 40, 59], [0, 4, 1, 3]) + 0.5 * np.random.default_rng(0).normal(size=60)
    (y,) = outputs(build(file, {"lam": 4.0, "rho": 1e-4}, length=60), knots)
    profile(axes, knots, y, ("x", "y*"), x="place", y="value", title="Straight pieces")
