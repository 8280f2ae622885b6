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
        "Sparse attention patterns give most pairs of positions no weight at all, so that one layer cannot connect "
        "them. Combiner keeps a sparse pattern's direct keys and reaches all others through regions: first a region, "
        "then a position inside it by a distribution that is computed once and shared by all queries. Every pair keeps "
        "a positive weight, at a cost of L sqrt L or L log L, and each pattern gets better than it was alone."
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
            title="Attention that a pattern loses, on real heads",
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
