"""Exercises of the SMASH notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _pair(rng: np.random.Generator):
    from workbench.data.matrices import erdos_renyi

    m, k, n = (int(x) for x in rng.integers(60, 160, 3))
    a, b = (int(seed) for seed in rng.integers(2**31, size=2))
    return erdos_renyi(m, k, float(rng.uniform(3, 6)), seed=a), erdos_renyi(k, n, float(rng.uniform(3, 6)), seed=b)


def _products(pair) -> int:
    from kernels.matmul.spgemm import row_flops

    return int(row_flops(*pair).sum())


def _elements(pair, dataflow) -> int:
    from kernels.matmul.traffic import dataflow_traffic

    return dataflow_traffic(*pair, dataflow).elements


def _tags(rng: np.random.Generator):
    """Eight tags for a table of 16 slots, some of which collide and one of which merges."""
    tags = [int(x) for x in rng.choice(64, size=6, replace=False)]
    tags += [(tags[0] + 16) % 64, tags[int(rng.integers(6))]]
    return [tags[i] for i in rng.permutation(8)]


def _replayed(tags, home) -> int:
    table, extra = {}, 0
    for tag in tags:
        h = home(tag)
        while table.get(h, tag) != tag:
            h = (h + 1) % 16
            extra += 1
        table[h] = tag
    return extra


def _needs(rng: np.random.Generator):
    return rng.integers(1, 40, size=int(rng.integers(18, 30))), 64


def _windows(given) -> int:
    needs, capacity = given
    windows, filled = 0, capacity + 1
    for need in needs:
        if filled + need > capacity:
            windows, filled = windows + 1, 0
        filled += int(need)
    return windows


def _run_totals(rng: np.random.Generator):
    from workbench.data.product_pairs import rmat_pair
    from workbench.machines.piuma import simulate_spgemm

    run = simulate_spgemm(*rmat_pair(9, seed=int(rng.integers(1000))), 3)
    config = run.config
    return {
        "bytes": run.bytes,
        "instructions": run.instructions,
        "bytes_per_cycle": config.bw,
        "pipelines": config.n_mtc,
    }


def _hash_case(rng: np.random.Generator):
    from workbench.data.matrices import banded, poisson2d
    from workbench.data.product_pairs import paired, relabelled

    grid = paired(poisson2d(int(rng.choice([32, 64]))))
    band = paired(banded(int(rng.choice([2048, 4096])), int(rng.integers(3, 6))))
    shuffled = relabelled(*grid, seed=int(rng.integers(2**31)))
    cases = [grid, band, shuffled]
    return [cases[i] for i in rng.permutation(3)]


def _better_bits(pairs) -> tuple[str, ...]:
    from workbench.machines.piuma import hash_trace, plan_windows

    def probes(pair, bits):
        return int(hash_trace(*pair, plan_windows(*pair, 2**12, 0.3), 2**12, bits).probes.sum())

    return tuple(min(("high", "low"), key=lambda bits: probes(pair, bits)) for pair in pairs)


EXERCISES = (
    Exercise(
        name="products",
        question="How many partial products does a @ b take?",
        given=_pair,
        answer=_products,
        unit="partial products",
        hints=(
            "Every entry of a in column t meets every entry in row t of b.",
            "`np.diff(b.indptr)` are the row lengths of b, `a.indices` the columns of all entries of a.",
            "Look up a row length for every entry of a, and add them.",
        ),
        mistakes=(
            Mistake(
                lambda pair: int((pair[0] @ pair[1]).nnz), "That counts the results; products that merge are lost."
            ),
            Mistake(lambda pair: pair[0].nnz * pair[1].nnz, "Not every entry meets every other."),
            Mistake(lambda pair: pair[0].nnz + pair[1].nnz, "That is what must be read at least once."),
        ),
    ),
    Exercise(
        name="traffic",
        question="How many elements does the row-wise order move without a cache: reads of a and b, writes of c?",
        given=_pair,
        answer=lambda pair: _elements(pair, "row"),
        unit="elements",
        hints=(
            "Three streams: entries of a, entries of b, entries of the result. Each entry of a is read once.",
            "Without a cache, a row of b is read again for every entry of a that meets it: how often in all?",
            "b costs one read per partial product; the result is written once, after merging.",
        ),
        mistakes=(
            Mistake(
                lambda pair: pair[0].nnz + pair[1].nnz + int((pair[0] @ pair[1]).nnz),
                "That needs an ideal cache: b would be read once only.",
            ),
            Mistake(lambda pair: _elements(pair, "outer"), "That is the outer product, which stores partial products."),
            Mistake(
                lambda pair: _elements(pair, "inner"), "That is the inner product: every row against every column."
            ),
        ),
    ),
    Exercise(
        name="probes",
        question="How many extra probes do these tags cost in a table of 16 slots, hashed by their low-order bits?",
        given=_tags,
        answer=lambda tags: _replayed(tags, lambda tag: tag % 16),
        unit="extra probes",
        hints=(
            "Insert the tags in order. A tag's home is `tag % 16`; the first probe there is not extra.",
            "If the slot holds another tag, step to the next slot: one extra probe per step.",
            "A tag that finds itself merges: it adds no entry, but its steps on the way count.",
        ),
        mistakes=(
            Mistake(
                lambda tags: _replayed(tags, lambda tag: tag % 16) + len(tags),
                "That counts every probe; only those beyond the first of each tag are extra.",
            ),
        ),
    ),
    Exercise(
        name="windows",
        question="Rows need these many slots at most, and a window may fill the capacity: how many windows are there?",
        given=_needs,
        answer=_windows,
        unit="windows",
        hints=(
            "Walk the rows in order and keep a running sum; rows are never reordered.",
            "When the next row would push the sum above the capacity, that row opens a new window.",
        ),
        mistakes=(
            Mistake(
                lambda given: int(np.ceil(given[0].sum() / given[1])),
                "Rows cannot be cut in two here, so some of each window stays empty.",
            ),
        ),
    ),
    Exercise(
        name="bound",
        question="Memory and issue each set a least time for this run: what is the smaller over the larger?",
        given=_run_totals,
        answer=lambda t: (
            min(t["bytes"] / t["bytes_per_cycle"], t["instructions"] / t["pipelines"])
            / max(t["bytes"] / t["bytes_per_cycle"], t["instructions"] / t["pipelines"])
        ),
        hints=(
            "Memory needs bytes / (bytes per cycle) cycles; each pipeline issues one instruction per cycle.",
            "Issue needs instructions / pipelines cycles. Divide the smaller of the two times by the larger.",
        ),
        mistakes=(
            Mistake(
                lambda t: (
                    max(t["bytes"] / t["bytes_per_cycle"], t["instructions"] / t["pipelines"])
                    / min(t["bytes"] / t["bytes_per_cycle"], t["instructions"] / t["pipelines"])
                ),
                "That is the slower over the faster.",
            ),
            Mistake(
                lambda t: t["instructions"] / (t["bytes"] / t["bytes_per_cycle"]),
                "That is instructions per cycle if memory sets the pace; divide by the pipelines.",
            ),
        ),
    ),
    Exercise(
        name="bits",
        question='Which bits collide less on each product, "high" or "low"? The table has 2^12 slots, the load is 0.3.',
        given=_hash_case,
        answer=_better_bits,
        hints=(
            "Neighbours in a grid or a band have tags that are a multiple of the row length apart, or nearly.",
            "`plan_windows(a, b, 2**12, 0.3)` and `hash_trace(a, b, plan, 2**12, 'low')` count what happens.",
            "Compare `.mean_extra_probes` for both choices, pair by pair.",
        ),
        mistakes=(
            Mistake(
                lambda pairs: tuple({"high": "low", "low": "high"}[bits] for bits in _better_bits(pairs)),
                "The other way round, on all three.",
            ),
        ),
    ),
)
