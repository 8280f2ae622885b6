"""Combiner: full attention support at sub-quadratic cost, by attending to regions where a pattern does not reach."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.combiner.claims import CLAIMS

PAPER = Paper(
    key="combiner",
    title="Combiner: Full Attention Transformer with Sparse Computation Cost",
    authors="Hongyu Ren, Hanjun Dai, Zihang Dai, Mengjiao Yang, Jure Leskovec, Dale Schuurmans, Bo Dai",
    year=2021,
    arxiv="2107.05768",
    family="attention",
    summary=(
        "A sparse attention pattern gives most pairs of positions no weight, so one layer cannot connect them. "
        "Combiner keeps the direct keys of a pattern and attends to all others by regions: the query weighs a region, "
        "and a distribution that all queries share divides that weight among the region's positions. Every pair keeps "
        "a positive weight, at a cost of L sqrt L or L log L, and a model predicts better than with the pattern alone."
    ),
    state="complete at small scale; regions learned by clustering are left out",
    claims=CLAIMS,
    view=view_in("attention", method="combiner", input="lm", tokens=256, right="effective"),
    experiments=(
        Experiment(
            key="support",
            title="The effective attention matrix of every pattern",
            kind="accuracy",
            run=loaded_later("combiner.support", "full_support"),
        ),
        Experiment(
            key="pictures",
            title="Digits learned pixel by pixel with each pattern",
            kind="accuracy",
            run=loaded_later("combiner.pictures", "pictures"),
        ),
        Experiment(
            key="lost",
            title="Attention outside each pattern, on heads of MiniLM",
            kind="accuracy",
            run=loaded_later("combiner.lost", "lost"),
        ),
        Experiment(
            key="cost",
            title="Time, operations and memory over length",
            kind="timing",
            run=loaded_later("combiner.cost", "cost"),
        ),
    ),
)
