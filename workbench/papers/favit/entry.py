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
        "Window attention is cheap because each pixel meets only the keys of its own window, and blind for the same "
        "reason. FaViT fuses the pixels at the same place of all windows into one key, so that as many keys as a "
        "window has stand for the whole picture. Groups of channels use windows of different dilation, and a small one "
        "a strided summary, which mixes fine and coarse views at linear cost."
    ),
    state="complete; ImageNet, detection, segmentation and ImageNet-C are out of reach here, digits stand in for them",
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
            title="How far one layer sees, and at what cost",
            kind="accuracy",
            run=loaded_later("favit.reach", "reach"),
        ),
        Experiment(
            key="recognition",
            title="Digits: the same net with each attention",
            kind="accuracy",
            run=loaded_later("favit.recognition", "recognition"),
        ),
        Experiment(
            key="pictures",
            title="What queries of photographs read",
            kind="accuracy",
            run=loaded_later("favit.photographs", "photographs"),
        ),
        Experiment(
            key="timing",
            title="Time of one layer over the pixels",
            kind="timing",
            run=loaded_later("favit.timing", "timing"),
        ),
    ),
)
