"""The nearest Monarch matrix: two factors with so many blocks each, and a permutation between them."""

from functools import partial

import numpy as np

from kernels.transforms.monarch import monarch_dense, monarch_multiply, monarch_project
from workbench.explorers.pruning.factored import DENSE_FACTORS
from workbench.explorers.pruning.method import VALUE_BITS, Compressed, PruningMethod


def sizes(shape, level):
    """Return the number of blocks that a level names, and the rank of each part of a matrix of that shape."""
    m, n = shape
    blocks = int(level) if level.isdecimal() else 0
    if not blocks or m % blocks or n % blocks:
        raise ValueError(
            f"monarch: level must be a number of blocks that divides {m} and {n}, such as 4, got {level!r}"
        )
    return blocks, max(1, min(m, n) // blocks**2)


def numbers(shape, level) -> int:
    """Return how many numbers both factors hold."""
    blocks, rank = sizes(shape, level)
    return blocks * rank * sum(shape)


def count(shape, level, value_bits):
    """Count the two factors; where their numbers stand needs no bit."""
    return {DENSE_FACTORS: numbers(shape, level) * value_bits}


def compress(weight, known, level):
    """Project the weight; nothing of the data is asked for."""
    blocks, rank = sizes(weight.shape, level)
    w1, w2, _ = monarch_project(weight, blocks, rank=rank)

    def pack():
        return partial(_product, w1, w2), w1.nbytes + w2.nbytes

    return Compressed(
        weight=monarch_dense(w1, w2),
        kept=None,
        bits=count(weight.shape, level, VALUE_BITS),
        multiply_adds=numbers(weight.shape, level),
        pack=pack,
    )


def _product(w1, w2, x):
    """Multiply columns of tokens, which the kernel takes as rows: both ways are copies, and are timed."""
    return np.ascontiguousarray(monarch_multiply(np.ascontiguousarray(x.T), w1, w2).T)


METHOD = PruningMethod(
    key="monarch", title="Monarch", levels=("4", "2", "8", "16"), compress=compress,
    source="Dao et al. 2022, arXiv 2204.00595", count=count, ladder="levels", masks=False,
)  # fmt: skip
