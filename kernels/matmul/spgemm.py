"""C = A B with A, B, C sparse (CSR): SpGEMM.

c_ij = sum over t of a_it b_tj. Row-wise (Gustavson) order: row i of C is a sum of rows of B, chosen and scaled by the
nonzeros of row i of A. Symbols: A is (m, k), B is (k, n); F = number of products = sum over nonzeros a_it of nnz(b_t).

Sources: Gustavson 1978, "Two fast algorithms for sparse matrices"; Shivdikar 2021, "SMASH" (hashing, windows).
"""

import numpy as np
from scipy import sparse

from kernels._native import core
from kernels.check import (
    as_csr,
    as_int,
    as_number,
    check_choice,
    check_inner,
    check_same_dtype,
    check_threads,
    is_canonical,
)
from kernels.work import Work

__all__ = [
    "row_flops",
    "spgemm",
    "spgemm_reference",
    "spgemm_work",
    "symbolic_nnz",
]


# method -> (form of the loop, SMASH version)
_METHODS = {
    "auto": ("auto", 0),
    "hash": ("windows", 2),
    "dense": ("dense", 0),
    "inner": ("inner", 0),
    "outer": ("outer", 0),
    "merge": ("merge", 0),
    "gustavson-dense": ("dense", 0),
    "smash-v1": ("windows", 1),
    "smash-v2": ("windows", 2),
    "smash-v3": ("windows", 3),
}
_HASHINGS = {"low": 2, "high": 1}


def spgemm(
    a,
    b,
    *,
    method="auto",
    sort=True,
    drop_zeros=False,
    num_threads=None,
    hashing=None,
    log2_slots=17,
    load=0.16,
) -> sparse.csr_array:
    """Multiply two CSR matrices.

    C = A B. Entries that cancel to 0.0 stay stored unless ``drop_zeros``. NaN and infinity propagate from the entries
    that meet; absent entries never turn into NaN.

    Parameters
    ----------
    a : csr_array or csr_matrix (m, k), float32 or float64, int32 or int64 indices; unsorted and duplicate ones too.
    b : csr_array or csr_matrix (k, n), dtype of ``a``.
    method : "auto" picks the cheapest form for each row. "dense" (also "gustavson-dense") adds every row up in a dense
        one; "hash" works in windows of rows that fit a hash table ("smash-v1": by high-order bits, almost sorted;
        "smash-v2": by low-order bits; "smash-v3": table of offsets into dense segments); "merge" expands, sorts and
        compresses each row; "inner" tries every row against every column; "outer" stores all F products, then merges.
    sort : column indices of every row rise; False leaves their order open.
    drop_zeros : leave out results equal to 0.0.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.
    hashing : "low" or "high" bits, only with method="hash" (default "low").
    log2_slots, load : slots of a hash table (4 to 26) and the part of them that a window may fill, in (0, 1].

    Returns
    -------
    csr_array (m, n), dtype of ``a``; int64 indices if an operand has them or nnz(C) needs them, else int32.

    Raises
    ------
    TypeError : not CSR, or dtypes not accepted or not equal.
    ValueError : inner dimensions differ, malformed operand, unknown method, bad table size.
    OverflowError : a window's tags do not fit 63 bits (hash methods).
    MemoryError : the result, or what the method needs beside it, does not fit.

    Cost
    ----
    2 F flops; F gathers from B. Peak memory beside the result: one block of rows per thread ("outer": F products).
    """
    form, version = _chosen_method(method, hashing)
    log2_slots = as_int(log2_slots, function="spgemm", name="log2_slots", low=4, high=26)
    load = as_number(load, function="spgemm", name="load", above=0, high=1)
    a = as_csr(a, function="spgemm", name="a")
    b, b_rising = is_canonical(b, function="spgemm", name="b")
    check_inner(a, b, function="spgemm")
    check_same_dtype(a, b, function="spgemm")
    threads = check_threads(num_threads, function="spgemm")
    (a_indptr, a_indices), (b_indptr, b_indices) = _common_indices(a, b)
    operands = (a_indptr, a_indices, a.data, b_indptr, b_indices, b.data, b.shape[1])
    flags = (form, b_rising, bool(sort), bool(drop_zeros), threads, version, log2_slots, load)
    indptr, indices, data = core.spgemm(*operands, *flags)
    c = sparse.csr_array((data, indices, indptr), shape=(a.shape[0], b.shape[1]))
    if sort or form != "windows":
        c.has_canonical_format = True
    return c


