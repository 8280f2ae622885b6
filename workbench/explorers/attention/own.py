"""A reader's own heads: files of queries and keys, of attention matrices or of masks, arrays, and layers of a model.

A matrix of attention weights A, or a mask, has no queries and keys, but is exactly the attention of such: with d = t,
queries log A and keys sqrt(d) I have the scores q . k / sqrt(d) = log A. The same way a mask joins q and k.
"""

import math

import numpy as np
import torch

from kernels.half_precision import as_float32, float_format
from workbench.data.limits import LIBRARY, Limits
from workbench.data.numpy_files import arrays_in
from workbench.data.unpacking import DataFileError, is_zip, opened, shown
from workbench.explorers.attention.knobs import MAX_TOKENS
from workbench.explorers.attention.method import DENSE_LIMIT
from workbench.explorers.attention.source import AttentionInput, of_head

__all__ = ["from_arrays", "from_call", "from_matrix", "read_attention"]

HIDDEN = -1e4  # the score of a pair that is not seen: its weight is 0 in float32
MATRIX_NAMES = ("attention", "attn", "weights", "mask", "attn_mask")


def read_attention(source, name: str | None = None, limits: Limits = LIBRARY) -> AttentionInput:
    """Read heads from an .npy or .npz file.

    Parameters
    ----------
    source : path of a file, or its bytes. An .npz holds q and k (and v) of shape (t, d), (heads, t, d) or
        (1, heads, t, d), keys with as many heads or fewer, each for as many query heads in a row; or one matrix
        (t, t), (heads, t, t) or (1, heads, t, t) of attention weights or a bool mask, alone or named attention or mask.
        An .npy holds such a matrix.
    name : what error messages call it; the file's own name unless given.
    limits : the most that is read; shapes and sizes are compared with it before any array is made.

    Raises
    ------
    ValueError : arrays missing, pickled, of wrong shape or dtype, too long or large, or not finite; names the file and
        the array. FileNotFoundError : no such path.
    """
    with opened(source, limits, name) as (called, stream):
        packed = is_zip(stream)
        with arrays_in(called, stream, limits) as arrays:
            if packed and "q" in arrays and "k" in arrays:
                keys = [key for key in ("q", "k", "v") if key in arrays]
                _check_heads(called, arrays, keys)
                read = [
                    _layer(called, key, arrays.read(key)) for key in keys
                ]  # one after the other: half precision grows
                return from_arrays(*read, title=f"your file {called}", called=called)
            key = _matrix_name(called, arrays)
            _check_matrix(called, arrays, key)
            return from_matrix(arrays.read(key), title=f"your file {called}", called=called)


def _matrix_name(name, arrays):
    held = list(arrays)
    named = [key for key in held if key in MATRIX_NAMES]
    if len(held) == 1 or len(named) == 1:
        return (named or held)[0]
    raise DataFileError(
        f"{name} must hold arrays q and k, or one matrix named attention or mask; it has "
        f"{', '.join(map(shown, held))}; save them under these names"
    )


def _check_heads(name, arrays, keys):
    for key in keys:
        dtype, shape = arrays.dtype(key), arrays.shape(key)
        if dtype.kind != "f" or len(shape) not in (2, 3, 4):
            raise DataFileError(f"{name}: {key} must be floats (.., t, d), got {dtype} {shape}; convert or reshape it")
        if 0 in shape:
            raise DataFileError(f"{name}: {key} is empty, its shape is {shape}")
    shapes = {key: (math.prod(arrays.shape(key)[:-2]), *arrays.shape(key)[-2:]) for key in keys}
    (h, t, d), told = shapes["q"], ", ".join(f"{key} {shape}" for key, shape in shapes.items())
    hk, tk = shapes["k"][:2]
    if tk != t:
        raise DataFileError(
            f"{name}: the pictures need a query for every key, got {told} (heads, tokens, width); save the queries "
            "of the whole text"
        )
    if h % hk or shapes["k"][2] != d or shapes.get("v", shapes["k"])[:2] != (hk, tk):
        raise DataFileError(
            f"{name}: q must be (heads, tokens, width), k of the same width and v with as many tokens, in as many "
            f"heads or a divisor of them; got {told}"
        )
    _check_length(name, t, MAX_TOKENS)


def _check_matrix(name, arrays, key):
    dtype, shape = arrays.dtype(key), arrays.shape(key)
    what = shown(key) if key else "the array"
    if dtype.kind not in "bf" or len(shape) not in (2, 3, 4) or shape[-1] != shape[-2] or 0 in shape:
        raise DataFileError(
            f"{name}: {what} must be attention weights or a bool mask of shape (.., t, t), got {dtype} {shape}; "
            "queries and keys go into an .npz as arrays q and k"
        )
    _check_length(name, shape[-1], DENSE_LIMIT)


def _check_length(name, tokens, most):
    if tokens > most:
        raise DataFileError(f"{name} has {tokens:,} tokens; at most {most:,} are read, so save fewer")


