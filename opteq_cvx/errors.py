"""Errors for people: what was found, what was expected, the user's own words, and the remedy."""


class OpteqError(Exception):
    """Base of every error this package raises on purpose."""


class CompileError(OpteqError, ValueError):
    """The program cannot be compiled as written; the message quotes the expression and says what to write."""


class NotConvexError(CompileError):
    """The program, or a quadratic wrapped by `psd_wrap`, is not convex."""


class UnsupportedError(CompileError):
    """An expression that no route of this version covers."""


class InputError(OpteqError, ValueError):
    """An argument of a call has the wrong shape, name or number."""


class DTypeError(OpteqError, TypeError):
    """An argument of a call has the wrong dtype or device, or is not a tensor."""


class SolveError(OpteqError, RuntimeError):
    """`on_failure="raise"` and some samples failed; the message has the counts and the worst sample."""


class SolveWarning(UserWarning):
    """Some samples of a call failed; the text has the counts by status and the remedy."""


class GradientWarning(UserWarning):
    """The estimated error of a gradient exceeds what was asked for; the text has the figures and the remedy."""


class CouplingWarning(UserWarning):
    """A prior couples the samples of a batch: what the layer computes in training is not convex, and not certified."""


class OrderError(OpteqError, RuntimeError):
    """A derivative of second order through an adjoint that is exact to first order only."""


class FileError(OpteqError, ValueError):
    """A saved layer is damaged, of another schema version, or larger than it says."""


class MissingExtraError(OpteqError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


def message(found: str, expected: str, fix: str, origin: object = None) -> str:
    """Compose the four parts of an error text: `origin: found. Expected: expected. Fix: fix.`"""
    head = f"{origin}: {found}." if origin is not None else f"{found}."
    return f"{head} Expected: {expected}. Fix: {fix}."