def spgemm_reference(a, b) -> sparse.csr_array:
    """Multiply row by row in float64, the way the formula reads; structural zeros stay."""
    m, n = a.shape[0], b.shape[1]
    indptr, indices, data = [0], [], []
    for i in range(m):
        row = {}
        for p in range(a.indptr[i], a.indptr[i + 1]):
            t = a.indices[p]
            for q in range(b.indptr[t], b.indptr[t + 1]):
                j = int(b.indices[q])
                row[j] = row.get(j, 0.0) + float(a.data[p]) * float(b.data[q])
        indices += sorted(row)
        data += [row[j] for j in sorted(row)]
        indptr.append(len(indices))
    return sparse.csr_array(
        (np.array(data, float), np.array(indices, np.int64), np.array(indptr, np.int64)), shape=(m, n)
    )


def row_flops(a, b) -> np.ndarray:
    """Count the products that each row of A B takes: f_i = sum over nonzeros a_it of nnz(b_t).

    Returns
    -------
    int64 (m,); its sum is F, the same for every dataflow.
    """
    a, b = operands(a, b, "row_flops")
    (a_indptr, a_indices), (b_indptr, _) = _common_indices(a, b)
    return core.spgemm_row_flops(a_indptr, a_indices, b_indptr)


def symbolic_nnz(a, b) -> np.ndarray:
    """Count the distinct columns that each row of A B reaches, whatever the values.

    Returns
    -------
    int64 (m,); its sum is the structural nnz(C).
    """
    a, b = operands(a, b, "symbolic_nnz")
    (a_indptr, a_indices), (b_indptr, b_indices) = _common_indices(a, b)
    return core.spgemm_symbolic_nnz(a_indptr, a_indices, b_indptr, b_indices, b.shape[1])


def spgemm_work(a, b) -> Work:
    """Count what A B must do: 2 F flops; operands and C streamed once; F gathers from B, F into the row of C."""
    a, b = operands(a, b, "spgemm_work", same_dtype=True)
    products = int(row_flops(a, b).sum())
    entry = a.dtype.itemsize + max(a.indices.itemsize, b.indices.itemsize)
    pointer = max(a.indptr.itemsize, b.indptr.itemsize)
    entries = int(a.indptr[-1]) + int(b.indptr[-1]) + int(symbolic_nnz(a, b).sum())
    pointers = 2 * (a.shape[0] + 1) + b.shape[0] + 1
    return Work(flops=2 * products, bytes_streamed=entries * entry + pointers * pointer, gathers=2 * products)


def _chosen_method(method, hashing):
    check_choice(method, _METHODS, function="spgemm", name="method")
    form, version = _METHODS[method]
    if hashing is None:
        return form, version
    if method != "hash" or not isinstance(hashing, str) or hashing not in _HASHINGS:
        raise ValueError(
            f"spgemm: hashing must be 'low' or 'high', with method='hash'; got {hashing!r} with {method!r}"
        )
    return form, _HASHINGS[hashing]


def operands(a, b, function, same_dtype=False):
    """Return both as CSR arrays whose inner sizes (and dtypes, if asked) agree; ``function`` is named in errors."""
    a, b = as_csr(a, function=function, name="a"), as_csr(b, function=function, name="b")
    check_inner(a, b, function=function)
    if same_dtype:
        check_same_dtype(a, b, function=function)
    return a, b


def _common_indices(a, b):
    """Both patterns in one index dtype: widened copies only where int32 and int64 meet."""
    buffers = (a.indptr, a.indices, b.indptr, b.indices)
    dtype = np.result_type(*buffers)
    a_indptr, a_indices, b_indptr, b_indices = (x.astype(dtype, copy=False) for x in buffers)
    return (a_indptr, a_indices), (b_indptr, b_indices)
