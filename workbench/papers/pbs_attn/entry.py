"""PBS-Attn: sort keys inside segments, so that a few blocks hold what attention looks for."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.pbs_attn.claims import CLAIMS

PAPER = Paper(
    key="pbs_attn",
    title="Sparser Block-Sparse Attention via Token Permutation",
    authors="Xinghao Wang and nine co-authors",
    year=2025,
    arxiv="2510.21270",
    family="attention",
    summary=(
        "Block-sparse attention must keep a whole block for a single key that many queries want, and such keys lie "
        "scattered. Softmax does not care in which order keys are listed, so PBS-Attn sorts them inside segments by "
        "the attention that the last queries pay, and causality between segments stays as it was. The wanted keys then "
        "fill few blocks, the rest is skipped, and the authors report prefill up to 2.75 times faster."
    ),
    state="complete at small scale; no LongBench and no 8-billion-parameter model",
    claims=CLAIMS,
    view=view_in("attention", method="pbs_attn", input="heavy", right="permuted"),
    experiments=(
        Experiment(
            key="exactness",
            title="Every order with every block kept, against dense attention",
            kind="accuracy",
            run=loaded_later("pbs_attn.exactness", "exactness"),
        ),
        Experiment(
            key="blocks",
            title="Attention held by equal numbers of blocks",
            kind="accuracy",
            run=loaded_later("pbs_attn.blocks", "blocks"),
        ),
        Experiment(
            key="generator",
            title="Blocks needed when few keys are heavy",
            kind="accuracy",
            run=loaded_later("pbs_attn.blocks", "generator"),
        ),
        Experiment(
            key="thresholds",
            title="Density and coverage at equal thresholds",
            kind="accuracy",
            run=loaded_later("pbs_attn.thresholds", "thresholds"),
        ),
        Experiment(
            key="language",
            title="Bits per byte of a language model",
            kind="accuracy",
            run=loaded_later("pbs_attn.language", "language"),
        ),
        Experiment(
            key="speed",
            title="Time of prefill attention",
            kind="timing",
            run=loaded_later("pbs_attn.speed", "speed"),
        ),
    ),
)
