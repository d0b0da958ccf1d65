"""The oracle for tied programs: each solved exactly at the tied values, with a certified distance to the fixed point.

With u the candidate and v what the programs answer at the values that the ties give u, C(u − v) ∈ ∂f(v) + Fv + q, and
hence ‖v − u*‖ ≤ ‖C(u − v)‖/m in the metric D: v is exact where that is rounding. A variational equilibrium is also
compared with the joint program. The layer only proposes u; what is compared is v.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import OpteqError, SolveWarning
from opteq_cvx.frontend.declaration import Declaration
from opteq_cvx.frontend.ties import variables_of
from opteq_cvx.frontend.variables import names_of
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Affine, Output
from opteq_cvx.layer import EquilibriumLayer, Factors
from opteq_cvx.maps.affine import affine
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.ties.equilibrium import ROUNDING
from opteq_cvx.ties.untilted import Untilted
from opteq_cvx.verify.answer import Exact, ExactStatus
from opteq_cvx.verify.layers import environment
from opteq_cvx.verify.oracle import Declared, FromProgram, Judgement, Oracle

PROPOSAL = 1e-12
"""The tolerance of the layer's proposal."""

CERTAIN = 1e-8
"""A relative bound on ‖v − u*‖ up to which v counts as exact."""


AGREES = "the joint program agrees with the programs at the tied values"


@dataclass(frozen=True, slots=True)
class Part:
    """One program with its oracle, and the names of its variables in the tied program."""

    oracle: Oracle
    names: tuple[str, ...]


