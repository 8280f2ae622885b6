"""Dense attention: the baseline of every sparse method."""

import torch
import torch.nn.functional as F

__all__ = ["attention_weights", "dense_attention", "masked_attention"]


def attention_weights(q, k, *, causal=True, allowed=None, scale=None):
    """Return softmax(scale q k^T) over the visible keys, (b, h, tq, tk); rows that see nothing are zero.

    Parameters
    ----------
    q, k : (b, h, tq, d) and (b, h, tk, d) float tensors; with ``causal`` the queries are the last tq positions.
    allowed : bool, broadcastable to (b, h, tq, tk): pairs that may attend, on top of the causal rule.
    """
    tq, tk = q.shape[2], k.shape[2]
    logits = q @ k.mT * (q.shape[3] ** -0.5 if scale is None else scale)
    visible = torch.ones(tq, tk, dtype=torch.bool, device=q.device)
    if causal:
        visible = visible.tril(tk - tq)
    if allowed is not None:
        visible = visible & torch.as_tensor(allowed, device=q.device)
    sees = visible.any(-1, keepdim=True)
    return torch.softmax(logits.masked_fill(~visible & sees, -torch.inf), -1) * sees


def masked_attention(q, k, v, allowed, *, causal=True):
    """Return dense attention over the allowed pairs, (b, h, tq, d): the reference of every sparse kernel."""
    return attention_weights(q, k, causal=causal, allowed=allowed) @ v


def dense_attention(q, k, v, *, causal=True):
    """Return exact attention by torch's own kernel, (b, h, t, d)."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
