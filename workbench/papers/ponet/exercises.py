"""Exercises of the PoNet notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _segmented(rng: np.random.Generator):
    lengths = rng.integers(2, 5, 3)
    segment = np.repeat(np.arange(3), lengths)
    return rng.permutation(30)[: len(segment)], segment


def _segment_pool(given) -> list[int]:
    values, segment = given
    return [int(values[segment == s].max()) for s in segment]


def _local_pool(given) -> list[int]:
    values, _ = given
    return [int(values[max(0, n - 1) : n + 2].max()) for n in range(len(values))]


def _line(rng: np.random.Generator):
    words = rng.permutation(["map", "list", "raise", "yield", "tuple", "import", "class", "return", "lambda"])
    first, second = (int(n) for n in rng.integers(2, 5, 2))
    return ["[CLS]", *map(str, words[:first]), "[SEP]", *map(str, words[first : first + second]), "[SEP]"]


def _numbering(line) -> list[int]:
    from workbench.models.attention.ponet import token_segment_index

    ids = [{"[CLS]": 0, "[SEP]": 1}.get(word, 2) for word in line]
    return token_segment_index(ids, 0, 1).tolist()


def _by_sentence(line) -> list[int]:
    """Number sentences as BERT does: [CLS] and the first [SEP] belong to the first one."""
    end = line.index("[SEP]")
    return [0] * (end + 1) + [1] * (len(line) - end - 1)


def _sizes(rng: np.random.Generator):
    """A length that the wanted number divides, so that the rule gives fewer segments."""
    wanted = int(rng.choice([16, 32, 64, 128]))
    return wanted * int(rng.integers(5, 12)), wanted


def _segments(given) -> int:
    tokens, wanted = given
    return -(-tokens // (tokens // wanted + 1))


def _parts(rng: np.random.Generator):
    names = ("global g", "segment S", "own features Ho", "local L")
    return dict(zip(names, (int(x) for x in rng.permutation(np.arange(2, 12))[:4]), strict=True))


def _fused(parts, last=False) -> int:
    g, s, o, l = parts.values()
    return (g + s + l) * o if last else (g + s) * o + l


def _shapes(rng: np.random.Generator):
    return [(int(t), int(d)) for t, d in zip((1, 2, *rng.integers(5, 9, 2)), rng.integers(1, 6, 4), strict=True)]


def _local(x):
    padded = np.pad(np.asarray(x, float), [(1, 1), (0, 0)], constant_values=-np.inf)
    return np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])


def _reached(rng: np.random.Generator):
    """A token at the end of its segment, so that its neighbour belongs to the next one."""
    lengths = rng.integers(2, 5, 4)
    segment = np.repeat(np.arange(4), lengths)
    return int(np.flatnonzero(segment == int(rng.integers(0, 3)))[-1]), segment


def _reach(given) -> list[int]:
    at, segment = given
    near = {n for n in (at - 1, at, at + 1) if 0 <= n < len(segment)}
    return sorted(near | {int(n) for n in np.flatnonzero(segment == segment[at])})


EXERCISES = (
    Exercise(
        name="segment",
        question="What does the segment pool give for this feature?",
        given=_segmented,
        answer=_segment_pool,
        hints=(
            "Find the tokens that share a segment number.",
            "All of them get the same value: the largest among them.",
        ),
        mistakes=(Mistake(_local_pool, "That is the local pool: a token with its two neighbours."),),
    ),
    Exercise(
        name="numbering",
        question="Which segment does each token of this line belong to?",
        given=_line,
        answer=_numbering,
        hints=(
            "[CLS] comes first and stands alone. The words after it share the next number.",
            "Each [SEP] starts a segment, and the token after it starts another.",
        ),
        mistakes=(
            Mistake(_by_sentence, "Those are BERT's sentence numbers; here [CLS] and [SEP] are segments of their own."),
        ),
    ),
    Exercise(
        name="cut",
        question="How many segments come out of the Long Range Arena's rule?",
        given=_sizes,
        answer=_segments,
        unit="segments",
        hints=(
            "First the length of a segment: the whole part of N / m, plus one.",
            "Then how many such segments cover N tokens; the last may be shorter.",
        ),
        mistakes=(
            Mistake(lambda given: given[1], "The plus one makes segments longer, so fewer are needed."),
            Mistake(lambda given: given[0] // (given[0] // given[1] + 1), "The last, shorter segment counts too."),
        ),
    ),
    Exercise(
        name="fusion",
        question="What comes out of the pooling fusion?",
        given=_parts,
        answer=_fused,
        hints=(
            "Two of the three pooled values are shared with other tokens; these are multiplied by the token's own.",
            "The local value is added as it is, after the product.",
        ),
        mistakes=(
            Mistake(lambda parts: _fused(parts, last=True), "The local part takes no part in the product."),
            Mistake(lambda parts: sum(parts.values()), "That leaves the product out: rows of a segment become alike."),
        ),
    ),
    Exercise(
        name="local",
        question="Write a function that returns the maximum over each token and its two neighbours.",
        given=_shapes,
        answer=lambda shapes: _local,
        cases=lambda shapes: [(np.random.default_rng(0).standard_normal(shape) - 2.0,) for shape in shapes],
        hints=(
            "Three shifted copies of x, and the larger of each: `np.maximum`.",
            "At the borders pad with minus infinity, not with zero: all values may be negative.",
        ),
    ),
    Exercise(
        name="reach",
        question="Which tokens' segment and local parts can change when this token changes?",
        given=_reached,
        answer=_reach,
        hints=(
            "The segment pool reaches all tokens of the same segment.",
            "The local pool reaches one token to each side, and does not stop at the end of a segment.",
        ),
        mistakes=(
            Mistake(
                lambda given: [int(n) for n in np.flatnonzero(given[1] == given[1][given[0]])],
                "That is the reach of the segment pool alone.",
            ),
        ),
    ),
)
