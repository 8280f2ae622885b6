"""Exercises of the XAttention notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake

ROUNDING = 1e-9  # a sum that reaches the threshold on paper reaches it here


def _tokens(rng: np.random.Generator):
    return rng.integers(-4, 10, (6, 2)), rng.integers(-4, 10, (6, 2))


def _tile(given, pairs) -> int:
    q, k = given
    return int(sum(q[3 + i] @ k[j] for i, j in pairs))


_ANTIDIAGONAL = ((2, 0), (1, 1), (0, 2))
_DIAGONAL = ((0, 0), (1, 1), (2, 2))


def _distances(rng: np.random.Generator):
    """Two even, two odd distances and a multiple of the stride, in a drawn order."""
    stride = int(rng.choice([4, 8]))
    odd, even = 2 * rng.permutation(20)[:2] + 1, 2 * (2 * rng.permutation(10)[:2] + 1)
    drawn = [*map(int, odd), *map(int, even), stride * int(rng.integers(2, 6))]
    return stride, tuple(drawn[i] for i in rng.permutation(5))


def _scores(rng: np.random.Generator):
    """A row with weak sink and diagonal, so that forcing them matters."""
    middle = rng.permutation([0.04, 0.09, 0.13, 0.17, 0.23, 0.28]) + rng.uniform(-0.005, 0.005, 6)
    row = np.array([0.02, *middle, 0.03])
    return (row / row.sum()).round(4), float(rng.choice([0.6, 0.7, 0.8]))


def _kept(given, forced=True, share=None) -> int:
    row, threshold = given
    first = (0, len(row) - 1) if forced else ()
    others = [i for i in np.argsort(-row, kind="stable") if i not in first]
    mass, count = sum(row[i] for i in first), len(first)
    for i in others:
        if mass >= threshold * (row.sum() if share is None else share) - ROUNDING:
            break
        mass, count = mass + row[i], count + 1
    return count


def _run(rng: np.random.Generator):
    return {
        "tokens": 1024 * int(rng.choice([8, 16, 32])),
        "width": int(rng.choice([64, 128])),
        "stride": int(rng.choice([8, 16])),
        "kept": float(rng.choice([0.08, 0.12, 0.2])),
    }


def _gain(run, scoring=True, attend=4) -> float:
    dense = 4 * run["tokens"] ** 2 * run["width"]
    scored = 2 * run["tokens"] ** 2 * run["width"] / run["stride"] if scoring else 0
    return dense / (scored + attend * run["kept"] * run["tokens"] ** 2 * run["width"])


def _shapes(rng: np.random.Generator):
    return [(s * int(rng.integers(2, 6)), int(rng.integers(2, 9)), s) for s in (1, 4, 8)]


def _cases(shapes):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((t, d)), rng.standard_normal((t, d)), s) for t, d, s in shapes]


def _tile_sums(q, k, stride):
    lanes = q.reshape(-1, stride, q.shape[1])[:, ::-1]
    return lanes.reshape(len(lanes), -1) @ k.reshape(len(k) // stride, -1).T


EXERCISES = (
    Exercise(
        name="tile",
        question="What is the sum of the logits on the antidiagonal of the tile of queries 3, 4, 5 and keys 0, 1, 2?",
        given=_tokens,
        answer=lambda given: _tile(given, _ANTIDIAGONAL),
        hints=(
            "Three products: each of the three queries meets exactly one of the three keys.",
            "The antidiagonal runs from the lower left to the upper right: the last query meets the first key.",
            "Pair query 5 with key 0, query 4 with key 1, query 3 with key 2, and add the dot products.",
        ),
        mistakes=(
            Mistake(lambda given: _tile(given, _DIAGONAL), "That is the diagonal: query 3 with key 0, and so on."),
            Mistake(
                lambda given: _tile(given, [(i, j) for i in range(3) for j in range(3)]),
                "That is the sum of all nine logits, which is what we want to avoid.",
            ),
        ),
    ),
    Exercise(
        name="distances",
        question="Which of these slashes of width 1 does an antidiagonal of this stride meet?",
        given=_distances,
        answer=lambda given: tuple(bool(x % 2) for x in given[1]),
        hints=(
            "An entry is read if (i mod S) + (j mod S) = S - 1. The slash has i - j equal to the distance.",
            "Add the two conditions: what does that say about i - j being even or odd, when S is even?",
            "`lines_read(stride)`, repeated over a larger square, shows it; sum it over i - j = distance.",
        ),
        mistakes=(
            Mistake(
                lambda given: tuple(x % given[0] == 0 for x in given[1]), "That is what the diagonal of a tile meets."
            ),
            Mistake(lambda given: (True,) * 5, "Every slash of width two is met; these have width one."),
            Mistake(lambda given: tuple(not x % 2 for x in given[1]), "The other way round, on all five."),
        ),
    ),
    Exercise(
        name="select",
        question="How many blocks does the threshold keep in this row of a causal model?",
        given=_scores,
        answer=_kept,
        unit="blocks",
        hints=(
            "Two blocks are in before the search begins, whatever their scores: the sink and the diagonal.",
            "Their scores count towards the threshold. Then add the others, the largest first.",
            "Stop as soon as the sum so far reaches the threshold times the sum of the row.",
        ),
        mistakes=(
            Mistake(
                lambda given: _kept(given, forced=False),
                "That forgets the two blocks that a causal row always keeps: the first and the last.",
            ),
        ),
    ),
    Exercise(
        name="cost",
        question="How many times fewer operations do scoring and attending take together than dense attention?",
        given=_run,
        answer=_gain,
        hints=(
            "Scoring is one product of (t / S) x (S d) by (S d) x (t / S); an addition and a multiplication each.",
            "Attending over a share of the blocks takes that share of 4 t^2 d.",
            "Dense over the sum of both; t^2 d cancels.",
        ),
        mistakes=(
            Mistake(lambda run: _gain(run, scoring=False), "That leaves out the scoring, which is not free."),
            Mistake(lambda run: _gain(run, attend=2), "Attention has two products: logits, and weights times values."),
        ),
    ),
    Exercise(
        name="reshape",
        question="Write a function (q, k, stride) that returns the sums of the antidiagonals of all tiles.",
        given=_shapes,
        answer=lambda shapes: _tile_sums,
        cases=_cases,
        hints=(
            "A sum of S dot products is one dot product of vectors that are S times as long.",
            "Reshape k from (t, d) to (t / S, S d). Reshape q to (t / S, S, d) first: its order must change.",
            "Reverse q's middle axis (not the whole sequence), flatten to (t / S, S d), multiply by k transposed.",
        ),
    ),
)
