"""ARMOR's product, a 2:4 core between block-diagonal matrices, against its parts one by one and dense torch.

The shapes are linear layers of MiniLM and BERT-large with blocks of 32; "three calls" multiplies block-diagonally,
by the core and block-diagonally again, each a kernel of ours that writes its result to memory.
"""

from functools import partial

import numpy as np
from scipy import linalg

from workbench.bench import nm_spmm, skinny_spmm
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

SIDE, TOKENS = 32, (1, 32, 512)
QUICK = ((384, 384),)
SUITE = ((384, 384), (1536, 384), (384, 1536), (1024, 4096))
TORCH, THREE = skinny_spmm.PEERS[0], "three calls"


def _build(shape, tokens, threads, loaded):
    from kernels.formats.nm_packed import NMPacked
    from kernels.matmul.nm_spmm import nm_spmm as core_product
    from kernels.matmul.wrapped_nm_spmm import wrapped_nm_spmm, wrapped_nm_spmm_work
    from kernels.transforms.block_diagonal import block_diagonal_multiply

    (rows, k), rng = shape, np.random.default_rng(1)
    core = NMPacked.from_dense(nm_spmm.weights(rows, k, 2, 4), 2, 4)
    left, right = (rng.standard_normal((size // SIDE, SIDE, SIDE)).astype(np.float32) / 6 for size in (rows, k))
    x = rng.standard_normal((k, tokens)).astype(np.float32)
    dense = (linalg.block_diag(*left) @ core.to_dense() @ linalg.block_diag(*right)).astype(np.float32)
    lines = np.ascontiguousarray(x.T)

    def three():
        wide = block_diagonal_multiply(lines, right)
        middle = core_product(core, np.ascontiguousarray(wide.T))
        return block_diagonal_multiply(np.ascontiguousarray(middle.T), left).T

    contenders = [Contender("ours", partial(wrapped_nm_spmm, core, x, left=left, right=right), threads, ours=True),
                  Contender(THREE, three, threads)]  # fmt: skip
    if TORCH.name in loaded:
        torch = TORCH.load()
        full, given = torch.from_numpy(dense), torch.from_numpy(x)
        contenders.append(Contender(TORCH.name, lambda: (full @ given).numpy(), threads))
    work = wrapped_nm_spmm_work(core, tokens, left_side=SIDE, right_side=SIDE)
    return Case(
        work=work.flops,
        work_unit="flop",
        contenders=tuple(contenders),
        check=skinny_spmm.checker(dense, x),
        flops=work.flops,
        bytes=float(work.bytes_streamed),
        dtype="float32",
        facts={"m": rows, "k": k, "n": tokens},
        result_bytes=4 * rows * tokens,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{rows}x{k}x{tokens}", f"{tokens} columns", partial(_build, (rows, k), tokens, threads, tuple(loaded))
        )
        for tokens in TOKENS
        for rows, k in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="wrapped_nm_spmm",
    title="2:4 weights between block-diagonal matrices times dense activations",
    peers=(Peer(THREE, lambda: None, ""), TORCH),
    specs=_specs,
    set_threads=skinny_spmm.BENCH.set_threads,
    own_process=True,
    goals=(Goal("1 columns", TORCH.name, 1.0), *(Goal(f"{tokens} columns", THREE, 1.2) for tokens in TOKENS)),
)
