"""SMASH: a sparse product that merges partial products at once, in hash tables on chip, on a model of Intel's PIUMA."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.smash.claims import CLAIMS

PAPER = Paper(
    key="smash",
    title="SMASH: Sparse Matrix Atomic Scratchpad Hashing",
    authors="Kaustubh Shivdikar",
    year=2021,
    arxiv="2105.14156",
    family="matrix products",
    summary=(
        "A sparse product is limited by memory traffic: row-wise order multiplies as often as any other but need not "
        "store partial products. SMASH merges them at once by atomics in a hash table in the scratchpad, window of "
        "rows by window of rows. Dynamic tokens, low-order-bit hashing and write-back by the DMA engine make the "
        "third version 9.4 times faster than the first on one block of Intel's PIUMA."
    ),
    state="complete; PIUMA itself is a calibrated model of ours",
    claims=CLAIMS,
    view=view_in("spgemm"),
    experiments=(
        Experiment(
            key="correctness",
            title="Every method against SciPy",
            kind="accuracy",
            run=loaded_later("smash.correctness", "correctness"),
        ),
        Experiment(
            key="versions",
            title="Three kernel versions on one PIUMA block",
            kind="modelled",
            run=loaded_later("smash.versions", "versions"),
        ),
        Experiment(
            key="traffic",
            title="Off-chip traffic of the dataflows",
            kind="accuracy",
            run=loaded_later("smash.traffic", "traffic"),
        ),
        Experiment(
            key="structure",
            title="Other inputs: graphs, grids, bands",
            kind="modelled",
            run=loaded_later("smash.structure", "structure"),
        ),
        Experiment(
            key="sensitivity",
            title="Constants of the model changed",
            kind="modelled",
            run=loaded_later("smash.sensitivity", "sensitivity"),
        ),
    ),
)
