"""A generated head: every query attends to the same few heavy keys."""

import torch

from widgets.controls.knob import Knob
from workbench.data.attention_patterns import heavy_hitters
from workbench.explorers.attention.knobs import MAX_TOKENS, SEED, TOKENS
from workbench.explorers.attention.source import AttentionInput, Source

KNOBS = (
    TOKENS,
    Knob("share", "Share of heavy keys", 0.02, 0.001, 0.2, scale="log10", help="Probability that a key is heavy."),
    SEED,
)


def _load(s):
    q, k = (torch.from_numpy(x) for x in heavy_hitters(s["tokens"], share=s["share"], seed=s["seed"]))
    title = f"Generated: keys are heavy with probability {s['share']:g}"
    return AttentionInput(title=title, q=q, k=k, v=k, causal=True)


SOURCE = Source(
    key="heavy", title="Generator: heavy-hitter keys", knobs=KNOBS, load=_load, limits={"tokens": MAX_TOKENS}
)
