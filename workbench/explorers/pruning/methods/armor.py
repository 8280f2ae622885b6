"""ARMOR: a 2:4 core between two block-diagonal matrices, whose blocks are as large as the level says."""

import numpy as np

from kernels.formats.storage import block_diagonal_bits, nm_bits
from workbench.explorers.pruning.factored import DENSE_FACTORS
from workbench.explorers.pruning.method import VALUE_BITS, Compressed, PruningMethod
from workbench.models.compression.armor import armor_factorize
from workbench.models.compression.armor_linear import ArmorLinear, hessian_diag
from workbench.models.sparse_inference.statistics import InputStatistics

ITERATIONS, RATE = 200, 1e-3


def side(level, shape) -> int:
    """Return the side of a block that a level names."""
    found = int(level) if level.isdecimal() else 0
    if not found or found % 4 or shape[0] % found or shape[1] % found:
        raise ValueError(
            f"armor: level must be the side of a block, a multiple of 4 that divides {shape[0]} and {shape[1]}, such "
            f"as 16, got {level!r}"
        )
    return found


def count(shape, level, value_bits):
    """Count the core, its places, and both wrappers."""
    block = side(level, shape)
    core, values = nm_bits(shape, 2, 4, value_bits=value_bits), shape[0] * shape[1] // 2 * value_bits
    wrappers = sum(block_diagonal_bits(size, block, value_bits=value_bits) for size in shape)
    return {"values": values, "indices": core - values, DENSE_FACTORS: wrappers}


def compress(weight, known, level):
    """Search for the factors."""
    h = hessian_diag(InputStatistics(known.gram, known.tokens))
    found = armor_factorize(np.ascontiguousarray(weight), h, side(level, weight.shape), iters=ITERATIONS, lr=RATE)
    layer = ArmorLinear.from_factors(found)
    return Compressed(
        weight=found.to_dense(),
        kept=None,
        bits=count(weight.shape, level, VALUE_BITS),
        multiply_adds=layer.multiply_adds,
        pack=lambda: (layer.columns, layer.nbytes),
    )


METHOD = PruningMethod(
    key="armor", title="2:4 between blocks (ARMOR)", levels=("16", "32", "8"), compress=compress,
    source="Liu et al. 2025, arXiv 2510.05528", needs="gram", count=count, ladder="levels", masks=False,
)  # fmt: skip
