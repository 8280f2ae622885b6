"""Exercises of the SEA notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _budget(rng: np.random.Generator):
    width = int(rng.choice([32, 64, 128]))
    return {
        "heads": int(rng.integers(4, 13)),
        "cells per row": width,
        "keys per query": int(rng.integers(5, 30)),
        "tokens": int(width * rng.integers(3, 9)),
    }


def _cells(given, heads) -> int:
    return round(heads * given["keys per query"] * given["cells per row"] / given["tokens"])


def _span(rng: np.random.Generator):
    width = int(rng.choice([8, 16, 32]))
    return {
        "visible keys": int(rng.integers(2 * width, 6 * width)),
        "cells": width,
        "cell": int(rng.integers(1, width)),
    }


def _covered(given) -> tuple[int, int]:
    from workbench.models.attention.sea import column_of_key

    keys = np.flatnonzero(column_of_key(given["visible keys"], given["cells"]).numpy() == given["cell"])
    return int(keys[0]), int(keys[-1])


def _cut_evenly(given) -> tuple[int, int]:
    stretch = given["visible keys"] // given["cells"]
    return given["cell"] * stretch, (given["cell"] + 1) * stretch - 1


def _estimate(rng: np.random.Generator):
    """Four heads' rows of eight cells for one query: one head sharp, the others flatter; and cells to keep."""
    sharpness = rng.permutation([6.0, 2.0, 1.0, 0.5])
    logits = sharpness[:, None] * rng.random((4, 8))
    est = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return est.round(3), int(rng.integers(2, 4)) * 4


def _best(est, count):
    chosen = np.zeros(est.size, bool)
    chosen[np.argsort(-est.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(est.shape)


def _best_per_head(given):
    est, count = given
    return np.stack([_best(row, count // len(est)) for row in est])


def _layer(rng: np.random.Generator):
    import torch

    from workbench.models.attention.sea import SEAAttention

    q, k, v = (torch.from_numpy(rng.standard_normal((1, 2, 24, 8)).astype(np.float32)) for _ in range(3))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(int(rng.integers(2**31)))
        out = SEAAttention(16, 2, width=8, k=6)(q, k, v)
    return {
        "s_prob": float(out.scales[0][0, 0, 5, 0]),
        "s_mix": float(out.scales[1][0, 0, 5, 0]),
        "tokens": 24,
        "cells": 8,
    }


def _row_sum(given) -> float:
    return given["s_mix"] * given["s_prob"] + (1 - given["s_mix"]) * given["tokens"] / given["cells"]


def _memory(rng: np.random.Generator):
    return {"cells per row": int(rng.choice([64, 128, 256])), "keys per query": int(rng.integers(7, 129))}


EXERCISES = (
    Exercise(
        name="budget",
        question="How many cells does one query get, over all heads together?",
        given=_budget,
        answer=lambda g: _cells(g, g["heads"]),
        unit="cells",
        hints=(
            "The budget is stated in keys; the ranking is of cells. How many keys does one cell stand for?",
            "A cell covers tokens / cells keys, so k keys are k * cells / tokens cells, for one head.",
            "All heads of a query are ranked together: take their budgets together, then round.",
        ),
        mistakes=(
            Mistake(lambda g: _cells(g, 1), "That is the budget of one head."),
            Mistake(lambda g: g["heads"] * g["keys per query"], "Those are keys, and a cell covers several."),
        ),
    ),
    Exercise(
        name="span",
        question="Which keys does this cell cover? Answer with (first, last).",
        given=_span,
        answer=_covered,
        hints=(
            "Key j reads the cell in which its middle falls: floor((j + 1/2) / visible keys * cells).",
            "Look for the smallest and the largest j for which that is the cell.",
            "`column_of_key(length, width)` gives the cell of every key.",
        ),
        mistakes=(
            Mistake(
                _cut_evenly, "That cuts into equal whole pieces; here the lengths of neighbouring spans differ by one."
            ),
        ),
    ),
    Exercise(
        name="group",
        question="Which cells are kept if all heads of the query are ranked together? A bool array like the estimate.",
        given=_estimate,
        answer=lambda given: _best(*given),
        hints=(
            "One list of all heads' cells, the best first; keep as many as the budget says.",
            "`np.argsort(-est.ravel(), kind='stable')` ranks them; mark the first ones in a flat array, then reshape.",
        ),
        mistakes=(
            Mistake(_best_per_head, "Each head got the same number; here a head with a sharp row may take more."),
        ),
    ),
    Exercise(
        name="row-sum",
        question="What does this row of the effective attention matrix add up to?",
        given=_layer,
        answer=_row_sum,
        hints=(
            "The row is s_mix * s_prob * p + (1 - s_mix) * w. What does each of p and w add up to?",
            "p is a softmax. The weight w of a key is the mean estimate of its cell, not divided by the cell's span.",
            "So w adds up to the span of a cell, tokens / cells.",
        ),
        mistakes=(
            Mistake(lambda g: 1.0, "Rows of softmax attention do; this row is scaled and mixed with an average."),
            Mistake(
                lambda g: g["s_mix"] * g["s_prob"] + 1 - g["s_mix"],
                "The average's weights do not add up to one: every key of a cell carries the whole cell's weight.",
            ),
        ),
    ),
    Exercise(
        name="memory",
        question="From how many tokens on do the estimate and the kept scores take less room than the whole matrix?",
        given=_memory,
        answer=lambda g: g["cells per row"] + g["keys per query"] + 1,
        unit="tokens",
        hints=(
            "Count numbers per query and head: a row of the estimate, and one score per kept key.",
            "A row of the whole matrix holds as many numbers as there are tokens. From when on is that more?",
        ),
        mistakes=(
            Mistake(
                lambda g: g["cells per row"] * g["keys per query"] + 1,
                "The two are stored beside each other: add them.",
            ),
            Mistake(lambda g: g["cells per row"] + 1, "The scores of the kept keys need room as well."),
            Mistake(lambda g: g["cells per row"] + g["keys per query"], "There, both take the same."),
        ),
    ),
)
