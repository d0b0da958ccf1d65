"""Whether a batch gives what its samples give alone, and what it gives in another order."""

from typing import Any

import numpy as np
import torch

from opteq_cvx.ir.frozen import Array
from opteq_cvx.solution import Solution
from opteq_cvx.status import Status
from tests.fuzz.builder import SAMPLES
from tests.fuzz.program import Made

SAME = 1e-5  # batch against loop
POINT = 1e-4  # relative distance of solutions, where the objective is strongly convex


def apart(a: Array, b: Array) -> float:
    """Largest difference, relative to the size of b."""
    return float(np.abs(a - b).max(initial=0.0) / max(1.0, np.abs(b).max(initial=0.0)))


ORDER = [2, 0, 1]
ALL = ("shuffled", *(f"alone {i}" for i in range(SAMPLES)))


def chosen(seed: int) -> tuple[str, ...]:
    """All repetitions for one seed in 16, one of them for others."""
    return ALL if seed % 16 == 0 else (ALL[seed % len(ALL)],)


def repeatable(
    made: Made, layer: Any, arrays: list[torch.Tensor], solution: Solution, repeat: tuple[str, ...] = ALL
) -> list[str]:
    """Whether samples alone ("alone i") and a batch in another order ("shuffled") have the batch's results."""
    notes: list[str] = []
    for name in repeat:
        samples = ORDER if name == "shuffled" else [int(name.split()[1])]
        other = layer.solve(*(a[samples] for a in arrays))
        for place, i in enumerate(samples):
            first, second = solution.status[i], other.status[place]
            if first is not second:
                word = "not converged" if Status.MAX_STEPS in (first, second) else "wrong"
                notes.append(f"{word}: {name}: {second.name} for {first.name}")
            elif first is Status.CONVERGED:
                a, b = float(solution.objective[i]), float(other.objective[place])
                if abs(a - b) > SAME * max(1.0, abs(a)):
                    notes.append(f"wrong: {name}: objective {b:.8g} for {a:.8g}")
                far = max(
                    apart(
                        other.variables[v.name()][place].detach().numpy(),
                        solution.variables[v.name()][i].detach().numpy(),
                    )
                    for v in made.problem.variables()
                )
                if made.modulus > 0 and far > POINT:
                    notes.append(f"wrong: {name}: {far:.1e} away")
    return notes
