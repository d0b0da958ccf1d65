"""The second oracle for gradients: cvxpylayers, through the reference exporter, chained by torch to our
parameters."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.extras import require
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.verify.rebuild import Rebuilt, rebuild

ARGUMENTS = {"solve_method": "SCS", "eps": 1e-10, "max_iters": 100_000, "mode": "lsmr"}
"""At its default accuracy the gradient is off by 1e-2; its default `mode`, lsqr, leaves 1e-6 whatever the
accuracy."""


@dataclass(frozen=True, slots=True)
class LayerGradient:
    """Outputs of one sample by cvxpylayers, and the gradient of Σ ⟨vₖ, outputₖ⟩ in each parameter, by
    name."""

    outputs: tuple[Tensor, ...]
    gradients: Mapping[str, Tensor]


def installed() -> bool:
    """Whether cvxpylayers can be imported."""
    return find_spec("cvxpylayers") is not None


def environment(values: Mapping[str, Tensor]) -> Environment:
    """One sample's parameter values (no batch axes) as an Environment, in float64 on the CPU."""
    return Environment({k: v.unsqueeze(0) for k, v in values.items()}, torch.float64, torch.device("cpu"))


@dataclass
class Reference:
    """cvxpylayers' layer of one program, exported once and used for many samples (SCS, eps 1e-10, float64,
    CPU)."""

    program: Program
    _exported: Rebuilt | None = None
    _layer: Any = field(default=None, repr=False)

    def gradient(self, values: Mapping[str, Tensor], cotangents: Sequence[Tensor]) -> LayerGradient:
        """Solve and differentiate at one sample.

        Args:
            values: Value of each parameter by name, without batch axes.
            cotangents: One tensor per output, in its shape.

        Raises:
            MissingExtraError: cvxpylayers is not installed.
            UnsupportedError: the export is not DPP, or a quadratic form is singular and its factor has no
                derivative.
        """
        leaves = {name: v.detach().to("cpu", torch.float64).requires_grad_() for name, v in values.items()}
        env = environment(leaves)
        exported = self._export(env)
        if not exported.smooth(env):
            found = "a quadratic form is singular"
            raise UnsupportedError(message(found, "a positive definite one", "rely on differences"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = self._layer(*exported.tensors(env), solver_args=dict(ARGUMENTS))
            total = sum((v.to("cpu", torch.float64) * y).sum() for v, y in zip(cotangents, outputs, strict=True))
            found_gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        pairs = zip(leaves.items(), found_gradients, strict=True)
        gradients = {name: g if g is not None else torch.zeros_like(leaf) for (name, leaf), g in pairs}
        return LayerGradient(tuple(y.detach() for y in outputs), gradients)

    @staticmethod
    def module() -> Any:
        """cvxpylayers' torch module.

        Raises:
            MissingExtraError: it is not installed.
        """
        return require("cvxpylayers.torch", extra="reference")

    def _export(self, env: Environment) -> Rebuilt:
        if self._exported is None:
            module = self.module()
            exported = rebuild(self.program, env)
            if not exported.dpp:
                raise UnsupportedError(
                    message("the exported program is not DPP", "a DPP program", "rely on differences")
                )
            if not exported.hoisted:
                found = "the program has no parameters"
                raise UnsupportedError(message(found, "at least one", "nothing is left to differentiate"))
            parameters = [h.parameter for h in exported.hoisted]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._layer = module.CvxpyLayer(
                    exported.problem, parameters=parameters, variables=list(exported.outputs)
                )
            self._exported = exported
        return self._exported
