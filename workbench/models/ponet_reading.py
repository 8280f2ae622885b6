"""What PoNet's poolings read of one head of an explorer's input, and where its segments start."""

import dataclasses
import re

import numpy as np
import torch

from workbench.models import ponet
from workbench.models.attention_trace import AttentionTrace

__all__ = ["own_starts", "ponet_parts", "read_ponet", "segment_index", "sentence_starts"]


def segment_index(given, s) -> torch.Tensor:
    """Return PoNet's segment of every token: equal parts, sentences of the text, or the reader's own starts."""
    t = given.q.shape[2]
    if s["segments"] == "equal" or (s["segments"] == "sentences" and not given.tokens):
        return torch.arange(t) // s["part"]
    starts = sentence_starts(given.tokens) if s["segments"] == "sentences" else own_starts(s["cuts"])
    is_start = torch.zeros(t, dtype=torch.long)
    is_start[[start for start in starts if 0 < start < t]] = 1
    return is_start.cumsum(0)


def sentence_starts(tokens) -> list[int]:
    """Return the tokens that begin a sentence or paragraph."""
    starts, ended = [], False
    for i, text in enumerate(tokens):
        if ended and text.strip():
            starts.append(i)
            ended = False
        if re.search(r"[.!?:]\s*$|\n\s*\n", text):
            ended = True
    return starts


def own_starts(cuts: str) -> list[int]:
    """Read the reader's segment starts, such as "12 40 41"; ValueError names what is no whole number."""
    parts = re.split(r"[\s,]+", cuts.strip())
    wrong = [part for part in parts if part and not part.isdecimal()]
    if wrong:
        raise ValueError(f"Segment starts must be whole numbers; {wrong[0]!r} is none")
    return sorted({int(part) for part in parts if part})


def ponet_parts(given):
    """Return stand-ins for PoNet's five projections: the head's query, key, and value (segment, local), and query."""
    return given.q, given.k, given.v[0], given.v[0], given.q[0]


def read_ponet(given, s) -> AttentionTrace:
    """Return the three poolings' maps under the settings of segments, toggles and fusion."""
    hq, hk, hs, hl, ho = ponet_parts(given)
    index = segment_index(given, s)
    seen = ponet.trace(hq, hk, hs, hl, index)
    g, a = ponet.global_aggregation(hq, hk)
    found = ponet.effective_maps(a, hs, hl, index, 1)
    maps = {name: getattr(found, name)[0, 0] for name in ("ga", "smp", "lmp")}
    used = [name for name in maps if s[f"use_{name}"]]
    slow = s["use_ga"] * g + s["use_smp"] * ponet.segment_max_pool(hs, index)
    out = (slow * ho if s["fuse"] else slow + 0 * hs) + s["use_lmp"] * ponet.local_max_pool(hl)
    unit = torch.nn.functional.normalize(out[0].double(), dim=-1)
    same_row = torch.unique(out[0], dim=0).shape[0]
    facts = dict(seen.facts) | {
        "poolings in use": ", ".join(used) or "none",
        "different output rows (counted)": f"{same_row:,} of {seen.t:,}",
    }
    maps["likeness"] = (unit @ unit.T).clamp(min=0).numpy().astype(np.float32)
    return dataclasses.replace(
        seen,
        effective=sum((maps[name] for name in used), np.zeros((seen.t, seen.t), np.float32)) / max(1, len(used)),
        allowed=sum((maps[name] for name in used if name != "ga"), np.zeros((seen.t, seen.t), np.float32)) > 0,
        maps=maps,
        facts=facts,
    )
