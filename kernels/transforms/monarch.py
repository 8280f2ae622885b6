r"""Monarch matrices: two block-diagonal matrices with a fixed permutation between them.

.. math:: M = P\,L\,P^T R, \qquad M_{s J + j,\; k p + i} = \sum_r L_j[s, k\rho + r]\; R_k[r J + j, i]

R = blockdiag(R_1 .. R_K) reads the input, L = blockdiag(L_1 .. L_J) writes the output, and P counts a vector that is
seen as a matrix by columns instead of by rows. With as many blocks as a block is wide (K = J = sqrt(n), rho = 1), the
part of M with fixed j and k is an outer product. That is why the nearest Monarch matrix falls apart into K J small
singular value decompositions (Dao et al. 2022, Theorem 1).
"""

import numpy as np

from kernels.check import as_int, as_ints, check_array
from kernels.transforms.block_diagonal import (
    NUMBERS,
    block_chain_multiply,
    block_diagonal_multiply_reference,
    check_blocks,
    check_numbers,
)
from kernels.work import Work

__all__ = [
    "monarch_dense",
    "monarch_multiply",
    "monarch_multiply_reference",
    "monarch_order_p_multiply",
    "monarch_permutation",
    "monarch_project",
    "monarch_project_reference",
    "monarch_sizes",
    "monarch_spectra",
    "monarch_work",
]


def monarch_multiply(x, w1, w2, *, num_threads=None) -> np.ndarray:
    """Multiply every row of x with a Monarch matrix, ``x @ monarch_dense(w1, w2).T`` without that matrix.

    Parameters
    ----------
    x : (..., k * p) float32, float64, complex64 or complex128, C-contiguous.
    w1 : (k, q, p) of the dtype of x: the blocks of R, which read p neighbours of x each.
    w2 : (l, s, r) of the dtype of x with l r = k q: the blocks of L. Block j reads every l-th number of what R wrote.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (..., l * s) of the dtype of x; number s' l + j comes from row s' of block j.

    Raises
    ------
    TypeError : a dtype is none of the four, or they differ.
    ValueError : shapes do not fit; ``k q`` and ``l r`` differ.

    Cost
    ----
    2 (k q p + l s r) flops a row, four times as many where numbers are complex. The permutation costs nothing: the
    second product reads across what the first one wrote, while both lie in cache.

    Source
    ------
    Dao et al. 2022, "Monarch: Expressive Structured Matrices for Efficient and Accurate Training", Definition 3.1.
    """
    name = "monarch_multiply"
    check_numbers(x, function=name, name="x")
    w1, w2 = _factors(name, w1, w2, x.dtype)
    if x.shape[-1] != w1.shape[0] * w1.shape[2]:
        raise ValueError(
            f"{name}: x has {x.shape[-1]} columns, w1 with shape {w1.shape} reads {w1.shape[0] * w1.shape[2]}"
        )
    return block_chain_multiply(x, [w1, w2], [1, max(1, w2.shape[0])], num_threads=num_threads)


def monarch_multiply_reference(x, w1, w2) -> np.ndarray:
    """Multiply, permute, multiply, permute back: each step as the paper writes it."""
    l, _, r = w2.shape
    first = block_diagonal_multiply_reference(x, w1)  # (.., k q)
    turned = first.reshape(*x.shape[:-1], r, l).swapaxes(-1, -2).reshape(*x.shape[:-1], l * r)
    second = block_diagonal_multiply_reference(turned, w2)  # (.., l s)
    return second.reshape(*x.shape[:-1], l, -1).swapaxes(-1, -2).reshape(second.shape)


def monarch_order_p_multiply(x, weights, *, num_threads=None) -> np.ndarray:
    """Multiply every row of x with a Monarch matrix of order p: one m x m matrix along each axis of (m, m, .., m).

    Parameters
    ----------
    x : (..., m^p) float32, float64, complex64 or complex128, C-contiguous.
    weights : (p, m^(p-1), m, m) of the dtype of x. ``weights[t]`` acts along axis p - 1 - t, with another matrix for
        each value of the other indices, counted in their order. With p = 2 this is the Monarch matrix of w1 and w2
        with square blocks; with m = 2 it is a butterfly matrix.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (..., m^p) of the dtype of x.

    Raises
    ------
    TypeError, ValueError : as `monarch_multiply`.

    Cost
    ----
    2 p m^(p+1) flops a row.

    Source
    ------
    Dao et al. 2022, Appendix (Monarch matrices of higher order). *Differs from the paper:* written by axes of a tensor,
    which is the same up to permutations of the weights.
    """
    name = "monarch_order_p_multiply"
    check_numbers(x, function=name, name="x")
    check_numbers(weights, function=name, name="weights", dtype=x.dtype)
    if weights.ndim != 4 or weights.shape[2] != weights.shape[3] or not 1 <= len(weights) <= 64:
        raise ValueError(f"{name}: weights must have shape (p, m^(p-1), m, m), got {weights.shape}")
    p, blocks, m, _ = weights.shape
    if blocks != m ** (p - 1):
        raise ValueError(f"{name}: weights has {blocks} blocks of {m} x {m}, order {p} needs {m ** (p - 1)}")
    if x.shape[-1] != m**p:
        raise ValueError(f"{name}: x has {x.shape[-1]} columns, order {p} with m = {m} reads {m**p}")
    return block_chain_multiply(x, list(weights), [max(1, m) ** t for t in range(p)], num_threads=num_threads)


