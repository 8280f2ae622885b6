"""PBS-Attn in the explorer: keys sorted inside segments before blocks are chosen.

Wang et al. 2025, "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270.
"""

import dataclasses

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention
from kernels.masks.block_select import select_blocks
from widgets.controls.knob import Knob
from widgets.views.frame.story import Story
from workbench.explorers.attention.curves import THRESHOLDS, block_mass, over_thresholds
from workbench.explorers.attention.knobs import BY_RULE, SELECTION
from workbench.explorers.attention.method import DENSE_LIMIT, Method, Variant, with_blocks
from workbench.models.attention import pbs_attn
from workbench.models.attention.dense_attention import attention_weights, dense_attention

SORTS = ("keys", "random", "none")
KNOBS = (
    *SELECTION,
    Knob("segment_blocks", "Segment (blocks)", 2, 1, 16, scale="log2", help="Keys are sorted inside segments."),
    Knob(
        "permute",
        "Sorting",
        "keys",
        choices=(
            ("keys", "keys by the last queries' attention"),
            ("random", "keys at random"),
            ("none", "no sorting"),
            ("queries", "queries"),
            ("both", "keys and queries"),
        ),
        help="What is sorted inside segments.",
    ),
)


def _sizes(given, s):
    """Block and segment; without causality all tokens, in whole blocks, are one segment."""
    block = s["block"]
    segment = s["segment_blocks"] * block if given.causal else -(-given.q.shape[2] // block) * block
    return {"block_size": block, "segment_size": segment, "causal": given.causal}


def _trace(given, s):
    sizes = _sizes(given, s)
    seen = pbs_attn.trace(
        given.q, given.k, threshold=s["threshold"], permute=s["permute"], dense_limit=DENSE_LIMIT, **sizes
    )
    rows = None
    if s["permute"] in ("queries", "both"):
        rows = pbs_attn.query_aware_permutation(given.q, given.k, **sizes)[0, 0]
    facts = dict(seen.facts)
    if s["choose"] == "ratio":
        scored = pbs_attn.scored_mask(given.q, given.k, permute=s["permute"], **sizes)
        eligible = np.tri(len(scored.segment_mask), dtype=bool) & ~scored.segment_mask if given.causal else None
        chosen = select_blocks(scored.block_scores, causal=False, eligible=eligible, method="ratio", k=s["kept_share"])
        mask = dataclasses.replace(scored, keep=scored.keep | chosen)
        allowed = None if seen.allowed is None else pbs_attn.token_mask(mask, seen.t)[0, 0]
        blocks = pbs_attn.computed_blocks(mask)[0, 0]
        spent = pbs_attn.mask_cost(mask, given.q.shape[3], permute=s["permute"])
        seen = with_blocks(given, seen, blocks, allowed, spent)
        facts["kept blocks outside the diagonal segment"] = int((mask.keep & ~mask.segment_mask).sum())
        facts["share of the kept blocks that lie in diagonal segments"] = pbs_attn.diagonal_share(mask)
    if seen.t <= DENSE_LIMIT:
        facts["output with every block kept: largest relative difference from unsorted attention (measured)"] = (
            _unpermuted_difference(given, seen.order, rows, seen.block_size)
        )
    return dataclasses.replace(seen, facts=facts, query_order=rows)


def _unpermuted_difference(given, order, rows, block) -> float:
    """Attend over sorted keys (and queries), put the rows back, compare with attention that sorted nothing."""
    plain = dense_attention(given.q, given.k, given.v, causal=given.causal)
    k, v = given.k[:, :, order], given.v[:, :, order]
    if rows is None:
        n = -(-given.q.shape[2] // block)
        arrays = [np.ascontiguousarray(x.numpy()) for x in (given.q, k, v)]
        every = np.ones((1, 1, n, n), bool)
        how = {"block_size": block, "causal": given.causal, "key_positions": order[None, None]}
        found = torch.from_numpy(block_sparse_attention(*arrays, every, **how))
    else:
        seen = torch.from_numpy(rows[:, None] >= order if given.causal else np.ones((1, 1), bool))
        sorted_rows = attention_weights(given.q[:, :, rows], k, causal=False, allowed=seen) @ v
        found = sorted_rows[:, :, np.argsort(rows)]
    return float((found - plain).abs().max() / plain.abs().max())


def _curves(given, s, seen):
    """One curve per order of the keys, over thresholds; the true attention is sorted alike."""
    if seen.attention is None:
        return []
    found = []
    for permute in dict.fromkeys((s["permute"], *SORTS)):
        scored = pbs_attn.scored_mask(given.q, given.k, permute=permute, **_sizes(given, s))
        rows, columns = scored.query_perm[0, 0], scored.perm[0, 0]
        alike = seen.attention if permute not in ("queries", "both") else seen.attention[rows]
        mass = block_mass(alike[:, columns] if permute != "none" else alike, scored.block_size)
        masks = [pbs_attn.select_again(scored, tau) for tau in THRESHOLDS]
        density = [pbs_attn.computed_density(mask) for mask in masks]
        label = {"keys": "sorted keys", "none": "unsorted", "random": "random order"}.get(permute, f"sorted {permute}")
        found.append(over_thresholds(f"PBS-Attn, {label}", density, [mask.keep for mask in masks], mass))
    return found


def _runs(given, s, seen):
    """Sort and select; attend over the kept blocks of sorted keys (sorted queries are for teaching: not timed)."""
    if seen.query_order is not None:
        return {}
    q, k, v = (x.numpy() for x in (given.q, given.k, given.v))
    order, sizes = seen.order[None, None], _sizes(given, s)
    sorted_k, sorted_v = (np.take_along_axis(x, order[..., None], axis=2) for x in (k, v))
    keep = np.ascontiguousarray(seen.keep[None, None])
    how = {"block_size": seen.block_size, "causal": given.causal, "key_positions": order}

    def sort_and_select():
        return pbs_attn.select_again(pbs_attn.scored_mask(q, k, permute=s["permute"], **sizes), s["threshold"])

    return {
        "sort and select": sort_and_select,
        "attend": lambda: block_sparse_attention(q, sorted_k, sorted_v, keep, **how),
    }


STORIES = (
    Story(
        "Sorting gathers the heavy keys",
        {
            "input": "heavy",
            "tokens": 4096,
            "block": 64,
            "segment_blocks": 4,
            "choose": "ratio",
            "kept_share": 0.25,
            "compare_with": "pbs_none",
            "right": "permuted",
        },
        "Two keys in a hundred are heavy, and they are scattered over all blocks. Both methods keep a quarter of the "
        "blocks. On the right the keys are unsorted: every block has a few heavy keys, and a quarter of the blocks "
        "holds half of the attention. On the left they are sorted inside segments of 256 tokens: the heavy ones fill "
        "the first block of each segment, and a quarter of the blocks holds nearly all of the attention. Compare the "
        "first two rows of the table.",
    ),
    Story(
        "The same pairs in both orders",
        {"input": "heavy", "tokens": 1024, "block": 64, "segment_blocks": 4, "left": "permuted", "right": "allowed"},
        "On the left, in the order of the sorted keys, the computed pairs form solid blocks. On the right the same "
        "pairs stand in the original order, as scattered columns. Softmax does not depend on the order of the keys. "
        "The table says by how much the output differs from attention without sorting.",
    ),
    Story(
        "Longer segments",
        {
            "input": "heavy",
            "tokens": 4096,
            "block": 64,
            "segment_blocks": 16,
            "choose": "ratio",
            "kept_share": 0.25,
            "left": "sorted",
            "right": "permuted",
        },
        "In segments of 1,024 tokens sorting gathers the heavy keys better. But the segment on the diagonal is always "
        "computed whole, so the dense squares grow. Change the segment, and compare the pairs kept and the attention "
        "covered.",
    ),
)

METHOD = Method(
    key="pbs_attn",
    title="PBS-Attn",
    knobs=KNOBS,
    depends=BY_RULE,
    trace=_trace,
    curves=_curves,
    runs=_runs,
    longest=65536,
    stories=STORIES,
    variants=(
        Variant(key="pbs_none", title="PBS-Attn without sorting", settings={"permute": "none"}),
        Variant(key="pbs_random", title="PBS-Attn, random order", settings={"permute": "random"}),
    ),
)
