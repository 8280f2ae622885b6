"""The work of sparse attention, ready to be timed, in the forms that several methods share."""

import numpy as np
from scipy import sparse

from kernels.attention.csr_softmax import csr_softmax
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm

__all__ = ["on_inputs", "run_pairs"]

PAIR_LIMIT = 4_000_000


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
