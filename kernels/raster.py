r"""Nonzeros of a large sparse matrix into the pixels of a picture.

.. math:: n_{ij} = |\{(r, c) \in A : \lfloor (r - r_0) h / R \rfloor = i,\ \lfloor (c - c_0) w / C \rfloor = j\}|

A window of R x C entries falls into h x w bins. Bins never share an entry and their sizes differ by at most one row
and one column, so `bin_sizes` turns counts into densities without moire. A window no larger than the picture gets one
bin per entry: the picture then is the matrix.

Source: a two-dimensional histogram; the split into bins and the block census are ours.
"""

from dataclasses import dataclass

import numpy as np

from kernels._native import core
from kernels.check import as_csr, as_int, as_ints, check_array, check_threads, is_canonical
from kernels.work import Work

_WHOLE = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
PATTERN_DTYPES = (*_WHOLE, "float16", "float32", "float64", "complex64", "complex128")


@dataclass(frozen=True)
class BlockDensity:
    """How a matrix falls into square blocks.

    Parameters
    ----------
    block_size : rows and columns of a block.
    blocks : blocks in the grid, those at the edge included.
    kept : blocks with at least one entry.
    full : blocks whose every position is an entry.
    covered : positions in kept blocks; ``nnz / covered`` is the density inside them.
    nnz : entries.
    histogram : int64[10], kept blocks by density: (0, 0.1), [0.1, 0.2), ... [0.9, 1].
    """

    block_size: int
    blocks: int
    kept: int
    full: int
    covered: int
    nnz: int
    histogram: np.ndarray

    @property
    def kept_share(self) -> float:
        """Share of the grid's blocks that are kept."""
        return self.kept / self.blocks if self.blocks else 0.0

    @property
    def fill(self) -> float:
        """Density inside the kept blocks."""
        return self.nnz / self.covered if self.covered else 0.0


def raster(a, window=None, shape=(512, 512), *, num_threads=None) -> np.ndarray:
    """Count the stored entries of ``a`` in every pixel.

    Parameters
    ----------
    a : csr_array or csr_matrix (m, n) of any real, complex or bool dtype; columns in any order. Duplicates count as
        often as they are stored, explicit zeros count.
    window : (r0, r1, c0, c1), rows r0..r1-1 and columns c0..c1-1; the whole matrix unless given.
    shape : largest picture (h, w), each from 1 to 8192.
    num_threads : threads for this call; the global setting unless given.

    Returns
    -------
    uint32 (min(h, r1 - r0), min(w, c1 - c0)); its sum is the number of entries in the window.

    Raises
    ------
    TypeError : ``a`` is not CSR, or a window or shape entry is not an integer.
    ValueError : malformed CSR (columns: in the window's rows), a window outside the matrix, or a shape out of range.

    Cost
    ----
    One pass over the window's rows: 4 or 8 bytes per entry; see `raster_work`.
    """
    threads = check_threads(num_threads, function="raster")
    given = {"function": "raster", "name": "a", "dtypes": PATTERN_DTYPES}
    a = as_csr(a, **given, read_indices=False)
    r0, r1, c0, c1 = _checked_window("raster", window, a.shape)
    h, w = _checked_shape("raster", shape)
    picture = np.empty((min(h, r1 - r0), min(w, c1 - c0)), np.uint32)
    if not core.raster_csr(a.indptr, a.indices, a.shape[1], r0, r1, c0, c1, picture, threads):
        as_csr(a, **given)  # names the index that is out of range
    return picture


def raster_reference(a, window=None, shape=(512, 512)) -> np.ndarray:
    """Count as `raster` does, from the formula."""
    r0, r1, c0, c1 = window or (0, a.shape[0], 0, a.shape[1])
    h, w = min(shape[0], r1 - r0), min(shape[1], c1 - c0)
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    columns = a.indices[: a.indptr[-1]].astype(np.int64)
    inside = (rows >= r0) & (rows < r1) & (columns >= c0) & (columns < c1)
    if h == 0 or w == 0:
        return np.zeros((h, w), np.uint32)
    i = (rows[inside] - r0) * h // (r1 - r0)
    j = (columns[inside] - c0) * w // (c1 - c0)
    return np.bincount(i * w + j, minlength=h * w).reshape(h, w).astype(np.uint32)


