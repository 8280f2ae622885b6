"""SEA's pipeline for one head, stage by stage, as plain arrays to look at."""

from dataclasses import dataclass

import numpy as np
import torch

from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.sea import SEAAttention, effective_attention, expand_cells

__all__ = ["Stages", "stages"]


@dataclass(frozen=True)
class Stages:
    """What one head of `SEAAttention` makes on the way from its inputs to its attention, teacher beside it.

    Parameters
    ----------
    position : (T, d), the positional identity V_I (bidirectional) or the learned table (causal).
    mixed : (T, 2d), the Performer's output C_perf over [V_I | V].
    estimate : (T, W), rows sum to 1.
    cells : (T, W) bool, chosen.
    allowed : (T, T) bool, keys that the chosen cells cover.
    effective : (T, T), the matrix A with context = A V; rows need not sum to 1.
    attention : (T, T), the teacher's.
    s_prob, s_mix : (T,), the learned scale of the sparse part and its share in the mix.
    keys_by_head : (H,), mean keys per query of every head: how the budget was spent.
    coverage_by_head : (H,), share of each head's attention on its mask.
    """

    position: np.ndarray
    mixed: np.ndarray
    estimate: np.ndarray
    cells: np.ndarray
    allowed: np.ndarray
    effective: np.ndarray
    attention: np.ndarray
    s_prob: np.ndarray
    s_mix: np.ndarray
    keys_by_head: np.ndarray
    coverage_by_head: np.ndarray


@torch.no_grad()
def stages(sea: SEAAttention, q, k, v, *, head=0) -> Stages:
    """Run one sample, (1, H, T, d) each, through the dense backend and keep what each stage made for ``head``.

    Raises
    ------
    ValueError : no such head, or more than one sample.
    """
    if q.shape[0] != 1 or not 0 <= head < q.shape[1]:
        raise ValueError(f"stages: wants one sample and a head from 0 to {q.shape[1] - 1}; got {q.shape[0]} and {head}")
    t = q.shape[2]
    lengths = torch.tensor([t])
    backend, sea.backend = sea.backend, "dense"
    try:
        position, mixed = sea.performer(q, k, v)
        out = sea(q, k, v)
    finally:
        sea.backend = backend
    weights = attention_weights(q, k, causal=sea.causal)
    mask = expand_cells(out.cells, lengths, causal=sea.causal)
    one = {
        "position": position[0, head],
        "mixed": mixed[0, head],
        "estimate": out.est[0, head],
        "cells": out.cells[0, head],
        "allowed": mask[0, head],
        "effective": effective_attention(out, lengths, causal=sea.causal)[0, head],
        "attention": weights[0, head],
        "s_prob": out.scales[0][0, head, :, 0],
        "s_mix": out.scales[1][0, head, :, 0],
        "keys_by_head": mask[0].sum(-1).float().mean(-1),
        "coverage_by_head": (weights * mask)[0].sum((-1, -2)) / weights[0].sum((-1, -2)),
    }
    return Stages(**{name: x.numpy() for name, x in one.items()})
