"""PBS-Attn: sort keys inside segments, so that a few blocks hold most of the attention."""

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
        "Block-sparse attention must keep a whole block for a single key that many queries attend to, and such keys "
        "are scattered. Softmax does not depend on the order of the keys, so PBS-Attn sorts them inside segments by "
        "the attention of the last queries, and causality between segments is preserved. The heavy keys then fill few "
        "blocks, the other blocks are skipped, and the authors report prefill up to 2.75 times faster."
    ),
    state="complete at small scale; no LongBench and no 8-billion-parameter model",
    claims=CLAIMS,
    view=view_in("attention", method="pbs_attn", input="heavy", right="permuted"),
    experiments=(
        Experiment(
            key="exactness",
            title="Each order of the keys with every block kept, against dense attention",
            kind="accuracy",
            run=loaded_later("pbs_attn.exactness", "exactness"),
        ),
        Experiment(
            key="blocks",
            title="Attention in equal numbers of blocks",
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
