"""Every way to thin out attention that the workbench knows, each with its knobs and what it does with one head."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention, block_sparse_attention_work
from kernels.masks.block_select import block_density, select_blocks
from kernels.masks.formula import mask_from_formula
from workbench.models.attention import attention_cost as cost
from workbench.models.attention import attention_curves as lines
from workbench.models.attention import combiner, favit, pbs_attn, xattention
from workbench.models.attention.attention_inputs import AttentionInput
from workbench.models.attention.attention_trace import AttentionTrace
from workbench.models.attention.dense_attention import attention_weights, dense_attention, dense_flops
from workbench.models.attention.ponet_reading import read_ponet, run_poolings
from workbench.models.attention.sea_reading import read_sea, sea_needs, sea_refuses

__all__ = ["DENSE_LIMIT", "METHODS", "OTHERS", "Method"]

DENSE_LIMIT = 4096
READ_LIMIT = 150_000_000_000
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One method as the mask explorer offers it.

    Parameters
    ----------
    title : what readers see.
    knobs : keys of the knobs that it reads, those left out that only matter with one choice of another.
    trace : (input, settings) -> what it does with the head.
    curves : (input, settings, trace) -> coverage over density, as `attention_curves.Curve`; one scoring pass a curve.
    runs : (input, settings, trace) -> the work itself, by part, to be timed; empty where there is none to time.
    moved : (input, settings, trace) -> bytes that the sparse attention moves.
    longest : most tokens it takes here.
    refuse : settings -> the sentence that refuses settings that do not fit together, or None.
    needs : settings -> the further settings that they are made for.
    causal : whether it can keep queries from seeing what comes later; one that cannot looks both ways.
    pictures : whether tokens must be the pixels of a picture.
    shows : the picture that says most: "allowed" pairs, or the "effective" attention where no pair is left out.
    home : the source of inputs that a model of this method gives; None where there is none.
    """

    title: str
    knobs: tuple[str, ...]
    trace: Callable[[AttentionInput, Settings], AttentionTrace]
    curves: Callable[[AttentionInput, Settings, AttentionTrace], list[lines.Curve]] = lambda given, s, seen: []
    runs: Callable[[AttentionInput, Settings, AttentionTrace], dict[str, Callable]] = lambda given, s, seen: {}
    moved: Callable[[AttentionInput, Settings, AttentionTrace], int] = cost.bytes_by_pair
    longest: int = DENSE_LIMIT
    refuse: Callable[[Settings], str | None] = lambda s: None
    needs: Callable[[Settings], Settings] = lambda s: {}
    causal: bool = True
    pictures: bool = False
    shows: str = "allowed"
    home: str | None = None


# Blocks by a share of the mass, or by a share of the blocks -----------------------------------------------------------
def _rekept(given, seen, keep, allowed, density) -> AttentionTrace:
    """The trace with other blocks kept."""
    coverage, effective = float("nan"), None
    if seen.attention is not None:
        coverage = float((seen.attention * allowed).sum() / seen.attention.sum())
        effective = attention_weights(given.q, given.k, causal=seen.causal, allowed=allowed)[0, 0].numpy()
    t, d = given.q.shape[2:]
    flops = block_sparse_attention_work(keep[None, None], t=t, d=d, block_size=seen.block_size).flops
    return dataclasses.replace(
        seen, keep=keep, allowed=allowed, density=density, coverage=coverage, effective=effective, attention_flops=flops
    )


# XAttention ---------------------------------------------------------------------------------------------------------
def _xattention(given, s):
    seen = xattention.trace(
        given.q, given.k, block_size=s["block"], stride=s["stride"], threshold=s["threshold"],
        causal=given.causal, mode=s["sampler"], dense_limit=DENSE_LIMIT,
    )  # fmt: skip
    if s["choose"] == "threshold":
        return seen
    keep = select_blocks(seen.estimate[None, None], causal=given.causal, method="ratio", k=s["kept_share"])
    how = {"block_size": s["block"], "causal": given.causal}
    allowed = None if seen.allowed is None else xattention.token_mask(keep, seen.t, **how)[0, 0]
    return _rekept(given, seen, keep[0, 0], allowed, block_density(keep, causal=given.causal))


