r"""GEAR: a cache of keys and values in few bits, with the error of quantisation repaired by low rank and outliers.

.. math:: X \approx D + A B^T + S

D is what any quantiser makes of X without its outliers S, which are stored exactly, and A B^T is the best cheap
approximation of the error that is left. Everything is computed as the cache grows, without training or calibration.

Source
------
Kang et al. 2024, "GEAR: an efficient KV cache compression recipe for near-lossless generative inference of LLM".
*Differs from the released code:* codes have 2^b levels at every b; outliers are counted by the length of their own
vector; every sequence of a batch has factors of its own; an outlier's code is 0, which nobody reads.
"""

from dataclasses import dataclass

import numpy as np

from kernels.attention.compressed_blocks import CompressedBlocks
from kernels.attention.quantised_decode import quantised_decode, quantised_scores, quantised_weighted_sum
from kernels.check import as_int, as_number, check_choice
from kernels.factor.power_iteration import power_iteration_lowrank
from kernels.formats.quantised import UNIT, group_codes, pack_bits
from kernels.masks.outliers import SparseOutliers, extract_outliers

__all__ = ["BACKBONES", "BY_CHANNEL", "WHOLE", "GearBlock", "GearCache", "GearConfig", "gear_compress"]

WHOLE = 16  # bits of a cache that is not compressed
BACKBONES = ("kivi", "kcvt", "token")
BY_CHANNEL = {"kivi": True, "kcvt": True, "token": False}  # how keys are grouped; values always are token by token


@dataclass(frozen=True, kw_only=True)
class GearConfig:
    """How a cache is compressed.

    Parameters
    ----------
    backbone : the quantiser. "kivi": keys in groups of tokens of a channel, values in groups of channels of a token;
        "kcvt": the same with one group for all tokens of a block, and for all channels; "token": both in groups of
        channels.
    bits : of a code, from 1 to 8; 16 keeps everything in half precision.
    group : numbers that share a scale ("kivi" and "token").
    rank, rank_gen : rank of the error's low-rank part, of the prompt and of each later block; 0 leaves it out.
    sparsity : share of every vector (a key's channel over a block, a value's token) that is stored exactly, half of it
        from each end; 0 leaves it out.
    loops : passes of the power iteration.
    buffer : newest tokens that stay in half precision until there are so many of them.
    lowrank_per_head : whether each head has a low-rank part of its own, or all heads of a layer share the factor A.
    min_outliers : entries that go at each end of a vector even where the share gives fewer.
    seed : of the power iteration's start.
    """

    backbone: str = "kivi"
    bits: int = 2
    group: int = 64
    rank: int = 4
    rank_gen: int = 2
    sparsity: float = 0.02
    loops: int = 3
    buffer: int = 64
    lowrank_per_head: bool = True
    min_outliers: int = 0
    seed: int = 0

    def __post_init__(self):
        name = "GearConfig"
        check_choice(self.backbone, BACKBONES, function=name, name="backbone")
        if as_int(self.bits, function=name, name="bits", low=1) != WHOLE:
            as_int(self.bits, function=name, name="bits", low=1, high=8)
        for field, low in (("group", 1), ("rank", 0), ("rank_gen", 0), ("loops", 1), ("buffer", 1), ("min_outliers", 0),
                           ("seed", 0)):  # fmt: skip
            as_int(getattr(self, field), function=name, name=field, low=low)
        if as_number(self.sparsity, function=name, name="sparsity", low=0, high=1) == 1:
            raise ValueError(f"{name}: sparsity must be below 1, got 1; bits={WHOLE} stores everything exactly")
        if self.backbone == "kivi" and self.bits != WHOLE and self.buffer % self.group:
            raise ValueError(
                f"{name}: buffer must be a multiple of group, so that whole groups of tokens are compressed; got "
                f"{self.buffer} and {self.group}"
            )
        if self.rank_gen > self.buffer and self.bits != WHOLE:
            raise ValueError(f"{name}: rank_gen must be at most buffer {self.buffer}, got {self.rank_gen}")


