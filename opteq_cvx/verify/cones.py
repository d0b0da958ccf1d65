"""Cones of a Clarabel problem: a smooth or piecewise-linear chart of each block's (s, z), for the polish.

A chart writes a complementary pair s ∈ K, z ∈ K*, ⟨s, z⟩ = 0 as a function of as many free numbers as the
block has rows, so that the optimality conditions are as many equations as unknowns. For the symmetric cones
it is Moreau's: s = Π_K(w), z = s − w. For the boundary of the exponential and power cones it is a surface
point and the length of its normal.
Source: E. Busseti, W. Moursi, S. Boyd, "Solution refinement at regular points of conic problems", 2019.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from opteq_cvx.ir.frozen import Array


class Chart(ABC):
    """One block of rows; `size` of them."""

    size: int

    @abstractmethod
    def start(self, s: Array, z: Array) -> Array:
        """The free numbers whose pair is nearest to (s, z)."""

    @abstractmethod
    def pair(self, w: Array) -> tuple[Array, Array]:
        """(s, z) at w."""

    @abstractmethod
    def jacobian(self, w: Array) -> tuple[Array, Array]:
        """(∂s/∂w, ∂z/∂w), dense size × size."""


class _Projected(Chart):
    """Moreau's chart: s = Π_K(w), z = Π_K(w) − w."""

    @override
    def start(self, s: Array, z: Array) -> Array:
        return s - z

    @override
    def pair(self, w: Array) -> tuple[Array, Array]:
        s = self.project(w)
        return s, s - w

    @override
    def jacobian(self, w: Array) -> tuple[Array, Array]:
        slope = self.slope(w)
        return slope, slope - np.eye(self.size)

    @abstractmethod
    def project(self, w: Array) -> Array:
        """Π_K(w)."""

    @abstractmethod
    def slope(self, w: Array) -> Array:
        """An element of the generalized Jacobian of Π_K at w."""


@dataclass(frozen=True)
class Zero(_Projected):
    """{0}: equations."""

    size: int

    @override
    def project(self, w: Array) -> Array:
        return np.zeros_like(w)

    @override
    def slope(self, w: Array) -> Array:
        return np.zeros((self.size, self.size))


@dataclass(frozen=True)
class Nonneg(_Projected):
    """The nonnegative orthant."""

    size: int

    @override
    def project(self, w: Array) -> Array:
        return np.maximum(w, 0.0)

    @override
    def slope(self, w: Array) -> Array:
        return np.diag((w > 0.0).astype(np.float64))


@dataclass(frozen=True)
class SecondOrder(_Projected):
    """{(t, x): ‖x‖ ≤ t}."""

    size: int

    @override
    def project(self, w: Array) -> Array:
        t, x = w[0], w[1:]
        norm = float(np.linalg.norm(x))
        if norm <= t:
            return w
        if norm <= -t:
            return np.zeros_like(w)
        scale = 0.5 * (t + norm)
        return np.concatenate([[scale], scale * x / norm])

    @override
    def slope(self, w: Array) -> Array:
        t, x = w[0], w[1:]
        norm = float(np.linalg.norm(x))
        if norm <= t:
            return np.eye(self.size)
        if norm <= -t:
            return np.zeros((self.size, self.size))
        unit = x / norm
        out = np.empty((self.size, self.size))
        out[0, 0] = 0.5
        out[0, 1:] = out[1:, 0] = 0.5 * unit
        out[1:, 1:] = 0.5 * ((1.0 + t / norm) * np.eye(self.size - 1) - (t / norm) * np.outer(unit, unit))
        return out


