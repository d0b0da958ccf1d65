"""The functions of atoms as LaTeX; those of level sets are in `latex`, as they hold a term."""

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
    if atom in STATIC:
        return STATIC[atom](static)
    if atom == "epigraph":
        return _epigraph(function(static["f"], FrozenDict(dict(static["options"])), len(static["shape"])))
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


def _power_of(static: FrozenDict) -> Function:
    body = "|·|" if static.get("absolute") else "(·)"
    return _around(rf"\mathbf 1^\top {body}^{{{static['p']:g}}}")


def _radial(static: FrozenDict) -> Function:
    norm = r"\lVert · \rVert_2"
    shown = {
        "power": rf"{norm}^{{{dict(static['options']).get('p', 3.0):g}}}",
        "exp": rf"e^{{{norm}}}",
        "logistic": rf"\ln(1 + e^{{{norm}}})",
        "xexp": rf"{norm} e^{{{norm}}}",
    }
    if static["f"] == "huber":
        return _huber(norm)
    return _around(shown[static["f"]])


def _huber(argument: str) -> Function:
    return lambda x, data: rf"\phi^{{\mathrm{{hub}}}}_{{{data['M'][0]}}}({argument.replace('·', x[0])})"


def _largest(entries: str) -> Callable[[FrozenDict], Function]:
    return lambda static: _around(rf"\textstyle\sum_{{i \le {static['k']:g}}} {entries}")


def _epigraph(inner: Function) -> Function:
    def shown(x: Text, data: dict[str, Text]) -> str:
        weight = bound(data["weight"], 1) + r"\, " if "weight" in data else ""
        return rf"\iota_{{\operatorname{{epi}}({weight}{inner((chr(92) + 'cdot', 2), data)})}}({x[0]})"

    return shown


def _jumps(x: Text, data: dict[str, Text]) -> str:
    return rf"\langle {data['w'][0]}, |D {bound(x, 2)}| \rangle"


STATIC: dict[str, Callable[[FrozenDict], Function]] = {
    "box_plane": lambda static: _box_plane(below=bool(static.get("below", False))),
    "lambda_sum_largest": _largest(r"\lambda_i(·)"),
    "max_norm": lambda static: _around(rf"\max_i \lVert (·)_i \rVert_{static['p']}"),
    "neg_pnorm": lambda static: _around(rf"-\lVert · \rVert_{{{static['p']:g}}}"),
    "neg_power": lambda static: _around(rf"-\mathbf 1^\top (·)^{{{static['p']:g}}}"),
    "pnorm": lambda static: _around(rf"\lVert · \rVert_{{{static['p']:g}}}"),
    "pnorm_ball": lambda static: _ball(f"{{{static['p']:g}}}"),
    "power": _power_of,
    "radial": _radial,
    "sum_largest": _largest(r"(·)_{[i]}"),
}
"""Formulas that depend on static attributes."""

FUNCTIONS: dict[str, Function] = {
    "abs": _around(r"\lVert · \rVert_1"),
    "deadzone": lambda x, data: rf"\mathbf 1^\top \max(|{x[0]}| - {bound(data['m'], 1)}, 0)",
    "dotsort": lambda x, data: rf"\langle {bound(x, 2)}^\downarrow, {bound(data['w'], 2)}^\downarrow \rangle",
    "exp_cone": _around(r"\iota_{\mathcal K_{\exp}}(·)"),
    "fused_lasso": lambda x, data: rf"{_jumps(x, data)} + \langle {data['m'][0]}, |{x[0]}| \rangle",
    "hinges": _around(r"\operatorname{hinges}(·)"),
    "huber": _huber("·"),
    "inv_prod": _around(r"\textstyle\prod_i (·)_i^{-w_i}"),
    "kl_div": _around(r"\operatorname{kl}(·)"),
    "lambda_max": _around(r"\lambda_{\max}(·)"),
    "neg_geo_mean": _around(r"-\textstyle\prod_i (·)_i^{w_i}"),
    "neg_von_neumann_entr": _around(r"\operatorname{tr}(· \ln ·)", 2),
    "pow_cone": lambda x, data: rf"\iota_{{\mathcal K_{{{data['alpha'][0]}}}}}({x[0]})",
    "rel_entr": _around(r"\operatorname{rel\_entr}(·)"),
    "quad_over_lin": _around(r"\operatorname{quad\_over\_lin}(·)"),
    "sigma_max": _around(r"\sigma_{\max}(·)"),
    "soc": _around(r"\iota_{\mathcal K_2}(·)"),
    "sorted_l1": lambda x, data: rf"\langle |{x[0]}|^\downarrow, {bound(data['w'], 2)}^\downarrow \rangle",
    "square_pos": _around(r"\lVert \max(·, 0) \rVert^2"),
    "tr_inv": _around(r"\operatorname{tr} (·)^{-1}"),
    "tv": _jumps,
    "xexp": _around(r"\langle ·, e^{·} \rangle"),
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
"""Formulas of atoms without such attributes; an atom of another package is written as its name."""

SEVERAL: dict[str, Function] = {
    "norm2": _around(r"\lVert · \rVert_{2,1}"),
    "norm_inf": _around(r"\lVert · \rVert_{\infty,1}"),
    "log_sum_exp": _around(r"\mathbf 1^\top \ln \mathbf 1^\top e^{·}"),
    "max": _around(r"\mathbf 1^\top \max(·)"),
    "l2_ball": _ball(r"{2,\infty}"),
}
"""Along some axes, summed over the others (of sets: all of them)."""
