r"""Keys that share the most codewords with a query: product quantisation, match counts, and their largest by buckets.

.. math:: c(x)_m = \arg\min_e \|x_m - W_{m,e}\|_1, \qquad
          \mathrm{count}_{ij} = \sum_{m=1}^{M} [c(q_i)_m = c(k_j)_m]

A vector falls into M parts, each of which is named by the nearest of E codewords. How many names two vectors share is a
whole number from 0 to M, so the keys of a query are sorted by putting them into M + 1 buckets. Of keys in one bucket
those of the lowest index count as the better ones.
"""

import numpy as np

from kernels._native import core
from kernels.check import FLOATS, as_int, check_array, check_choice, check_threads
from kernels.work import Work

__all__ = [
    "fixed_degree_csr",
    "match_counts",
    "match_counts_reference",
    "pq_encode",
    "pq_encode_reference",
    "pq_encode_work",
    "pq_topk",
    "pq_topk_reference",
    "pq_topk_work",
]

MOST_CODEWORDS = 256
MOST_SUBSPACES = 253
ORDERS = ("count", "index")
COARSE = 4  # buckets of the released kernel


def pq_encode(x, codebook, *, num_threads=None) -> np.ndarray:
    """Name the nearest codeword of each part of every vector, in the L1 norm.

    Parameters
    ----------
    x : (n, M w) float32 or float64, C-contiguous, finite.
    codebook : (M, E, w) of the same dtype, C-contiguous, finite; E from 1 to 256 codewords.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    uint8 (n, M). Of codewords at one distance the first is taken; a distance is summed in the order of coordinates, in
    the dtype of x, so that codes are the same on every CPU.

    Raises
    ------
    TypeError : a dtype is neither, or they differ.
    ValueError : shapes do not fit, or something is not finite.

    Cost
    ----
    2 n M E w flops.

    Source
    ------
    Gui et al. 2023, "SPT", section 4.1 and the released code, which measures L1 distances.
    """
    name = "pq_encode"
    check_array(x, function=name, name="x", dtypes=FLOATS)
    check_array(codebook, function=name, name="codebook", dtypes=(x.dtype,))
    for array, what, axes in ((x, "x", 2), (codebook, "codebook", 3)):
        if array.ndim != axes or not array.flags.c_contiguous or not array.flags.aligned:
            raise ValueError(
                f"{name}: {what} must have {axes} axes and be C-contiguous, got shape {array.shape}; pass "
                f"np.ascontiguousarray({what})"
            )
    subspaces, words, width = codebook.shape
    if not subspaces or not width or not 1 <= words <= MOST_CODEWORDS:
        raise ValueError(
            f"{name}: codebook must be (M, E, w) with E from 1 to {MOST_CODEWORDS}, M and w at least 1; got "
            f"{codebook.shape}"
        )
    if x.shape[1] != subspaces * width:
        raise ValueError(f"{name}: x has {x.shape[1]} columns, the codebook is for {subspaces} x {width}")
    threads = check_threads(num_threads, function=name)
    if not np.isfinite(codebook).all():
        raise ValueError(f"{name}: codebook must be finite")
    codes = np.empty((len(x), subspaces), np.uint8)
    if not core.pq_encode(x, codebook, codes, threads) and not np.isfinite(x).all():
        at = np.unravel_index(int((~np.isfinite(x)).argmax()), x.shape)
        raise ValueError(f"{name}: x must be finite, got {x[at]} in row {at[0]}, column {at[1]}")
    return codes


def match_counts(qc, kc, *, num_threads=None) -> np.ndarray:
    """Count in how many sub-spaces each query and each key have one code.

    Parameters
    ----------
    qc : uint8 (b, tq, M), C-contiguous, M from 1 to 253.
    kc : uint8 (b, tk, M), C-contiguous.
    num_threads : as for `pq_encode`.

    Returns
    -------
    uint8 (b, tq, tk), from 0 to M.

    Raises
    ------
    TypeError, ValueError : as for `pq_topk`.

    Cost
    ----
    b tq tk M comparisons of bytes.

    Source
    ------
    Gui et al. 2023, "SPT", section 4.1.
    """
    _check_codes(qc, kc, "match_counts")
    threads = check_threads(num_threads, function="match_counts")
    counts = np.empty((*qc.shape[:2], kc.shape[1]), np.uint8)
    core.match_counts(qc, kc, counts, threads)
    return counts


