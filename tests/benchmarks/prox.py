"""The most used proxes at batch 1024 × 100 against the plain torch expression and public implementations, in one run.

    python -m tests.benchmarks.prox [--threads N] [--batch 1024] [--size 100]

Peers are measured where they are installed: pyproximal (NumPy, one vector a call but for elementwise functions: a loop
over the batch) and proxtorch. Errors are in the maximum norm, in float64, against levels found by bisection in extended
precision, or bounded by the optimality residual (‖x − x*‖ ≤ ‖x + t∇f(x) − v‖ for smooth f; the dual residual for total
variation and isotonic regression, which are piecewise linear in it).
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from tests.benchmarks.harness import Row, publish, timed

T = 0.7
Prox = Callable[[Tensor], Tensor]


def optional(name: str) -> ModuleType | None:
    """A peer, where it is installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


# --- plain torch, as one writes it ------------------------------------------------------------------------


def plain_simplex(v: Tensor, total: float = 1.0) -> Tensor:
    u = v.sort(dim=-1, descending=True).values
    over = u.cumsum(-1) - total
    count = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype)
    rho = (u - over / count > 0).sum(-1, keepdim=True)
    return (v - over.gather(-1, rho - 1) / rho).clamp(min=0)


def plain_l1_ball(v: Tensor) -> Tensor:
    inside = v.abs().sum(-1, keepdim=True) <= 1
    return torch.where(inside, v, torch.sign(v) * plain_simplex(v.abs()))


def plain_newton(gradient: Prox, curvature: Prox, start: Prox, steps: int = 20) -> Prox:
    def prox(v: Tensor) -> Tensor:
        x = start(v)
        for _ in range(steps):
            x = x - (x + T * gradient(x) - v) / (1 + T * curvature(x))
        return x

    return prox


def plain_log_sum_exp(v: Tensor) -> Tensor:
    x = v - T / v.shape[-1]
    for _ in range(20):
        p = torch.softmax(x, -1)
        r, d = x + T * p - v, 1 + T * p
        w = r / d
        x = x - w - (T * p / d) * (p * w).sum(-1, keepdim=True) / (1 - (T * p * p / d).sum(-1, keepdim=True))
    return x


def plain_neg_entr(v: Tensor) -> Tensor:
    """Newton's method for y = ln x in eʸ + T(1 + y) = v, which is convex: from above it falls to the root."""
    y = torch.minimum(v.clamp(min=1).log() + 1, v / T - 1).clamp(min=-700)
    for _ in range(20):
        y = y - (torch.exp(y) + T * (1 + y) - v) / (torch.exp(y) + T)
    return torch.exp(y)


def plain_capped(v: Tensor, total: float, cap: float) -> Tensor:
    """clip(v − τ, 0, cap) of the given sum, by bisection."""
    low, high = v.amin(-1, keepdim=True) - cap, v.amax(-1, keepdim=True)
    for _ in range(60):
        middle = (low + high) / 2
        more = (v - middle).clamp(0, cap).sum(-1, keepdim=True) > total
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (v - (low + high) / 2).clamp(0, cap)


def plain_monotone(v: Tensor) -> Tensor:
    """max over j ≤ i of min over k ≥ i of the mean of v from j to k: all n² means."""
    total = torch.nn.functional.pad(v.cumsum(-1), (1, 0))
    first = torch.arange(v.shape[-1], dtype=v.dtype).unsqueeze(-1)
    length = first.mT - first + 1
    mean = (total[..., None, 1:] - total[..., :-1, None]) / length
    mean = torch.where(length > 0, mean, torch.inf)
    least = mean.flip(-1).cummin(-1).values.flip(-1)
    return torch.where(length > 0, least, -torch.inf).amax(-2)


def plain_tv(v: Tensor, steps: int = 1000) -> Tensor:
    """Accelerated projected gradient on the dual: min ½‖v − Dᵀu‖², |u| ≤ T; ‖D‖² ≤ 4."""
    u = ahead = torch.zeros_like(v[..., 1:])
    pad = torch.nn.functional.pad
    for k in range(steps):
        x = v + pad(ahead, (0, 1)) - pad(ahead, (1, 0))
        new = (ahead + x.diff(dim=-1) / 4).clamp(-T, T)
        ahead, u = new + k / (k + 3) * (new - u), new
    return v + pad(u, (0, 1)) - pad(u, (1, 0))


