"""Priors at work, on scikit-learn's digits: a prior in the problem, a selection, HSIC. Five seeds each.

A difference counts as help where it exceeds two standard errors of the paired differences over the seeds; otherwise the
table says so. Everything is trained by the layer's own gradients. `python -m tests.benchmarks.priors`
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import opteq_cvx as oc
from opteq_cvx.errors import CouplingWarning
from tests.benchmarks.harness import RESULTS, machine

SIDE = 8


@dataclass(frozen=True, slots=True)
class Comparison:
    """One experiment: a figure for each seed without and with what is tested, in the same order of seeds."""

    name: str
    figure: str
    without: tuple[float, ...]
    with_it: tuple[float, ...]
    seconds: float

    @property
    def difference(self) -> tuple[float, float]:
        """Mean and standard error of the paired differences, positive where it helps (all figures: less is better)."""
        gaps = np.array(self.without) - np.array(self.with_it)
        return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))

    @property
    def verdict(self) -> str:
        """Whether it helps."""
        mean, error = self.difference
        return "helps" if mean > 2 * error else ("hurts" if mean < -2 * error else "no help")


def digits(seed: int, train: int, test: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (n, 64) in [0, 1] and labels, of disjoint random subsets."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.data))
    images = torch.from_numpy(data.data[order] / 16.0)
    labels = torch.from_numpy(data.target[order]).long()
    return images[:train], labels[:train], images[train : train + test], labels[train : train + test]


def fit(layer: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Adam on the layer's raw weights."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


# --- a prior in the problem ----------------------------------------------------------------------------------


def denoiser(prior: str) -> oc.EquilibriumLayer:
    """argmin over [0, 1] of ½‖u − x‖² + λ·R(u), R total variation or, without it, the ridge ½‖u‖²."""
    x, u = oc.Input((SIDE, SIDE), name="x"), cp.Variable((SIDE, SIDE), name="u")
    lam = oc.Weight(name="lam", nonneg=True, init=0.1)
    term = oc.priors.total_variation_2d(u) if prior == "tv" else oc.priors.ridge(u)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - x) + lam * term), oc.priors.box(u, 0.0, 1.0))
    return oc.compile(problem, tolerance=1e-5).double()


def denoising(
    seed: int, *, train: int = 40, test: int = 80, steps: int = 10, noise: float = 0.3
) -> tuple[float, float]:
    """Mean squared error on test images, λ learned on the training images for either prior."""
    clean, _, held, _ = digits(seed, train, test)
    generator = torch.Generator().manual_seed(seed)
    noisy, given = (y + noise * torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in (clean, held))
    errors = []
    for prior in ("ridge", "tv"):
        layer = denoiser(prior)
        x, target = noisy.reshape(-1, SIDE, SIDE), clean.reshape(-1, SIDE, SIDE)
        fit(layer, lambda layer=layer, x=x, target=target: (layer(x)[0] - target).square().mean(), steps, 0.2)
        with torch.no_grad():
            errors.append(
                float((layer(given.reshape(-1, SIDE, SIDE))[0] - held.reshape(-1, SIDE, SIDE)).square().mean())
            )
    return errors[0], errors[1]


# --- selection -----------------------------------------------------------------------------------------------


def means() -> np.ndarray:
    """The 2×2 block means of an 8×8 image, (16, 64)."""
    half = np.kron(np.eye(SIDE // 2), np.full((1, 2), 0.5))
    return np.kron(half, half)


def super_resolution(seed: int, *, train: int = 25, test: int = 100, steps: int = 8) -> tuple[float, float]:
    """Mean squared error of 8×8 images from their 4×4 means: any solution, and the selected one, r and λ learned."""
    clean, _, held, _ = digits(seed, train, test)
    matrix = means()
    x, u = oc.Input(16, name="x"), cp.Variable(SIDE * SIDE, nonneg=True, name="u")
    r, lam = oc.Weight(SIDE * SIDE, name="r", init=np.zeros(64)), oc.Weight(name="lam", nonneg=True, init=0.5)
    grid = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    pairs = [(grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:])]
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(matrix @ u - x)))
    omega = lam * oc.priors.graph_smoothness(u, edges) + oc.priors.ridge(u, r)
    plain = oc.compile(problem).double()
    chosen = oc.compile(problem, select=cp.Minimize(omega)).double()
    coarse, given = (y @ torch.from_numpy(matrix).T for y in (clean, held))
    fit(chosen, lambda: (chosen(coarse)[0] - clean).square().mean(), steps, 0.2)
    with torch.no_grad():
        first, second = ((layer(given)[0] - held).square().mean() for layer in (plain, chosen))
    return float(first), float(second)


# --- HSIC ----------------------------------------------------------------------------------------------------


def correlation(features: Tensor) -> float:
    """The mean absolute correlation between different features that are not constant."""
    alive = features[:, features.std(dim=0) > 1e-6]
    matrix = torch.corrcoef(alive.T).abs()
    n = matrix.shape[0]
    return float((matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1)))


def unit(prior: oc.HSIC | None, units: int, seed: int) -> oc.EquilibriumLayer:
    """An OptEq unit on the digits."""
    x, u = oc.Input(64, name="x"), cp.Variable(units, nonneg=True, name="u")
    w = oc.Weight((units, units), name="W", norm=0.8, seed=seed)
    v, b = oc.Weight((units, 64), name="U", seed=seed + 100), oc.Weight(units, name="b", init=np.full(units, 0.1))
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(units) - w @ w.T)) - (v @ x + b) @ u
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CouplingWarning)
        return oc.compile(cp.Problem(cp.Minimize(energy)), decorrelate=prior, tolerance=1e-5).double()


def decorrelated(
    seed: int, *, units: int = 16, train: int = 300, test: int = 400, epochs: int = 6, strength: float = 0.3
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(feature correlation, test error) of a classifier on the unit, without and with HSIC in training."""
    x, labels, held, truth = digits(seed, train, test)
    out = []
    for prior in (None, oc.HSIC(strength=strength)):
        torch.manual_seed(seed)
        layer, head = unit(prior, units, seed), nn.Linear(units, 10).double()
        optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=1e-2)
        for _ in range(epochs):
            for rows in torch.randperm(train).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(layer(x[rows])[0]), labels[rows]).backward()
                optimizer.step()
        layer.eval()
        with torch.no_grad():
            (features,) = layer(held)
            wrong = float((head(features).argmax(1) != truth).double().mean())
        out.append((correlation(features), wrong))
    return out[0], out[1]


