"""An increasing function of the Euclidean norm, f(x) = φ(‖x‖₂) along axes: ‖x‖³, the Huber function of a norm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx import atoms
from opteq_cvx.atoms.axes import WRONG, Reducing, kept, spike
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op, Par, match
from opteq_cvx.ir.tree import Node

Options = tuple[tuple[str, Any], ...]
"""φ's static attributes as pairs."""

SLOPES = {"exp": 1.0, "huber": 0.0, "logistic": 0.5, "power": 0.0, "xexp": 1.0}
"""φ, convex and increasing from 0 on, and its slope at 0; ‖x‖² is a sum of squares."""


@dataclass(frozen=True, slots=True)
class Radial(Reducing):
    """f(x) = φ(‖x‖₂), static `f` the name of φ, `options` its static attributes, data those of φ.

    The prox keeps the direction: v·r/‖v‖ with r = prox_{tφ}(‖v‖), 0 where ‖v‖ ≤ t·φ'(0).

    Raises:
        CompileError: φ is none of exp, huber, logistic, x^p with p > 1, xexp.
    """

    f: str = "power"
    options: Options = ()

    name = "radial"
    formula = "φ(‖x‖₂), φ one of x^p, huber, exp, logistic, xexp"
    cost = "O(n), and one prox of φ"
    source = "optimality: x keeps the direction of v, and ‖x‖ + t·φ'(‖x‖) = ‖v‖"
    traits = frozenset({Trait.EVEN})
    patterns = (
        *(Op(name, (Op("norm2"),)) for name in SLOPES if name != "huber"),
        Op("huber", (Op("norm2"), Par("M"))),
    )
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"f": "abs"}, {"f": "power", "options": (("p", -1.0),)})
    spellings = (
        Spelling(text="norm(x)**3", static={"options": (("p", 3.0),)}),
        Spelling(
            text="lam * power(norm(x - b), 1.5)",
            parameters={"b": ((5,), {}), "lam": ((), {"nonneg": True})},
            arg="x - b",
            weight="lam",
            static={"options": (("p", 1.5),)},
        ),
        Spelling(
            text="sum(huber(norm(x, axis=1), M))",
            variables={"x": (3, 4)},
            parameters={"M": ((), {"nonneg": True})},
            static={"f": "huber"},
            data={"M": "M * np.ones((3, 1))"},
        ),
        Spelling(text="exp(norm(x))", static={"f": "exp"}),
        Spelling(
            text="logistic(norm(x, 'fro'))", variables={"x": (2, 2)}, arg="vec(x, order='F')", static={"f": "logistic"}
        ),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        if self.f not in SLOPES or (self.f == "power" and dict(self.options).get("p", 3.0) < 1):
            found = f"radial got f={self.f!r} with {dict(self.options)}"
            raise CompileError(message(found, f"one of {sorted(SLOPES)}, and p > 1", "use a function that increases"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        norm = node.args[0] if node.args else node
        if norm.op != "norm2" or norm.args[0].affine is None or node.attrs.get("p", 3.0) <= 1:
            return None
        if not any(match(pattern, node) for pattern in cls.patterns):
            return None
        x, axes = norm.args[0].affine, tuple(norm.attrs["axes"])
        shape = kept(x.shape, axes)
        bound = node.args[1].param if len(node.args) > 1 else None
        data = {} if bound is None else {"M": act.reshape(act.spread(bound, node.shape), shape)}
        static = FrozenDict(axes=axes, f=node.op, options=tuple(sorted(node.attrs.items())))
        return Recognized(x, static, FrozenDict(data))

    @property
    def phi(self) -> Atom:
        """φ."""
        return atoms.atom(self.f).from_static(dict(self.options))

    @property
    def rise(self) -> float:
        """φ's at 0."""
        return SLOPES[self.f]

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return self.phi.value(euclidean(x, self.axes), data)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        norm = euclidean(v, self.axes)
        least = float(torch.finfo(v.dtype).tiny ** 0.5)
        size = torch.where(norm < least, least, norm)  # at 0 the derivative is r/‖v‖ there
        ratio = self.phi.prox(size, step, data) / size
        return v * (torch.where(norm <= self.rise * step, 0.0, ratio) if self.rise else ratio)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor | None:
        """φ*(‖y‖), of φ on r ≥ 0: −φ(0) where ‖y‖ is below φ's slope there."""
        norm = euclidean(y, self.axes)
        found = self.phi.conjugate(torch.where(norm < self.rise, self.rise, norm), data)
        at_zero = -self.phi.value(torch.zeros_like(norm), data)
        return None if found is None else torch.where(norm < self.rise, at_zero, found)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        """The ends of the flat part of φ, where v ↦ 0, and of the quadratic part of huber."""
        edge = (1.0 + 2.0 * step) * data["M"] if self.f == "huber" else self.rise * step
        return (spike(v, self.axes, edge),) if self.f == "huber" or self.rise else ()
