r"""SPT's attention: exact softmax over the keys that share the most codewords with a query, its gradient sparse too.

.. math:: s_{ij} = \mathrm{clip}\bigl(q_i \cdot k_j / \sqrt d,\ \pm 10\bigr), \qquad
          p_{ij} = e^{s_{ij}} \big/ \sum_l e^{s_{il}}, \qquad y_i = \sum_j p_{ij} v_j

over the chosen pairs (i, j). With g the gradient of y, dv = p^T g, dp = g v^T on the pairs, ds = p (dp - sum_j p dp),
0 where the clip holds, dq = ds k / sqrt(d), dk = ds^T q / sqrt(d). For the backward pass a pair keeps one value and one
int32 index. The choice has no gradient.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.autograd.function import once_differentiable

from kernels.attention.csr_softmax import csr_softmax, csr_softmax_gradient
from kernels.check import as_int, check_choice
from kernels.masks.pq_topk import fixed_degree_csr, pq_topk
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm
from workbench.models.attention.call import AttentionCall, attention_call
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.fine_tuning.product_quantizer import ProductQuantizer

__all__ = ["CHOICES", "CLAMP", "PQAttention", "SparseAttentionFn", "SparseMHA", "head_quantizer", "sparse_attention"]

CHOICES = ("matching", "exact", "reconstruction", "window", "random")
CLAMP = 10.0


class SparseAttentionFn(torch.autograd.Function):
    """Attention over the pairs of a CSR pattern; call `sparse_attention`.

    Source
    ------
    Gui et al. 2023, "SPT", section 4.2. *Differs from the released code:* its backward pass limits a row sum from
    below that may be negative; here it is taken as it is.
    """

    @staticmethod
    def forward(ctx: Any, q, k, v, indptr, indices, scale, clamp):
        """Map (R, d), (C, d), (C, dv) and a pattern (R, C) to (R, dv)."""
        arrays, pattern = [x.detach().numpy() for x in (q, k, v)], (indices.numpy(), indptr.numpy())
        shape = len(arrays[0]), len(arrays[1])
        scores = sddmm(_csr(np.empty(len(pattern[0]), arrays[0].dtype), *pattern, shape), *arrays[:2])
        scores.data *= arrays[0].dtype.type(scale)
        outside = np.abs(scores.data) >= clamp
        np.clip(scores.data, -clamp, clamp, out=scores.data)
        p = csr_softmax(scores)
        out = torch.from_numpy(spmm(p, arrays[2]))
        # A weight is never 0, for scores lie within 2 clamp of each other: its sign tells where the clip held.
        kept = torch.from_numpy(np.where(outside, -p.data, p.data))
        ctx.save_for_backward(q, k, v, indptr, indices, kept)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor):
        """Return the gradients of q, k and v."""
        q, k, v, indptr, indices, kept = (x.detach().numpy() for x in ctx.saved_tensors)
        g, shape, pattern = gradients[0].detach().contiguous().numpy(), (len(q), len(k)), (indices, indptr)
        p = _csr(np.abs(kept), *pattern, shape)
        ds = csr_softmax_gradient(p, sddmm(p, g, v).data)
        ds[kept < 0] = 0
        ds *= ds.dtype.type(ctx.scale)
        turned = _csr(np.arange(len(kept)), *pattern, shape).T.tocsr()  # its values say where each entry came from

        def back(values, rows):
            return spmm(_csr(values[turned.data], turned.indices, turned.indptr, shape[::-1]), rows)

        need = ctx.needs_input_grad
        dq = spmm(_csr(ds, *pattern, shape), k) if need[0] else None
        found = (dq, back(ds, q) if need[1] else None, back(p.data, g) if need[2] else None)
        return *(None if x is None else torch.from_numpy(x) for x in found), None, None, None, None


def sparse_attention(q, k, v, indptr, indices, *, scale=None, clamp=CLAMP) -> torch.Tensor:
    """Attend over the pairs of a CSR pattern, differentiable in q, k and v.

    Parameters
    ----------
    q, k, v : (R, d), (C, d) and (C, dv) CPU tensors, all float32 or all float64; heads and samples one below the other.
    indptr, indices : integer arrays or tensors (R + 1,) and (nnz,), as `kernels.masks.pq_topk.fixed_degree_csr` gives.
    scale : factor on q . k; 1 / sqrt(d) unless given.
    clamp : scores are cut off at plus and minus this, above 0, at most 40; what is cut off gets no gradient.

    Returns
    -------
    (R, dv). A row without a pair is 0.

    Raises
    ------
    TypeError, ValueError : tensors, dtypes or a pattern that do not fit; the message names the kernel that refuses.

    Source
    ------
    Gui et al. 2023, "SPT", section 4.2.
    """
    if not 0 < clamp <= 40:
        raise ValueError(f"sparse_attention: clamp must be above 0 and at most 40, got {clamp}")
    q, k, v = (x.contiguous() for x in (q, k, v))
    parts = (torch.as_tensor(indptr, dtype=torch.int64), torch.as_tensor(indices, dtype=torch.int32))
    return SparseAttentionFn.apply(q, k, v, *parts, float(q.shape[1] ** -0.5 if scale is None else scale), float(clamp))


class PQAttention(nn.Module):
    """Attention on queries, keys and values, over an n-th of the keys of every query.

    Parameters
    ----------
    quantizer : of M parts for vectors of one head, shared by heads, queries and keys as published; or of h M parts, a
        codebook for each head (ours).
    sparse_coeff : a query keeps L = tk / sparse_coeff keys.
    causal : whether a query sees no key after its own.
    buckets : of `kernels.masks.pq_topk.pq_topk`.
    select : "matching" as published; for comparison "exact" (the largest scores), "reconstruction" (the largest inner
        products of what the codes stand for), "window" (the nearest keys) and "random". All but the first and
        "window" form every score.
    round_up : take one key more where sparse_coeff does not divide tk, in place of refusing.
    sparse : False attends to all keys, while the codebook learns: the stage before the sparse one.
    every : the codebook's loss is computed in each so many-th pass of training.
    seed : of "random".

    Source
    ------
    Gui et al. 2023, "SPT", section 4.
    """

    def __init__(self, quantizer: ProductQuantizer, sparse_coeff: int = 8, causal: bool = True, *,
                 buckets: Any = "exact", select: str = "matching", round_up: bool = False, sparse: bool = True,
                 every: int = 1, seed: int = 0):  # fmt: skip
        super().__init__()
        name = "PQAttention"
        check_choice(select, CHOICES, function=name, name="select")
        self.quantizer, self.causal, self.buckets, self.select = quantizer, bool(causal), buckets, select
        self.sparse_coeff = as_int(sparse_coeff, function=name, name="sparse_coeff", low=1)
        self.every = as_int(every, function=name, name="every", low=1)
        self.round_up, self.sparse, self.seed, self._passes = bool(round_up), bool(sparse), seed, 0
        self._loss: torch.Tensor | None = None
        self.seen: list[torch.Tensor] | None = None  # a list collects the vectors that come, for `init_codebooks`

    def forward(
        self, q, k, v, *, causal: bool | None = None, scale: float | None = None, attn_mask=None
    ) -> torch.Tensor:
        """Map q (b, h, tq, d), k (b, hk, tk, d) and v (b, hk, tk, dv) to (b, h, tq, dv).

        Parameters
        ----------
        causal : in the place of the setting.
        scale : factor on q . k; 1 / sqrt(d) unless given.
        attn_mask : None, or bool that broadcasts to (b, h, tq, tk), True where a query may attend. Keys that are hidden
            from every query are not chosen.

        Raises
        ------
        TypeError : of `attention_call`, or a mask of numbers, which would change scores that are never formed.
        ValueError : shapes that do not fit, or a length that sparse_coeff does not divide.
        """
        causal = self.causal if causal is None else causal
        call = attention_call("PQAttention", q, k, v, causal=causal, scale=scale, attn_mask=attn_mask)
        if call.attn_mask is not None and call.attn_mask.dtype != torch.bool:
            raise TypeError("PQAttention: attn_mask must be bool, True where a query may attend, or None; got numbers")
        kind = torch.float64 if call.q.dtype == torch.float64 else torch.float32
        q, k, v = call.q.to(kind), *(_for_each_head(x, call.q.shape[1]).to(kind) for x in (call.k, call.v))
        if self.seen is not None:
            self.seen += [self._flat(x).detach() for x in (q, k)]
        if self.training and self.quantizer.codebook.requires_grad and q.numel():
            if self._passes % self.every == 0:
                self._loss = self.quantizer.loss(self._flat(q)) + self.quantizer.loss(self._flat(k))
            self._passes += 1
        if not self.sparse:
            return call.dense()
        indptr, indices = self._pattern(q, k, call)
        rows, keys, values = (x.reshape(-1, x.shape[-1]) for x in (q, k, v))
        out = sparse_attention(rows, keys, values, indptr, indices, scale=call.scale)
        return out.view(*q.shape[:3], v.shape[-1]).to(call.q.dtype)

    def quantization_loss(self) -> torch.Tensor | float:
        """Return the codebook's loss in the last pass of training, 0 where it was not its turn, and forget it."""
        found, self._loss = self._loss, None
        return 0.0 if found is None else found

    def pattern(self, q, k, *, attn_mask=None) -> tuple[np.ndarray, np.ndarray]:
        """Return indptr and indices of the chosen pairs of q (b, h, tq, d) and k (b, h, tk, d), as one CSR pattern."""
        call = attention_call("PQAttention.pattern", q, k, k, causal=self.causal, attn_mask=attn_mask)
        return self._pattern(call.q, call.k, call)

    @torch.no_grad()
    def attention_mass(self, q, k, *, scale: float | None = None) -> torch.Tensor:
        """Return the share of each query's dense attention that its chosen keys hold, (b, h, tq), in [0, 1]."""
        (b, h, tq, _), tk = q.shape, k.shape[2]
        indptr, indices = self.pattern(q, k)
        weights = attention_weights(q, k, causal=self.causal, scale=scale).reshape(b * h * tq, tk)
        rows = torch.repeat_interleave(torch.arange(b * h * tq), torch.from_numpy(np.diff(indptr)))
        kept = weights[rows, torch.from_numpy(indices).long() % tk]
        return torch.zeros(b * h * tq, dtype=weights.dtype).index_add_(0, rows, kept).view(b, h, tq)

    def keys_of(self, tk: int) -> int:
        """Return how many keys a query keeps of tk."""
        if tk % self.sparse_coeff and not self.round_up:
            raise ValueError(
                f"PQAttention: the number of keys must be a multiple of sparse_coeff={self.sparse_coeff}, got {tk}; "
                "pad the sequence, or pass round_up=True"
            )
        return -(-tk // self.sparse_coeff)

    @torch.no_grad()
    def _pattern(self, q, k, call: AttentionCall):
        (b, h, tq, _), tk = q.shape, k.shape[2]
        L, mask = self.keys_of(tk), call.attn_mask
        shown = None if mask is None else mask.any(2).expand(b, h, tk).reshape(b * h, tk).numpy()
        if not q.numel() or not k.numel():
            return np.zeros(b * h * tq + 1, np.int64), np.empty(0, np.int32)
        if self.select == "matching":
            qc, kc = (self._codes(x) for x in (q, k))
            qc, kc = (x.reshape(b * h, x.shape[2], -1).contiguous().numpy() for x in (qc, kc))
            indices, valid = pq_topk(qc, kc, L, causal=call.causal, visible=shown, buckets=self.buckets, order="index")
        else:
            indices, valid = self._largest(q, k, L, call)
        indptr, columns = fixed_degree_csr(indices, valid, keys=tk)
        if mask is None or self.select != "matching" or mask.shape[2] == 1:
            return indptr, columns
        # A mask of pairs hides from a query some of the keys that it shares codewords with.
        rows = np.repeat(np.arange(b * h * tq), np.diff(indptr))
        seen = mask.expand(b, h, tq, tk).numpy()
        keep = seen[rows // (h * tq), rows // tq % h, rows % tq, columns % tk]
        counts = np.bincount(rows[keep], minlength=b * h * tq)
        return np.concatenate([[0], np.cumsum(counts)]), columns[keep]

    def _largest(self, q, k, L, call):
        """Return the keys of the largest scores, rising, and how many a query sees of them, as `pq_topk` does."""
        (b, h, tq, _), tk = q.shape, k.shape[2]
        scores = self._scores(q, k)
        visible = torch.ones(tq, tk, dtype=torch.bool)
        visible = (visible.tril(tk - tq) if call.causal else visible).expand(b, h, tq, tk)
        visible = visible if call.attn_mask is None else visible & call.attn_mask
        order = scores.masked_fill(~visible, -torch.inf).sort(dim=-1, descending=True, stable=True).indices[..., :L]
        valid = visible.sum(-1).clamp(max=L)
        behind = torch.arange(L) >= valid[..., None]
        order = order.masked_fill(behind, tk).sort(-1).values.masked_fill(behind, -1)
        return order.to(torch.int32).view(b * h, tq, L).numpy(), valid.to(torch.int32).view(b * h, tq).numpy()

    def _scores(self, q, k):
        (b, h, tq, _), tk = q.shape, k.shape[2]
        if self.select == "random":
            draw = torch.Generator().manual_seed(self.seed)
            return torch.rand(b, h, tq, tk, generator=draw)
        if self.select == "window":
            return -(torch.arange(tk - tq, tk)[:, None] - torch.arange(tk)).abs().expand(b, h, tq, tk).float()
        if self.select == "reconstruction":
            q, k = (self._unflat(self.quantizer.quantize(self._flat(x)), x) for x in (q, k))
        return q @ k.mT

    def _per_head(self, d):
        """Tell whether the quantiser has a codebook for each head of width d."""
        return self.quantizer.width != d

    def _flat(self, x):
        """Return the vectors that the quantiser names, (n, M w): one a head, or all heads of a token side by side."""
        b, h, t, d = x.shape
        if self._per_head(d) and self.quantizer.width != h * d:
            raise ValueError(
                f"PQAttention: the quantizer is for vectors of {self.quantizer.width}; a head has {d}, "
                f"all {h} have {h * d}"
            )
        return x.transpose(1, 2).reshape(b * t, h * d) if self._per_head(d) else x.reshape(-1, d)

    def _unflat(self, flat, like):
        """Turn what `_flat` returned, or its codes, back: (b, h, t, ...)."""
        b, h, t, d = like.shape
        return flat.view(b, t, h, -1).transpose(1, 2) if self._per_head(d) else flat.view(b, h, t, -1)

    def _codes(self, x):
        return self._unflat(self.quantizer.encode(self._flat(x)), x)

    def __getstate__(self):
        """Leave out what belongs to one pass, which cannot be copied."""
        return super().__getstate__() | {"_loss": None, "seen": None}


class SparseMHA(nn.Module):
    """Multi-head attention with projections of its own and `PQAttention` between them.

    Parameters
    ----------
    d_model, n_heads : width of the stream, and heads that divide it.
    sparse_coeff, causal, how : of `PQAttention`.
    quantizer : None for one of ``n_codewords`` codewords of ``d_codeword`` numbers, shared by the heads.
    n_codewords, d_codeword : of that one.
    per_head : whether each head has a codebook of its own (ours).

    Source
    ------
    Gui et al. 2023, "SPT", section 4. *Differs from the released code:* it turns (b h, n, d) into (b, n, h d) by a view
    that mixes tokens and channels; here heads are put side by side.
    """

    def __init__(self, d_model: int, n_heads: int, sparse_coeff: int = 8, causal: bool = True,
                 quantizer: ProductQuantizer | None = None, *, n_codewords: int = 16, d_codeword: int = 8,
                 per_head: bool = False, bias: bool = True, **how: Any):  # fmt: skip
        super().__init__()
        self.n_heads = as_int(n_heads, function="SparseMHA", name="n_heads", low=1)
        if as_int(d_model, function="SparseMHA", name="d_model", low=1) % n_heads:
            raise ValueError(f"SparseMHA: d_model must be a multiple of n_heads={n_heads}, got {d_model}")
        self.query, self.key, self.value, self.out = (nn.Linear(d_model, d_model, bias=bias) for _ in range(4))
        made = quantizer or head_quantizer(d_model // n_heads, n_heads, n_codewords, d_codeword, per_head)
        self.attention = PQAttention(made, sparse_coeff, causal, **how)

    @classmethod
    def from_pretrained(cls, query: nn.Module, key: nn.Module, value: nn.Module, out: nn.Module, n_heads: int, **how):
        """Make one of the projections of a model, which are shared; ``how`` as of the class."""
        made = cls(query.in_features, n_heads, **how)  # type: ignore[arg-type]
        made.query, made.key, made.value, made.out = query, key, value, out
        return made

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return q, k and v of x (b, n, d_model), each (b, h, n, d)."""
        b, n, _ = x.shape
        return tuple(
            part(x).view(b, n, self.n_heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, n, d_model) to the same shape; n must be a multiple of sparse_coeff."""
        mixed = self.attention(*self.heads_of(x))  # (b, h, n, d)
        return self.out(mixed.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def attention_mass(self, x: torch.Tensor) -> torch.Tensor:
        """Return the share of each query's dense attention that its chosen keys hold, (b, h, n)."""
        q, k, _ = self.heads_of(x)
        return self.attention.attention_mass(q, k)


def head_quantizer(d: int, heads: int, n_codewords=16, d_codeword=8, per_head=False, dtype=torch.float32):
    """Return a quantiser for heads of width d.

    Parameters
    ----------
    d, heads : width of a head, and how many there are.
    n_codewords, d_codeword : E, and numbers of a part, which divide d.
    per_head : whether each head has a codebook of its own, in place of one for all.
    dtype : of the codewords.

    Raises
    ------
    ValueError : d_codeword does not divide d.
    """
    w = as_int(d_codeword, function="head_quantizer", name="d_codeword", low=1)
    if d % w:
        raise ValueError(
            f"head_quantizer: d_codeword must divide the width of a head, {d}; got {w}; take one of "
            f"{', '.join(str(x) for x in range(1, d + 1) if d % x == 0)}"
        )
    return ProductQuantizer(d // w * (heads if per_head else 1), n_codewords, w, dtype=dtype)


def _for_each_head(x, heads):
    """Repeat keys or values that heads share."""
    return x if x.shape[1] in (0, heads) else x.repeat_interleave(heads // x.shape[1], 1)


def _csr(values, indices, indptr, shape):
    return sparse.csr_array((values, indices, indptr), shape=shape)
