"""Decoding with a compressed cache: what stands in the place of a model's attention, and a few calls around it.

A model like `TinyLM` takes ``attention(q, k, v, layer)`` on (b, h, t, d) tensors. `GearAttention` keeps one `GearCache`
for each layer: the prompt sees exact keys and values, every later token what the cache stands for.
"""

import torch
from torch.nn import functional as F

from workbench.models.compression.gear import GearCache, GearConfig

__all__ = ["GearAttention", "decoded_logits", "generate_compressed"]


class GearAttention:
    """Causal attention that keeps its keys and values compressed.

    Parameters
    ----------
    cfg : GearConfig; the default one unless given. A dict from layer to GearConfig, with the default elsewhere, also
        does.

    Examples
    --------
    >>> attention = GearAttention(GearConfig(bits=2))
    >>> logits = model(prompt, attention=attention)
    >>> logits = model(next_token, attention=attention, start=attention.length)
    """

    def __init__(self, cfg=None):
        self._cfg = cfg
        self.caches: dict[int, GearCache] = {}

    def __call__(self, q, k, v, layer):
        """Attend: the first call for a layer is the prompt, later ones bring one token or more."""
        cache = self.caches.get(layer)
        if cache is None:
            cache = self.caches[layer] = GearCache(self._cfg.get(layer) if isinstance(self._cfg, dict) else self._cfg)
            cache.prefill(k, v)
            grouped = q.shape[1] > k.shape[1]
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        outs = []
        for t in range(q.shape[2]):
            now = slice(t, t + 1)
            cache.append(k[:, :, now], v[:, :, now])
            outs.append(cache.attend(q[:, :, now]))
        return torch.cat(outs, dim=2)

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return next(iter(self.caches.values())).length if self.caches else 0

    def nbytes(self, breakdown=False):
        """Return the bytes of all layers, in all or by what they hold."""
        if not breakdown:
            return sum(cache.nbytes() for cache in self.caches.values())
        parts = [cache.nbytes(breakdown=True) for cache in self.caches.values()]
        return {name: sum(part[name] for part in parts) for name in (parts[0] if parts else ())}


@torch.no_grad()
def decoded_logits(model, tokens, prompt, cfg=None, *, report=lambda fraction, step="": None):
    """Return the logits of a text that is decoded token by token over a compressed cache (teacher forcing).

    Parameters
    ----------
    model : called as ``model(tokens, attention=..., start=...)``, such as `TinyLM`.
    tokens : int64 (b, t).
    prompt : tokens that are read at once, from 1 to t.
    cfg : GearConfig.
    report : called with the progress.

    Returns
    -------
    logits (b, t - prompt + 1, vocabulary): of the last token of the prompt and of every later one; and the
    `GearAttention` at the end.

    Raises
    ------
    ValueError : prompt out of range.
    """
    total = tokens.shape[1]
    if not 1 <= prompt <= total:
        raise ValueError(f"decoded_logits: prompt must be from 1 to the {total} tokens, got {prompt}")
    attention = GearAttention(cfg)
    found = [model(tokens[:, :prompt], attention=attention)[:, -1:]]
    for t in range(prompt, total):
        if t % 64 == 0:
            report((t - prompt) / (total - prompt), f"token {t:,}")
        found.append(model(tokens[:, t : t + 1], attention=attention, start=t))
    return torch.cat(found, dim=1), attention


@torch.no_grad()
def generate_compressed(model, text, tokens, cfg=None) -> tuple[str, GearAttention]:
    """Continue a text by the likeliest tokens over a compressed cache.

    Parameters
    ----------
    model : a `TinyLM` with a tokenizer, or any model with its ``encode``, ``tokenizer`` and call.
    text : what to continue.
    tokens : how many to write at most; the model's end mark ends earlier.
    cfg : GearConfig; the default one unless given.

    Returns
    -------
    The new text, and the `GearAttention`, which knows the bytes of its caches.
    """
    attention, ids, written = GearAttention(cfg or GearConfig()), model.encode(text), []
    logits = model(ids, attention=attention)
    while len(written) < tokens:
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == model.tokenizer.end:
            written.pop()
            break
        logits = model(torch.tensor([[written[-1]]]), attention=attention, start=attention.length)
    return model.tokenizer.decode(torch.tensor(written)), attention
