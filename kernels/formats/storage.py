"""How many bits a matrix takes in each format: exact counts from sizes alone, before anything is packed.

Padding counts. An index takes whole bits, and the total of a tensor is rounded up to whole bytes where bytes are asked
for (`whole_bytes`). Symbols: an m x n matrix with ``nnz`` stored entries of ``value_bits`` each.
"""

from math import ceil, comb, lgamma, log

from kernels.check import as_int, as_ints

__all__ = [
    "bitmap_bits", "block_diagonal_bits", "block_group_bits", "bsr_bits", "csr_bits", "dense_bits",
    "dense_sparse_bits", "dictionary_bits", "low_rank_bits", "nm_bits", "position_bound_bits", "quantised_bits",
    "tiled_csl_bits", "whole_bytes",
]  # fmt: skip

MOST = 2**48  # of a side or a count: products of any two stay exact and quick
EXACT_POSITIONS = 10_000  # up to here the number of patterns is computed exactly


def dense_bits(shape, *, value_bits=16) -> int:
    """Return m n value_bits.

    Parameters
    ----------
    shape : (m, n).
    value_bits : of a stored value, from 1 to 64.

    Raises
    ------
    TypeError, ValueError : as every function of this module, no integers or out of range.
    """
    m, n = _shape(shape, "dense_bits")
    return m * n * _value_bits(value_bits, "dense_bits")


def csr_bits(shape, nnz, *, value_bits=16, index_bits=None) -> int:
    """Return nnz (value_bits + index_bits) + 32 (m + 1): values, column indices, and row pointers of 32 bits.

    Parameters
    ----------
    shape : (m, n).
    nnz : stored entries, from 0 to m n.
    value_bits : of a stored value, from 1 to 64.
    index_bits : of a column index, from 1 to 64; None means 16 up to 65,536 columns, else 32.
    """
    name = "csr_bits"
    (m, n), nnz = _shape(shape, name), _nnz(nnz, shape, name)
    if index_bits is None:
        index_bits = 16 if n <= 2**16 else 32
    index_bits = as_int(index_bits, function=name, name="index_bits", low=1, high=64)
    return nnz * (_value_bits(value_bits, name) + index_bits) + 32 * (m + 1)


def bitmap_bits(shape, nnz, *, value_bits=16) -> int:
    """Return nnz value_bits + m n: the values, and one bit for every place.

    Parameters
    ----------
    shape, nnz, value_bits : as for `csr_bits`.
    """
    (m, n), nnz = _shape(shape, "bitmap_bits"), _nnz(nnz, shape, "bitmap_bits")
    return nnz * _value_bits(value_bits, "bitmap_bits") + m * n


def position_bound_bits(shape, nnz, *, value_bits=16) -> int:
    """Return nnz value_bits + log2 C(m n, nnz), rounded up: no format of unknown patterns can take less.

    Parameters
    ----------
    shape, nnz, value_bits : as for `csr_bits`.

    Notes
    -----
    Exact up to 10,000 places; beyond, the logarithm is computed in float64, with an error below 10^-14 m n bits.

    Source
    ------
    The number of patterns with nnz of m n places; Stirling's series through the logarithm of the gamma function.
    """
    (m, n), nnz = _shape(shape, "position_bound_bits"), _nnz(nnz, shape, "position_bound_bits")
    places, values = m * n, nnz * _value_bits(value_bits, "position_bound_bits")
    if places <= EXACT_POSITIONS:
        return values + (comb(places, nnz) - 1).bit_length()
    if nnz in (0, places):
        return values
    patterns = lgamma(places + 1) - lgamma(nnz + 1) - lgamma(places - nnz + 1)
    return values + ceil(max(0.0, patterns) / log(2))