def raster_work(a, window=None, shape=(512, 512)) -> Work:
    """Return what `raster` moves at least: row pointers and column indices of the window's rows once, pixels once."""
    a = as_csr(a, function="raster_work", name="a", dtypes=PATTERN_DTYPES, read_indices=False)
    r0, r1, c0, c1 = _checked_window("raster_work", window, a.shape)
    shape = _checked_shape("raster_work", shape)
    entries = int(a.indptr[r1] - a.indptr[r0])
    pixels = min(shape[0], r1 - r0) * min(shape[1], c1 - c0)
    streamed = entries * a.indices.itemsize + (r1 - r0 + 1) * a.indptr.itemsize + pixels * 4
    return Work(flops=0, bytes_streamed=streamed, gathers=entries)


def raster_bits(bits, columns, window=None, shape=(512, 512), *, num_threads=None) -> np.ndarray:
    """Count the ones of a bit matrix in every pixel.

    Parameters
    ----------
    bits : uint8 (m, ceil(columns / 8)), C-contiguous; column j is bit ``j % 8`` of byte ``j // 8``, as
        ``np.packbits(mask, axis=1, bitorder="little")`` makes it.
    columns : columns of the bit matrix.
    window, shape, num_threads : as for `raster`.

    Returns
    -------
    uint32 (min(h, r1 - r0), min(w, c1 - c0)).

    Raises
    ------
    TypeError, ValueError : bits are not packed as above, or as for `raster`.
    """
    threads = check_threads(num_threads, function="raster_bits")
    columns = check_bits(bits, columns, function="raster_bits")
    r0, r1, c0, c1 = _checked_window("raster_bits", window, (bits.shape[0], columns))
    h, w = _checked_shape("raster_bits", shape)
    picture = np.empty((min(h, r1 - r0), min(w, c1 - c0)), np.uint32)
    core.raster_bits(bits, r0, r1, c0, c1, picture, threads)
    return picture


def raster_bits_reference(bits, columns, window=None, shape=(512, 512)) -> np.ndarray:
    """Count as `raster_bits` does, on the unpacked mask."""
    from scipy import sparse

    mask = np.unpackbits(bits, axis=1, count=columns, bitorder="little")
    return raster_reference(sparse.csr_array(mask), window, shape)


