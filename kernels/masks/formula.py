"""Attention masks from a formula in the positions of query and key, such as a ``mask_mod``: read, never run.

A formula is a condition such as ``q >= k and q - k < 256``, or the lambda that FlexAttention takes,
``lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < 256)``. It may use

- positions: ``q``, ``q_idx`` or ``i`` of the query; ``k``, ``kv_idx`` or ``j`` of the key; head ``h``, batch ``b``,
  tokens ``t``; names of constants that are given with it;
- whole numbers, ``+ - * // % ** << >>``, ``abs``, ``min``, ``max``; ``& | ^ ~`` bit by bit;
- comparisons, chained ones too; ``and``, ``or``, ``not``, ``& | ^ ~``, ``True``, ``False``;
- ``where(condition, a, b)``, and torch's names of the same: ``torch.where``, ``torch.abs``, ``torch.minimum``,
  ``torch.maximum``, ``torch.logical_and`` and so on.

Order of operations, rounding of ``//`` and sign of ``%`` are Python's. Numbers never wrap: one beyond 64 bits is an
error, and so is a division by zero, unless ``and``, ``or`` or ``where`` keeps its result from mattering.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kernels.cancel import check_cancelled
from kernels.check import as_int
from kernels.masks.formula_bounds import bounds_of
from kernels.masks.formula_tree import LARGEST, NAMES, FormulaError, Part, read_formula
from kernels.masks.formula_values import value_at

__all__ = ["FormulaError", "MaskFormula", "formula_pairs", "mask_from_formula", "parse_formula"]

MAX_TOKENS, MAX_PAIRS, MAX_BLOCKS = 2**20, 2**28, 2**24
AT_ONCE = 2**16  # pairs whose numbers stay in a core's cache
BLOCKS_AT_ONCE = 2**18
EXACT_COSTS = 200  # a step of Python's integers, in steps of a machine's
_QUERY, _KEY = Part("name", value="q", text="q"), Part("name", value="k", text="k")
_PAST = Part("<=", (_KEY, _QUERY), is_condition=True, text="k <= q")


@dataclass(frozen=True)
class MaskFormula:
    """A formula that was read: call it with positions to learn which pairs it keeps.

    Parameters
    ----------
    text : as it was given.
    condition : what it says.
    remarks : sentences on what its author may not have meant; empty for most.
    """

    text: str
    condition: Part
    remarks: tuple[str, ...]

    def __call__(self, q, k, h=0, t=0, *, b=0) -> np.ndarray:
        """Return whether query q may see key k, bool of the shape to which the integer arrays q and k broadcast."""
        shape = np.broadcast_shapes(np.shape(q), np.shape(k))
        q, k = np.atleast_1d(q), np.atleast_1d(k)
        numbers = {"h": h, "t": t, "b": b}
        ends = {name: (int(at.min(initial=0)), int(at.max(initial=0))) for name, at in (("q", q), ("k", k))}
        dtype = _dtype(self.condition, ends, numbers)
        found = value_at(self.condition, _places(q, k, numbers, dtype), function="parse_formula")
        return np.broadcast_to(found, np.broadcast_shapes(q.shape, k.shape)).reshape(shape)

    def reads(self, name: str) -> bool:
        """Tell whether the formula uses "q", "k", "h", "b" or "t"."""
        return any(part.sign == "name" and part.value == name for part in self.condition)


def parse_formula(text: str, *, constants: Mapping[str, int] | None = None) -> MaskFormula:
    """Read a formula; the module says what it may hold.

    Parameters
    ----------
    text : a condition, or a lambda of b, h, q_idx, kv_idx; at most 1,000 characters, 200 parts, 60 deep.
    constants : further names and the whole numbers that they stand for.

    Raises
    ------
    FormulaError : a ValueError; too long, not understood, or not a condition; names the part and its column.
    TypeError : text is no str, or a constant is no integer.

    Source
    ------
    The vocabulary of ``mask_mod`` functions in block-sparse attention interfaces.
    """
    return _read("parse_formula", text, constants)


def mask_from_formula(
    text: str, t: int, *, head=0, batch=0, rows=None, constants: Mapping[str, int] | None = None
) -> np.ndarray:
    """Return the mask of a formula, (t, t) bool, or only the given rows (an index array), (rows, t).

    Parameters
    ----------
    text, constants : as `parse_formula`.
    head, batch : what ``h`` and ``b`` are.

    Raises
    ------
    FormulaError : as `parse_formula`; or a division by zero, a negative power or a number beyond 64 bits, with the
        pair where it happens.
    ValueError : more pairs than 2^28, or rows out of range.

    Source
    ------
    See `parse_formula`.
    """
    name = "mask_from_formula"
    formula = _read(name, text, constants)
    t, numbers = _numbers(name, t, head, batch)
    rows = np.arange(t) if rows is None else np.asarray(rows)
    if rows.ndim != 1 or (rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= t)):
        raise ValueError(f"{name}: rows must be a one-dimensional array of ints from 0 to {t - 1}")
    if rows.size * t > MAX_PAIRS:
        raise ValueError(
            f"{name}: {rows.size} rows of {t} keys are too many to write out; ask for fewer rows, or for their number "
            "in every block (formula_pairs)"
        )
    dtype = _dtype(formula.condition, {"q": (0, max(t - 1, 0)), "k": (0, max(t - 1, 0))}, numbers)
    mask, keys = np.empty((len(rows), t), bool), np.arange(t)
    step = max(1, AT_ONCE // max(t, 1))
    for first in range(0, len(rows), step):
        check_cancelled()
        part = slice(first, first + step)
        mask[part] = value_at(formula.condition, _places(rows[part, None], keys, numbers, dtype), function=name)
    return mask


def formula_pairs(
    text: str,
    t: int,
    *,
    block_size,
    head=0,
    batch=0,
    causal=False,
    ahead=False,
    most_steps=None,
    constants: Mapping[str, int] | None = None,
) -> np.ndarray:
    """Count the pairs that a formula keeps in every block; nothing of the size of all pairs is made.

    Blocks that a formula keeps or drops whole are told by bounds of its parts; only the others are looked into, a few
    at a time. A thread that listens to a cancelled token (`kernels.cancel`) is left soon.

    Parameters
    ----------
    text, constants : as `parse_formula`.
    t, block_size : tokens, and tokens per block; at most 2^24 blocks.
    head, batch : what ``h`` and ``b`` are.
    causal : count only keys at a query's own position or before.
    ahead : count only keys after a query's position, which is what ``causal`` leaves out.
    most_steps : refuse a formula that takes more steps (a part of it at a pair), before any is made; None means no
        limit.

    Returns
    -------
    (n, n) int64, n = ceil(t / block_size): 0 of an empty block, all its pairs of a full one.

    Raises
    ------
    FormulaError : as `mask_from_formula`. ValueError : too many blocks or steps, or causal and ahead together.

    Cost
    ----
    Parts of the formula times the pairs of the blocks that are neither full nor empty for certain.

    Source
    ------
    See `parse_formula`.
    """
    name = "formula_pairs"
    condition = _read(name, text, constants).condition
    t, numbers = _numbers(name, t, head, batch)
    block_size = min(as_int(block_size, function=name, name="block_size", low=1), max(t, 1))
    blocks = -(-t // block_size)
    if blocks**2 > MAX_BLOCKS:
        raise ValueError(
            f"{name}: {t:,} tokens in blocks of {block_size} make {blocks**2:,} blocks; take larger blocks"
        )
    if causal and ahead:
        raise ValueError(f"{name}: causal and ahead together leave no pair; take one of them")
    if causal or ahead:
        past = _PAST if causal else Part("not", (_PAST,), is_condition=True)
        condition = Part("and", (past, condition), is_condition=True)
    dtype = _dtype(condition, {"q": (0, max(t - 1, 0)), "k": (0, max(t - 1, 0))}, numbers)
    counts, unsure = _certain(condition, t, block_size, numbers, exact=dtype.kind == "O")
    steps = int(unsure.sum()) * block_size**2 * sum(1 for _ in condition) * (EXACT_COSTS if dtype.kind == "O" else 1)
    if most_steps is not None and steps > as_int(most_steps, function=name, name="most_steps", low=0):
        raise ValueError(
            f"{name}: {int(unsure.sum()):,} of {blocks**2:,} blocks have to be looked into pair by pair, which takes "
            f"{steps:,} steps; at most {most_steps:,} are made here, so take fewer tokens or a shorter formula"
        )
    for row in np.flatnonzero(unsure.any(axis=1)):
        _look_into(counts[row], np.flatnonzero(unsure[row]), row, condition, t, block_size, numbers, dtype)
    return counts


def _read(function, text, constants) -> MaskFormula:
    if not isinstance(text, str):
        raise TypeError(f"{function}: text must be a str such as 'q >= k', got {type(text).__name__}")
    if constants is not None and not isinstance(constants, Mapping):
        raise TypeError(f"{function}: constants must map names to whole numbers, got {type(constants).__name__}")
    numbers = {}
    for name, value in (constants or {}).items():
        if not isinstance(name, str) or not name.isidentifier() or name in NAMES:
            raise ValueError(f"{function}: constants has the name {name!r}; take a word that stands for nothing else")
        numbers[name] = as_int(value, function=function, name=f"constants[{name!r}]", low=-LARGEST, high=LARGEST)
    return MaskFormula(text, *read_formula(text, numbers, function=function))


def _numbers(function, t, head, batch):
    t = as_int(t, function=function, name="t", low=0, high=MAX_TOKENS)
    head, batch = (
        as_int(value, function=function, name=name, low=0, high=2**31 - 1)
        for name, value in (("head", head), ("batch", batch))
    )
    return t, {"h": head, "b": batch, "t": t}


def _dtype(condition, ends, numbers):
    """Return the smallest kind of integer that holds every number of a formula for certain."""
    places = {name: tuple(np.array([end], object) for end in pair) for name, pair in ends.items()}
    places |= {name: (np.array([value], object),) * 2 for name, value in numbers.items()}
    peak = bounds_of(condition, places).peak
    return np.dtype(np.int32 if peak < 2**31 else np.int64 if peak <= LARGEST else object)


def _places(q, k, numbers, dtype):
    return {"q": q.astype(dtype), "k": k.astype(dtype)} | {
        name: np.asarray(value, dtype) for name, value in numbers.items()
    }


def _certain(condition, t, block_size, numbers, *, exact):
    """Return the pairs of the blocks that are full for certain, and which blocks are neither full nor empty."""
    first = np.arange(0, t, block_size)
    last = np.minimum(first + block_size, t) - 1
    inside = last - first + 1
    counts, unsure = np.zeros((len(first),) * 2, np.int64), np.ones((len(first),) * 2, bool)
    if exact:
        return counts, unsure
    step = max(1, BLOCKS_AT_ONCE // max(len(first), 1))
    for start in range(0, len(first), step):
        check_cancelled()
        rows = slice(start, start + step)
        places = {"q": (first[rows, None], last[rows, None]), "k": (first, last)}
        places |= {name: (np.int64(value),) * 2 for name, value in numbers.items()}
        found = bounds_of(condition, places)
        counts[rows] = found.always * inside[rows, None] * inside
        unsure[rows] = ~(found.always | found.never)
    return counts, unsure


def _look_into(counts, columns, row, condition, t, block_size, numbers, dtype):
    """Count pair by pair in some blocks of one row of blocks."""
    queries = np.arange(row * block_size, min((row + 1) * block_size, t))[:, None]
    step = max(1, AT_ONCE // (len(queries) * block_size))
    for start in range(0, len(columns), step):
        check_cancelled()
        some = columns[start : start + step]
        keys = (some[:, None] * block_size + np.arange(block_size)).ravel()
        places = _places(queries, np.minimum(keys, t - 1), numbers, dtype)
        found = value_at(condition, places, function="formula_pairs")
        kept = np.broadcast_to(found, (len(queries), len(keys))).sum(axis=0) * (keys < t)
        counts[some] = kept.reshape(len(some), block_size).sum(axis=1)
