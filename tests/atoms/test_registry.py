"""The folder is the registry."""

import re
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx import atoms
from opteq_cvx.atoms import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.table import markdown, rows
from opteq_cvx.errors import CompileError
from opteq_cvx.ir.linmap import Identity
from opteq_cvx.ir.param import const
from opteq_cvx.ir.pattern import Op
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node
from opteq_cvx.verify.laws import Law, check_atom

laws = import_module("opteq_cvx.verify.laws")


def affine(name: str = "x", n: int = 5) -> Node:
    x = Affine(((name, Identity((n,))),), const(torch.zeros(n).numpy()))
    return Node("affine", (), (n,), name, affine=x)


def apply(op: str, *args: Node, **attrs: object) -> Node:
    return Node(op, args, (5,), f"{op}(x)", atoms.contract.FrozenDict(attrs))


@dataclass(frozen=True, slots=True)
class Mine(Atom):
    """f(x) = |x| again, an atom of somebody else that takes precedence over ours."""

    name = "mine"
    formula = "|x|"
    cost = "O(n)"
    source = "this test"
    traits = frozenset({Trait.SEPARABLE, Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("abs"),)
    spellings = (Spelling(text="2 * norm1(x)", weight="2.0"),)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x.abs()

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - torch.clamp(v, -step, step)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return step.expand_as(v), -step.expand_as(v)


class WrongProx(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - torch.clamp(v, -2 * step, 2 * step)


class WrongKink(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return (v - step).clamp_min(0) - (-v - step).clamp_min(0)


class NoKinks(Mine):
    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return ()


class WrongTrait(Mine):
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})


class FalseTrait(Mine):
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN, Trait.HOMOGENEOUS, Trait.SET})


class WrongValue(Mine):
    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return 2 * x.abs()


class NotBatched(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - torch.clamp(v, -step, step) * (v.ndim < 3)


class Mutating(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.sub_(torch.clamp(v, -step, step))


class SinglePrecision(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return (v - torch.clamp(v, -step, step)).double()


class SwallowsNan(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return torch.nan_to_num(v - torch.clamp(v, -step, step))


class Unrecognized(Mine):
    patterns = ()


class Reflection(Mine):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - 2 * torch.clamp(v, -step, step)


class WrongConjugate(Mine):
    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return y * y


class WrongInplace(Mine):
    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.mul_(0.5)


def test_every_module_holds_exactly_one_atom() -> None:
    for module in atoms.modules():
        assert len(atoms.atoms_of(module)) == 1, module


def test_names_are_those_of_the_files_and_unique() -> None:
    names = [cls.name for cls in atoms.registry()]
    assert names == list(atoms.modules())
    assert len(set(names)) == len(names)


def test_every_atom_is_documented_and_spelled() -> None:
    for cls in atoms.registry():
        assert cls.spellings, cls.name
        assert cls.formula, cls.name
        assert cls.cost, cls.name
        assert cls.source, cls.name
        assert cls.__doc__, cls.name


def test_atom_by_name() -> None:
    assert atoms.atom("abs").name == "abs"
    with pytest.raises(CompileError, match=r"no atom 'nothing'.*abs"):
        atoms.atom("nothing")


def test_recognize_gives_the_atom_and_its_argument() -> None:
    x = affine()
    found = atoms.recognize(apply("abs", x))
    assert found is not None
    cls, hit = found
    assert cls.name == "abs"
    assert hit.arg is x.affine
    assert atoms.recognize(apply("tanh", x)) is None


def test_recognize_binds_data() -> None:
    p = Node("param", (), (5, 5), "P", param=const(torch.eye(5).numpy()))
    found = atoms.recognize(apply("quad_form", affine(), p))
    assert found is not None
    assert found[0].name == "quad_form"
    assert found[1].data["P"] is p.param


def test_register_adds_an_atom_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atoms, "_third_party", [])
    assert atoms.register(Mine) is Mine
    assert atoms.atom("mine") is Mine
    found = atoms.recognize(apply("abs", affine()))
    assert found is not None
    assert found[0] is Mine
    with pytest.raises(CompileError, match="registered already"):
        atoms.register(Mine)


def test_an_atom_that_is_not_registered_is_told_so() -> None:
    with pytest.raises(AssertionError, match="is not registered"):
        check_atom(Mine)


def test_check_atom_accepts_a_correct_atom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atoms, "_third_party", [Mine])
    check_atom(Mine)


WRONG: dict[type[Atom], tuple[Law, str]] = {
    Unrecognized: (laws.spellings_are_recognized, "it is read as"),
    WrongValue: (laws.value_is_cvxpys, "CVXPY has"),
    WrongProx: (laws.prox_is_cvxpys, "argmin"),
    Reflection: (laws.firmly_nonexpansive, "not firmly nonexpansive"),
    NotBatched: (laws.batch_is_a_loop, "and a loop"),
    WrongInplace: (laws.inplace_agrees, "prox_inplace"),
    WrongConjugate: (laws.moreau, "f(x) + f*(y)"),
    WrongKink: (laws.derivative_at_kinks, "derivative at a kink"),
    NoKinks: (laws.derivative_at_kinks, "names no kink"),
    SinglePrecision: (laws.dtype_and_device_kept, "does not stay float32"),
    Mutating: (laws.inputs_unchanged, "mutated"),
    SwallowsNan: (laws.finite_everywhere, "NaN is swallowed"),
    WrongTrait: (laws.traits_tell_the_truth, "is HOMOGENEOUS and does not say so"),
    FalseTrait: (laws.traits_tell_the_truth, "is declared SET and is not"),
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_atom_breaks_its_law(wrong: type[Atom], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atoms, "_third_party", [wrong])
    law, text = WRONG[wrong]
    with pytest.raises(AssertionError, match=re.escape(text)):
        law(wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check_atom(wrong)


def test_table_has_a_row_for_each_atom() -> None:
    assert [row.name for row in rows()] == sorted(cls.name for cls in atoms.registry())
    text = markdown()
    assert text.count("\n") == len(rows()) + 2
    assert "`norm1(x)`" in text
    assert "`Variable(nonneg=True)`" in text
