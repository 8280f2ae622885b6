"""One call of attention as models make it, checked: any float dtype, grouped heads, masks, fewer queries than keys."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from kernels.half_precision import as_float32
from workbench.models.bridge import block_sparse_attention

__all__ = ["AttentionCall", "attention_call"]


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """The arguments of one call of attention; see `attention_call`.

    Parameters
    ----------
    q, k, v : (b, h, tq, d), (b, hk, tk, d), (b, hk, tk, dv) tensors of one dtype, h a multiple of hk.
    causal : whether queries are the last tq positions of the keys and see none after their own.
    scale : factor on q . k.
    attn_mask : None, or a bool or float tensor of four dimensions that broadcasts to (b, h, tq, tk), -inf where hidden.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    causal: bool
    scale: float
    attn_mask: torch.Tensor | None

    @property
    def mask_array(self) -> np.ndarray | None:
        """The mask as kernels take it."""
        return None if self.attn_mask is None else self.attn_mask.numpy()

    def for_scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Return q and k as kernels that score block pairs take them, (b, h, tq, d) and (b, h, tk, d).

        They are float32, or float64 if they were; the scale is that of 1 / sqrt(d); keys are repeated to the query
        heads. Tokens that take part in no pair are zero, so that what padding holds does not count; so are queries
        whose own key is hidden from all, where the mask says no more than that.
        """
        q, k = self.q.detach(), self.k.detach()
        kind = torch.float64 if q.dtype == torch.float64 else torch.float32
        q = q.to(kind) * (self.scale * q.shape[3] ** 0.5)
        k = k.to(kind).repeat_interleave(q.shape[1] // max(k.shape[1], 1), dim=1)
        if self.attn_mask is not None:
            seen = self.attn_mask if self.attn_mask.dtype == torch.bool else self.attn_mask > -torch.inf
            asking = seen.any(3)
            if seen.shape[2] == 1 < seen.shape[3] and (self.causal or q.shape[2] == k.shape[2]):
                asking = seen[:, :, 0, k.shape[2] - q.shape[2] :]
            q = torch.where(asking[..., None], q, 0)
            k = torch.where(seen.any(2)[..., None], k, 0)
        return np.ascontiguousarray(q.numpy()), np.ascontiguousarray(k.numpy())

    def over_blocks(self, block_mask, *, block_size, **others) -> torch.Tensor:
        """Attend over kept blocks, differentiable in q, k and v; arguments as `bridge.block_sparse_attention`."""
        how = {"causal": self.causal, "scale": self.scale, "attn_mask": self.attn_mask}
        parts = {"q": self.q, "k": self.k, "v": self.v} | others
        return block_sparse_attention(block_mask=block_mask, block_size=block_size, **(how | parts))

    def dense(self) -> torch.Tensor:
        """Attend to everything that may be seen, by torch's own kernel; zero where a query sees no key."""
        tq, tk = self.q.shape[2], self.k.shape[2]
        mask, causal = self.attn_mask, self.causal and tq > 1
        if causal and (mask is not None or tq < tk):
            order = torch.ones(tq, tk, dtype=torch.bool).tril(tk - tq)
            mask = (
                order if mask is None else mask & order if mask.dtype == torch.bool else mask.where(order, -torch.inf)
            )
            causal = False
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(self.q.dtype)
        return F.scaled_dot_product_attention(
            self.q, self.k, self.v, attn_mask=mask, is_causal=causal, scale=self.scale, enable_gqa=True
        )


def attention_call(function, q, k, v, *, causal, scale=None, attn_mask=None) -> AttentionCall:
    """Check the arguments of a call of attention; ``function`` is what errors call it.

    Parameters
    ----------
    q : (b, h, tq, d) tensor or array of floats.
    k, v : (b, hk, tk, d) and (b, hk, tk, dv) of the dtype of q; each key head serves h / hk query heads in a row.
    scale : factor on q . k; 1 / sqrt(d) unless given.
    attn_mask : as torch's scaled_dot_product_attention takes it: bool, True may attend, or float, added to the scores;
        -inf hides, as does the lowest number of the mask's dtype, which models use for it.

    Raises
    ------
    TypeError : q, k or v is no tensor or array of floats, or their dtypes differ.
    ValueError : shapes that do not fit, or more queries than keys under ``causal``.
    """
    q, k, v = (_tensor(function, name, x) for name, x in (("q", q), ("k", k), ("v", v)))
    for name, x in (("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise TypeError(f"{function}: {name} is {x.dtype}, q is {q.dtype}; convert one, e.g. {name}.to(q.dtype)")
    shapes = tuple(map(tuple, (q.shape, k.shape, v.shape)))
    fits = q.ndim == k.ndim == v.ndim == 4 and k.shape[:3] == v.shape[:3] and q.shape[0] == k.shape[0]
    if not fits or q.shape[3] != k.shape[3] or q.shape[1] % max(k.shape[1], 1) or 0 in (q.shape[3], v.shape[3]):
        raise ValueError(
            f"{function}: q must be (b, h, tq, d), k (b, hk, tk, d) and v (b, hk, tk, dv) with h a multiple of hk; got "
            f"{shapes[0]}, {shapes[1]}, {shapes[2]}"
        )
    tq, tk = q.shape[2], k.shape[2]
    if causal and tq > tk:
        raise ValueError(
            f"{function}: causal queries are the last positions of the keys, so there cannot be more of them: {tq} "
            f"queries, {tk} keys"
        )
    scale = float(q.shape[3] ** -0.5 if scale is None else scale)
    mask = None if attn_mask is None else _mask(function, attn_mask, (*q.shape[:2], tq, tk))
    return AttentionCall(q=q, k=k, v=v, causal=bool(causal), scale=scale, attn_mask=mask)


def _tensor(function, name, x):
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.ascontiguousarray(as_float32(x)))
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.device.type != "cpu":
        got = f"{x.dtype} on {x.device}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(
            f"{function}: {name} must be a CPU tensor of floats, got {got}; convert it, e.g. {name}.float()"
        )
    return x


def _mask(function, attn_mask, shape):
    mask = torch.as_tensor(attn_mask).detach()
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"{function}: attn_mask must be bool or float, got {mask.dtype}; convert it, e.g. mask.bool()")
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{function}: attn_mask must broadcast to {shape}, got {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        lowest = torch.finfo(mask.dtype).min / 2
        mask = mask.masked_fill(mask <= lowest, -torch.inf)
        mask = mask if mask.dtype == torch.float64 else mask.float()
    return mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))
