"""What a text costs a causal language model, in bits per byte: comparable across tokenizers."""

from math import log

import torch
from torch.nn import functional as F


@torch.no_grad()
def nats(model, text, *, context=512, attention=None, most_tokens=2048):
    """Return the summed cross-entropy of a text in nats.

    Windows of ``context`` tokens move by half their length; beyond the first window each token is predicted from at
    least ``context / 2`` tokens before it.

    Parameters
    ----------
    model : `TinyLM`, or what `workbench.models.pretrained.load` returns.
    text : str, not empty.
    context : tokens per window, an even number of at least 2.
    attention : as in ``model.forward``.
    most_tokens : tokens per forward pass.

    Raises
    ------
    ValueError : empty text, or a context that is odd or below 2.
    """
    if not text:
        raise ValueError("text_cost.nats: text is empty")
    if context < 2 or context % 2:
        raise ValueError(f"text_cost.nats: context must be even and at least 2, got {context}")
    ids, half = model.encode(text)[0], context // 2
    total = 0.0
    for rows in _windows(ids, context, max(1, most_tokens // context)):
        start, window = rows
        logits = model(window[:, :-1], attention=attention).float()
        cost = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten(), reduction="none").view(len(window), -1)
        total += cost[:, half:].sum().item() + (cost[0, :half].sum().item() if start == 0 else 0.0)
    return total


def bits_per_byte(model, text, **how):
    """Return the cost of a text in bits per byte of its UTF-8 form; arguments as in `nats`."""
    return nats(model, text, **how) / (log(2) * len(text.encode()))


def _windows(ids, context, most_rows):
    """Yield (first position, windows (rows, up to context + 1)); whole windows in batches, the last one alone."""
    half = context // 2
    starts = [0, *range(half, len(ids) - 1 - half, half)]
    whole = [start for start in starts if start + context < len(ids)]
    for at in range(0, len(whole), most_rows):
        rows = whole[at : at + most_rows]
        yield rows[0], torch.stack([ids[start : start + context + 1] for start in rows])
    if len(whole) < len(starts):
        yield starts[-1], ids[None, starts[-1] :]
