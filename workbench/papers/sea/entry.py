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
        "A trained transformer is distilled into one of linear cost whose attention matrix can still be inspected. "
        "Linear attention gives a small convolutional decoder what it needs to estimate, for every query, a row of "
        "cells of fixed width that stands for its attention over all keys. The best cells are stretched to the keys "
        "that they cover, and exact softmax attention is computed over those keys alone."
    ),
    state=(
        "complete for one layer at a time; the paper trains the whole model together, with LoRA and with oversampling "
        "of cells, which are left out; in the layer shown, the trained estimator hardly uses the output of the linear "
        "attention"
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
