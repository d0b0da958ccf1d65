"""A spelling made concrete: its CVXPY program at random parameters, and the atom's side of it in torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch
from cvxpy.atoms.affine.sum import sum as total
from torch import Tensor

from opteq_cvx.atoms.contract import Atom, Data, Spelling
from opteq_cvx.declare import activation
from opteq_cvx.ir.frozen import Array, Shape

NAMES: dict[str, Any] = {**vars(cp), "np": np, "activation": activation}
"""What the texts of spellings may use besides their variables and parameters."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A spelling with its CVXPY objects; parameters carry random values.

    `objective` is None for constraints; `constraints` may be empty (a variable's attribute says it all).
    """

    spelling: Spelling
    variables: Mapping[str, cp.Variable]
    parameters: Mapping[str, cp.Parameter]
    objective: cp.Expression | None
    constraints: tuple[cp.Constraint, ...]
    arg: cp.Expression

    @property
    def label(self) -> str:
        """The text, or the variables' attributes where there is none."""
        return self.spelling.text or str(dict(self.spelling.attributes))

    def problem(self) -> cp.Problem:
        """The spelling as a problem of its own."""
        linear = sum((total(v) for v in self.variables.values()), cp.Constant(0.0))
        objective = linear if self.objective is None else self.objective  # every variable occurs
        return cp.Problem(cp.Minimize(objective), list(self.constraints))


@dataclass(frozen=True, slots=True)
class Case:
    """The atom's side of a spelling: instance, shapes, one sample's data and weight, in float64."""

    atom: Atom
    label: str
    event: Shape
    reduced: Shape
    data: Data
    weight: Tensor
    draw: tuple[float, float]


def spell(spelling: Spelling, rng: np.random.Generator) -> Spelled:
    """Build the CVXPY objects of a spelling and give its parameters random values."""
    attributes = spelling.attributes
    variables = {k: cp.Variable(s, name=k, **attributes.get(k, {})) for k, s in spelling.variables.items()}
    parameters = {k: cp.Parameter(s, name=k, **a) for k, (s, a) in spelling.parameters.items()}
    for name, parameter in parameters.items():
        parameter.value = draw_value(parameter.shape, spelling.parameters[name][1], rng)
    names = {**variables, **parameters}
    written: Any = _read(spelling.text, names) if spelling.text else []
    arg = cp.Expression.cast_to_const(_read(spelling.arg, names))
    if not spelling.constraint:
        return Spelled(spelling, variables, parameters, cp.Expression.cast_to_const(written), (), arg)
    constraints = tuple(written) if isinstance(written, list) else (written,)
    return Spelled(spelling, variables, parameters, None, constraints, arg)


def case(cls: type[Atom], spelled: Spelled, values: Mapping[str, Array] | None = None) -> Case:
    """The atom's side of `spelled` at its parameters' values (or at `values`, by name)."""
    for name, value in (values or {}).items():
        spelled.parameters[name].value = value
    spelling = spelled.spelling
    atom = cls.from_static(spelling.static)
    event = tuple(spelled.arg.shape)
    data = {k: align(_tensor(t, spelled.parameters), len(event)) for k, t in spelling.data.items()}
    reduced = tuple(atom.value(torch.zeros(event, dtype=torch.float64), data).shape)
    weight = align(_tensor(spelling.weight, spelled.parameters), len(event))
    return Case(atom, spelled.label, event, reduced, data, weight, spelling.draw)


def cases(cls: type[Atom], seed: int = 0) -> list[Case]:
    """One case for each spelling of the atom."""
    rng = np.random.default_rng(seed)
    return [case(cls, spell(s, rng)) for s in cls.spellings]


def pairs(cls: type[Atom], seed: int = 0) -> list[tuple[Case, Spelled]]:
    """Each spelling's two sides."""
    rng = np.random.default_rng(seed)
    spelled = [spell(s, rng) for s in cls.spellings]
    return [(case(cls, s), s) for s in spelled]


def batch_of_cases(cls: type[Atom], spelling: Spelling, count: int, seed: int = 0) -> list[Case]:
    """`count` cases of one spelling that differ in the parameters' values."""
    rng = np.random.default_rng(seed)
    return [case(cls, spell(spelling, rng)) for _ in range(count)]


def draw_value(shape: Shape, attributes: Mapping[str, Any], rng: np.random.Generator) -> Array:
    """A random value that respects CVXPY attributes."""
    value = rng.normal(size=shape)
    rules: dict[str, Callable[[], Any]] = {
        "nonneg": lambda: np.abs(value) + 0.1,
        "pos": lambda: np.abs(value) + 0.1,
        "nonpos": lambda: -np.abs(value) - 0.1,
        "neg": lambda: -np.abs(value) - 0.1,
        "PSD": lambda: value @ value.T,
        "NSD": lambda: -value @ value.T,
        "symmetric": lambda: (value + value.T) / 2.0,
        "diag": lambda: np.diag(np.diag(value)),
        "bounds": lambda: rng.uniform(attributes["bounds"][0], attributes["bounds"][1], size=shape),
    }
    for name, rule in rules.items():
        if attributes.get(name):
            value = np.asarray(rule(), dtype=np.float64)
    return value


def align(value: Tensor, ndim: int) -> Tensor:
    """Insert axes of length 1 before the axes of a datum that has fewer than the argument."""
    return value.reshape((*(1,) * (ndim - value.ndim), *value.shape))


def number(value: Any) -> Array:
    """A value of CVXPY, which may be a sparse matrix, as a dense float64 array."""
    return np.array(value.toarray() if sp.issparse(value) else value, dtype=np.float64, order="C")


def _read(text: str, names: Mapping[str, Any]) -> Any:
    return eval(text, {**NAMES, **names})


def _tensor(text: str, parameters: Mapping[str, cp.Parameter]) -> Tensor:
    value = cp.Expression.cast_to_const(_read(text, parameters)).value
    return torch.as_tensor(number(value).copy())
