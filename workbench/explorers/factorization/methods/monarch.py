"""Monarch: two block-diagonal factors with a permutation between them, the nearest ones there are."""

import numpy as np
from scipy import linalg

from kernels.transforms.block_diagonal import block_chain_multiply
from kernels.transforms.monarch import monarch_dense, monarch_project
from widgets.controls.knob import Knob
from widgets.figures.factorization import Factor
from widgets.views.frame.story import Story
from workbench.explorers.factorization.method import Factorised, FactorMethod

VALUE_BITS = 16
NBLOCKS = Knob(
    "monarch_blocks", "Blocks of each factor", "4", choices=tuple((x, x) for x in ("2", "4", "8", "16")),
    help="More blocks are fewer numbers.",
)  # fmt: skip
RANK = Knob(
    "monarch_rank", "Rank of each part", 0, 0, 512, 1,
    help="Singular values of each part that are kept; 0 for as many as the paper's layer has room for.",
)  # fmt: skip


def factorise(weight, gram, settings, progress):
    """Project the matrix part by part."""
    m, n = weight.shape
    blocks = int(settings["monarch_blocks"])
    if m % blocks or n % blocks:
        raise ValueError(f"{blocks} blocks do not divide {m:,} x {n:,}: choose another number of blocks.")
    most = min(m, n) // blocks
    rank = settings["monarch_rank"] or max(1, most // blocks)
    if rank > most:
        raise ValueError(f"With {blocks} blocks a part has at most rank {most:,}: choose a smaller rank, or 0.")
    progress(0.1, f"{blocks * blocks} singular value decompositions")
    w1, w2, _ = monarch_project(np.ascontiguousarray(weight), blocks, rank=rank)
    across = block_chain_multiply(np.eye(blocks * w1.shape[1], dtype=w2.dtype), [w2], [blocks]).T
    return Factorised(
        factors=(
            Factor(name="second factor P L P^T", values=np.ascontiguousarray(across), axes=("output", "number between"),
                   about=f"{blocks} blocks, which the permutation spreads over all rows and columns."),
            Factor(name="first factor R", values=linalg.block_diag(*w1), axes=("number between", "input"),
                   about=f"{blocks} blocks on the diagonal; each reads {n // blocks:,} inputs."),
        ),
        rebuilt=monarch_dense(w1, w2),
        bits={"dense factors": VALUE_BITS * (w1.size + w2.size)},
        multiply_adds=w1.size + w2.size,
    )  # fmt: skip


METHOD = FactorMethod(
    key="monarch", title="Monarch", knobs=(NBLOCKS, RANK), factorise=factorise,
    source="Dao et al. 2022, arXiv 2204.00595",
    stories=(
        Story(
            "Every input reaches every output",
            {"method": "monarch", "monarch_blocks": "8"},
            "Both factors are mostly zero, and their product has no zero at all. On trained weights truncated SVD with "
            "as many numbers is nearer: compare the errors.",
        ),
    ),
)  # fmt: skip
