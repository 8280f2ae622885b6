"""What the search owes to each of its parts: the choice of groups, the wrappers, their blocks, and the rate."""

from functools import partial

from workbench.models.compression.armor import armor_factorize
from workbench.paper import row
from workbench.papers.armor.layers import MODELS, layers_of

LOSS = "relative proxy loss after a round"
L1, UNIFORM, GREEDY, NONE = "by gradient, drawn", "drawn, all alike", "largest gradient", "never"
FROZEN, SLOW = "wrappers frozen", "rate of the paper"
WAYS = {  # how groups are chosen -> arguments
    L1: {"select": "l1"},
    UNIFORM: {"select": "uniform"},
    GREEDY: {"select": "greedy"},
    NONE: {"core_updates": 0},
    FROZEN: {"wrappers": False},
}
BLOCK, BLOCKS = 32, (16, 64)
MATRICES = {"tiny": 1, "small": 2, "full": 4}
SEEDS = {"tiny": 1, "small": 2, "full": 3}
ROUNDS = {"tiny": 3, "small": 60, "full": 300}
TOLD = 3  # rounds that are told: a third, two thirds, all
SLOW_RATE, SLOWER = 1e-4, 5  # the paper's rate, and how many times the rounds it gets


def settings(size, seed, report, keep):
    """Factor some matrices of the first block of an encoder with one part of the search changed at a time."""
    rows, model, rounds = [], MODELS[size][0], ROUNDS[size]
    names = list(layers_of(model, size))[: MATRICES[size]]
    cases = [(way, BLOCK, rounds, how) for way, how in WAYS.items()]
    cases += [(L1, block, rounds, {}) for block in BLOCKS]
    cases.append((SLOW, BLOCK, SLOWER * rounds, {"lr": SLOW_RATE}))
    work = [
        (name, way, block, iters, how, seed + i)
        for name in names
        for way, block, iters, how in cases
        for i in range(1 if way in (FROZEN, SLOW) else SEEDS[size])
    ]
    for i, (name, way, block, iters, how, one) in enumerate(work):
        report(i / len(work), f"{name}, {way}, blocks of {block}, seed {one}")
        labels = {"model": model, "layer": name, "way": way, "block": block, "seed": one}
        rows += keep(labels, partial(_factored, size, iters, how, labels))
    return rows


def _factored(size, iters, how, labels):
    w, h = layers_of(labels["model"], size)[labels["layer"]]
    found = armor_factorize(w, h, labels["block"], iters=iters, seed=labels["seed"], patience=iters or 1, **how)
    rounds = [0, *(iters * i // TOLD for i in range(1, TOLD + 1))]
    return [
        row(LOSS, float(found.history[: step + 1].min()), "relative", "measured", round=step, **labels)
        for step in rounds
    ]
