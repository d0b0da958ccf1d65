"""The level set {F ≤ level} of a function F that has an atom with a prox, or of a weighted sum of its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.bounded import NONNEGATIVE, Bounded
from opteq_cvx.atoms.calculus import WEIGHT, level_multiplier, level_prox
from opteq_cvx.atoms.closed_sets import closed_level
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.cuts import CUT, cut_level
from opteq_cvx.atoms.primitives import euclidean, indicator, unweighted
from opteq_cvx.atoms.spectral import Spectral

R: Mapping[str, Any] = {"r": ((), {"nonneg": True})}
W: Mapping[str, Any] = {"w": ((5,), {"pos": True}), **R}


def total(text: str, f: str, level: str = "r", **more: Any) -> Spelling:
    """A sum over a vector of five entries, or a function of it, below `level`."""
    static = {"f": f, "axes": (-1,), **more.pop("static", {})}
    data = {"level": level, **more.pop("data", {})}
    parameters = more.pop("parameters", R if "r" in text.split() else {})
    return Spelling(text=text, constraint=True, parameters=parameters, static=static, data=data, **more)


def matrix(text: str, f: str, level: str = "r", **more: Any) -> Spelling:
    """A function of a matrix below `level`."""
    variables = more.pop("variables", {"x": (2, 3)})
    return total(text, f, level, variables=variables, static={"axes": (-2, -1)}, **{"parameters": R, **more})


@dataclass(frozen=True, slots=True)
class LevelSet(Bounded):
    """The indicator of {F ≤ level}, F(x) = Σ weight·f(x) along `axes`; the projection is prox_{μF}(v), μ a root."""

    name = "level_set"
    formula = "ι{Σ w f(x) ≤ level}, f any function of this table"
    cost = "one prox of f for norms and plain squares, else about 12"
    source = "Parikh, Boyd 2014, section 6.6.2; Chandrupatla 1997 (the root)"
    traits = frozenset({Trait.SET})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"f": "nothing"}, {"f": "nonneg"}, {"f": "exp", "axes": (0,)})
    spellings = (
        total("sum(exp(x)) <= r", "exp"),
        total("w @ exp(x) <= r", "exp", parameters=W, data={"weight": "w"}),
        total("sum(huber(x, 0.5)) <= r", "huber", data={"M": "0.5"}),
        total("log_sum_exp(x) <= r - 1", "log_sum_exp", "r - 1", static={"options": (("axes", (-1,)),)}),
        total("sum(log(x)) >= r", "neg_log", "-r", draw=(0.1, 3.0)),
        Spelling(
            text="mixed_norm(x, 2, 1) <= r",
            constraint=True,
            variables={"x": (3, 4)},
            parameters=R,
            static={"f": "norm2", "axes": (-2, -1), "options": (("axes", (-1,)),)},
            data={"level": "r"},
        ),
        Spelling(
            text="sum(kl_div(x, y)) <= r",
            constraint=True,
            variables={"x": (2,), "y": (2,)},
            parameters=R,
            arg="stack([x, y], axis=-1)",
            static={"f": "kl_div", "axes": (-2, -1)},
            data={"level": "r"},
            draw=(0.1, 3.0),
        ),
        total(
            "lam * pnorm(x, 3) <= r",
            "pnorm",
            parameters={"lam": ((), {"pos": True}), **R},
            static={"options": (("axes", (-1,)), ("p", 3.0))},
            data={"weight": "lam"},
        ),
        matrix("normNuc(x) <= r", "norm_nuc"),
        matrix(
            "log_det((x + x.T) / 2 + 10 * np.eye(2)) >= r",
            "neg_log_det",
            "-r",
            variables={"x": (2, 2)},
            arg="(x + x.T) / 2 + 10 * np.eye(2)",
        ),
        Spelling(
            text="logistic(x) <= r",
            constraint=True,
            parameters={"r": ((5,), {"nonneg": True})},
            static={"f": "logistic"},
            data={"level": "r"},
        ),
        Spelling(
            text="sum(exp(x), axis=0) <= r",
            constraint=True,
            variables={"x": (2, 3)},
            parameters={"r": ((3,), {"nonneg": True})},
            static={"f": "exp", "axes": (-2,)},
            data={"level": "reshape(r, (1, 3), order='C')"},
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        size = x.abs().amax(self.axes, keepdim=True) if self.axes else x.abs()
        return indicator(self.violation(x, data), size)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        if self.spectral is None:
            closed = closed_level(self.whole, v, data["level"], self.own(data))
            return level_prox(self.whole, v, data["level"], self.own(data)) if closed is None else closed
        lifted, level = self._lifted(v, data)
        return lifted(v, level)

    @override
    def jacobian(self, v: Tensor, step: Tensor, data: Data) -> Tensor | None:
        if self.spectral is None:
            return None
        lifted, level = self._lifted(v, data)
        return lifted.matrix(v, level)

    def _lifted(self, v: Tensor, data: Data) -> tuple[Spectral, Tensor]:
        """The projection of spectra, lifted to matrices, and the level of each matrix."""
        assert self.spectral is not None
        lift, scalar = self.spectral

        def onto(values: Tensor, level: Tensor) -> Tensor:
            if scalar.f.name in CUT:
                return cut_level(scalar.f.name, values, level)
            return level_prox(scalar, values, level, {})

        level = data["level"]
        if WEIGHT in data:
            level = unweighted(level, data[WEIGHT])  # one number for each matrix
        return lift(onto), level.squeeze(-1).expand((*v.shape[:-2], 1))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        """The distance; where the set is empty, by how much F stays above the level."""
        onto = self.prox(x, torch.ones_like(data["level"]), data)
        away = euclidean(x - onto, self.axes) if self.axes else (x - onto).abs()
        level = data["level"]
        gap = self.whole.value(onto, self.own(data)) - level
        slack = torch.finfo(x.dtype).eps ** 0.5 * (1.0 + level.abs())
        return away + torch.where(gap > slack, gap, 0.0)

    @override
    def multiplier(self, x: Tensor, y: Tensor, data: Data) -> Tensor:
        return level_multiplier(self.whole, x + y, data["level"], self.own(data))

    @override
    def empty(self, data: Data) -> Tensor | None:
        """Known where F ≥ 0."""
        return data["level"] < 0 if self.f in NONNEGATIVE else None
