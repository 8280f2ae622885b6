"""A mask by formula: pair by pair where they can be drawn, and at any length by full, partial and empty blocks."""

import re
from contextlib import contextmanager

import numpy as np
import torch

from kernels.attention.cost import attention_cost, dense_pairs, pairs_in_blocks
from kernels.attention.trace import AttentionTrace
from kernels.masks.formula import FormulaError, formula_pairs, mask_from_formula, parse_formula
from kernels.masks.formula_tree import NAMES
from widgets.controls.knob import Knob, KnobError
from widgets.views.frame.story import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.knobs import BLOCK, MAX_TOKENS
from workbench.explorers.attention.method import DENSE_LIMIT, Method
from workbench.models.attention.dense_attention import attention_weights

MOST_STEPS = 60_000_000_000  # of a formula at a pair: about half a minute of one core
_CONSTANT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(-?\d[\d_]*)\s*")
VOCABULARY = """\
Positions: q, q_idx or i is the query; k, kv_idx or j is the key; both count from 0. t is the number of tokens.
Other numbers: h is the head shown, b the batch (0 here), w the slider, block the tokens of a block; further names get \
their values under Constants.
Arithmetic with whole numbers: + - * // % ** << >>, abs, min, max; & | ^ ~ bit by bit. // rounds down and % has the \
sign of its right side, as in Python. A number beyond 64 bits is an error.
Conditions: < <= > >= == !=, also in chains such as 0 <= q - k < w; and, or, not; & | ^ ~, which bind tighter than \
comparisons, so put each comparison in brackets beside them.
Functions: where(condition, a, b), and torch.where, torch.abs, torch.minimum, torch.maximum, torch.logical_and, \
torch.logical_or, torch.logical_xor, torch.logical_not.
A lambda of b, h, q_idx and kv_idx, as FlexAttention takes it, may be pasted; a def, or a mask that looks into an \
array such as document[q_idx], cannot be read."""


def _constants(text, s) -> dict[str, int]:
    found = {"w": s["w"], "block": s["block"]}
    for part in re.split(r"[,;\n]", text):
        if not part.strip():
            continue
        match = _CONSTANT.fullmatch(part)
        if match is None:
            raise KnobError("constants", f"{part.strip()!r} is no name and whole number, such as PREFIX = 64")
        if match[1] in NAMES:
            raise KnobError("constants", f"{match[1]} already has a meaning in a formula; take another name")
        found[match[1]] = int(match[2])
    return found


@contextmanager
def _told_at_the_formula():
    """Say what is wrong with a formula below its field, without the name of a function."""
    try:
        yield
    except FormulaError as error:
        raise KnobError("formula", error.words) from None


def _read_constants(text, s):
    _constants(text, s)
    return ""


def _read_formula(text, s):
    try:
        constants = _constants(s["constants"], s)
    except KnobError:
        return ""  # told at the constants
    with _told_at_the_formula():
        return " ".join(parse_formula(text, constants=constants).remarks)


FORMULA = Knob(
    "formula",
    "Formula",
    "q >= k and (q - k < w or k < 16)",
    lines=2,
    code=True,
    help="A condition on query q and key k that is true where the query sees the key, such as q >= k and q - k < 128, "
    "or a mask_mod such as lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < 2 ** h). Enter draws it.",
    more=VOCABULARY,
    read=_read_formula,
)
WIDTH = Knob("w", "w in the formula", 128, 1, MAX_TOKENS, scale="log2", help="What w stands for.")
CONSTANTS = Knob(
    "constants",
    "Constants",
    "",
    code=True,
    help="Further names in the formula and their values, such as SLIDING_WINDOW = 1024, PREFIX = 64.",
    read=_read_constants,
)


def _trace(given, s):
    text, t, constants = s["formula"], given.q.shape[2], _constants(s["constants"], s)
    with _told_at_the_formula():
        by_head = _densities(given, s, constants) if parse_formula(text, constants=constants).reads("h") else {}
        draw = _by_pair if t <= DENSE_LIMIT else _by_block
        return draw(given, s, by_head, head=given.head, constants=constants)


