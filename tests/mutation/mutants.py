"""Small faults that a test ought to notice: one changed operator, number, condition or statement in a source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_CALLED = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "floor": "ceil",
    "ceil": "floor",
    "any": "all",
    "all": "any",
}


@dataclass(frozen=True)
class Mutant:
    """``source``: the whole module with one piece ``before`` changed to ``after`` at ``line``; ``inside``: that line is within a function."""

    line: int
    before: str
    after: str
    source: str
    inside: bool


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    raw = source.encode()
    found = []
    for node, new, inside in _changed(ast.parse(source)):
        lo = starts[node.lineno - 1] + node.col_offset
        hi = starts[node.end_lineno - 1] + node.end_col_offset
        text = new if isinstance(new, str) else f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
        text = text.replace("\n", " ")
        made = (raw[:lo] + text.encode() + raw[hi:]).decode()
        try:
            ast.parse(made)
        except SyntaxError:  # in a place where no expression in brackets can stand
            continue
        found.append(Mutant(node.lineno, raw[lo:hi].decode(), text, made, inside))
    return sorted(found, key=lambda m: (m.line, m.before, m.after))


def _changed(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, ast.AST | str, bool]]:
    """(node, what takes its place, whether in a function)."""
    for field, child in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases", "keywords_of_class"):
            continue
        for node in child if isinstance(child, list) else [child]:
            if not isinstance(node, ast.AST) or _aside(node):
                continue
            within = inside or isinstance(node, ast.FunctionDef | ast.Lambda)
            if hasattr(node, "lineno"):
                for new in _instead(node):
                    yield node, new, within
            yield from _changed(node, within)


def _aside(node: ast.AST) -> bool:
    """Messages, imports, declarations: no test should depend on how they are worded."""
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _instead(node: ast.AST) -> Iterator[ast.AST | str]:
    match node:
        case ast.Compare(left, [op, *more], values) if type(op) in _COMPARED:
            yield ast.Compare(left, [_COMPARED[type(op)](), *more], values)
        case ast.BinOp(left, op, right) if (
            type(op) in _COMPUTED and not _is_text(left) and not _is_text(right) and not _is_type(node)
        ):
            yield ast.BinOp(left, _COMPUTED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.AugAssign(target, op, value) if type(op) in _COMPUTED:
            yield ast.AugAssign(target, _COMPUTED[type(op)](), value)
            yield "pass"
        case ast.Expr(ast.Call()):
            yield "pass"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"
        case ast.Call(ast.Name(name), args, keywords) if name in _CALLED and args:
            yield ast.Call(ast.Name(_CALLED[name]), args, keywords)
        case ast.Call(ast.Attribute(of, name), args, keywords) if name in _CALLED and args:
            yield ast.Call(ast.Attribute(of, _CALLED[name]), args, keywords)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_type(node: ast.BinOp) -> bool:
    """``int | None``."""
    return isinstance(node.op, ast.BitOr) and "None" in ast.unparse(node)