@dataclass
class TiedOracle(Oracle):
    """Exact answers for an equilibrium; `layer` is in float64."""

    layer: EquilibriumLayer
    parts: Sequence[Part]
    joint: FromProgram | None
    source: str = "each program at the tied values"
    notes: list[str] = field(default_factory=list)

    @property
    def ties(self) -> Mapping[str, Affine]:
        """The tied parameters as functions of the variables."""
        splitting, found = self.layer.plan.splitting, self.layer.plan.inclusion
        if isinstance(splitting, Untilted):
            return splitting.ties
        assert found is not None
        return found.tilted.ties

    @override
    def solve(self, values: Mapping[str, Array]) -> Exact:
        env, found = _environment(values), self.layer.plan.inclusion
        margin = 0.0
        if found is not None:
            f = env(found.matrix).detach()
            margin = float(found.margin(f)[0])
            norm = float(torch.linalg.matrix_norm(f, 2)[0]) if f.shape[-1] else 0.0
            if margin < -ROUNDING * np.finfo(np.float64).eps * max(norm, 1.0) and self.layer.options.certify:
                return Exact(ExactStatus.NOT_CONVEX, note=f"the margin of P − C is {margin:.2e}")
        u = self._proposal(values)
        tied = {name: _numpy(affine(tie, u, env)) for name, tie in self.ties.items()}
        v: dict[str, Array] = {}
        for part in self.parts:
            answer = part.oracle.solve({**values, **tied})
            if not answer.status.solved:
                return answer
            v.update(zip(part.names, answer.outputs, strict=True))
        return self._exact(values, env, u, v, margin)

    def _exact(
        self,
        values: Mapping[str, Array],
        env: Environment,
        u: Mapping[str, Tensor],
        v: Mapping[str, Array],
        margin: float,
    ) -> Exact:
        answer = {n: torch.from_numpy(np.array(x, dtype=np.float64)).reshape(u[n].shape) for n, x in v.items()}
        size = 1.0 + float(self._flat(answer).norm())
        bound = self._distance(env, self._flat(u) - self._flat(answer), margin) / size
        outputs = tuple(_numpy(affine(o.value, answer, env)) for o in self.layer.program.outputs)
        status = ExactStatus.OPTIMAL if bound <= CERTAIN else ExactStatus.INACCURATE
        note = "" if bound <= CERTAIN else f"the distance to the fixed point is certified to {bound:.1e} only"
        if self.layer.plan.inclusion is None:
            self._say("the equilibrium is not certified: what is exact is each program at the tied values")
        exact = Exact(status, outputs, variables=tuple(v.values()), residual=bound, note=note)
        if self.joint is None:
            return exact
        joint = self.joint.solve(values)
        if not joint.status.solved:
            self._say(f"the joint program was not solved by CVXPY: {joint.note or joint.status.value}")
            return exact
        gaps = [float(np.abs(a - b).max(initial=0.0)) for a, b in zip(outputs, joint.outputs, strict=True)]
        gap = max(gaps, default=0.0)
        if gap > 1e-6 * size:
            words = f"the joint program and the programs at the tied values differ by {gap:.1e}"
            return Exact(ExactStatus.FAILED, note=words)
        self._say(AGREES)
        return replace(exact, objective=joint.objective)

    def for_gradients(self) -> Oracle:
        """What answers for differences: the joint program where CVXPY solved it, one solve instead of many."""
        if self.joint is not None and AGREES in self.notes:
            return self.joint
        return replace(self, joint=None)

    def _say(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def _flat(self, u: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([u[name].reshape(-1) for name in self.layer.plan.layout.names])

    def _distance(self, env: Environment, gap: Tensor, margin: float) -> float:
        """A bound on ‖v − u*‖ for gap = u − v."""
        if not gap.numel():
            return 0.0
        found = self.layer.plan.inclusion
        if found is None or margin <= 0.0:
            return float("inf") if bool(gap.any()) else 0.0
        pieces: dict[str, Tensor] = {}
        start = 0
        for name, shape in zip(found.layout.names, found.layout.shapes, strict=True):
            count = int(np.prod(shape, dtype=int))
            pieces[name] = gap[start : start + count].reshape(1, *shape)
            start += count
        image = {name: torch.zeros_like(x) for name, x in pieces.items()}
        for edge in found.tilted.coupling:
            part = Affine(((edge.source, edge.map),), act.zeros(edge.map.shape_out))
            image[edge.target] = image[edge.target] + affine(part, pieces, env)
        d = found.spread(found.scaling, gap)
        weighted = float((d.sqrt() * self._flat(image)).norm())
        return weighted / margin / float(d.min().sqrt())

    def _proposal(self, values: Mapping[str, Array]) -> dict[str, Tensor]:
        tensors = {k: torch.from_numpy(np.array(v, dtype=np.float64)) for k, v in values.items()}
        weights = {n: tensors[n].unsqueeze(0) for n in self.layer.weights.names}
        inputs = [tensors[n] for n in self.layer.input_names]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", SolveWarning)
            solution = self.layer.solve(*inputs, tolerance=PROPOSAL, prepared=Factors(weights, None))
        return {name: x.unsqueeze(0) for name, x in solution.variables.items()}

    @override
    def judge(self, values: Mapping[str, Array], variables: Mapping[str, Array]) -> Judgement | None:
        """The joint objective, and the largest violation of a program's constraints at the tied values."""
        env = _environment(values)
        u = {n: torch.from_numpy(np.array(x, dtype=np.float64)).unsqueeze(0) for n, x in variables.items()}
        tied = {name: _numpy(affine(tie, u, env)) for name, tie in self.ties.items()}
        worst = 0.0
        for part in self.parts:
            own = _own_names(part, variables)
            found = part.oracle.judge({**values, **tied}, own)
            if found is not None:
                worst = max(worst, found.violation)
        objective = float("nan")
        if self.joint is not None:
            try:
                joint = self.joint.judge(values, variables)
                objective = objective if joint is None else joint.objective
            except OpteqError:
                pass
        return Judgement(objective, worst)


def _own_names(part: Part, variables: Mapping[str, Array]) -> dict[str, Array]:
    """The program's own variables under the names that its problem gives them."""
    if not isinstance(part.oracle, Declared):
        return dict(variables)
    own = part.oracle.problem.variables()
    return {v.name(): variables[name] for v, name in zip(own, part.names, strict=True) if name in variables}


def tied_oracle(layer: EquilibriumLayer) -> TiedOracle:
    """The oracle of a tied layer in float64: the user's own programs, or one rebuilt from the saved program."""
    source, declaration = layer.plan.source, layer.declaration
    variational = layer.plan.has_objective
    joint = FromProgram(layer.program, source="the joint program") if variational else None
    if isinstance(declaration, Declaration) and declaration.ties:
        return TiedOracle(layer, _declared_parts(declaration), joint)
    outputs = tuple(Output(v.name, aff.of_variable(v.name, v.shape)) for v in source.variables)
    free = tuple(replace(p, stage=Stage.INPUT) if p.stage is Stage.TIED else p for p in source.parameters)
    whole = replace(source, ties=(), outputs=outputs, parameters=free, dual_outputs=())
    part = Part(FromProgram(whole), tuple(v.name for v in whole.variables))
    return TiedOracle(layer, [part], joint, "the programs rebuilt, at the tied values")


def _declared_parts(declaration: Declaration) -> list[Part]:
    weights = declaration.weights
    by_name: dict[str, cp.Parameter] = {p.name(): p for p in declaration.inputs} | dict(weights)
    by_name |= {p.name(): p for p, _ in declaration.ties}
    variables = variables_of(declaration.problems)
    names = {id(v): name for v, name in zip(variables, names_of(variables), strict=True)}
    parts = []
    for problem in declaration.problems:
        own = problem.variables()
        used = {id(p) for p in problem.parameters()}
        parameters = {name: p for name, p in by_name.items() if id(p) in used}
        parts.append(Part(Declared(problem, parameters, own), tuple(names[id(v)] for v in own)))
    return parts


def _environment(values: Mapping[str, Array]) -> Environment:
    return environment({k: torch.from_numpy(np.array(v, dtype=np.float64)) for k, v in values.items()})


def _numpy(x: Tensor) -> Array:
    return x[0].detach().numpy()
