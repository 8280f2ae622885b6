r"""A codebook that is learnt with the model: vectors in parts, each part named by one of a few codewords.

With D_e the L1 distance of a part to codeword e, at least 1e-5, and a_e = (1 / D_e) / sum_f (1 / D_f),

.. math:: \mathrm{loss}(z) = \mathrm{MSE}\Bigl(\sum_e a_e W_e,\; W_{c(z)}\Bigr) + \mathrm{MSE}\bigl(z,\; W_{c(z)}\bigr)

whose gradient reaches both sides of both terms. The choice of a codeword itself has no gradient.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, check_choice
from kernels.masks.pq_topk import MOST_CODEWORDS, MOST_SUBSPACES, pq_encode

__all__ = ["METRICS", "ProductQuantizer"]

METRICS = ("l1", "l2")
NEAREST = 1e-5  # distances count as at least this


class ProductQuantizer(nn.Module):
    """M codebooks of E codewords, one for each part of a vector.

    Parameters
    ----------
    n_subspaces : M, parts of a vector, from 1 to 254.
    n_codewords : E, from 1 to 256.
    d_codeword : numbers of a part.
    metric : "l1" as published, or "l2", which names other codewords and is here for comparison.
    dtype : of the codewords, which are drawn from N(0, 1).

    Source
    ------
    Gui et al. 2023, "SPT", section 4.1 and the released code. ``init_kmeans`` is ours.
    """

    def __init__(self, n_subspaces: int, n_codewords: int = 16, d_codeword: int = 8, metric: str = "l1", *,
                 dtype=torch.float32):  # fmt: skip
        super().__init__()
        name = "ProductQuantizer"
        m = as_int(n_subspaces, function=name, name="n_subspaces", low=1, high=MOST_SUBSPACES)
        e = as_int(n_codewords, function=name, name="n_codewords", low=1, high=MOST_CODEWORDS)
        w = as_int(d_codeword, function=name, name="d_codeword", low=1)
        check_choice(metric, METRICS, function=name, name="metric")
        self.metric = metric
        self.codebook = nn.Parameter(torch.randn(m, e, w, dtype=dtype))

    @property
    def width(self) -> int:
        """Numbers of a vector, M times those of a part."""
        return self.codebook.shape[0] * self.codebook.shape[2]

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the codes of vectors (..., M w): uint8 (..., M), the first of codewords at one distance.

        Raises
        ------
        ValueError : vectors of another width, or not finite.
        """
        flat = self._rows(x, "encode")
        if self.metric == "l1":
            book = self.codebook.detach().contiguous().numpy()
            codes = torch.from_numpy(pq_encode(flat.detach().contiguous().numpy(), book))
        else:
            if not torch.isfinite(flat).all():
                raise ValueError("ProductQuantizer.encode: x must be finite")
            codes = self._distances(flat).argmin(-1).to(torch.uint8)
        return codes.view(*x.shape[:-1], len(self.codebook))

    def decode(self, c: torch.Tensor) -> torch.Tensor:
        """Return the vectors (..., M w) that codes (..., M) name; its gradient goes to the codebook.

        Raises
        ------
        TypeError : codes are no integers. ValueError : not M of them, or one out of range.
        """
        m, e, _ = self.codebook.shape
        if not isinstance(c, torch.Tensor) or c.is_floating_point() or c.is_complex() or c.dtype == torch.bool:
            raise TypeError(
                f"ProductQuantizer.decode: c must hold integers, got {getattr(c, 'dtype', type(c).__name__)}"
            )
        if c.ndim < 1 or c.shape[-1] != m:
            raise ValueError(f"ProductQuantizer.decode: c must be (..., {m}), got {tuple(c.shape)}")
        c = c.long()
        if c.numel() and not (int(c.min()) >= 0 and int(c.max()) < e):
            raise ValueError(
                f"ProductQuantizer.decode: codes must lie in [0, {e}), got {int(c.min())} to {int(c.max())}; were they "
                "made by a larger codebook?"
            )
        return self.codebook[torch.arange(m), c].flatten(-2)

    def quantize(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest vectors that the codebook can say, (..., M w)."""
        return self.decode(self.encode(x))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return how far vectors (..., M w) and the soft choice lie from the codewords that were chosen, a scalar."""
        flat = self._rows(x, "loss")
        inverse = 1 / self._distances(flat).clamp(min=NEAREST)
        soft = inverse / inverse.sum(-1, keepdim=True)  # (n, M, E)
        mixed = torch.einsum("nme,mew->nmw", soft, self.codebook)
        hard = self.quantize(flat).view_as(mixed)
        return F.mse_loss(mixed, hard) + F.mse_loss(flat.reshape(mixed.shape), hard)

    @torch.no_grad()
    def init_kmeans(self, x: torch.Tensor, iters: int = 8, *, seed: int = 0) -> "ProductQuantizer":
        """Place the codewords by a few steps of Lloyd's on real vectors.

        Codewords begin at vectors drawn without repetition, and move to the mean of the parts that name them; one that
        none names stays. A part names the nearest codeword in the metric of the quantiser.

        Parameters
        ----------
        x : (..., M w), at least as many vectors as codewords.
        iters : steps, from 0 on.
        seed : of the draw.

        Returns
        -------
        self.
        """
        flat, (m, e, w) = self._rows(x, "init_kmeans").detach(), self.codebook.shape
        iters = as_int(iters, function="ProductQuantizer.init_kmeans", name="iters", low=0)
        if len(flat) < e:
            raise ValueError(f"ProductQuantizer.init_kmeans: x holds {len(flat)} vectors, {e} codewords need as many")
        parts, rng = flat.reshape(-1, m, w).transpose(0, 1), np.random.default_rng(seed)
        for book, part in zip(self.codebook, parts, strict=True):
            book.copy_(part[torch.from_numpy(rng.choice(len(flat), e, replace=False))])
        for _ in range(iters):
            codes = self.encode(flat).long()
            for book, part, code in zip(self.codebook, parts, codes.T, strict=True):
                count = torch.bincount(code, minlength=e)
                total = torch.zeros_like(book).index_add_(0, code, part)
                book.copy_(torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], book))
        return self

    def _distances(self, flat):
        """Return the distance of every part to every codeword of its sub-space, (n, M, E); L2 ones are squared."""
        m, _, w = self.codebook.shape
        gap = flat.reshape(len(flat), m, 1, w) - self.codebook
        return gap.abs().sum(-1) if self.metric == "l1" else gap.square().sum(-1)

    def _rows(self, x, method):
        if not isinstance(x, torch.Tensor) or x.ndim < 1 or x.shape[-1] != self.width:
            got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            m, _, w = self.codebook.shape
            raise ValueError(f"ProductQuantizer.{method}: x must be (..., {self.width}), {m} parts of {w}; got {got}")
        return x.reshape(-1, self.width).to(self.codebook.dtype)