def monarch_work(first, second, rows: int, *, itemsize: int = 4, parts: int = 1) -> Work:
    """Count the work for ``rows`` rows: factors, x and the result streamed once; what lies between stays in cache.

    Parameters
    ----------
    first, second : shapes (k, q, p) of w1 and (l, s, r) of w2.
    rows : rows of x, at least 0.
    itemsize : bytes of a real part.
    parts : 2 where numbers are complex, else 1.
    """
    name = "monarch_work"
    k, q, p = as_ints(first, 3, function=name, name="first", low=0)
    l, s, r = as_ints(second, 3, function=name, name="second", low=0)
    rows = as_int(rows, function=name, name="rows", low=0)
    itemsize = as_int(itemsize, function=name, name="itemsize", low=1)
    parts = as_int(parts, function=name, name="parts", low=1, high=2)
    size = k * q * p + l * s * r
    moved = itemsize * parts * (size + rows * (k * p + l * s))
    return Work(flops=2 * parts * parts * rows * size, bytes_streamed=moved, gathers=0)


def monarch_dense(w1, w2) -> np.ndarray:
    """Multiply the two factors out.

    Parameters
    ----------
    w1, w2 : (k, q, p) and (l, s, r) of one dtype, as in `monarch_multiply`.

    Returns
    -------
    (l * s, k * p) of that dtype, the matrix M of ``x @ M.T``.

    Raises
    ------
    TypeError, ValueError : as `monarch_multiply`.

    Source
    ------
    Dao et al. 2022, Definition 3.1: M applied to the unit vectors.
    """
    name = "monarch_dense"
    check_numbers(w1, function=name, name="w1")
    w1, w2 = _factors(name, w1, w2, w1.dtype)
    unit = np.eye(w1.shape[0] * w1.shape[2], dtype=w1.dtype)
    return np.ascontiguousarray(block_chain_multiply(unit, [w1, w2], [1, max(1, w2.shape[0])]).T)


def monarch_sizes(n: int) -> tuple[int, int]:
    """Return the two factors of n that lie closest to its root, the larger one first.

    Parameters
    ----------
    n : int of at least 1; not a prime.

    Returns
    -------
    (a, b) with a b = n and a >= b: `monarch_project` takes a blocks that read and b blocks that write. 48 gives (8, 6).

    Raises
    ------
    TypeError, ValueError : n is no such int, or a prime, which has only the factors 1 and n.
    """
    n = as_int(n, function="monarch_sizes", name="n", low=1, high=2**40)
    small = next(b for b in range(int(n**0.5) + 1, 0, -1) if n % b == 0 and b * b <= n)
    if small == 1 and n > 1:
        raise ValueError(
            f"monarch_sizes: n is {n}, which has only factors 1 and n; pad to a number with others, or give the blocks"
        )
    return n // small, small


def monarch_permutation(n: int, sizes=None) -> np.ndarray:
    """Return the order of inputs under which the discrete Fourier transform is a Monarch matrix.

    Parameters
    ----------
    n : int of at least 1.
    sizes : (a, b) with a b = n; None means ``monarch_sizes(n)``.

    Returns
    -------
    int64 (n,): ``x[.., order]`` is what the factors read; number k b + i of it is x[i a + k]. The first step of
    Cooley and Tukey's transform. ``dft(x) = monarch_multiply(x[.., order], w1, w2)``.

    Raises
    ------
    TypeError, ValueError : n is no such int, or the sizes do not multiply to n.

    Source
    ------
    Dao et al. 2022, Appendix (the FFT as a Monarch matrix).
    """
    name = "monarch_permutation"
    n = as_int(n, function=name, name="n", low=1, high=2**31 - 1)
    a, b = monarch_sizes(n) if sizes is None else as_ints(sizes, 2, function=name, name="sizes", low=1)
    if a * b != n:
        raise ValueError(f"{name}: sizes {a} and {b} multiply to {a * b}, n is {n}")
    return np.arange(n).reshape(b, a).T.reshape(n).copy()


