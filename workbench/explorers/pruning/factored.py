"""Matrices as products of factors: their bits, counted from sizes alone, and the products that kernels make of them."""

from fractions import Fraction
from math import gcd

import torch

from kernels.factor.svd import LowRank
from kernels.formats import storage
from workbench.explorers.pruning.forms import as_sparsity
from workbench.explorers.pruning.method import VALUE_BITS, Compressed
from workbench.models.compression.cospadi import sizes_of
from workbench.models.compression.dictionary_linear import SparseDictLinear
from workbench.models.compression.dsformer import DSBlockSpec, DSFactors

__all__ = ["DENSE_FACTORS", "block_count", "block_sizes", "dictionary_count", "dictionary_sizes", "from_blocks",
           "from_dictionary", "from_low_rank", "low_rank_count", "rank_at"]  # fmt: skip

DENSE_FACTORS = "dense factors"
BLOCK_COLS, ATOMS_EACH = 32, 4  # of dense-sparse blocks: columns, and atoms for each coefficient of a row
Shape = tuple[int, int]


def rank_at(shape: Shape, level: str, key: str) -> int:
    """Return the largest rank whose factors take the share of the values that a level leaves, at least 1."""
    m, n = shape
    return max(1, int(_kept(level, key) * m * n / (m + n)))


def low_rank_count(key: str):
    """Return how a method counts that stores two thin factors."""

    def count(shape, level, value_bits):
        return {DENSE_FACTORS: storage.low_rank_bits(shape, rank_at(shape, level, key), value_bits=value_bits)}

    return count


def from_low_rank(found: LowRank) -> Compressed:
    """Return a matrix as the product of two thin ones, which two dense products multiply with."""
    left, right = torch.from_numpy(found.left), torch.from_numpy(found.right)
    shape, rank = (len(left), right.shape[1]), len(right)

    def pack():
        return lambda x: (left @ (right @ torch.from_numpy(x))).numpy(), left.nbytes + right.nbytes

    return Compressed(
        weight=(left @ right).numpy(),
        kept=None,
        bits={DENSE_FACTORS: storage.low_rank_bits(shape, rank, value_bits=VALUE_BITS)},
        multiply_adds=rank * sum(shape),
        pack=pack,
    )


def dictionary_sizes(shape: Shape, level: str, key: str) -> tuple[int, int]:
    """Return k and s whose values take the share that a level leaves, both at least 1."""
    k, s = sizes_of(_kept(level, key), shape[1], shape[0])
    return max(1, k), max(1, s)


def dictionary_count(key: str):
    """Return how a method counts that stores a dictionary and sparse coefficients."""
    return lambda shape, level, value_bits: _dictionary_bits(shape, *dictionary_sizes(shape, level, key), value_bits)


def from_dictionary(layer: SparseDictLinear) -> Compressed:
    """Return a matrix as a dictionary and sparse coefficients: a dense and a sparse product multiply with it."""
    shape = layer.out_features, layer.in_features
    return Compressed(
        weight=layer.to_dense().numpy(),
        kept=None,
        bits=_dictionary_bits(shape, len(layer.dictionary), layer.s, VALUE_BITS),
        multiply_adds=layer.multiply_adds,
        pack=lambda: (layer.columns, layer.nbytes),
    )


def block_sizes(shape: Shape, level: str, key: str) -> DSBlockSpec:
    """Return the sizes of dense-sparse blocks whose values take the share that a level leaves.

    The number of coefficients of a row is the largest with four times as many atoms; what remains goes into up to three
    more atoms, so that neither number falls where the share rises. Both are at least 1.
    """
    m, cols = shape[0], gcd(shape[1], BLOCK_COLS)
    kept = _kept(level, key) * m * cols
    s = max(1, int(kept / (m + ATOMS_EACH * cols)))
    r = max(1, min(int((kept - m * s) / cols), ATOMS_EACH * (s + 1) - 1, m))
    return DSBlockSpec(block_cols=cols, atoms=r, nnz_per_row=s)


def block_count(key: str):
    """Return how a method counts that stores a basis and row-sparse coefficients for every block."""
    return lambda shape, level, value_bits: _block_bits(shape, block_sizes(shape, level, key), value_bits)


def from_blocks(found: DSFactors) -> Compressed:
    """Return a matrix of dense-sparse blocks: a dense product for every block and one sparse product multiply."""
    return Compressed(
        weight=found.to_dense(),
        kept=None,
        bits=_block_bits(found.shape, found.spec, VALUE_BITS),
        multiply_adds=found.num_values(),
        pack=lambda: (found.columns, found.resident_bytes),
    )


def _block_bits(shape, spec, value_bits):
    (m, n), (rows, cols) = shape, spec.block(shape)
    blocks, total = (m // rows) * (n // cols), spec.bits(shape, value_bits=value_bits)
    bases, values = blocks * spec.atoms * cols * value_bits, blocks * rows * spec.nnz_per_row * value_bits
    return {DENSE_FACTORS: bases, "values": values, "indices": total - bases - values}


def _dictionary_bits(shape, k, s, value_bits):
    (m, n), total = shape, storage.dictionary_bits(shape, k, s, value_bits=value_bits)
    dictionary, values = n * k * value_bits, m * s * value_bits
    return {DENSE_FACTORS: dictionary, "values": values, "indices": total - dictionary - values}


def _kept(level, key):
    as_sparsity(level, key)
    return 1 - Fraction(level)
