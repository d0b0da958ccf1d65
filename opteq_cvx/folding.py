"""Long lines of programs and plans, folded for a terminal: what continues hangs under the column where it began."""

import re
import textwrap

HEAD = re.compile(r"\s*\S+(?: \S+)*?\s{2,}")
"""What stands before the text of a line: its indentation, its heading, and the gap after it."""

DEEPEST = 24
"""The column beyond which a continuation does not hang."""


def fold(text: str, width: int) -> str:
    """Every line at most `width` characters long where words allow; a comment that does not fit gets its own line."""
    return "\n".join(part for line in text.split("\n") for part in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    body, mark, comment = line.partition("  # ")
    found = HEAD.match(body)
    indent = " " * (min(found.end(), DEEPEST) if found else len(line) - len(line.lstrip()) + 2)
    lines = _wrap(body.rstrip(), width, "", indent)
    if mark:
        lines += _wrap(f"# {comment}", width, indent, f"{indent}  ")
    return lines


def _wrap(text: str, width: int, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
