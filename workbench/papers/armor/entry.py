"""ARMOR: a 2:4 matrix between two block-diagonal ones, sought together, in place of pruned weights."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.armor.claims import CLAIMS

PAPER = Paper(
    key="armor",
    title="ARMOR: High-Performance Semi-Structured Pruning via Adaptive Matrix Factorization",
    authors="Lawrence Liu, Alexander Liu, Mengdi Wang, Tuo Zhao, Lin F. Yang",
    year=2025,
    arxiv="2510.05528",
    family="compression",
    summary=(
        "Where two of every four weights must go, a weight matrix loses much. ARMOR writes it as such a 2:4 matrix "
        "between two block-diagonal ones, and searches for all three by gradient steps and by exact choices of single "
        "groups, which never raise the loss. The authors report better models than Wanda, NoWag-P and SparseGPT at "
        "2:4, with the speed of 2:4."
    ),
    state=(
        "complete; an encoder and a language model of seven million parameters stand in for models of billions, and "
        "the search takes 200 to 300 rounds at ten times the paper's rate"
    ),
    claims=CLAIMS,
    view=view_in("factorization", method="armor", layer="layers.0.query"),
    experiments=(
        Experiment(
            key="matrices",
            title="Every matrix by ARMOR, NoWag-P, and NoWag-P with a low-rank part",
            kind="accuracy",
            run=loaded_later("armor.matrices", "matrices"),
        ),
        Experiment(
            key="settings",
            title="The search with one of its parts changed",
            kind="accuracy",
            run=loaded_later("armor.settings", "settings"),
        ),
        Experiment(
            key="convergence",
            title="Sequential gradient descent, step by step, against its bounds",
            kind="accuracy",
            run=loaded_later("armor.convergence", "convergence"),
        ),
        Experiment(
            key="models",
            title="Whole models at 2:4, and at the bytes of ARMOR",
            kind="accuracy",
            run=loaded_later("armor.models", "models"),
        ),
        Experiment(
            key="tradeoffs",
            title="NoWag-P and ARMOR in the pruning explorer: quality and bytes",
            kind="accuracy",
            run=loaded_later("armor.tradeoffs", "tradeoffs"),
        ),
        Experiment(
            key="tradeoffs_embedded",
            title="NoWag-P and ARMOR, on the encoder that ships with the workbench",
            kind="accuracy",
            run=loaded_later("armor.tradeoffs", "tradeoffs_embedded"),
        ),
        Experiment(
            key="products",
            title="Products of a block: dense, 2:4, and 2:4 between wrappers",
            kind="timing",
            run=loaded_later("armor.products", "products"),
        ),
    ),
)
