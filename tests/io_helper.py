"""An iteration as a third party would write it, importable so that it has a module."""

from dataclasses import dataclass

from opteq_cvx.iterate import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Mine(Plain):
    knob: int = 0
