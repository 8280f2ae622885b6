r"""SEA: linear attention that estimates a compressed attention matrix, keeps its top cells and attends exactly there.

Lee et al. 2023, "SEA: Sparse Linear Attention with Estimated Attention Mask", arXiv 2310.01777.
A Performer pass mixes the sequence at linear cost; a small convolutional decoder, with heads as channels, turns its
output into a row of W cells per query; the best cells are chosen and stretched to the keys they cover; softmax
attention runs over those keys only. The estimator learns from a dense teacher. Padding is at the right end.
Symbols: N samples, H heads, T tokens, d head width, W width of the estimate, k keys per query and head, L real length.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from kernels.transforms.random_projection import orthogonal_random_features
from workbench.models.attention.dense_attention import attention_weights, masked_attention, weighted_sum
from workbench.models.attention.performer import prefix_attention, relu_kernel, softmax_kernel
from workbench.models.attention.sea_cells import (
    GROUPS,
    FlatCSR,
    cells_to_flat_csr,
    column_grid,
    column_of_key,
    expand_cells,
    flat_attention,
    flat_csr_to_dense,
    grouped_topk,
)

__all__ = [
    "GROUPS",
    "FlatCSR",
    "SEAAttention",
    "SEAOutput",
    "cells_to_flat_csr",
    "column_of_key",
    "distill_layer",
    "effective_attention",
    "estimate_multiply_adds",
    "expand_cells",
    "flat_csr_to_dense",
    "grouped_topk",
    "oracle_estimate",
    "relu_kernel",
    "sea_loss",
    "softmax_kernel",
    "trace",
]


@dataclass(frozen=True)
class SEAOutput:
    """What one call of `SEAAttention` did.

    Parameters
    ----------
    context : (N, H, T, d), the output.
    loss : sum of the layer's losses, or None without a teacher.
    losses : the parts of the loss by name.
    scores, est : (N, H, T, W), estimate before and after its softmax.
    cells : (N, H, T, W) bool, chosen.
    mask : (N, H, T, T) bool ("dense" backend) or `FlatCSR` ("flat_csr").
    probs : (N, H, T, T) attention over the mask ("dense"), or a csr_array with a row per (sample, query, head).
    scales : s_prob and s_mix, (N, H, T, 1) each.
    average : (N, H, T), the weight of every key in the average path; None where causal.
    """

    context: torch.Tensor
    loss: torch.Tensor | None
    losses: dict[str, torch.Tensor]
    scores: torch.Tensor
    est: torch.Tensor
    cells: torch.Tensor
    mask: torch.Tensor | FlatCSR
    probs: torch.Tensor | sparse.csr_array
    scales: tuple[torch.Tensor, torch.Tensor]
    average: torch.Tensor | None


class _CausalConv(nn.Module):
    """Convolution over (query, cell) images that looks only at the current and earlier queries."""

    def __init__(self, inputs, outputs, kernel, *, dilation=1, width_padding=0):
        super().__init__()
        self.left = (kernel - 1) * dilation
        self.conv = nn.Conv2d(inputs, outputs, kernel, dilation=dilation, padding=(0, width_padding))

    def forward(self, x):
        return self.conv(F.pad(x, (0, 0, self.left, 0)))


class SEAAttention(nn.Module):
    """Attention of one layer by estimate, top cells and sparse softmax; takes q, k, v that are already projected.

    Parameters
    ----------
    dim, heads : model width and heads; d = dim / heads.
    width : W cells per estimated row; even, a multiple of 4 where causal.
    k : keys per query and head; may be changed after training.
    group : as `grouped_topk`.
    nb_factor : divisor of the number of random features, m = d ln d / nb_factor.
    max_positions : longest causal sequence.
    backend : "dense" (T x T mask) or "flat_csr" (memory linear in T); both train. A loss is T x T in either.
    mask_padded_keys : keep padding out of the estimate. False reproduces the released bidirectional code on real
        tokens: padded keys weigh in the Performer's denominator and in its largest exponent, padded queries enter the
        decoder, and the average over queries divides by all T of them.
    scale_performer_queries : where causal, hand q / sqrt(d) to the Performer, as the released causal code does. Only
        the 1e-3 of the kernel tells the two apart, yet some cells differ (4 in 10,000 with random weights), so weights
        from there want True.

    Raises
    ------
    ValueError : sizes or names that do not fit.

    Source
    ------
    Lee et al. 2023, section 3; the decoder's layers follow the released code. *Differs from it:* the switches above;
    scores are always divided by sqrt(d), which the released bidirectional code does beside a teacher only; no training
    step shifts the cells of causal rows, as one in ten does there.
    """

    def __init__(
        self,
        dim,
        heads,
        *,
        width=128,
        k=7,
        causal=False,
        group="causal_batch",
        nb_factor=1,
        max_positions=2048,
        backend="dense",
        mask_padded_keys=True,
        scale_performer_queries=False,
        seed=0,
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"SEAAttention: dim {dim} must be a multiple of heads {heads}")
        if width % (4 if causal else 2) or width < 4:
            raise ValueError(
                f"SEAAttention: width must be a multiple of {4 if causal else 2} and at least 4, got {width}"
            )
        if causal and group != "causal_batch":
            raise ValueError(f"SEAAttention: causal attention takes group 'causal_batch', got {group!r}")
        if backend not in ("dense", "flat_csr"):
            raise ValueError(f"SEAAttention: backend must be 'dense' or 'flat_csr', got {backend!r}")
        d = dim // heads
        self.heads, self.d, self.width, self.k = heads, d, width, k
        self.causal, self.group, self.backend = causal, group, backend
        self.mask_padded_keys, self.scale_performer_queries = mask_padded_keys, scale_performer_queries
        self.register_buffer("projection", torch.empty(max(1, int(d * math.log(d) / nb_factor)), d))
        self.redraw_features(seed)
        if causal:
            self.position = nn.Parameter(torch.randn(1, 1, max_positions, d))
        self.mix = nn.Sequential(nn.Linear(3 * d, 2 * d), nn.LayerNorm(2 * d), nn.GELU())
        self.scale = nn.Linear(2 * d, 2)
        if not causal:
            self.to_images = nn.Linear(2 * d, 4 * (width // 2))
            self.down = nn.Conv2d(4 * heads, 4 * heads, 3, padding=1, stride=(2, 1))
            self.middle = nn.Conv2d(4 * heads, 4 * heads, 3, padding=1)
            self.up = nn.Conv2d(4 * heads, heads, 3, padding=1)
        else:
            self.to_images = nn.Linear(2 * d, 2 * (width // 4))
            self.image_norm, self.row_norm = nn.LayerNorm(width // 4), nn.LayerNorm(width)
            self.first = _CausalConv(2 * heads, 2 * heads, 3, dilation=2, width_padding=2)
            self.second = _CausalConv(2 * heads, 2 * heads, 3, dilation=2, width_padding=2)
            self.last = _CausalConv(2 * heads, heads, 1, width_padding=1)

    def redraw_features(self, seed: int) -> None:
        """Draw new random features (training does so every 1,000 steps)."""
        m, d = self.projection.shape
        self.projection.copy_(torch.as_tensor(orthogonal_random_features(m, d, seed=seed)))

    def forward(self, q, k, v, attn_mask=None, teacher_scores=None, teacher_context=None) -> SEAOutput:
        """Attend.

        Parameters
        ----------
        q, k, v : (N, H, T, d) float32, q not scaled.
        attn_mask : (N, T) bool, real tokens, padding at the right end only.
        teacher_scores : (N, H, T, T), the teacher's scores before softmax, masked pairs -inf or very low.
        teacher_context : (N, H, T, d).

        Raises
        ------
        TypeError : q is not of floats. ValueError : shapes, an empty sample, padding elsewhere, a lone teacher part.
        """
        n, t = self._check(q, k, v, teacher_scores, teacher_context)
        keep = torch.ones(n, t, dtype=torch.bool) if attn_mask is None else torch.as_tensor(attn_mask).bool()
        lengths = keep.sum(1)
        if (lengths == 0).any() or (keep != (torch.arange(t) < lengths[:, None])).any():
            raise ValueError("SEAAttention: attn_mask must mark real tokens from the left, at least one per sample")
        real = keep[:, None, :, None]
        v = v * real
        mixed = self.mix(torch.cat([self.performer(q, k, v, keep)[1], v], -1))  # (N, H, T, 2d)
        scores = self._decode(mixed, real if self.mask_padded_keys else torch.ones_like(real))
        est = torch.softmax(scores, -1) * real
        s_prob, s_mix = torch.sigmoid(self.scale(mixed)).split(1, -1)
        with torch.no_grad():
            cells = grouped_topk(est, self.k, lengths, self.group, causal=self.causal)
        if self.backend == "dense":
            mask = expand_cells(cells, lengths, causal=self.causal)
            probs = attention_weights(q, k, causal=False, allowed=mask)
            sparse_context = s_prob * weighted_sum(probs, v, mask)
        else:
            mask = cells_to_flat_csr(cells, lengths, causal=self.causal)
            probs, found = flat_attention(mask, q, k, v)
            sparse_context = s_prob * found
        if self.causal:
            weights, averaged = None, v.cumsum(2) / (torch.arange(t) + 1)[:, None]
        else:
            rows = lengths if self.mask_padded_keys else torch.full_like(lengths, t)
            weights = _average_weights(est, lengths, rows)
            averaged = (weights.unsqueeze(-2) @ v).expand_as(v)
        context = s_mix * sparse_context + (1 - s_mix) * averaged
        losses = {}
        if teacher_scores is not None:
            losses = sea_loss(scores, q, k, context, teacher_scores, teacher_context, lengths, causal=self.causal)
        loss = sum(losses.values()) if losses else None
        return SEAOutput(context, loss, losses, scores, est, cells, mask, probs, (s_prob, s_mix), weights)

    def performer(self, q, k, v, keep=None):
        """Return the positions V_I (N, H, T, d) and C_perf (N, H, T, 2d), linear attention over [V_I | v]."""
        n, _, t = q.shape[:3]
        keep = torch.ones(n, t, dtype=torch.bool) if keep is None else keep
        if self.causal:
            position = self.position[:, :, :t].expand(*q.shape) * keep[:, None, :, None]
            q = q * self.d**-0.5 if self.scale_performer_queries else q
            fq, fk = relu_kernel(q, self.projection), relu_kernel(k, self.projection)
            return position, prefix_attention(fq, fk, torch.cat([position, v], -1))
        position = _stretched_identity(keep.sum(1), t, self.d)[:, None].expand(*q.shape)
        fq = softmax_kernel(q, self.projection, is_query=True)
        fk = softmax_kernel(k, self.projection, is_query=False, keep=keep if self.mask_padded_keys else None)
        values = torch.cat([position, v], -1)
        return position, fq @ (fk.mT @ values) / (fq @ fk.sum(2).unsqueeze(-1))

    def _decode(self, mixed, real):
        t = mixed.shape[2]
        images = 2 if self.causal else 4
        x = (
            (self.to_images(mixed) * real).unflatten(-1, (images, -1)).permute(0, 1, 3, 2, 4).flatten(1, 2)
        )  # (N, images H, T, W')
        if self.causal:
            x = torch.relu(self.first(self.image_norm(x)))
            x = torch.relu(self.second(x))
            x = self.last(F.interpolate(x, scale_factor=(1, 4), mode="nearest"))
            return self.row_norm(F.interpolate(x, size=(t, self.width), mode="area"))
        x = torch.relu(self.middle(torch.relu(self.down(x))))
        x = self.up(F.interpolate(x, scale_factor=(2, 1), mode="nearest"))
        return F.interpolate(x, size=(t, self.width), mode="bilinear", align_corners=False)

    def _check(self, q, k, v, teacher_scores, teacher_context):
        if not q.is_floating_point():
            raise TypeError(f"SEAAttention: q must hold floats, got {q.dtype}")
        if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape or q.shape[1::2] != (self.heads, self.d):
            got = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
            raise ValueError(f"SEAAttention: q, k, v must be (N, {self.heads}, T, {self.d}); got {got}")
        n, h, t = q.shape[:3]
        if self.causal and t > self.position.shape[2]:
            raise ValueError(f"SEAAttention: T = {t} is longer than max_positions = {self.position.shape[2]}")
        if (teacher_scores is None) != (teacher_context is None):
            raise ValueError("SEAAttention: give teacher_scores and teacher_context together")
        if teacher_scores is not None and (teacher_scores.shape != (n, h, t, t) or teacher_context.shape != q.shape):
            raise ValueError(
                f"SEAAttention: teacher_scores must be {(n, h, t, t)} and teacher_context {tuple(q.shape)}; "
                f"got {tuple(teacher_scores.shape)} and {tuple(teacher_context.shape)}"
            )
        return n, t


def sea_loss(scores, q, k, context, teacher_scores, teacher_context, lengths, *, causal) -> dict[str, torch.Tensor]:
    """Return the layer's losses by part: estimate (KL, MSE), student scores (KL, MSE), context (MSE).

    KL counts a tenth and is summed over keys, heads and queries, then divided by real tokens (bidirectional) or by all
    rows (causal).

    Source
    ------
    Lee et al. 2023, section 3.4 and the released code's weights. *Differs from it* where samples are padded: its mean
    squares go over padded queries as well, which made them 1.5 to 2.0 times as large with 23 of 40 tokens real.
    """
    n, h, t, w = scores.shape
    column, seen = column_grid(lengths, t, w, causal)
    rows = (torch.arange(t) < lengths[:, None])[:, None, :, None]
    open_to = (seen[:, None] & rows).expand(n, h, t, t)
    stretched = scores.gather(3, column[:, None].expand(n, h, t, t))
    student = q @ k.mT * q.shape[-1] ** -0.5
    divisor = n * h * t if causal else int(lengths.sum())
    parts = {}
    teacher = _masked_log_softmax(teacher_scores, open_to)
    for name, logits in (("estimate", stretched), ("scores", student)):
        ours = _masked_log_softmax(logits, open_to)
        difference = torch.where(open_to, teacher.exp() * (teacher - ours), 0.0)
        parts[f"{name} KL"] = 0.1 * difference.sum() / divisor
        parts[f"{name} MSE"] = torch.where(open_to, ours.exp() - teacher.exp(), 0.0).square().mean()
    parts["context MSE"] = (context - teacher_context).mul(rows).square().mean()
    return parts


def distill_layer(batches, sea: nn.Module, *, steps, lr=2e-3, clip=1.0, seed=0, report=None) -> list[dict[str, float]]:
    """Train an estimator, or a `PerformerAttention` beside it, against dense attention on cached q, k, v.

    Parameters
    ----------
    batches : list of (q, k, v, keep), keep (N, T) bool or None; taken in a seeded random order.
    report : called as ``report(step, losses)`` after every step.

    Returns
    -------
    The parts of the loss at every step.
    """
    if not batches or steps < 1:
        raise ValueError("distill_layer: needs at least one batch and one step")
    optimiser = torch.optim.AdamW(sea.parameters(), lr=lr)
    order = np.random.default_rng(seed)
    history = []
    sea.train()
    for step in range(steps):
        if step and step % 1000 == 0 and hasattr(sea, "redraw_features"):
            sea.redraw_features(seed + step)
        q, k, v, keep = batches[int(order.integers(len(batches)))]
        scores, context = teacher(q, k, v, keep, causal=sea.causal)
        out = sea(q, k, v, keep, scores, context)
        optimiser.zero_grad()
        out.loss.backward()
        nn.utils.clip_grad_norm_(sea.parameters(), clip)
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in out.losses.items()})
        if report:
            report(step, history[-1])
    sea.eval()
    return history


def teacher(q, k, v, keep=None, *, causal=False):
    """Return dense attention's scores before softmax (masked pairs -inf) and its context."""
    n, _, t, d = q.shape
    keep = torch.ones(n, t, dtype=torch.bool) if keep is None else keep
    seen = keep[:, None, None, :] & (torch.ones(t, t, dtype=torch.bool).tril() if causal else True)
    scores = (q @ k.mT * d**-0.5).masked_fill(~seen, -torch.inf)
    return scores, masked_attention(q, k, v, seen, causal=False)


