"""Knobs that several methods or sources read: one object per key, so that their meaning and range are one."""

from widgets.controls.knob import Knob
from workbench.models.attention.combiner import PATTERNS

MAX_TOKENS = 65536

WORDS = Knob("words", "Your text", "", lines=3, help="Text for the model. Left empty: held-out Python documentation.")
TOKENS = Knob("tokens", "Tokens", 512, 64, MAX_TOKENS, scale="log2", help="Length of the input, at most the text's.")
LAYER = Knob("layer", "Layer", 3, 0, 31, 1, help="Layer of the model.")
HEAD = Knob("head", "Head", 3, 0, 31, 1, help="Head of the layer.")
SEED = Knob("seed", "Seed", 0, 0, 99, 1, help="Seed of the random generator.")
TEXT = (WORDS, TOKENS, LAYER, HEAD)

BLOCK = Knob("block", "Block (tokens)", 32, 16, 128, scale="log2", help="Tokens in one row or column of blocks.")
CHOOSE = Knob(
    "choose",
    "Selection rule",
    "threshold",
    choices=(("threshold", "cumulative attention mass"), ("ratio", "share of the blocks")),
    help="Keep the fewest blocks whose estimated attention mass reaches a threshold, or a fixed share of each row.",
)
THRESHOLD = Knob(
    "threshold", "Threshold (attention mass)", 0.9, 0.0, 1.0, 0.01, help="Estimated mass that the kept blocks hold."
)
KEPT_SHARE = Knob("kept_share", "Share of blocks to keep", 0.25, 0.01, 1.0, 0.01, help="Share of a row's blocks.")
SELECTION = (BLOCK, CHOOSE, THRESHOLD, KEPT_SHARE)
BY_RULE = {"choose": {"threshold": ("threshold",), "ratio": ("kept_share",)}}

PATTERN = Knob(
    "pattern",
    "Factorisation",
    "fixed",
    choices=tuple((key, key.replace("_", " ")) for key in PATTERNS),
    help="How the keys before a query are divided into regions.",
)
SEGMENT_TOKENS = Knob(
    "segment_tokens", "Segment (tokens)", 16, 1, 1024, scale="log2", help="Tokens in a segment, or in a row."
)
WINDOW = Knob("window", "Window", 7, 2, 14, 1, help="Side of a window in pixels; a query has the square of it as keys.")
