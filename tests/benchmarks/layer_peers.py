"""The contenders of `layers`: each turns a workload and parameter tensors into its outputs, differentiably.

qpth returns the mean over the batch of a shared input's gradient, so all its inputs are expanded; MOREAU needs a
problem of its own, without "variable lies in a cone".
"""

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from tests.benchmarks.layer_workloads import F64, Quadratic, Workload

Forward = Callable[[Sequence[Tensor]], Tensor]
"""Parameters, with or without batch axis, to the output (B, size)."""


def _flat(x: Tensor, batch: int) -> Tensor:
    return x.reshape(batch, -1)


def _rows(values: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> int:
    return max((v.shape[0] for v, s in zip(values, shapes, strict=True) if v.ndim > len(s)), default=1)


def opteq(work: Workload, tolerance: float) -> Forward:
    """Our layer."""
    problem, parameters, outputs = work.declare(1.0)
    layer = oc.compile(problem, inputs=parameters, outputs=outputs, tolerance=tolerance)
    shapes = [p.shape for p in parameters]
    return lambda values: _flat(layer(*values)[0], _rows(values, shapes))


def cvxpylayers(work: Workload, solver: str, arguments: dict[str, Any]) -> Forward:
    """cvxpylayers with one of its solvers."""
    from cvxpylayers.torch import CvxpyLayer

    problem, parameters, outputs = work.declare(2.0 if solver == "MOREAU" else 1.0)
    layer = CvxpyLayer(problem, parameters=parameters, variables=outputs, solver=solver)
    shapes = [p.shape for p in parameters]
    return lambda values: _flat(layer(*values, solver_args=arguments)[0], _rows(values, shapes))


def qpth(work: Workload) -> Forward:
    """qpth's interior point on the batch."""
    from qpth.qp import QPFunction

    def forward(values: Sequence[Tensor]) -> Tensor:
        q = _quadratic(work, values)
        x: Tensor = QPFunction(verbose=-1, eps=1e-12, maxIter=30)(q.p, q.q, q.g, q.h, q.a, q.b)
        return x[:, q.keep]

    return forward


def qplayer(work: Workload) -> Forward:
    """proxsuite's QPLayer."""
    from proxsuite.torch.qplayer import QPFunction

    def forward(values: Sequence[Tensor]) -> Tensor:
        q = _quadratic(work, values)
        layer = QPFunction(structural_feasibility=True, maxIter=1000, eps=1e-9)
        low = torch.full_like(q.h, -1e20)
        x: Tensor = layer(q.p, q.q, q.a, q.b, q.g, low, q.h)[0]
        return x[:, q.keep]

    return forward


def _quadratic(work: Workload, values: Sequence[Tensor]) -> Quadratic:
    assert work.quadratic is not None
    return work.quadratic(values)


def clarabel(work: Workload) -> Forward:
    """CVXPY with Clarabel in a loop; no gradients."""
    problem, parameters, outputs = work.declare(1.0)

    def forward(values: Sequence[Tensor]) -> Tensor:
        rows = []
        for i in range(_rows(values, [p.shape for p in parameters])):
            for p, v in zip(parameters, values, strict=True):
                p.value = (v[i] if v.ndim > len(p.shape) else v).detach().numpy()
            problem.solve(solver=cp.CLARABEL)
            rows.append(np.ravel(outputs[0].value))
        return torch.tensor(np.stack(rows), dtype=F64)

    return forward


def contenders(work: Workload, tolerance: float) -> dict[str, Callable[[], Forward]]:
    """Everyone who can take the workload, by name; each is built when called and may lack its package."""
    found: dict[str, Callable[[], Forward]] = {
        "opteq_cvx": lambda: opteq(work, tolerance),
        "cvxpylayers (DIFFCP)": lambda: cvxpylayers(work, "DIFFCP", {"eps": tolerance}),
        "cvxpylayers (DIFFCP, defaults)": lambda: cvxpylayers(work, "DIFFCP", {}),
        "cvxpylayers (MOREAU)": lambda: cvxpylayers(work, "MOREAU", {}),
        "CVXPY + Clarabel, loop": lambda: clarabel(work),
    }
    if work.quadratic is not None:
        found["qpth"] = lambda: qpth(work)
        found["QPLayer (proxsuite)"] = lambda: qplayer(work)
    return found
