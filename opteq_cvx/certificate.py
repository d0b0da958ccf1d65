"""Certificate: what a solution proves about itself, and the rays that prove a program infeasible or unbounded.

At the point x with w = Kx + b − p, y ∈ ∂g(w) and r = Px + q + Kᵀy, where P ⪰ μI, weak duality and Fenchel's equality
g(w) + g*(y) = ⟨w, y⟩ give, without any further solve,
    F(x, w) − F* ≤ −⟨y, p⟩ + ‖r‖²/(2μ)   and, where K = I and p = 0,   ‖x − x*‖ ≤ ‖r‖/μ.
Where no μ > 0 is known the second part is taken over the ball of radius 1 + ‖x‖ instead, ‖r‖(1 + ‖x‖).
Sources: Rockafellar, *Convex Analysis*, sections 23 and 31; Banjac, Goulart, Stellato, Boyd, JOTA 183 (2019) (rays).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.problem import take
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.plan import Plan
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.multipliers import Multipliers
from opteq_cvx.splitting.objective import objective, violation
from opteq_cvx.splitting.saddle import Proximal, Saddle
from opteq_cvx.splitting.structure import SMOOTH
from opteq_cvx.status import Status, code

PLAIN_STEPS = (30, 60, 120, 240, 480, 960, 1920, 3840)
"""Steps of the plain iteration between looks at its drift, until a ray is certified."""
CERTAIN = 1e-6


@dataclass(frozen=True, slots=True)
class Rays:
    """Directions that prove why samples have no solution; zero for all others.

    duals: for infeasible samples, multipliers of the constraints (one entry each, in the problem's order) that no
        point satisfies: Farkas's certificate, with CVXPY's signs.
    variables: for unbounded samples, a direction of each variable along which the objective falls for ever.
    certified: (*batch), where the ray was found and satisfies its inequalities to 1e-6.
    """

    duals: tuple[tuple[Tensor, ...], ...]
    variables: dict[str, Tensor]
    certified: Tensor


@dataclass(frozen=True, slots=True)
class Certificate:
    """Per sample (*batch), in the units of the problem.

    Attributes:
        primal: the largest violation of a constraint.
        dual: the largest entry of r, the gradient of the Lagrangian.
        gap: objective minus dual bound, at least 0 but for rounding; a true bound where `strong`, and otherwise for
            all points within 1 + ‖x‖ of this one.
        bound: the dual bound on the optimal value (below it for Minimize, above it for Maximize).
        distance: a bound on ‖x − x*‖ over all variables; inf where none is known.
        strong: whether a modulus of strong convexity is certified.

    NaN for samples whose status is neither CONVERGED nor MAX_STEPS: `Solution.rays` is what proves something of those.
    """

    primal: Tensor
    dual: Tensor
    gap: Tensor
    bound: Tensor
    distance: Tensor
    strong: Tensor

    @override
    def __repr__(self) -> str:
        parts = [f"{name}<={_worst(getattr(self, name)):.1e}" for name in ("primal", "dual", "gap", "distance")]
        return f"Certificate({', '.join(parts)})"


def _worst(x: Tensor) -> float:
    return float(x.nan_to_num(0.0).max()) if x.numel() else 0.0


@dataclass(slots=True, eq=False)
class Evidence:
    """What a certificate is computed from when somebody asks: the saddle point and the data of one call, detached."""

    plan: Plan
    saddle: Saddle
    theta: tuple[Tensor, ...]
    env: Environment
    modulus: Tensor | None
    codes: Tensor
    batch: tuple[int, ...]
    _certificate: Certificate | None = field(default=None, repr=False)
    _rays: Rays | None = field(default=None, repr=False)

    @property
    def certificate(self) -> Certificate:
        """Worked out when it is first asked for."""
        if self._certificate is None:
            self._certificate = self._certify()
        return self._certificate

    @property
    def rays(self) -> Rays:
        """Worked out when they are first asked for."""
        if self._rays is None:
            self._rays = self._find()
        return self._rays

    @torch.no_grad()
    def _certify(self) -> Certificate:
        s, program = self.saddle, self.plan.source
        theta, part = self.theta, s.part
        curved, q = part.slope(s.x, theta)
        r = curved + q + part.back(s.y, theta)
        missed = part.image(s.x, theta) - s.w
        size, known = torch.linalg.vector_norm(r, dim=1), self._modulus()
        strong = known > 0
        radius = 1.0 + torch.linalg.vector_norm(s.x, dim=1)
        loss = torch.where(strong, size**2 / (2.0 * torch.where(strong, known, 1.0)), size * radius)
        gap = (s.y * -missed).sum(1) + loss
        distance = torch.full_like(size, torch.inf)
        if not part.graph:
            shift = torch.linalg.vector_norm(missed, dim=1)
            r = r - part.slope(missed, theta)[0]  # at w, of which y is a subgradient
            exact = torch.linalg.vector_norm(r, dim=1) / torch.where(strong, known, 1.0) + shift
            distance = torch.where(strong, exact, distance)
        outside = violation(program, split(s.x, self.plan.layout), self.env)
        worst = r.abs().amax(1) if r.shape[1] else size * 0.0
        solved = (self.codes == code(Status.CONVERGED)) | (self.codes == code(Status.MAX_STEPS))
        rows = (outside, worst, gap, program.sign * (self._value() - gap), distance)
        numbers = (torch.where(solved, t, torch.nan) for t in rows)
        primal, dual, gap_, bound, far = (self._shaped(t) for t in numbers)
        return Certificate(primal, dual, gap_, bound, far, self._shaped(strong & solved))

    def _value(self) -> Tensor:
        """F(x, w) (B,): the smooth part at x, the others at w."""
        smooth = tuple(t for t in self.plan.program.terms if t.atom in (*SMOOTH, "linear"))
        program = replace(self.plan.program, terms=smooth, constraints=(), sign=1)
        rest = self.saddle.part.value(self.saddle.w, self.theta)
        return objective(program, split(self.saddle.x, self.plan.layout), self.env) + rest

    def _modulus(self) -> Tensor:
        """μ (B,) of the quadratic; 0 where none is known."""
        x, d = self.saddle.x, self.saddle.part.diagonal(self.theta)
        rows = x.shape[0]
        if d is not None:
            return d.amin(1).expand(rows) if d.shape[1] else x.new_zeros(rows)
        if self.modulus is None:
            return x.new_zeros(rows)
        step = self.saddle.step
        return (self.modulus.nan_to_num(0.0) / (step if step.ndim == 1 else step[:, 0])).expand(rows)

    @torch.no_grad()
    def _find(self) -> Rays:
        """Rays of the samples whose status calls for one, from the drift of Douglas–Rachford on the program as read."""
        program, layout = self.plan.source, self.plan.layout
        wanted = (self.codes == code(Status.PRIMAL_INFEASIBLE)) | (self.codes == code(Status.DUAL_INFEASIBLE))
        form, total = GraphForm.of(program), self.codes.shape[0]
        like, rows = self.saddle.x, wanted.nonzero().squeeze(1)
        x, y, found = like.new_zeros(total, layout.n), like.new_zeros(total, form.m), torch.zeros_like(wanted)
        if rows.numel():
            theta = take(tuple(t.expand(total, *t.shape[1:]) for t in form.theta(self.env)), rows)
            empty = self.codes[rows] == code(Status.PRIMAL_INFEASIBLE)
            rays = _drift(DouglasRachford(form), theta, empty)
            x[rows], y[rows], found[rows] = rays
        saddle = Saddle(Proximal(form.blocks, form.m, None, True), x, torch.zeros_like(y), y, y.new_ones(1))
        whole = tuple(t.expand(total, *t.shape[1:]) for t in form.theta(self.env))
        duals = Multipliers.of(program, program)(saddle.shares(whole), self.env)
        return Rays(
            tuple(tuple(self._shaped(d) for d in parts) for parts in duals),
            {name: self._shaped(v) for name, v in split(x, layout).items()},
            self._shaped(found),
        )

    def _shaped(self, x: Tensor) -> Tensor:
        return x.expand(self.codes.shape[0], *x.shape[1:]).reshape((*self.batch, *x.shape[1:]))


def _drift(map_: DouglasRachford, theta: Sequence[Tensor], empty: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, certified): the direction of unbounded samples, multipliers of the `empty` ones, others zero."""
    data = tuple(theta)
    prepared = map_.prepare(data)
    z, advance = map_.start(empty.shape[0], data), map_.runner(data, prepared)
    x, y, done = (
        z.new_zeros(z.shape[0], map_.form.layout.n),
        z.new_zeros(z.shape[0], map_.form.m),
        torch.zeros_like(empty),
    )
    for count in PLAIN_STEPS:
        for _ in range(count):
            z = advance(z)
        ray = map_.ray(z, data, prepared, CERTAIN)
        new = torch.where(empty, ray.infeasible, ray.unbounded) & ~done
        x = torch.where((new & ~empty)[:, None], ray.x, x)
        y = torch.where((new & empty)[:, None], ray.y, y)
        done = done | new
        if bool(done.all()):
            break
    return x, y, done