def from_arrays(q, k, v=None, *, causal=True, scale=None, attn_mask=None, title="your arrays", called="explore"):
    """Return heads from arrays or tensors.

    Parameters
    ----------
    q : (t, d), (h, t, d) or (1, h, t, d) of any float format.
    k, v : the same with as many heads or a divisor of them; v is k unless given, and may have another width.
    causal : whether a query sees only keys at its own position or before.
    scale : factor on q . k; 1 / sqrt(d) unless given.
    attn_mask : bool or float mask that broadcasts to (1, h, t, t), of up to 4,096 tokens; joins the scores.

    Raises
    ------
    ValueError : shapes that do not fit, or what is not finite.
    """
    q, k = _layer(called, "q", q), _layer(called, "k", k)
    v = k if v is None else _layer(called, "v", v)
    if q.shape[2] != k.shape[2] or q.shape[3] != k.shape[3] or k.shape[:3] != v.shape[:3] or q.shape[1] % k.shape[1]:
        told = ", ".join(str(tuple(x.shape[1:])) for x in (q, k, v))
        raise DataFileError(
            f"{called}: q, k, v must be (heads, tokens, width) with as many tokens, keys in as many heads as queries "
            f"or a divisor of them; got {told}"
        )
    groups = q.shape[1] // k.shape[1]
    k, v = (x if groups == 1 else x.repeat_interleave(groups, dim=1) for x in (k, v))
    q = q if scale is None else q * (scale * q.shape[3] ** 0.5)
    if attn_mask is not None:
        q, k = _joined(called, q, k, attn_mask)
    return of_head(title, q, k, v, 0, causal=causal)


def from_matrix(weights, *, title="your matrix", called="explore") -> AttentionInput:
    """Return heads whose attention is a matrix of weights, or uniform over the pairs of a mask.

    Parameters
    ----------
    weights : (t, t), (h, t, t) or (1, h, t, t), bool or floats of at least 0; rows are brought to sum to 1, and one
        that holds nothing is shown as uniform, which the title says. Causal if nothing stands right of the diagonal.
    """
    weights = weights.numpy() if isinstance(weights, torch.Tensor) else np.asarray(weights)
    weights = weights.astype(np.float32) if weights.dtype == np.bool_ else as_float32(weights)
    weights = weights.reshape(-1, *weights.shape[-2:])
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise DataFileError(
            f"{called}: attention weights must be finite and not negative; apply softmax to scores before saving them"
        )
    total = weights.sum(axis=2, keepdims=True)
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(weights / np.where(total == 0, 1, total)), HIDDEN)
    t = weights.shape[2]
    keys = np.broadcast_to(np.eye(t, dtype=np.float32) * np.float32(t**0.5), weights.shape)
    parts = (torch.from_numpy(np.array(x, np.float32))[None] for x in (logits, keys, keys))
    causal = not np.triu(weights, 1).any()
    title += " (rows that hold nothing are shown as uniform attention)" if (total == 0).any() else ""
    return of_head(title, *parts, 0, causal=causal)


def from_call(call, title) -> AttentionInput:
    """Return the first text that one layer of a model was called with, an `AttentionCall` of `workbench.models`."""
    mask = call.attn_mask
    mask = mask if mask is None else mask[:1]
    parts = (x.detach()[:1] for x in (call.q, call.k, call.v))
    return from_arrays(*parts, causal=call.causal, scale=call.scale, attn_mask=mask, title=title)


def _joined(called, q, k, attn_mask):
    """Return q and k with further columns whose product is a mask: q . k / sqrt(d) gains it exactly."""
    t, d = q.shape[2:]
    _check_length(called, t, DENSE_LIMIT)
    mask = torch.as_tensor(attn_mask)
    added = torch.where(mask, 0.0, HIDDEN) if mask.dtype == torch.bool else mask.float().clamp(min=HIDDEN)
    try:
        added = added.expand(1, q.shape[1], t, t)
    except RuntimeError:
        raise DataFileError(
            f"{called}: attn_mask must broadcast to {(1, q.shape[1], t, t)}, got {tuple(mask.shape)}"
        ) from None
    width = (d + t) ** 0.5
    q = torch.cat([q * (width / d**0.5), added * width], dim=3)
    return q, torch.cat([k, torch.eye(t).expand(1, k.shape[1], t, t)], dim=3)


def _layer(called, name, x):
    """Return (1, heads, t, d) float32."""
    if isinstance(x, torch.Tensor):
        x = x.detach().float().numpy() if x.is_floating_point() else x.detach().numpy()
    x = np.asarray(x)
    if float_format(x) is None or x.ndim not in (2, 3, 4) or 0 in x.shape or (x.ndim == 4 and len(x) > 1):
        raise DataFileError(
            f"{called}: {name} must be floats of shape (t, d), (heads, t, d) or (1, heads, t, d), got "
            f"{x.dtype} {x.shape}"
        )
    with np.errstate(over="ignore"):  # told below
        layer = np.ascontiguousarray(as_float32(x).reshape(-1, *x.shape[-2:]), np.float32)
    if not np.isfinite(layer).all():
        raise DataFileError(f"{called}: {name} holds NaN or infinity, or numbers too large for float32")
    return torch.from_numpy(layer)[None]
