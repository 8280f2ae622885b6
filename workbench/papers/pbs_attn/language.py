"""Bits per byte of a language model whose attention is replaced: what sparsity costs."""

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention
from kernels.attention.cost import block_share, pair_share
from kernels.masks.block_select import select_blocks
from workbench.data import text
from workbench.models.attention import xattention
from workbench.models.attention.dense_attention import dense_attention
from workbench.models.attention.pbs_attn import computed_block_share, computed_density, pbs_attention
from workbench.models.language import text_cost, tiny_lm
from workbench.paper import row
from workbench.papers.pbs_attn.inputs import NAMES
from workbench.papers.pbs_attn.thresholds import mean_pooling

THRESHOLDS = (0.5, 0.7, 0.9, 0.97)


def language(size, seed, report):
    """Replace every layer's attention of the tiny language model and count bits per byte of held-out text."""
    context, windows, (block, segment) = {
        "tiny": (128, 1, (16, 64)), "small": (1024, 2, (32, 128)), "full": (2048, 8, (64, 256))}[size]  # fmt: skip
    taus = THRESHOLDS[2:3] if size == "tiny" else THRESHOLDS
    model = tiny_lm.load()
    sample = text.sample(int(3.6 * context * (windows + 1) / 2))[0]
    labels = {"input": text.provenance(), "context": context, "block": block, "segment": segment}
    dense = text_cost.bits_per_byte(model, sample, context=context)
    rows = [
        row(
            "bits per byte",
            dense,
            "bits per byte",
            "measured",
            **labels,
            method="dense",
            threshold=1.0,
            density=1.0,
            blocks=1.0,
        )
    ]
    methods = _methods(block, segment, seed)
    for place, (name, attend) in enumerate(methods.items()):
        part = report.part(place, len(methods), name)
        for number, tau in enumerate(taus):
            part(number / len(taus), f"threshold {tau}")
            kept: list[tuple[float, float]] = []
            replaced = _recording(attend, tau, kept, segment)
            cost = text_cost.bits_per_byte(model, sample, context=context, attention=replaced)
            density, blocks = np.mean(kept, axis=0).tolist()
            named = labels | {"method": name, "threshold": tau, "density": density, "blocks": blocks}
            rows.append(row("bits per byte", cost, "bits per byte", "measured", **named))
    return rows


def _methods(block, segment, seed):
    """Return name -> attend(q, k, v, threshold) -> (out, (density, blocks over those of dense attention))."""

    def pbs(order):
        def attend(q, k, v, tau):
            how = {"block_size": block, "segment_size": segment, "permute": order, "seed": seed}
            out, mask = pbs_attention(q, k, v, threshold=tau, **how)
            return out, (computed_density(mask), computed_block_share(mask))

        return attend

    def by_blocks(choose):
        def attend(q, k, v, tau):
            keep = choose(q, k, tau)
            out = block_sparse_attention(
                *(x.contiguous().numpy() for x in (q, k, v)), keep, block_size=block, causal=True
            )
            how = {"block_size": block, "causal": True}
            shares = (pair_share(keep, q.shape[2], **how), block_share(keep, q.shape[2], **how))
            return torch.from_numpy(out), shares

        return attend

    def pooled(q, k, tau):
        return mean_pooling(xattention.block_scores(q, k, block_size=block, mode="mean_pool"), tau)

    def antidiagonal(q, k, tau):
        return select_blocks(xattention.block_scores(q, k, block_size=block, stride=8), tau)

    return {
        NAMES["keys"]: pbs("keys"),
        NAMES["random"]: pbs("random"),
        NAMES["none"]: pbs("none"),
        "block means (MeanPooling)": by_blocks(pooled),
        "XAttention": by_blocks(antidiagonal),
    }


def _recording(attend, tau, kept, segment):
    def attention(q, k, v, layer):
        if q.shape[2] <= segment:
            return dense_attention(q, k, v)
        out, shares = attend(q, k, v, tau)
        kept.append(shares)
        return out

    return attention
