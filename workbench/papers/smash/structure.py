"""The three versions on inputs of other structure: graphs, grids and bands, as they are and relabelled."""

from dataclasses import replace

from workbench.data.matrices import banded, graph, poisson2d, rmat
from workbench.data.product_pairs import paired, relabelled
from workbench.data.text_matrices import word_cooccurrence
from workbench.machines.piuma import PiumaConfig, simulate_spgemm
from workbench.paper import row
from workbench.papers.smash.inputs import counts, main_input

KERNELS = ((1, None), (2, None), (3, None), (3, "multiplicative"))  # version, hash; None for the version's own


def structure(size, seed, report, matrix=None):
    """Return time and extra probes of each version, and of the third with a multiplicative hash, by input."""
    cases = _cases(size, seed, matrix)
    rows = []
    for place, (title, a, b, config) in enumerate(cases):
        labels = {"matrix": title, "log2_slots": config.log2_slots}
        rows += [found | labels for found in counts(title, a, b)]
        for part, (v, hash) in enumerate(KERNELS):
            told = report.part(place, len(cases), title).part(part, len(KERNELS), f"V{v}")
            result = simulate_spgemm(a, b, v, config, hash=hash, progress=told)
            named = labels | {"version": f"V{v}", "hash": result.hash}
            rows.append(row("time", result.ms, "ms", "modelled", **named))
            rows.append(row("extra probes", result.mean_extra_probes, "probes per product", "counted", **named))
    return rows


def _cases(size, seed, matrix):
    config = PiumaConfig()
    if matrix is not None:
        title, *pair = main_input(size, seed, matrix)
        return [(title, *pair, config), (f"{title}, relabelled", *relabelled(*pair), config)]
    scale, grid = {"tiny": (7, 16), "small": (10, 64), "full": (12, 128)}[size]
    edges = paired(rmat(scale, seed=seed))
    mesh = paired(poisson2d(grid))
    band = paired(banded(4 * 2**scale, 8, seed=seed))
    cases = [
        (f"Graph500 R-MAT, scale {scale}", *edges, config),
        (f"Graph500 R-MAT, scale {scale}, relabelled", *relabelled(*edges), config),
        (f"Poisson {grid} x {grid}", *mesh, config),
        (f"Poisson {grid} x {grid}, relabelled", *relabelled(*mesh), config),
        ("Poisson 64 x 64", *paired(poisson2d(64)), replace(config, log2_slots=12)),
        (f"banded, {4 * 2**scale} rows", *band, config),
        ("karate club", *paired(graph("karate")), config),
        ("Les Misérables", *paired(graph("les_miserables")), config),
    ]
    if size == "full":
        cases.append(("words of Python's documentation", *paired(word_cooccurrence()), config))
    return [case for case in cases if size != "tiny" or case[1].nnz < 15_000]
