"""Dense attention: the baseline of every sparse method."""

import torch
import torch.nn.functional as F

__all__ = ["attention_weights", "dense_attention", "masked_attention", "weighted_sum"]


def attention_weights(q, k, *, causal=True, allowed=None, scale=None):
    """Return softmax(scale q k^T) over the visible keys, (b, h, tq, tk); rows that see nothing are zero.

    Parameters
    ----------
    q, k : (b, h, tq, d) and (b, h, tk, d) float tensors; with ``causal`` the queries are the last tq positions.
    allowed : bool, broadcastable to (b, h, tq, tk): pairs that may attend, on top of the causal rule.
    """
    logits = q @ k.mT * (q.shape[3] ** -0.5 if scale is None else scale)
    visible = _visible(q, k, causal, allowed)
    sees = visible.any(-1, keepdim=True)
    return torch.softmax(logits.masked_fill(~visible & sees, -torch.inf), -1).masked_fill(~sees, 0)


def _visible(q, k, causal, allowed):
    tq, tk = q.shape[2], k.shape[2]
    visible = torch.ones(tq, tk, dtype=torch.bool, device=q.device)
    if causal:
        visible = visible.tril(tk - tq)
    return visible if allowed is None else visible & torch.as_tensor(allowed, device=q.device)


def masked_attention(q, k, v, allowed, *, causal=True):
    """Return dense attention over the allowed pairs, (b, h, tq, d): the reference of every sparse kernel."""
    weights = attention_weights(q, k, causal=causal, allowed=allowed)
    return weighted_sum(weights, v, _visible(q, k, causal, allowed))


def weighted_sum(weights, values, visible, rule=None):
    """Sum values by weights that are zero where ``visible`` is not, and keep out what stands there.

    Zero times NaN or infinity is NaN, so a value that a query may not see would still reach it.

    Parameters
    ----------
    weights, values : float tensors, as the rule asks for.
    visible : bool, broadcastable to ``weights``.
    rule : of ``torch.einsum(rule, weights, values)``; None means ``weights @ values``.
    """

    def total(x, y):
        return x @ y if rule is None else torch.einsum(rule, x, y)

    odd = ~values.isfinite()
    if not odd.any():
        return total(weights, values)
    found = total(weights, values.masked_fill(odd, 0))
    seen = visible.to(weights.dtype).expand_as(weights)
    kinds = {torch.nan: values.isnan(), torch.inf: values == torch.inf, -torch.inf: values == -torch.inf}
    for kind, where in kinds.items():
        found = torch.where(total(seen, where.to(weights.dtype)) > 0, found + kind, found)
    return found


def dense_attention(q, k, v, *, causal=True):
    """Return exact attention by torch's own kernel, (b, h, t, d)."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
