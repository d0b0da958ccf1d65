"""The folder is the registry."""

from dataclasses import dataclass

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
from opteq_cvx.verify.laws import check_atom


def affine(name: str = "x", n: int = 5) -> Node:
    x = Affine(((name, Identity((n,))),), const(torch.zeros(n).numpy()))
    return Node("affine", (), (n,), name, affine=x)


def apply(op: str, *args: Node, **attrs: object) -> Node:
    return Node(op, args, (5,), f"{op}(x)", atoms.contract.FrozenDict(attrs))


@dataclass(frozen=True, slots=True)
class Twice(Atom):
    """f(x) = 2|x|, an atom of somebody else."""

    name = "twice"
    formula = "2|x|"
    cost = "O(n)"
    source = "this test"
    traits = frozenset({Trait.SEPARABLE, Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("twice"),)
    spellings = (Spelling(text="2 * norm1(x)"),)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return 2 * x.abs()

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - torch.clamp(v, -2 * step, 2 * step)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return 2 * step.expand_as(v), -2 * step.expand_as(v)


class WrongProx(Twice):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - torch.clamp(v, -step, step)


class WrongKink(Twice):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return (v - 2 * step).clamp_min(0) - (-v - 2 * step).clamp_min(0)


class WrongTrait(Twice):
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})


class Mutating(Twice):
    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.sub_(torch.clamp(v, -2 * step, 2 * step))


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
    assert atoms.register(Twice) is Twice
    assert atoms.atom("twice") is Twice
    found = atoms.recognize(apply("twice", affine()))
    assert found is not None
    assert found[0] is Twice
    with pytest.raises(CompileError, match="registered already"):
        atoms.register(Twice)


def test_check_atom_accepts_a_correct_atom() -> None:
    check_atom(Twice)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (WrongProx, "argmin"),
        (WrongKink, "derivative at a kink"),
        (WrongTrait, "is HOMOGENEOUS and does not say so"),
        (Mutating, "."),
    ],
)
def test_check_atom_refuses_a_wrong_atom(wrong: type[Atom], text: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=text):
        check_atom(wrong)


def test_table_has_a_row_for_each_atom() -> None:
    assert [row.name for row in rows()] == sorted(cls.name for cls in atoms.registry())
    text = markdown()
    assert text.count("\n") == len(rows()) + 2
    assert "`norm1(x)`" in text
    assert "`Variable(nonneg=True)`" in text
