"""Query and value matrices of a sentence encoder by SVD, dense-sparse blocks and pruning, at equal values or bits."""

from functools import partial
from math import gcd

import numpy as np

from kernels.factor.svd import svd_plain
from kernels.formats.storage import bitmap_bits, low_rank_bits, nm_bits
from workbench.explorers.pruning.source import source
from workbench.models.compression.dsformer import ds_factorize, spec_for_ratio
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row

ERROR, STORED = "relative error of a matrix's weights", "bits over those of the dense matrix"
SVD, MAGNITUDE, TWO_OF_FOUR, OURS = "SVD", "magnitude", "magnitude, 2:4", "dense-sparse blocks"
VALUES, BITS = "values", "bits"
MODEL = {"tiny": "small_encoder", "small": "small_encoder", "full": "minilm"}
RATIOS = {"tiny": (2.0,), "small": (2.0, 3.57), "full": (2.0, 2.8, 3.57)}
WIDTHS = {"tiny": (128, 32), "small": (128, 64, 32, 16), "full": (384, 64, 32, 16)}  # the first is the whole matrix
FEW = {"tiny": 2, "small": 4}
SWEEPS = {"tiny": 2, "small": 4, "full": 4}
VALUE_BITS = 16


def matrices(size, seed, report, keep):
    """Factorise or prune every matrix at equal values, places not counted, and at equal bits, places counted."""
    model, rows = MODEL[size], []
    layers = linear_layers(source(model).load())
    names = [name for name in layers if name.endswith(("query", "value"))][: FEW.get(size)]
    for i, name in enumerate(names):
        report(i / len(names), f"{model}, {name}")
        weight = layers[name].weight.detach().numpy()
        for ratio in RATIOS[size]:
            for count in (VALUES, BITS):
                labels = {"model": model, "layer": name, "ratio": ratio, "count": count}
                rows += keep(labels, partial(_compared, weight, size, seed, labels))
    return rows


def _compared(weight, size, seed, labels):
    """Return the rows of one matrix at one budget."""
    shape, ratio, count = weight.shape, labels["ratio"], labels["count"]
    m, n = shape
    budget = int(m * n * (VALUE_BITS if count == BITS else 1) / ratio)
    rank = budget // ((m + n) * (VALUE_BITS if count == BITS else 1))
    kept = budget if count == VALUES else (budget - m * n) // VALUE_BITS
    low = svd_plain(weight, rank)
    found = [(SVD, low.left @ low.right, low_rank_bits(shape, rank), {"rank": rank})]
    found.append((MAGNITUDE, largest(weight, kept), bitmap_bits(shape, kept), {}))
    if count == VALUES and ratio == 2:
        found.append((TWO_OF_FOUR, two_of_four(weight), nm_bits(shape, 2, 4), {}))
    for width in WIDTHS[size]:
        spec = spec_for_ratio(shape, ratio, gcd(width, n), count)
        made = ds_factorize(weight, spec, sweeps=SWEEPS[size], seed=seed)
        sizes = {"columns": spec.block_cols, "atoms": spec.atoms, "s": spec.nnz_per_row}
        found.append((OURS, made.to_dense(), spec.bits(shape), sizes))
    rows, scale = [], np.linalg.norm(weight)
    for method, near, bits, more in found:
        same = {"method": method, **labels, **more}
        rows.append(row(ERROR, float(np.linalg.norm(weight - near) / scale), "relative", "measured", **same))
        rows.append(row(STORED, bits / (VALUE_BITS * m * n), "x", "counted", **same))
    return rows


def largest(weight, kept) -> np.ndarray:
    """Return a matrix with only its largest values left."""
    order = np.argsort(-np.abs(weight), axis=None, kind="stable")[:kept]
    near = np.zeros_like(weight)
    near.flat[order] = weight.flat[order]
    return near


def two_of_four(weight) -> np.ndarray:
    """Return a matrix with only the two largest of every four neighbours of a row left."""
    groups = weight.reshape(-1, 4)
    order = np.argsort(-np.abs(groups), axis=1, kind="stable")[:, :2]
    near = np.zeros_like(groups)
    np.put_along_axis(near, order, np.take_along_axis(groups, order, 1), 1)
    return near.reshape(weight.shape)