def _xattention_refuses(s):
    if s["block"] % s["stride"]:
        return f"The block ({s['block']} tokens) must be a multiple of the stride ({s['stride']})."
    if s["sampler"] == "oracle" and s["tokens"] > 4 * DENSE_LIMIT:
        return f"The oracle reads all logits: at most {4 * DENSE_LIMIT:,} tokens."
    if s["sampler"] not in ("mean_pool", "oracle") and s["tokens"] ** 2 * 128 / s["stride"] > READ_LIMIT:
        return f"Reading one logit in {s['stride']} of {s['tokens']:,} tokens takes too long here: raise the stride."
    return None


# PBS-Attn -----------------------------------------------------------------------------------------------------------
def pbs_sizes(given, s) -> dict[str, Any]:
    """Return block and segment of PBS-Attn; without causality all tokens, in whole blocks, are one segment."""
    block = s["block"]
    segment = s["segment"] * block if given.causal else -(-given.q.shape[2] // block) * block
    return {"block_size": block, "segment_size": segment, "causal": given.causal}


def _pbs(given, s):
    seen = pbs_attn.trace(
        given.q, given.k, threshold=s["threshold"], permute=s["permute"], dense_limit=DENSE_LIMIT, **pbs_sizes(given, s)
    )
    rows = None
    if s["permute"] in ("queries", "both"):
        rows = pbs_attn.query_aware_permutation(given.q, given.k, **pbs_sizes(given, s))[0, 0]
    facts = dict(seen.facts)
    if s["choose"] == "ratio":
        scored = pbs_attn.scored_mask(given.q, given.k, permute=s["permute"], **pbs_sizes(given, s))
        eligible = np.tri(len(scored.segment_mask), dtype=bool) & ~scored.segment_mask if given.causal else None
        chosen = select_blocks(scored.block_scores, causal=False, eligible=eligible, method="ratio", k=s["kept_share"])
        mask = dataclasses.replace(scored, keep=scored.keep | chosen)
        allowed = None if seen.allowed is None else pbs_attn.token_mask(mask, seen.t)[0, 0]
        seen = _rekept(given, seen, mask.keep[0, 0], allowed, pbs_attn.computed_density(mask))
        facts["kept blocks outside the diagonal segment"] = int((mask.keep & ~mask.segment_mask).sum())
        facts["share of the tiles in diagonal segments"] = float(
            (mask.keep & mask.segment_mask).sum() / mask.keep.sum()
        )
    if seen.t <= DENSE_LIMIT:
        facts["un-permuted output against plain attention, all blocks kept: largest relative difference (measured)"] = (
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


# Combiner -----------------------------------------------------------------------------------------------------------
def combiner_how(given, s) -> dict[str, Any]:
    """Return the keyword arguments of `combiner` functions."""
    return {"pattern": s["pattern"], "seg_len": s["part"], "causal": given.causal}


def _whole_segments(given, s):
    length = given.q.shape[2]
    if not given.causal:
        length = max(length // s["part"], 1) * s["part"]
    return (x[:, :, :length] for x in (given.q, given.k, given.v))


def _combiner(given, s):
    q, k, _ = _whole_segments(given, s)
    if q.shape[2] % s["part"] and not given.causal:
        raise ValueError(f"The segment ({s['part']} tokens) is longer than the text ({q.shape[2]})")
    return combiner.trace(q, k, **combiner_how(given, s))


def _combiner_alone(given, s):
    """The sparse pattern that the Combiner variant starts from, and nothing else."""
    how = combiner_how(given, s)
    t, d = given.q.shape[2:]
    allowed = combiner.sparse_counterpart_mask(how["pattern"], t, how["seg_len"])
    attention = attention_weights(given.q, given.k)[0, 0]
    return AttentionTrace(
        method=f"Sparse pattern alone ({how['pattern'].replace('_', ' ')})",
        t=t,
        causal=True,
        density=float(allowed.sum() / (t * (t + 1) / 2)),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention_flops=4 * d * int(allowed.sum()),
        dense_flops=dense_flops(t, d),
        attention=attention.numpy(),
        effective=attention_weights(given.q, given.k, allowed=allowed)[0, 0].numpy(),
        allowed=allowed,
    )


# FaViT --------------------------------------------------------------------------------------------------------------
def _favit(given, s):
    return favit.trace(given.q, given.k, *given.grid, window=s["window"], dilation=s["dilation"])


def _windows(given, s):
    """Attention inside windows that do not overlap: the same number of keys per query, all of them near."""
    rows, columns = given.grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    window = (y // s["window"]) * columns + x // s["window"]
    allowed = window[:, None] == window
    attention = attention_weights(given.q, given.k, causal=False)[0, 0]
    t, d = given.q.shape[2:]
    return AttentionTrace(
        method="Windows (Swin)",
        t=t,
        causal=False,
        density=float(allowed.mean()),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention_flops=4 * d * int(allowed.sum()),
        dense_flops=dense_flops(t, d, causal=False),
        attention=attention.numpy(),
        effective=attention_weights(given.q, given.k, causal=False, allowed=allowed)[0, 0].numpy(),
        allowed=allowed,
        facts={"keys per query": f"{s['window'] ** 2}, fewer at the border"},
    )


# Formula ------------------------------------------------------------------------------------------------------------
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


METHODS = {
    "xattention": Method(
        "XAttention",
        ("block", "stride", "choose", "sampler"),
        _xattention,
        lines.of_samplers,
        cost.run_xattention,
        cost.bytes_by_block,
        longest=65536,
        refuse=_xattention_refuses,
    ),
    "pbs_attn": Method(
        "PBS-Attn",
        ("block", "segment", "choose", "permute"),
        _pbs,
        lambda given, s, seen: lines.of_sorting(given, s, seen, **pbs_sizes(given, s)),
        lambda given, s, seen: cost.run_pbs(given, s, seen, **pbs_sizes(given, s)),
        cost.bytes_by_block,
        longest=65536,
    ),
    "sea": Method(
        "SEA",
        ("estimator", "cells", "keys_per_query", "group"),
        read_sea,
        lines.of_keys,
        cost.run_pairs,
        longest=2048,
        refuse=sea_refuses,
        needs=sea_needs,
    ),
    "combiner": Method(
        "Combiner",
        ("pattern", "part"),
        _combiner,
        lambda given, s, seen: lines.of_segments(given, s, seen, **combiner_how(given, s)),
        runs=lambda given, s, seen: cost.on_inputs(
            tuple(_whole_segments(given, s)), combiner.combiner_attention, **combiner_how(given, s)
        ),
        longest=1024,
        shows="effective",
    ),
    "ponet": Method(
        "PoNet",
        ("segments", "use_ga", "use_smp", "use_lmp", "fuse"),
        read_ponet,
        runs=run_poolings,
        moved=lambda given, s, seen: cost.bytes_once(given, 6),
        longest=1024,
        causal=False,
        shows="effective",
        home="ponet",
    ),
    "favit": Method(
        "FaSA (FaViT)",
        ("window", "dilation", "square", "place"),
        _favit,
        runs=lambda given, s, seen: cost.run_fused(given, s["window"], s["dilation"]),
        moved=lambda given, s, seen: cost.bytes_once(given, 4),
        causal=False,
        pictures=True,
        shows="effective",
    ),
    "formula": Method("Formula", ("formula", "block"), _formula, runs=cost.run_pairs, moved=cost.bytes_by_block),
}


def _with(key, title, **changes):
    """The method again with some settings fixed."""
    method = METHODS[key]
    return dataclasses.replace(
        method,
        title=title,
        knobs=tuple(knob for knob in method.knobs if knob not in changes),
        trace=lambda given, s: method.trace(given, {**s, **changes}),
        curves=lambda given, s, seen: [],
        runs=lambda given, s, seen: method.runs(given, {**s, **changes}, seen),
        refuse=lambda s: method.refuse({**s, **changes}),
        needs=lambda s: method.needs({**s, **changes}),
    )


OTHERS = METHODS | {
    "xattention_antidiagonal": _with("xattention", "XAttention, antidiagonal read", sampler="antidiagonal"),
    "xattention_diagonal": _with("xattention", "XAttention, diagonal read", sampler="diagonal"),
    "xattention_random": _with("xattention", "XAttention, random read", sampler="random"),
    "mean_pool": _with("xattention", "Blocks by their means", sampler="mean_pool"),
    "oracle": _with("xattention", "Best blocks (oracle)", sampler="oracle"),
    "pbs_none": _with("pbs_attn", "PBS-Attn without sorting", permute="none"),
    "pbs_random": _with("pbs_attn", "PBS-Attn, random order", permute="random"),
    "sea_oracle": _with("sea", "SEA, oracle's estimate", estimator="oracle"),
    "sea_untrained": _with("sea", "SEA, untrained estimator", estimator="untrained"),
    "combiner_alone": Method(
        "Combiner's sparse pattern alone",
        ("pattern", "part"),
        _combiner_alone,
        METHODS["combiner"].curves,
        cost.run_pairs,
        longest=1024,
    ),
    "windows": Method("Windows (Swin)", ("window",), _windows, causal=False, pictures=True),
}