PLAIN: Mapping[str, Prox] = {
    "abs": lambda v: torch.sign(v) * torch.relu(v.abs() - T),
    "square": lambda v: v / (1 + 2 * T),
    "nonneg": torch.relu,
    "box": lambda v: v.clamp(-1, 1),
    "pos": lambda v: torch.where(v > T, v - T, v.clamp(max=0)),
    "huber": lambda v: torch.where(v.abs() <= 1 + 2 * T, v / (1 + 2 * T), v - 2 * T * torch.sign(v)),
    "norm2": lambda v: v * torch.relu(1 - T / v.norm(dim=-1, keepdim=True)),
    "norm_inf": lambda v: v - T * plain_l1_ball(v / T),
    "l1_ball": plain_l1_ball,
    "l2_ball": lambda v: v / v.norm(dim=-1, keepdim=True).clamp(min=1),
    "simplex": plain_simplex,
    "max": lambda v: v - T * plain_simplex(v / T),
    "logistic": plain_newton(torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x), lambda v: v - T / 2),
    "neg_log": lambda v: (v + torch.sqrt(v * v + 4 * T)) / 2,
    "exp": plain_newton(torch.exp, torch.exp, lambda v: v.clamp(max=1.0)),
    "log_sum_exp": plain_log_sum_exp,
    "neg_entr": plain_neg_entr,
    "monotone": plain_monotone,
    "sum_largest": lambda v: v - plain_capped(v, 5 * T, T),
    "box_plane": lambda v: plain_capped(v, 5.0, 1.0),
    "tv": plain_tv,
}

# --- public implementations ---------------------------------------------------------------------------------


def each(operator: object) -> Prox:
    """pyproximal's prox of every row, or of everything where it acts entry by entry."""

    def prox(v: Tensor) -> Tensor:
        return torch.as_tensor(np.stack([operator.prox(row, T) for row in v.numpy()]))  # type: ignore[attr-defined]

    return prox


def whole(operator: object) -> Prox:
    def prox(v: Tensor) -> Tensor:
        return torch.as_tensor(operator.prox(v.numpy().reshape(-1), T).reshape(v.shape))  # type: ignore[attr-defined]

    return prox


def peers(n: int) -> dict[tuple[str, str], Prox]:
    """(workload, who) to a prox, for what is installed."""
    found: dict[tuple[str, str], Prox] = {}
    py = optional("pyproximal")
    if py is not None:
        found["abs", "pyproximal"] = whole(py.L1())
        found["box", "pyproximal"] = whole(py.Box(-1, 1))
        found["l1_ball", "pyproximal"] = each(py.L1Ball(n, 1.0))
        found["l2_ball", "pyproximal"] = each(py.EuclideanBall(np.zeros(n), 1.0))
        found["simplex", "pyproximal"] = each(py.Simplex(n, 1.0))
        found["norm2", "pyproximal"] = each(py.Euclidean())
    torchs = optional("proxtorch")
    if torchs is not None:
        operators = import_module("proxtorch.operators")
        l1 = operators.L1(1.0)
        found["abs", "proxtorch"] = lambda v: l1.prox(v, T)
    return found


# --- accuracy ----------------------------------------------------------------------------------------------


def level(v: np.ndarray, total: float, cap: float = np.inf) -> np.ndarray:
    """τ with Σ min(max(v − τ, 0), cap) = total, by bisection in extended precision."""
    v = v.astype(np.longdouble)
    low, high = v.min(-1, keepdims=True) - total - 1, v.max(-1, keepdims=True)
    for _ in range(100):
        middle = (low + high) / 2
        more = np.clip(v - middle, 0, cap).sum(-1, keepdims=True) > total
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return (low + high) / 2


def on_simplex(v: np.ndarray, total: float = 1.0) -> np.ndarray:
    return np.maximum(v - level(v, total), 0)


def on_l1_ball(v: np.ndarray) -> np.ndarray:
    inside = np.abs(v).sum(-1, keepdims=True) <= 1
    return np.where(inside, v, np.sign(v) * on_simplex(np.abs(v)))


def on_capped(v: np.ndarray) -> np.ndarray:
    return np.clip(v - level(v, 5.0, 1.0), 0, 1)


