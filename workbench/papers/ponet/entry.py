"""PoNet: tokens are mixed by pooling at three ranges instead of attention."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.ponet.claims import CLAIMS

PAPER = Paper(
    key="ponet",
    title="PoNet: Pooling Network for Efficient Token Mixing in Long Sequences",
    authors="Chao-Hong Tan, Qian Chen, Wen Wang, Qinglin Zhang, Siqi Zheng, Zhen-Hua Ling",
    year=2021,
    arxiv="2110.02442",
    family="attention",
    summary=(
        "Attention connects every token with every other, at a cost that grows with the square of the length. PoNet "
        "pools at three ranges instead: one attention query for the whole sequence, a maximum over each segment and a "
        "maximum over three neighbours, all of them multiplied with each token's own features. The cost is linear, and "
        "the authors report an accuracy on long sequences that is at least that of attention."
    ),
    state="complete; GLUE and the Long Range Arena are replaced by digits and the Python documentation",
    claims=CLAIMS,
    view=view_in("attention", method="ponet", input="ponet", tokens=256, layer=1, head=2, right="effective"),
    experiments=(
        Experiment(
            key="image",
            title="Digits as sequences of 64 pixels",
            kind="accuracy",
            run=loaded_later("ponet.digits", "image"),
        ),
        Experiment(
            key="memory",
            title="Largest tensor of one layer",
            kind="accuracy",
            run=loaded_later("ponet.cost", "memory"),
        ),
        Experiment(
            key="timing",
            title="Time of a layer and of a training step",
            kind="timing",
            run=loaded_later("ponet.cost", "timing"),
        ),
        Experiment(
            key="language",
            title="Masked words and the order of sentences",
            kind="accuracy",
            run=loaded_later("ponet.language", "language"),
        ),
    ),
)
