"""Combiner in the explorer: keys attended directly or by summaries of regions (Ren et al. 2021, arXiv 2107.05768)."""

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
        note = f"This query attends to {len(sizes):,} summaries, which stand for {sum(sizes):,} keys."
        if s["pattern"] == "logsparse":
            told = ", ".join(map(str, sizes)) or "no"
            note = f"{row} is {row:b} in binary. Each digit 1 gives one summary; they stand for {told} keys."
        return query_row(given, seen, row, regions=regions, note=note)

    return of


def _refuse(s, source):
    if s["pattern"] == "logsparse" and source and not source.causal:
        return "Log-sparse regions are defined for causal attention: choose a causal input or another factorisation."
    return None


STORIES = (
    Story(
        "Every key keeps some weight",
        {
            "tokens": 256,
            "pattern": "fixed",
            "segment_tokens": 16,
            "left": "attention",
            "right": "effective",
            "row": 200,
        },
        "A query attends directly to the keys of its own segment of 16, and to every earlier segment by one summary. "
        "So every earlier key has some weight, at the cost of a sparse pattern. The bars below show one query: plain "
        "bars are keys attended directly, hatched bars are keys attended by a summary.",
    ),
    Story(
        "One token per segment: full attention",
        {"tokens": 256, "pattern": "fixed", "segment_tokens": 1, "left": "attention", "right": "effective", "row": 200},
        "A segment of one token has nothing to summarise, so this is full attention at full cost. The same holds for "
        "one segment of all 256 tokens. Between the two, with segments near the square root of the length, the cost "
        "grows as the length to the power 1.5.",
    ),
    Story(
        "Binary digits choose the blocks",
        {"tokens": 256, "pattern": "logsparse", "left": "attention", "right": "effective", "row": 203},
        "Query 203 is 11001011 in binary. Each digit 1 gives one summary, so the summaries stand for 128, 64, 8, 2 "
        "and 1 keys. Change the query and compare its digits with its summaries.",
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
        "On the right is the sparse pattern that this variant starts from. The keys that it leaves out have no "
        "weight. On the left is Combiner, at about the same cost.",
    ),
)

METHOD = Method(
    key="combiner",
    title="Combiner",
    knobs=(PATTERN, SEGMENT_TOKENS),
    trace=_trace,
    shows="effective",
    query=_query,
    curves=of_segments,
    runs=lambda given, s, seen: cost.on_inputs(
        _whole_segments(given, s), combiner.combiner_attention, **_how(given, s)
    ),
    longest=1024,
    refuse=_refuse,
    stories=STORIES,
)
