"""Docstrings of this project as reStructuredText: formulas such as (*batch, n) or |x| are no markup."""

import re

MARKUP = re.compile(r"(`+[^`]*`+\w?)|([*|\\])|(\w)_(?=\W|$)")


def escape(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape asterisks, bars, backslashes and trailing underscores outside backticks, line by line, in place.

    A plural such as `Input`s ends the code before its s.
    """
    lines[:] = [MARKUP.sub(_escaped, line) for line in lines]


def _escaped(found: re.Match[str]) -> str:
    code, mark, letter = found.groups()
    if code:
        return code if code.endswith("`") else f"{code[:-1]}\\ {code[-1]}"
    return f"\\{mark}" if mark else f"{letter}\\_"
