r"""DSFormer: every block of columns of a weight becomes a small dense basis and coefficients of few entries a row.

.. math:: W_{pq} \approx S_{pq} D_{pq}, \qquad y_p = \sum_q S_{pq} (D_{pq} x_q), \qquad
          \|S_{pq}[i, :]\|_0 = s \text{ for every row } i

W (m, n) is cut into P x Q blocks of b_r rows and b_c columns; D_pq holds r atoms of unit length. With s = r it is the
truncated SVD of each block. The product is meant, not a sum of a dense and a sparse matrix.

What the paper calls its factorizer is known to us from its abstract and from summaries: block sizes, the K-SVD that
seeks the factors, and the rule of `spec_for_ratio` are reconstructions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import linalg, sparse

from kernels.check import as_int, as_ints, as_number, check_choice
from kernels.factor.ksvd import ksvd
from kernels.factor.svd import check_matrix
from kernels.formats.packed_csr import PackedCSR
from kernels.formats.storage import dense_sparse_bits
from kernels.matmul.spmm import spmm
from kernels.transforms.block_diagonal import block_diagonal_multiply

__all__ = ["DSBlockSpec", "DSFactors", "ds_factorize", "spec_for_ratio", "trace"]

RHO = 4.0  # atoms of a basis for each coefficient of a row, at least
INITS = {"svd": "auto", "rows": "vectors"}  # "auto" draws rows where a basis has more atoms than dimensions
COUNTS = ("values", "bits")
MOST_BYTE = 256  # atoms whose indices one byte holds


@dataclass(frozen=True, kw_only=True)
class DSBlockSpec:
    """How a matrix is cut, and how large the factors of a block are.

    Parameters
    ----------
    block_rows : rows of a block; None for all rows of the matrix.
    block_cols : columns of a block.
    atoms : r, rows of a basis; more than ``block_cols`` make it overcomplete.
    nnz_per_row : s, coefficients of each row of a block, from 1 to ``atoms``.

    Raises
    ------
    TypeError, ValueError : no integers, or out of range.
    """

    block_rows: int | None = None
    block_cols: int = 32
    atoms: int = 48
    nnz_per_row: int = 12

    def __post_init__(self):
        name = "DSBlockSpec"
        if self.block_rows is not None:
            as_int(self.block_rows, function=name, name="block_rows", low=1)
        as_int(self.block_cols, function=name, name="block_cols", low=1)
        r = as_int(self.atoms, function=name, name="atoms", low=1, high=2**15)
        as_int(self.nnz_per_row, function=name, name="nnz_per_row", low=1, high=r)

    def block(self, shape, *, pad: bool = False) -> tuple[int, int]:
        """Return rows and columns of a block of a matrix (m, n).

        ValueError where they do not divide it, unless ``pad`` says that it is filled up with zeros to whole blocks.
        """
        m, n = shape
        rows = self.block_rows or m
        for what, side, part in (("rows", m, rows), ("columns", n, self.block_cols)):
            if side % part and not pad:
                raise ValueError(
                    f"DSBlockSpec: blocks have {part} {what}, which do not divide the {side} {what} of the matrix; "
                    f"take a divisor of {side}, or fill the matrix up with zeros: pad=True"
                )
        return rows, self.block_cols

    def padded(self, shape, *, pad: bool = True) -> tuple[int, int]:
        """Return the sides of the whole blocks that hold a matrix (m, n); ``pad`` as of `block`."""
        (m, n), (rows, cols) = shape, self.block(shape, pad=pad)
        return -(-m // rows) * rows, -(-n // cols) * cols

    def num_values(self, shape, *, pad: bool = False) -> int:
        """Return how many values the factors of a matrix (m, n) hold, padding too: P Q (r b_c + b_r s)."""
        (m, n), (rows, cols) = self.padded(shape, pad=pad), self.block(shape, pad=pad)
        return (m // rows) * (n // cols) * (self.atoms * cols + rows * self.nnz_per_row)

    def bits(self, shape, *, value_bits: int = 16, pad: bool = False) -> int:
        """Return the bits of the factors of a matrix, places and padding included; `dense_sparse_bits`."""
        whole, block = self.padded(shape, pad=pad), self.block(shape, pad=pad)
        return dense_sparse_bits(whole, block, self.atoms, self.nnz_per_row, value_bits=value_bits)


def spec_for_ratio(shape, ratio, block_cols=32, count="values", value_bits=16, rho=RHO, *, pad=False) -> DSBlockSpec:
    """Return the largest factors that are so many times smaller than the matrix.

    The number s of coefficients is the largest for which a basis of ``rho`` s atoms still fits; what then remains goes
    into more atoms. Blocks have all rows.

    Parameters
    ----------
    shape : (m, n) of the matrix.
    ratio : how many times smaller, at least 1.
    block_cols : columns of a block; they divide n unless ``pad``.
    count : "values" counts values alone, as the paper does, "bits" the places as well.
    value_bits : of a stored value, from 1 to 64; for "bits".
    rho : atoms for each coefficient of a row, at least 1.
    pad : fill the matrix up with zeros to whole blocks; what is stored of them counts.

    Raises
    ------
    TypeError, ValueError : numbers out of range, or a ratio at which not even s = 1 fits.

    Source
    ------
    Ours; the paper's operating points are 2, 2.8 and 3.57.
    """
    name = "spec_for_ratio"
    m, n = as_ints(shape, 2, function=name, name="shape (m, n)", low=1)
    ratio = Fraction(str(as_number(ratio, function=name, name="ratio", low=1)))
    check_choice(count, COUNTS, function=name, name="count")
    as_int(value_bits, function=name, name="value_bits", low=1, high=64)
    rho = as_number(rho, function=name, name="rho", low=1)
    return spec_within((m, n), 1 / ratio, block_cols, count, value_bits, rho, pad=pad)


def spec_within(
    shape, share: Fraction, block_cols=32, count="values", value_bits=16, rho=RHO, *, pad=False
) -> DSBlockSpec:
    """Return the spec of `spec_for_ratio` for the share of the matrix that may be stored."""
    (m, n), unit = shape, 1 if count == "values" else value_bits

    def made(s, r):
        return DSBlockSpec(block_cols=block_cols, atoms=r, nnz_per_row=s)

    def size(spec):
        if count == "values":
            return spec.num_values(shape, pad=pad)
        return spec.bits(shape, value_bits=value_bits, pad=pad)

    def fits(s, r):
        return r <= m and size(made(s, r)) <= share * m * n * unit

    def atoms_of(s):
        return max(s, int(np.ceil(rho * s)))

    s = 0
    while fits(s + 1, atoms_of(s + 1)):
        s += 1
    if s < 1:
        least = Fraction(m * n * unit, size(made(1, min(m, atoms_of(1)))))
        raise ValueError(
            f"spec_for_ratio: {m} x {n} with {block_cols} columns a block is made at most {float(least):.4g} times "
            f"smaller at rho={rho:g}, asked for {float(1 / share):.4g}; take wider blocks or a smaller rho"
        )
    low, high = atoms_of(s), m  # the size grows with the atoms, but for rounding of an index; a search by halves
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(s, middle) else (low, middle - 1)
    return made(s, low)


@dataclass(frozen=True, kw_only=True, eq=False)
class DSFactors:
    """Bases and coefficients of all blocks of a matrix.

    Parameters
    ----------
    D : float32 or float64 (P, Q, r, b_c), atoms as rows.
    idx : uint8 or int16 (P, Q, b_r, s), the atoms of every row, all different and rising.
    val : of the dtype of D, (P, Q, b_r, s), their coefficients.
    history : float64, the relative error of the whole matrix after each stage of the search: coded, swept, and so on.
        The factors are the best of each block, so their own error is at most the least of these.

    sides : (m, n) of a matrix that was filled up with zeros to whole blocks; None where the blocks are the matrix.

    Raises
    ------
    ValueError : shapes do not fit, or an index is out of range or stands twice in a row.
    """

    D: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    history: np.ndarray
    sides: tuple[int, int] | None = None

    def __post_init__(self):
        if self.D.ndim != 4 or self.idx.ndim != 4 or self.idx.shape != self.val.shape:
            raise ValueError(
                f"DSFactors: D must be (P, Q, r, b_c), idx and val (P, Q, b_r, s); got {self.D.shape}, "
                f"{self.idx.shape} and {self.val.shape}"
            )
        if self.idx.shape[:2] != self.D.shape[:2]:
            raise ValueError(f"DSFactors: D has {self.D.shape[:2]} blocks, idx {self.idx.shape[:2]}")
        r, found = self.D.shape[2], self.idx.astype(np.int64)
        if found.size and (found.min() < 0 or found.max() >= r or (np.diff(found, axis=3) <= 0).any()):
            raise ValueError(f"DSFactors: idx must rise in every row and lie in [0, {r})")
        if self.sides is not None:
            blocks = self.idx.shape[2], self.D.shape[3]
            sides = as_ints(self.sides, 2, function="DSFactors", name="sides", low=1)
            if any(not 0 <= whole - side < part for side, whole, part in zip(sides, self.padded, blocks, strict=True)):
                raise ValueError(f"DSFactors: sides must end in the last blocks of {self.padded}, got {sides}")

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of all blocks together."""
        p, q, rows, _ = self.idx.shape
        return p * rows, q * self.D.shape[3]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that they stand for."""
        return self.padded if self.sides is None else self.sides

    @property
    def spec(self) -> DSBlockSpec:
        """The sizes."""
        rows, s = self.idx.shape[2:]
        return DSBlockSpec(block_rows=rows, block_cols=self.D.shape[3], atoms=self.D.shape[2], nnz_per_row=s)

    def num_values(self) -> int:
        """Return how many values are stored."""
        return self.D.size + self.val.size

    def nbytes(self, value_bits: int = 16) -> int:
        """Return the bytes of the stored factors, places and padding included and rounded up once."""
        return -(-self.spec.bits(self.padded, value_bits=value_bits) // 8)

    def coefficients(self) -> sparse.csr_array:
        """Return all coefficients as one matrix (m, P Q r), whose columns are the atoms of block (0, 0), (0, 1), ..."""
        (p, q, _, s), m = self.idx.shape, self.shape[0]
        first = self.D.shape[2] * np.arange(p * q).reshape(p, q, 1, 1)
        at = (self.idx.astype(np.int64) + first).transpose(0, 2, 1, 3)  # (P, b_r, Q, s): the order of rows
        starts = np.arange(0, m * q * s + 1, q * s, dtype=np.int32)
        values = np.ascontiguousarray(self.val.transpose(0, 2, 1, 3)).reshape(-1)[: m * q * s]
        return sparse.csr_array((values, at.reshape(-1)[: m * q * s].astype(np.int32), starts),
                                shape=(m, p * q * self.D.shape[2]))  # fmt: skip

    def basis(self) -> np.ndarray:
        """Return all bases as one matrix (P Q r, n), with zeros beside each block."""
        p, q, r, cols = self.D.shape
        wide = np.zeros((p, q, r, q, cols), self.D.dtype)
        for j in range(q):
            wide[:, j, :, j] = self.D[:, j]
        return wide.reshape(p * q * r, q * cols)[:, : self.shape[1]]

    def to_dense(self) -> np.ndarray:
        """Return the matrix, of the dtype of D."""
        (p, q, rows, _), (m, n) = self.idx.shape, self.shape
        whole = np.zeros((p, q, rows, self.D.shape[2]), self.D.dtype)
        np.put_along_axis(whole, self.idx.astype(np.int64), self.val, axis=3)
        return np.matmul(whole, self.D).transpose(0, 2, 1, 3).reshape(self.padded)[:m, :n]

    @cached_property
    def packed(self) -> PackedCSR:
        """The coefficients in the form that the sparse product reads."""
        return PackedCSR.from_csr(self.coefficients())

    @property
    def resident_bytes(self) -> int:
        """Bytes that the kernels read."""
        return self.D.nbytes + self.packed.nbytes

    def matmul(self, x: np.ndarray) -> np.ndarray:
        """Map (..., n) of the dtype of D to (..., m); ValueError for another width.

        Examples
        --------
        ``y = ds_factorize(w, spec).matmul(x)``
        """
        if not isinstance(x, np.ndarray) or x.dtype != self.D.dtype or x.shape[-1:] != (self.shape[1],):
            got = (x.dtype, x.shape) if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"DSFactors.matmul: x must be {self.D.dtype} (..., {self.shape[1]}), got {got}")
        columns = self.columns(x.reshape(-1, self.shape[1]).T)
        return np.ascontiguousarray(columns.T).reshape(*x.shape[:-1], self.shape[0])

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Map columns (n, tokens) in any order of memory to (m, tokens): a dense product a block, then a sparse one."""
        p, q, r, cols = self.D.shape
        if len(x) < q * cols:
            x = np.concatenate([x, np.zeros((q * cols - len(x), x.shape[1]), x.dtype)])
        if x.shape[1] == p == 1:  # a block-diagonal product with one vector, which is ahead of one call a block
            one = np.ascontiguousarray(x.T)
            return spmm(self.packed, block_diagonal_multiply(one, np.ascontiguousarray(self.D[0])).T)
        parts = torch.from_numpy(x).reshape(1, q, cols, x.shape[1]).expand(p, -1, -1, -1)
        read = torch.matmul(torch.from_numpy(self.D), parts).reshape(p * q * r, x.shape[1])
        return spmm(self.packed, read.contiguous().numpy())


