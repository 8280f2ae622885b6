"""Exercises of the CoSpaDi notebook."""

from fractions import Fraction

import numpy as np

from workbench.grading.exercise import Exercise, Mistake

CLEAR = 0.1  # by how much the first choice leads, so that rounding cannot turn it


def _layer(rng: np.random.Generator):
    """A layer and how much of its values goes."""
    inputs = 64 * int(rng.integers(6, 20))
    outputs = inputs * int(rng.choice([2, 3, 4]))
    return {"inputs": inputs, "outputs": outputs, "share that goes": float(rng.choice([0.2, 0.3, 0.4, 0.5]))}


def _sizes(given, rho=2, mask=0) -> list[int]:
    """Return k and s; ``mask`` values are paid for every 16 atoms of an output."""
    n, m, kept = given["inputs"], given["outputs"], 1 - Fraction(str(given["share that goes"]))
    exact = kept * n * m / (n + Fraction(m, rho) + Fraction(m * mask, 16))
    return [int(exact), int(exact / rho)]


def _rank(given) -> list[int]:
    n, m, kept = given["inputs"], given["outputs"], 1 - Fraction(str(given["share that goes"]))
    return [int(kept * n * m / (n + m))] * 2


def _factors(rng: np.random.Generator):
    """A dictionary and codes, with 16-bit values."""
    atoms = 8 * int(rng.integers(8, 40))
    return {
        "inputs": 64 * int(rng.integers(4, 12)),
        "outputs": 64 * int(rng.integers(4, 12)),
        "atoms": atoms,
        "atoms of an output": atoms // int(rng.choice([2, 4])),
    }


def _bits(given, places=True, as_list=False) -> int:
    k, s, m = given["atoms"], given["atoms of an output"], given["outputs"]
    index = s * (k - 1).bit_length() if as_list else k
    return 16 * (given["inputs"] * k + s * m) + (m * index if places else 0)


def _multiply_adds(given) -> int:
    return given["inputs"] * given["atoms"] + given["outputs"] * given["atoms of an output"]


def _pursuit_case(rng: np.random.Generator):
    """Five atoms in three dimensions and a vector whose second atom is not that of the second largest product."""
    while True:
        atoms = rng.standard_normal((3, 5))
        atoms = np.round(atoms / np.linalg.norm(atoms, axis=0), 3)
        y = np.round(atoms @ (rng.permutation([1.5, 1.0, 0, 0, 0]) * rng.choice([-1, 1], 5)) + 0.3, 2)
        given = {"D": atoms, "y": y}
        if _is_clear(given) and _pursue(given) != _largest(given):
            return given


def _is_clear(given) -> bool:
    d, y = given["D"], given["y"]
    first, second = _pursue(given)
    left = y - d[:, first] * (d[:, first] @ y) / (d[:, first] @ d[:, first])
    for products, at in ((np.abs(d.T @ y), first), (np.abs(d.T @ left), second)):
        if products[at] < np.max(np.delete(products, at)) + CLEAR:
            return False
    return True


def _pursue(given) -> list[int]:
    d, y = given["D"], given["y"]
    first = int(np.argmax(np.abs(d.T @ y)))
    left = y - d[:, first] * (d[:, first] @ y) / (d[:, first] @ d[:, first])
    products = np.abs(d.T @ left)
    products[first] = 0
    return [first, int(np.argmax(products))]


def _largest(given) -> list[int]:
    return np.argsort(-np.abs(given["D"].T @ given["y"]))[:2].tolist()


def _change(rng: np.random.Generator):
    """The Gram matrix of two inputs and what a row of the weights loses."""
    a, b = rng.integers(2, 9, 2).tolist()
    c = int(rng.integers(1, min(a, b)))
    change = rng.choice([-1, 1], 2) * rng.integers(1, 6, 2) / 10
    return {"X^T X": np.array([[a * a, a * c], [a * c, b * b]]), "change": change}


def _output_error(given) -> float:
    return float(np.sqrt(given["change"] @ given["X^T X"] @ given["change"]))


def _instances(rng: np.random.Generator):
    """Seeds of the dictionaries that a function is tried on."""
    return rng.integers(1, 10_000, 3).tolist()


def _cases(seeds):
    cases = []
    for seed, s in zip(seeds, (1, 3, 4), strict=True):
        rng = np.random.default_rng(seed)
        atoms = rng.standard_normal((6, 9))
        cases.append((atoms / np.linalg.norm(atoms, axis=0), rng.standard_normal(6), s))
    return cases


