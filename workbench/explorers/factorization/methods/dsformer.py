"""DSFormer: every block of columns as a product of row-sparse coefficients and a small dense basis."""

import numpy as np

from widgets.controls.knob import Knob
from widgets.figures.factorization import Factor, History
from widgets.views.frame.story import Story
from workbench.explorers.factorization.knobs import SEED, SWEEPS
from workbench.explorers.factorization.method import Factorised, FactorMethod
from workbench.explorers.pruning.method import VALUE_BITS
from workbench.models.compression.dsformer import DSBlockSpec, trace

WIDTHS = (8, 16, 32, 64, 128)


def factorise(weight, gram, settings, progress):
    """Seek bases and coefficients block by block, and compare with the truncated SVD of as many values."""
    cols, r, s = int(settings["block_cols"]), settings["atoms"], settings["s"]
    (m, n), most = weight.shape, max(weight.shape[0], 1)
    if n % cols:
        raise ValueError(f"Blocks of {cols} columns do not divide the {n} columns of this matrix: take narrower ones.")
    if r > most:
        raise ValueError(f"A basis of {r} atoms has more than the matrix has rows, {m}: take fewer.")
    if s > r:
        raise ValueError(f"A row cannot have {s} of {r} atoms: take fewer coefficients or more atoms.")
    spec = DSBlockSpec(block_cols=cols, atoms=r, nnz_per_row=s)
    how = {"sweeps": settings["sweeps"], "seed": settings["seed"]}
    found = trace(np.ascontiguousarray(weight), spec, **how, report=progress)
    blocks, history = n // cols, found["history"]
    coefficients = Factor(
        name="coefficients S", values=found["coefficients"], axes=("output", "atom, block by block"),
        about=f"{blocks} blocks side by side, {s} entries in every row of each, at places of the row's own.",
    )  # fmt: skip
    bases = Factor(
        name="bases D", values=found["bases"], axes=("atom", "input"),
        about=f"{blocks} bases side by side, {r} atoms of {cols} numbers each; S multiplies block by block.",
    )  # fmt: skip
    bits = spec.bits(weight.shape, value_bits=VALUE_BITS)
    dense, values = found["factors"].D.size * VALUE_BITS, found["factors"].val.size * VALUE_BITS
    return Factorised(
        factors=(coefficients, bases),
        rebuilt=found["approximation"],
        bits={"dense factors": dense, "values": values, "indices": bits - dense - values},
        multiply_adds=found["factors"].num_values(),
        history=History(
            label="relative error of the weights",
            unit="sweep",
            errors=np.concatenate([history[:1], history[1::2]]),
            lines={f"truncated SVD of as many values, rank {found['rank']}": found["svd_error"]},
        ),
    )


METHOD = FactorMethod(
    key="dsformer", title="Dense-sparse blocks (DSFormer)",
    knobs=(
        Knob("block_cols", "Columns of a block", "32", choices=tuple((str(w), str(w)) for w in WIDTHS),
             help="Every block of columns has its own basis."),
        Knob("atoms", "Atoms of a basis", 32, 1, 256, help="More than a block has columns make it overcomplete."),
        Knob("s", "Coefficients of a row", 8, 1, 64, help="Atoms that each row of a block takes, of its own choice."),
        SWEEPS,
        SEED,
    ),
    factorise=factorise, source="Chand et al. 2023, arXiv 2312.13211",
    stories=(
        Story(
            "Every row chooses its own atoms",
            {"method": "dsformer", "block_cols": "32", "atoms": 32, "s": 8, "section": "factors"},
            "Each row of S has equally many marks in every block, and they are at other places than those of the rows "
            "beside it: a row lies in a subspace of its own. Find two rows that share no atom of the first block.",
        ),
        Story(
            "All atoms for every row: the truncated SVD",
            {"method": "dsformer", "block_cols": "128", "atoms": 32, "s": 32, "sweeps": 2, "section": "error"},
            "Here a row takes all atoms of one block as wide as the layer, so all rows share one subspace and the line "
            "of the truncated SVD is met. Now lower the coefficients and raise the atoms.",
        ),
    ),
)  # fmt: skip
