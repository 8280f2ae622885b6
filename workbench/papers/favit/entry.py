"""FaViT: attention at a window's cost that reaches the whole picture, by keys fused across windows."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.favit.claims import CLAIMS

PAPER = Paper(
    key="favit",
    title="Factorization Vision Transformer: Modeling Long Range Dependency with Local Window Cost",
    authors="Haolin Qin, Daquan Zhou, Tingfa Xu, Ziyang Bian and Jianan Li",
    year=2023,
    arxiv="2312.08614",
    family="attention",
    summary=(
        "Window attention is cheap because a pixel attends to the keys of its own window only, and for the same reason "
        "it misses everything outside. FaViT fuses the pixels at the same place of all windows into one key, so that "
        "as many keys as one window has stand for the whole picture. Groups of channels use windows of different "
        "dilation, and one small group averages over squares, which combines fine and coarse views at linear cost."
    ),
    state="complete; digits stand in for ImageNet and ImageNet-C, and detection and segmentation are left out",
    claims=CLAIMS,
    view=view_in("attention", method="favit", input="astronaut", row=808, right="effective"),
    experiments=(
        Experiment(
            key="architecture",
            title="Published sizes",
            kind="accuracy",
            run=loaded_later("favit.architecture", "architecture"),
        ),
        Experiment(
            key="reach",
            title="Pixels that one layer reaches, and its cost",
            kind="accuracy",
            run=loaded_later("favit.reach", "reach"),
        ),
        Experiment(
            key="recognition",
            title="Accuracy on digits: one network with each attention",
            kind="accuracy",
            run=loaded_later("favit.recognition", "recognition"),
        ),
        Experiment(
            key="pictures",
            title="Attention of queries in photographs",
            kind="accuracy",
            run=loaded_later("favit.photographs", "photographs"),
        ),
        Experiment(
            key="timing",
            title="Time of one layer over the number of pixels",
            kind="timing",
            run=loaded_later("favit.timing", "timing"),
        ),
    ),
)
