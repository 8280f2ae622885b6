"""A layer of the sentence encoder that ships with the workbench."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.explorers.monarch.source import MatrixKind

LAYERS = tuple(
    f"layers.{i}.{part}" for i in range(4) for part in ("query", "key", "value", "out", "feed_in", "feed_out")
)
LAYER = Knob("small_layer", "Layer", "layers.0.query", choices=tuple((name, name) for name in LAYERS))


def load(settings) -> np.ndarray:
    """Return a layer's weight."""
    from workbench.models.language import small_encoder  # here, so that other matrices need no torch

    return small_encoder.load().get_parameter(f"{settings['small_layer']}.weight").detach().numpy()


SOURCE = MatrixKind(
    key="small_encoder",
    title="Sentence encoder of the workbench",
    load=load,
    told=lambda settings: f"the small encoder, {settings['small_layer']}",
    remark=(
        "Trained weights have some large singular values as a whole, which low rank takes all at once. What counts is "
        "what a short training brings back."
    ),
    knobs=(LAYER,),
    kind="measured",
)