EXACT: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "abs": lambda v: np.sign(v) * np.maximum(np.abs(v) - T, 0),
    "nonneg": lambda v: np.maximum(v, 0),
    "box": lambda v: np.clip(v, -1, 1),
    "pos": lambda v: v - np.clip(v, 0, T),
    "norm2": lambda v: v * np.maximum(0, 1 - T / np.sqrt((v.astype(np.longdouble) ** 2).sum(-1, keepdims=True))),
    "norm_inf": lambda v: v - T * on_l1_ball(v / T),
    "l1_ball": on_l1_ball,
    "l2_ball": lambda v: v / np.maximum(1, np.sqrt((v.astype(np.longdouble) ** 2).sum(-1, keepdims=True))),
    "simplex": on_simplex,
    "box_plane": on_capped,
    "max": lambda v: v - T * on_simplex(v / T),
    "sum_largest": lambda v: v - np.clip(v - level(v, 5 * T, T), 0, T),
}


def accuracy(name: str, x: Tensor, v: Tensor) -> float:
    """The error in the maximum norm, or its bound."""
    if name in EXACT:
        return float(np.abs(x.numpy() - EXACT[name](v.numpy())).max())
    if name in ("tv", "monotone"):
        flow, jump = (v - x).cumsum(-1), x.diff(dim=-1)
        inner = flow[..., :-1]
        bound = -T * torch.sign(jump) if name == "tv" else torch.zeros_like(jump)
        tight = torch.where(jump.abs() > 1e-9, (inner - bound).abs(), 0.0)
        outside = torch.relu(inner.abs() - T) if name == "tv" else torch.relu(-inner) + torch.relu(-jump)
        return float(torch.stack([tight.max(), outside.max(), flow[..., -1].abs().max()]).max())
    at = x.clone().requires_grad_()
    data = {"M": torch.ones(1, 1, dtype=x.dtype)} if name == "huber" else {}
    (gradient,) = torch.autograd.grad(atom(name).from_static({}).value(at, data).sum(), at)
    return float((x + T * gradient - v).abs().max())


# --- the run -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ours:
    """An atom with what its prox needs."""

    name: str
    static: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, float] = field(default_factory=dict)


OURS = (
    *(Ours(name) for name in ("abs", "square", "nonneg", "pos", "norm2", "norm_inf", "max")),
    *(Ours(name) for name in ("logistic", "neg_log", "neg_entr", "exp", "log_sum_exp", "monotone")),
    Ours("box", data={"lower": -1.0, "upper": 1.0}),
    Ours("huber", data={"M": 1.0}),
    Ours("l1_ball", data={"radius": 1.0}),
    Ours("l2_ball", data={"radius": 1.0}),
    Ours("simplex", data={"total": 1.0}),
    Ours("sum_largest", static={"k": 5.0}),
    Ours("box_plane", data={"lower": 0.0, "upper": 1.0, "normal": 1.0, "total": 5.0}),
    Ours("tv", data={"w": 1.0}),
)


def ours(one: Ours, like: Tensor) -> Prox:
    """The atom's prox as the network calls it."""
    f = atom(one.name).from_static(one.static)
    step = torch.full((1, 1), T, dtype=like.dtype)
    data = {k: torch.full((1, 1), x, dtype=like.dtype) for k, x in one.data.items()}
    return lambda v: f.prox(v, step, data)


def main() -> None:
    """Measure all, float64."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--size", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    v = 2 * torch.randn(options.batch, options.size, dtype=torch.float64, generator=generator)
    rows = []
    for one in OURS:
        found: list[tuple[str, Prox]] = [("opteq_cvx", ours(one, v))]
        if one.name in PLAIN:
            found.append(("plain torch", PLAIN[one.name]))
        found += [(who, prox) for (name, who), prox in peers(options.size).items() if name == one.name]
        for who, prox in found:
            with torch.no_grad():
                x = prox(v)
                times = timed(lambda prox=prox: prox(v), budget_s=10.0)  # type: ignore[misc]
            error = accuracy(one.name, x, v)
            rows.append(Row(one.name, who, f"n={options.size}", options.batch, "float64", *times, error, float("nan")))
    publish("prox", rows)


if __name__ == "__main__":
    main()
