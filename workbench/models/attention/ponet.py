"""PoNet: mix tokens by pooling at three ranges instead of attention, in linear time.

Tan et al. 2021, "PoNet: Pooling Network for Efficient Token Mixing in Long Sequences", arXiv 2110.02442.
Global aggregation (GA): one attention query per head, the mean of all queries. Segment max-pooling (SMP): channelwise
maximum over a segment. Local max-pooling (LMP): maximum over a window of three. Fusion: (g + s) * o + l.
Not causal: GA and SMP see the whole sequence. Symbols: b N tokens, D width, h heads, d = D / h.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    "POOLINGS",
    "FourierMixing",
    "PoNetEncoder",
    "PoNetMixing",
    "SelfAttentionMixing",
    "blank_special",
    "effective_maps",
    "global_aggregation",
    "hide_special",
    "influence_map",
    "local_max_pool",
    "lra_segment_index",
    "pooling_fusion",
    "segment_max_pool",
    "sentence_segment_index",
    "small_init",
    "sso_examples",
    "token_segment_index",
]

POOLINGS = ("ga", "smp", "lmp")
_FLOOR = -10000.0  # what padded and special tokens hold before a maximum is taken


def global_aggregation(hq, hk, keep=None):
    """Attend once per head with the mean query.

    Parameters
    ----------
    hq, hk : (b, h, N, d) float; the values are the keys.
    keep : (b, N) bool, real tokens; None means all.

    Returns
    -------
    g : (b, h, d) and its weights a : (b, h, N), rows sum to 1, zero on padding.

    Raises
    ------
    ValueError : shapes differ, or a sequence has no real token.

    Source
    ------
    Tan et al. 2021, section 3.1, Eq. 2-4.
    """
    if hq.shape != hk.shape or hq.ndim != 4:
        raise ValueError(f"global_aggregation: hq and hk must share one shape (b, h, N, d); got {hq.shape}, {hk.shape}")
    real = _real(keep, hq.shape[0], hq.shape[2], hq.device, "global_aggregation")[:, None, :, None]
    mean = (hq * real).sum(2) / real.sum(2)  # (b, h, d)
    logits = (hk @ mean.unsqueeze(-1)).squeeze(-1) * hq.shape[3] ** -0.5
    a = torch.softmax(logits.masked_fill(~real.squeeze(-1), -torch.inf), -1)
    return (a.unsqueeze(-2) @ hk).squeeze(-2), a


def segment_max_pool(x, segment_index, keep=None):
    """Give every token the channelwise maximum of its segment.

    Parameters
    ----------
    x : (b, N, D) float.
    segment_index : (b, N) or (N,) integers >= 0; a segment need not be contiguous.
    keep : (b, N) bool, real tokens; padded ones take no part and get 0.

    Returns
    -------
    (b, N, D).

    Raises
    ------
    ValueError : shapes do not fit, or the index is negative or not of integers.

    Source
    ------
    Tan et al. 2021, section 3.1, Eq. 5.
    """
    b, n, width = x.shape
    index = _segments(segment_index, b, n, "segment_max_pool")
    real = _real(keep, b, n, x.device, "segment_max_pool", allow_empty=True)
    filled = x if keep is None else x.masked_fill(~real.unsqueeze(-1), _FLOOR)
    groups = int(index.max()) + 1 if index.numel() else 0
    spread = index.unsqueeze(-1).expand(b, n, width)
    top = torch.full((b, groups, width), -torch.inf, dtype=x.dtype).scatter_reduce(1, spread, filled, "amax")
    found = top.gather(1, spread)
    return found if keep is None else found.masked_fill(~real.unsqueeze(-1), 0.0)


def local_max_pool(x, kernel_size=3, keep=None):
    """Give every token the channelwise maximum of a window around it, (b, N, D); borders use what exists.

    Raises
    ------
    ValueError : kernel_size is even or below 1.

    Source
    ------
    Tan et al. 2021, section 3.1 (window 3, stride 1).
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"local_max_pool: kernel_size must be odd and at least 1, got {kernel_size}")
    real = _real(keep, *x.shape[:2], x.device, "local_max_pool", allow_empty=True).unsqueeze(-1)
    filled = x if keep is None else x.masked_fill(~real, _FLOOR)
    pooled = F.max_pool1d(filled.mT, kernel_size, stride=1, padding=kernel_size // 2).mT
    return pooled if keep is None else pooled.masked_fill(~real, 0.0)


def hide_special(hl, special=None):
    """Take the tokens of ``special`` (b, N) out of their neighbours' reach: the local pool's input, (b, N, D)."""
    return hl if special is None else hl.masked_fill(special.unsqueeze(-1), _FLOOR)


def blank_special(pooled, special=None):
    """Give the tokens of ``special`` (b, N) nothing of a segment or local pool, (b, N, D)."""
    return pooled if special is None else pooled.masked_fill(special.unsqueeze(-1), 0.0)


def pooling_fusion(g, s, l, o):
    """Fuse the three ranges, (g + s) * o + l, elementwise on (b, N, D) (g broadcast over tokens).

    Source
    ------
    Tan et al. 2021, Eq. 6: the product with o keeps tokens of a segment apart; the local part is added bare.
    """
    return (g + s) * o + l


def lra_segment_index(n: int, segment_num: int) -> torch.Tensor:
    """Cut n tokens into segments of n // segment_num + 1, (n,) int64; may give fewer than ``segment_num``."""
    if segment_num < 1:
        raise ValueError(f"lra_segment_index: segment_num must be at least 1, got {segment_num}")
    return torch.arange(n) // (n // segment_num + 1)


def token_segment_index(input_ids, cls_id: int, sep_id: int) -> torch.Tensor:
    """Cut at [CLS] and [SEP], each a segment of its own: [CLS] a b [SEP] c [SEP] -> 0 1 1 2 3 4. (..., N) int64."""
    ids = torch.as_tensor(input_ids)
    start = ((ids == cls_id) | (ids == sep_id)).long()
    return (start.cumsum(-1) + F.pad(start, (1, 0))[..., :-1].cumsum(-1) - 1).clamp(min=0)


def sentence_segment_index(lengths) -> torch.Tensor:
    """Number the tokens of consecutive sentences of the given lengths, (sum of lengths,) int64."""
    lengths = torch.as_tensor(lengths)
    if (lengths < 0).any():
        raise ValueError("sentence_segment_index: lengths must not be negative")
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths)


