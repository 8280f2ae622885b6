"""A budget of entries shared out among layers, and how it shrinks during training."""

from collections.abc import Sequence

import numpy as np

from kernels.check import as_int, as_number, check_choice

__all__ = ["ROUNDINGS", "allocate_budget", "cubic_budget", "cubic_share"]

ROUNDINGS = ("largest_remainder", "truncate")


def cubic_share(t: float, T: float, begin: float, end: float, *, t_i: float = 0, t_f: float = 0) -> float:
    """Return a number that goes from one value to another along a cubic, fast at first: the schedule of pruning.

    Parameters
    ----------
    t, T : now, from 0 to T, and the end.
    begin, end : the values before ``t_i`` and after ``T - t_f``.
    t_i, t_f : how long the first value and the last one hold.

    Raises
    ------
    ValueError : t outside, or no time between both.

    Source
    ------
    Zhu and Gupta 2017, "To prune, or not to prune", Eq. 1.
    """
    name = "cubic_share"
    T = as_number(T, function=name, name="T", above=0)
    t = as_number(t, function=name, name="t", low=0, high=T)
    t_i, t_f = (as_number(x, function=name, name=what, low=0) for x, what in ((t_i, "t_i"), (t_f, "t_f")))
    if t_i + t_f >= T:
        raise ValueError(f"{name}: t_i + t_f must be less than T={T:g}, got {t_i:g} + {t_f:g}")
    if t <= t_i:
        return begin
    if t > T - t_f:
        return end
    return end + (begin - end) * (1 - (t - t_i) / (T - t_f - t_i)) ** 3


def cubic_budget(t: int, T: int, v_init: float, v_target: float, t_i: int = 0, t_f: int = 0) -> int:
    """Return how many entries may be other than zero at a time: `cubic_share`, rounded down.

    Source
    ------
    The released code of Shen et al. 2025, "SNELLA", which counts the time in passes over the data.
    """
    return int(cubic_share(t, T, v_init, v_target, t_i=t_i, t_f=t_f))


def allocate_budget(p, v: int, caps: Sequence[int], *, rounding: str = "largest_remainder") -> np.ndarray:
    """Share a budget out in proportion to scores; what a full layer cannot take goes to the others.

    Parameters
    ----------
    p : (L,) scores, none below 0; all 0 means that all layers are alike.
    v : entries to share out, from 0 to the sum of ``caps``.
    caps : (L,) entries that each layer has.
    rounding : "largest_remainder", so that the sum is v, or "truncate", as the released code does.

    Returns
    -------
    int64 (L,), none above its cap.

    Raises
    ------
    TypeError, ValueError : lengths that differ, scores below 0 or not finite, or more entries than there are.

    Source
    ------
    Shen et al. 2025, "SNELLA", competition across layers; "water-filling". *Differs from the paper:* in exact
    arithmetic, where the released loop may never end above 2^24 entries.
    """
    name = "allocate_budget"
    check_choice(rounding, ROUNDINGS, function=name, name="rounding")
    p, most = np.asarray(p, np.float64), np.asarray(caps, np.int64)
    if p.ndim != 1 or p.shape != most.shape or not np.isfinite(p).all() or (p < 0).any() or (most < 0).any():
        raise ValueError(f"{name}: p and caps must be (L,), finite and none below 0, got {p.shape} and {most.shape}")
    v = as_int(v, function=name, name="v", low=0, high=int(most.sum()))
    shares, given, full = p if p.any() else np.ones_like(p), np.zeros(len(p)), np.zeros(len(p), bool)
    left = float(v)
    while left > 0 and not full.all():  # each round fills a layer, or ends
        open_shares = np.where(full, 0.0, shares)
        if not open_shares.any():  # only layers without a score are left
            open_shares = np.where(full, 0.0, 1.0)
        wanted = given + left * open_shares / open_shares.sum()
        over = ~full & (wanted >= most)
        if not over.any():
            given, left = wanted, 0.0
            break
        left -= float((most[over] - given[over]).sum())
        given[over], full = most[over], full | over
    whole = np.minimum(np.floor(given + 1e-9).astype(np.int64), most)
    if rounding == "truncate":
        return whole
    missing = v - int(whole.sum())
    order = np.lexsort((np.arange(len(p)), -(given - whole)))
    for layer in [i for i in order if whole[i] < most[i]][:missing]:
        whole[layer] += 1
    return whole
