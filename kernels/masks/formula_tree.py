"""A mask formula as a tree of our own: Python's grammar reads it, nothing of it is ever run.

A part is a number or a condition, and knows where in the text it stands. ``&``, ``|``, ``^`` and ``~`` join two
conditions or two numbers, as in Python; ``and``, ``or``, chained comparisons and ``where`` look at their later parts
only where those decide, so a division by zero behind them counts nowhere else.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "MAX_PARTS", "NAMES", "FormulaError", "Part", "read_formula"]

MAX_LENGTH, MAX_PARTS, MAX_DEPTH = 1000, 200, 60
LARGEST, LARGEST_POWER = 2**63 - 1, 62
NAMES = {"q": "q", "q_idx": "q", "i": "q", "k": "k", "kv_idx": "k", "j": "k", "b": "b", "h": "h", "t": "t"}
_ARITHMETIC = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.LShift: "<<", ast.RShift: ">>",
}  # fmt: skip
_EITHER = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_FUNCTIONS = {
    "abs": "abs", "min": "min", "max": "max", "where": "where", "minimum": "min", "maximum": "max",
    "logical_and": "&", "logical_or": "|", "logical_xor": "^", "logical_not": "~",
}  # fmt: skip
_ONLY_TORCH = frozenset(_FUNCTIONS) - {"abs", "min", "max", "where"}
_ARGUMENTS = {"abs": (1, 1), "min": (2, 9), "max": (2, 9), "where": (3, 3), "~": (1, 1)}
VOCABULARY = (
    "q or q_idx or i (query), k or kv_idx or j (key), h (head), b (batch), t (tokens), whole numbers, + - * // % ** << "
    ">>, comparisons, and, or, not, & | ^ ~, abs, min, max, where"
)


class FormulaError(ValueError):
    """What is wrong with a formula, in a sentence that names the column.

    Parameters
    ----------
    function : the door that was called.
    words : the sentence for a reader who called none, without its full stop; kept as ``words``.
    more : what only the caller of a function is told, who sees no list of names beside the formula.
    """

    def __init__(self, function: str, words: str, more: str = ""):
        super().__init__(f"{function}: {words}{more}")
        self.words = words[0].upper() + words[1:]


@dataclass(frozen=True)
class Part:
    """One part of a formula.

    Parameters
    ----------
    sign : "number", "name", "truth", or what joins the parts, such as "+", "<", "&", "and", "where".
    parts : what it joins.
    value : of a number, a truth or a name.
    is_condition : whether it is true or false; a number otherwise.
    text, place : as it stands in the formula, and where, such as "column 3"; the first column is 1.
    """

    sign: str
    parts: tuple["Part", ...] = ()
    value: int | str = 0
    is_condition: bool = False
    text: str = ""
    place: str = ""

    def __iter__(self):
        """Go over this part and all that it is made of."""
        yield self
        for part in self.parts:
            yield from part


def read_formula(text: str, constants: Mapping[str, int], *, function: str) -> tuple[Part, tuple[str, ...]]:
    """Return a formula's condition, and remarks on what a reader may not have meant.

    Raises
    ------
    FormulaError : too long, not understood, or no condition.
    """
    if len(text) > MAX_LENGTH:
        raise FormulaError(function, f"a formula has at most {MAX_LENGTH:,} characters, got {len(text):,}")
    reader = _Reader(text, constants, function)
    tree, names = reader.condition_of()
    parts = sum(isinstance(node, (ast.expr, ast.cmpop)) for node in ast.walk(tree))
    if parts > MAX_PARTS or _depth(tree) > MAX_DEPTH:
        raise FormulaError(
            function, f"the formula has {parts} parts and is {_depth(tree)} deep; at most {MAX_PARTS} and {MAX_DEPTH}"
        )
    found = reader.part(tree, names)
    if not found.is_condition:
        raise reader.error(tree, f"{found.text!r} is a number, not a condition; compare it, as in 'q - k < 256'")
    return found, tuple(reader.remarks)


def _depth(tree) -> int:
    deepest, level = 0, [tree]
    while level and deepest <= MAX_DEPTH:
        deepest, level = deepest + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return deepest


class _Reader:
    """Turns one text into parts; holds what its error messages quote."""

    def __init__(self, text, constants, function):
        self.function, self.constants, self.remarks = function, constants, []
        self.text = text.replace("\t", " ").strip()
        self.lines = self.text.splitlines() or [""]

    def error(self, node, words, more=""):
        return FormulaError(self.function, f"at {self._place(node)}, {words}", more)

    def _place(self, node):
        line = f"line {node.lineno}, " if len(self.lines) > 1 else ""
        before = self.lines[node.lineno - 1].encode()[: node.col_offset].decode()
        return f"{line}column {len(before) + 1}"

    def condition_of(self):
        """Return the expression, and the names that it may use: of a lambda its body and its four arguments."""
        try:
            statements = ast.parse(self.text).body
        except SyntaxError as error:
            line = f"line {error.lineno}, " if len(self.lines) > 1 else ""
            place = f"at {line}column {error.offset}, " if error.offset else ""
            cure = "put a condition of several lines in brackets; try 'q >= k and q - k < 256'"
            raise FormulaError(self.function, f"{place}this is not a formula: {error.msg}; {cure}") from None
        except (ValueError, MemoryError, RecursionError):
            raise FormulaError(self.function, "this is not a formula; try 'q >= k and q - k < 256'") from None
        if len(statements) != 1:
            told = f"there are {len(statements)} statements" if statements else "there is none"
            raise FormulaError(self.function, f"write one condition, such as 'q >= k'; {told}, not a formula")
        statement = statements[0]
        if isinstance(statement, ast.FunctionDef | ast.Return):
            raise self.error(statement, "a def is not read; write the condition after its return, or a lambda")
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
            statement = ast.Expr(statement.value)
        if not isinstance(statement, ast.Expr):
            raise self.error(statement, "this is not a formula but a statement; write the condition alone")
        tree = statement.value
        return (tree.body, self._arguments(tree)) if isinstance(tree, ast.Lambda) else (tree, NAMES)

    def _arguments(self, tree):
        given = tree.args
        names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
        if len(set(names)) != 4 or given.vararg or given.kwarg or given.kwonlyargs or given.defaults:
            raise self.error(tree, "a lambda takes four arguments: b, h, q_idx, kv_idx")
        return {"t": "t"} | dict(zip(names, "bhqk", strict=True))

    # Parts ------------------------------------------------------------------------------------------------------------
    def part(self, node, names) -> Part:
        match node:
            case ast.Constant(value=bool(value)):
                return self._made(node, "truth", value=value, is_condition=True)
            case ast.Constant(value=int(value)):
                return self._number(node, value)
            case ast.Name(id=name) if name in names:
                return self._made(node, "name", value=names[name])
            case ast.Name(id=name) if name in self.constants:
                return self._number(node, self.constants[name])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                sign = _ARITHMETIC[type(op)]
                parts = self._all(node, False, names, left, right)
                times = parts[1].value if parts[1].sign == "number" else 0
                if sign in ("**", "<<") and isinstance(times, int) and times > LARGEST_POWER:
                    raise self.error(right, f"powers and shifts go up to {LARGEST_POWER}, got {times}")
                return self._made(node, sign, parts)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _EITHER:
                return self._either(node, _EITHER[type(op)], names, left, right)
            case ast.BoolOp(op=op, values=values):
                sign = "and" if isinstance(op, ast.And) else "or"
                return self._made(node, sign, self._all(node, True, names, *values), is_condition=True)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                sign = "negative" if isinstance(op, ast.USub) else "positive"
                return self._made(node, sign, self._all(node, False, names, operand))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._made(node, "not", self._all(node, True, names, operand), is_condition=True)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return self._either(node, "~", names, operand)
            case ast.Compare(ops=ops) if all(type(op) in _COMPARE for op in ops):
                return self._comparison(node, names)
            case ast.Call(func=func, args=args, keywords=[]) if (name := self._function(func)) is not None:
                return self._call(node, name, args, names)
        more = f"; a formula may use {VOCABULARY}"
        raise self.error(node, f"{self._quoted(node)} is {self._refusal(node)}", more)

    def _number(self, node, value):
        if abs(value) > LARGEST:
            raise self.error(node, f"{self._quoted(node)} is too large; numbers go up to 2^63 - 1")
        return self._made(node, "number", value=value)

    def _either(self, node, sign, names, *operands):
        """``&``, ``|``, ``^`` and ``~``: of conditions, or bit by bit of numbers."""
        parts = [self.part(operand, names) for operand in operands]
        kinds = {part.is_condition for part in parts}
        if len(kinds) > 1:
            odd = next(part for part in parts if not part.is_condition)
            raise self.error(
                node,
                f"{sign!r} joins a condition and the number {odd.text!r}; it binds tighter than a comparison, so put "
                f"brackets round every comparison beside it, as in '(q >= k) {sign} (q - k < 4)'",
            )
        return self._made(
            node, "not" if sign == "~" and True in kinds else sign, tuple(parts), is_condition=True in kinds
        )

    def _comparison(self, node, names):
        values = self._all(node, False, names, node.left, *node.comparators)
        for operand in (node.left, *node.comparators):
            if isinstance(operand, ast.BinOp) and type(operand.op) in _EITHER and not self._in_brackets(operand):
                sign = _EITHER[type(operand.op)]
                self.remarks.append(
                    f"At {self._place(operand)}, {sign!r} binds tighter than a comparison, as in Python, so "
                    f"'{self._source(operand)}' is one number here. If you meant two conditions, put brackets round "
                    f"each comparison, as in '(q >= k) {sign} (q - k < 4)'."
                )
        pairs = zip(values[:-1], node.ops, values[1:], strict=True)
        links = tuple(self._made(node, _COMPARE[type(op)], (a, b), is_condition=True) for a, op, b in pairs)
        return links[0] if len(links) == 1 else self._made(node, "and", links, is_condition=True)

    def _call(self, node, name, args, names):
        low, high = _ARGUMENTS.get(name, (2, 2))
        if not low <= len(args) <= high:
            wanted = f"{low}" if low == high else f"{low} to {high}"
            raise self.error(node, f"{self._quoted(node)} takes {wanted} arguments, got {len(args)}")
        if name in _EITHER.values() or name == "~":
            parts = self._all(node, True, names, *args)
            return self._made(node, "not" if name == "~" else name, parts, is_condition=True)
        if name != "where":
            return self._made(node, name, self._all(node, False, names, *args))
        (asked,) = self._all(node, True, names, args[0])
        parts = [self.part(arg, names) for arg in args[1:]]
        if parts[0].is_condition != parts[1].is_condition:
            raise self.error(
                node, "where takes two numbers or two conditions after its first condition, not one of each"
            )
        return self._made(node, "where", (asked, *parts), is_condition=parts[0].is_condition)

    @staticmethod
    def _function(func):
        match func:
            case ast.Name(id=name) if name in _FUNCTIONS and name not in _ONLY_TORCH:
                return _FUNCTIONS[name]
            case ast.Attribute(value=ast.Name(id="torch" | "np" | "numpy"), attr=name) if name in _FUNCTIONS:
                return _FUNCTIONS[name]
        return None

    def _all(self, node, condition, names, *operands):
        parts = tuple(self.part(operand, names) for operand in operands)
        for operand, part in zip(operands, parts, strict=True):
            if part.is_condition != condition:
                wanted, got = ("a condition", "a number") if condition else ("a number", "a condition")
                cure = "compare it, as in 'q - k < 256'" if condition else "or join conditions with and, or, not"
                raise self.error(
                    operand,
                    f"{part.text!r} in {self._quoted(node)} must be {wanted}, it is {got}; {cure}",
                )
        return parts

    # Words ------------------------------------------------------------------------------------------------------------
    def _made(self, node, sign, parts=(), *, value=0, is_condition=False):
        return Part(sign, tuple(parts), value, is_condition, self._source(node), self._place(node))

    def _source(self, node):
        return " ".join((ast.get_source_segment(self.text, node) or ast.unparse(node)).split())

    def _quoted(self, node):
        text = self._source(node)
        return repr(text if len(text) <= 60 else text[:57] + "...")

    def _in_brackets(self, node):
        lines = [line.encode() for line in self.lines]
        before = b"\n".join([*lines[: node.lineno - 1], lines[node.lineno - 1][: node.col_offset]]).rstrip()
        after = lines[node.end_lineno - 1][node.end_col_offset :]
        after = b"\n".join([after, *lines[node.end_lineno :]]).lstrip()
        return before.endswith(b"(") and after.startswith(b")")

    @staticmethod
    def _refusal(node):
        match node:
            case ast.Subscript():
                return "read from an array: a mask that depends on data is not in the vocabulary"
            case ast.Name():
                return "a name without a value, so not in the vocabulary"
            case ast.BinOp(op=ast.Div()):
                return "a division with a fraction, which is not in the vocabulary: // divides and rounds down"
            case ast.Constant():
                return "not a whole number, so not in the vocabulary"
        return "not in the vocabulary"