def ds_factorize(
    W,
    spec: DSBlockSpec,
    *,
    sweeps: int = 6,
    power_iters: int = 3,
    seed: int = 0,
    init: str = "svd",
    D0: np.ndarray | None = None,
    pad: bool = False,
    report: Callable[[float, str], object] = lambda fraction, step: None,
) -> DSFactors:
    """Factorise a matrix block by block: orthogonal matching pursuit and K-SVD take turns.

    Parameters
    ----------
    W : (m, n) array or tensor, float32 or float64, finite.
    spec : sizes of blocks and factors.
    sweeps : rounds of coding and a sweep over all atoms; 0 only codes, which asks for ``D0`` or a good start.
    power_iters : of every atom in a sweep.
    seed : of the rows that are drawn.
    init : "svd" starts from right singular vectors of the block, where a basis has no more atoms than they are, "rows"
        from different rows of the block, of unit length, as "svd" does where there are too few singular vectors.
    D0 : (P, Q, r, b_c) bases to start from, atoms of unit length, in place of ``init``.
    pad : fill the matrix up with zeros, below and on the right, where blocks do not divide it; they are stored.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    DSFactors of the dtype of W, the best that each block saw.

    Raises
    ------
    TypeError : W is no float matrix. ValueError : not finite, or sizes that do not fit.

    Cost
    ----
    For each block and round that of `kernels.factor.omp.omp` and `kernels.factor.ksvd.ksvd_sweep`.

    Source
    ------
    Chand et al. 2023, "DSFormer". *Differs from the paper:* its factorizer could not be read; this one is K-SVD.
    """
    name = "ds_factorize"
    w = W.detach().numpy() if isinstance(W, torch.Tensor) else W
    check_matrix(w, function=name)
    check_choice(init, tuple(INITS), function=name, name="init")
    sides, whole = w.shape, spec.padded(w.shape, pad=pad)
    (rows, cols), r, s = spec.block(w.shape, pad=pad), spec.atoms, spec.nnz_per_row
    p, q = whole[0] // rows, whole[1] // cols
    if D0 is not None and D0.shape != (p, q, r, cols):
        raise ValueError(f"{name}: D0 must be ({p}, {q}, {r}, {cols}), got {D0.shape}")
    if whole != sides:
        w = np.pad(w, [(0, wide - side) for wide, side in zip(whole, sides, strict=True)])
    D = np.empty((p, q, r, cols), w.dtype)
    idx = np.empty((p, q, rows, s), np.uint8 if r <= MOST_BYTE else np.int16)
    val, squares = np.empty((p, q, rows, s), w.dtype), 0.0
    for b in range(p * q):
        i, j = divmod(b, q)
        report(b / (p * q), f"factorise block {b + 1} of {p * q}")
        vectors = np.ascontiguousarray(w[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols].T)
        start = None if D0 is None else np.ascontiguousarray(D0[i, j].T)
        found = ksvd(vectors, r, s, iters=sweeps, power_iters=power_iters, init=INITS[init], dictionary=start,
                     seed=seed + b)  # fmt: skip
        order = np.argsort(found.codes.indices, axis=1)
        D[i, j] = found.dictionary.T
        idx[i, j] = np.take_along_axis(found.codes.indices, order, 1)
        val[i, j] = np.take_along_axis(found.codes.values, order, 1)
        squares = squares + np.square(found.history * np.linalg.norm(vectors.astype(np.float64)))
    size = np.linalg.norm(w.astype(np.float64))
    history = np.sqrt(squares) / size if size else np.zeros_like(squares)
    return DSFactors(D=D, idx=idx, val=val, history=history, sides=None if whole == sides else sides)