def pq_topk(qc, kc, L, *, causal=True, visible=None, buckets="exact", order="count", num_threads=None):
    """Return the L keys that share the most codes with each query.

    Parameters
    ----------
    qc : uint8 (b, tq, M), C-contiguous, M from 1 to 253: codes of queries, one matrix for each head of each sample.
    kc : uint8 (b, tk, M), C-contiguous; of the same codebook.
    L : keys of a query, from 1 to tk.
    causal : whether queries are the last tq positions of the keys and see none after their own.
    visible : None, or bool (b, tk), C-contiguous, False for keys that no query takes, such as padding.
    buckets : "exact" has one bucket for each count; 4 puts counts together as the released kernel does, in
        bucket min(3, count // (M // 4)), and takes M of at least 4.
    order : of a query's keys: "count" puts the best bucket first and inside it the lowest index; "index" lets them
        rise, which products with sparse matrices are faster with.
    num_threads : as for `pq_encode`.

    Returns
    -------
    indices int32 (b, tq, L), valid int32 (b, tq): row i has ``valid`` = min(L, keys that it sees) distinct keys, and -1
    behind them.

    Raises
    ------
    TypeError : codes are no uint8 arrays.
    ValueError : shapes that do not fit, codes that are not contiguous, L out of range, an unknown order or number of
        buckets, or more queries than keys under ``causal``.

    Cost
    ----
    b tq tk M comparisons of bytes, half of them where causal, and a few passes over the counts of a row.

    Source
    ------
    Gui et al. 2023, "SPT", section 4.1 and the released kernel. *Differs from the released kernel:* slots that a row
    does not fill are told apart, where it leaves them 0 and so counts the first key more than once; and of equal keys
    the first are taken, where it takes those that one of four workers finds first.
    """
    name = "pq_topk"
    _check_codes(qc, kc, name)
    (b, tq, subspaces), tk = qc.shape, kc.shape[1]
    L = as_int(L, function=name, name="L", low=1, high=tk)
    check_choice(order, ORDERS, function=name, name="order")
    bounds = _bounds(buckets, subspaces, name)
    if causal and tq > tk:
        raise ValueError(
            f"{name}: causal queries are the last positions of the keys, so there cannot be more of them: {tq} "
            f"queries, {tk} keys"
        )
    threads = check_threads(num_threads, function=name)
    shown = np.empty((0, tk), np.uint8)
    if visible is not None:
        check_array(visible, function=name, name="visible", dtypes=(np.bool_,))
        if visible.shape != (b, tk) or not visible.flags.c_contiguous:
            raise ValueError(f"{name}: visible must be {(b, tk)} and C-contiguous, got {visible.shape}")
        shown, bounds = visible.view(np.uint8), bounds + np.uint8(1)  # 0 is left to keys that no query takes
    indices, valid = np.empty((b, tq, L), np.int32), np.empty((b, tq), np.int32)
    core.pq_topk(qc, kc, shown, bounds, indices, valid, bool(causal), order == "count", threads)
    return indices, valid


def fixed_degree_csr(indices, valid, *, keys=None):
    """Return the pattern of all heads of all samples as one block-diagonal CSR matrix.

    Parameters
    ----------
    indices : int32 (b, tq, L), what `pq_topk` returned; what stands behind a row's valid keys is not read.
    valid : int32 (b, tq), from 0 to L.
    keys : tk, columns of a block; tq unless given.

    Returns
    -------
    indptr int64 (b tq + 1,), indices int32 (nnz,): row ``z tq + i`` holds the columns ``z tk + j``, in the order given.
    Where every row is full, indptr is 0, L, 2 L and so on.

    Raises
    ------
    TypeError : no int32 arrays.
    ValueError : shapes that do not fit, arrays that are not contiguous, counts or keys out of range, or more columns
        than int32 can number.

    Source
    ------
    Gui et al. 2023, "SPT", section 4.2.
    """
    name = "fixed_degree_csr"
    for array, what, axes in ((indices, "indices", 3), (valid, "valid", 2)):
        check_array(array, function=name, name=what, dtypes=(np.int32,))
        if array.ndim != axes or not array.flags.c_contiguous:
            raise ValueError(
                f"{name}: {what} must have {axes} axes and contiguous rows, got shape {array.shape}; pass "
                f"np.ascontiguousarray({what})"
            )
    if valid.shape != indices.shape[:2]:
        raise ValueError(f"{name}: valid must be {indices.shape[:2]}, one count for each row, got {valid.shape}")
    b, tq, degree = indices.shape
    tk = as_int(tq if keys is None else keys, function=name, name="keys", low=0, high=2**31 - 1)
    if b * tk >= 2**31:
        raise ValueError(
            f"{name}: {b} blocks of {tk} columns are more than int32 can number; take fewer samples at once"
        )
    if valid.size and not (valid.min() >= 0 and valid.max() <= degree):
        raise ValueError(f"{name}: valid must hold counts from 0 to {degree}, got {valid.min()} to {valid.max()}")
    there = np.arange(degree) < valid[..., None]
    found = indices[there]
    if found.size and not (found.min() >= 0 and found.max() < tk):
        raise ValueError(f"{name}: indices must lie in [0, {tk}), got {found.min()} to {found.max()}")
    indptr = np.zeros(b * tq + 1, np.int64)
    np.cumsum(valid.reshape(-1), out=indptr[1:])
    return indptr, found + np.repeat(np.arange(b, dtype=np.int32) * np.int32(tk), valid.sum(1))


