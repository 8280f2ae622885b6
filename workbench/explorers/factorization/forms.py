"""Factors as the explorer of factorisations draws them, for methods that end in the same form."""

from kernels.factor.svd import LowRank
from kernels.formats.storage import low_rank_bits
from widgets.figures.factorization import Factor
from workbench.explorers.factorization.method import Factorised

__all__ = ["low_rank"]


def low_rank(found: LowRank) -> Factorised:
    """Return two thin factors as the explorer draws them."""
    rank = found.left.shape[1]
    left = Factor(name="left factor", values=found.left, axes=("output", "rank"),
                  about=f"{rank} columns, one for each singular value that stays.")  # fmt: skip
    right = Factor(name="right factor", values=found.right, axes=("rank", "input"),
                   about=f"{rank} rows: what the layer reads of its inputs.")  # fmt: skip
    shape = (len(found.left), found.right.shape[1])
    return Factorised(
        factors=(left, right),
        rebuilt=found.left @ found.right,
        bits={"dense factors": low_rank_bits(shape, rank)},
        multiply_adds=rank * sum(shape),
    )
