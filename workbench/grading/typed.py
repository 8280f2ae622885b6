"""What a reader types as an answer, as plain Python values; parsed, never evaluated."""

import ast
import operator
import re
from fractions import Fraction
from typing import Any

__all__ = ["LONGEST_TYPED", "Unreadable", "read_typed"]

LONGEST_TYPED = 20_000
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00b7": "*", "\u2018": "'", "\u2019": "'",
                        "\u201c": '"', "\u201d": '"', "\u00a0": " ", "^": "**"})  # fmt: skip
_BETWEEN = re.compile(r"(?<=[\w.\])}'\"])\s+(?=[-+.\w\[({'\"])")
_QUOTED = re.compile(r"(['\"])\s+(?=['\"])")  # Python would join the two
_WORDS = re.compile(r"[^\W\d_][\w' -]*")
# Names around a value where Python, NumPy or torch prints one.
_PRINTED = re.compile(r"(array|tensor|tuple|list|set|frozenset|bool_?|u?int\d*|b?float\d*|Decimal|Fraction)$")
_MOST_POWER, _LARGEST_BASE = 64, 10**6


class Unreadable(ValueError):
    """An answer that is not of the wanted kind; the message says in a sentence what was wanted and what came."""


def read_typed(text: str) -> Any:
    """Return what ``text`` says: a number, a word, or values in tuples, lists and sets of them.

    Numbers may be fractions, products and powers, such as ``1/4``, ``3 * 10**4`` and ``1e-3``. Values stand between
    commas or spaces, rows on lines of their own or between semicolons; what Python, NumPy and torch print is read, too.

    Parameters
    ----------
    text : at most LONGEST_TYPED characters.

    Raises
    ------
    Unreadable : it is empty, too long, in per cent, or none of these.
    """
    if len(text) > LONGEST_TYPED:
        raise Unreadable(f"Your answer has {len(text):,} characters; at most {LONGEST_TYPED:,} are read.")
    plain = _QUOTED.sub(r"\1, ", text.translate(_SIGNS).strip())
    if not plain:
        raise Unreadable("The answer is empty.")
    if "%" in plain:
        raise Unreadable("This is in per cent; answer with the number itself. A share is a number from 0 to 1.")
    lines = "\n" in plain and "[" not in plain
    for form in (plain, _rows(plain) if lines or ";" in plain else _BETWEEN.sub(", ", plain)):
        try:
            return _value(ast.parse(form, mode="eval").body)
        except Unreadable:
            raise
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, ArithmeticError):
            continue
    if _WORDS.fullmatch(plain):
        return plain
    raise Unreadable("This could not be read. Write numbers such as 0.25, 1/4 or 1e-3, with commas between several.")


def _rows(text):
    """Return lines, or what stands between semicolons, as rows in brackets; a row of one value as that value."""
    rows = [_BETWEEN.sub(", ", row.strip(" \t,")) for row in re.split(r"[\n;]", text) if row.strip(" \t,")]
    if all("," not in row for row in rows):
        return f"[{', '.join(rows)}]"
    return f"[{', '.join(row if row.startswith(('[', '(')) else f'[{row}]' for row in rows)}]"


def _value(node):
    match node:
        case ast.Constant(value=bool() | int() | float() | complex() | str() as value):
            return value
        case ast.Name(id=word):
            return word
        case ast.Attribute(attr="True_" | "False_" | "nan" | "inf" as word):  # as NumPy prints them
            return word.rstrip("_")
        case ast.Tuple(elts=parts):
            return tuple(map(_value, parts))
        case ast.List(elts=parts):
            return list(map(_value, parts))
        case ast.Set(elts=parts):
            return set(map(_value, parts))
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_number(part)
        case ast.UnaryOp(op=ast.UAdd(), operand=part):
            return _number(part)
        case ast.BinOp(left=left, op=ast.Div() | ast.Mult() | ast.Pow() as sign, right=right):
            return _ARITHMETIC[type(sign)](_number(left), _number(right))
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *more]) if _PRINTED.match(name):
            return _quotient(_number(first), _number(more[0])) if name == "Fraction" and more else _value(first)
    raise ValueError("not a value")


def _number(node):
    value = _value(node)
    if isinstance(value, bool) or not isinstance(value, (int, float, complex, Fraction)):
        raise ValueError("not a number")
    return value


def _quotient(a, b):
    if b == 0:
        raise Unreadable("This divides by zero.")
    exact = isinstance(a, (int, Fraction)) and isinstance(b, (int, Fraction))
    return Fraction(a, b) if exact else a / b


def _power(a, b):
    if abs(a) > _LARGEST_BASE or abs(b) > _MOST_POWER:
        raise Unreadable("This power is too large to be read; write the number itself, such as 1e12.")
    return _quotient(1, a**-b) if isinstance(a, int) and b < 0 else a**b


_ARITHMETIC = {ast.Div: _quotient, ast.Mult: operator.mul, ast.Pow: _power}
