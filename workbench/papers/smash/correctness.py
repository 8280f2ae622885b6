"""Every method of the kernel, SMASH's three versions among them, against SciPy."""

import numpy as np
import scipy.sparse as sp

from kernels.matmul.spgemm import spgemm, symbolic_nnz
from workbench.data.product_pairs import small_pairs
from workbench.paper import row
from workbench.papers.smash.inputs import main_input

METHODS = ("auto", "smash-v1", "smash-v2", "smash-v3", "dense", "merge", "inner", "outer")


def correctness(size, seed, report, matrix=None):
    """Return each method's largest error and wrong entries, on the main input and on small ones of other structure."""
    cases = [main_input(size, seed, matrix)]
    cases += [] if matrix else [(title, *pair) for title, pair in small_pairs(seed).items()]
    rows = []
    for number, (title, *patterns) in enumerate(cases):
        a, b = _with_values(patterns, seed)
        expected = a @ b
        expected.sort_indices()
        structure = int(symbolic_nnz(a, b).sum())
        for place, method in enumerate(METHODS):
            report.part(number, len(cases), title)(place / len(METHODS), method)
            c = spgemm(a, b, method=method)
            labels = {"matrix": title, "method": method}
            rows.append(row("largest error", _largest_error(c, expected), "relative", "measured", **labels))
            rows.append(row("entries too many or missing", abs(c.nnz - structure), "entries", "counted", **labels))
    return rows


def _with_values(patterns, seed):
    """Keep the patterns, draw values: products of ones would hide rounding."""
    rng = np.random.default_rng(seed)
    return [sp.csr_array((rng.uniform(0.5, 1.5, x.nnz), x.indices, x.indptr), shape=x.shape) for x in patterns]


def _largest_error(c, expected):
    scale = float(np.abs(expected.data).max(initial=0.0)) or 1.0
    return float(np.abs((c - expected).data).max(initial=0.0)) / scale
