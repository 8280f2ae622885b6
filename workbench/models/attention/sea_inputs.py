"""SEA on inputs as models have them: any float dtype, grouped heads, padding wherever it stands."""

import torch

from workbench.models.attention.call import attention_call
from workbench.models.attention.sea import SEAAttention

__all__ = ["attend"]


def attend(layer: SEAAttention, q, k, v, attn_mask=None) -> torch.Tensor:
    """Return the context of a `SEAAttention` layer in the places of its tokens.

    The layer wants real tokens first: they are brought there in their order, and their contexts back.

    Parameters
    ----------
    q : (N, H, T, d) tensor of floats, not scaled. The layer's estimate needs every query, so none may be left out.
    k, v : (N, HK, T, d), H a multiple of HK.
    attn_mask : (N, T) bool or numbers, real tokens; padding may stand on either side and between them.

    Returns
    -------
    (N, H, T, d) in the dtype of q, zero at padding; the layer computes in its own dtype.

    Raises
    ------
    TypeError, ValueError : as `workbench.models.attention.call.attention_call` and `SEAAttention`.
    """
    call = attention_call("sea_inputs.attend", q, k, v, causal=layer.causal)
    (n, h, t), dtype = call.q.shape[:3], layer.projection.dtype
    if call.k.shape[2] != t:
        raise ValueError(f"sea_inputs.attend: SEA needs as many queries as keys, got {t} and {call.k.shape[2]}")
    real = torch.ones(n, t, dtype=torch.bool) if attn_mask is None else torch.as_tensor(attn_mask).bool()
    if real.shape != (n, t):
        raise ValueError(f"sea_inputs.attend: attn_mask must be (N, T) = ({n}, {t}), got {tuple(real.shape)}")
    order = torch.argsort(~real, dim=1, stable=True)[:, None, :, None]  # real tokens first
    groups = h // call.k.shape[1]
    parts = call.q, call.k.repeat_interleave(groups, dim=1), call.v.repeat_interleave(groups, dim=1)
    parts = (torch.take_along_dim(x.to(dtype), order, dim=2) for x in parts)
    context = layer(*parts, torch.arange(t) < real.sum(1, keepdim=True)).context
    back = torch.argsort(order, dim=2)
    return torch.take_along_dim(context, back, dim=2).to(call.q.dtype).masked_fill(~real[:, None, :, None], 0)