def trace(weight, spec: DSBlockSpec, *, sweeps=6, power_iters=3, seed=0, report=lambda fraction, step: None) -> dict:
    """Return what a view shows of one factorised matrix, as plain arrays.

    Parameters
    ----------
    weight, spec, sweeps, power_iters, seed, report : of `ds_factorize`.

    Returns
    -------
    "coefficients" (m, P Q r), "bases" (r, n) of the first block row, side by side; "approximation" (m, n); "history";
    "rank" and "svd_error", those of the truncated SVD with as many values; "uses" (P, Q, r), rows of each atom;
    "factors", all of it as `DSFactors`.
    """
    found = ds_factorize(weight, spec, sweeps=sweeps, power_iters=power_iters, seed=seed, report=report)
    w = weight.detach().numpy() if isinstance(weight, torch.Tensor) else weight
    spectrum = linalg.svdvals(w.astype(np.float64))
    rank = found.num_values() // sum(w.shape)
    r = found.D.shape[2]
    uses = [[np.bincount(at.reshape(-1), minlength=r) for at in row] for row in found.idx]
    size = np.linalg.norm(spectrum)
    made: dict[str, Any] = {"factors": found, "history": found.history, "rank": rank, "uses": np.array(uses)}
    made["bases"] = found.D[0].transpose(1, 0, 2).reshape(r, -1)
    made["coefficients"], made["approximation"] = found.coefficients().toarray(), found.to_dense()
    made["svd_error"] = float(np.linalg.norm(spectrum[rank:]) / size) if size else 0.0
    return made