@dataclass(frozen=True)
class Semidefinite(_Projected):
    """Symmetric n × n PSD matrices: the upper triangle by columns, off-diagonals times √2."""

    n: int
    size: int

    @staticmethod
    def of(n: int) -> "Semidefinite":
        """The cone of n × n matrices."""
        return Semidefinite(n, n * (n + 1) // 2)

    def _rows(self) -> tuple[Any, Any]:
        columns, rows = np.tril_indices(self.n)
        return rows, columns

    def matrix(self, w: Array) -> Array:
        """The symmetric matrix of a scaled triangle."""
        rows, columns = self._rows()
        out = np.zeros((self.n, self.n))
        scaled = np.where(rows == columns, w, w / np.sqrt(2.0))
        out[rows, columns] = out[columns, rows] = scaled
        return out

    def vector(self, matrix: Array) -> Array:
        """The scaled triangle of a symmetric matrix."""
        rows, columns = self._rows()
        return np.asarray(np.where(rows == columns, 1.0, np.sqrt(2.0)) * matrix[rows, columns])

    @override
    def project(self, w: Array) -> Array:
        values, vectors = np.linalg.eigh(self.matrix(w))
        return self.vector((vectors * np.maximum(values, 0.0)) @ vectors.T)

    @override
    def slope(self, w: Array) -> Array:
        values, vectors = np.linalg.eigh(self.matrix(w))
        kept = np.maximum(values, 0.0)
        gap = values[:, None] - values[None, :]
        rise = kept[:, None] - kept[None, :]
        same = np.abs(gap) < 1e-12
        ratio = np.where(same, ((values[:, None] + values[None, :]) > 0.0) * 1.0, rise / np.where(same, 1.0, gap))
        out = np.empty((self.size, self.size))
        for k, unit in enumerate(np.eye(self.size)):
            inner = vectors.T @ self.matrix(unit) @ vectors
            out[:, k] = self.vector(vectors @ (ratio * inner) @ vectors.T)
        return out


@dataclass(frozen=True)
class Fixed(Chart):
    """A block whose pair has one side zero: s free and z = 0, or the other way round."""

    size: int
    slack: bool

    @override
    def start(self, s: Array, z: Array) -> Array:
        return s if self.slack else z

    @override
    def pair(self, w: Array) -> tuple[Array, Array]:
        zero = np.zeros_like(w)
        return (w, zero) if self.slack else (zero, w)

    @override
    def jacobian(self, w: Array) -> tuple[Array, Array]:
        one, zero = np.eye(self.size), np.zeros((self.size, self.size))
        return (one, zero) if self.slack else (zero, one)


@dataclass(frozen=True)
class ExponentialBoundary(Chart):
    """The surface y exp(x/y) = z: w = (r, y, μ), s = (ry, y, ye^r), z = μ(−e^r, e^r(r−1), 1)."""

    size: int = 3

    @override
    def start(self, s: Array, z: Array) -> Array:
        return np.array([s[0] / s[1], s[1], z[2]])

    @override
    def pair(self, w: Array) -> tuple[Array, Array]:
        r, y, mu = w
        e = np.exp(r)
        return np.array([r * y, y, y * e]), mu * np.array([-e, e * (r - 1.0), 1.0])

    @override
    def jacobian(self, w: Array) -> tuple[Array, Array]:
        r, y, mu = w
        e = np.exp(r)
        ds = np.array([[y, r, 0.0], [0.0, 1.0, 0.0], [y * e, e, 0.0]])
        dz = np.array([[-mu * e, 0.0, -e], [mu * e * r, 0.0, e * (r - 1.0)], [0.0, 0.0, 1.0]])
        return ds, dz


@dataclass(frozen=True)
class PowerBoundary(Chart):
    """The surface |z| = p = x^a y^(1−a): w = (x, y, μ), dual μ(a p/x, (1−a) p/y, −sign z)."""

    a: float
    sign: float
    size: int = 3

    @override
    def start(self, s: Array, z: Array) -> Array:
        return np.array([s[0], s[1], abs(z[2])])

    @override
    def pair(self, w: Array) -> tuple[Array, Array]:
        x, y, mu = w
        a, p = self.a, x**self.a * y ** (1.0 - self.a)
        return np.array([x, y, self.sign * p]), mu * np.array([a * p / x, (1.0 - a) * p / y, -self.sign])

    @override
    def jacobian(self, w: Array) -> tuple[Array, Array]:
        x, y, mu = w
        a, p = self.a, x**self.a * y ** (1.0 - self.a)
        px, py = a * p / x, (1.0 - a) * p / y
        ds = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [self.sign * px, self.sign * py, 0.0]])
        cross = a * (1.0 - a) * p / (x * y)
        dz = np.array(
            [
                [-mu * cross * y / x, mu * cross, px],
                [mu * cross, -mu * cross * x / y, py],
                [0.0, 0.0, -self.sign],
            ]
        )
        return ds, dz


BOUNDARY_SLACK = 1e-6
"""Relative size below which one side of an exponential or power block counts as zero."""


def charts(dims: Any, s: Array, z: Array) -> list[Chart] | None:
    """One chart per block of Clarabel's rows, chosen at the approximate pair (s, z); None where a cone has no
    chart."""
    if dims.pnd:
        return None
    out: list[Chart] = [Zero(dims.zero), Nonneg(dims.nonneg)]
    out += [SecondOrder(n) for n in dims.soc]
    out += [Semidefinite.of(n) for n in dims.psd]
    start = sum(chart.size for chart in out)
    for k in range(dims.exp + len(dims.p3d)):
        rows = slice(start + 3 * k, start + 3 * k + 3)
        small, large = sorted((float(np.abs(s[rows]).max()), float(np.abs(z[rows]).max())))
        if small < BOUNDARY_SLACK * large:
            out.append(Fixed(3, slack=float(np.abs(s[rows]).max()) == large))
        elif k < dims.exp:
            if s[rows][1] <= BOUNDARY_SLACK * large:
                return None
            out.append(ExponentialBoundary())
        else:
            x, y, w = s[rows]
            if min(x, y, abs(w)) <= BOUNDARY_SLACK * large:
                return None
            out.append(PowerBoundary(float(dims.p3d[k - dims.exp]), float(np.sign(w))))
    return [chart for chart in out if chart.size]
