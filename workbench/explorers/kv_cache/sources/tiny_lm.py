"""A layer's cache of the tiny language model that ships with the workbench, after held-out text."""

from widgets.controls.knob import Knob
from workbench.explorers.kv_cache.source import CacheKind

LAYER = Knob("lm_layer", "Layer", 2, 0, 5, 1)
TOKENS = Knob("lm_tokens", "Tokens", 512, 128, 2048, 64, help="Tokens of held-out text that the model reads.")


def load(settings):
    """Return q, k and v of one layer."""
    from workbench.data import text  # here, so that generated caches need no torch
    from workbench.models.language import tiny_lm

    model, tokens = tiny_lm.load(), settings["lm_tokens"]
    ids = model.encode(text.sample(8 * tokens)[0])[:, :tokens]
    return tuple(x.contiguous().numpy() for x in model.qkv(ids, settings["lm_layer"]))


SOURCE = CacheKind(
    key="tiny_lm",
    title="Tiny language model",
    load=load,
    told=lambda settings: f"tiny language model, layer {settings['lm_layer']}",
    kind="measured",
    knobs=(LAYER, TOKENS),
)
