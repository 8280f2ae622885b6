"""Heads of the sentence encoder MiniLM under a causal mask, which the model itself does not have."""

from workbench.explorers.attention.source import of_model
from workbench.models.language import minilm

SOURCE = of_model(
    key="minilm_causal",
    title="MiniLM encoder under a causal mask",
    load=minilm.load,
    causal=True,
    limits={"tokens": 512, "layer": 5, "head": 11},
)
