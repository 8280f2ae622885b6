"""DSFormer: every block of columns is a small dense basis times coefficients of few entries in each row."""

from functools import partial

from workbench.explorers.pruning.factored import block_count, block_sizes, from_blocks
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod
from workbench.models.compression.dsformer import ds_factorize

SWEEPS = 4


def compress(weight, known, level, sweeps=SWEEPS):
    """Factorise every block in a few sweeps."""
    return from_blocks(ds_factorize(weight, block_sizes(weight.shape, level, "dsformer"), sweeps=sweeps))


METHOD = PruningMethod(
    key="dsformer", title="Dense-sparse blocks (DSFormer)", levels=SHARES, compress=compress,
    source="Chand et al. 2023, arXiv 2312.13211", count=block_count("dsformer"), masks=False,
    outline=partial(compress, sweeps=1),
)  # fmt: skip
