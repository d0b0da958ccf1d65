"""Training a network through a solver without derivatives: equilibrium propagation against the implicit gradient.

    python -m tests.benchmarks.black_box [--epochs E] [--samples S] [--hidden H]

An OptEq layer between two linear maps, on scikit-learn's digits: once compiled and differentiated implicitly, once
solved by CVXPY + Clarabel as a black box. Same start, same batches, same optimizer; the accuracy on 400 test digits is
compared.
"""

import argparse
import time
import warnings

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import opteq_cvx as oc
from opteq_cvx.bridge.black_box import BlackBoxLayer
from opteq_cvx.train.data import load_data
from tests.benchmarks.harness import Row, publish

BATCH, TEST = 20, 400


def declare(hidden: int) -> cp.Problem:
    """The unit u = argmin_{u ≥ 0} ½uᵀ(I − WWᵀ)u − ⟨s + b, u⟩."""
    rng = np.random.default_rng(0)
    s = oc.Input(hidden, name="s")
    w = oc.Weight((hidden, hidden), name="W", norm=0.9, init=rng.normal(size=(hidden, hidden)) / hidden)
    b = oc.Weight(hidden, name="b", init=0.1)
    u = cp.Variable(hidden, nonneg=True, name="u")
    return cp.Problem(cp.Minimize(0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(hidden) - w @ w.T)) - (s + b) @ u))


class Network(nn.Module):
    """Linear map in, layer, linear map out."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.layer, self.outward = nn.Linear(64, hidden), layer, nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.outward(self.layer(self.inward(x))[0])


def fit(model: Network, x: Tensor, y: Tensor, epochs: int) -> tuple[float, float]:
    """Train; (seconds, last loss)."""
    optimizer, began, last = torch.optim.Adam(model.parameters(), lr=1e-2), time.perf_counter(), 0.0
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            last = loss.item()
    return time.perf_counter() - began, last


def main() -> None:
    """Train both and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    data = load_data("digits")
    x, y = data.train.x[: options.samples].double(), data.train.y[: options.samples]
    test_x, test_y = data.test.x[:TEST].double(), data.test.y[:TEST]
    rows = []
    for who in ("implicit", "Clarabel, equilibrium propagation"):
        problem = declare(options.hidden)
        layer = oc.compile(problem) if who == "implicit" else BlackBoxLayer(problem)
        model = Network(layer, options.hidden).double()
        seconds, loss = fit(model, x, y, options.epochs)
        with torch.no_grad():
            accuracy = float((model(test_x).argmax(-1) == test_y).double().mean())
        note = f"test accuracy {accuracy:.1%}, last loss {loss:.4f}"
        size, ms = f"h={options.hidden}", 1e3 * seconds
        nan = float("nan")
        rows.append(Row("digits", who, size, BATCH, "float64", ms, ms, ms, nan, nan, note, {"accuracy": accuracy}))
    publish("black_box", rows)


if __name__ == "__main__":
    main()
