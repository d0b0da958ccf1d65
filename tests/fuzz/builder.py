"""Builder: variables with a reference point, parameters at each stage, random affine expressions of them.

The reference point x̂ makes programs feasible by construction: every constraint is written so that x̂ satisfies it at
the parameter values of every sample.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np

import opteq_cvx as oc
from tests.fuzz.source import Source

SAMPLES = 3
Shape = tuple[int, ...]


@dataclass
class Builder:
    """What a program is made of; `spread` is the decades over which data is scaled."""

    source: Source
    spread: float = 0.0
    inputs: list[cp.Parameter] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)  # one stack (SAMPLES, *shape) per input
    weights: list[cp.Parameter] = field(default_factory=list)
    variables: list[cp.Variable] = field(default_factory=list)
    convex: list[cp.Expression] = field(default_factory=list)
    constraints: list[cp.Constraint] = field(default_factory=list)

    def variable(self, shape: Shape, reference: np.ndarray, **attributes: Any) -> cp.Variable:
        """A variable with its reference value."""
        variable = cp.Variable(shape, name=f"v{len(self.variables)}", **attributes)
        variable.save_value(np.asarray(reference, dtype=float))
        self.variables.append(variable)
        return variable

    def size(self) -> int:
        """A length, 1 to 12, mostly small."""
        return self.source.choose((3, 2, 4, 1, 5, 6, 3, 4, 8, 12))

    def factor(self) -> float:
        """A scale, 1 unless the program is ill scaled."""
        return 1.0 if self.spread == 0 else float(10 ** self.source.uniform(-self.spread, self.spread))

    def data(self, draw: Callable[[np.random.Generator], Any], *, stages: int = 3, **attributes: Any) -> Any:
        """A constant, weight or input whose values come from `draw`."""
        stage = self.source.choose((0, 0, 1, 2)[: stages + 1])
        rng = self.source.numbers()
        if stage == 0:
            return np.asarray(draw(rng), dtype=float)
        if stage == 1:
            return self.weight(np.asarray(draw(rng), dtype=float), **attributes)
        return self.input(np.stack([np.asarray(draw(rng), dtype=float) for _ in range(SAMPLES)]), **attributes)

    def weight(self, value: np.ndarray, **attributes: Any) -> cp.Parameter:
        """A trainable parameter."""
        weight = oc.Weight(value.shape, name=f"w{len(self.weights)}", init=value, **attributes)
        self.weights.append(weight)
        return weight

    def input(self, values: np.ndarray, **attributes: Any) -> cp.Parameter:
        """Data: `values` (SAMPLES, *shape)."""
        parameter = oc.Input(values.shape[1:], name=f"p{len(self.inputs)}", **attributes)
        parameter.save_value(values[0])
        self.inputs.append(parameter)
        self.values.append(np.asarray(values, dtype=float))
        return parameter

    def at(self, sample: int) -> None:
        """Give the inputs the values of one sample."""
        for parameter, values in zip(self.inputs, self.values, strict=True):
            parameter.save_value(values[sample])

    def levels(self, expression: cp.Expression) -> np.ndarray:
        """The expression's values (SAMPLES, *shape) at x̂."""
        out = []
        for sample in range(SAMPLES):
            self.at(sample)
            out.append(np.array(dense(expression.value), dtype=float))
        self.at(0)
        return np.stack(out)

    def given(self, values: np.ndarray, **attributes: Any) -> Any:
        """Data that takes `values` (SAMPLES, *shape): an input, or where they agree also a constant or weight."""
        stage = self.source.choose((0, 2, 1))
        if stage == 2 or np.ptp(values, axis=0).max(initial=0.0) > 0:
            return self.input(values, **attributes)
        return values[0] if stage == 0 else self.weight(values[0], **attributes)

    def matrix(self, rows: int, columns: int) -> Any:
        """A random matrix at a random stage: dense, with repeated rows, of low rank, with rows of mixed scales."""
        kind = self.source.choose((0, 0, 0, 0, 1, 2))
        spread = self.spread

        def draw(rng: np.random.Generator) -> np.ndarray:
            a = rng.normal(size=(rows, columns)) / np.sqrt(columns)
            if kind == 1 and rows > 1:
                a[-1] = a[0]
            if kind == 2:
                a = np.outer(a[:, 0], a[0])
            return a * 10.0 ** rng.uniform(-spread, spread, size=(rows, 1)) if spread else a

        return self.data(draw)

    def affine(self, shape: Shape, depth: int = 2) -> cp.Expression:
        """A random affine expression of the variables."""
        rules: list[Callable[[Shape, int], cp.Expression]] = [self._direct, self._product, self._shifted]
        if depth > 0:
            rules += [self._sum, self._scaled, self._structured]
        return self.source.choose(rules)(shape, depth)

    def _direct(self, shape: Shape, depth: int) -> cp.Expression:
        """Entries of one variable, or its product with a matrix where it is too small."""
        fits = [v for v in self.variables if v.shape == shape]
        if fits:
            return self.source.choose(fits)
        count = int(np.prod(shape))
        large = [v for v in self.variables if v.size >= count]
        if not large:
            return self._product(shape, depth)
        variable = self.source.choose(large)
        flat = cp.vec(variable, order="F") if variable.ndim > 1 else cp.reshape(variable, (variable.size,), order="F")
        start = self.source.pick(variable.size - count + 1)
        part = flat[start : start + count]
        if self.source.chance(30):
            part = part[::-1]
        return reshape(part, shape)

    def _product(self, shape: Shape, depth: int) -> cp.Expression:
        variable = self.source.choose(self.variables)
        count = int(np.prod(shape))
        if variable.ndim == 2 and len(shape) == 2 and variable.shape[1] == shape[1]:
            return self.matrix(shape[0], variable.shape[0]) @ variable
        if variable.size == 1:
            scalar = variable if variable.ndim == 0 else cp.reshape(variable, (), order="F")
            column = self.data(lambda rng: rng.normal(size=shape))
            return scalar * column if shape else column * scalar
        image = self.matrix(count, variable.size) @ cp.vec(variable, order="F")
        return reshape(image, shape)

    def _shifted(self, shape: Shape, depth: int) -> cp.Expression:
        inner = self.affine(shape, depth - 1) if depth > 0 else self._direct(shape, 0)
        return inner + self.data(lambda rng: rng.normal(size=shape))

    def _sum(self, shape: Shape, depth: int) -> cp.Expression:
        first, second = self.affine(shape, depth - 1), self.affine(shape, depth - 1)
        return first - second if self.source.chance(50) else first + second

    def _scaled(self, shape: Shape, depth: int) -> cp.Expression:
        inner = self.affine(shape, depth - 1)
        how = self.source.pick(3)
        if how == 0 or not shape:
            return self.data(lambda rng: rng.normal()) * inner
        if how == 1:
            return cp.multiply(self.data(lambda rng: rng.normal(size=shape)), inner)
        return -2.0 * inner

    def _structured(self, shape: Shape, depth: int) -> cp.Expression:
        """Stacks, differences, cumulative sums, convolutions, transposes, sums along axes."""
        pick, inner = self.source.pick(4), lambda s: self.affine(s, depth - 1)
        if len(shape) == 0:
            n = self.size()
            if pick == 0:
                return cp.sum(inner((n,)))
            if pick == 1:
                return cp.trace(inner((2, 2)))
            if pick == 2:
                return inner((n,))[self.source.pick(n)]
            return self.data(lambda rng: rng.normal(size=n)) @ inner((n,))
        if len(shape) == 1:
            n = shape[0]
            if pick == 0 and n > 1:
                cut = 1 + self.source.pick(n - 1)
                return cp.hstack([inner((cut,)), inner((n - cut,))])
            if pick == 1:
                return cp.diff(inner((n + 1,)))
            if pick == 2:
                return cp.cumsum(inner((n,)))
            if n > 2 and self.source.chance(50):
                return cp.convolve(self.source.normal(3), inner((n - 2,)))
            return cp.sum(inner((n, 2)), axis=1)
        rows, columns = shape
        if pick == 0:
            return inner((columns, rows)).T
        if pick == 1 and rows > 1:
            return cp.vstack([inner((1, columns)), inner((rows - 1, columns))])
        if pick == 2:
            return self.matrix(rows, 2) @ inner((2, columns))
        return inner((rows, 2)) @ self.matrix(2, columns)

    def positive(self, expression: cp.Expression, low: float = 0.3) -> cp.Expression:
        """The expression plus a constant that makes it at least about `low` at x̂."""
        least = float(self.levels(expression).min(initial=np.inf))
        return expression if least >= low else expression + (float(self.source.uniform(low, 2.0)) - least)

    def symmetric(self, n: int) -> cp.Expression:
        """A symmetric affine matrix."""
        inner = self.affine((n, n), 1)
        return (inner + inner.T) / 2


def reshape(flat: cp.Expression, shape: Shape) -> cp.Expression:
    """A vector in another shape; itself where it has it."""
    return flat if flat.shape == shape else cp.reshape(flat, shape, order="F")


def dense(value: Any) -> Any:
    """Sparse values as arrays."""
    return value.toarray() if hasattr(value, "toarray") else value
