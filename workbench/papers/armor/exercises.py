"""Exercises of the ARMOR notebook."""

from itertools import combinations

import numpy as np

from workbench.grading.exercise import Exercise, Mistake

PAIRS = list(combinations(range(4), 2))
CLEAR = 0.1  # by how much the better choice leads, so that rounding cannot turn it


def _row(rng: np.random.Generator):
    """Two groups of normalised weights and the mean squares of their inputs, where size alone chooses other ones."""
    while True:
        weights = rng.choice([-1, 1], 8) * rng.integers(5, 60, 8) / 100
        given = {"weights": weights.round(2), "h": rng.integers(2, 40, 8) / 10}
        score = np.sort((given["h"] * given["weights"] ** 2).reshape(2, 4), axis=1)
        plain = np.sort(np.abs(given["weights"]).reshape(2, 4), axis=1)
        clear = all((x[:, 2] > x[:, 1] * (1 + CLEAR)).all() for x in (score, plain))
        if clear and _kept(given) != _largest(given):
            return given


def _best(score) -> list[int]:
    return sorted(int(4 * g + i) for g in range(2) for i in np.argsort(-score[4 * g : 4 * g + 4])[:2])


def _kept(given) -> list[int]:
    return _best(given["h"] * given["weights"] ** 2)


def _largest(given) -> list[int]:
    return _best(np.abs(given["weights"]))


def _matrix(rng: np.random.Generator):
    """A small matrix whose rows and columns differ in length."""
    while True:
        given = rng.integers(1, 10, (2, 2)).astype(float)
        if abs(_normal(given) - _rows_first(given)) > 0.01 and abs(_normal(given) - _columns_only(given)) > 0.01:
            return given


def _normal(w) -> float:
    once = w / np.linalg.norm(w, axis=0)
    return float((once / np.linalg.norm(once, axis=1)[:, None])[0, 1])


def _rows_first(w) -> float:
    once = w / np.linalg.norm(w, axis=1)[:, None]
    return float((once / np.linalg.norm(once, axis=0))[0, 1])


def _columns_only(w) -> float:
    return float((w / np.linalg.norm(w, axis=0))[0, 1])


def _layer(rng: np.random.Generator):
    """A layer and the side of the wrappers' blocks."""
    return {
        "inputs": 128 * int(rng.integers(2, 12)),
        "outputs": 128 * int(rng.integers(2, 12)),
        "side of a block": int(rng.choice([16, 32, 64])),
    }


def _bits(given, wrappers=True, places=2) -> int:
    m, n, b = given["outputs"], given["inputs"], given["side of a block"]
    return m * n // 2 * (16 + places) + (16 * b * (m + n) if wrappers else 0)


def _multiply_adds(given) -> int:
    m, n, b = given["outputs"], given["inputs"], given["side of a block"]
    return m * n // 2 + b * (m + n)


def _group(rng: np.random.Generator):
    """Products f of a group's four lines with what is missing, and the lines' products Q with each other."""
    while True:
        lines = rng.integers(-4, 5, (4, 3))
        wanted = rng.integers(-6, 7, 3)
        given = {"f": lines @ wanted, "Q": lines @ lines.T + np.eye(4, dtype=int)}
        gains = sorted(_gain(given["f"], given["Q"], pair) for pair in PAIRS)
        size = np.sort(np.abs(given["f"]))
        clear = gains[-1] > gains[-2] * (1 + CLEAR) and size[2] > size[1]
        if clear and _pair(given) != _pair_by_size(given):
            return given


def _gain(f, q, pair) -> float:
    at = list(pair)
    return float(f[at] @ np.linalg.solve(q[np.ix_(at, at)], f[at]))


def _pair(given) -> list[int]:
    return list(max(PAIRS, key=lambda pair: _gain(given["f"], given["Q"], pair)))


def _pair_by_size(given) -> list[int]:
    return sorted(np.argsort(-np.abs(given["f"]))[:2].tolist())


