"""How far a method must prune to meet a budget of stored bytes: counted exactly, before any weight is looked at."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from kernels.check import as_int, as_ints, as_number
from kernels.formats.storage import dense_bits
from workbench.explorers.pruning.method import VALUE_BITS, PruningMethod, method

__all__ = ["levels_within", "solve_budget", "stored_ratio"]

GROUPS = (4, 8, 16)  # m of n:m
DIGITS = 12  # of a share: a matrix of 10^11 weights still has its every count
Shape = tuple[int, int]


def solve_budget(
    key: str,
    shape: Shape | Sequence[Shape],
    target_ratio: float,
    value_bits: int = VALUE_BITS,
    *,
    with_indices: bool = True,
) -> str:
    """Return the level at which a method stores as many bytes as a budget holds, and no more.

    Parameters
    ----------
    key : a method of the explorer, such as "wanda".
    shape : (m, n), or the shapes of several matrices that are pruned to the same level.
    target_ratio : of the bytes of the dense matrices with values of as many bits, in (0, 1].
    value_bits : of a stored value, from 1 to 64.
    with_indices : whether the bytes that say where the kept weights are count.

    Returns
    -------
    What the method takes as its level: the least share of the weights that must go, in as few digits as name it, n:m
    with m of 4, 8 or 16, or one of the levels that it offers. Any level that keeps more exceeds the budget. Of several
    n:m of equal bytes it is the one with the smallest m.

    Raises
    ------
    KeyError : no such method.
    TypeError, ValueError : arguments out of range, shapes that the method's pattern does not divide, or a budget that
        it cannot meet; the message names the smallest ratio that it can.

    Examples
    --------
    ``solve_budget("magnitude", (384, 384), 0.5625)`` returns "0.5": half of the values, and a bit for every place.
    """
    name, by = "solve_budget", method(key)
    shapes = _shapes(shape)
    target = as_number(target_ratio, function=name, name="target_ratio", above=0, high=1)
    value_bits = as_int(value_bits, function=name, name="value_bits", low=1, high=64)
    found, least = _nearest(by, shapes, target, value_bits, with_indices)
    if found is None:
        raise ValueError(
            f"{name}: target_ratio={target_ratio} is less than {key} can reach; its smallest is {float(least):.6g}"
        )
    return found


def levels_within(key: str, shapes: Sequence[Shape], budgets: Iterable[float]) -> list[str]:
    """Return the levels of `solve_budget` at those budgets that a method can meet, each level once.

    Parameters
    ----------
    key, shapes : as for `solve_budget`.
    budgets : shares of the dense bytes, each in (0, 1].
    """
    found = (_nearest(method(key), shapes, budget, VALUE_BITS, True)[0] for budget in budgets)
    return list(dict.fromkeys(level for level in found if level is not None))


def stored_ratio(
    by: PruningMethod, shapes: Iterable[Shape], level: str, value_bits: int = VALUE_BITS, *, with_indices: bool = True
) -> Fraction:
    """Return the stored bits of matrices pruned to a level, over those of the dense ones: an exact fraction.

    Parameters
    ----------
    by : a method.
    shapes, value_bits, with_indices : as for `solve_budget`.

    Raises
    ------
    ValueError : a level that the method refuses, shapes its pattern does not divide, or a method that cannot count.
    """
    if by.count is None:
        raise ValueError(f"{by.key}: what it stores is not known before it prunes; give it a level")
    stored = dense = 0
    for shape in shapes:
        stored += sum(bits for kind, bits in by.count(shape, level, value_bits).items()
                      if with_indices or kind != "indices")  # fmt: skip
        dense += dense_bits(shape, value_bits=value_bits)
    return Fraction(stored, dense)


def _nearest(by, shapes, target, value_bits, with_indices):
    """Return the level that is nearest below a budget, None where none is, and the smallest ratio of all."""
    most = Fraction(str(target))  # the number that was written, not the nearest one in binary

    def ratio(level):
        return stored_ratio(by, shapes, level, value_bits, with_indices=with_indices)

    if by.ladder == "share":
        return _share(ratio, most)
    levels = _n_of_m(shapes) if by.ladder == "n:m" else by.levels
    return _largest({level: ratio(level) for level in levels}, most)


def _shapes(shape) -> list[Shape]:
    several = list(shape)
    each = several if several and hasattr(several[0], "__len__") else [several]
    sides = (as_ints(one, 2, function="solve_budget", name="shape (m, n)", low=1) for one in each)
    return [(m, n) for m, n in sides]


def _share(ratio, most):
    """Return the least share that fits, None where none does, and the ratio of the largest share."""

    def level(k, digits=DIGITS):
        return f"{k / 10**digits:.{digits}f}".rstrip("0").rstrip(".")

    low, high = 0, 10**DIGITS - 1
    least = ratio(level(high))
    if least > most:
        return None, least
    while low < high:  # the ratio never rises with the share
        middle = (low + high) // 2
        low, high = (low, middle) if ratio(level(middle)) <= most else (middle + 1, high)
    wanted = ratio(level(low))
    for digits in range(DIGITS + 1):
        short = level(-(-low // 10 ** (DIGITS - digits)), digits)
        if short != "1" and ratio(short) == wanted:
            return short, least
    raise AssertionError("all digits name the share itself")


def _n_of_m(shapes):
    """Return every n:m that divides the shapes, the smallest m first."""
    columns = {shape[1] for shape in shapes}
    groups = [m for m in GROUPS if not any(n % m for n in columns)]
    if not groups:
        found = ", ".join(map(str, sorted(columns)))
        raise ValueError(f"solve_budget: shape must have columns that are multiples of {GROUPS[0]}, got {found}")
    return [f"{n}:{m}" for m in groups for n in range(1, m + 1)]


def _largest(found, most):
    """Return the level of the largest ratio that fits, None where none does, and the smallest ratio of all."""
    fitting = [level for level in found if found[level] <= most]
    return max(fitting, key=lambda level: found[level], default=None), min(found.values())