class PoNetMixing(nn.Module):
    """Mix tokens by multi-granularity pooling and fusion; takes the place of self-attention.

    Parameters
    ----------
    dim, heads : width D, a multiple of the heads. Heads split only the global attention.
    use : which poolings take part, of "ga", "smp", "lmp".
    fuse : multiply by o; False adds everything (ablation: tokens of a segment become alike).
    second_stage : False uses the plain mean of keys as the global part (ablation).
    special_tokens : "zero" gives [CLS]/[SEP] rows the global part only and hides them from their neighbours; "plain"
        treats them as any token.
    """

    def __init__(self, dim, heads, *, use=POOLINGS, fuse=True, second_stage=True, special_tokens="zero", causal=False):
        super().__init__()
        if causal:
            raise ValueError("PoNetMixing: global and segment pooling see the whole sequence; it cannot be causal")
        if dim % heads:
            raise ValueError(f"PoNetMixing: dim {dim} must be a multiple of heads {heads}")
        if not set(use) <= set(POOLINGS) or special_tokens not in ("zero", "plain"):
            raise ValueError(
                f"PoNetMixing: use takes {POOLINGS}, special_tokens 'zero' or 'plain'; got {use}, {special_tokens!r}"
            )
        self.heads, self.use, self.fuse = heads, tuple(use), fuse
        self.second_stage, self.special_tokens = second_stage, special_tokens
        self.q, self.k, self.o, self.s, self.l = (nn.Linear(dim, dim) for _ in range(5))
        self.out = nn.Linear(dim, dim)

    def project(self, x):
        """Return the five projections of (b, N, D).

        Returns
        -------
        hq, hk : (b, h, N, d), per head; hs, hl, ho : (b, N, D), for the segment pool, the local pool and the product.
        """
        hq, hk = (y(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.q, self.k))
        return hq, hk, self.s(x), self.l(x), self.o(x)

    def forward(self, x, segment_index, keep=None, special=None, *, return_maps=False):
        """Map (b, N, D) to (b, N, D); padded rows are 0 before the output projection's bias and after it.

        ``special`` (b, N) bool marks [CLS]/[SEP]. With ``return_maps`` also return `effective_maps`' arrays.
        """
        b, n, dim = x.shape
        real = _real(keep, b, n, x.device, "PoNetMixing")
        special = None if special is None or self.special_tokens == "plain" else special.bool()
        hq, hk, hs, hl, ho = self.project(x)
        g, a = global_aggregation(hq, hk, real) if self.second_stage else _mean_keys(hk, real)
        nothing, hidden = x.new_zeros(1), hide_special(hl, special)
        g = g.flatten(1).unsqueeze(1) if "ga" in self.use else nothing  # (b, 1, D)
        s = blank_special(segment_max_pool(hs, segment_index, keep), special) if "smp" in self.use else nothing
        l = blank_special(local_max_pool(hidden, keep=keep), special) if "lmp" in self.use else nothing
        pooled = pooling_fusion(g, s, l, ho) if self.fuse else (g + s + l).expand(b, n, dim)
        out = self.out(pooled)
        out = out if keep is None else out.masked_fill(~real.unsqueeze(-1), 0.0)
        if not return_maps:
            return out
        return out, effective_maps(a, hs, hidden, segment_index, self.heads, real)


