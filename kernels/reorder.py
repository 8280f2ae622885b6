"""Orderings of rows and columns, and the statistics of a pattern that they change.

Every ordering is a pair of permutations: new row ``i`` is old row ``rows[i]``. Square matrices get one permutation for
both sides, so that symmetry and the diagonal stay; other shapes get one per side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from kernels.check import as_csr, as_int, check_choice
from kernels.raster import PATTERN_DTYPES, check_bits

HASHES = 4


@dataclass(frozen=True)
class Ordering:
    """Permutations of rows and columns: int64 arrays, new position -> old position."""

    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class PatternStatistics:
    """What a sparse pattern looks like, in numbers.

    Parameters
    ----------
    shape, nnz : rows and columns; stored entries.
    bandwidth : largest ``|i - j|`` of an entry.
    profile : sum over rows of the distance from the first entry to the diagonal, where it lies left of it.
    row_lengths : int64[m], entries per row.
    symmetric_share : share of off-diagonal entries whose mirror image is an entry, too; NaN unless square and counted.
    """

    shape: tuple[int, int]
    nnz: int
    bandwidth: int
    profile: int
    row_lengths: np.ndarray
    symmetric_share: float

    @property
    def density(self) -> float:
        """Entries over positions."""
        size = self.shape[0] * self.shape[1]
        return self.nnz / size if size else 0.0


def reorder(a, method: str, *, seed: int = 0) -> Ordering:
    """Return an ordering of a CSR matrix.

    Parameters
    ----------
    a : csr_array (m, n).
    method : one of `METHODS`: ``"none"``; ``"rcm"``, reverse Cuthill-McKee on the symmetrised pattern (of the bipartite
        graph unless square); ``"degree"``, most entries first; ``"random"``; ``"morton"``, the Z-curve through row
        numbers read as points of a square grid, for matrices from two-dimensional meshes; ``"cluster"``, rows sorted by
        four min-hashes of their column sets, so that rows with similar sets (Jaccard) become neighbours.
    seed : for ``"random"`` and ``"cluster"``; equal seed, equal ordering.

    Raises
    ------
    ValueError : unknown method, or malformed CSR.

    Source
    ------
    Cuthill and McKee 1969; Morton 1966; Broder 1997 (min-hash).
    """
    check_choice(method, METHODS, function="reorder", name="method")
    seed = as_int(seed, function="reorder", name="seed", low=0)
    return METHODS[method](as_csr(a, function="reorder", name="a", dtypes=PATTERN_DTYPES), seed)


def permuted(a, ordering: Ordering) -> sparse.csr_array:
    """Return ``a[rows][:, columns]`` with sorted columns."""
    a = as_csr(a, function="permuted", name="a", dtypes=PATTERN_DTYPES)
    if not isinstance(ordering, Ordering):
        raise TypeError(f"permuted: ordering must be an Ordering as reorder returns it, got {type(ordering).__name__}")
    for name, order, size in zip(("rows", "columns"), (ordering.rows, ordering.columns), a.shape, strict=True):
        if not _is_permutation(np.asarray(order), size):
            raise ValueError(f"permuted: ordering.{name} must be a permutation of 0..{size - 1}")
    data = a.data.view(np.uint16) if a.dtype == np.float16 else a.data  # SciPy moves no half precision
    taken = sparse.csr_array((data, a.indices, a.indptr), shape=a.shape)[ordering.rows]
    place = np.empty(a.shape[1], taken.indices.dtype)
    place[ordering.columns] = np.arange(a.shape[1], dtype=place.dtype)
    result = sparse.csr_array((taken.data, place[taken.indices], taken.indptr), shape=a.shape)
    result.sort_indices()
    result.data = result.data.view(a.dtype)
    return result


def _is_permutation(order, size):
    if order.shape != (size,) or not np.issubdtype(order.dtype, np.integer):
        return False
    found = np.zeros(size, bool)
    found[order[(order >= 0) & (order < size)]] = True
    return bool(found.all())


def statistics(a) -> PatternStatistics:
    """Return the statistics of a CSR pattern; duplicates count as often as they are stored.

    Parameters
    ----------
    a : csr_array (m, n).

    Returns
    -------
    PatternStatistics

    Raises
    ------
    TypeError, ValueError : not CSR, or malformed.

    Source
    ------
    Bandwidth and profile as in Cuthill and McKee 1969 and George and Liu 1981.

    Cost
    ----
    A few passes over the entries; a transpose where the matrix is square.
    """
    a = as_csr(a, function="statistics", name="a", dtypes=PATTERN_DTYPES)
    lengths = np.diff(a.indptr).astype(np.int64)
    filled = np.flatnonzero(lengths)
    bandwidth = profile = 0
    if filled.size:
        starts = a.indptr[filled]
        used = a.indices[: a.indptr[-1]]
        least = np.minimum.reduceat(used, starts).astype(np.int64)
        most = np.maximum.reduceat(used, starts).astype(np.int64)
        bandwidth = int(max(np.abs(filled - least).max(), np.abs(most - filled).max()))
        profile = int(np.maximum(filled - least, 0).sum())
    return PatternStatistics(a.shape, int(a.indptr[-1]), bandwidth, profile, lengths, _symmetric_share(a))


def bit_statistics(bits, columns) -> PatternStatistics:
    """Return the statistics of a bit-packed mask, row by row; the symmetric share is not counted (NaN).

    Parameters
    ----------
    bits : uint8 (m, ceil(columns / 8)), little bit order, bits past the last column zero.
    columns : columns of the mask.

    Returns
    -------
    `PatternStatistics`, equal to `statistics` of the unpacked mask but for the symmetric share.

    Raises
    ------
    ValueError : ``bits`` has another width than ``columns`` needs. TypeError : it is a masked array.
    """
    columns = check_bits(bits, columns, function="bit_statistics")
    rows = len(bits)
    lengths, least, most = (np.zeros(rows, np.int64) for _ in range(3))
    for begin in range(0, rows, 1024):
        part = bits[begin : begin + 1024]
        chunk = slice(begin, begin + len(part))
        lengths[chunk] = np.bitwise_count(part).sum(axis=1, dtype=np.int64)
        least[chunk], most[chunk] = _outer_bits(part)
    filled = np.flatnonzero(lengths)
    distance = np.maximum(np.abs(filled - least[filled]), np.abs(most[filled] - filled))
    profile = int(np.maximum(filled - least[filled], 0).sum())
    bandwidth = int(distance.max(initial=0))
    return PatternStatistics((rows, columns), int(lengths.sum()), bandwidth, profile, lengths, float("nan"))


def _outer_bits(bits):
    """Return the columns of the first and the last one of every row (meaningless for rows without)."""
    rows, width = np.arange(len(bits)), bits.shape[1]
    if width == 0:
        return np.zeros((2, len(bits)), np.int64)
    used = bits != 0
    first, last = used.argmax(axis=1), width - 1 - used[:, ::-1].argmax(axis=1)
    low, high = bits[rows, first].astype(np.int64), bits[rows, last].astype(np.int64)
    lowest = np.log2(np.maximum(low & -low, 1)).astype(np.int64)
    highest = np.log2(np.maximum(high, 1)).astype(np.int64)
    return 8 * first + lowest, 8 * last + highest


def statistics_reference(a) -> PatternStatistics:
    """Return the same from the dense pattern."""
    pattern = np.zeros(a.shape, np.int64)
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    np.add.at(pattern, (rows, a.indices[: a.indptr[-1]]), 1)
    i, j = np.nonzero(pattern)
    profile = sum(max(0, r - int(np.flatnonzero(line)[0])) for r, line in enumerate(pattern) if line.any())
    share = float("nan")
    if a.shape[0] == a.shape[1]:
        off = (pattern > 0) & ~np.eye(a.shape[0], dtype=bool)
        share = float((off & off.T).sum() / off.sum()) if off.any() else 1.0
    bandwidth = int(np.abs(i - j).max()) if i.size else 0
    return PatternStatistics(a.shape, int(pattern.sum()), bandwidth, profile, pattern.sum(axis=1), share)


def _symmetric_share(a):
    rows, columns = a.shape
    if rows != columns:
        return float("nan")
    pattern = _pattern(a)
    off = pattern.nnz - np.count_nonzero(pattern.diagonal())
    mirrored = pattern.multiply(pattern.T.tocsr())
    both = mirrored.nnz - np.count_nonzero(mirrored.diagonal())
    return both / off if off else 1.0


def _pattern(a):
    ones = sparse.csr_array((np.ones(a.indptr[-1], np.int8), a.indices[: a.indptr[-1]], a.indptr), shape=a.shape)
    if not ones.has_canonical_format:
        ones = ones.copy()
        ones.sum_duplicates()
        ones.data[:] = 1
    return ones


def _as_found(a, seed):
    return Ordering(np.arange(a.shape[0]), np.arange(a.shape[1]))


def _cuthill_mckee(a, seed):
    from scipy.sparse.csgraph import reverse_cuthill_mckee  # loads SciPy's linear algebra: only for who asks for it

    rows, columns = a.shape
    if rows == 0 or columns == 0:
        return _as_found(a, seed)
    pattern = _pattern(a)
    if rows == columns:
        order = reverse_cuthill_mckee(sparse.csr_array(pattern + pattern.T), symmetric_mode=True).astype(np.int64)
        return Ordering(order, order)
    graph = sparse.block_array([[None, pattern], [pattern.T, None]], format="csr")
    order = reverse_cuthill_mckee(graph, symmetric_mode=True).astype(np.int64)
    return Ordering(order[order < rows], order[order >= rows] - rows)


def _degree(a, seed):
    per_row = np.diff(a.indptr)
    per_column = np.bincount(a.indices[: a.indptr[-1]], minlength=a.shape[1])
    if a.shape[0] == a.shape[1]:
        order = np.argsort(-(per_row + per_column), kind="stable")
        return Ordering(order, order)
    return Ordering(np.argsort(-per_row, kind="stable"), np.argsort(-per_column, kind="stable"))


def _random(a, seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(a.shape[0])
    return Ordering(rows, rows if a.shape[0] == a.shape[1] else rng.permutation(a.shape[1]))


def _morton(a, seed):
    return Ordering(_z_curve(a.shape[0]), _z_curve(a.shape[1]))


def _z_curve(size):
    side = max(1, int(np.ceil(np.sqrt(size))))
    y, x = np.divmod(np.arange(size, dtype=np.uint64), np.uint64(side))
    return np.argsort(_spread_bits(y) << np.uint64(1) | _spread_bits(x), kind="stable")


def _spread_bits(x):
    for shift, mask in ((16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F)):
        x = (x | x << np.uint64(shift)) & np.uint64(mask)
    for shift, mask in ((2, 0x3333333333333333), (1, 0x5555555555555555)):
        x = (x | x << np.uint64(shift)) & np.uint64(mask)
    return x


def _cluster(a, seed):
    if a.shape[0] == a.shape[1]:
        pattern = _pattern(a)
        both = sparse.csr_array(pattern + pattern.T + sparse.eye_array(a.shape[0], dtype=np.int8, format="csr"))
        order = _min_hash_order(both, seed)
        return Ordering(order, order)
    return Ordering(_min_hash_order(a, seed), _min_hash_order(a.T.tocsr(), seed))


def _min_hash_order(a, seed):
    """Sort rows by (first, second, ...) min-hash; empty rows last."""
    rng = np.random.default_rng(seed)
    filled = np.flatnonzero(np.diff(a.indptr))
    used = a.indices[: a.indptr[-1]]
    signature = np.full((HASHES, a.shape[0]), np.iinfo(np.int64).max)
    for line in signature:
        ranks = rng.permutation(a.shape[1])
        if filled.size:
            line[filled] = np.minimum.reduceat(ranks[used], a.indptr[filled])
    return np.lexsort(signature[::-1])


METHODS: dict[str, Callable[[sparse.csr_array, int], Ordering]] = {
    "none": _as_found,
    "rcm": _cuthill_mckee,
    "degree": _degree,
    "random": _random,
    "morton": _morton,
    "cluster": _cluster,
}