def row(found: Comparison) -> str:
    """One line of the table."""
    means_ = [f"{np.mean(v):.4f}" for v in (found.without, found.with_it)]
    mean, error = found.difference
    cells = (found.name, found.figure, *means_, f"{mean:+.4f} ± {error:.4f}", found.verdict, f"{found.seconds:.0f}")
    return f"| {' | '.join(cells)} |"


def timed(run: Callable[[int], Any], seed: int) -> tuple[Any, float]:
    """What one seed gives, and its seconds."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    out = run(seed)
    return out, time.perf_counter() - began


def main() -> None:
    """All three experiments; writes results/priors.md and priors.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes, one seed of one experiment each")
    options = parser.parse_args()
    seeds = range(options.seeds)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            run: [pool.submit(timed, run, seed) for seed in seeds]
            for run in (denoising, super_resolution, decorrelated)
        }
        done = {run: [job.result() for job in started] for run, started in jobs.items()}
    spent = {run: sum(seconds for _, seconds in results) for run, results in done.items()}
    found = []
    for run, name, figure in (
        (denoising, "total variation in the problem (ridge without it)", "MSE of denoised digits"),
        (super_resolution, "selection among solutions", "MSE of 8×8 digits from 4×4 means"),
    ):
        pairs = [out for out, _ in done[run]]
        found.append(Comparison(name, figure, *(tuple(p[side] for p in pairs) for side in (0, 1)), spent[run]))
    for k, figure in enumerate(("mean absolute feature correlation", "test error of the classifier")):
        values = (tuple(out[side][k] for out, _ in done[decorrelated]) for side in (0, 1))
        found.append(Comparison("HSIC in training", figure, *values, spent[decorrelated]))
    head = "| what | figure (less is better) | without | with | gain ± standard error | verdict | seconds |"
    text = "\n".join([head, "|---|---|---|---|---|---|---|", *map(row, found)])
    where = machine()
    note = f"{len(seeds)} seeds, {where['processor']}, one thread a seed, torch {where['versions']['torch']}"
    print(f"{note}\n\n{text}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "priors.md").write_text(f"# priors\n\n{note}\n\n{text}\n")
    rows = [{**asdict(f), "gain": f.difference, "verdict": f.verdict} for f in found]
    (RESULTS / "priors.json").write_text(json.dumps({"machine": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
