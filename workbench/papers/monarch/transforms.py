"""Which transforms are Monarch matrices, and how near others come, beside low rank and block-diagonal matrices."""

import numpy as np
from scipy import fft, linalg

from kernels.transforms.monarch import monarch_dense, monarch_multiply, monarch_permutation, monarch_project
from workbench.paper import row

SIZES = {"tiny": (16, 64), "small": (16, 64, 256), "full": (16, 64, 256, 1024)}
TRIES = {"tiny": 2, "small": 5, "full": 20}  # random starts of the search
SEARCHED = 16
MONARCH, PERMUTED = "Monarch", "Monarch, inputs permuted"
LOW_RANK, BLOCKS = "low rank", "block-diagonal"


def matrices(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the matrices that are projected, n a square number, by name."""
    rng, m = np.random.default_rng(seed), round(n**0.5)
    return {
        "DFT": linalg.dft(n, scale="sqrtn"),
        "DCT-II": fft.dct(np.eye(n), norm="ortho", axis=0),
        "Hadamard": linalg.hadamard(n) / n**0.5,
        "Kronecker product": np.kron(rng.standard_normal((m, m)), rng.standard_normal((m, m))),
        "circulant": linalg.circulant(rng.standard_normal(n)),
        "Toeplitz": linalg.toeplitz(rng.standard_normal(n), rng.standard_normal(n)),
        "random": rng.standard_normal((n, n)),
    }


def transforms(size, seed, report):
    """Project each matrix onto Monarch matrices and onto two other structures with as many parameters.

    A Monarch matrix with sqrt(n) blocks has 2 n^1.5 parameters, as has rank sqrt(n), and as have blocks of 2 sqrt(n).
    """
    rows, sizes = [], SIZES[size]
    for i, n in enumerate(sizes):
        m = round(n**0.5)
        for j, (name, matrix) in enumerate(matrices(n, seed).items()):
            report((i + j / 7) / (len(sizes) + 1), f"{name}, {n} x {n}")
            order = monarch_permutation(n)
            errors = {
                MONARCH: monarch_project(matrix)[2],
                PERMUTED: monarch_project(matrix[:, order])[2],
                LOW_RANK: rank_error(matrix, m),
                BLOCKS: block_error(matrix, 2 * m),
            }
            labels = {"matrix": name, "n": n, "parameters": 2 * n * m}
            rows += [
                row("projection error", x, "relative", "counted", structure=structure, **labels)
                for structure, x in errors.items()
            ]
        rows.append(row("largest error", _convolution_error(n, seed), "relative", "measured", matrix="circulant",
                        n=n, structure="product of two transforms"))  # fmt: skip
    return rows + _searched(TRIES[size], seed)


def rank_error(matrix, rank) -> float:
    """Return the relative error of the nearest matrix of a rank."""
    sizes = linalg.svdvals(matrix)
    return float(np.sqrt((sizes[rank:] ** 2).sum() / (sizes**2).sum()))


def block_error(matrix, side) -> float:
    """Return the relative error of what lies in the square blocks on the diagonal."""
    place = np.arange(len(matrix)) // side
    left_out = np.abs(matrix[place[:, None] != place]) ** 2
    return float(np.sqrt(left_out.sum()) / linalg.norm(matrix))


def _convolution_error(n, seed):
    """Convolve by the Fourier transform and its inverse, both in Monarch factors, and compare with the matrix."""
    rng, order = np.random.default_rng(seed), monarch_permutation(n)
    kernel, x = rng.standard_normal(n), rng.standard_normal((3, n))
    there = monarch_project(linalg.dft(n)[:, order])[:2]
    back = monarch_project(linalg.inv(linalg.dft(n))[:, order])[:2]
    spectra = [monarch_multiply(np.ascontiguousarray(y[..., order]).astype(complex), *there) for y in (x, kernel)]
    found = monarch_multiply(np.ascontiguousarray((spectra[0] * spectra[1])[..., order]), *back)
    wanted = x @ linalg.circulant(kernel).T
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _searched(tries, seed):
    """Look for a nearer matrix by alternating least squares from random starts, which the projection does not do."""
    rng, m = np.random.default_rng(seed), round(SEARCHED**0.5)
    matrix = rng.standard_normal((SEARCHED, SEARCHED))
    w1, w2, error = monarch_project(matrix)
    parts = matrix.reshape(m, m, m, m).transpose(2, 1, 0, 3)  # (k, j, s, p)
    best = np.inf
    for _ in range(tries):
        u, v = rng.standard_normal((2, m, m, m))
        for _ in range(300):
            v = np.einsum("kjsp,kjs->kjp", parts, u) / (u**2).sum(-1, keepdims=True)
            u = np.einsum("kjsp,kjp->kjs", parts, v) / (v**2).sum(-1, keepdims=True)
        best = min(best, linalg.norm(parts - u[..., None] * v[..., None, :]) / linalg.norm(matrix))
    labels = {"matrix": "random", "n": SEARCHED, "tries": tries}
    found = float(linalg.norm(matrix - monarch_dense(w1, w2)) / linalg.norm(matrix))
    return [
        row("best error", error, "relative", "counted", structure="projection", **labels),
        row("best error", found, "relative", "counted", structure="projection, multiplied out", **labels),
        row("best error", float(best), "relative", "counted", structure="search", **labels),
    ]
