"""A layer of the tiny language model that ships with the workbench."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.explorers.weight_format.source import WeightKind

LAYERS = tuple(
    f"layers.{i}.{part}" for i in range(6) for part in ("query", "key", "value", "out", "gate", "up", "down")
)
LAYER = Knob("tiny_layer", "Layer", "layers.0.gate", choices=tuple((name, name) for name in LAYERS))


def load(settings) -> np.ndarray:
    """Return a layer's weight."""
    from workbench.models.language import tiny_lm  # here, so that weights drawn at random need no torch

    return tiny_lm.load().get_submodule(settings["tiny_layer"]).weight.detach().numpy()


SOURCE = WeightKind(
    key="tiny_lm",
    title="Tiny language model",
    load=load,
    told=lambda settings: f"tiny language model, {settings['tiny_layer']}",
    knobs=(LAYER,),
)
