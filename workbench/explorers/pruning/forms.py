"""What pruned weights become: their bits in the cheapest format of their kind, and the kernel that multiplies them."""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from scipy import sparse

from kernels.formats import storage
from kernels.formats.nm_packed import NMPacked
from kernels.formats.packed_csr import PackedCSR
from kernels.masks.prune import count_pruned
from kernels.matmul.bsr_spmm import bsr_spmm
from kernels.matmul.nm_spmm import nm_spmm
from kernels.matmul.spmm import spmm
from workbench.explorers.pruning.method import VALUE_BITS, Compressed

__all__ = ["as_sparsity", "block_count", "blocks", "n_of_m", "nm_count", "read_nm", "share_count", "unstructured"]


def unstructured(weight: np.ndarray, kept: np.ndarray) -> Compressed:
    """Return weights kept at any places, packed once for the kernel, stored with a bitmap or with 16-bit indices.

    Parameters
    ----------
    weight : float32 (m, n), zero where ``kept`` (bool) is False.
    """
    nnz = int(np.count_nonzero(kept))

    def pack():
        packed = PackedCSR.from_csr(sparse.csr_array(weight))
        return partial(spmm, packed), packed.nbytes

    bits = _unstructured_bits(weight.shape, nnz, VALUE_BITS)
    return Compressed(weight=weight, kept=kept, bits=bits, multiply_adds=nnz, pack=pack)


def n_of_m(weight: np.ndarray, kept: np.ndarray, n: int, m: int) -> Compressed:
    """Return weights of which n of every m inputs stay, packed as such."""

    def pack():
        packed = NMPacked.from_dense(weight, n, m)
        return partial(nm_spmm, packed), packed.nbytes

    return Compressed(
        weight=weight,
        kept=kept,
        bits=_nm_bits(weight.shape, n, m, VALUE_BITS),
        multiply_adds=weight.size // m * n,
        pack=pack,
    )


def blocks(weight: np.ndarray, kept: np.ndarray, block: tuple[int, int]) -> Compressed:
    """Return weights kept in whole blocks, as block CSR for the kernel, stored with a bitmap or with indices."""
    br, bc = block
    count = int(np.count_nonzero(kept)) // (br * bc)

    def pack():
        bsr = sparse.bsr_array(weight, blocksize=block)
        return partial(bsr_spmm, bsr), bsr.data.nbytes + bsr.indices.nbytes + bsr.indptr.nbytes

    return Compressed(
        weight=weight,
        kept=kept,
        bits=_block_bits(weight.shape, count, block, VALUE_BITS),
        multiply_adds=count * br * bc,
        pack=pack,
    )


# Bits, from counts alone --------------------------------------------------------------------------------------------
Shape = tuple[int, int]
Count = Callable[[Shape, str, int], dict[str, int]]  # of `PruningMethod.count`


def share_count(
    key: str, groups: Callable[[Shape], Iterable[Shape]] = lambda shape: [(1, shape[0] * shape[1])]
) -> Count:
    """Return how a method counts that prunes weights at any places to a share.

    Parameters
    ----------
    key : of the method.
    groups : shape -> (how many groups, weights of each), ..., of each of which the share goes; one unless given.
    """

    def count(shape, level, value_bits):
        share = as_sparsity(level, key)
        kept = sum(how_many * (size - count_pruned(size, share)) for how_many, size in groups(shape))
        return _unstructured_bits(shape, kept, value_bits)

    return count


def block_count(key: str, block: Shape) -> Count:
    """Return how a method counts that prunes whole blocks of this size to a share."""

    def count(shape, level, value_bits):
        places = (shape[0] // block[0]) * (shape[1] // block[1])
        return _block_bits(shape, places - count_pruned(places, as_sparsity(level, key)), block, value_bits)

    return count


def nm_count(key: str) -> Count:
    """Return how a method counts of which n of every m inputs stay."""
    return lambda shape, level, value_bits: _nm_bits(shape, *read_nm(level, key), value_bits)


def _unstructured_bits(shape, nnz, value_bits):
    totals = (form(shape, nnz, value_bits=value_bits) for form in (storage.bitmap_bits, storage.csr_bits))
    return _by_kind(nnz * value_bits, min(totals))


def _nm_bits(shape, n, m, value_bits):
    total = storage.nm_bits(shape, n, m, value_bits=value_bits)
    return _by_kind(shape[0] * (shape[1] // m) * n * value_bits, total)


def _block_bits(shape, count, block, value_bits):
    totals = (
        storage.bsr_bits(shape, count, block=block, value_bits=value_bits, bitmap=bitmap) for bitmap in (False, True)
    )
    return _by_kind(count * block[0] * block[1] * value_bits, min(totals))


def _by_kind(values, total):
    return {"values": values, "indices": total - values}


def as_sparsity(level: str, function: str) -> float:
    """Return the share that a level such as "0.7" names; ValueError for any other text."""
    try:
        found = float(level)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise ValueError(f"{function}: level must be the share of the weights that go, such as 0.7, got {level!r}")
    return found


def read_nm(level: str, function: str) -> tuple[int, int]:
    """Return n and m of a level such as "2:4"; ValueError for any other text."""
    try:
        n, m = (int(part) for part in level.split(":"))
    except ValueError:
        n, m = 0, 0
    if not 1 <= n <= m:
        raise ValueError(f"{function}: level must be n:m, such as 2:4, got {level!r}")
    return n, m