def _instances(rng: np.random.Generator):
    """Seeds of the groups that a function is tried on."""
    return rng.integers(1, 10_000, 3).tolist()


def _cases(seeds):
    cases = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        lines = rng.standard_normal((4, 5))
        cases.append((lines @ rng.standard_normal(5), lines @ lines.T))
    return cases


def _choose(f, q):
    """Return the best values of a group with two places taken."""
    at = list(max(PAIRS, key=lambda pair: _gain(f, q, pair)))
    v = np.zeros(4)
    v[at] = np.linalg.solve(q[np.ix_(at, at)], f[at])
    return v


EXERCISES = (
    Exercise(
        name="kept",
        question="Which weights (from 0) does NoWag-P keep at 2:4? These ones are normalised already.",
        given=_row,
        answer=_kept,
        hints=(
            "The first four weights are a group, and the last four.",
            "A weight is worth its square times the mean square of its input, h. Keep the two best of each group.",
        ),
        mistakes=(Mistake(_largest, "These are the largest weights. The inputs count too."),),
    ),
    Exercise(
        name="normal",
        question="What is the upper right entry of the normalised matrix? Leave out the small number in the divisors.",
        given=_matrix,
        answer=_normal,
        hints=(
            "First the columns are scaled to length 1, then the rows of what comes out.",
            "Divide each column by its length, then the first row by its new length.",
        ),
        mistakes=(
            Mistake(_rows_first, "You have scaled the rows first; the columns come first."),
            Mistake(_columns_only, "After the columns the rows are scaled as well."),
        ),
    ),
    Exercise(
        name="bits",
        question="How many bits does this layer take as a 2:4 matrix between wrappers, with 16 bits a value?",
        given=_layer,
        answer=_bits,
        unit="bits",
        hints=(
            "Half of the values stay, each with 2 bits that say where it stands in its group.",
            "The wrappers are square blocks on a diagonal: 16 b values for every row and for every column of the "
            "matrix, in bits.",
        ),
        mistakes=(
            Mistake(lambda given: _bits(given, wrappers=False), "That is plain 2:4: the wrappers are stored too."),
            Mistake(lambda given: _bits(given, places=0), "The places of the weights that stay are missing."),
        ),
    ),
    Exercise(
        name="multiply_adds",
        question="How many multiply-adds does a token take in this layer?",
        given=_layer,
        answer=_multiply_adds,
        unit="multiply-adds",
        hints=(
            "The token meets the right wrapper, then the 2:4 matrix, then the left wrapper.",
            "A wrapper takes b multiply-adds for each of its rows, the 2:4 matrix one for each value that stays.",
        ),
        mistakes=(
            Mistake(lambda given: given["outputs"] * given["inputs"], "That is the dense layer."),
            Mistake(lambda given: given["outputs"] * given["inputs"] // 2, "The wrappers multiply too."),
        ),
    ),
    Exercise(
        name="pair",
        question="Which two places of this group, with their best values, make v Q v - 2 f v least?",
        given=_group,
        answer=_pair,
        hints=(
            "For two places P the best values are the solution of Q_PP v = f_P, and the sum is then -f_P v.",
            "There are six pairs. Compute f_P Q_PP^-1 f_P for each and take the largest.",
        ),
        mistakes=(
            Mistake(
                _pair_by_size,
                "These have the largest f. Two lines that point the same way explain the same thing: Q counts.",
            ),
        ),
    ),
    Exercise(
        name="choose",
        question="Write the exact choice in one group.",
        given=_instances,
        answer=lambda seeds: _choose,
        cases=_cases,
        hints=(
            "`itertools.combinations(range(4), 2)` gives the six pairs, `np.ix_(pair, pair)` their part of Q.",
            "Solve the 2 x 2 system for each pair, take the pair with the largest product of f and the solution, and "
            "return an array of four values, two of them 0.",
        ),
    ),
)
