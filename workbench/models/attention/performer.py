"""Kernel features of linear attention, its causal form by prefix sums, and a layer of it that learns.

Choromanski et al. 2021, "Rethinking Attention with Performers", arXiv 2009.14794.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from workbench.models.attention.dense_attention import weighted_sum

__all__ = [
    "PerformerAttention",
    "PerformerOutput",
    "linear_attention",
    "prefix_attention",
    "relu_kernel",
    "softmax_kernel",
]


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
    before = F.pad(states.cumsum(2)[:, :, :-1], (0, 0, 0, 0, 1, 0))
    seen = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    both = fq @ before + weighted_sum((fq @ fk.mT).tril(), v, seen)
    normaliser = both[..., -1:] + 1e-6 * fq.sum(-1, keepdim=True)
    return (both[..., :-1] / normaliser.clamp(min=1e-12)).flatten(2, 3)[:, :, :t]


def linear_attention(q, k, v, projection, *, causal):
    """Attend by products of features, over all keys or over those up to each query: (N, H, T, d) -> (N, H, T, d)."""
    if causal:
        return prefix_attention(relu_kernel(q, projection), relu_kernel(k, projection), v)
    fq, fk = softmax_kernel(q, projection, is_query=True), softmax_kernel(k, projection, is_query=False)
    return fq @ (fk.mT @ v) / (fq @ fk.sum(2).unsqueeze(-1))


@dataclass(frozen=True)
class PerformerOutput:
    """The context (N, H, T, d) of a `PerformerAttention`; with a teacher the parts of its loss, and their sum."""

    context: torch.Tensor
    loss: torch.Tensor | None
    losses: dict[str, torch.Tensor]


class PerformerAttention(nn.Module):
    """Linear attention that learns from a dense teacher, as a baseline that has had the same training.

    Queries, keys and values each pass a linear map over all heads, which starts as the identity: training it does what
    training their projections would. The random features stay as they were drawn.

    Parameters
    ----------
    projection : (m, d) random features.
    """

    def __init__(self, dim, heads, projection, *, causal=False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.register_buffer("projection", projection.clone())
        self.maps = nn.ModuleList(nn.Linear(dim, dim) for _ in "qkv")
        for learnt in self.maps:
            nn.init.eye_(learnt.weight)
            nn.init.zeros_(learnt.bias)

    def forward(self, q, k, v, attn_mask=None, teacher_scores=None, teacher_context=None) -> PerformerOutput:
        """Attend to (N, H, T, d) without padding; ``teacher_context`` (N, H, T, d) is what the context should be.

        The other losses of a layer speak of an attention matrix, which linear attention does not have.
        """
        mapped = (
            learnt(x.transpose(1, 2).flatten(2)).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for learnt, x in zip(self.maps, (q, k, v), strict=True)
        )
        context = linear_attention(*mapped, self.projection, causal=self.causal)
        if teacher_context is None:
            return PerformerOutput(context, None, {})
        loss = (context - teacher_context).square().mean()
        return PerformerOutput(context, loss, {"context MSE": loss})
