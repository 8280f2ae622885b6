"""Exercises of the tour."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _matrix(rng: np.random.Generator):
    from workbench.data.matrices import erdos_renyi

    return erdos_renyi(int(rng.integers(200, 400)), nnz_per_row=float(rng.uniform(4, 9)), seed=int(rng.integers(2**31)))


def _multiplications(a) -> int:
    from kernels.matmul.spgemm import row_flops

    return int(row_flops(a, a).sum())


EXERCISES = (
    Exercise(
        name="density",
        question="Which fraction of the places of this matrix holds an entry?",
        given=_matrix,
        answer=lambda a: a.nnz / (a.shape[0] * a.shape[1]),
        hints=(
            "Density is a fraction between 0 and 1: entries that are there over places there are.",
            "`matrix.nnz` counts the entries; `matrix.shape` gives rows and columns.",
        ),
        mistakes=(
            Mistake(lambda a: 1 - a.nnz / (a.shape[0] * a.shape[1]), "That is the sparsity: the empty fraction."),
            Mistake(lambda a: a.nnz / a.shape[0], "That is the mean number of entries per row."),
        ),
    ),
    Exercise(
        name="multiplications",
        question="How many multiplications of two entries does matrix @ matrix take?",
        given=_matrix,
        answer=_multiplications,
        unit="multiplications",
        hints=(
            "An entry in column t meets every entry of row t of the right-hand matrix, and no other.",
            "`np.diff(matrix.indptr)` are the row lengths; `matrix.indices` are the columns of all entries.",
            "Look up the row length at the column of every entry, and add.",
        ),
        mistakes=(
            Mistake(lambda a: a.nnz, "That counts the entries of one matrix; each meets a whole row of the other."),
            Mistake(lambda a: a.nnz**2, "Not every entry meets every other: only column and row of the same number."),
            Mistake(lambda a: a.shape[0] ** 3, "That is the dense product; empty places need no multiplication."),
            Mistake(lambda a: int((a @ a).nnz), "That counts the entries of the result; several products may merge."),
        ),
    ),
)
