"""Every method's cost against its explicit mask, pair by pair: a method that is added is checked with no word here.

What a trace says it keeps is first held against the attention that it gives, and only then counted.
"""

import math

import numpy as np
import pytest
import torch

from workbench.explorers.attention.explorer import view_class
from workbench.explorers.attention.method import compared
from workbench.explorers.attention.source import Source, load_input, of_head
from workbench.models.attention.dense_attention import attention_weights

SETTINGS = {knob.key: knob.default for knob in view_class().knobs}
LENGTHS = (1, 7, 63, 64, 65, 100, 129)
BLOCKS = (16, 32, 64, 128)
SOME_SETTINGS = (
    {},
    {"formula": "q < 64 and k < 64"},
    {"formula": "(q - k) % 3 == 0"},
    {"threshold": 1.0},
    {"choose": "ratio", "kept_share": 0.25},
    {"choose": "ratio", "kept_share": 1.0},
)

MADE_FOR = {key: m.requires.settings(SETTINGS) for key, m in compared().items() if m.requires}
MADE_FOR = {key: needed for key, needed in MADE_FOR.items() if needed}  # for the heads of one model only


def inputs(method, t):
    """Yield random heads of t tokens, causal and not, as the method takes them."""
    rng = np.random.default_rng(t)
    q, k, v = (torch.from_numpy(2 * rng.standard_normal((1, 1, t, 8), np.float32)) for _ in range(3))
    side = max(side for side in range(1, math.isqrt(t) + 1) if t % side == 0)
    for causal in (False, True):
        source = Source(key="x", title="x", knobs=(), load=len, limits={}, causal=causal, pictures=method.pictures)
        if not (causal and method.pictures) and not method.refuse(SETTINGS | {"tokens": t}, source):
            grid = (side, t // side) if method.pictures else None
            yield of_head("made up", q, k, v, 0, causal=causal, grid=grid)


def traces(method, given, settings):
    """Trace the method, unless it says that it cannot take so short an input."""
    try:
        return method.trace(given, settings)
    except ValueError as error:
        assert "too small" in str(error) or "longer than the text" in str(error), error
        return None


def check(seen, d):
    """Count the trace's mask in loops over blocks, and compare every number of its cost."""
    t, cost, block = seen.t, seen.cost, seen.cost.block_size
    allowed = np.zeros((t, t), bool) if seen.allowed is None else np.array(seen.allowed)
    dense = np.tri(t, dtype=bool) if seen.causal else np.ones((t, t), bool)
    assert not (allowed & ~dense).any() and block == (seen.block_size or block)
    rows = np.arange(t) if seen.query_order is None else seen.query_order
    columns = np.arange(t) if seen.order is None else seen.order
    if cost.summaries:  # what is no pair shows in the weights that pairs do not explain
        assert seen.reached is not None and (np.asarray(seen.effective) > 1e-6)[~np.asarray(seen.reached)].sum() == 0
        assert not (allowed & ~np.asarray(seen.reached)).any()
    starts = range(0, t, block)
    for found, mask in ((cost.kept, allowed[rows][:, columns]), (cost.dense, dense)):
        tiles = [mask[i : i + block, j : j + block] for i in starts for j in starts]
        held = [tile for tile in tiles if tile.any()]
        assert found.pairs == sum(int(tile.sum()) for tile in tiles) == np.count_nonzero(mask)
        extra = cost.summaries if found is cost.kept else 0
        assert found.multiply_adds == 2 * d * (found.pairs + extra)
        bytes_of_pairs = 4 * d * (2 * t + 2 * sum(tile.shape[1] for tile in held))
        if extra:
            assert found.blocks > len(held) and found.bytes > bytes_of_pairs
        else:
            assert found.blocks == len(held) and found.bytes == bytes_of_pairs
    assert seen.density == np.count_nonzero(allowed) / np.count_nonzero(dense) and 0 <= seen.density <= 1
    if seen.attention is not None:
        covered = float((seen.attention * allowed).sum() / seen.attention.sum())
        assert seen.coverage == pytest.approx(covered, abs=1e-5)
    if np.array_equal(allowed, dense):
        assert cost.summaries or cost.kept.multiply_adds == cost.dense.multiply_adds
        if not cost.summaries and (rows == np.arange(t)).all() and (columns == np.arange(t)).all():
            assert cost.kept == cost.dense


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("key", [key for key in compared() if key not in MADE_FOR])
def test_costs_are_those_of_the_explicit_mask(key, t):
    method = compared()[key]
    for given in inputs(method, t):
        for block in BLOCKS if "block" in {knob.key for knob in method.knobs} else BLOCKS[:1]:
            for more in SOME_SETTINGS:
                if more and not set(more) <= {knob.key for knob in method.knobs}:
                    continue
                seen = traces(method, given, SETTINGS | {"block": block} | more)
                if seen is None:
                    continue
                check(seen, given.q.shape[3])
                if not seen.cost.summaries and seen.reached is None:
                    kept = attention_weights(given.q, given.k, causal=seen.causal, allowed=seen.allowed)[0, 0]
                    np.testing.assert_allclose(seen.effective, kept, atol=1e-5)


@pytest.mark.parametrize("tokens", [64, 100])
@pytest.mark.parametrize("key", MADE_FOR)
def test_costs_of_methods_that_were_made_for_one_input(key, tokens):
    method, needed = compared()[key], MADE_FOR[key]
    given = load_input(needed["input"], layer=needed.get("layer", 0), tokens=tokens)
    check(method.trace(given, SETTINGS | needed), given.q.shape[3])
