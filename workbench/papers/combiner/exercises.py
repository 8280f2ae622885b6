"""Exercises of the Combiner notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def _position(rng: np.random.Generator):
    while True:
        i = int(rng.integers(37, 128))
        if 3 <= bin(i).count("1") <= 5:
            return i


def _starts(i) -> np.ndarray:
    return np.sort([((i >> bit) - 1) << bit for bit in range(i.bit_length()) if i >> bit & 1])


def _flat(rng: np.random.Generator):
    segment = int(rng.integers(4, 9))
    return int(rng.integers(3 * segment + 1, 6 * segment - 1)), segment


def _weight(given, size_counts=False) -> float:
    i, segment = given
    regions, direct = i // segment, i % segment + 1
    total = direct + regions * (segment if size_counts else 1)
    return 1 / total / (1 if size_counts else segment)


def _region(rng: np.random.Generator):
    q, k = (np.round(rng.normal(0, 2, (4, 3)), 1) for _ in range(2))
    return q, k


def _inside(given, pool=np.max, scale=True) -> np.ndarray:
    q, k = given
    return _softmax(k @ pool(q / (np.sqrt(q.shape[1]) if scale else 1), axis=0))


def _slots(rng: np.random.Generator):
    direct, regions = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    logits = [np.round(rng.normal(0, 1.5, n), 1) for n in (direct, regions)]
    return (*logits, *(np.round(rng.normal(0, 1, (n, 2)), 1) for n in (direct, regions)))


def _joint(given) -> np.ndarray:
    near, far, near_v, far_v = given
    return _softmax(np.concatenate([near, far])) @ np.concatenate([near_v, far_v])


def _separate(given) -> np.ndarray:
    near, far, near_v, far_v = given
    return _softmax(near) @ near_v + _softmax(far) @ far_v


def _cheapest(length) -> int:
    divisors = [s for s in range(1, length + 1) if length % s == 0]
    return min(divisors, key=lambda s: s + length // s)


def _heads(rng: np.random.Generator):
    """Keys and queries of 24 positions, a segment length and a position in the fourth segment."""
    return (*np.round(rng.normal(0, 1.5, (2, 24, 4)), 2), 6, int(rng.integers(19, 23)))


def _row(given) -> np.ndarray:
    import torch

    from workbench.models.attention.combiner import effective_attention

    q, k, segment, i = given
    a = effective_attention(*(torch.from_numpy(x)[None, None] for x in (q, k)), pattern="fixed", seg_len=segment)
    return a[0, 0, i].numpy()


def _true_row(given) -> np.ndarray:
    q, k, _, i = given
    row = np.zeros(len(q))
    row[: i + 1] = _softmax(k[: i + 1] @ q[i] / np.sqrt(q.shape[1]))
    return row


EXERCISES = (
    Exercise(
        name="tree",
        question="At which positions do the regions of this log-sparse position begin, in rising order?",
        given=_position,
        answer=_starts,
        hints=(
            "`bin(i)`: every bit that is set gives one region, of 2**bit positions.",
            "The regions lie side by side and end just before i; the smallest stands next to i.",
            "So the largest begins at 0, the next where it ends, and so on.",
        ),
        mistakes=(
            Mistake(lambda i: np.array([1 << b for b in range(i.bit_length()) if i >> b & 1]), "Those are the sizes."),
            Mistake(
                lambda i: np.sort([i - (1 << b) for b in range(i.bit_length())]),
                "Those are offsets of powers of two: the sparse pattern that Combiner starts from.",
            ),
        ),
    ),
    Exercise(
        name="flat",
        question="All logits are equal and regions are fixed segments: which weight does key 0 get?",
        given=_flat,
        answer=_weight,
        hints=(
            "Count the slots of the softmax: keys of the own segment up to i, and one per earlier segment.",
            "Each slot gets the same weight. A region then shares its weight among its keys.",
        ),
        mistakes=(
            Mistake(lambda g: 1 / (g[0] + 1), "That is full attention; a region counts once, whatever its size."),
            Mistake(lambda g: _weight(g) * g[1], "That is the weight of the whole region; key 0 has its share of it."),
        ),
    ),
    Exercise(
        name="inside",
        question="Queries and keys of one region, not yet scaled: how is the region's weight shared among its keys?",
        given=_region,
        answer=_inside,
        hints=(
            "Divide the queries by the square root of their width, then take the largest value of each column.",
            "The logits are that summary query times every key of the region; then a softmax.",
        ),
        mistakes=(
            Mistake(lambda g: _inside(g, scale=False), "The queries were not scaled."),
            Mistake(lambda g: _inside(g, pool=np.mean), "The summary is the elementwise maximum, not the mean."),
            Mistake(
                lambda g: _softmax(g[1] @ g[0][-1] / np.sqrt(g[0].shape[1])),
                "That is one query's attention; the summary takes the maximum over all of them.",
            ),
        ),
    ),
    Exercise(
        name="joint",
        question="Logits and values of direct keys and of regions: what is the output?",
        given=_slots,
        answer=_joint,
        hints=(
            "There is one softmax, over direct keys and regions together.",
            "`np.concatenate` the logits, and the values in the same order.",
        ),
        mistakes=(
            Mistake(_separate, "Those are two softmaxes; weights must sum to one over both kinds together."),
            Mistake(lambda g: _separate(g) / 2, "Half of two softmaxes: it fixes how much goes to regions at all."),
        ),
    ),
    Exercise(
        name="segment",
        question="Which segment length, a divisor of this length, makes the softmax of the last position smallest?",
        given=lambda rng: int(rng.choice([x * x for x in range(12, 40, 2)])),
        answer=_cheapest,
        unit="positions",
        hints=(
            "The last position sees its own segment, s keys, and every other segment once, L / s - 1 regions.",
            "What makes s + L / s smallest?",
        ),
        mistakes=(
            Mistake(lambda length: length // 2, "Then the own segment alone is half of the input."),
            Mistake(lambda length: 1, "Then every region is a single key: that is full attention."),
        ),
    ),
    Exercise(
        name="row",
        question="What does the row of the effective attention matrix look like for this position?",
        given=_heads,
        answer=_row,
        hints=(
            "Scale q once. Direct: keys of the own segment up to i. One region for every earlier segment.",
            "A region's logit is q_i times the elementwise maximum of its keys.",
            "Spread every region's weight over its keys by `inside` of exercise 3.",
        ),
        mistakes=(
            Mistake(_true_row, "That is full attention; regions are weighed as a whole first."),
            Mistake(
                lambda g: np.where(np.arange(24) // g[2] == g[3] // g[2], _true_row(g), 0) / _true_row(g)[18:].sum(),
                "That is the sparse pattern alone: earlier segments are lost.",
            ),
        ),
    ),
)
