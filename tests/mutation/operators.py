"""The faults: comparisons, arithmetic, constants, logic and statements, each changed in one place of a module."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
TWINS = {
    "min": "max", "minimum": "maximum", "amin": "amax", "any": "all", "floor": "ceil",
    "clamp_min": "clamp_max", "sum": "prod", "log": "log1p", "exp": "expm1", "sin": "cos", "zeros": "ones",
    "zeros_like": "ones_like",
}  # fmt: skip
TWINS |= {b: a for a, b in TWINS.items()}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: where it is, what stood there and what stands there now; the module with it is made on demand."""

    kind: str
    first: int
    last: int
    before: str
    after: str
    text: str
    position: int
    new: ast.AST

    @property
    def tree(self) -> ast.Module:
        """The module with the fault, its lines as they were."""
        module = ast.parse(self.text)
        old = next(islice(ast.walk(module), self.position, None))
        changed: ast.Module = _Replace(old, self.new).visit(module)
        return ast.fix_missing_locations(changed)

    @property
    def source(self) -> str:
        """The same as text."""
        return ast.unparse(self.tree) + "\n"


def mutants(text: str) -> Iterator[Mutant]:
    """Every fault that the operators know for a module's text."""
    tree = ast.parse(text)
    skipped = _skipped(tree)
    for position, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for kind, new in _faults(node):
            last = node.end_lineno or node.lineno
            yield Mutant(kind, node.lineno, last, _one_line(node), _one_line(new), text, position, new)


class _Replace(ast.NodeTransformer):
    """Puts `new` where `old` stands."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(left, [op, *more], right):
            for other in COMPARISONS[type(op)]:
                yield "comparison", ast.Compare(left, [other(), *more], right)
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.AugAssign(target, op, value) if type(op) in ARITHMETIC:
            yield "arithmetic", ast.AugAssign(target, ARITHMETIC[type(op)](), value)
            yield "removed statement", ast.Pass()
        case ast.UnaryOp(ast.USub(), operand):
            yield "arithmetic", operand
        case ast.UnaryOp(ast.Not(), operand):
            yield "boolean", operand
        case ast.BoolOp(op, values):
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Constant(bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield "constant", ast.Constant(value + 1)
            if value not in (0, 1):
                yield "constant", ast.Constant(value / 2 if isinstance(value, float) else value - 1)
        case ast.Attribute(value, name) if name in TWINS:
            yield "function", ast.Attribute(value, TWINS[name], ast.Load())
        case ast.Name(name, ast.Load()) if name in ("min", "max", "any", "all"):
            yield "function", ast.Name(TWINS[name], ast.Load())
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield "removed statement", ast.Pass()
        case ast.If(test, body, orelse):
            yield "removed statement", ast.If(test, [ast.Pass()], orelse)
        case ast.IfExp(_, body, orelse):
            yield "boolean", body
            yield "boolean", orelse
        case _:
            pass


def _skipped(tree: ast.Module) -> set[int]:
    """Ids of nodes that are no behaviour: annotations, aliases of types, decorators, texts of errors, and spellings.

    The spellings of an atom are the examples of its generated tests.
    """
    out: set[int] = set()
    for node in ast.walk(tree):
        dead: list[ast.AST | None] = []
        match node:
            case ast.FunctionDef(args=args):
                arguments = [*args.posonlyargs, *args.args, *args.kwonlyargs]
                dead = [node.returns, *node.decorator_list, *(a.annotation for a in arguments)]
            case ast.ClassDef():
                dead = [*node.decorator_list]
            case ast.AnnAssign():
                dead = [node.annotation]
            case ast.Call(func=ast.Name("Spelling")):
                dead = [node]
            case ast.Assert():
                dead = [node.msg]
            case ast.Raise():
                dead = [node.exc]
            case ast.Assign(value=ast.BinOp(op=ast.BitOr()) | ast.Subscript() as value):
                dead = [value]
            case _:
                pass
        out.update(id(n) for root in dead if root is not None for n in ast.walk(root))
    return out


def _one_line(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 100 else text[:97] + "..."
