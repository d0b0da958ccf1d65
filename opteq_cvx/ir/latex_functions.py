"""The functions of atoms as LaTeX."""

from collections.abc import Callable

from opteq_cvx.ir.frozen import FrozenDict

Text = tuple[str, int]
"""A formula and how tightly it binds: 0 sums, 1 products and signs, 2 whatever needs no parentheses."""

Function = Callable[[Text, dict[str, Text]], str]
"""Of the argument and the data."""


def bound(piece: Text, level: int) -> str:
    """In parentheses where it binds less tightly than `level`."""
    return piece[0] if piece[1] >= level else f"({piece[0]})"


def function(atom: str, static: FrozenDict, dimensions: int) -> Function:
    """The formula of an atom whose argument has so many dimensions; one without is written as its name."""
    axes = static.get("axes")
    several = axes is not None and len(axes) < dimensions
    if atom == "box_plane":
        return _box_plane(below=bool(static.get("below", False)))
    return (SEVERAL if several and atom in SEVERAL else FUNCTIONS).get(atom, _plain(atom))


def _plain(words: str) -> Function:
    if words.startswith("activation_"):
        inside = words.removeprefix("activation_").replace("_", r"\_")
        return lambda x, data: rf"f_{{\mathrm{{{inside}}}}}({x[0]})"
    shown = words.replace("_", r"\_")
    return lambda x, data: rf"\operatorname{{{shown}}}({x[0]})"


def _around(pattern: str, level: int = 0) -> Function:
    """`·` stands for the argument, in parentheses where it binds less tightly than `level`."""
    return lambda x, data: pattern.replace("·", bound(x, level))


def _box(x: Text, data: dict[str, Text]) -> str:
    low, high = (data.get(key, (r"\infty", 2))[0] for key in ("lower", "upper"))
    left = "" if low.endswith(r"\infty") else rf"{low} \le "
    right = "" if high.endswith(r"\infty") else rf" \le {high}"
    if left and not right:
        return rf"\iota\{{{x[0]} \ge {low}\}}"
    return rf"\iota\{{{left}{x[0]}{right}\}}"


def _ball(norm: str) -> Function:
    return lambda x, data: rf"\iota\{{\lVert {x[0]} \rVert_{norm} \le {data['radius'][0]}\}}"


def _box_plane(*, below: bool) -> Function:
    relation = r"\le" if below else "="

    def shown(x: Text, data: dict[str, Text]) -> str:
        normal, total = data["normal"][0], data["total"][0]
        product = rf"\langle {normal}, {x[0]} \rangle"
        if normal in ("1", "-1"):
            product = rf"{normal[:-1]}\mathbf 1^\top {bound(x, 2)}"
        return _box(x, data).removesuffix(r"\}") + rf",\ {product} {relation} {total}\}}"

    return shown


def _quad_form(x: Text, data: dict[str, Text]) -> str:
    middle = data["P"][0] if data["P"][1] == 2 else rf"\bigl({data['P'][0]}\bigr)"
    bare = "u" if x[0].startswith(r"\operatorname{place}") else bound(x, 2)
    return rf"{bare}^\top {middle}\, {bare}"


FUNCTIONS: dict[str, Function] = {
    "abs": _around(r"\lVert · \rVert_1"),
    "box": _box,
    "exp": _around(r"\mathbf 1^\top e^{·}"),
    "l1_ball": _ball("1"),
    "l2_ball": _ball("2"),
    "linear": _around("·"),
    "log_sum_exp": _around(r"\ln \mathbf 1^\top e^{·}"),
    "logistic": _around(r"\mathbf 1^\top \ln(1 + e^{·})"),
    "max": _around(r"\max(·)"),
    "monotone": _around(r"\iota_{\nearrow}(·)"),
    "neg_entr": _around(r"\langle ·, \ln(·) \rangle"),
    "neg_log": _around(r"-\mathbf 1^\top \ln(·)"),
    "neg_log_det": _around(r"-\ln\det(·)"),
    "nonneg": _around(r"\iota\{· \ge 0\}"),
    "nonpos": _around(r"\iota\{· \le 0\}"),
    "norm2": _around(r"\lVert · \rVert_2"),
    "norm_inf": _around(r"\lVert · \rVert_\infty"),
    "norm_nuc": _around(r"\lVert · \rVert_*"),
    "pos": _around(r"\mathbf 1^\top \max(·, 0)"),
    "psd": _around(r"\iota\{· \succeq 0\}"),
    "quad_form": _quad_form,
    "simplex": _around(r"\iota_\Delta(·)"),
    "square": _around(r"\lVert · \rVert^2"),
    "transport": lambda x, data: (
        rf"\iota\{{{x[0]} \ge 0,\ {bound(x, 2)} \mathbf 1 = {data['rows'][0]},\ "
        rf"{bound(x, 2)}^\top \mathbf 1 = {data['columns'][0]}\}}"
    ),
    "symmetric": lambda x, data: rf"\iota\{{{x[0]} = {bound(x, 2)}^\top\}}",
    "zero": _around(r"\iota\{· = 0\}"),
}
"""Formulas of the usual atoms; another one is written as its name."""

SEVERAL: dict[str, Function] = {
    "norm2": _around(r"\lVert · \rVert_{2,1}"),
    "norm_inf": _around(r"\lVert · \rVert_{\infty,1}"),
    "log_sum_exp": _around(r"\mathbf 1^\top \ln \mathbf 1^\top e^{·}"),
    "max": _around(r"\mathbf 1^\top \max(·)"),
    "l2_ball": _ball(r"{2,\infty}"),
}
"""Along some axes, summed over the others (of sets: all of them)."""
