"""What sparse attention moves, and the work itself ready to be timed, for every method of the mask explorer."""

import numpy as np
import torch
from scipy import sparse

from kernels.attention.block_sparse import block_sparse_attention, block_sparse_attention_work
from kernels.attention.csr_softmax import csr_softmax
from kernels.masks.block_select import select_blocks
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm
from workbench.models.attention import favit, pbs_attn, xattention
from workbench.models.attention.dense_attention import attention_weights

__all__ = [
    "bytes_by_block",
    "bytes_by_pair",
    "bytes_once",
    "dense_bytes",
    "on_inputs",
    "run_fused",
    "run_pairs",
    "run_pbs",
    "run_xattention",
]

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


def run_xattention(given, s, seen):
    """Score, select; attend over the kept blocks."""
    arrays = [x.numpy() for x in (given.q, given.k, given.v)]
    keep = np.ascontiguousarray(seen.keep[None, None])

    def estimate():
        scores = xattention.block_scores(
            *arrays[:2], block_size=s["block"], stride=s["stride"], causal=given.causal, mode=s["sampler"]
        )
        return select_blocks(scores, s["threshold"], causal=given.causal)

    return {"estimate": estimate} | on_inputs(
        (*arrays, keep), block_sparse_attention, block_size=s["block"], causal=given.causal
    )


def run_pbs(given, s, seen, **sizes):
    """Sort and select; attend over the kept blocks of sorted keys (sorted queries are for teaching: not timed)."""
    if seen.query_order is not None:
        return {}
    q, k, v = (x.numpy() for x in (given.q, given.k, given.v))
    order = seen.order[None, None]
    sorted_k, sorted_v = (np.take_along_axis(x, order[..., None], axis=2) for x in (k, v))
    keep = np.ascontiguousarray(seen.keep[None, None])
    how = {"block_size": seen.block_size, "causal": given.causal, "key_positions": order}

    def sort_and_select():
        return pbs_attn.select_again(pbs_attn.scored_mask(q, k, permute=s["permute"], **sizes), s["threshold"])

    return {
        "sort and select": sort_and_select,
        "attend": lambda: block_sparse_attention(q, sorted_k, sorted_v, keep, **how),
    }


def run_pairs(given, s, seen):
    """Attend over single pairs: sampled products, softmax of every row, sparse product."""
    if np.count_nonzero(seen.allowed) > PAIR_LIMIT:
        return {}
    pattern = sparse.csr_array(seen.allowed.astype(np.float32))
    q, k, v = (np.ascontiguousarray(x[0, 0].numpy()) for x in (given.q, given.k, given.v))
    q = q * np.float32(q.shape[1] ** -0.5)
    return {"attend": lambda: spmm(csr_softmax(sddmm(pattern, q, k)), v)}


def run_fused(given, window, dilation):
    """Fuse keys and values over windows; attend to the window's number of keys."""
    fusion = favit.fusion_matrix(*given.grid, window, dilation)

    def fused():
        k, v = (torch.from_numpy((fusion @ x[0, 0].numpy()).astype(np.float32))[None, None] for x in (given.k, given.v))
        return attention_weights(given.q, k, causal=False) @ v

    return {"fuse and attend": fused}
