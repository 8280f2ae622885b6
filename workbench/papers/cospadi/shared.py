"""One dictionary for several matrices, against one for each and against the SVDs, with equally many values."""

from functools import partial

import numpy as np

from kernels.factor.svd import rank_for_ratio, svd_llm
from workbench.models.compression.cospadi import dictionary_factors, solve_k_s
from workbench.paper import row
from workbench.papers.cospadi.layers import MODELS, error_of, layers_of

ERROR = "relative error of a group's outputs"
EACH, SHARED = "CoSpaDi, a dictionary each", "CoSpaDi, one dictionary"
SVD_EACH, SVD_SHARED = "SVD-LLM, a basis each", "SVD-LLM, one basis"
ONE_BLOCK, TWO_BLOCKS = "query, key and value of a block", "one projection of two blocks"
RATIO, SWEEPS = 0.4375, 2
PROJECTIONS = ("query", "key", "value", "feed_in")


def shared(size, seed, report, keep):
    """Factor groups of matrices together and one by one.

    Query, key and value of a block have the same inputs. The same projection of two neighbouring blocks does not, so
    the whitening by the sum of both Gram matrices is a compromise.
    """
    rows, work = [], _groups(size)
    for i, (model, kind, names) in enumerate(work):
        report(i / len(work), f"{model}, {', '.join(names)}")
        labels = {"model": model, "group": kind, "first": names[0]}
        rows += keep(labels, partial(_compared, model, names, labels, size, seed))
    return rows


def _compared(model, names, labels, size, seed):
    layers = layers_of(model, size)
    weights, grams = [layers.weights[n] for n in names], [layers.grams[n] for n in names]
    (m, n), total = weights[0].shape, np.sum(grams, axis=0)
    how = {"iters": SWEEPS, "seed": seed}
    rank, together = rank_for_ratio(RATIO, (m, n)), rank_for_ratio(RATIO, (len(names) * m, n))
    low = svd_llm(np.concatenate(weights), total, together)
    found = {
        SVD_EACH: [_product(svd_llm(w, g, rank)) for w, g in zip(weights, grams, strict=True)],
        SVD_SHARED: list(_product(low).reshape(len(names), m, n)),
        EACH: [dictionary_factors([w], g, *solve_k_s(RATIO, n, m), **how).weights()[0]
               for w, g in zip(weights, grams, strict=True)],
        SHARED: dictionary_factors(weights, total, *solve_k_s(RATIO, n, m, len(names)), **how).weights(),
    }  # fmt: skip
    return [
        row(ERROR, error_of(weights, near, grams), "relative", "measured", method=method, **labels)
        for method, near in found.items()
    ]


def _product(low):
    return low.left.astype(np.float64) @ low.right


def _groups(size):
    """Return (model, kind of group, layers) of every group."""
    found = []
    for model in MODELS[size]:
        names = list(layers_of(model, size).weights)
        blocks = sorted({int(name.split(".")[1]) for name in names})
        found += [(model, ONE_BLOCK, tuple(f"layers.{b}.{p}" for p in PROJECTIONS[:3])) for b in blocks]
        found += [(model, TWO_BLOCKS, tuple(f"layers.{b + i}.{p}" for i in (0, 1)))
                  for b in blocks[:-1:2] for p in PROJECTIONS]  # fmt: skip
    return found
