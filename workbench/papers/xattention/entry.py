"""XAttention: block-sparse attention whose blocks are chosen by sums along antidiagonals."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.xattention.claims import CLAIMS

PAPER = Paper(
    key="xattention",
    title="XAttention: Block Sparse Attention with Antidiagonal Scoring",
    authors="Ruyi Xu, Guangxuan Xiao, Haofeng Huang, Junxian Guo, Song Han",
    year=2025,
    arxiv="2503.16428",
    family="attention",
    summary=(
        "Block-sparse attention must know which blocks matter before it computes them, and means of queries and keys "
        "miss thin lines. XAttention samples one antidiagonal of every small tile of the logits, which crosses "
        "vertical lines and slashes alike, and takes its sum as the tile's score. The fewest blocks that hold a given "
        "share of the estimated attention are computed, without any training, and the authors report that long prompts "
        "are processed several times faster."
    ),
    state="complete; long-context benchmarks of 8-billion-parameter models are replaced by small models and generators",
    claims=CLAIMS,
    view=view_in("attention", method="xattention", input="minilm"),
    experiments=(
        Experiment(
            key="samplers",
            title="Sampling patterns on 72 heads of a sentence encoder",
            kind="accuracy",
            run=loaded_later("xattention.samplers", "samplers"),
        ),
        Experiment(
            key="pattern",
            title="Sampling patterns on generated slashes and columns",
            kind="accuracy",
            run=loaded_later("xattention.pattern", "pattern"),
        ),
        Experiment(
            key="selection",
            title="Thresholds against top-k, and thresholds per head",
            kind="accuracy",
            run=loaded_later("xattention.selection", "selection"),
        ),
        Experiment(
            key="language",
            title="A language model with sparse attention in every layer",
            kind="accuracy",
            run=loaded_later("xattention.language", "language"),
        ),
        Experiment(
            key="timing",
            title="Time to score, select and attend, against dense attention",
            kind="timing",
            run=loaded_later("xattention.timing", "timing"),
        ),
    ),
)