def _code(d, y, s):
    """Code one vector by orthogonal matching pursuit."""
    x, taken, residual = np.zeros(d.shape[1]), [], y
    for _ in range(s):
        taken.append(int(np.argmax(np.abs(d.T @ residual))))
        x[taken] = np.linalg.lstsq(d[:, taken], y, rcond=None)[0]
        residual = y - d @ x
    return x


EXERCISES = (
    Exercise(
        name="sizes",
        question="How many atoms k, and how many of them for each output, s, does this layer get with k / s = 2?",
        given=_layer,
        answer=_sizes,
        hints=(
            "The dictionary holds inputs times k values, the codes outputs times s. Together they may be the share of "
            "the dense values that stays.",
            "Put s = k / 2 into that, solve for k, and round down. s is half of the unrounded k, rounded down too.",
        ),
        mistakes=(
            Mistake(_rank, "That is the rank of a low-rank product, which has as many coefficients as atoms."),
            Mistake(
                lambda given: _sizes(given, mask=1),
                "You have paid for the places of the coefficients as well; here only values count.",
            ),
        ),
    ),
    Exercise(
        name="bits",
        question="How many bits do a dictionary and codes of these sizes take, with 16 bits a value and a bitmap?",
        given=_factors,
        answer=_bits,
        unit="bits",
        hints=(
            "Dictionary, coefficients, and the places of the coefficients.",
            "A bitmap has one bit for every atom of every output.",
        ),
        mistakes=(
            Mistake(lambda given: _bits(given, places=False), "The kernel must also know which atoms an output takes."),
            Mistake(lambda given: _bits(given, as_list=True), "That is a list of indices, not a bitmap."),
        ),
    ),
    Exercise(
        name="pursuit",
        question="Which two atoms (columns of D, from 0) does orthogonal matching pursuit take for y, in which order?",
        given=_pursuit_case,
        answer=_pursue,
        hints=(
            "The first one has the largest product with y, whatever its sign.",
            "Take away from y what lies along the first atom. The second atom is chosen by the rest.",
        ),
        mistakes=(
            Mistake(
                _largest, "These have the largest products with y. After the first atom, only what is left counts."
            ),
            Mistake(lambda given: _pursue(given)[::-1], "The right atoms in the other order."),
        ),
    ),
    Exercise(
        name="whitened",
        question="By how much do the outputs on all calibration data change: the Euclidean norm of X times the change?",
        given=_change,
        answer=_output_error,
        hints=(
            "You do not need X: the square of the norm of X d is d^T X^T X d.",
            "Multiply the Gram matrix with the change, take the product with the change again, and then the root.",
        ),
        mistakes=(
            Mistake(lambda given: float(np.linalg.norm(given["change"])), "That is how much the weights change."),
            Mistake(lambda given: _output_error(given) ** 2, "The root is missing."),
            Mistake(
                lambda given: float(np.sqrt(given["change"] ** 2 @ np.diag(given["X^T X"]))),
                "The two inputs are correlated: the entries off the diagonal count too.",
            ),
        ),
    ),
    Exercise(
        name="multiply_adds",
        question="How many multiply-adds does a token take, if every atom is used by some output?",
        given=_factors,
        answer=_multiply_adds,
        unit="multiply-adds",
        hints=(
            "First every atom is multiplied with the token's inputs, then every output sums its own.",
            "Inputs times atoms, and outputs times the atoms of an output.",
        ),
        mistakes=(
            Mistake(
                lambda given: (given["inputs"] + given["outputs"]) * given["atoms"],
                "The coefficients are sparse: an output sums only its own atoms.",
            ),
            Mistake(lambda given: given["inputs"] * given["outputs"], "That is the dense layer."),
        ),
    ),
    Exercise(
        name="code",
        question="Write orthogonal matching pursuit for one vector.",
        given=_instances,
        answer=lambda seeds: _code,
        cases=_cases,
        hints=(
            "Keep a list of the atoms taken, and begin with the residual y.",
            "In each step take `np.argmax(np.abs(d.T @ residual))`, fit all atoms taken to y with `np.linalg.lstsq`, "
            "and compute the residual anew.",
            "Return an array with an entry for every atom, 0 for those that were not taken.",
        ),
    ),
)
