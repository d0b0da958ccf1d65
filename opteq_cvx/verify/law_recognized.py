"""The law that each spelling is read, and simplified, to one term of this atom, with its argument, data and weight."""

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms import registry
from opteq_cvx.atoms.contract import Atom
from opteq_cvx.frontend import read
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.maps.affine import affine
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.passes import run
from opteq_cvx.verify.law_tools import close, require
from opteq_cvx.verify.spelled import Case, Spelled, align, number, pairs


def spellings_are_recognized(cls: type[Atom]) -> None:
    """A spelling becomes one term, of this atom, with the stated static attributes, argument, data and weight."""
    if cls not in registry():
        raise AssertionError(f"{cls.__name__} is not registered: decorate it with @register")
    for case, spelled in pairs(cls):
        program = run(read(spelled.problem(), inputs=list(spelled.parameters.values())).program)
        terms = [t for t in program.terms if t.atom == cls.name or t.atom != "linear"]
        names = [t.atom for t in terms]
        require(names == [cls.name], case, f"it is read as {names}, not as {cls.name!r} only")
        _same(case, spelled, program, terms[0])


def _same(case: Case, spelled: Spelled, program: Program, term: Term) -> None:
    rng = np.random.default_rng(3)
    require(type(case.atom).from_static(term.static) == case.atom, case, f"static attributes {term.static}")
    values = {k: _batched(p.value) for k, p in spelled.parameters.items()}
    env = Environment(values, torch.float64, "cpu")
    for name, variable in spelled.variables.items():
        variable.save_value(rng.normal(size=variable.shape))
        require(program.shape_of(name) == variable.shape, case, f"variable {name} has another shape")
    variables = {k: _batched(v.value) for k, v in spelled.variables.items()}
    arg = affine(term.arg, variables, env)[0]
    expected = torch.as_tensor(number(spelled.arg.value))
    require(arg.shape == expected.shape, case, f"the argument has shape {tuple(arg.shape)}")
    close(arg, expected, case, "the argument")
    require(set(term.data) == set(case.data), case, f"data {sorted(term.data)}, not {sorted(case.data)}")
    for name, datum in case.data.items():
        _equal(_value(env, term.data[name], case), datum, case, f"datum {name!r}")
    weight = torch.ones(()) if term.weight is None else _value(env, term.weight, case)
    _equal(weight, case.weight, case, "the weight")


def _batched(value: object) -> Tensor:
    return torch.as_tensor(number(value).copy()).unsqueeze(0)


def _value(env: Environment, expr: ParamExpr, case: Case) -> Tensor:
    return align(env(expr)[0], len(case.event))


def _equal(a: Tensor, b: Tensor, case: Case, text: str) -> None:
    same = torch.isclose(a.double(), b, rtol=1e-12, atol=1e-12).all()
    require(same, case, f"{text} is {a}, not {b}")