def oracle_estimate(q, k, width, lengths, *, causal=False) -> torch.Tensor:
    """Return the teacher's attention pooled to ``width`` cells, (N, H, T, W): the best that an estimator could say."""
    t = q.shape[2]
    column, seen = column_grid(torch.as_tensor(lengths), t, width, causal)
    weights = attention_weights(q, k, causal=False, allowed=seen[:, None])
    pooled = q.new_zeros(*q.shape[:3], width)
    index = column[:, None].expand(*weights.shape)
    count = torch.zeros_like(pooled).scatter_add(3, index, (seen[:, None] * torch.ones_like(weights)))
    return pooled.scatter_add(3, index, weights) / count.clamp(min=1)


def effective_attention(out: SEAOutput, lengths, *, causal) -> torch.Tensor:
    """Return the matrix A with context = A v, (N, H, T, T), from a call with the dense backend."""
    s_prob, s_mix = out.scales
    n, h, t = out.probs.shape[:3]
    if out.average is None:
        average = torch.ones(t, t).tril() / (torch.arange(t) + 1)[:, None]
    else:
        average = out.average.unsqueeze(-2)
    return s_mix * s_prob * out.probs + (1 - s_mix) * average.expand(n, h, t, t)


def estimate_multiply_adds(t, d, heads, width, *, causal=False) -> int:
    """Count the multiply-adds of one head's estimate: random features, linear attention, its share of the decoder."""
    m = max(1, int(d * math.log(d)))
    linear = m * (6 * d + 1)  # q and k into features, values in, values out, their divisor
    mixing = 6 * d * d + 4 * d + 2 * d * (width // 2 if causal else 2 * width)
    if causal:
        return t * (linear + mixing + 18 * heads * width + 2 * heads * (width + 2))
    return t * (linear + mixing) + (t + t % 2) * 90 * heads * width


def trace(q, k, *, width=32, k_keys=12, group="query", causal=False) -> AttentionTrace:
    """Return what the method does with the first head of (1, h, T, d) inputs by the oracle's estimate, for views.

    The oracle says what the width and the budget alone cost; `sea_stages.stages` shows what an estimator does.
    """
    t, d = q.shape[2:]
    lengths = torch.tensor([t])
    q, k = q[:, :1], k[:, :1]
    est = oracle_estimate(q, k, width, lengths, causal=causal)
    allowed = expand_cells(grouped_topk(est, k_keys, lengths, group, causal=causal), lengths, causal=causal)[0, 0]
    attention = attention_weights(q, k, causal=causal)[0, 0]
    return AttentionTrace(
        method="SEA (oracle estimate)",
        t=t,
        causal=causal,
        cost=attention_cost(
            t=t,
            d=d,
            causal=causal,
            allowed=allowed.numpy(),
            before=estimate_multiply_adds(t, d, 1, width, causal=causal),
        ),
        coverage=float((attention * allowed).sum() / attention.sum()),
        attention=attention.numpy(),
        effective=attention_weights(q, k, causal=False, allowed=allowed)[0, 0].numpy(),
        allowed=allowed.numpy(),
        estimate=est[0, 0].numpy(),
        facts={"cells per row": width, "mean keys per query": float(allowed.sum() / t)},
    )


def _stretched_identity(lengths, t, d):
    """The d x d identity stretched to each sample's real tokens, (N, T, d): row c sits at c / (L - 1) (d - 1)."""
    place = torch.arange(t) / (lengths[:, None] - 1).clamp(min=1) * (d - 1)  # (N, T)
    low = place.floor().clamp(max=d - 1).long()
    weight = place - low
    rows = F.one_hot(low, d) * (1 - weight)[..., None] + F.one_hot((low + 1).clamp(max=d - 1), d) * weight[..., None]
    return rows * (torch.arange(t) < lengths[:, None])[..., None]


def _average_weights(est, lengths, rows):
    """Weight of every key in the average path: mean over so many rows of the estimate at the key's cell, (N, H, T)."""
    n, h, t, w = est.shape
    mean = est.sum(2) / rows[:, None, None]  # padded rows are zero
    column, seen = column_grid(lengths, t, w, causal=False)
    return mean.gather(2, column.expand(n, h, t)) * seen


def _masked_log_softmax(logits, allowed):
    """Log-softmax over allowed pairs; rows without any, and pairs not allowed, give finite numbers to be ignored."""
    filled = logits.masked_fill(~allowed, -torch.inf)
    filled = filled.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return torch.log_softmax(filled, -1).masked_fill(~allowed, 0.0)