def bin_edges(size: int, bins: int) -> np.ndarray:
    """Return int64[min(bins, size) + 1]: where each bin starts, then ``size``; bins differ by one element at most."""
    size = as_int(size, function="bin_edges", name="size", low=0, high=2**63 - 1)
    bins = min(as_int(bins, function="bin_edges", name="bins", low=0, high=2**24), size)
    whole, rest = divmod(size, max(bins, 1))  # apart, so that no product passes 63 bits
    i = np.arange(bins + 1, dtype=np.int64)
    return i * whole - (-i * rest // max(bins, 1))


def bin_areas(window, shape) -> np.ndarray:
    """Return int64 (h, w): matrix positions in every pixel of `raster`'s picture; counts over areas are densities."""
    r0, r1, c0, c1 = as_ints(window, 4, function="bin_areas", name="window (r0, r1, c0, c1)", low=0, high=2**63 - 1)
    shape = _checked_shape("bin_areas", shape)
    if r1 < r0 or c1 < c0:
        raise ValueError(f"bin_areas: window must be (r0, r1, c0, c1) with r0 <= r1 and c0 <= c1, got {window}")
    return np.multiply.outer(np.diff(bin_edges(r1 - r0, shape[0])), np.diff(bin_edges(c1 - c0, shape[1])))


def window_entries(a, window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and values of the stored entries in ``window``, in storage order."""
    a, _ = is_canonical(a, function="window_entries", name="a", dtypes=PATTERN_DTYPES)
    r0, r1, c0, c1 = _checked_window("window_entries", window, a.shape)
    begin, end = a.indptr[r0], a.indptr[r1]
    columns = a.indices[begin:end]
    rows = np.repeat(np.arange(r0, r1), np.diff(a.indptr[r0 : r1 + 1]))
    inside = (columns >= c0) & (columns < c1)
    return rows[inside], columns[inside].astype(np.int64), a.data[begin:end][inside]


def block_density(a, block_size, *, num_threads=None) -> BlockDensity:
    """Count blocks with entries, and how full they are, when ``a`` is cut into square blocks.

    Parameters
    ----------
    a : csr_array or csr_matrix (m, n) without duplicate positions.
    block_size : from 1 to 65,536.

    Returns
    -------
    BlockDensity

    Raises
    ------
    ValueError : duplicates or unsorted columns (call ``sum_duplicates()``), or block_size out of range.
    """
    threads = check_threads(num_threads, function="block_density")
    a, rising = is_canonical(a, function="block_density", name="a", dtypes=PATTERN_DTYPES)
    if not rising:
        raise ValueError("block_density: a must have sorted, distinct columns; call a.sum_duplicates() first")
    block_size = as_int(block_size, function="block_density", name="block_size", low=1, high=65536)
    rows, columns = a.shape
    histogram, covered_full = np.zeros(10, np.int64), np.zeros(2, np.int64)
    core.block_fill(a.indptr, a.indices, columns, block_size, histogram, covered_full, threads)
    return BlockDensity(
        block_size=block_size,
        blocks=-(-rows // block_size) * -(-columns // block_size),
        kept=int(histogram.sum()),
        full=int(covered_full[1]),
        covered=int(covered_full[0]),
        nnz=int(a.indptr[-1]),
        histogram=histogram,
    )


def bit_block_density(bits, columns, block_size, *, num_threads=None) -> BlockDensity:
    """Count blocks of a bit matrix as `block_density` does of a sparse one.

    Parameters
    ----------
    bits, columns : as for `raster_bits`.
    block_size : must divide both sides of the matrix, into at most 8,192 blocks each way.

    Returns
    -------
    `BlockDensity`, equal to `block_density` of the unpacked mask.

    Raises
    ------
    ValueError : block_size does not divide a side, or leaves more than 8,192 blocks on one.
    """
    block_size = as_int(block_size, function="bit_block_density", name="block_size", low=1)
    columns = check_bits(bits, columns, function="bit_block_density")
    sides = (len(bits), columns)
    if any(side % block_size or side // block_size > 8192 for side in sides) or 0 in sides:
        raise ValueError(
            f"bit_block_density: block_size must divide {sides[0]} x {sides[1]} into at most 8192 blocks each way; "
            f"got {block_size}"
        )
    grid = (sides[0] // block_size, sides[1] // block_size)
    entries = raster_bits(bits, columns, shape=grid, num_threads=num_threads)
    kept, area = entries[entries > 0].astype(np.int64), block_size * block_size
    return BlockDensity(
        block_size=block_size,
        blocks=grid[0] * grid[1],
        kept=len(kept),
        full=int((kept == area).sum()),
        covered=len(kept) * area,
        nnz=int(kept.sum()),
        histogram=np.bincount(np.minimum(9, kept * 10 // area), minlength=10),
    )


def block_density_reference(a, block_size) -> BlockDensity:
    """Count as `block_density` does, block by block on the dense pattern."""
    dense = np.zeros(a.shape, bool)
    dense[np.repeat(np.arange(a.shape[0]), np.diff(a.indptr)), a.indices[: a.indptr[-1]]] = True
    rows, columns = a.shape
    blocks = [
        dense[i : i + block_size, j : j + block_size]
        for i in range(0, rows, block_size)
        for j in range(0, columns, block_size)
    ]
    kept = [b for b in blocks if b.any()]
    histogram = np.zeros(10, np.int64)
    for b in kept:
        histogram[min(9, int(b.sum()) * 10 // b.size)] += 1
    full = sum(bool(b.all()) for b in kept)
    return BlockDensity(
        block_size, len(blocks), len(kept), full, sum(b.size for b in kept), int(dense.sum()), histogram
    )


def check_bits(bits, columns, *, function: str) -> int:
    """Return ``columns`` as an int, after checking that ``bits`` is a bit matrix of so many (see `raster_bits`)."""
    columns = as_int(columns, function=function, name="columns", low=0)
    check_array(bits, function=function, name="bits", dtypes=(np.uint8,))
    if bits.ndim != 2 or not bits.flags.c_contiguous:
        raise ValueError(f"{function}: bits must be C-contiguous and have two dimensions; use numpy.packbits(axis=1)")
    if bits.shape[1] != -(-columns // 8):
        raise ValueError(
            f"{function}: bits has {bits.shape[1]} bytes a row, which do not fit {columns} columns; packbits makes "
            "ceil(columns / 8)"
        )
    return columns


def _checked_window(function, window, shape):
    if window is None:
        return 0, shape[0], 0, shape[1]
    r0, r1, c0, c1 = as_ints(window, 4, function=function, name="window (r0, r1, c0, c1)")
    if not (0 <= r0 <= r1 <= shape[0] and 0 <= c0 <= c1 <= shape[1]):
        raise ValueError(f"{function}: window {(r0, r1, c0, c1)} leaves the matrix of {shape[0]} x {shape[1]}; clip it")
    return r0, r1, c0, c1


def _checked_shape(function, shape):
    h, w = as_ints(shape, 2, function=function, name="shape (h, w)", low=1, high=8192)
    return h, w
