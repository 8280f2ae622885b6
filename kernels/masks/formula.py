"""Attention masks from a formula in q and k, parsed by us and never evaluated as Python.

The vocabulary is that of mask functions: positions ``q`` and ``k`` (also ``q_idx``, ``kv_idx``), head ``h``, length
``t``; whole numbers; + - * // % and unary -; abs, min, max; comparisons (chains too); and, or, not (also & | ~).
"""

import ast
import operator

import numpy as np

from kernels.check import as_int

__all__ = ["mask_from_formula", "parse_formula"]

MAX_LENGTH = 300
MAX_NODES = 80
MAX_TOKENS, MAX_PAIRS = 2**20, 2**28
_NAMES = {"q": "q", "q_idx": "q", "k": "k", "kv_idx": "k", "h": "h", "t": "t"}
_ARITHMETIC = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
}
_LOGIC = {ast.BitAnd: np.logical_and, ast.BitOr: np.logical_or, ast.And: np.logical_and, ast.Or: np.logical_or}
_COMPARE = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS = {"abs": (np.abs, 1), "min": (np.minimum, 2), "max": (np.maximum, 2)}


def parse_formula(text: str):
    """Read a formula such as ``q >= k and q - k < 256 or k < 4``.

    Returns
    -------
    A function of (q, k, h, t), integer arrays that broadcast, to a bool array.

    Raises
    ------
    ValueError : too long, not understood, or not a condition; names the part.

    Source
    ------
    The vocabulary of ``mask_mod`` functions in block-sparse attention interfaces.
    """
    if not isinstance(text, str):
        raise TypeError(f"parse_formula: text must be a str such as 'q >= k', got {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"parse_formula: at most {MAX_LENGTH} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"parse_formula: not a formula: {text!r}; try 'q >= k and q - k < 256'") from None
    if sum(1 for _ in ast.walk(tree)) > 4 * MAX_NODES:
        raise ValueError("parse_formula: too many parts; keep it shorter")
    if _check(tree) != "condition":
        raise ValueError(f"parse_formula: {text!r} is a number, not a condition; compare it, as in 'q - k < 256'")
    return lambda q, k, h=0, t=0: np.asarray(_evaluate(tree, {"q": q, "k": k, "h": h, "t": t}), bool)


def mask_from_formula(text: str, t: int, *, head=0, rows=None) -> np.ndarray:
    """Return the mask of a formula, (t, t) bool, or only the given rows (an index array), (rows, t).

    Raises
    ------
    ValueError : as `parse_formula`, or a division by zero.

    Source
    ------
    See `parse_formula`.
    """
    name = "mask_from_formula"
    condition = parse_formula(text)
    t = as_int(t, function=name, name="t", low=0, high=MAX_TOKENS)
    head = as_int(head, function=name, name="head", low=0, high=2**31 - 1)
    rows = np.arange(t) if rows is None else np.asarray(rows)
    if rows.ndim != 1 or (rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= t)):
        raise ValueError(f"{name}: rows must be a one-dimensional array of ints from 0 to {t - 1}")
    if rows.size * t > MAX_PAIRS:
        raise ValueError(f"{name}: {rows.size} rows of {t} keys are too many to write out; ask for fewer rows")
    q = rows[:, None]
    with np.errstate(divide="raise"):
        try:
            found = condition(q, np.arange(t), head, t)
        except FloatingPointError:
            raise ValueError(f"mask_from_formula: {text!r} divides by zero") from None
    return np.broadcast_to(found, (q.shape[0], t)).copy()


def _check(node) -> str:
    """Return "number" or "condition"; raise ValueError for anything outside the vocabulary."""
    match node:
        case ast.Constant(value=bool()):
            return "condition"
        case ast.Constant(value=int(number)) if abs(number) < 2**31:
            return "number"
        case ast.Name(id=name) if name in _NAMES:
            return "number"
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            return _all(node, "number", "number", node.left, node.right)
        case ast.BinOp(op=op) if type(op) in _LOGIC:
            return _all(node, "condition", "condition", node.left, node.right)
        case ast.BoolOp():
            return _all(node, "condition", "condition", *node.values)
        case ast.UnaryOp(op=ast.USub()):
            return _all(node, "number", "number", node.operand)
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            return _all(node, "condition", "condition", node.operand)
        case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
            return _all(node, "condition", "number", node.left, *node.comparators)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if (
            name in _FUNCTIONS and len(node.args) == _FUNCTIONS[name][1]
        ):
            return _all(node, "number", "number", *node.args)
    names = "q, k, h, t, whole numbers, + - * // %, abs, min, max, comparisons, and, or, not"
    raise ValueError(f"parse_formula: {ast.unparse(node)!r} is not in the vocabulary: {names}")


def _all(node, result, wanted, *parts):
    for part in parts:
        if _check(part) != wanted:
            raise ValueError(f"parse_formula: {ast.unparse(part)!r} in {ast.unparse(node)!r} must be a {wanted}")
    return result


def _evaluate(node, names):
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[_NAMES[name]]
        case ast.BinOp(left=left, op=op, right=right):
            function = _ARITHMETIC.get(type(op)) or _LOGIC[type(op)]
            return function(_evaluate(left, names), _evaluate(right, names))
        case ast.BoolOp(op=op, values=[first, *rest]):
            found = _evaluate(first, names)
            for value in rest:
                found = _LOGIC[type(op)](found, _evaluate(value, names))
            return found
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluate(operand, names)
            return np.negative(value) if isinstance(op, ast.USub) else np.logical_not(value)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = [_evaluate(part, names) for part in (left, *comparators)]
            found = True
            for a, op, b in zip(values[:-1], ops, values[1:], strict=True):
                found = np.logical_and(found, _COMPARE[type(op)](a, b))
            return found
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name][0](*(_evaluate(arg, names) for arg in args))
