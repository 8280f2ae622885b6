"""XAttention in the explorer: blocks chosen by sums along antidiagonals (Xu et al. 2025, arXiv 2503.16428)."""

import numpy as np

from kernels.attention.block_sparse import block_sparse_attention
from kernels.attention.cost import attention_cost, pair_share
from kernels.masks.block_select import select_blocks
from widgets.controls.knob import Knob
from widgets.views.frame.story import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.curves import THRESHOLDS, block_mass, over_thresholds
from workbench.explorers.attention.knobs import BY_RULE, SELECTION
from workbench.explorers.attention.method import DENSE_LIMIT, Method, Variant, with_blocks
from workbench.models.attention import xattention

READ_LIMIT = 150_000_000_000
SAMPLERS = ("antidiagonal", "diagonal", "random")
KNOBS = (
    *SELECTION,
    Knob("stride", "Stride", 8, 1, 16, scale="log2", help="One line of every tile of this width is sampled."),
    Knob(
        "sampler",
        "Sampling pattern",
        "antidiagonal",
        choices=tuple((key, key.replace("_", " ")) for key in xattention.MODES),
        help="Which logits of a tile the attention mass of its block is estimated from.",
    ),
)


def _trace(given, s):
    seen = xattention.trace(
        given.q, given.k, block_size=s["block"], stride=s["stride"], threshold=s["threshold"],
        causal=given.causal, mode=s["sampler"], dense_limit=DENSE_LIMIT,
    )  # fmt: skip
    if s["choose"] == "threshold":
        return seen
    keep = select_blocks(seen.estimate[None, None], causal=given.causal, method="ratio", k=s["kept_share"])
    how = {"block_size": s["block"], "causal": given.causal}
    allowed = None if seen.allowed is None else xattention.token_mask(keep, seen.t, **how)[0, 0]
    cost = attention_cost(t=seen.t, d=given.q.shape[3], keep=keep[0, 0], before=seen.cost.before, **how)
    return with_blocks(given, seen, keep[0, 0], allowed, cost)


def _curves(given, s, seen):
    """One curve per sampling pattern, over thresholds."""
    if seen.attention is None:
        return []
    mass = block_mass(seen.attention, s["block"])
    how = {"block_size": s["block"], "causal": given.causal}
    found = []
    for mode in dict.fromkeys((s["sampler"], *SAMPLERS)):
        scores = xattention.block_scores(given.q, given.k, mode=mode, stride=s["stride"], **how)
        keeps = [select_blocks(scores, tau, causal=given.causal) for tau in THRESHOLDS]
        density = [pair_share(keep, seen.t, **how) for keep in keeps]
        found.append(over_thresholds(f"XAttention, {mode.replace('_', ' ')}", density, keeps, mass))
    return found


def _runs(given, s, seen):
    """Score, select; attend over the kept blocks."""
    arrays = [x.numpy() for x in (given.q, given.k, given.v)]
    keep = np.ascontiguousarray(seen.keep[None, None])

    def estimate():
        scores = xattention.block_scores(
            *arrays[:2], block_size=s["block"], stride=s["stride"], causal=given.causal, mode=s["sampler"]
        )
        return select_blocks(scores, s["threshold"], causal=given.causal)

    return {"estimate": estimate} | cost.on_inputs(
        (*arrays, keep), block_sparse_attention, block_size=s["block"], causal=given.causal
    )


def _refuse(s, source):
    if s["block"] % s["stride"]:
        return f"The block ({s['block']} tokens) must be a multiple of the stride ({s['stride']})."
    if s["sampler"] == "oracle" and s["tokens"] > 4 * DENSE_LIMIT:
        return f"The oracle computes every logit, so it takes at most {4 * DENSE_LIMIT:,} tokens."
    if s["sampler"] not in ("mean_pool", "oracle") and s["tokens"] ** 2 * 128 / s["stride"] > READ_LIMIT:
        return f"One logit in {s['stride']} of {s['tokens']:,} tokens takes too long to sample here: raise the stride."
    return None


_SLASH = {"input": "slash", "tokens": 1024, "block": 64, "stride": 8, "threshold": 0.5, "delta": 77}
STORIES = (
    Story(
        "A slash that diagonal sampling misses",
        _SLASH | {"sampler": "antidiagonal", "compare_with": "xattention_diagonal", "right": "keep"},
        "Queries attend to the keys 77 and 78 places back, and to key 100. On the left, one antidiagonal of every "
        "tile is sampled. It crosses every slash of width two, so the blocks along the slash are kept. On the right, "
        "one diagonal is sampled at the same cost. Neither 77 nor 78 is a multiple of the stride 8, so no sampled "
        "logit lies on the slash, and its blocks are dropped.",
    ),
    Story(
        "A slash that antidiagonal sampling misses",
        _SLASH | {"delta": 76, "width": 1, "left": "met", "right": "keep"},
        "This slash has width one and an even offset. Antidiagonals of an even stride contain odd offsets only. The "
        "left picture shows true attention at the sampled logits: the column is there, the slash is not (choose true "
        "attention to see it). So the blocks of the slash are dropped. Set the width to 2, and they are kept.",
    ),
    Story(
        "A real head",
        {"layer": 3, "head": 3, "compare_with": "oracle", "right": "keep"},
        "This head belongs to the tiny language model, on text that it was not trained on. On the left, blocks are "
        "chosen by antidiagonal sampling. On the right, they are chosen by their true attention mass, which is the "
        "best choice there is. The curves below compare both at every density.",
    ),
    Story(
        "65,536 tokens",
        {
            "input": "slash",
            "tokens": 65536,
            "block": 128,
            "stride": 16,
            "threshold": 0.5,
            "left": "estimate",
            "right": "keep",
        },
        "A text of this length is too long to draw every pair. The pictures show blocks of 128 tokens, chosen from "
        "one sampled logit in 16.",
    ),
)

METHOD = Method(
    key="xattention",
    title="XAttention",
    knobs=KNOBS,
    depends=BY_RULE,
    trace=_trace,
    curves=_curves,
    runs=_runs,
    longest=65536,
    refuse=_refuse,
    stories=STORIES,
    variants=(
        Variant(key="xattention_antidiagonal", title="XAttention, antidiagonals", settings={"sampler": "antidiagonal"}),
        Variant(key="xattention_diagonal", title="XAttention, diagonals", settings={"sampler": "diagonal"}),
        Variant(key="xattention_random", title="XAttention, random logits", settings={"sampler": "random"}),
        Variant(key="mean_pool", title="Blocks by their mean query and key", settings={"sampler": "mean_pool"}),
        Variant(key="oracle", title="Blocks by their true attention mass (oracle)", settings={"sampler": "oracle"}),
    ),
)
