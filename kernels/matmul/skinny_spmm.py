"""C = A B with A in Tiled-CSL and B of few columns: what a language model multiplies as it writes word by word."""

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_choice, check_threads
from kernels.formats.tiled_csl import TiledCSL
from kernels.matmul.spmm import dense_operand
from kernels.work import Work

__all__ = ["skinny_spmm", "skinny_spmm_reference", "skinny_spmm_work"]

METHODS = ("auto", "dense_tile", "entries")


def skinny_spmm(a, b, *, split_k=1, method="auto", num_threads=None) -> np.ndarray:
    """Multiply a Tiled-CSL matrix with a dense one of few columns.

    Parameters
    ----------
    a : TiledCSL (m, k). ``TiledCSL.encode(w, tile_k=512, reorder=False)`` suits a CPU best.
    b : (k, n) float32, C-contiguous. Any n; beyond 64 columns a is read once for every 64.
    split_k : at least 1; the tiles along k are cut into so many groups (of equal size, the last ones smaller or empty)
        whose partial results are added in their order. More groups help when a has fewer rows of tiles than threads.
    method : "dense_tile" lays each tile out with its zeros and multiplies densely, the paper's way; "entries" takes one
        multiply-add of a row of b for each nonzero and wants words row by row (``reorder=False``); "auto" takes
        "entries" where it can.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (m, n) float32, summed in float32. Within a group tiles are added from left to right: "dense_tile" adds one column
    after the other; "entries" sums the words of a row of a tile in four chains, word p in chain p mod 4, which are
    added in pairs. Infinity or NaN in row j of b reaches, with "entries", the rows of a that have a nonzero in column
    j, and with "dense_tile" all rows.

    Raises
    ------
    TypeError : a is no TiledCSL, or b no float32 array.
    ValueError : shapes do not fit, an unknown method, or "entries" for words in another order.

    Cost
    ----
    "entries": 2 nnz n flops, n rounded up to whole vectors, and 4 bytes for each nonzero. "dense_tile": 2 m k n flops.

    Source
    ------
    Xia et al. 2023, "Flash-LLM", section 4: load as sparse, compute as dense. *Differs from the paper:* float32 instead
    of half-precision arithmetic and no bound on the density of a tile; "entries" is ours.
    """
    if not isinstance(a, TiledCSL):
        raise TypeError(f"skinny_spmm: a must be a TiledCSL, got {type(a).__name__}; use TiledCSL.encode(a)")
    b = dense_operand(b, function="skinny_spmm", name="b", rows=a.shape[1])
    groups = as_int(split_k, function="skinny_spmm", name="split_k", low=1)
    check_choice(method, METHODS, function="skinny_spmm", name="method")
    if method == "entries" and a.row_ends is None:
        raise ValueError(
            "skinny_spmm: method 'entries' wants words row by row, a has them in another order; "
            "use TiledCSL.encode(a.decode(), reorder=False)"
        )
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    ends = None if method == "dense_tile" else a.row_ends
    groups = min(groups, max(1, -(-a.shape[1] // a.tile_k)))  # more would be empty
    threads = check_threads(num_threads, function="skinny_spmm")
    core.skinny_spmm(a.nz, a.tile_offsets, ends, a.tile_m, a.tile_k, a.vector, b, out, groups, threads)
    return out


def skinny_spmm_reference(a, b) -> np.ndarray:
    """Multiply word by word in float64, the way the format reads."""
    out = np.zeros((a.shape[0], b.shape[1]))
    across = -(-a.shape[1] // a.tile_k)
    for tile in range(len(a.tile_offsets) - 2):
        for word in a.nz[a.tile_offsets[tile] * a.vector : a.tile_offsets[tile + 1] * a.vector]:
            row, column = divmod(int(word) >> 16, a.tile_k)
            i, j = tile // across * a.tile_m + row, tile % across * a.tile_k + (column ^ (row % 8 * 8))
            if int(word) & 0x7FFF:
                out[i] += float(word.astype(np.uint16).view(np.float16)) * b[j].astype(np.float64)
    return out


def skinny_spmm_work(a, n: int) -> Work:
    """Count the work of A B for B with ``n`` columns: words, offsets, B and C streamed once, one gather per nonzero."""
    if not isinstance(a, TiledCSL):
        raise TypeError(f"skinny_spmm_work: a must be a TiledCSL, got {type(a).__name__}; use TiledCSL.encode(a)")
    n = as_int(n, function="skinny_spmm_work", name="n", low=0)
    return Work(flops=2 * a.nnz * n, bytes_streamed=a.nbytes + 4 * n * sum(a.shape), gathers=a.nnz)
