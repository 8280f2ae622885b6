"""Exercises of the Flash-LLM notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake

TILE_M, TILE_K, VECTOR = 128, 64, 4


def _position_case(rng: np.random.Generator):
    """A row and a column for which the permutation is neither nothing nor an addition."""
    residue = int(rng.choice([1, 2, 3, 5, 6, 7]))
    return int(8 * rng.integers(16) + residue), int(rng.integers(TILE_K)) | 8 * (residue & 3)


def _position(given, permuted=True) -> int:
    row, column = given
    return row * TILE_K + (column ^ (row % 8 * 8) if permuted else column)


def _counts(rng: np.random.Generator):
    return rng.integers(700, 2600, size=6)


def _bytes(counts, padded=True, offsets=True) -> int:
    words = sum(-(-int(x) // VECTOR) * VECTOR if padded else int(x) for x in counts)
    return 4 * words + (4 * (len(counts) + 2) if offsets else 0)


def _step(rng: np.random.Generator):
    """Positions of 32 words that are stored at once, some of them in one bank."""
    return rng.choice(TILE_M * TILE_K, size=32, replace=False)


def _fullest(positions) -> int:
    return int(np.bincount(positions // 2 % 32).max())


def _product(rng: np.random.Generator):
    return {
        "rows": 1024 * int(rng.integers(8, 40)),
        "columns": 1024 * int(rng.integers(8, 40)),
        "tokens": int(rng.choice([8, 16, 32])),
        "sparsity": float(rng.choice([0.7, 0.8, 0.9])),
    }


def _intensity(given, share=None) -> float:
    m, k, n = given["rows"], given["columns"], given["tokens"]
    share = 2 * (1 - given["sparsity"]) if share is None else share
    return 2 * m * k * n / (2 * share * m * k + 2 * n * (m + k))


def _machine(rng: np.random.Generator):
    return {
        "operations per second": float(rng.choice([1.5e11, 4e11, 9e11])),
        "bytes per second": float(rng.choice([2e10, 4e10, 1e11])),
        "sparsity": float(rng.choice([0.7, 0.8, 0.9])),
    }


def _last_bound_by_memory(given, share=None) -> int:
    """The most tokens for which reading sparse weights takes at least as long as multiplying, activations left out.

    2 m k n / peak <= 4 (1 - s) m k / bandwidth.
    """
    share = 4 * (1 - given["sparsity"]) if share is None else share
    return int(np.floor(share / 2 * given["operations per second"] / given["bytes per second"] + 1e-9))


def _tiles(rng: np.random.Generator):
    """Rows and sparsity of each tile."""
    return [(8 * int(rows), sparsity) for rows, sparsity in zip(rng.integers(1, 9, 3), (0.5, 0.8, 0.95), strict=True)]


def _tile_cases(given):
    rng = np.random.default_rng(0)
    tiles = [rng.standard_normal((rows, TILE_K)) * (rng.random((rows, TILE_K)) >= s) for rows, s in given]
    return [(tile.astype(np.float16),) for tile in tiles]


def _words(tile) -> np.ndarray:
    rows, columns = np.nonzero(tile)
    positions = rows * tile.shape[1] + (columns ^ (rows % 8 * 8))
    return positions.astype(np.uint32) << 16 | tile[rows, columns].view(np.uint16)


EXERCISES = (
    Exercise(
        name="position",
        question="Which position does a word store for this row and column of a tile of 128 x 64?",
        given=_position_case,
        answer=_position,
        hints=(
            "The position is 64 times the row plus the permuted column.",
            "The permuted column is the column XOR 8 times (row mod 8); Python writes XOR as `^`.",
        ),
        mistakes=(
            Mistake(lambda given: _position(given, permuted=False), "The column is permuted first."),
            Mistake(
                lambda given: given[0] * TILE_K + (given[1] + given[0] % 8 * 8) % TILE_K,
                "That adds where the format takes XOR; only XOR is undone by doing it again.",
            ),
        ),
    ),
    Exercise(
        name="bytes",
        question="How many bytes do these six tiles take, words and offsets together?",
        given=_counts,
        answer=_bytes,
        unit="bytes",
        hints=(
            "Each tile is padded to a multiple of four words, and a word has four bytes.",
            "There is an offset of four bytes for each tile, and two more.",
        ),
        mistakes=(
            Mistake(lambda counts: _bytes(counts, padded=False), "Each tile is padded to whole vectors on its own."),
            Mistake(lambda counts: _bytes(counts, offsets=False), "The offsets take memory as well."),
            Mistake(
                lambda counts: 4 * (-(-int(counts.sum()) // VECTOR) * VECTOR) + 4 * (len(counts) + 2),
                "Padding the sum is not enough: every tile begins with a new vector.",
            ),
        ),
    ),
    Exercise(
        name="conflict",
        question="How many of these 32 words meet in the fullest bank?",
        given=_step,
        answer=_fullest,
        unit="words",
        hints=(
            "A bank is four bytes wide, so two neighbouring positions share one: the bank is (position // 2) % 32.",
            "Count how often each bank occurs, and take the largest count.",
        ),
        mistakes=(
            Mistake(
                lambda positions: int(np.bincount(positions % 32).max()),
                "A position is a value of two bytes, a bank has four.",
            ),
            Mistake(
                lambda positions: len(np.unique(positions // 2 % 32)),
                "That is how many banks are used; the store waits for the one that has most to do.",
            ),
        ),
    ),
    Exercise(
        name="intensity",
        question="How many operations does this product do per byte, weights in Tiled-CSL, activations in 16 bits?",
        given=_product,
        answer=_intensity,
        hints=(
            "The operations are 2 rows columns tokens: the zeros are multiplied as well.",
            "Weights take 4 (1 - s) bytes each. The activations are columns x tokens, the result rows x tokens.",
            "Leave out the offsets and the padding.",
        ),
        mistakes=(
            Mistake(lambda given: _intensity(given, share=1), "That is the dense product; only nonzeros are read."),
            Mistake(
                lambda given: _intensity(given, share=1 - given["sparsity"]),
                "A nonzero takes 32 bits: half for the value, half for its position.",
            ),
            Mistake(
                lambda given: (1 - given["sparsity"]) * _intensity(given),
                "The operations on zeros are carried out too, since the tile is multiplied dense.",
            ),
        ),
    ),
    Exercise(
        name="ridge",
        question="For how many tokens at most does memory set the pace on this machine?",
        given=_machine,
        answer=_last_bound_by_memory,
        unit="tokens",
        hints=(
            "Leave out the activations: for each weight, 2 tokens operations and 4 (1 - s) bytes.",
            "Memory sets the pace while operations / peak is at most bytes / bandwidth. Solve for the tokens.",
            "The answer is a whole number, rounded down.",
        ),
        mistakes=(
            Mistake(
                lambda given: _last_bound_by_memory(given, share=2.0),
                "That is the dense matrix in 16 bits; fewer bytes bring the ridge nearer.",
            ),
        ),
    ),
    Exercise(
        name="words",
        question="Write a function that returns the words of a tile, row by row.",
        given=_tiles,
        answer=lambda seeds: _words,
        cases=_tile_cases,
        hints=(
            "`np.nonzero(tile)` gives rows and columns in the right order; `tile[rows, columns].view(np.uint16)` the "
            "bits of the values.",
            "A word is the position times 65536 plus the bits of the value. Use whole numbers of 32 bits or more.",
            "The position is row * 64 + (column ^ (row % 8 * 8)).",
        ),
    ),
)
