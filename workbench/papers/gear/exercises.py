"""Exercises of the GEAR notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _group(rng: np.random.Generator):
    """Eight numbers whose codes at 2 bits are no tie, and whose smallest is not 0."""
    while True:
        x = rng.integers(-40, 60, 8) / 10
        levels = (x - x.min()) / (np.ptp(x) / 3) if np.ptp(x) else np.full(8, 0.5)
        clear = x.max() > 0 and (np.abs(levels % 1 - 0.5) > 0.05).all()
        if clear and not np.array_equal(_codes(x), _codes(x, low=0.0)):
            return x.tolist()


def _codes(x, low=None, levels=3) -> np.ndarray:
    x = np.asarray(x)
    low = x.min() if low is None else low
    return np.rint((x - low) / ((x.max() - low) / levels)).astype(int)


def _setting(rng: np.random.Generator):
    return {
        "bits": int(rng.choice([2, 3, 4])),
        "numbers that share a scale": int(rng.choice([32, 64, 128])),
        "rank": int(rng.choice([2, 4, 8])),
        "compressed tokens": 1024 * int(rng.integers(1, 9)),
        "channels of a head": int(rng.choice([64, 128])),
        "share of outliers": float(rng.choice([0.01, 0.02, 0.04])),
    }


def _bits(given, scales=32, both_factors=True, places=16) -> float:
    n, d = given["compressed tokens"], given["channels of a head"]
    factors = 16 * given["rank"] * (1 / d + (1 / n if both_factors else 0))
    return (
        given["bits"] + scales / given["numbers that share a scale"] + factors
        + given["share of outliers"] * (16 + places)
    )  # fmt: skip


def _decoding(rng: np.random.Generator):
    buffer = int(rng.choice([16, 32, 64]))
    return {
        "tokens of the prompt": buffer * int(rng.integers(3, 9)) + int(rng.integers(1, buffer)),
        "tokens written": buffer * int(rng.integers(2, 5)) + int(rng.integers(1, buffer)),
        "buffer": buffer,
    }


def _waiting(given, prompt=True) -> int:
    return ((given["tokens of the prompt"] if prompt else 0) + given["tokens written"]) % given["buffer"]


def _spectrum(rng: np.random.Generator):
    return np.round(np.sort(rng.uniform(0.5, 9, 6))[::-1], 1).tolist()


def _left(values, rank=2, squares=True) -> float:
    x = np.asarray(values) ** (2 if squares else 1)
    share = x[rank:].sum() / x.sum()
    return float(np.sqrt(share) if squares else share)


def _cases(given):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(n).round(2) * 3, share) for n, share in given]


def _lengths(rng: np.random.Generator):
    """Lengths and shares of the vectors that the function is tried on."""
    return [(int(n), share) for n, share in zip(rng.integers(40, 120, 3), (0.06, 0.1, 0.2), strict=True)]


def _filled(x, share) -> np.ndarray:
    x, each = np.array(x, float), int(len(x) * share / 2 + 1e-9)
    order = np.argsort(x, kind="stable")
    gone = np.concatenate([order[:each], order[len(x) - each :]])
    filled = x.copy()
    filled[gone] = x.mean()
    return filled


EXERCISES = (
    Exercise(
        name="codes",
        question="Which codes do these eight numbers get at 2 bits, as one group?",
        given=_group,
        answer=_codes,
        hints=(
            "The step is (largest - smallest) / 3, since 2 bits have four levels.",
            "The code is (number - smallest) / step, rounded to the nearest whole number.",
        ),
        mistakes=(
            Mistake(lambda x: _codes(x, levels=4), "Four levels have three steps between them: divide by 3."),
            Mistake(lambda x: _codes(x, low=0.0), "Codes count from the smallest number of the group, not from 0."),
        ),
    ),
    Exercise(
        name="bits",
        question="How many bits does each cached key take, buffer left out?",
        given=_setting,
        answer=_bits,
        unit="bits",
        hints=(
            "Add four parts: codes, scales, low rank, outliers. A group stores a step and a low end in 16 bits each.",
            "A low-rank part has rank (tokens + channels) numbers of 16 bits for tokens x channels keys.",
            "An outlier takes 16 bits for its value and 16 for its place.",
        ),
        mistakes=(
            Mistake(lambda given: _bits(given, scales=16), "A group stores two numbers, its step and its low end."),
            Mistake(
                lambda given: _bits(given, both_factors=False), "Both factors take memory, also the one of tokens."
            ),
            Mistake(lambda given: _bits(given, places=0), "An outlier must say where it lies."),
        ),
    ),
    Exercise(
        name="waiting",
        question="How many tokens lie in the buffer now?",
        given=_decoding,
        answer=_waiting,
        unit="tokens",
        hints=(
            "Of the prompt, whole multiples of the buffer are compressed at once; the rest waits.",
            "The buffer empties whenever it is full, so count all tokens and take what whole buffers leave.",
        ),
        mistakes=(
            Mistake(
                lambda given: _waiting(given, prompt=False),
                "The prompt may leave tokens in the buffer, which fills up sooner then.",
            ),
        ),
    ),
    Exercise(
        name="left",
        question="These are the singular values of an error. What does the best part of rank 2 leave, over its size?",
        given=_spectrum,
        answer=_left,
        hints=(
            "The size of a matrix is the square root of the sum of its squared singular values.",
            "The best part of rank 2 takes the two largest away.",
        ),
        mistakes=(
            Mistake(lambda x: _left(x, squares=False), "Sizes add as squares: square, add, and take the root."),
            Mistake(lambda x: _left(x, rank=1), "Rank 2 takes two singular values away."),
            Mistake(lambda x: 1 - _left(x), "That is one minus what is left; squares must be subtracted, not sizes."),
        ),
    ),
    Exercise(
        name="filter",
        question="Write a function of a vector and a share that returns the vector with its outliers filled.",
        given=_lengths,
        answer=lambda given: _filled,
        cases=_cases,
        hints=(
            "floor(length x share / 2) entries go at each end; `np.argsort` finds them.",
            "Put the mean of the whole vector, outliers included, where they were.",
        ),
    ),
)
