"""Combiner in the explorer: keys read directly or through summaries of regions (Ren et al. 2021, arXiv 2107.05768)."""

from functools import lru_cache

from widgets.views.frame.story import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.curves import of_segments
from workbench.explorers.attention.knobs import PATTERN, SEGMENT_TOKENS
from workbench.explorers.attention.method import Method, query_row
from workbench.models.attention import combiner


def _how(given, s):
    return {"pattern": s["pattern"], "seg_len": s["segment_tokens"], "causal": given.causal}


def _whole_segments(given, s):
    length = given.q.shape[2]
    if not given.causal:
        length = max(length // s["segment_tokens"], 1) * s["segment_tokens"]
    return [x[:, :, :length] for x in (given.q, given.k, given.v)]


def _trace(given, s):
    q, k, _ = _whole_segments(given, s)
    if q.shape[2] % s["segment_tokens"] and not given.causal:
        raise ValueError(f"The segment ({s['segment_tokens']} tokens) is longer than the text ({q.shape[2]})")
    return combiner.trace(q, k, **_how(given, s))


@lru_cache(maxsize=2)
def _regions(pattern, length, seg_len, causal):
    return combiner.support(pattern, length, seg_len, causal=causal)["regions"]


def _query(given, seen):
    """The row's regions, the nearest last, and one sentence on them."""

    def of(row, s):
        t = len(seen.attention)
        regions = tuple(_regions(s["pattern"], t, s["segment_tokens"], given.causal)[min(row, t - 1)])
        sizes = [len(region) for region in regions]
        note = f"{len(sizes):,} summaries of {sum(sizes):,} keys in all."
        if s["pattern"] == "logsparse":
            told = ", ".join(map(str, sizes)) or "no"
            note = f"{row} is {row:b} in binary: one summary per digit 1, of {told} keys."
        return query_row(given, seen, row, regions=regions, note=note)

    return of


def _refuse(s, source):
    if s["pattern"] == "logsparse" and source and not source.causal:
        return "Log-sparse regions are defined for causal attention: choose a causal input or another factorisation."
    return None


STORIES = (
    Story(
        "No cell is zero",
        {
            "tokens": 256,
            "pattern": "fixed",
            "segment_tokens": 16,
            "left": "attention",
            "right": "effective",
            "row": 200,
        },
        "Queries read their own segment of 16 directly and every earlier segment through one summary, so no key "
        "is lost and the cost is that of a sparse pattern. The bars below show one query: plain bars direct, "
        "hatched ones through a summary.",
    ),
    Story(
        "One token per segment: full attention",
        {"tokens": 256, "pattern": "fixed", "segment_tokens": 1, "left": "attention", "right": "effective", "row": 200},
        "Segments of one token summarise nothing: this is full attention, at full cost. So it is with one "
        "segment of all 256. In between the cost falls to the 1.5th power of the length.",
    ),
    Story(
        "Binary digits choose the blocks",
        {"tokens": 256, "pattern": "logsparse", "left": "attention", "right": "effective", "row": 203},
        "Query 203 is 11001011 in binary: one summary for each digit 1, of 128, 64, 8, 2 and 1 keys. Step the "
        "query and watch the digits.",
    ),
    Story(
        "Beside the sparse pattern alone",
        {
            "tokens": 256,
            "pattern": "fixed",
            "segment_tokens": 16,
            "compare_with": "combiner_alone",
            "right": "effective",
            "row": 200,
        },
        "Right, the sparse pattern that this variant starts from: what it leaves out weighs nothing. Left, "
        "Combiner at about the same cost.",
    ),
)

METHOD = Method(
    key="combiner",
    title="Combiner",
    knobs=(PATTERN, SEGMENT_TOKENS),
    trace=_trace,
    shows="effective",
    query=_query,
    curves=lambda given, s, seen: of_segments(given, s, seen),
    runs=lambda given, s, seen: cost.on_inputs(
        _whole_segments(given, s), combiner.combiner_attention, **_how(given, s)
    ),
    longest=1024,
    refuse=_refuse,
    stories=STORIES,
)
