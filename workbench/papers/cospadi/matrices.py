"""One weight matrix after the other: CoSpaDi against truncated SVDs with as many values, by sweeps and by k / s."""

from functools import partial

from kernels.factor.svd import rank_for_ratio, svd_llm, svd_plain
from workbench.models.compression.cospadi import dictionary_factors, solve_k_s
from workbench.paper import row
from workbench.papers.cospadi.layers import MODELS, error_of, layers_of

ERROR, STAGE = "relative error of a matrix's outputs", "relative error of a matrix's outputs after a stage"
PLAIN, LLM, OURS = "SVD", "SVD-LLM", "CoSpaDi"
RATIOS = {"tiny": (0.5,), "small": (0.5,), "full": (0.2, 0.5)}
SWEEPS = {"tiny": 2, "small": 3, "full": 6}
SPREADS = {"tiny": (1.0, 2.0, 4.0), "small": (1.0, 1.25, 2.0, 4.0), "full": (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)}  # k / s
BLOCKS = {"tiny": (0,), "small": (0, 2), "full": (0, 1, 2, 3)}
SPREAD_RATIO, SPREAD_SWEEPS = 0.4375, 2
FEW = {"tiny": 2}  # matrices of a block; all of them at other sizes


def matrices(size, seed, report, keep):
    """Factor every matrix by SVD, SVD-LLM and CoSpaDi with equally many values, indices not counted."""
    rows, work = [], _names(size, range(100))
    for i, (model, name) in enumerate(work):
        report(i / len(work), f"{model}, {name}")
        for ratio in RATIOS[size]:
            make = partial(_factored, model, name, ratio, size, seed)
            rows += keep({"model": model, "layer": name, "ratio": ratio}, make)
    return rows


def _factored(model, name, ratio, size, seed):
    layers = layers_of(model, size)
    w, gram = layers.weights[name], layers.grams[name]
    rank, (k, s) = rank_for_ratio(ratio, w.shape), solve_k_s(ratio, w.shape[1], w.shape[0])
    labels = {"model": model, "layer": name, "ratio": ratio}
    found = dictionary_factors([w], gram, k, s, iters=SWEEPS[size], seed=seed)
    rows = []
    for method, low in ((PLAIN, svd_plain(w, rank)), (LLM, svd_llm(w, gram, rank))):
        near = low.left.astype(float) @ low.right
        rows.append(
            row(ERROR, error_of([w], [near], [gram]), "relative", "measured", method=method, rank=rank, **labels)
        )
    ours = error_of([w], found.weights(), [gram])
    rows.append(row(ERROR, ours, "relative", "measured", method=OURS, atoms=k, s=s, **labels))
    for i, error in enumerate(found.history):
        stage = {"sweep": i // 2 + i % 2, "stage": "swept" if i % 2 else "coded"}
        rows.append(row(STAGE, float(error), "relative", "measured", method=OURS, **stage, **labels))
    return rows


def spreads(size, seed, report, keep):
    """Factor matrices with other ratios k / s of atoms to coefficients, with equally many values or stored bits."""
    rows, work = [], _names(size, BLOCKS[size])
    for i, (model, name) in enumerate(work):
        report(i / len(work), f"{model}, {name}")
        rows += keep({"model": model, "layer": name}, partial(_spread, model, name, size, seed))
    return rows


def _spread(model, name, size, seed):
    layers = layers_of(model, size)
    w, gram, rows = layers.weights[name], layers.grams[name], []
    for counted in (False, True):
        for rho in SPREADS[size]:
            k, s = solve_k_s(SPREAD_RATIO, w.shape[1], w.shape[0], 1, rho, counted)
            found = dictionary_factors([w], gram, k, s, iters=SPREAD_SWEEPS, seed=seed)
            labels = {"model": model, "layer": name, "rho": rho, "atoms": k, "s": s,
                      "counted": "values and mask" if counted else "values"}  # fmt: skip
            rows.append(row(ERROR, error_of([w], found.weights(), [gram]), "relative", "measured", **labels))
    return rows


def _names(size, blocks):
    """Return (model, layer) of every matrix in some blocks."""
    found = []
    for model in MODELS[size]:
        layers = layers_of(model, size)
        found += [(model, name) for block in blocks for name in layers.block(block)[: FEW.get(size)]]
    return found
