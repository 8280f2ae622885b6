"""Matrices by formula or seed, and the catalogue of every matrix source that the workbench offers.

Each function returns a canonical ``scipy.sparse.csr_array`` of float64 (sorted indices, no duplicates). Equal
arguments give equal matrices, on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from workbench.data.matrix_files import read_matrix, save_matrix
from workbench.data.matrix_market import read_matrix_market
from workbench.data.suitesparse import suitesparse
from workbench.data.text_matrices import import_graph, source_cooccurrence, term_document, word_cooccurrence

__all__ = [
    "GRAPHS",
    "MATRICES",
    "MatrixSource",
    "banded",
    "erdos_renyi",
    "graph",
    "import_graph",
    "poisson2d",
    "poisson3d",
    "power_law",
    "read_matrix",
    "read_matrix_market",
    "rmat",
    "save_matrix",
    "source_cooccurrence",
    "suitesparse",
    "term_document",
    "w0",
    "word_cooccurrence",
]

MAX_ENTRIES = 2**27


def rmat(scale, edge_factor=16, a=0.57, b=0.19, c=0.19, d=0.05, seed=1, values="ones", permute=False):
    """Draw a recursive-matrix graph (R-MAT): power-law rows and columns, communities within communities.

    Each of ``edge_factor * 2**scale`` edges descends ``scale`` times into one of four quadrants, with probabilities
    ``a`` (top left), ``b`` (top right), ``c`` (bottom left), ``d``. Edges that meet are merged.

    Parameters
    ----------
    scale : int in [0, 24]; the matrix is 2**scale x 2**scale.
    edge_factor : edges drawn per row, > 0.
    a, b, c, d : probabilities of the quadrants, >= 0, sum 1. Defaults are Graph500's.
    seed : seed of ``numpy.random.default_rng``.
    values : ``"ones"`` for a pattern, ``"uniform"`` for values in (0, 1] drawn after the edges.
    permute : relabel the vertices at random (rows and columns alike), so that heavy rows are spread out.

    Returns
    -------
    csr_array, float64, shape (2**scale, 2**scale).

    Source
    ------
    Chakrabarti, Zhan, Faloutsos 2004; parameters of the Graph500 benchmark.
    """
    _check_int("rmat", "scale", scale, 0, 24)
    if not edge_factor > 0:
        raise ValueError(f"rmat: edge_factor must be above 0, got {edge_factor}")
    if min(a, b, c, d) < 0 or abs(a + b + c + d - 1) > 1e-9:
        raise ValueError(f"rmat: a, b, c, d must be >= 0 and sum to 1, got {a}, {b}, {c}, {d}")
    if values not in ("ones", "uniform"):
        raise ValueError(f"rmat: values must be 'ones' or 'uniform', got {values!r}")
    n = 2**scale
    edges = round(edge_factor * n)
    _check_entries("rmat", edges, "lower scale or edge_factor")
    rng = np.random.default_rng(seed)
    rows = np.zeros(edges, dtype=np.int64)
    cols = np.zeros(edges, dtype=np.int64)
    for _ in range(scale):  # most significant bit first
        u = rng.random(edges)
        rows = 2 * rows + (u >= a + b)
        cols = 2 * cols + (((u >= a) & (u < a + b)) | (u >= a + b + c))
    matrix = _pattern(rows, cols, (n, n))
    if values == "uniform":
        matrix.data[:] = 1.0 - rng.random(matrix.nnz)
    if permute:
        order = rng.permutation(n)
        matrix = matrix[order][:, order]
        matrix.sort_indices()
    return matrix


def w0():
    """Return the pair (A, B) of the SMASH reference workload W0.

    Two R-MAT graphs of 16,384 vertices with (a, b, c, d) = (.47, .115, .115, .30), seeds 1 and 2, relabelled at
    random so that A's columns and B's rows keep matching: nnz(A) = 254,968, nnz(B) = 254,893, 5,731,470 products.

    Returns
    -------
    (csr_array, csr_array), float64, both 16,384 x 16,384.

    Source
    ------
    Our reconstruction: the parameters are fitted so that nnz(A), nnz(B) and nnz(C) come within 1 per cent of the
    input of Shivdikar 2021 (from memory: 254,211 and 5,174,841).
    """
    quadrants = {"a": 0.47, "b": 0.115, "c": 0.115, "d": 0.30}
    left, right = (rmat(14, 16, **quadrants, seed=seed) for seed in (1, 2))
    rng = np.random.default_rng(100)
    rows, inner, cols = (rng.permutation(2**14) for _ in range(3))
    left, right = left[rows][:, inner], right[inner][:, cols]
    left.sort_indices()
    right.sort_indices()
    return left, right


def poisson2d(n):
    """Return the 5-point Laplacian of an ``n`` x ``n`` grid: 4 on the diagonal, -1 per neighbour.

    Parameters
    ----------
    n : int in [1, 4096]; the matrix is n^2 x n^2.
    """
    _check_int("poisson2d", "n", n, 1, 4096)
    return _laplacian(n, 2)


def poisson3d(n):
    """Return the 7-point Laplacian of an ``n`` x ``n`` x ``n`` grid: 6 on the diagonal, -1 per neighbour.

    Parameters
    ----------
    n : int in [1, 256]; the matrix is n^3 x n^3.
    """
    _check_int("poisson3d", "n", n, 1, 256)
    return _laplacian(n, 3)


def banded(n, half_bandwidth=4, density=1.0, seed=1):
    """Return a matrix whose entries lie within ``half_bandwidth`` of the diagonal.

    Parameters
    ----------
    n : rows and columns, >= 0.
    half_bandwidth : largest abs(i - j) of an entry, >= 0.
    density : fraction of the band that is filled, in [0, 1]; values are uniform in (0, 1].
    """
    _check_int("banded", "n", n, 0, 2**31 - 1)
    _check_int("banded", "half_bandwidth", half_bandwidth, 0, 2**31 - 1)
    _check_fraction("banded", "density", density)
    width = min(half_bandwidth, max(n - 1, 0))
    _check_entries("banded", n * (2 * width + 1), "lower n or half_bandwidth")
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(n, dtype=np.int64), 2 * width + 1)
    cols = rows + np.tile(np.arange(-width, width + 1), n)
    keep = (cols >= 0) & (cols < n)
    if density < 1:
        keep &= rng.random(keep.size) < density
    return _with_values(_pattern(rows[keep], cols[keep], (n, n)), rng)


def erdos_renyi(m, n=None, nnz_per_row=8.0, seed=1):
    """Return an ``m`` x ``n`` matrix whose entries fall anywhere with equal chance.

    Parameters
    ----------
    m, n : rows and columns; ``n`` defaults to ``m``.
    nnz_per_row : entries drawn per row, >= 0; those that meet are merged. Values are uniform in (0, 1].
    """
    n = m if n is None else n
    _check_int("erdos_renyi", "m", m, 0, 2**31 - 1)
    _check_int("erdos_renyi", "n", n, 0, 2**31 - 1)
    if not nnz_per_row >= 0:
        raise ValueError(f"erdos_renyi: nnz_per_row must be >= 0, got {nnz_per_row}")
    drawn = round(m * nnz_per_row) if n else 0
    _check_entries("erdos_renyi", drawn, "lower m or nnz_per_row")
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, max(m, 1), drawn), rng.integers(0, max(n, 1), drawn)
    return _with_values(_pattern(rows, cols, (m, n)), rng)


def power_law(m, n=None, nnz_per_row=8.0, exponent=2.0, seed=1):
    """Return an ``m`` x ``n`` matrix whose row lengths follow a power law: few heavy rows, many light ones.

    Row weights are Pareto, P(weight > x) = x^(1 - exponent), scaled to ``nnz_per_row`` on average, at most n / 2 per
    row; columns are uniform and entries that meet are merged. Values are uniform in (0, 1].

    Parameters
    ----------
    m, n : rows and columns; ``n`` defaults to ``m``.
    nnz_per_row : mean entries drawn per row, >= 0.
    exponent : > 1; the smaller, the heavier the heaviest rows.
    """
    n = m if n is None else n
    _check_int("power_law", "m", m, 0, 2**31 - 1)
    _check_int("power_law", "n", n, 0, 2**31 - 1)
    if not nnz_per_row >= 0 or not exponent > 1:
        raise ValueError(f"power_law: need nnz_per_row >= 0 and exponent > 1, got {nnz_per_row} and {exponent}")
    _check_entries("power_law", round(m * nnz_per_row), "lower m or nnz_per_row")
    rng = np.random.default_rng(seed)
    weight = (1.0 - rng.random(m)) ** (-1.0 / (exponent - 1.0))
    mean = weight.mean() if m else 1.0
    lengths = np.minimum(np.rint(weight * (nnz_per_row / mean)), n // 2 if n > 1 else n).astype(np.int64)
    rows = np.repeat(np.arange(m, dtype=np.int64), lengths)
    cols = rng.integers(0, max(n, 1), rows.size)
    return _with_values(_pattern(rows, cols, (m, n)), rng)


GRAPHS = {
    "karate": ("karate_club_graph", "Members of a karate club who met outside it (Zachary 1977)"),
    "les_miserables": ("les_miserables_graph", "Characters of Les Misérables who share a chapter (Knuth 1993)"),
    "southern_women": ("davis_southern_women_graph", "Women and the events they came to (Davis 1941)"),
    "florentine_families": ("florentine_families_graph", "Marriages of Florentine families (Padgett 1994)"),
}


def graph(name):
    """Return the weighted adjacency matrix of one of networkx's real graphs.

    Parameters
    ----------
    name : key of ``GRAPHS``: "karate", "les_miserables", "southern_women", "florentine_families".

    Returns
    -------
    csr_array, float64, symmetric; rows in networkx's order of nodes.
    """
    if name not in GRAPHS:
        raise ValueError(f"graph: name must be one of {', '.join(GRAPHS)}; got {name!r}")
    import networkx

    found = getattr(networkx, GRAPHS[name][0])()
    found = networkx.to_scipy_sparse_array(found, dtype=np.float64, format="coo")
    places = tuple(x.astype(np.int32) for x in found.coords)
    matrix = sp.coo_array((found.data, places), shape=found.shape).tocsr()
    matrix.sum_duplicates()
    return matrix


def _pattern(rows, cols, shape):
    places = rows.astype(np.int32), cols.astype(np.int32)  # SciPy keeps the width it gets
    matrix = sp.coo_array((np.ones(rows.size), places), shape=shape).tocsr()
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _with_values(matrix, rng):
    matrix.data[:] = 1.0 - rng.random(matrix.nnz)
    return matrix


def _laplacian(n, dimensions):
    line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1], shape=(n, n))
    matrix = line
    for _ in range(dimensions - 1):
        matrix = sp.kronsum(line, matrix, format="csr")
    matrix = sp.csr_array(matrix)
    matrix.sum_duplicates()
    return matrix


def _check_int(function, name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{function}: {name} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{function}: {name} must be from {low} to {high}, got {value}")


def _check_fraction(function, name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{function}: {name} must be in [0, 1], got {value}")


def _check_entries(function, entries, cure):
    if entries > MAX_ENTRIES:
        raise ValueError(f"{function}: would draw {entries:,} entries, the limit is {MAX_ENTRIES:,}; {cure}")


@dataclass(frozen=True)
class MatrixSource:
    """One entry of the catalogue.

    Parameters
    ----------
    title, description : what readers see.
    load : ``load(**options)`` -> csr_array, float64; without options a size fit for interaction.
    """

    title: str
    description: str
    load: Callable[..., sp.csr_array]


def _rmat(scale=12, edge_factor=8, **options):
    return rmat(scale, edge_factor, **options)


def _w0_left():
    return w0()[0]


def _poisson2d(n=64):
    return poisson2d(n)


def _poisson3d(n=16):
    return poisson3d(n)


def _banded(n=4096, half_bandwidth=8, **options):
    return banded(n, half_bandwidth, **options)


def _erdos_renyi(m=4096, **options):
    return erdos_renyi(m, **options)


def _power_law(m=4096, **options):
    return power_law(m, **options)


def _source_documents():
    return term_document("sources")


def _graph_source(name):
    return MatrixSource(name.replace("_", " ").capitalize(), GRAPHS[name][1], lambda: graph(name))


MATRICES: dict[str, MatrixSource] = {
    "rmat": MatrixSource("R-MAT", "Random graph with power-law rows and communities (Graph500 quadrants)", _rmat),
    "w0": MatrixSource("W0, left operand", "Relabelled R-MAT of the SMASH reference workload", _w0_left),
    "poisson2d": MatrixSource("Poisson 2D", "5-point Laplacian of a square grid", _poisson2d),
    "poisson3d": MatrixSource("Poisson 3D", "7-point Laplacian of a cube", _poisson3d),
    "banded": MatrixSource("Banded", "Entries near the diagonal only", _banded),
    "erdos_renyi": MatrixSource("Erdős-Rényi", "Entries anywhere with equal chance", _erdos_renyi),
    "power_law": MatrixSource("Power-law rows", "Few heavy rows, many light ones", _power_law),
    **{name: _graph_source(name) for name in GRAPHS},
    "term_document": MatrixSource("Term-document", "Words in the topics of Python's documentation", term_document),
    "word_cooccurrence": MatrixSource(
        "Word co-occurrence", "Words near each other in Python's documentation", word_cooccurrence
    ),
    "source_documents": MatrixSource(
        "Source documents", "Names in the modules of the standard library", _source_documents
    ),
    "source_cooccurrence": MatrixSource(
        "Source co-occurrence", "Names near each other in the standard library", source_cooccurrence
    ),
    "import_graph": MatrixSource("Import graph", "Which module of the standard library imports which", import_graph),
}
