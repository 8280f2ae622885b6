"""Masks that nobody trained, and attention over them: what SEA's estimate is compared with."""

import torch

from workbench.models.attention.dense_attention import attention_weights


def local_mask(t, keys, causal=False):
    """Return a window of nearby keys with the first (and the last) one, ``keys`` per query: bool (t, t)."""
    distance = torch.arange(t)[:, None] - torch.arange(t)
    mask = torch.zeros(t, t, dtype=torch.bool)
    mask[:, 0] = True
    if causal:
        return (mask | ((distance >= 0) & (distance < keys - 1))) & (distance >= 0)
    mask[:, -1] = True
    rank = (2 * distance.abs() - (distance > 0).long()).masked_fill(mask, 4 * t)
    nearest = rank.argsort(dim=1, stable=True)[:, : keys - 2]
    return mask.scatter(1, nearest, True)


def top_keys(weights, keys):
    """Return the mask of each query's heaviest keys, of equal ones the first: what an all-knowing estimate chooses."""
    best = weights.argsort(dim=-1, descending=True, stable=True)[..., :keys]
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, best, True)


def masked_attention(mask):
    """Return attention over the pairs of a mask, as the models take it in place of their own."""
    return lambda q, k, v, layer: attention_weights(q, k, causal=False, allowed=mask) @ v


def top_attention(keys, causal=False):
    """Return attention over each query's heaviest keys."""

    def attend(q, k, v, layer):
        weights = attention_weights(q, k, causal=causal)
        return attention_weights(q, k, causal=causal, allowed=top_keys(weights, keys)) @ v

    return attend


def local_attention(keys):
    """Return causal attention over a window of nearby keys with the first one."""
    return lambda q, k, v, layer: masked_attention(local_mask(q.shape[2], keys, causal=True))(q, k, v, layer)