def pq_encode_reference(x, codebook) -> np.ndarray:
    """Measure every distance in float64 and take the least."""
    parts = x.astype(np.float64).reshape(len(x), codebook.shape[0], 1, codebook.shape[2])
    return np.abs(parts - codebook.astype(np.float64)).sum(-1).argmin(-1).astype(np.uint8)


def match_counts_reference(qc, kc) -> np.ndarray:
    """Compare every code of every pair."""
    return (qc[:, :, None] == kc[:, None]).sum(-1).astype(np.uint8)


def pq_topk_reference(qc, kc, L, causal=True, buckets="exact", order="count", visible=None):
    """Sort the keys of every query stably by their buckets."""
    (b, tq, subspaces), tk = qc.shape, kc.shape[1]
    counts = match_counts_reference(qc, kc).astype(int)
    level = counts if buckets == "exact" else np.minimum(COARSE - 1, counts // (subspaces // COARSE))
    indices, valid = np.full((b, tq, L), -1, np.int32), np.zeros((b, tq), np.int32)
    for z, i in np.ndindex(b, tq):
        seen = i + 1 + tk - tq if causal else tk
        best = np.argsort(-level[z, i, :seen], kind="stable")
        best = best[:L] if visible is None else best[visible[z, best]][:L]
        valid[z, i] = len(best)
        indices[z, i, : len(best)] = best if order == "count" else np.sort(best)
    return indices, valid


def pq_encode_work(n, M, E, w, *, itemsize=4) -> Work:
    """Count the work for ``n`` vectors of ``M`` parts of ``w`` numbers and ``E`` codewords: all streamed once."""
    name = "pq_encode_work"
    n = as_int(n, function=name, name="n", low=0)
    M, E, w, itemsize = (
        as_int(x, function=name, name=what, low=1) for x, what in ((M, "M"), (E, "E"), (w, "w"), (itemsize, "itemsize"))
    )
    return Work(flops=2 * n * M * E * w, bytes_streamed=itemsize * (n * M * w + M * E * w) + n * M, gathers=0)


def pq_topk_work(b, tq, tk, M, L) -> Work:
    """Count the least traffic: codes of ``b`` heads read once, places and counts written once. No flop is needed."""
    name = "pq_topk_work"
    b, tq, tk = (as_int(x, function=name, name=what, low=0) for x, what in ((b, "b"), (tq, "tq"), (tk, "tk")))
    M, L = as_int(M, function=name, name="M", low=1), as_int(L, function=name, name="L", low=1)
    return Work(flops=0, bytes_streamed=b * ((tq + tk) * M + 4 * tq * (L + 1)), gathers=0)


def _bounds(buckets, subspaces, function):
    """Return the least count of each bucket, uint8."""
    if isinstance(buckets, str) and buckets == "exact":
        return np.arange(subspaces + 1, dtype=np.uint8)
    wanted = f'{function}: buckets must be "exact" or {COARSE}'
    if isinstance(buckets, str):
        raise ValueError(f"{wanted}, got {buckets!r}")
    if as_int(buckets, function=function, name="buckets") != COARSE:
        raise ValueError(f"{wanted}, got {buckets}")
    if subspaces < COARSE:
        raise ValueError(
            f'{function}: {COARSE} buckets need at least {COARSE} sub-spaces, got {subspaces}; pass "exact"'
        )
    return np.arange(COARSE, dtype=np.uint8) * np.uint8(subspaces // COARSE)


def _check_codes(qc, kc, function):
    for codes, name in ((qc, "qc"), (kc, "kc")):
        check_array(codes, function=function, name=name, dtypes=(np.uint8,))
        if codes.ndim != 3 or not codes.flags.c_contiguous:
            raise ValueError(
                f"{function}: {name} must be (b, t, M) and C-contiguous, got shape {codes.shape}; pass "
                f"np.ascontiguousarray({name})"
            )
    if qc.shape[0] != kc.shape[0] or qc.shape[2] != kc.shape[2] or not 1 <= qc.shape[2] <= MOST_SUBSPACES:
        raise ValueError(
            f"{function}: qc must be (b, tq, M) and kc (b, tk, M) with M from 1 to {MOST_SUBSPACES}, got {qc.shape} "
            f"and {kc.shape}"
        )
    if kc.shape[1] >= 2**31:
        raise ValueError(f"{function}: kc has {kc.shape[1]} keys, more than int32 can number")
