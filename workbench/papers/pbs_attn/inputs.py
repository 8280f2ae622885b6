"""Heads that the experiments on PBS-Attn share, and the names of orders and inputs in their rows."""

from workbench.data import text
from workbench.models.language import minilm, tiny_lm

SORTS = ("none", "random", "keys")
NAMES = {"none": "not sorted", "random": "random order", "keys": "sorted (PBS-Attn)", "queries": "queries sorted",
         "both": "keys and queries sorted"}  # fmt: skip
ENCODER, LM, GENERATOR = "MiniLM, read causally", "tiny language model", "heavy-hitter generator"


def minilm_heads(groups, layers=None, size=512, windows=3):
    """Yield (group, q, k, v) of MiniLM on documentation, ``windows`` windows a group; group 0 is the text's beginning.

    The encoder attends both ways; the experiments put a causal mask on its queries and keys.
    """
    model = minilm.load()
    documents = "\n\n".join(document.text for document in text.documents("documentation"))
    cut = model.windows(documents[: 6 * size * windows * (groups * 4 + 2)], size)
    for group in range(groups):
        for window in cut[group * windows * 2 :][:windows]:
            for layer in layers or range(model.config.layers):
                yield group, *(x.numpy() for x in model.qkv(window[None], layer))


def lm_heads(tokens, layers=None):
    """Yield q, k, v of the tiny language model on held-out documentation, after RoPE."""
    model = tiny_lm.load()
    ids = model.encode(text.sample(6 * tokens)[0])[:, :tokens]
    for layer in layers or range(model.config.layers):
        yield tuple(x.numpy() for x in model.qkv(ids, layer))