def nm_bits(shape, n, m, *, value_bits=16) -> int:
    """Return (rows columns / m) n (value_bits + ceil(log2 m)): n values and their places for every m neighbours.

    Parameters
    ----------
    shape : (rows, columns), columns a multiple of m.
    n, m : n of every m stay; 0 <= n <= m, m >= 1.
    value_bits : of a stored value, from 1 to 64.
    """
    rows, columns = _shape(shape, "nm_bits")
    m = as_int(m, function="nm_bits", name="m", low=1, high=MOST)
    n = as_int(n, function="nm_bits", name="n", low=0, high=m)
    if columns % m:
        raise ValueError(f"nm_bits: shape must have columns that are a multiple of m={m}, got {columns}; pad it")
    return rows * (columns // m) * n * (_value_bits(value_bits, "nm_bits") + _index_width(m))


def bsr_bits(shape, blocks, *, block, value_bits=16, bitmap=False) -> int:
    """Return the bits of ``blocks`` dense blocks: values, then 32 per block and 32 (m / br + 1), or one per place.

    Parameters
    ----------
    shape : (m, n), multiples of the block.
    blocks : stored blocks, from 0 to m n / (br bc).
    block : (br, bc), rows and columns of a block.
    value_bits : of a stored value, from 1 to 64.
    bitmap : False counts 32-bit column indices and row pointers; True one bit for every place of a block.
    """
    name = "bsr_bits"
    m, n = _shape(shape, name)
    br, bc = as_ints(block, 2, function=name, name="block", low=1, high=MOST)
    if m % br or n % bc:
        raise ValueError(f"{name}: shape must be multiples of the block {br} x {bc}, got {m} x {n}; pad it")
    places = (m // br) * (n // bc)
    blocks = as_int(blocks, function=name, name="blocks", low=0, high=places)
    if not isinstance(bitmap, bool):
        raise TypeError(f"{name}: bitmap must be True or False, got {type(bitmap).__name__}")
    index = places if bitmap else 32 * blocks + 32 * (m // br + 1)
    return blocks * br * bc * _value_bits(value_bits, name) + index


def tiled_csl_bits(tile_nnz, *, vector=4) -> int:
    """Return 32 bits for every stored entry and every word of padding, and 32 (tiles + 2) for offsets.

    Each entry is a word of 32 bits, half value, half place in its tile; each tile is padded to whole vectors.

    Parameters
    ----------
    tile_nnz : entries of each tile, a sequence of ints.
    vector : words of a vector.

    Source
    ------
    Xia et al. 2023, "Flash-LLM", section 4 (Tiled-CSL).
    """
    name = "tiled_csl_bits"
    counts = _counts(tile_nnz, name, "tile_nnz")
    vector = as_int(vector, function=name, name="vector", low=1, high=MOST)
    words = sum(-(-each // vector) * vector for each in counts)
    return 32 * words + 32 * (len(counts) + 2)


def block_group_bits(row_blocks, *, block_rows=4, group=4, value_bits=8, index_bits=64) -> int:
    """Return the bits of blocks of ``block_rows`` x 1 in groups: values and one index per block, and row pointers.

    The blocks of a block row are cut into groups, the last of which is padded; each holds ``group`` blocks, and 64 bits
    for every block row and one more say where its groups begin.

    Parameters
    ----------
    row_blocks : stored blocks of each block row, a sequence of ints.
    block_rows : rows of a block.
    group : blocks of a group.
    value_bits : of a stored value, from 1 to 64.
    index_bits : of an index, from 1 to 64.

    Source
    ------
    Shen et al. 2023, "An efficient sparse inference software accelerator for Transformer-based language models on
    CPUs".
    """
    name = "block_group_bits"
    counts = _counts(row_blocks, name, "row_blocks")
    block_rows = as_int(block_rows, function=name, name="block_rows", low=1, high=MOST)
    group = as_int(group, function=name, name="group", low=1, high=MOST)
    index_bits = as_int(index_bits, function=name, name="index_bits", low=1, high=64)
    padded = sum(-(-each // group) * group for each in counts)
    return padded * (block_rows * _value_bits(value_bits, name) + index_bits) + 64 * (len(counts) + 1)


def low_rank_bits(shape, rank, *, value_bits=16) -> int:
    """Return rank (m + n) value_bits: the two factors of a product of that rank.

    Parameters
    ----------
    shape : (m, n).
    rank : columns of the first factor, from 0 to min(m, n).
    value_bits : of a stored value, from 1 to 64.
    """
    m, n = _shape(shape, "low_rank_bits")
    rank = as_int(rank, function="low_rank_bits", name="rank", low=0, high=min(m, n))
    return rank * (m + n) * _value_bits(value_bits, "low_rank_bits")


def dictionary_bits(shape, atoms, s, *, layers=1, value_bits=16) -> int:
    """Return value_bits (n atoms + s m layers) + m layers min(atoms, s ceil(log2 atoms)): a dictionary and its codes.

    Every output of every layer is a combination of s atoms; which ones is told by a bit for every atom or by a list,
    whichever is smaller.

    Parameters
    ----------
    shape : (m, n), outputs and inputs of a layer.
    atoms : columns of the dictionary, which has n rows; at least 1.
    s : atoms of an output, from 1 to ``atoms``.
    layers : matrices of this shape that share the dictionary, at least 1.
    value_bits : of a stored value, from 1 to 64.

    Source
    ------
    Makhov et al. 2025, "CoSpaDi", whose own count leaves out the places.
    """
    name = "dictionary_bits"
    (m, n), bits = _shape(shape, name), _value_bits(value_bits, name)
    atoms = as_int(atoms, function=name, name="atoms", low=1, high=MOST)
    s = as_int(s, function=name, name="s", low=1, high=atoms)
    outputs = m * as_int(layers, function=name, name="layers", low=1, high=MOST)
    return bits * (n * atoms + s * outputs) + outputs * min(atoms, s * _index_width(atoms))


def dense_sparse_bits(shape, block, atoms, s, *, value_bits=16) -> int:
    """Return P Q [value_bits (r b_c + b_r s) + b_r min(r, s ceil(log2 r))]: a basis and codes for each of P Q blocks.

    Parameters
    ----------
    shape : (m, n), multiples of the block.
    block : (b_r, b_c), rows and columns of a block.
    atoms : r, rows of the basis of a block; at least 1.
    s : atoms of a row of a block, from 1 to ``atoms``.
    value_bits : of a stored value, from 1 to 64.

    Source
    ------
    Chand et al. 2023, "DSFormer"; the places counted as for `dictionary_bits`.
    """
    name = "dense_sparse_bits"
    (m, n), (rows, cols) = _shape(shape, name), as_ints(block, 2, function=name, name="block", low=1, high=MOST)
    if m % rows or n % cols:
        raise ValueError(f"{name}: shape must be multiples of the block {rows} x {cols}, got {m} x {n}; pad it")
    value_bits = _value_bits(value_bits, name)
    atoms = as_int(atoms, function=name, name="atoms", low=1, high=MOST)
    s = as_int(s, function=name, name="s", low=1, high=atoms)
    return (m // rows) * (n // cols) * dictionary_bits((rows, cols), atoms, s, value_bits=value_bits)


def block_diagonal_bits(n, block, *, value_bits=16) -> int:
    """Return n block value_bits: n / block square blocks on the diagonal.

    Parameters
    ----------
    n : side of the matrix, a multiple of the block.
    block : side of a block.
    value_bits : of a stored value, from 1 to 64.
    """
    name = "block_diagonal_bits"
    n = as_int(n, function=name, name="n", low=0, high=MOST)
    block = as_int(block, function=name, name="block", low=1, high=MOST)
    if n % block:
        raise ValueError(f"{name}: n must be a multiple of block={block}, got {n}; pad it")
    return n * block * _value_bits(value_bits, name)


def quantised_bits(shape, bits, *, group, scale_bits=16, zero_bits=16) -> int:
    """Return m n bits + (m n / group) (scale_bits + zero_bits): codes, and a scale and a zero point for every group.

    Parameters
    ----------
    shape : (m, n), m n a multiple of the group.
    bits : of a code, from 1 to 16.
    group : values that share a scale.
    scale_bits, zero_bits : of a scale and of a zero point, from 0 to 64.
    """
    name = "quantised_bits"
    m, n = _shape(shape, name)
    bits = as_int(bits, function=name, name="bits", low=1, high=16)
    group = as_int(group, function=name, name="group", low=1, high=MOST)
    scale_bits = as_int(scale_bits, function=name, name="scale_bits", low=0, high=64)
    zero_bits = as_int(zero_bits, function=name, name="zero_bits", low=0, high=64)
    if m * n % group:
        raise ValueError(f"{name}: group must divide the {m * n} values, got {group}")
    return m * n * bits + m * n // group * (scale_bits + zero_bits)


def whole_bytes(bits) -> int:
    """Return how many bytes hold so many bits.

    Parameters
    ----------
    bits : at least 0.
    """
    return -(-as_int(bits, function="whole_bytes", name="bits", low=0) // 8)


def _shape(shape, function):
    return as_ints(shape, 2, function=function, name="shape (m, n)", low=0, high=MOST)


def _nnz(nnz, shape, function):
    m, n = shape
    return as_int(nnz, function=function, name="nnz", low=0, high=m * n)


def _value_bits(value_bits, function):
    return as_int(value_bits, function=function, name="value_bits", low=1, high=64)


def _index_width(choices):
    """Return the whole bits that tell so many choices apart."""
    return (choices - 1).bit_length()


def _counts(values, function, name):
    """Return the counts of a sequence as ints of at least 0."""
    try:
        found = tuple(values)
    except TypeError:
        raise TypeError(f"{function}: {name} must be a sequence of ints, got {type(values).__name__}") from None
    return as_ints(found, len(found), function=function, name=name, low=0, high=MOST)
