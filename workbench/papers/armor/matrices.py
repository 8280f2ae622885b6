"""One weight matrix after the other: ARMOR beside NoWag-P, and beside NoWag-P with a low-rank part of as many bytes."""

from functools import partial

import numpy as np

from workbench.models.compression.armor import armor_factorize, nowag_p
from workbench.models.compression.nowag_low_rank import nowag_low_rank
from workbench.paper import row
from workbench.papers.armor.layers import MODELS, layers_of

LOSS, CHANGED = "relative proxy loss of a matrix", "share of the groups in which other weights stay"
NOWAG, ARMOR = "NoWag-P", "ARMOR"
ONCE, TURNS = "NoWag-P and low rank", "NoWag-P and low rank, in turns"
BLOCKS = {"tiny": (8,), "small": (16, 32), "full": (16, 32)}
ROUNDS = {"tiny": 4, "small": 100, "full": 300}
EVERY = 50  # rounds between two rows


def matrices(size, seed, report, keep):
    """Factor every matrix with each side of the blocks, and by the rivals of equally many bytes."""
    rows = []
    work = [(model, name, block) for model in MODELS[size] for name in layers_of(model, size) for block in BLOCKS[size]]
    for i, (model, name, block) in enumerate(work):
        report(i / len(work), f"{model}, {name}, blocks of {block}")
        make = partial(_factored, model, name, block, size, seed)
        rows += keep({"model": model, "layer": name, "block": block}, make)
    return rows


def _factored(model, name, block, size, seed):
    w, h = layers_of(model, size)[name]
    labels = {"model": model, "layer": name, "block": block}
    found = armor_factorize(w, h, block, iters=ROUNDS[size], seed=seed)
    start, low = nowag_p(w, h), nowag_low_rank(w, h, block, turns=10)
    rows = [row(LOSS, start.loss, "relative", "measured", method=NOWAG, **labels)]
    for method, loss in ((ONCE, low.history[1]), (TURNS, low.loss), (ARMOR, found.loss)):
        rows.append(row(LOSS, float(loss), "relative", "measured", method=method, **labels))
    for step in range(EVERY, len(found.history), EVERY):
        loss = float(found.history[: step + 1].min())
        rows.append(row(f"{LOSS} after a round", loss, "relative", "measured", method=ARMOR, round=step, **labels))
    other = (found.core.to_dense() != 0) != (start.weight != 0)
    changed = float(np.mean(other.reshape(len(w), -1, 4).any(-1)))
    return [*rows, row(CHANGED, changed, "fraction", "measured", method=ARMOR, **labels)]
