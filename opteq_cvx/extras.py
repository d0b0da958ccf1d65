"""Optional dependencies: one helper whose error names the extra to install."""

from importlib import import_module
from typing import Any

from opteq_cvx.errors import MissingExtraError, message


def require(module: str, *, extra: str) -> Any:
    """Import `module`, which comes with `pip install opteq_cvx[extra]`.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        text = message(
            f"the module {module} is not installed",
            f"the optional dependencies of the extra '{extra}'",
            f"pip install 'opteq_cvx[{extra}]', in a clone pip install -e '.[{extra}]'",
        )
        raise MissingExtraError(text) from error