def _by_pair(given, s, facts, **how):
    t, d, block = given.q.shape[2], given.q.shape[3], s["block"]
    asked = mask_from_formula(s["formula"], t, **how)
    allowed = asked & np.tri(t, dtype=bool) if given.causal else asked  # no method may look ahead in a causal model
    blocks = -(-t // block)
    padded = np.zeros((blocks * block, blocks * block), bool)
    padded[:t, :t] = allowed
    attention = attention_weights(given.q, given.k, causal=given.causal)[0, 0]
    effective = attention_weights(given.q, given.k, causal=False, allowed=torch.as_tensor(allowed))[0, 0]
    return AttentionTrace(
        method="Formula",
        t=t,
        causal=given.causal,
        block_size=block,
        cost=attention_cost(t=t, d=d, causal=given.causal, allowed=allowed, block_size=block),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention=attention.numpy(),
        effective=effective.numpy(),
        allowed=allowed,
        keep=padded.reshape(blocks, block, blocks, block).any(axis=(1, 3)),
        facts=_ahead(np.count_nonzero(asked) - np.count_nonzero(allowed)) | facts,
    )


def _by_block(given, s, facts, **how):
    t, d, block = given.q.shape[2], given.q.shape[3], s["block"]
    how |= {"block_size": block, "most_steps": MOST_STEPS}
    pairs = formula_pairs(s["formula"], t, causal=given.causal, **how)
    ahead = formula_pairs(s["formula"], t, ahead=True, **how).sum() if given.causal else 0
    return AttentionTrace(
        method="Formula",
        t=t,
        causal=given.causal,
        block_size=block,
        cost=attention_cost(t=t, d=d, causal=given.causal, pairs=pairs, block_size=block),
        keep=pairs > 0,
        maps={"blocks": (pairs / pairs_in_blocks(t, block_size=block)).astype(np.float32)},
        facts=_ahead(ahead) | facts,
    )


def _ahead(pairs):
    return {"pairs of the formula that look ahead, left out (counted)": int(pairs)} if pairs else {}


def _densities(given, s, constants):
    """Return what every head of the layer keeps, for a formula that differs from head to head."""
    t, how = given.q.shape[2], {"causal": given.causal, "block_size": s["block"], "constants": constants}
    if given.all_q is None or t > DENSE_LIMIT:
        return {}
    heads = [formula_pairs(s["formula"], t, head=head, **how).sum() for head in range(given.all_q.shape[1])]
    told = " ".join(f"{pairs / dense_pairs(t, causal=given.causal):.3g}" for pairs in heads)
    return {"density, head by head (counted)": told}


STORIES = (
    Story(
        "A window and the first keys",
        {"formula": "q >= k and (q - k < w or k < 4)", "w": 64, "left": "blocks", "right": "allowed"},
        "A block is full, partial or empty. Only a partial one needs a mask inside it. Move w, the width of the "
        "window, or change the formula or the block size, and compare the counts in the table.",
    ),
    Story(
        "Every third token",
        {"formula": "q >= k and (q - k) % 3 == 0", "left": "blocks", "right": "allowed"},
        "A third of the pairs is computed, yet no block below the diagonal is empty. A kernel that skips whole blocks "
        "saves nothing here.",
    ),
    Story(
        "A window for each head",
        {
            "formula": "lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < 8 * 2 ** h)",
            "head": 2,
            "left": "blocks",
            "right": "allowed",
        },
        "This is a mask_mod as FlexAttention takes it. It reads the head h: each head sees twice as far back as the "
        "one before. Choose another head, and see the window grow. The table says how much every head keeps.",
    ),
    Story(
        "65,536 tokens",
        {"input": "slash", "tokens": MAX_TOKENS, "block": 128, "w": 4096, "left": "blocks", "right": "keep"},
        "A mask of this length has four thousand million pairs, so it is drawn by blocks of 128 tokens. Blocks that "
        "the formula keeps or drops whole are told without a look at their pairs.",
    ),
)

METHOD = Method(
    key="formula",
    title="Formula",
    knobs=(WIDTH, FORMULA, CONSTANTS, BLOCK),
    trace=_trace,
    runs=cost.run_pairs,
    longest=MAX_TOKENS,
    stories=STORIES,
)
