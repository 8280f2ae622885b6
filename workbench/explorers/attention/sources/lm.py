"""Heads of the tiny language model that ships with the workbench."""

from workbench.explorers.attention.source import of_model
from workbench.models.language import tiny_lm

SOURCE = of_model(
    key="lm",
    title="Tiny language model (causal)",
    load=tiny_lm.load,
    causal=True,
    limits={"tokens": 2048, "layer": 5, "head": 7},
)
