"""Heads of the sentence encoder MiniLM, which looks both ways."""

from workbench.explorers.attention.source import of_model
from workbench.models.language import minilm

SOURCE = of_model(
    key="minilm",
    title="MiniLM encoder (both directions)",
    load=minilm.load,
    causal=False,
    limits={"tokens": 512, "layer": 5, "head": 11},
)
