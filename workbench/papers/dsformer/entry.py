"""DSFormer: weights as products of a dense and a row-sparse matrix, whose places a training may choose."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.dsformer.claims import CLAIMS

PAPER = Paper(
    key="dsformer",
    title="DSFormer: Effective Compression of Text-Transformers by Dense-Sparse Weight Factorization",
    authors="Rahul Chand, Yashoteja Prabhu, Pratyush Kumar",
    year=2023,
    arxiv="2312.13211",
    family="compression",
    summary=(
        "Low-rank factors put all rows of a weight matrix into one subspace. DSFormer multiplies a small dense basis "
        "with a matrix whose rows have equally few entries, so that every row picks its own atoms, and it factorises "
        "anew in each step of the fine-tuning, so that the task decides which. The authors report up to 40 per cent "
        "better compression than low-rank factorisation, and up to 50 per cent on top of other methods."
    ),
    state=(
        "complete; the full text could not be read, so block sizes, factorizer and training are reconstructions; "
        "digits and two sentence encoders, one of them distilled for few steps only, stand in for GLUE and BERT"
    ),
    claims=CLAIMS,
    view=view_in("factorization", method="dsformer", layer="layers.0.query"),
    experiments=(
        Experiment(
            key="matrices",
            title="Matrices of an encoder, at equal values and at equal bits",
            kind="accuracy",
            run=loaded_later("dsformer.matrices", "matrices"),
        ),
        Experiment(
            key="digits",
            title="A net for digits, factorised and trained on in four ways",
            kind="accuracy",
            run=loaded_later("dsformer.digits", "digits"),
        ),
        Experiment(
            key="encoder",
            title="Sentence encoders, factorised and distilled for a few steps",
            kind="accuracy",
            run=loaded_later("dsformer.encoder", "encoder"),
        ),
        Experiment(
            key="tradeoffs",
            title="Dense-sparse blocks in the pruning explorer: quality and bytes",
            kind="accuracy",
            run=loaded_later("dsformer.tradeoffs", "tradeoffs"),
        ),
        Experiment(
            key="tradeoffs_embedded",
            title="Dense-sparse blocks, on the encoder that ships with the workbench",
            kind="accuracy",
            run=loaded_later("dsformer.tradeoffs", "tradeoffs_embedded"),
        ),
        Experiment(
            key="products",
            title="Products for few and many tokens: dense, low rank, dense-sparse",
            kind="timing",
            run=loaded_later("dsformer.products", "products"),
        ),
    ),
)