@dataclass(frozen=True)
class Maps:
    """What each token reads per head, (b, h, N, N) float32; every row of every map sums to 1.

    ``ga`` : equal rows of attention; ``smp``, ``lmp`` : share of the head's channels won by each token (ties: first).
    """

    ga: np.ndarray
    smp: np.ndarray
    lmp: np.ndarray


def effective_maps(a, hs, hl, segment_index, heads, keep=None, kernel_size=3) -> Maps:
    """Build the maps from the global weights a (b, h, N) and the inputs of both max-pools (b, N, D), for views."""
    b, n, dim = hs.shape
    index = _segments(segment_index, b, n, "effective_maps")
    real = _real(keep, b, n, hs.device, "effective_maps")
    position = torch.arange(n)
    near = (position - position[:, None]).abs() <= kernel_size // 2
    same = index[:, :, None] == index[:, None, :]
    maps = {"ga": a.unsqueeze(2).expand(b, heads, n, n)}
    for name, x, window in (("smp", hs, same), ("lmp", hl, near.expand(b, n, n))):
        open_to = window & real[:, None, :]
        won = torch.zeros(b, heads, n, n)
        for channel in range(dim):  # one channel at a time keeps memory at N x N
            values = x[:, :, channel].unsqueeze(1).expand(b, n, n).masked_fill(~open_to, -torch.inf)
            won[:, channel * heads // dim].scatter_add_(2, values.argmax(2, keepdim=True), torch.ones(b, n, 1))
        maps[name] = won * heads / dim
    return Maps(**{name: value.detach().numpy().astype(np.float32) for name, value in maps.items()})


def influence_map(mixing, x, segment_index) -> np.ndarray:
    """Return how far each token's output moves with each token's input: Frobenius norms of d out_i / d x_j, (N, N).

    Parameters
    ----------
    mixing : a module called as ``mixing(x, segment_index)``.
    x : (1, N, D), N up to 128: the whole Jacobian is made.

    Raises
    ------
    ValueError : more than one sequence, or more than 128 tokens.
    """
    if x.ndim != 3 or x.shape[0] != 1 or x.shape[1] > 128:
        raise ValueError(f"influence_map: x must be (1, N, D) with N up to 128, got {tuple(x.shape)}")
    jacobian = torch.autograd.functional.jacobian(lambda y: mixing(y, segment_index), x, vectorize=True)
    return jacobian[0, :, :, 0].square().sum((1, 3)).sqrt().detach().numpy()  # (N, D, N, D) before the sums


class SelfAttentionMixing(nn.Module):
    """Softmax self-attention with the same call as `PoNetMixing`: the quadratic baseline."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x, segment_index=None, keep=None, special=None):
        """Map (b, N, D) to (b, N, D)."""
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        mask = None if keep is None else keep[:, None, None, :]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class FourierMixing(nn.Module):
    """FNet's mixing (Lee-Thorp et al. 2022): the real part of the 2-D FFT over tokens and channels.

    Parameters
    ----------
    orthonormal : divide the sums by sqrt(N D), so that mixing keeps the size of what it mixes. False leaves them as
        they are, as FNet's released code does: sqrt(N D) times as large beside the residual, 181 at N = 512, D = 64.
    """

    def __init__(self, *, orthonormal=True):
        super().__init__()
        self.norm = "ortho" if orthonormal else "backward"

    def forward(self, x, segment_index=None, keep=None, special=None):
        """Map (b, N, D) to (b, N, D)."""
        return torch.fft.fft2(x, norm=self.norm).real


class PoNetEncoder(nn.Module):
    """A transformer encoder over tokens whose mixing layer is given.

    Parameters
    ----------
    vocabulary, max_tokens : sizes of the token and position tables.
    mixing : makes one layer's mixing module from (dim, heads).
    norm : "pre" (LRA) or "post" (BERT skeleton).
    dropout : on what each part adds to the stream, and on the embeddings; none on pooling weights.
    """

    def __init__(
        self,
        vocabulary,
        max_tokens,
        *,
        dim=64,
        heads=2,
        layers=2,
        hidden=128,
        mixing=PoNetMixing,
        norm="pre",
        dropout=0.1,
    ):
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"PoNetEncoder: norm must be 'pre' or 'post', got {norm!r}")
        self.pre = norm == "pre"
        self.tokens, self.positions = nn.Embedding(vocabulary, dim), nn.Embedding(max_tokens, dim)
        self.mixings = nn.ModuleList(mixing(dim, heads) for _ in range(layers))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * layers + 1))
        self.drop = nn.Dropout(dropout)
        self.apply(small_init)

    def forward(self, ids, segment_index, keep=None, special=None, *, until=None):
        """Map token ids (b, N) to features (b, N, dim), or to what the mixing of layer ``until`` is given."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        x = self.drop(x if self.pre else self.norms[-1](x))
        for i, (mix, feed) in enumerate(zip(self.mixings, self.feeds, strict=True)):
            first, second = self.norms[2 * i], self.norms[2 * i + 1]
            if i == until:
                return first(x) if self.pre else x
            if self.pre:
                x = x + self.drop(mix(first(x), segment_index, keep, special))
                x = x + self.drop(feed(second(x)))
            else:
                x = first(x + self.drop(mix(x, segment_index, keep, special)))
                x = second(x + self.drop(feed(x)))
        return self.norms[-1](x) if self.pre else x


def small_init(module):
    """Draw the weights of a linear map or table from a normal of deviation .02, biases 0 (Tan et al., as in BERT)."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


def sso_examples(sentences, rng, *, count, swaps=True):
    """Draw sentence pairs for the sentence structural objective.

    Parameters
    ----------
    sentences : list of lists: chunks of consecutive sentences (any objects); at least two chunks of two sentences.
    rng : numpy Generator.
    swaps : False leaves the swapped pairs out: BERT's next sentence prediction (ablation), half of the others each.

    Returns
    -------
    list of (a, b, label): 0 = b follows a, 1 = the two are swapped, 2 = b comes from another chunk; a third each on
    average.

    Source
    ------
    Tan et al. 2021, section 3.2 (sentence structural objective).
    """
    usable = [chunk for chunk in sentences if len(chunk) >= 2]
    if len(usable) < 2:
        raise ValueError("sso_examples: needs at least two chunks of two sentences or more")
    examples = []
    for _ in range(count):
        label = int(rng.integers(3)) if swaps else 2 * int(rng.integers(2))
        here = int(rng.integers(len(usable)))
        chunk = usable[here]
        at = int(rng.integers(len(chunk) - 1))
        first, second = chunk[at], chunk[at + 1]
        if label == 1:
            first, second = second, first
        elif label == 2:
            other = usable[(here + 1 + int(rng.integers(len(usable) - 1))) % len(usable)]
            second = other[int(rng.integers(len(other)))]
        examples.append((first, second, label))
    return examples


def _mean_keys(hk, real):
    weight = real.to(hk.dtype) / real.sum(1, keepdim=True)
    a = weight[:, None, :].expand(hk.shape[:3])
    return (a.unsqueeze(-2) @ hk).squeeze(-2), a


def _segments(segment_index, b, n, name):
    index = torch.as_tensor(segment_index)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"{name}: segment_index must hold integers, got {index.dtype}")
    if index.shape not in ((n,), (b, n)):
        raise ValueError(f"{name}: segment_index must have shape ({n},) or ({b}, {n}), got {tuple(index.shape)}")
    if index.numel() and index.min() < 0:
        raise ValueError(f"{name}: segment_index must not be negative, got {int(index.min())}")
    return index.long().expand(b, n)


def _real(keep, b, n, device, name, *, allow_empty=False):
    if keep is None:
        return torch.ones(b, n, dtype=torch.bool, device=device)
    keep = torch.as_tensor(keep).bool()
    if keep.shape != (b, n):
        raise ValueError(f"{name}: keep must have shape ({b}, {n}), got {tuple(keep.shape)}")
    if not allow_empty and not keep.any(1).all():
        raise ValueError(f"{name}: keep marks no real token in sequence {int((~keep.any(1)).nonzero()[0])}")
    return keep
