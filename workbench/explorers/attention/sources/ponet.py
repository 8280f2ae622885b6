"""Heads of the PoNet encoder that ships with the workbench, with all five of its projections."""

from workbench.data import text as texts
from workbench.explorers.attention.knobs import TEXT
from workbench.explorers.attention.source import Source, named, of_head
from workbench.models.attention import ponet_training


def _load(s):
    """A head's value is its key, and [CLS] and [SEP] stand around the text, as in training."""
    trained = ponet_training.shipped()
    encoder = trained.model.encoder
    layer = min(s["layer"], len(encoder.mixings) - 1)
    text = ponet_training.encode(trained, s["words"] or texts.sample(12 * s["tokens"])[0], s["tokens"])
    mixing = encoder.mixings[layer]
    hq, hk, *wide = mixing.project(encoder(text.ids, text.segments, special=text.special, until=layer))
    head = min(s["head"], mixing.heads - 1)
    hs, hl, ho = (x.unflatten(-1, (mixing.heads, -1))[:, :, head] for x in wide)  # (1, t, d)
    parts = {"hs": hs, "hl": hl, "ho": ho, "segments": text.segments, "special": text.special}
    told = named("PoNet encoder", layer, head, s)
    return of_head(told, hq, hk, hk, head, causal=False, tokens=text.tokens, kind="measured", parts=parts)


SOURCE = Source(
    key="ponet",
    title="PoNet encoder, pre-trained (both directions)",
    knobs=TEXT,
    load=_load,
    limits={"tokens": 256, "layer": 1, "head": 3},
    causal=False,
)
