"""A mutant put into a running process: the code of the functions that it changes is exchanged in place."""

import ast
import gc
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

Place = tuple[str, int, tuple[str, ...]]


def patch(path: Path, original: str, changed: ast.Module) -> bool:
    """Exchange the functions of the module at `path` that differ; False where what differs is no function's body.

    Module and class bodies, defaults and decorators have run already: such mutants need a process of their own. So
    does a fault that changes which variables a closure holds.
    """
    old, new = compile(original, str(path), "exec"), compile(changed, str(path), "exec")
    after = {(c.co_qualname, c.co_firstlineno): c for c in _inside(new)}
    pairs = [(c, after.get((c.co_qualname, c.co_firstlineno))) for c in _inside(old)]
    different = {_place(c): d for c, d in pairs if d is not None and _is_function(c) and c != d}
    found = [f for f in gc.get_objects() if type(f) is FunctionType and f.__code__.co_filename == str(path)]
    done = 0
    for function in found:
        mutated = different.get(_place(function.__code__))
        if mutated is not None and len(mutated.co_freevars) == len(function.__code__.co_freevars):
            function.__code__ = mutated
            done += 1
    return done > 0


def _inside(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inside(constant)


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & 0x2)  # CO_NEWLOCALS: no module and no class


def _place(code: CodeType) -> Place:
    """What tells a function's code from others of its module, however its decorators are written."""
    lines = [line for _, _, line in code.co_lines() if line is not None]
    return code.co_qualname, max(lines, default=0), code.co_varnames
