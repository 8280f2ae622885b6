"""SEA: linear attention that estimates a compressed attention matrix and attends exactly where the estimate is high."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.sea.claims import CLAIMS

PAPER = Paper(
    key="sea",
    title="SEA: Sparse Linear Attention with Estimated Attention Mask",
    authors="Heejun Lee, Jina Kim, Jeffrey Willette and Sung Ju Hwang",
    year=2023,
    arxiv="2310.01777",
    family="attention",
    summary=(
        "A trained transformer is distilled into one of linear cost that keeps an attention matrix to look at. "
        "A kernel-based pass over the sequence lets a small convolutional decoder predict, for every query, a row of "
        "fixed width that stands for its attention over all keys. The best cells are stretched to the keys they cover, "
        "and exact softmax attention runs over those alone."
    ),
    state=(
        "complete for one layer at a time; the whole model is not trained together, as the paper does, and there is no "
        "LoRA and no oversampling of cells; the estimate of the layer shown owes next to nothing to the linear pass."
    ),
    claims=CLAIMS,
    view=view_in(
        "attention",
        method="sea",
        input="minilm",
        layer=3,
        tokens=128,
        estimator="trained_180",
        group="causal_batch",
        left="estimate",
        right="effective",
    ),
    experiments=(
        Experiment(
            key="distillation",
            title="One layer of MiniLM distilled",
            kind="accuracy",
            run=loaded_later("sea.distillation", "distillation"),
        ),
        Experiment(
            key="ablations",
            title="Width, features and groups",
            kind="accuracy",
            run=loaded_later("sea.ablations", "ablations"),
        ),
        Experiment(
            key="causal",
            title="Every layer of a language model distilled",
            kind="accuracy",
            run=loaded_later("sea.causal", "causal"),
        ),
        Experiment(
            key="timing",
            title="Time over the length of the sequence",
            kind="timing",
            run=loaded_later("sea.timing", "timing"),
        ),
    ),
)
