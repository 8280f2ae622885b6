"""CoSpaDi: a dictionary of atoms that all outputs share, and a few coefficients for each, learnt sweep by sweep."""

import numpy as np

from kernels.factor.svd import rank_for_ratio, svd_llm, svd_plain
from kernels.formats.storage import dictionary_bits
from widgets.controls.knob import Knob
from widgets.figures.factorization import Factor, History
from widgets.views.frame.story import Story
from workbench.explorers.factorization.knobs import SEED, SHARE, SWEEPS
from workbench.explorers.factorization.method import Factorised, FactorMethod
from workbench.models.compression.cospadi import dictionary_factors, solve_k_s

RHO = Knob(
    "rho", "Atoms for each coefficient", 2.0, 1.0, 4.0, 0.25, help="k / s: with 1 every output uses every atom."
)  # fmt: skip
WHITENED = Knob(
    "whitened", "Fitted to the outputs", True, help="Otherwise the error of the weights alone is made small."
)


def factorise(weight, gram, settings, progress):
    """Learn a dictionary."""
    share, sweeps, used = settings["share"], settings["sweeps"], gram if settings["whitened"] else None
    (m, n), rank = weight.shape, rank_for_ratio(share, weight.shape)
    k, s = solve_k_s(share, n, m, 1, settings["rho"])

    def tell(iteration, stage, error):
        progress(iteration / max(sweeps, 1), f"sweep {iteration}, {stage}: relative error {error:.4f}")

    found = dictionary_factors([weight], used, k, s, iters=sweeps, seed=settings["seed"], callback=tell)
    low = svd_plain(weight, rank) if used is None else svd_llm(weight, used, rank)
    codes = found.codes[0].as_csr().toarray()
    bits = dictionary_bits((m, n), k, s)
    return Factorised(
        factors=(
            Factor(name="codes", values=codes, axes=("output", "atom"), about=f"{s} of {k} coefficients in each row."),
            Factor(name="dictionary", values=found.dictionary.T, axes=("atom", "input"),
                   about=f"{k} atoms as rows, which all outputs share."),
        ),
        rebuilt=found.weights()[0].astype(np.float32),
        bits={"dense factors": 16 * n * k, "values": 16 * m * s, "indices": bits - 16 * (n * k + m * s)},
        multiply_adds=n * int(codes.any(axis=0).sum()) + m * s,
        history=History(
            label="relative error" + (" of the outputs" if used is not None else ""), unit="stage",
            errors=found.history,
            lines={"SVD of as many values": float(low.left_out / np.linalg.norm(low.values))},
        ),
    )  # fmt: skip


METHOD = FactorMethod(
    key="cospadi", title="Sparse dictionary (CoSpaDi)", knobs=(SHARE, RHO, SWEEPS, WHITENED, SEED), factorise=factorise,
    source="Makhov et al. 2025, arXiv 2509.22075", needs="gram",
    stories=(
        Story(
            "Every output picks its own atoms",
            {"method": "cospadi", "share": 0.5},
            "Each row of the codes has equally many marks, at other places: two outputs may share no atom at all. "
            "Turn the atoms for each coefficient down to 1: every row is full, and the error is that of the SVD.",
        ),
    ),
)  # fmt: skip
