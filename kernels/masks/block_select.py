"""Which blocks stay, given a score per block pair: cumulative mass, top-k, ratio.

Cumulative mass keeps, in every block row, the smallest set that contains the forced blocks and holds a share tau of the
row's own total (Xu et al. 2025, "XAttention", section 2.2).
"""

import numpy as np

from kernels.check import as_int, as_number, check_array, check_choice, check_unmasked

METHODS = ("threshold", "topk", "ratio")
MARGIN = 1e-6  # of a share: float32 scores differ by a tenth of it between CPUs, which must not add a block


def select_blocks(
    scores, threshold=0.9, *, causal=True, keep_sink=True, keep_diagonal=True, eligible=None, method="threshold", k=None
):
    """Choose blocks row by row in descending score; ties go to the lower index.

    Parameters
    ----------
    scores : (b, h, rows, cols) float32 or float64, not negative. Row r is block row cols - rows + r of the keys.
    threshold : share of each row's total to keep, in [0, 1]; a number, or one per head (h,). A share is reached when
        less than one part in a million of it is missing. 1 keeps every block that may be kept, also one whose score
        underflowed to zero.
    causal : never keep a block right of the diagonal.
    keep_sink, keep_diagonal : with ``causal``, always keep a row's first eligible block, which is block 0 unless
        ``eligible`` says otherwise, and the diagonal block; they count as mass.
    eligible : bool, broadcastable to scores: only these take part. None means all.
    method : "threshold"; "topk" keeps ``k`` blocks a row; "ratio" keeps the share ``k`` of a row's eligible blocks,
        rounded up.

    Returns
    -------
    bool, shape of scores. A row without a forced block keeps at least one, if one is eligible.

    Raises
    ------
    TypeError : scores are not float32 or float64.
    ValueError : not 4-D, NaN or negative scores, threshold outside [0, 1] or of wrong length, unknown method, bad k.

    Source
    ------
    Xu et al. 2025, "XAttention", section 2.2 (threshold) and Table 6 (top-k, ratio). Sums run in float64. *Differs from
    the released code* at threshold 1, where that stops at the blocks that fill the total and drops those of score zero.
    """
    name = "select_blocks"
    check_array(scores, function=name, name="scores")
    if scores.ndim != 4 or not (scores >= 0).all():
        raise ValueError(
            f"{name}: scores must be (b, h, rows, cols) without NaN or negative values, got shape {scores.shape}"
        )
    for label, x in (("threshold", threshold), ("eligible", eligible)):
        check_unmasked(x, function=name, name=label)
    tau = np.asarray(threshold)
    if tau.dtype.kind not in "fiu" or tau.shape not in ((), (scores.shape[1],)) or not ((tau >= 0) & (tau <= 1)).all():
        raise ValueError(
            f"{name}: threshold must be in [0, 1], one number or one per head ({scores.shape[1]}), got {threshold!r}"
        )
    tau = tau.astype(np.float64)
    check_choice(method, METHODS, function=name, name="method")
    if method == "topk":
        k = as_int(k, function=name, name="k of method='topk'", low=1)
    elif method == "ratio":
        k = as_number(k, function=name, name="k of method='ratio'", above=0, high=1)
    eligible = np.ones((), bool) if eligible is None else np.asarray(eligible)
    if eligible.dtype != np.bool_ or not _fits(eligible.shape, scores.shape):
        raise ValueError(f"{name}: eligible must be bool and fit {scores.shape}, got {eligible.dtype} {eligible.shape}")

    rows, cols = scores.shape[2:]
    diagonal = cols - rows + np.arange(rows)[:, None]
    allowed = np.broadcast_to(eligible, scores.shape).copy()
    forced = np.zeros(scores.shape, bool)
    if causal:
        allowed &= np.arange(cols) <= diagonal
        if keep_sink and cols:
            forced |= np.arange(cols) == allowed.argmax(axis=-1)[..., None]
        if keep_diagonal:
            forced |= np.arange(cols) == diagonal
    forced = forced & allowed

    mass = np.where(allowed, scores, 0).astype(np.float64)
    order = np.argsort(np.where(allowed, np.where(forced, -np.inf, -mass), np.inf), axis=-1, kind="stable")
    sorted_mass = np.take_along_axis(mass, order, axis=-1)
    if method == "threshold":
        reached = np.cumsum(sorted_mass, axis=-1)
        tau = tau.reshape(-1, 1, 1)
        chosen = (reached - sorted_mass < tau * (1 - MARGIN) * reached[..., -1:]) | (tau == 1)
    else:
        assert k is not None  # refused above
        count = min(k, cols) if method == "topk" else np.ceil(k * (1 - MARGIN) * allowed.sum(axis=-1, keepdims=True))
        chosen = np.broadcast_to(np.arange(cols) < count, scores.shape).copy()
    chosen[..., :1] |= ~forced.any(axis=-1, keepdims=True)  # a row without a forced block keeps its best one
    keep = np.zeros(scores.shape, bool)
    np.put_along_axis(keep, order, chosen, axis=-1)
    return (keep | forced) & allowed


def _fits(shape, wanted):
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False
