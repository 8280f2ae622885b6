"""Exercises of the Monarch notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _layer(rng: np.random.Generator):
    """A layer whose sides differ, and a number of blocks that divides both."""
    nblocks = int(rng.choice([4, 8]))
    return {
        "inputs": nblocks * int(rng.integers(8, 40)) * 4,
        "outputs": nblocks * int(rng.integers(44, 90)) * 4,
        "blocks": nblocks,
    }


def _parameters(given, square=False) -> int:
    n, m, count = given["inputs"], given["outputs"], given["blocks"]
    read, written = n // count, m // count
    between = max(read, written) if square else min(read, written)
    return count * between * (read + written)


def _small_factors(rng: np.random.Generator):
    """Two factors of 3 blocks of 3 x 3, whole numbers, and a place of the product."""
    while True:
        r, l = rng.integers(-9, 10, size=(2, 3, 3, 3))
        r[r == 0], l[l == 0] = 4, 7
        place = rng.integers(3, size=4)
        place[1] = (place[2] + 1) % 3  # j and k differ, so that their order matters
        given = {"R": r.tolist(), "L": l.tolist(), "row": int(3 * place[0] + place[1]),
                 "column": int(3 * place[2] + place[3])}  # fmt: skip
        if _entry(given) != _entry(given, swapped=True):
            return given


def _entry(given, swapped=False) -> int:
    r, l = np.array(given["R"]), np.array(given["L"])
    (s, j), (k, p) = divmod(given["row"], 3), divmod(given["column"], 3)
    if swapped:
        s, j = j, s
    return int(l[j, s, k] * r[k, j, p])


def _spectra(rng: np.random.Generator):
    """Singular values of the four parts of a matrix with two blocks on each side."""
    while True:
        given = [sorted(map(int, rng.integers(1, 20, size=3)), reverse=True) for _ in range(4)]
        if abs(_error(given) - _error(given, per_part=True)) > 0.01:
            return given


def _error(given, rank=1, per_part=False) -> float:
    values = np.array(given, float)
    if per_part:
        return float(np.mean(np.sqrt((values[:, rank:] ** 2).sum(1) / (values**2).sum(1))))
    return float(np.sqrt((values[:, rank:] ** 2).sum() / (values**2).sum()))


def _transform(rng: np.random.Generator):
    a, b = rng.choice([3, 4, 5, 6, 7], size=2, replace=False)
    return {"blocks": int(a), "inputs of a block": int(b)}


def _order(given, turned=False):
    a, b = given["blocks"], given["inputs of a block"]
    order = np.arange(a * b).reshape(b, a).T if not turned else np.arange(a * b).reshape(a, b).T
    return [int(x) for x in order.reshape(-1)]


def _power(rng: np.random.Generator):
    m, p = [(4, 2), (4, 3), (8, 2), (2, 5), (2, 6), (3, 4)][int(rng.integers(6))]
    return {"n": m**p, "order": p}


def _adds(given, butterfly=False) -> int:
    n, p = given["n"], given["order"]
    m = round(n ** (1 / p))
    return (n * m) if butterfly else p * n * m


def _sizes(rng: np.random.Generator):
    """Blocks and widths of the factors that a function will be tried on."""
    return [(int(k), int(q), int(p)) for k, q, p in rng.integers(2, 5, size=(3, 3))]


def _product_cases(given):
    rng = np.random.default_rng(0)
    cases = []
    for k, q, p in given:
        w1, w2 = rng.standard_normal((k, q * k, p)), rng.standard_normal((k, p, q * k))
        cases.append((rng.standard_normal((2, k * p)), w1, w2))
    return cases


def _monarch(x, w1, w2):
    rows, (l, _, r) = len(x), w2.shape
    first = np.einsum("kqp,bkp->bkq", w1, x.reshape(rows, w1.shape[0], -1)).reshape(rows, r, l)
    return np.einsum("lsr,brl->bsl", w2, first).reshape(rows, -1)


EXERCISES = (
    Exercise(
        name="parameters",
        question="How many numbers do the two factors of this layer hold?",
        given=_layer,
        answer=_parameters,
        unit="numbers",
        hints=(
            "A block of the first factor reads inputs / blocks numbers, one of the second writes outputs / blocks.",
            "Between them stand blocks times the smaller of those two numbers.",
            "The first factor has blocks x between x read numbers, the second blocks x written x between.",
        ),
        mistakes=(
            Mistake(lambda given: given["inputs"] * given["outputs"], "That is the dense layer."),
            Mistake(
                lambda given: _parameters(given, square=True), "What stands between is as narrow as the smaller block."
            ),
            Mistake(
                lambda given: 2 * given["inputs"] * given["outputs"] // given["blocks"],
                "That would be right if both sides were equal.",
            ),
        ),
    ),
    Exercise(
        name="entry",
        question="Which number stands at this row and column of the product of the two factors?",
        given=_small_factors,
        answer=_entry,
        hints=(
            "Write the row as 3 s + j and the column as 3 k + p, all counted from 0.",
            "Only one path leads from input 3 k + p to output 3 s + j: through block k of R and block j of L.",
            "The entry is L[j][s][k] * R[k][j][p].",
        ),
        mistakes=(
            Mistake(
                lambda given: _entry(given, swapped=True),
                "That leaves out one of the two permutations: the block of L is row mod 3, not row // 3.",
            ),
        ),
    ),
    Exercise(
        name="error",
        question="What is the relative error of the projection with rank 1, given the singular values of all parts?",
        given=_spectra,
        answer=_error,
        hints=(
            "A projection keeps the first singular value of each part and drops the others.",
            "The squared error is the sum of the squares of all that is dropped, over all parts.",
            "Divide by the sum of all squares, and take the root of the quotient.",
        ),
        mistakes=(
            Mistake(lambda given: _error(given) ** 2, "That is the square of the error."),
            Mistake(lambda given: _error(given, per_part=True), "Parts are added as squares before the root is taken."),
        ),
    ),
    Exercise(
        name="order",
        question="In which order must the inputs of the Fourier transform stand? List their numbers.",
        given=_transform,
        answer=_order,
        hints=(
            "With a blocks of b inputs, block k reads the inputs k, k + a, k + 2 a, and so on.",
            "Count 0, 1, 2, ... in rows of a numbers, then read the columns.",
        ),
        mistakes=(
            Mistake(lambda given: _order(given, turned=True), "Rows have as many numbers as there are blocks."),
            Mistake(lambda given: list(range(given["blocks"] * given["inputs of a block"])), "That is no permutation."),
        ),
    ),
    Exercise(
        name="higher_order",
        question="How many multiply-adds does one row of inputs take in a Monarch matrix of this order?",
        given=_power,
        answer=_adds,
        unit="multiply-adds",
        hints=(
            "A matrix of order p has p factors, and n is m to the power p.",
            "Each factor multiplies every group of m numbers with an m x m matrix: n / m groups.",
        ),
        mistakes=(
            Mistake(lambda given: given["n"] ** 2, "That is the dense matrix."),
            Mistake(lambda given: _adds(given, butterfly=True), "That is one factor; there are as many as the order."),
        ),
    ),
    Exercise(
        name="product",
        question="Write a function of x, w1 and w2 that multiplies with the two factors, without the dense matrix.",
        given=_sizes,
        answer=lambda sizes: _monarch,
        cases=_product_cases,
        hints=(
            "x has rows of k p numbers; see each as (k, p) and multiply with w1 of shape (k, q, p).",
            "See the k q numbers as (r, l), with l the blocks of w2 of shape (l, s, r), and multiply.",
            'The result in the order (s, l), flattened: `np.einsum("lsr,brl->bsl", w2, first).reshape(rows, -1)`.',
        ),
    ),
)
