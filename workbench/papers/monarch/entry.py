"""Monarch: two block-diagonal factors with a permutation between them, in place of a dense matrix."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.monarch.claims import CLAIMS

PAPER = Paper(
    key="monarch",
    title="Monarch: Expressive Structured Matrices for Efficient and Accurate Training",
    authors=(
        "Tri Dao, Beidi Chen, Nimit Sohoni, Arjun Desai, Michael Poli, Jessica Grogan, Alexander Liu, Aniruddh Rao, "
        "Atri Rudra, Christopher Ré"
    ),
    year=2022,
    arxiv="2204.00595",
    family="compression",
    summary=(
        "A dense layer costs n^2 multiply-adds, and sparse ones that keep their accuracy rarely run faster. Here the "
        "matrix is a product of two block-diagonal ones with a fixed permutation between them: two batched products, "
        "which still contain the Fourier transform and whose nearest member to any matrix is found exactly. The "
        "authors train with it from the start, for most of the steps, or from a trained model on, and report trainings "
        "twice as fast at comparable quality."
    ),
    state=(
        "complete; the paper's vision and language models are replaced by small ones, the language model was trained "
        "with one seed, and nothing here ran on a GPU"
    ),
    claims=CLAIMS,
    view=view_in("monarch", matrix="dft", n=64, permuted=True),
    experiments=(
        Experiment(
            key="transforms",
            title="Which transforms are Monarch matrices",
            kind="accuracy",
            run=loaded_later("monarch.transforms", "transforms"),
        ),
        Experiment(
            key="learned",
            title="The Fourier transform, learnt from pairs of vectors",
            kind="accuracy",
            run=loaded_later("monarch.learned", "learned"),
        ),
        Experiment(
            key="digits",
            title="Digits: trained with Monarch layers, and densely in the end",
            kind="accuracy",
            run=loaded_later("monarch.digits", "digits"),
        ),
        Experiment(
            key="language",
            title="A language model: trained with Monarch layers, and densely in the end",
            kind="accuracy",
            run=loaded_later("monarch.language", "language"),
        ),
        Experiment(
            key="projection",
            title="A trained sentence encoder, projected and trained on, beside low rank",
            kind="accuracy",
            run=loaded_later("monarch.projection", "projection"),
        ),
        Experiment(
            key="tradeoffs",
            title="Monarch matrices in the pruning explorer: quality and bytes",
            kind="accuracy",
            run=loaded_later("monarch.tradeoffs", "tradeoffs"),
        ),
        Experiment(
            key="tradeoffs_embedded",
            title="Monarch matrices, on the encoder that ships with the workbench",
            kind="accuracy",
            run=loaded_later("monarch.tradeoffs", "tradeoffs_embedded"),
        ),
        Experiment(
            key="times",
            title="Layers, training steps and encoders: their times",
            kind="timing",
            run=loaded_later("monarch.times", "times"),
        ),
    ),
)
