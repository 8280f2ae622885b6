"""Combiner as a layer with its own weights, and the summary of a region that is learnt.

Ren et al. 2021, "Combiner: Full Attention Transformer with Sparse Computation Cost", arXiv 2107.05768.
"""

import torch.nn.functional as F
from torch import nn

from workbench.models.attention.combiner import combiner_attention, effective_attention

__all__ = ["CombinerSelfAttention", "DeepSetsSummary"]


class DeepSetsSummary(nn.Module):
    """Pool a region by a small network: rho(max_j phi(x_j)), the paper's learnable summary.

    Maps (..., m, d) to (..., d); used for queries and keys of a region alike.
    """

    def __init__(self, d: int):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(d, d), nn.ReLU())
        self.rho = nn.Linear(d, d)

    def forward(self, x):
        return self.rho(self.phi(x).amax(-2))


class CombinerSelfAttention(nn.Module):
    """Multi-head Combiner attention: q, k, v without bias, output projection; drop-in for self-attention.

    Parameters
    ----------
    dim, heads : model width, a multiple of the heads.
    pattern, seg_len, causal : as `combiner_attention`.
    summary : "max", "mean", "sum" or "deepsets" (own parameters).
    key_row : "none", "wsum" or "proj": LayerNorm of input plus projected row output, then a linear map (the paper's
        default for "axial_rowmajor").
    span_bias : as `combiner_attention`.
    dropout : rate inside regions and on the projected row output, in training only.

    Source
    ------
    Ren et al. 2021, section 4. *Differs from the released JAX code:* there the maps after attention (``out``, and
    ``row_out`` and ``row_key`` of "proj") have no bias, LayerNorm adds 1e-6 to the variance and not 1e-5, and training
    drops weights of direct keys too. Weights from there, with biases of zero and ``row_norm.eps = 1e-6``, give its
    output.
    """

    def __init__(
        self,
        dim,
        heads,
        *,
        pattern="fixed",
        seg_len=None,
        causal=True,
        summary="max",
        key_row="wsum",
        span_bias=None,
        dropout=0.0,
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"CombinerSelfAttention: dim {dim} must be a multiple of heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.how = {"pattern": pattern, "seg_len": seg_len, "causal": causal, "span_bias": span_bias}
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.summary = DeepSetsSummary(dim // heads) if summary == "deepsets" else summary
        self.key_row = key_row
        if key_row == "proj":
            self.row_out, self.row_norm, self.row_key = nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, x):
        """Map (b, L, dim) to (b, L, dim)."""
        q, k, v, how = self._attention(x)
        return self.out(combiner_attention(q, k, v, **how).transpose(1, 2).flatten(2))

    def attention_matrix(self, x):
        """Return the matrix A of every head, (b, h, L, L): forward is ``out`` of A v, heads merged; without dropout."""
        q, k, v, how = self._attention(x, training=False)
        return effective_attention(q, k, v, **how)

    def _attention(self, x, training=None):
        """Return q, k, v and the options of `combiner_attention`."""
        training = self.training if training is None else training
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))

        def projected_keys(rows):  # (b, h, n, s, e) -> same, after looking at the layer's own input
            n, s = rows.shape[2:4]
            merged = rows.permute(0, 2, 3, 1, 4).flatten(3)
            padded = F.pad(x, (0, 0, 0, n * s - x.shape[1])).unflatten(1, (n, s))
            keys = self.row_key(self.row_norm(padded + F.dropout(self.row_out(merged), self.dropout, training)))
            return keys.unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4)

        key_row = projected_keys if self.key_row == "proj" else self.key_row
        dropout = self.dropout if training else 0.0
        return q, k, v, {"summary": self.summary, "key_row": key_row, "dropout": dropout, **self.how}
