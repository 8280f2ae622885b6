"""A generated head: every query attends to a fixed distance back, and to one key that all attend to."""

import torch

from widgets.controls.knob import Knob
from workbench.data.attention_patterns import slash
from workbench.explorers.attention.knobs import MAX_TOKENS, SEED, TOKENS
from workbench.explorers.attention.source import AttentionInput, Source

KNOBS = (
    TOKENS,
    Knob("delta", "Slash offset (tokens back)", 77, 1, 900, 1, help="How far back the attended keys lie."),
    Knob("width", "Slash width (tokens)", 2, 1, 8, 1, help="How many neighbouring offsets are attended."),
    Knob("column", "Column (key)", 100, 0, 900, 1, help="A key that all later queries attend to."),
    SEED,
)


def _load(s):
    t = s["tokens"]
    q, k, delta, column = slash(
        t, width=s["width"], seed=s["seed"], delta=min(s["delta"], t), column=min(s["column"], t - 1)
    )
    q, k = torch.from_numpy(q), torch.from_numpy(k)
    title = f"Generated: a slash of width {s['width']} at offset {delta[0]} and column {column[0]}"
    return AttentionInput(title=title, q=q, k=k, v=k, causal=True)


SOURCE = Source(
    key="slash",
    title="Generator: a slash and a column",
    knobs=KNOBS,
    load=_load,
    limits={"tokens": MAX_TOKENS},
    limits_of=lambda s: {"column": min(900, s["tokens"] - 1)},
)
