"""Problem files: one Python file that declares an architecture as a convex program.

A problem file defines, with the same keyword-only sizes in both functions,

* `declare(**sizes)` → (problem, inputs, outputs), so that `oc.compile(*declare())` is the layer;
* `sample(n, generator, **sizes)` → a tuple of float64 tensors, one per input, with a leading axis n;
* `SOURCE`, where the program comes from.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from opteq_cvx.errors import InputError, message


@dataclass(frozen=True, slots=True)
class ProblemFile:
    """A loaded problem file; `declare` returns what `oc.compile` takes, `sample` what the layer takes."""

    name: str
    source: str
    summary: str
    declare: Callable[..., tuple[Any, Sequence[Any], Sequence[Any]]]
    sample: Callable[..., tuple[Any, ...]]

    @property
    def sizes(self) -> Mapping[str, int]:
        """The sizes that `declare` takes, with their defaults."""
        parameters = inspect.signature(self.declare).parameters
        return {k: p.default for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def checked(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """`sizes`, once each of them is known to be a size of this problem.

        Raises:
            InputError: a name that `declare` does not take.
        """
        for name in sizes:
            if name not in self.sizes:
                found, known = f"{self.name} has no size '{name}'", ", ".join(self.sizes) or "no size at all"
                raise InputError(message(found, known, "leave it out or correct the name"))
        return dict(sizes)


def read_problem(path: str | Path) -> ProblemFile:
    """Execute a problem file and take its three names.

    Raises:
        InputError: there is no such file, or it lacks one of `declare`, `sample`, `SOURCE`.
    """
    path = Path(path)
    expected = "a Python file with declare(), sample() and SOURCE"
    if not path.is_file() or path.suffix != ".py":
        raise InputError(message(f"'{path}' is not a Python file", expected, "give the path of a problem file"))
    spec = spec_from_file_location(f"opteq_problem_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(message(f"'{path}' cannot be imported", expected, "give the path of a problem file"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [name for name in ("declare", "sample", "SOURCE") if name not in vars(module)]
    if missing:
        raise InputError(message(f"'{path}' lacks {', '.join(missing)}", expected, "add what is missing"))
    return ProblemFile(
        name=path.stem,
        source=str(vars(module)["SOURCE"]),
        summary=(module.__doc__ or path.stem).strip().splitlines()[0],
        declare=vars(module)["declare"],
        sample=vars(module)["sample"],
    )
