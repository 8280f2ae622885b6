"""What pruned weights become: their bits in the cheapest format of their kind, and the kernel that multiplies them."""

from functools import partial

import numpy as np
from scipy import sparse

from kernels.formats import storage
from kernels.formats.nm_packed import NMPacked
from kernels.formats.packed_csr import PackedCSR
from kernels.matmul.bsr_spmm import bsr_spmm
from kernels.matmul.nm_spmm import nm_spmm
from kernels.matmul.spmm import spmm
from workbench.explorers.pruning.method import VALUE_BITS, Compressed

__all__ = ["as_sparsity", "blocks", "n_of_m", "read_nm", "unstructured"]


def unstructured(weight: np.ndarray, kept: np.ndarray) -> Compressed:
    """Return weights kept at any places, packed once for the kernel, stored with a bitmap or with 16-bit indices.

    Parameters
    ----------
    weight : float32 (m, n), zero where ``kept`` (bool) is False.
    """
    nnz = int(np.count_nonzero(kept))
    values = nnz * VALUE_BITS
    index = min(form(weight.shape, nnz, value_bits=VALUE_BITS) for form in (storage.bitmap_bits, storage.csr_bits))

    def pack():
        packed = PackedCSR.from_csr(sparse.csr_array(weight))
        return partial(spmm, packed), packed.nbytes

    return Compressed(
        weight=weight, kept=kept, bits={"values": values, "indices": index - values}, multiply_adds=nnz, pack=pack
    )


def n_of_m(weight: np.ndarray, kept: np.ndarray, n: int, m: int) -> Compressed:
    """Return weights of which n of every m inputs stay, packed as such."""
    values = weight.size // m * n * VALUE_BITS
    index = storage.nm_bits(weight.shape, n, m, value_bits=VALUE_BITS) - values

    def pack():
        packed = NMPacked.from_dense(weight, n, m)
        return partial(nm_spmm, packed), packed.nbytes

    return Compressed(
        weight=weight,
        kept=kept,
        bits={"values": values, "indices": index},
        multiply_adds=weight.size // m * n,
        pack=pack,
    )


def blocks(weight: np.ndarray, kept: np.ndarray, block: tuple[int, int]) -> Compressed:
    """Return weights kept in whole blocks, as block CSR for the kernel, stored with a bitmap or with indices."""
    br, bc = block
    count = int(np.count_nonzero(kept)) // (br * bc)
    values = count * br * bc * VALUE_BITS
    index = min(
        storage.bsr_bits(weight.shape, count, block=block, value_bits=VALUE_BITS, bitmap=bitmap)
        for bitmap in (False, True)
    )

    def pack():
        bsr = sparse.bsr_array(weight, blocksize=block)
        return partial(bsr_spmm, bsr), bsr.data.nbytes + bsr.indices.nbytes + bsr.indptr.nbytes

    return Compressed(
        weight=weight,
        kept=kept,
        bits={"values": values, "indices": index - values},
        multiply_adds=count * br * bc,
        pack=pack,
    )


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
