"""NoWag-P, 2:4, and a low-rank matrix for what it leaves out, whose rank is the level: as many bytes as ARMOR."""

from functools import partial

import numpy as np
import torch

from kernels.formats.storage import low_rank_bits
from kernels.matmul.nm_spmm import nm_spmm
from workbench.explorers.pruning.factored import DENSE_FACTORS
from workbench.explorers.pruning.forms import nm_count
from workbench.explorers.pruning.method import Compressed, PruningMethod
from workbench.models.compression.armor_linear import hessian_diag
from workbench.models.compression.nowag_low_rank import nowag_low_rank
from workbench.models.sparse_inference.statistics import InputStatistics

TURNS = 10


def rank_of(level, shape) -> int:
    """Return the rank that a level names."""
    rank = int(level) if level.isdecimal() else 0
    if not 1 <= rank <= min(shape):
        raise ValueError(f"nowag_low_rank: level must be a rank from 1 to {min(shape)}, such as 16, got {level!r}")
    return rank


def count(shape, level, value_bits):
    """Count the 2:4 matrix and both thin ones."""
    thin = low_rank_bits(shape, rank_of(level, shape), value_bits=value_bits)
    return {**nm_count("nowag_low_rank")(shape, "2:4", value_bits), DENSE_FACTORS: thin}


def compress(weight, known, level, turns=TURNS):
    """Seek both parts in turns."""
    h = hessian_diag(InputStatistics(known.gram, known.tokens))
    found = nowag_low_rank(weight, h, rank_of(level, weight.shape), turns=turns)
    left, right = torch.from_numpy(found.left), torch.from_numpy(found.right)

    def pack():
        return partial(_product, found.core, left, right), found.core.nbytes + left.nbytes + right.nbytes

    return Compressed(
        weight=found.to_dense(),
        kept=None,
        bits=found.bits(),
        multiply_adds=found.core.values.size + left.numel() + right.numel(),
        pack=pack,
    )


def _product(core, left, right, x) -> np.ndarray:
    out = nm_spmm(core, x)
    torch.from_numpy(out).addmm_(left, right @ torch.from_numpy(x))
    return out


METHOD = PruningMethod(
    key="nowag_low_rank", title="2:4, NoWag-P, and low rank", levels=("16", "32", "8"), compress=compress,
    source="Liu et al. 2025, arXiv 2510.05528, as a rival of equally many bytes", needs="gram", count=count,
    ladder="levels", masks=False, outline=partial(compress, turns=1),
)  # fmt: skip
