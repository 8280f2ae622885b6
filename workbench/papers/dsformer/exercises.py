"""Exercises of the DSFormer notebook."""

from math import comb

import numpy as np

from workbench.grading.exercise import Exercise, Mistake

CLEAR = 0.1  # by how much the first choice leads, so that rounding cannot turn it


def _sizes(rng: np.random.Generator):
    """A matrix in blocks of all rows, and its factors, of which wrong answers differ from right ones."""
    while True:
        cols, s = int(rng.choice([16, 32, 64])), int(rng.integers(3, 9))
        given = {
            "rows": 64 * int(rng.integers(4, 12)),
            "columns": cols * int(rng.integers(5, 13)),
            "columns of a block": cols,
            "atoms": 4 * s + int(rng.integers(1, 9)),
            "coefficients of a row": s,
        }
        if _bits(given) != _bits(given, shorter=max) and _rank(given) != given["atoms"]:
            return given


def _blocks(given) -> int:
    return given["columns"] // given["columns of a block"]


def _values(given, blocks=None) -> int:
    basis = given["atoms"] * given["columns of a block"]
    return (blocks or _blocks(given)) * (basis + given["rows"] * given["coefficients of a row"])


def _bits(given, places=True, shorter=min) -> int:
    r, s = given["atoms"], given["coefficients of a row"]
    index = shorter(r, s * (r - 1).bit_length())
    return 16 * _values(given) + (_blocks(given) * given["rows"] * index if places else 0)


def _rank(given) -> int:
    return _values(given) // (given["rows"] + given["columns"])


def _choices(rng: np.random.Generator):
    r = int(rng.integers(10, 20))
    return {"atoms": r, "coefficients of a row": int(rng.integers(3, 6))}


def _subspaces(given) -> int:
    return comb(given["atoms"], given["coefficients of a row"])


def _pursuit_case(rng: np.random.Generator):
    """Five atoms of three numbers, and a row whose second atom is not that of the second largest product."""
    while True:
        atoms = rng.standard_normal((5, 3))
        atoms = np.round(atoms / np.linalg.norm(atoms, axis=1, keepdims=True), 3)
        w = np.round(rng.permutation([1.5, 1.0, 0, 0, 0]) * rng.choice([-1, 1], 5) @ atoms + 0.3, 2)
        given = {"D": atoms, "w": w}
        if _is_clear(given) and _pursue(given) != _largest(given):
            return given


def _products(given, taken=()):
    """Return the sizes of the products of the atoms with what the atoms that were taken leave of the row."""
    d, w = given["D"], given["w"]
    left = w if not taken else w - np.linalg.lstsq(d[list(taken)].T, w, rcond=None)[0] @ d[list(taken)]
    found = np.abs(d @ left)
    found[list(taken)] = -1
    return found


def _is_clear(given):
    first = _products(given)
    both = (first, _products(given, (int(first.argmax()),)))
    return all(np.diff(np.sort(each)[-2:])[0] > CLEAR for each in both) and np.diff(np.sort(first)[-3:-1])[0] > CLEAR


def _pursue(given) -> list[int]:
    first = int(_products(given).argmax())
    return [first, int(_products(given, (first,)).argmax())]


def _largest(given) -> list[int]:
    return [int(i) for i in np.argsort(-_products(given))[:2]]


def _factor_sizes(rng: np.random.Generator):
    return {
        "blocks": int(rng.integers(2, 4)),
        "rows": int(rng.integers(4, 7)),
        "atoms": 5,
        "columns of a block": 3,
        "s": 2,
    }


def _factors(given):
    rng = np.random.default_rng(given["blocks"] * 100 + given["rows"])
    q, m, r, cols, s = given.values()
    idx = np.sort(np.argsort(rng.random((q, m, r)), axis=2)[..., :s], axis=2)
    return [(rng.standard_normal((q, r, cols)), idx, rng.standard_normal((q, m, s)), rng.standard_normal(q * cols))]


def _multiply(D, idx, val, x):
    read = np.einsum("qrc,qc->qr", D, x.reshape(len(D), -1))
    return (val * np.take_along_axis(read[:, None], idx, 2)).sum((0, 2))


EXERCISES = (
    Exercise(
        name="values",
        question="How many values do the factors of this matrix hold, all blocks together?",
        given=_sizes,
        answer=_values,
        unit="values",
        hints=(
            "Blocks have all rows of the matrix, so there are columns / columns of a block of them.",
            "A block stores its basis, atoms times its columns, and for every row its coefficients.",
        ),
        mistakes=(
            Mistake(lambda given: _values(given, 1), "That is one block."),
            Mistake(
                lambda given: _blocks(given) * given["atoms"] * (given["columns of a block"] + given["rows"]),
                "That would be S with all its entries; a row keeps only a few of them.",
            ),
        ),
    ),
    Exercise(
        name="bits",
        question="How many bits do these factors take, values of 16 bits and places included?",
        given=_sizes,
        answer=_bits,
        unit="bits",
        hints=(
            "A row of a block says which atoms it takes: with a bit for every atom, or with a list.",
            "An entry of the list takes the smallest whole number of bits that tells all atoms apart.",
            "Take the shorter of both for a row; they differ with the sizes.",
        ),
        mistakes=(
            Mistake(lambda given: _bits(given, places=False), "The places of the coefficients are missing."),
            Mistake(lambda given: _bits(given, shorter=max), "Places can be told by fewer bits in the other way."),
        ),
    ),
    Exercise(
        name="rank",
        question="Which rank may a truncated SVD of this matrix have with at most as many values?",
        given=_sizes,
        answer=_rank,
        hints=(
            "A matrix of rank r is the product of two factors: rows x r and r x columns.",
            "Count the values of the factors as in exercise 1, divide by rows + columns, and round down.",
        ),
        mistakes=(
            Mistake(lambda given: given["atoms"], "Equal values are asked for; the atoms are those of one block."),
        ),
    ),
    Exercise(
        name="subspaces",
        question="From how many sets of atoms can a row of one block choose?",
        given=_choices,
        answer=_subspaces,
        hints=("The order in which atoms are taken does not matter.", "`math.comb` counts such sets."),
        mistakes=(
            Mistake(
                lambda given: given["atoms"] ** given["coefficients of a row"], "A row takes an atom at most once."
            ),
            Mistake(
                lambda given: _subspaces(given) * int(np.prod(range(1, given["coefficients of a row"] + 1))),
                "The order in which atoms are taken does not matter.",
            ),
        ),
    ),
    Exercise(
        name="pursuit",
        question="Which two atoms (rows of D, counted from 0) does orthogonal matching pursuit take, in its order?",
        given=_pursuit_case,
        answer=_pursue,
        hints=(
            "The first is the atom whose product with w is largest, whatever its sign.",
            "Subtract the part of w along that atom. The second is the atom of the largest product with what is left.",
        ),
        mistakes=(Mistake(_largest, "Those are the largest products with w; the second must look at what is left."),),
    ),
    Exercise(
        name="multiply",
        question="Write a function (D, idx, val, x) that returns the sum over blocks of S (D x), for one vector x.",
        given=_factor_sizes,
        answer=lambda given: _multiply,
        cases=_factors,
        hints=(
            "D is (blocks, atoms, columns), idx and val are (blocks, rows, s); cut x into as many parts as blocks.",
            "Each block: read = D[q] @ part, then add (val[q] * read[idx[q]]).sum(axis=1).",
        ),
    ),
)
