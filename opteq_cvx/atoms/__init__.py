"""Convex functions with their proxes. One file an atom: the folder is the registry."""

import pkgutil
from functools import cache
from importlib import import_module
from inspect import isabstract, isclass

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.tree import Node

__all__ = [
    "Atom",
    "Data",
    "Recognized",
    "Spelling",
    "Trait",
    "atom",
    "matches",
    "recognize",
    "register",
    "registry",
]

TOOLS = frozenset(
    {
        "activated",
        "arguments",
        "axes",
        "bipartite",
        "bounded",
        "calculus",
        "chain",
        "closed_sets",
        "concave_root",
        "contract",
        "cuts",
        "lifting",
        "marginals",
        "multiplier",
        "on_plane",
        "p_root",
        "primitives",
        "roots",
        "spectral",
        "spectral_second",
        "table",
        "threshold",
    }
)
"""Modules of this folder that hold no atom."""

_third_party: list[type[Atom]] = []


def atoms_of(module: str) -> tuple[type[Atom], ...]:
    """The atom classes that a module of this folder defines."""
    found = vars(import_module(f"{__name__}.{module}")).values()
    return tuple(c for c in found if isclass(c) and issubclass(c, Atom) and _defined_in(c, module))


def _defined_in(cls: type[Atom], module: str) -> bool:
    return cls.__module__ == f"{__name__}.{module}" and not isabstract(cls)


def modules() -> tuple[str, ...]:
    """The modules of this folder that must hold exactly one atom each, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in TOOLS))


@cache
def _built_in() -> tuple[type[Atom], ...]:
    return tuple(cls for module in modules() for cls in atoms_of(module))


def registry() -> tuple[type[Atom], ...]:
    """Every atom: those of this folder by module name, then the registered ones in order of registration."""
    return (*_built_in(), *_third_party)


def register(cls: type[Atom]) -> type[Atom]:
    """Add an atom of another package; usable as a decorator. It takes precedence over the atoms before it.

    Raises:
        CompileError: an atom of that name exists already.
    """
    if any(known.name == cls.name for known in registry()):
        raise CompileError(message(f"an atom {cls.name!r} is registered already", "a new name", "rename the atom"))
    _third_party.append(cls)
    return cls


def atom(name: str) -> type[Atom]:
    """The atom class of this name.

    Raises:
        CompileError: no atom has this name.
    """
    for cls in registry():
        if cls.name == name:
            return cls
    known = ", ".join(sorted(cls.name for cls in registry()))
    fix = "import the package that registers it, then try again"
    raise CompileError(message(f"there is no atom {name!r}", f"one of {known}", fix))


def matches(node: Node) -> list[tuple[type[Atom], Recognized]]:
    """Every atom that recognizes `node`; more than one among the built-in atoms is a bug of ours."""
    found = ((cls, cls.recognize(node)) for cls in registry())
    return [(cls, hit) for cls, hit in found if hit is not None]


def recognize(node: Node) -> tuple[type[Atom], Recognized] | None:
    """The atom for `node` and how the node becomes its term; None where no atom fits."""
    found = matches(node)
    ours = [cls.name for cls, _ in found if cls not in _third_party]
    assert len(ours) < 2, f"{node.text!r} is recognized by several atoms: {ours}"
    return found[-1] if found else None
