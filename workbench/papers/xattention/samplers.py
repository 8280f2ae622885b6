"""Samplers on a sentence encoder's heads, at equal budgets."""

from functools import partial

import numpy as np

from kernels.attention.cost import pair_share
from kernels.masks.block_scores import true_block_mass
from kernels.masks.block_select import select_blocks
from workbench import paper
from workbench.papers.xattention.heads import BLOCK, covered, encoder_heads, scores_of

STRIDES = (4, 8, 16, 32)
WIDE_BLOCK = 64  # for strides up to 64
SAMPLERS = ("antidiagonal", "random", "diagonal", "double", "triple", "every second query group", "mean_pool")
row = partial(paper.row, kind="measured")


def _quarter(mass, scores):
    return covered(mass, select_blocks(scores, causal=False, method="topk", k=scores.shape[3] // 4))


def samplers(size, seed, report):
    """Compare what each sampler keeps: a quarter of the blocks, and a threshold of 0.9."""
    report(0.0, "true attention of every head")
    heads = encoder_heads(size, seed)
    mass = true_block_mass(heads.q, heads.k, block_size=BLOCK, causal=False)
    facts = {"windows": len(mass), "heads": mass.shape[1], "block": BLOCK}
    rows = [row("mass kept, a quarter of the blocks", float(_quarter(mass, mass).mean()), "fraction", sampler="oracle")]
    for place, stride in enumerate(STRIDES):
        report(0.3 + 0.6 * place / len(STRIDES), f"stride {stride}")
        rows += _at_stride(heads, mass, stride, seed)
    wide = true_block_mass(heads.q, heads.k, block_size=WIDE_BLOCK, causal=False)
    for stride in (4, 8, 16, 64):
        kept = _quarter(wide, scores_of(heads, "antidiagonal", stride, seed, WIDE_BLOCK)[0]).mean()
        labels = {"sampler": "antidiagonal", "stride": stride, "block": WIDE_BLOCK}
        rows.append(row("mass kept, a quarter of the blocks", float(kept), "fraction", **labels))
    return [facts | each for each in rows]


def _at_stride(heads, mass, stride, seed):
    rows, per_head = [], {}
    for sampler in SAMPLERS:
        found = scores_of(heads, sampler, stride, seed)
        if not found:
            continue
        kept = np.mean([_quarter(mass, scores) for scores in found], axis=0)
        keeps = [select_blocks(scores, 0.9, causal=False) for scores in found]
        per_head[sampler] = kept.mean(axis=0)
        values = {
            "mass kept, a quarter of the blocks": kept.mean(),
            "mass kept, threshold 0.9": np.mean([covered(mass, keep).mean() for keep in keeps]),
            "density, threshold 0.9": np.mean([pair_share(keep, heads.q.shape[2], block_size=BLOCK) for keep in keeps]),
        }
        rows += [row(name, float(x), "fraction", sampler=sampler, stride=stride) for name, x in values.items()]
    ours = per_head.pop("antidiagonal")
    for sampler, theirs in per_head.items():
        lead = ours - theirs
        labels = {"sampler": "antidiagonal", "against": sampler, "stride": stride}
        error = lead.std(ddof=1) / np.sqrt(len(lead))
        rows.append(row("lead in mass kept, a quarter of the blocks", float(lead.mean()), "fraction", **labels))
        rows.append(row("standard error of the lead over heads", float(error), "fraction", **labels))
        rows.append(row("heads on which the antidiagonal is ahead", float((lead > 0).mean()), "fraction", **labels))
        if stride == 8 and sampler in ("diagonal", "random"):
            rows += [
                row("lead of one head", float(x), "fraction", layer=int(heads.layer[i]), head=i % 12, **labels)
                for i, x in enumerate(lead)
            ]
    return rows