@dataclass(frozen=True, eq=False)
class GearBlock:
    """Keys or values that were compressed together, or several such blocks of equal length."""

    blocks: CompressedBlocks

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, tokens, d)."""
        return self.blocks.batch, self.blocks.heads, self.blocks.length, self.blocks.d

    def dense(self, *, low_rank=True, outliers=True) -> np.ndarray:
        """Return what the block stands for, float32 (b, h, n, d); either correction may be left out."""
        return self.blocks.dense(low_rank=low_rank, outliers=outliers)

    def nbytes(self, breakdown=False):
        """Return the bytes, in all or by what they hold."""
        return self.blocks.bytes_by_part() if breakdown else self.blocks.nbytes

    def scores(self, q) -> np.ndarray:
        """Return q X^T of keys, float32 (b, query heads, n), for q (b, query heads, d), float32."""
        return quantised_scores(q, self.blocks)

    def weighted_sum(self, p) -> np.ndarray:
        """Return p X of values, float32 (b, query heads, d), for p (b, query heads, n), float32."""
        return quantised_weighted_sum(p, self.blocks)


def gear_compress(x, kind, cfg=None, rank=None) -> GearBlock:
    """Compress keys or values as one block.

    Parameters
    ----------
    x : (b, h, n, d), NumPy array or torch tensor of floats, finite; keys after their rotary embedding. It is rounded to
        half precision first, which is what an uncompressed cache holds.
    kind : "key" or "value".
    cfg : GearConfig; the default one unless given.
    rank : of the low-rank part; that of ``cfg`` unless given.

    Returns
    -------
    GearBlock.

    Raises
    ------
    TypeError : x holds no floats.
    ValueError : shape, NaN, a group that does not divide its axis, or a rank above min(n, d).

    Source
    ------
    As of the module; Algorithm 1.
    """
    cfg = cfg or GearConfig()
    x = _halves(x, "gear_compress", "x").astype(np.float32)
    check_choice(kind, ("key", "value"), function="gear_compress", name="kind")
    b, h, n, d = x.shape
    rank = as_int(cfg.rank if rank is None else rank, function="gear_compress", name="rank", low=0, high=min(n, d))
    if cfg.bits == WHOLE or not x.size or n > 2**16 or h * d > 2**16:
        raise ValueError(
            f"gear_compress: takes 1 to 65,536 tokens and channels and 1 to 8 bits, got shape {x.shape} and {cfg.bits} "
            "bits"
        )
    by_channel = kind == "key" and BY_CHANNEL[cfg.backbone]
    filled, found = _without_outliers(x, kind, cfg)
    codes, scale, zero, group = _quantised(filled, by_channel, cfg)
    gone = _places(found, kind, x.shape)
    codes[np.swapaxes(gone, 2, 3) if by_channel else gone] = 0
    places, values = found.places.astype(np.uint16), found.values.astype(np.float16)
    if kind == "value":
        places, values = places.reshape(b, n, -1), values.reshape(b, n, -1)
    nothing = {"factor": np.zeros((1, b, 1, 0, -(-n // UNIT) * UNIT), np.float16),
               "basis": np.zeros((1, b, h, 0, d), np.float16)}  # fmt: skip
    made = {
        "kind": kind, "tokens": n, "d": d, "bits": cfg.bits, "group": group, "by_channel": by_channel,
        "codes": pack_bits(codes, cfg.bits)[None], "scale": scale[None], "zero": zero[None], "places": places[None],
        "values": values[None],
    }  # fmt: skip
    block = CompressedBlocks(**made, **nothing)
    if rank:
        error = np.where(gone, np.float32(0), x - block.dense())
        made |= dict(zip(("factor", "basis"), _factors(error, rank, cfg), strict=True))
        block = CompressedBlocks(**made)
    return GearBlock(block)


class GearCache:
    """The cache of one layer: compressed blocks of the prompt and of later tokens, and a buffer of the newest ones.

    Old blocks are never compressed again: cache = [prompt | block 1 | ... | block j | buffer].

    Parameters
    ----------
    cfg : GearConfig; the default one unless given.

    Examples
    --------
    >>> cache = GearCache(GearConfig(bits=4))
    >>> cache.prefill(keys, values)                 # of the prompt, (b, h, n, d), NumPy arrays or torch tensors
    >>> cache.append(key, value)                    # of the next token, (b, h, 1, d)
    >>> out = cache.attend(query)                   # (b, query heads, 1, d)
    """

    def __init__(self, cfg=None):
        self.cfg = cfg or GearConfig()
        self._segments: dict[str, list[_Segment]] = {"key": [], "value": []}
        self._recent: dict[str, np.ndarray] = {}
        self._held = 0

    def prefill(self, keys, values) -> None:
        """Take the prompt: whole multiples of the buffer are compressed together, the rest waits in the buffer.

        Attention within the prompt itself should see exact keys and values.

        Raises
        ------
        ValueError : the cache holds tokens already, or the shapes differ.
        """
        if self.length:
            raise ValueError("GearCache.prefill: the cache must be empty; use append for later tokens")
        k, v = self._pair(keys, values, "GearCache.prefill")
        whole = 0 if self.cfg.bits == WHOLE else k.shape[2] // self.cfg.buffer * self.cfg.buffer
        for start in range(0, whole, 2**16):  # places of outliers take 16 bits
            part = slice(start, min(whole, start + 2**16))
            self._compress(k[:, :, part], v[:, :, part], self.cfg.rank)
        self._push(k[:, :, whole:], v[:, :, whole:])

    def append(self, keys, values) -> None:
        """Take the keys and values of the next tokens, (b, h, t, d); full buffers are compressed as they fill up."""
        k, v = self._pair(keys, values, "GearCache.append")
        start = 0
        while start < k.shape[2]:
            room = k.shape[2] if self.cfg.bits == WHOLE else self.cfg.buffer - self._held
            self._push(k[:, :, start : start + room], v[:, :, start : start + room])
            start += room
            if self.cfg.bits != WHOLE and self._held == self.cfg.buffer:
                full = (self._recent["key"][:, :, : self._held], self._recent["value"][:, :, : self._held])
                self._compress(*full, self.cfg.rank_gen)
                self._held = 0

    def attend(self, q, mask=None, *, scale=None):
        """Return the attention of one query token over everything that the cache holds.

        Parameters
        ----------
        q : (b, query heads, 1, d), NumPy array or torch tensor; query heads a multiple of the cache's heads.
        mask : bool (b, 1 or query heads, 1, length), True where a token may be seen; all unless given.
        scale : factor of the scores, 1 / sqrt(d) unless given.

        Returns
        -------
        (b, query heads, 1, d), of the kind and dtype of q.

        Raises
        ------
        ValueError : an empty cache, or shapes that do not fit.
        """
        if not self._recent:
            raise ValueError("GearCache.attend: the cache is empty; call prefill or append first")
        given, mask = _numpy(q), None if mask is None else _numpy(mask)
        if given.ndim != 4 or given.shape[2] != 1:
            raise ValueError(f"GearCache.attend: q must be (b, query heads, 1, d), got shape {given.shape}")
        if mask is not None and (mask.ndim != 4 or mask.shape[2] != 1):
            raise ValueError(f"GearCache.attend: mask must be (b, query heads, 1, length), got shape {mask.shape}")
        out = quantised_decode(
            np.ascontiguousarray(given[:, :, 0].astype(np.float32)),
            self.blocks("key"), self.blocks("value"), self._recent["key"], self._recent["value"], recent=self._held,
            scale=scale, mask=None if mask is None else np.ascontiguousarray(mask[:, :, 0]),
        )[:, :, None]  # fmt: skip
        return _like(out, q)

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return sum(x.length for x in self.blocks("key")) + self._held

    @property
    def compressed(self) -> int:
        """Tokens that are compressed; the rest is in the buffer."""
        return self.length - self._held

    def blocks(self, kind) -> list[CompressedBlocks]:
        """Return the compressed blocks of "key" or "value", oldest first."""
        return [segment.blocks for segment in self._segments[kind]]

    def recent(self, kind) -> np.ndarray:
        """Return the buffer of "key" or "value", float16 (b, h, tokens, d)."""
        return self._recent[kind][:, :, : self._held]

    def dense(self, kind) -> np.ndarray:
        """Return everything that the cache stands for, float32 (b, h, length, d)."""
        parts = [*(x.dense() for x in self.blocks(kind)), self.recent(kind).astype(np.float32)]
        return np.concatenate(parts, axis=2)

    def nbytes(self, breakdown=False):
        """Return the bytes of all tokens, in all or by what they hold."""
        found = dict.fromkeys(("codes", "scales", "low rank", "outliers"), 0)
        for kind in self._segments:
            for blocks in self.blocks(kind):
                for part, size in blocks.bytes_by_part().items():
                    found[part] += size
        found["buffer"] = sum(self.recent(kind).nbytes for kind in self._recent)
        return found if breakdown else sum(found.values())

    def _pair(self, keys, values, function):
        k, v = _halves(keys, function, "keys"), _halves(values, function, "values")
        if k.shape != v.shape:
            raise ValueError(f"{function}: keys and values must have one shape, got {k.shape} and {v.shape}")
        if self._recent:
            b, h, _, d = self._recent["key"].shape
            if (k.shape[0], k.shape[1], k.shape[3]) != (b, h, d):
                raise ValueError(f"{function}: the cache holds (b, h, d) = {(b, h, d)}, got shape {k.shape}")
        return k, v

    def _push(self, k, v):
        held = self._held + k.shape[2]
        for kind, x in (("key", k), ("value", v)):
            room = self._recent.get(kind)
            if room is None or room.shape[2] < held:
                size = max(self.cfg.buffer, held if room is None else 2 * held)
                grown = np.zeros((x.shape[0], x.shape[1], size, x.shape[3]), np.float16)
                if room is not None:
                    grown[:, :, : self._held] = room[:, :, : self._held]
                self._recent[kind] = grown
            self._recent[kind][:, :, self._held : held] = x
        self._held = held

    def _compress(self, k, v, rank):
        rank = min(rank, k.shape[2], k.shape[3])
        for kind, x in (("key", k), ("value", v)):
            block, segments = gear_compress(x, kind, self.cfg, rank).blocks, self._segments[kind]
            if not (segments and segments[-1].takes(block)):
                segments.append(_Segment())
            segments[-1].add(block)


class _Segment:
    """Blocks of one size in arrays that grow by doubling, so that adding one copies little."""

    FIELDS = ("codes", "scale", "zero", "factor", "basis", "places", "values")

    def __init__(self):
        self.blocks: CompressedBlocks
        self._arrays: dict[str, np.ndarray] = {}
        self._count = 0

    def takes(self, block) -> bool:
        """Tell whether the block has the shape of those that are here."""
        return all(getattr(block, name).shape[1:] == self._arrays[name].shape[1:] for name in self.FIELDS)

    def add(self, block) -> None:
        """Put a block behind the others."""
        for name in self.FIELDS:
            new, old = getattr(block, name), self._arrays.get(name)
            if old is None:
                self._arrays[name] = new
            else:
                if len(old) == self._count:
                    self._arrays[name] = np.concatenate([old, np.zeros_like(old)])
                self._arrays[name][self._count] = new[0]
        self._count += 1
        how = {name: getattr(block, name) for name in ("kind", "tokens", "d", "bits", "group", "by_channel")}
        self.blocks = CompressedBlocks(**how, **{name: x[: self._count] for name, x in self._arrays.items()})


def _without_outliers(x, kind, cfg):
    """Return x with its outliers filled, and the outliers of each key's channel, or of each value's token."""
    if kind == "key":
        return extract_outliers(x, cfg.sparsity, axis=2, at_least=cfg.min_outliers)
    rows = np.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)  # (b, n, h d)
    filled, found = extract_outliers(rows, cfg.sparsity, at_least=cfg.min_outliers)
    return np.swapaxes(filled.reshape(x.shape[0], x.shape[2], x.shape[1], x.shape[3]), 1, 2), found


def _places(found: SparseOutliers, kind, shape) -> np.ndarray:
    """Return bool (b, h, n, d), True where an outlier was."""
    b, h, n, d = shape
    gone = np.zeros((b, h, d, n) if kind == "key" else (b, n, h * d), bool)
    np.put_along_axis(gone, found.places.astype(np.int64), True, -1)
    return np.swapaxes(gone, 2, 3) if kind == "key" else np.swapaxes(gone.reshape(b, n, h, d), 1, 2)


def _quantised(x, by_channel, cfg):
    """Return codes as they are packed, scale and low end as `CompressedBlocks` holds them, and the size of a group."""
    b, h, n, d = x.shape
    if by_channel:
        group = n if cfg.backbone == "kcvt" else cfg.group
        return *group_codes(x, cfg.bits, axis=2, group=group), group
    rows = np.swapaxes(x, 1, 2).reshape(b, n, h * d)
    group = h * d if cfg.backbone == "kcvt" else cfg.group
    codes, scale, zero = group_codes(rows, cfg.bits, group=group)
    codes = np.ascontiguousarray(np.swapaxes(codes.reshape(b, n, h, d), 1, 2))
    if d % group == 0:  # groups of each head lie together
        scale, zero = (np.ascontiguousarray(np.swapaxes(s.reshape(b, n, h, -1), 1, 2)) for s in (scale, zero))
    else:
        scale, zero = scale[:, None], zero[:, None]
    return codes, scale, zero, group


def _factors(error, rank, cfg):
    """Return A^T and B^T of the error's low-rank part in half precision; numbers of A are about 1."""
    b, h, n, d = error.shape
    how = {"loops": cfg.loops, "seed": cfg.seed}
    if cfg.lowrank_per_head:
        a, basis = power_iteration_lowrank(error, rank, **how)
    else:
        a, basis = power_iteration_lowrank(np.swapaxes(error, 1, 2).reshape(b, 1, n, h * d), rank, **how)
        basis = basis.reshape(b, h, d, rank)
    factor = np.zeros((1, b, a.shape[1], rank, -(-n // UNIT) * UNIT), np.float16)
    factor[0, ..., :n] = np.swapaxes(a, -1, -2) * np.float32(n**0.5)
    return factor, np.ascontiguousarray(np.swapaxes(basis, -1, -2) / np.float32(n**0.5))[None].astype(np.float16)


def _numpy(x):
    return x.detach().cpu().float().numpy() if hasattr(x, "detach") and x.is_floating_point() else np.asarray(x)


def _like(out, given):
    """Return an array as a tensor where a tensor was given, in its dtype."""
    if not hasattr(given, "detach"):
        return out.astype(given.dtype)
    import torch

    return torch.from_numpy(out).to(given.dtype)


def _halves(x, function, name):
    found = _numpy(x)
    if found.dtype.kind != "f":
        raise TypeError(f"{function}: {name} must hold floats, got {found.dtype}")
    if found.ndim != 4:
        raise ValueError(f"{function}: {name} must be (b, h, n, d), got shape {found.shape}")
    with np.errstate(over="ignore"):
        half = found.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(
            f"{function}: {name} must be finite and at most 65,504 in magnitude, which half precision holds"
        )
    return half
