"""How a claim's judge compares numbers: never by the last digits, which differ from one CPU to the next.

Numbers within the margin of each other are equal: equal numbers are never above or below, and always at least and at
most. Counts (whole numbers) need none of this; judges compare them with plain operators. Where chance plays a part, a
judge asks for the `difference` of what was drawn and whether one side is `clearly_above` the other.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from workbench.paper import Judged, Verdict

__all__ = [
    "Difference",
    "above",
    "at_least",
    "at_most",
    "below",
    "clearly_above",
    "difference",
    "falling",
    "fitted",
    "growth_exponent",
    "of_seeds",
    "rising",
    "undecided",
    "verdict",
]

RELATIVE = 1e-6  # of the larger: records keep six digits, and sums in float32 agree to about as many between CPUs
ABSOLUTE = 1e-14  # around zero: what float64 leaves of the difference of two equal sums near one


def above(a: float, b: float) -> bool:
    """Tell whether a is larger than b by more than the margin; never true of NaN."""
    return a > b and not _equal(a, b)


def below(a: float, b: float) -> bool:
    """Tell whether a is smaller than b by more than the margin; never true of NaN."""
    return above(b, a)


def at_least(a: float, b: float) -> bool:
    """Tell whether a is larger than b, equal, or smaller by no more than the margin; never true of NaN."""
    return bool(a >= b) or _equal(a, b)


def at_most(a: float, b: float) -> bool:
    """Tell whether a is smaller than b, equal, or larger by no more than the margin; never true of NaN."""
    return at_least(b, a)


def rising(values: Iterable[float]) -> bool:
    """Tell whether each value is above the one before."""
    return all(above(after, before) for before, after in pairwise(values))


def falling(values: Iterable[float]) -> bool:
    """Tell whether each value is below the one before."""
    return all(below(after, before) for before, after in pairwise(values))


@dataclass(frozen=True)
class Difference:
    """The means of two sides, and the standard error of their difference; None if each side was drawn only once."""

    ours: float
    theirs: float
    error: float | None

    @property
    def mean(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs

    def said(self, digits: int, scale: float = 1.0, once: str = "one seed") -> str:
        """Return the difference with sign and error, times ``scale``; ``once`` stands where there is no error."""
        shown = f"{scale * self.mean:+.{digits}f}"
        return f"{shown} ({once})" if self.error is None else f"{shown} ± {scale * self.error:.{digits}f}"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return ours minus theirs with its standard error.

    Parameters
    ----------
    ours, theirs : values over seeds, heads or texts. Equally many are pairs, in the same order; one value on a side is
        a constant; otherwise the two sides were drawn apart and their errors add as squares.

    Raises
    ------
    LookupError : a side without values.
    """
    ours, theirs = list(ours), list(theirs)
    if not ours or not theirs:
        raise LookupError(f"difference: needs a value on each side, got {len(ours)} and {len(theirs)}")
    if len(ours) == len(theirs):
        error = _standard_error([a - b for a, b in zip(ours, theirs, strict=True)])
    else:
        error = math.hypot(*(_standard_error(side) for side in (ours, theirs) if len(side) > 1))
    return Difference(fmean(ours), fmean(theirs), error)


def clearly_above(lead: Difference) -> bool:
    """Tell whether ours is above theirs by more than the margin and twice the standard error, if there is one."""
    return above(lead.ours, lead.theirs + 2 * (lead.error or 0.0))


def of_seeds(drawn: Sequence[float]) -> str:
    """Return in words what a mean was taken over: "one seed", or "mean of 3 seeds"."""
    return "one seed" if len(drawn) == 1 else f"mean of {len(drawn)} seeds"


def growth_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent e of value ~ size^e: the slope of log value over log size, least squares.

    Parameters
    ----------
    sizes, values : equally many numbers, all > 0; sizes in any order.

    Returns
    -------
    The slope, rounded to nine decimals, so that an exact power gives exactly its exponent.

    Raises
    ------
    LookupError : fewer than two different sizes.
    ValueError : a number is not positive and finite, or there are not as many values as sizes.
    """
    sizes, values = list(sizes), list(values)
    if len(sizes) != len(values):
        raise ValueError(f"growth_exponent: needs one value per size, got {len(values)} for {len(sizes)} sizes")
    for x in (*sizes, *values):
        if not 0 < x < math.inf:
            raise ValueError(f"growth_exponent: sizes and values must be positive and finite, got {x}")
    if len(set(sizes)) < 2:
        raise LookupError(f"growth_exponent: needs two different sizes or more, got {sorted(set(sizes))}")
    x, y = ([math.log(number) for number in numbers] for numbers in (sizes, values))
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    along = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return round(along / math.fsum((a - mean_x) ** 2 for a in x), 9)


def verdict(full: bool, partly: bool = False) -> Verdict:
    """Return the word for a claim of which everything holds, a part, or neither."""
    return "reproduced" if full else "partly" if partly else "not reproduced"


def fitted(ours: str, *, calibrated: str, on: str) -> Judged:
    """Return what a judge says of a claim that agrees with the paper because it was made to: value, word, reason.

    Parameters
    ----------
    ours : our value as shown.
    calibrated : what was chosen so that it agrees, such as "the constants of the PIUMA model".
    on : what it was chosen on, and is judged on here as well, such as "the times of this product".

    Raises
    ------
    ValueError : no words on what was calibrated, or on what.
    """
    _require_words("fitted", calibrated=calibrated, on=on)
    return ours, "fitted", f"{calibrated} calibrated on {on}"


def undecided(ours: str, *, baseline: str, figure: str) -> Judged:
    """Return what a judge says of a claim whose baseline has not learned enough to compare with: value, word, reason.

    Parameters
    ----------
    ours : our value as shown.
    baseline : what has not learned, such as "attention".
    figure : what shows it, beside what guessing gives, such as "0.329 of the orders, chance 0.333".

    Raises
    ------
    ValueError : no words on the baseline, or on its figure.
    """
    _require_words("undecided", baseline=baseline, figure=figure)
    return ours, "undecided", f"{baseline} has not learned: {figure}"


def _require_words(function, **words):
    for name, said in words.items():
        if not said.strip():
            raise ValueError(f"{function}: {name} must say in words why the claim is {function}, got {said!r}")


def _standard_error(drawn):
    count, mean = len(drawn), fmean(drawn)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in drawn) / (count - 1) / count) if count > 1 else None


def _equal(a, b):
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