def monarch_project(matrix, nblocks=None, *, rank=1) -> tuple[np.ndarray, np.ndarray, float]:
    """Find the Monarch matrix that is nearest to a dense one in the Frobenius norm. The answer is exact.

    Parameters
    ----------
    matrix : (m, n) float32, float64, complex64 or complex128, finite, in any order in memory.
    nblocks : None for the blocks of `monarch_sizes`; an int for as many blocks in both factors; or (k, l), where the k
        blocks that read divide n and the l blocks that write divide m.
    rank : rank of each of the k l parts, from 1 to the smaller side of a part. That smaller side makes it exact.

    Returns
    -------
    w1 : (k, rank * l, n / k) of the dtype of matrix.
    w2 : (l, m / l, k * rank) of the dtype of matrix.
    error : Frobenius norm of the difference, divided by that of the matrix; 0 for a matrix of zeros.

    Raises
    ------
    TypeError : matrix is no such array, or nblocks or rank no int.
    ValueError : a side has no such blocks (the message lists the divisors), or the matrix is not finite.

    Cost
    ----
    k l singular value decompositions of (m / l) x (n / k), in double precision: of the order of n^2.5 for square
    matrices with nblocks = sqrt(n).

    Source
    ------
    Dao et al. 2022, Theorem 1 and Algorithm 1; parts of higher rank as in the authors' published code.
    """
    parts, largest = _parts("monarch_project", matrix, nblocks, rank)
    k, l, s, p = parts.shape
    u, sizes, vh = np.linalg.svd(parts, full_matrices=False)
    root = np.sqrt(sizes[..., :rank])
    right = root[..., None] * vh[..., :rank, :]  # (k, l, rank, p)
    left = u[..., :rank] * root[..., None, :]  # (k, l, s, rank)
    w1 = right.transpose(0, 2, 1, 3).reshape(k, rank * l, p)
    w2 = left.transpose(1, 2, 0, 3).reshape(l, s, k * rank)
    total = float(np.sqrt((sizes**2).sum()))
    error = float(np.sqrt((sizes[..., rank:] ** 2).sum())) / total if total else 0.0
    kind, root = matrix.dtype, largest**0.5
    return (w1 * root).astype(kind, order="C"), (w2 * root).astype(kind, order="C"), error


def monarch_project_reference(matrix, k, l, rank=1) -> np.ndarray:
    """Return the nearest matrix itself, part by part: every l-th row from j on, and columns p k .. p (k + 1)."""
    out = np.empty(matrix.shape, np.result_type(matrix.dtype, np.float64))
    p = matrix.shape[1] // k
    for j in range(l):
        for i in range(k):
            u, s, vh = np.linalg.svd(matrix[j::l, i * p : (i + 1) * p].astype(out.dtype), full_matrices=False)
            out[j::l, i * p : (i + 1) * p] = (u[:, :rank] * s[:rank]) @ vh[:rank]
    return out


def monarch_spectra(matrix, nblocks=None) -> np.ndarray:
    """Return the singular values of each part that a projection keeps the first of.

    Parameters
    ----------
    matrix, nblocks : as in `monarch_project`.

    Returns
    -------
    (l, k, min(m / l, n / k)) float64, falling along the last axis; [j, k] belongs to every l-th row from j on and to
    the columns of block k. Where only the first of each is not zero, the matrix is a Monarch matrix.

    Raises
    ------
    TypeError, ValueError : as `monarch_project`.

    Source
    ------
    Dao et al. 2022, Theorem 1.
    """
    parts, largest = _parts("monarch_spectra", matrix, nblocks, 1)
    return np.ascontiguousarray(np.linalg.svd(parts, compute_uv=False).transpose(1, 0, 2)) * largest


def _parts(name, matrix, nblocks, rank):
    """Return the parts (k, l, s, p) of the matrix in double precision, divided by its largest entry, and that entry."""
    check_array(matrix, function=name, name="matrix", dtypes=NUMBERS)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name}: matrix must have two dimensions and no side of 0, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: matrix holds NaN or infinity; every entry must be finite")
    m, n = matrix.shape
    if nblocks is None:
        k, l = _half(name, n, 0), _half(name, m, 1)
    elif isinstance(nblocks, (list, tuple)):
        k, l = as_ints(nblocks, 2, function=name, name="nblocks", low=1)
    else:
        k = l = as_int(nblocks, function=name, name="nblocks", low=1)
    for count, side, what in ((k, n, "columns"), (l, m, "rows")):
        if side % count:
            divisors = ", ".join(str(d) for d in range(1, side + 1) if side % d == 0)
            raise ValueError(f"{name}: {count} blocks do not divide {side} {what}; use one of {divisors}"[:400])
    as_int(rank, function=name, name="rank", low=1, high=min(m // l, n // k))
    wide = matrix.astype(np.result_type(matrix.dtype, np.float64))
    largest = float(np.abs(wide).max()) or 1.0
    return (wide / largest).reshape(m // l, l, k, n // k).transpose(2, 1, 0, 3), largest


def _half(name, n, which):
    try:
        return monarch_sizes(n)[which]
    except ValueError:
        raise ValueError(
            f"{name}: a side of matrix is {n}, which has only factors 1 and n; give nblocks, or pad the matrix"
        ) from None


def _factors(name, w1, w2, dtype):
    check_blocks(w1, function=name, name="w1", dtype=dtype)
    check_blocks(w2, function=name, name="w2", dtype=dtype)
    if w1.shape[0] * w1.shape[1] != w2.shape[0] * w2.shape[2]:
        raise ValueError(
            f"{name}: w1 with shape {w1.shape} writes {w1.shape[0] * w1.shape[1]} numbers, w2 with shape {w2.shape} "
            f"reads {w2.shape[0] * w2.shape[2]}; k q and l r must be equal"
        )
    return w1, w2
