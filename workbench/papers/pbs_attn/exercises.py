"""Exercises of the PBS-Attn notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake

ROUNDING = 1e-9  # a sum that reaches the threshold on paper reaches it here


def _scores(rng: np.random.Generator):
    segment = int(rng.integers(4, 7))
    scores = rng.integers(1, 6, size=3 * segment + int(rng.integers(1, segment))) / 10
    return scores, segment


def _sorted(given, sign=-1, whole=False):
    scores, segment = given
    order = np.arange(len(scores))
    ends = [len(scores)] if whole else range(segment, len(scores) + 1, segment)
    start = 0
    for end in ends:
        order[start:end] = start + np.argsort(sign * scores[start:end], kind="stable")
        start = end
    return order


def _wanted(rng: np.random.Generator):
    block, per_segment = int(rng.choice([8, 16])), int(rng.choice([4, 8]))
    tokens = block * per_segment * int(rng.integers(3, 6))
    count = int(rng.integers(tokens // block // 2, tokens // block))
    return np.sort(rng.choice(tokens, size=count, replace=False)), tokens, block, block * per_segment


def _columns(given) -> tuple[int, int]:
    wanted, _, block, segment = given
    per_segment = np.unique(wanted // segment, return_counts=True)[1]
    return len(np.unique(wanted // block)), int(np.ceil(per_segment / block).sum())


def _estimates(rng: np.random.Generator):
    """Shares that need more blocks in their place than largest first."""
    tau = float(rng.choice([0.6, 0.7, 0.8, 0.9]))
    while True:
        weights = rng.permutation(np.arange(1, 9)) ** 2 + rng.integers(0, 3, 8)
        estimates = np.round(weights / weights.sum(), 3)
        if _kept_in_place((estimates, tau)) > _kept((estimates, tau)):
            return estimates, tau


def _kept(given) -> int:
    estimates, tau = given
    reached = np.cumsum(np.sort(estimates)[::-1])
    return int((reached < tau - ROUNDING).sum()) + 1


def _kept_in_place(given) -> int:
    estimates, tau = given
    return int((np.cumsum(estimates) < tau - ROUNDING).sum()) + 1


def _eligible(given) -> int:
    blocks, per_segment = given
    segment = np.arange(blocks) // per_segment
    return int((segment[:, None] > segment).sum())


def _mask(rng: np.random.Generator):
    block, segment, tokens = 4, 8, 24
    order = np.concatenate([start + rng.permutation(segment) for start in range(0, tokens, segment)])
    blocks = tokens // block
    owner = np.arange(blocks) // (segment // block)
    keep = (owner[:, None] == owner) | ((owner[:, None] > owner) & (rng.random((blocks, blocks)) < 0.5))
    keep[4, 0], keep[4, 1] = True, False
    return order, keep, block, int(rng.integers(16, 19))


def _pairs(given) -> int:
    order, keep, block, query = given
    slot = np.argsort(order)
    keys = np.arange(len(order))
    return int((keep[query // block, slot[keys] // block] & (keys <= query)).sum())


def _pairs_without_causality(given) -> int:
    _, keep, block, query = given
    return int(keep[query // block].sum()) * block


def _inputs(rng: np.random.Generator):
    """A head with heavy keys and a long context, one without heavy keys, one with a segment of half the input."""
    from workbench.data.attention_patterns import heavy_hitters

    seeds = [int(x) for x in rng.integers(2**31, size=3)]
    flat = np.random.default_rng(seeds[1])
    none = tuple((0.5 * flat.standard_normal((1, 1, 1024, 64))).astype(np.float32) for _ in range(2))
    cases = [
        (*heavy_hitters(1024, share=0.04, seed=seeds[0]), 16, 128),
        (*none, 16, 128),
        (*heavy_hitters(1024, share=0.04, seed=seeds[2]), 16, 512),
    ]
    return [cases[i] for i in rng.permutation(3)]


def _pays(cases) -> tuple[bool, ...]:
    from workbench.models.attention.pbs_attn import coverage_curve

    def enough(case, permute):
        q, k, block, segment = case
        how = {"block_size": block, "segment_size": segment, "permute": permute}
        density, coverage = coverage_curve(q, k, np.arange(21) / 20, **how)
        return density[coverage >= 0.95].min()

    return tuple(bool(enough(case, "keys") < enough(case, "none")) for case in cases)


EXERCISES = (
    Exercise(
        name="order",
        question="In which order do the keys stand after sorting inside segments (slot -> original position)?",
        given=_scores,
        answer=_sorted,
        hints=(
            "Cut the scores into segments; each is sorted by itself, and a rest at the end is left alone.",
            "`np.argsort(-part, kind='stable')` sorts one segment, largest first; its result counts from 0.",
            "Add the start of the segment to what argsort gives.",
        ),
        mistakes=(
            Mistake(
                lambda given: _sorted(given, whole=True), "Sorting across segments would let queries see the future."
            ),
            Mistake(lambda given: _sorted(given, sign=1), "That puts the lightest keys first."),
            Mistake(
                lambda given: np.argsort(_sorted(given)),
                "That is the inverse: original position -> slot. Asked is slot -> original position.",
            ),
        ),
    ),
    Exercise(
        name="columns",
        question="How many blocks hold a wanted key before sorting, and how many after?",
        given=_wanted,
        answer=_columns,
        unit="blocks",
        hints=(
            "A key at position j stands in block j // block: how many different blocks are there?",
            "After sorting, the wanted keys of a segment fill its first slots without gaps.",
            "So each segment needs its number of wanted keys divided by the block size, rounded up.",
        ),
        mistakes=(
            Mistake(
                lambda g: (_columns(g)[0], int(np.ceil(len(g[0]) / g[2]))),
                "That sorts across segments; keys must stay in theirs.",
            ),
            Mistake(
                lambda g: (len(g[0]), len(g[0])), "That counts keys; a block that holds two of them counts once."
            ),
        ),
    ),
    Exercise(
        name="threshold",
        question="How many blocks does the selection keep?",
        given=_estimates,
        answer=_kept,
        unit="blocks",
        hints=(
            "Largest first, add up, stop as soon as the sum reaches the threshold.",
            "The block that takes the sum across the threshold is kept too.",
        ),
        mistakes=(
            Mistake(lambda g: _kept(g) - 1, "One is missing: the sum has not reached the threshold yet."),
            Mistake(_kept_in_place, "That takes blocks in their place; take the largest first."),
        ),
    ),
    Exercise(
        name="eligible",
        question="How many pairs of blocks may the selection choose from?",
        given=lambda rng: (int(rng.integers(11, 30)), int(rng.integers(3, 6))),
        answer=_eligible,
        unit="pairs of blocks",
        hints=(
            "Block I belongs to segment I // (blocks per segment); a row may choose blocks of earlier segments only.",
            "Every row of one segment has the same number to choose from: all blocks of the segments before it.",
            "The last segment may be cut short; count its rows.",
        ),
        mistakes=(
            Mistake(
                lambda g: g[0] * (g[0] + 1) // 2, "Those are all causal pairs; the diagonal segments are not chosen."
            ),
            Mistake(lambda g: g[0] * (g[0] - 1) // 2, "That leaves out the diagonal block only, not its segment."),
        ),
    ),
    Exercise(
        name="pairs",
        question="How many keys does this query attend to?",
        given=_mask,
        answer=_pairs,
        unit="keys",
        hints=(
            "The query's block row is query // block; the mask's columns are blocks of *slots*.",
            "`np.argsort(order)` gives the slot of every original key.",
            "A key counts if the block of its slot is kept and its original position is not after the query.",
        ),
        mistakes=(
            Mistake(_pairs_without_causality, "That counts keys after the query too."),
        ),
    ),
    Exercise(
        name="pays",
        question="On which of the inputs does sorting lower the density that covers 95 per cent?",
        given=_inputs,
        answer=_pays,
        hints=(
            "Sorting needs something to gather: look for vertical lines in the maps.",
            "It also needs room: if the segment is a large part of the input, the diagonal segments are most of it.",
            "`coverage_curve(q, k, thresholds, block_size=..., segment_size=..., permute='keys' or 'none')`.",
        ),
        mistakes=(
            Mistake(lambda cases: tuple(not x for x in _pays(cases)), "The other way round, on all three."),
        ),
    ),
)  # fmt: skip
