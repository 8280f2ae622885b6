"""Heads of the sentence encoder MiniLM, read as if queries saw only what came before."""

from workbench.explorers.attention.source import of_model
from workbench.models.language import minilm

SOURCE = of_model(
    key="minilm_causal",
    title="MiniLM encoder under a causal mask",
    load=minilm.load,
    causal=True,
    limits={"tokens": 512, "layer": 5, "head": 11},
)
