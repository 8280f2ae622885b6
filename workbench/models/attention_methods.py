"""Every way to thin out attention that the workbench knows, each with its knobs and what it does with one head."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention_work
from kernels.masks.block_scores import true_block_mass
from kernels.masks.block_select import block_density, select_blocks
from kernels.masks.formula import mask_from_formula
from workbench.models import combiner, favit, pbs_attn, ponet, sea, xattention
from workbench.models.attention_inputs import AttentionInput
from workbench.models.attention_trace import AttentionTrace
from workbench.models.dense_attention import attention_weights, dense_flops

__all__ = ["DENSE_LIMIT", "METHODS", "Method", "coverage_curve"]

DENSE_LIMIT = 4096


@dataclass(frozen=True)
class Method:
    """One method as the mask explorer offers it.

    Parameters
    ----------
    title : what readers see.
    knobs : keys of the knobs that it reads.
    trace : (input, state) -> what it does with the head.
    curve : settings to draw a coverage-density curve for, as (text, changes of the state); empty for none.
    longest : most tokens it takes here.
    keeps : (input, state, thresholds) -> block masks (1, 1, n, n), one per threshold, at the cost of one scoring; None
        where a curve must be traced point by point.
    refuse : state -> the sentence that refuses settings that do not fit together, or None.
    """

    title: str
    knobs: tuple[str, ...]
    trace: Callable[[AttentionInput, Mapping[str, Any]], AttentionTrace]
    curve: tuple[tuple[str, dict[str, Any]], ...] = ()
    longest: int = DENSE_LIMIT
    keeps: Callable[[AttentionInput, Mapping[str, Any], list[float]], list[np.ndarray]] | None = None
    refuse: Callable[[Mapping[str, Any]], str | None] = lambda state: None


def _xattention(given, s):
    return xattention.trace(
        given.q, given.k, block_size=s["block"], stride=s["stride"], threshold=s["threshold"],
        causal=given.causal, mode=s["sampler"], dense_limit=DENSE_LIMIT,
    )  # fmt: skip


def _xattention_keeps(given, s, thresholds):
    scores = xattention.block_scores(
        given.q, given.k, block_size=s["block"], stride=s["stride"], causal=given.causal, mode=s["sampler"]
    )
    return [select_blocks(scores, threshold, causal=given.causal) for threshold in thresholds]


def _stride_must_divide(s):
    if s["block"] % s["stride"]:
        return f"The block ({s['block']} tokens) must be a multiple of the stride ({s['stride']})."
    return None


def _pbs(given, s):
    segment = s["segment"] * s["block"] if given.causal else given.q.shape[2]
    block = s["block"] if given.causal or segment % s["block"] == 0 else 1
    return pbs_attn.trace(
        given.q, given.k, block_size=block, segment_size=segment, threshold=s["threshold"],
        permute=s["permute"], causal=given.causal, dense_limit=DENSE_LIMIT,
    )  # fmt: skip


def _sea(given, s):
    return sea.trace(given.q, given.k, width=s["cells"], k_keys=s["keys_per_query"], causal=given.causal)


def _combiner(given, s):
    pattern = s["pattern"] if given.causal else "fixed"
    length = given.q.shape[2]
    q, k = (
        (given.q, given.k) if given.causal else (x[:, :, : length // s["part"] * s["part"]] for x in (given.q, given.k))
    )
    return combiner.trace(q, k, pattern=pattern, seg_len=s["part"], causal=given.causal)


def _ponet(given, s):
    t = given.q.shape[2]
    segments = ponet.lra_segment_index(t, max(1, t // s["part"]))
    return ponet.trace(given.q, given.k, given.v[0], given.v[0], segments)


def _favit(given, s):
    side = int(given.q.shape[2] ** 0.5)
    q, k = (x[:, :, : side * side] for x in (given.q, given.k))
    return favit.trace(q, k, side, side, window=s["window"], dilation=s["dilation"])


def _formula(given, s):
    """A mask by formula, computed block by block: full, partial and empty blocks."""
    t, d, block = given.q.shape[2], given.q.shape[3], s["block"]
    allowed = mask_from_formula(s["formula"], t)
    blocks = -(-t // block)
    padded = np.zeros((blocks * block, blocks * block), bool)
    padded[:t, :t] = allowed
    keep = padded.reshape(blocks, block, blocks, block).any(axis=(1, 3))
    attention = attention_weights(given.q, given.k, causal=given.causal)[0, 0]
    effective = attention_weights(given.q, given.k, causal=False, allowed=torch.as_tensor(allowed))[0, 0]
    return AttentionTrace(
        method="Formula",
        t=t,
        causal=False,
        block_size=block,
        density=block_density(keep[None, None], causal=False),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention_flops=block_sparse_attention_work(keep[None, None], t=t, d=d, block_size=block).flops,
        dense_flops=dense_flops(t, d, causal=given.causal),
        attention=attention.numpy(),
        effective=effective.numpy(),
        allowed=allowed,
        keep=keep,
    )


_THRESHOLDS = tuple((f"threshold {tau:g}", {"threshold": tau}) for tau in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99))
METHODS = {
    "xattention": Method(
        "XAttention",
        ("block", "stride", "threshold", "sampler"),
        _xattention,
        _THRESHOLDS,
        longest=65536,
        keeps=_xattention_keeps,
        refuse=_stride_must_divide,
    ),
    "pbs_attn": Method("PBS-Attn", ("block", "segment", "threshold", "permute"), _pbs, _THRESHOLDS, longest=65536),
    "sea": Method(
        "SEA",
        ("cells", "keys_per_query"),
        _sea,
        tuple((f"{k} keys", {"keys_per_query": k}) for k in (2, 4, 8, 16, 32, 64)),
        longest=2048,
    ),
    "combiner": Method("Combiner", ("pattern", "part"), _combiner, longest=1024),
    "ponet": Method("PoNet", ("part",), _ponet, longest=1024),
    "favit": Method("FaSA (FaViT)", ("window", "dilation"), _favit, longest=DENSE_LIMIT),
    "formula": Method("Formula", ("formula", "block"), _formula),
}


def coverage_curve(given: AttentionInput, key: str, state: Mapping[str, Any], report=lambda fraction: None):
    """Return density, coverage and setting texts of a method over its curve's settings; None without a curve.

    Block methods are traced from block masses, so that a curve costs little more than one picture.
    """
    method = METHODS[key]
    t = given.q.shape[2]
    if not method.curve or t > DENSE_LIMIT:
        return None
    if method.keeps:
        mass = true_block_mass(given.q.numpy(), given.k.numpy(), block_size=state["block"], causal=given.causal)
        keeps = method.keeps(given, state, [change["threshold"] for _, change in method.curve])
        points = [(block_density(keep, causal=given.causal), float((mass * keep).sum() / mass.sum())) for keep in keeps]
    else:
        points = []
        for i, (_, change) in enumerate(method.curve):
            report(i / len(method.curve))
            seen = method.trace(given, {**state, **change})
            points.append((seen.density, seen.coverage))
    density, coverage = np.array(points).T
    return density, coverage, tuple(text for text, _ in method.curve)
