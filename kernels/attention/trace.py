"""What an attention method did with one head, as plain arrays: every mask view draws this."""

from dataclasses import dataclass, field

import numpy as np

from kernels.attention.cost import AttentionCost

__all__ = ["AttentionTrace"]


@dataclass(frozen=True)
class AttentionTrace:
    """One head of one sequence under one method.

    Parameters
    ----------
    method : name shown to readers.
    t : tokens (rows = queries, columns = keys, both in original order unless ``order`` says otherwise).
    causal : whether a query sees only itself and what came before.
    attention : (t, t) float32, the true softmax attention; None where t is too long to hold it.
    effective : (t, t) float32, the attention that the method really gives (rows sum to 1); None if too long.
    allowed : (t, t) bool, pairs that the method keeps, whose scores it computes; None if too long or if it keeps none.
    keep : (n, n) bool kept blocks of ``block_size`` tokens, in the order of ``order``; None for token-level methods.
    estimate : (r, c) float32, what the method thought each cell holds, at its own resolution; rows sum to 1.
    read : (t, t) bool, logits that the estimate looked at; None where it looked at none or at all.
    order, query_order : (t,) int64, original position of each key (query) slot; None if keys (queries) stay in place.
    key_scores : (t,) float32, a score per original key; None where there is none.
    cost : pairs, blocks, multiply-adds and bytes, and those of dense attention under the same mask.
    coverage : share of the true attention mass on the pairs kept, in [0, 1]; NaN where unknown.
    reached : (t, t) bool, pairs that some chain of the method's steps connects, such as by a summary that holds the
        key; None where they are the pairs kept. Reach says nothing of how much attention passes.
    maps : further pictures of the method's own, by name, not negative or bool.
    facts : further readouts, label -> value, in the order they are shown.
    """

    method: str
    t: int
    causal: bool
    cost: AttentionCost
    coverage: float = float("nan")
    block_size: int | None = None
    attention: np.ndarray | None = None
    effective: np.ndarray | None = None
    allowed: np.ndarray | None = None
    reached: np.ndarray | None = None
    keep: np.ndarray | None = None
    estimate: np.ndarray | None = None
    read: np.ndarray | None = None
    order: np.ndarray | None = None
    query_order: np.ndarray | None = None
    key_scores: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Pairs kept over the pairs of dense attention under the same mask, in [0, 1]."""
        return self.cost.density
