"""What Tiled-CSL takes in memory, what reordering does to bank conflicts, and how exact the product is."""

import numpy as np

from kernels.formats.tiled_csl import TiledCSL
from kernels.matmul.skinny_spmm import skinny_spmm
from workbench.paper import row

SIDES = {"tiny": (256, 256), "small": (1024, 1024), "full": (4096, 4096)}
SPARSITIES = {"tiny": (0.8,), "small": (0.7, 0.8, 0.9), "full": (0.5, 0.7, 0.8, 0.9)}
COLUMNS = 16
METHODS = {True: "dense_tile", False: "entries"}  # with and without reordering


def random_weights(m, k, sparsity, seed) -> np.ndarray:
    """Draw float16 weights (m, k), of which exactly round(sparsity m k) are zero, at random places."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(m * k, np.float32).astype(np.float16)
    weights[weights == 0] = 1  # a drawn zero would be one too many
    weights[rng.permutation(m * k)[: round(sparsity * m * k)]] = 0
    return weights.reshape(m, k)


def packing(size, seed, report):
    """Encode random weights with and without reordering; count bytes and conflicts, compare products."""
    (m, k), rows = SIDES[size], []
    for place, sparsity in enumerate(SPARSITIES[size]):
        report(place / len(SPARSITIES[size]), f"{sparsity:.0%} sparse")
        weights = random_weights(m, k, sparsity, seed)
        for reorder in (False, True):
            rows += _encoded(weights, reorder, seed, m=m, k=k, sparsity=sparsity)
    return rows


def _encoded(weights, reorder, seed, **labels):
    packed = TiledCSL.encode(weights, reorder=reorder)
    labels |= {"words": "reordered" if reorder else "row by row"}
    b = np.random.default_rng(seed).standard_normal((weights.shape[1], COLUMNS), np.float32)
    wanted = weights.astype(np.float64) @ b.astype(np.float64)
    found = skinny_spmm(packed, b, method=METHODS[reorder])
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return [
        row("bytes, tiled-CSL", packed.nbytes, "bytes", "counted", **labels),
        row("bytes, dense in half precision", 2 * weights.size, "bytes", "counted", **labels),
        row("words of padding", packed.padded_nnz - packed.nnz, "number", "counted", **labels),
        row("words that meet in the fullest bank", packed.bank_conflict_degree(), "number", "counted", **labels),
        row("weights that differ after decoding", int((packed.decode() != weights).sum()), "entries", "counted",
            **labels),
        row("largest error", error, "relative", "measured", method=METHODS[reorder], columns=COLUMNS, **labels),
    ]  # fmt: skip
