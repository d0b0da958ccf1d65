"""The epigraph {F(x) ≤ t} of a function F that has an atom with a prox, or of a weighted sum of its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.bounded import Bounded
from opteq_cvx.atoms.calculus import WEIGHT, epigraph_prox
from opteq_cvx.atoms.closed_sets import closed_epigraph
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.cuts import CUT, cut_epigraph
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.atoms.spectral import OfEigenvalues, eigenvalues, singular_values
from opteq_cvx.ir.frozen import Shape


def total(text: str, f: str, **more: Any) -> Spelling:
    """A sum over a vector of four entries, or a function of it, below t."""
    given = {"variables": {"x": (4,), "t": ()}, "arg": "hstack([x, t])", **more}
    static = {"f": f, "axes": (-1,), "shape": (4,), **given.pop("static", {})}
    return Spelling(text=text, constraint=True, static=static, **given)


@dataclass(frozen=True, slots=True)
class Epigraph(Bounded):
    """The indicator of {F(x) ≤ t} of [x, t] along the last axis; the projection is (prox_{μF}(v), s + μ), μ a root.

    `shape` is that of one x, whose entries stand flat, and `axes` are its own, all that F reduces.
    """

    shape: Shape = (1,)

    name = "epigraph"
    formula = "ι{Σ w f(x) ≤ t} of [x, t], f any function of this table"
    cost = "one prox of f for norms and plain squares, else about 12"
    source = "Parikh, Boyd 2014, section 6.6.2; Chandrupatla 1997 (the root)"
    traits = frozenset({Trait.SET})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"f": "nothing"}, {"f": "nonneg"}, {"f": "exp", "axes": (0,)})
    spellings = (
        total("norm1(x) <= t", "abs"),
        total("max(x) <= t", "max", static={"options": (("axes", (-1,)),)}),
        total("norm_inf(x) <= t", "norm_inf", static={"options": (("axes", (-1,)),)}),
        total("sum(exp(x)) <= t", "exp"),
        total("sum_squares(x) <= t", "square"),
        total("w @ abs(x) <= t", "abs", parameters={"w": ((4,), {"pos": True})}, data={"weight": "w"}),
        total("w @ square(x) <= t", "square", parameters={"w": ((4,), {"pos": True})}, data={"weight": "w"}),
        total("log_sum_exp(x) <= t", "log_sum_exp", static={"options": (("axes", (-1,)),)}),
        total(
            "sum(huber(x - b, 0.5)) <= 1 - t",
            "huber",
            parameters={"b": ((4,), {})},
            arg="hstack([x - b, 1 - t])",
            data={"M": "0.5"},
        ),
        total("sum(log(x)) >= t", "neg_log", arg="hstack([x, -t])", draw=(0.1, 3.0)),
        Spelling(
            text="square(pos(x)) <= t",
            constraint=True,
            variables={"x": (3,), "t": (3,)},
            arg="stack([x, t], axis=-1)",
            static={"f": "square_pos", "axes": (-1,)},
        ),
        Spelling(
            text="sum(exp(x), axis=0) <= t",
            constraint=True,
            variables={"x": (2, 3), "t": (3,)},
            arg="hstack([x.T, reshape(t, (3, 1), order='C')])",
            static={"f": "exp", "axes": (-1,), "shape": (2,)},
        ),
        Spelling(
            text="normNuc(x) <= t",
            constraint=True,
            variables={"x": (2, 3), "t": ()},
            arg="hstack([vec(x, order='C'), t])",
            static={"f": "norm_nuc", "axes": (-2, -1), "shape": (2, 3)},
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(-1, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        if WEIGHT not in data and self.cuts:
            return torch.cat(cut_epigraph(self.f, v[..., :-1], v[..., -1:]), dim=-1)
        x, s = self._apart(v)
        if self.spectral is None:
            closed = closed_epigraph(self.whole, x, s, self.own(data))
            return self._joined(*(epigraph_prox(self.whole, x, s, self.own(data)) if closed is None else closed))
        lift, scalar = self.spectral

        def both(values: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            if scalar.f.name in CUT:
                return cut_epigraph(scalar.f.name, values, s)
            return epigraph_prox(scalar, values, s, {})

        column = s.squeeze(-1).expand((*x.shape[:-2], 1))
        values = (eigenvalues if lift is OfEigenvalues else singular_values)(x)
        onto = lift(lambda values, s: both(values, s)[0])
        return self._joined(onto(x, column), both(values, column)[1])

    @property
    def cuts(self) -> bool:
        """Whether F is the l1 norm, the largest entry or the largest magnitude of all entries."""
        return self.f in CUT and (self.f == "abs" or len(dict(self.options)["axes"]) == len(self.shape))

    def _apart(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x in its own shape, and the height with as many axes of length 1."""
        lead = z.shape[:-1]
        return z[..., :-1].reshape((*lead, *self.shape)), z[..., -1].reshape((*lead, *(1 for _ in self.shape)))

    def _joined(self, x: Tensor, t: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(self.shape)]
        return torch.cat([x.reshape((*lead, -1)), t.reshape((*lead, 1))], dim=-1)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        """The distance."""
        return euclidean(x - self.prox(x, torch.ones_like(x[..., :1]), data))
