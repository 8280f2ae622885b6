"""What sparse attention moves, and the work itself ready to be timed, in the forms that several methods share."""

import numpy as np
from scipy import sparse

from kernels.attention.block_sparse import block_sparse_attention_work
from kernels.attention.csr_softmax import csr_softmax
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm

__all__ = ["bytes_by_block", "bytes_by_pair", "bytes_once", "dense_bytes", "on_inputs", "run_pairs"]

PAIR_LIMIT = 4_000_000
DENSE_BLOCK = 64


def bytes_by_block(given, s, seen) -> int:
    """Count queries and output once, keys and values once per kept block."""
    t, d = given.q.shape[2:]
    return block_sparse_attention_work(seen.keep[None, None], t=t, d=d, block_size=seen.block_size).bytes_streamed


def bytes_by_pair(given, s, seen) -> int:
    """Count queries and output once, a key and a value per slot of the softmax: no block shares them."""
    t, d = given.q.shape[2:]
    pairs = t * (t + 1) / 2 if seen.causal else t * t
    return 4 * d * (2 * t + 2 * round(seen.density * pairs))


def bytes_once(given, arrays) -> int:
    """Count that many (t, d) arrays, each moved once."""
    return 4 * given.q.shape[2] * given.q.shape[3] * arrays


def dense_bytes(given) -> int:
    """Count what dense attention in blocks of 64 moves by the rule of `bytes_by_block`."""
    t, d = given.q.shape[2:]
    n = -(-t // DENSE_BLOCK)
    every = np.ones((1, 1, n, n), bool)
    return block_sparse_attention_work(every, t=t, d=d, block_size=DENSE_BLOCK, causal=given.causal).bytes_streamed


def on_inputs(inputs, function, **how):
    """Return the call of a method that is one function."""
    return {"attend": lambda: function(*inputs, **how)}


def run_pairs(given, s, seen):
    """Attend over single pairs: sampled products, softmax of every row, sparse product."""
    if np.count_nonzero(seen.allowed) > PAIR_LIMIT:
        return {}
    pattern = sparse.csr_array(seen.allowed.astype(np.float32))
    q, k, v = (np.ascontiguousarray(x[0, 0].numpy()) for x in (given.q, given.k, given.v))
    q = q * np.float32(q.shape[1] ** -0.5)
    return {"attend": lambda: spmm(csr_softmax(sddmm(pattern, q, k)), v)}
