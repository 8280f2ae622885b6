"""Kernel features of linear attention, and its causal form by prefix sums.

Choromanski et al. 2021, "Rethinking Attention with Performers", arXiv 2009.14794.
"""

import torch
import torch.nn.functional as F

__all__ = ["prefix_attention", "relu_kernel", "softmax_kernel"]


def softmax_kernel(x, projection, *, is_query, keep=None):
    """Map (N, H, T, d) to positive features (N, H, T, m) whose products estimate exp(q . k / sqrt(d)), up to a factor.

    Source
    ------
    Choromanski et al. 2021, Eq. 5; the largest exponent is subtracted per query, or over all keys of a head.
    """
    x = x * x.shape[-1] ** -0.25
    u = x @ projection.T
    if keep is not None:
        u = u.masked_fill(~keep[:, None, :, None], -torch.inf)
    top = u.amax(-1, keepdim=True) if is_query else u.amax((-1, -2), keepdim=True)
    features = (torch.exp(u - x.square().sum(-1, keepdim=True) / 2 - top) + 1e-4) * projection.shape[0] ** -0.5
    return features if keep is None else features.masked_fill(~keep[:, None, :, None], 0.0)


def relu_kernel(x, projection):
    """Map (N, H, T, d) to features ReLU(d^-1/4 x P^T) + 1e-3, the causal variant's kernel."""
    return torch.relu(x * x.shape[-1] ** -0.25 @ projection.T) + 1e-3


def prefix_attention(fq, fk, v, *, chunk=64):
    """Linear attention over 0..i, chunk by chunk: (N, H, T, m), (N, H, T, m), (N, H, T, e) -> (N, H, T, e)."""
    t = fq.shape[2]
    missing = -t % chunk
    fq, fk, v = (F.pad(x, (0, 0, 0, missing)).unflatten(2, (-1, chunk)) for x in (fq, fk, v))
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1)  # the last column sums the weights
    states = fk.mT @ v  # (N, H, chunks, m, e + 1)
    before = states.cumsum(2) - states
    inside = (fq @ fk.mT).tril()
    both = fq @ before + inside @ v
    normaliser = both[..., -1:] + 1e-6 * fq.sum(-1, keepdim=True)
    return (both[..., :-1] / normaliser.clamp(min=1e-12)).flatten(2, 3)[:, :, :t]
