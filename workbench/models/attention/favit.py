"""FaViT: a window's cost, the whole image's reach. Keys are fused across windows.

Qin et al. 2023, "Factorization Vision Transformer", arXiv 2312.08614. Factorization self-attention (FaSA) cuts the map
into windows and fuses the tokens at the same place of ALL windows into one key: M x M keys, shared by every query.
Channels are split into a global group (strided convolution), a fine group (dilation 1) and a coarse group (dilation
sr). Symbols: B images, H x W map, N = H W tokens, C channels, h heads, M window, s = dilation (M - 1) + 1 span,
n_w windows, r = a M + b place in a window.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.favit_windows import factorized_keys, fusion_matrix, window_source_index

__all__ = [
    "SIZES",
    "FaSA",
    "FaViT",
    "FaViTBlock",
    "WindowAttention",
    "attention_products",
    "effective_attention",
    "factorized_keys",
    "fasa_multiply_adds",
    "favit",
    "favit_b0",
    "favit_b1",
    "favit_b2",
    "favit_b3",
    "fusion_matrix",
    "trace",
    "window_source_index",
]


def channel_groups(dim, sr_ratio) -> tuple[int, ...]:
    """Return the channels of the global, fine and coarse group: 2:7:7 of 16, or 1:7 of 8 where sr is 1.

    Raises
    ------
    ValueError : dim is no multiple of 16 (8).
    """
    parts = (1, 7) if sr_ratio == 1 else (2, 7, 7)
    if dim % sum(parts):
        raise ValueError(f"channel_groups: dim must be a multiple of {sum(parts)} at sr {sr_ratio}, got {dim}")
    return tuple(dim // sum(parts) * part for part in parts)


@dataclass(frozen=True)
class GroupMap:
    """Attention of one channel group: weights (B, h, N, keys), and where its keys come from."""

    name: str
    weights: torch.Tensor


class _WindowGroup(nn.Module):
    """Keys and values of one local group: fusion, two small linear maps, and a depthwise convolution on the values."""

    def __init__(self, channels, heads, window, dilation, pooling):
        super().__init__()
        self.heads, self.window, self.dilation, self.pooling = heads, window, dilation, pooling
        self.fuse, self.kv = (
            nn.Linear(channels // heads, channels // heads),
            nn.Linear(channels // heads, 2 * channels // heads),
        )
        self.value_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x_map):
        z = factorized_keys(x_map, window=self.window, dilation=self.dilation, pooling=self.pooling, heads=self.heads)
        k, v = self.kv(self.fuse(z)).chunk(2, -1)  # (B, h, M*M, c/h)
        grid = v.transpose(2, 3).flatten(1, 2).unflatten(2, (self.window, self.window))  # (B, c, M, M)
        return k, v + self.value_conv(grid).flatten(2).unflatten(1, (self.heads, -1)).mT


class FaSA(nn.Module):
    """Factorization self-attention.

    Parameters
    ----------
    dim, heads : channels, a multiple of 16 (8 where sr is 1); local groups must divide among the heads.
    sr_ratio : stride of the global group's convolution and dilation of the coarse group.
    window : M.
    pooling : as `factorized_keys`; "released" by default, as in the published models.

    Raises
    ------
    ValueError : dim does not divide.

    Source
    ------
    Qin et al. 2023, section 3.2. The per-head split of q takes the groups inside each head, as released.
    """

    def __init__(self, dim, heads, sr_ratio, *, window=7, pooling="released", qkv_bias=True):
        super().__init__()
        c0, *local = channel_groups(dim, sr_ratio)
        if any(c % heads for c in local):
            raise ValueError(f"FaSA: local groups of {local} channels do not divide among {heads} heads")
        self.heads, self.sr, self.split = heads, sr_ratio, (c0, *local)
        self.q, self.out = nn.Linear(dim, dim, bias=qkv_bias), nn.Linear(dim, dim)
        self.global_conv = nn.Conv2d(c0, c0, sr_ratio, stride=sr_ratio)
        self.global_norm = nn.LayerNorm(c0)
        self.global_kv = nn.Linear(c0, 2 * c0, bias=qkv_bias)
        self.global_value_conv = nn.Conv2d(c0, c0, 3, padding=1, groups=c0)
        self.local_depthwise = nn.Conv2d(sum(local), sum(local), 3, padding=1, groups=sum(local))
        self.local_pointwise = nn.Conv2d(sum(local), sum(local), 1)
        dilations = (1,) if sr_ratio == 1 else (1, sr_ratio)
        self.local = nn.ModuleList(
            _WindowGroup(c, heads, window, dilation, pooling) for c, dilation in zip(local, dilations, strict=True)
        )

    def forward(self, x, height, width, *, return_maps=False):
        """Map (B, H*W, C) to the same shape; with ``return_maps`` also a list of `GroupMap`, global group first."""
        n = x.shape[1]
        if n != height * width:
            raise ValueError(f"FaSA: x has {n} tokens, the map {height} x {width} = {height * width}")
        if height % self.sr or width % self.sr:
            raise ValueError(f"FaSA: map {height} x {width} must be a multiple of sr {self.sr} on both sides")
        c0, *local = self.split
        q = self.q(x)
        x_map = x.mT.unflatten(2, (height, width))
        outs, maps = [], []

        summary = self.global_conv(x_map[:, :c0])  # (B, c0, H/sr, W/sr)
        grid = summary.shape[2:]
        k, v = self.global_kv(self.global_norm(summary.flatten(2).mT)).chunk(2, -1)
        v = v + self.global_value_conv(v.mT.unflatten(2, grid)).flatten(2).mT
        read = partial(_read, maps if return_maps else None)
        outs.append(read("global", q[..., None, :, :c0], k.unsqueeze(1), v.unsqueeze(1)))

        q_local = q[..., c0:].unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, N, C_l/h)
        x_local = self.local_pointwise(self.local_depthwise(x_map[:, c0:]))
        groups = zip(
            self.local, q_local.split([c // self.heads for c in local], -1), x_local.split(local, 1), strict=True
        )
        for group, q_group, x_group in groups:
            k, v = group(x_group)
            outs.append(read(f"dilation {group.dilation}", q_group, k, v))
        out = self.out(torch.cat(outs, -1))
        return (out, maps) if return_maps else out


def _read(maps, name, q, k, v):
    """Attend from (B, h, N, d) to a few keys, (B, N, h d); weights are written out only if ``maps`` is a list."""
    if maps is None:
        read = F.scaled_dot_product_attention(q, k, v)
    else:
        weights = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1)
        maps.append(GroupMap(name, weights))
        read = weights @ v
    return read.transpose(1, 2).flatten(2)


class WindowAttention(nn.Module):
    """Softmax attention inside M x M windows (Swin), optionally shifted by half a window: the local baseline.

    The call is that of `FaSA`; maps that are no multiple of the window are refused.
    """

    def __init__(self, dim, heads, *, window=7, shift=False):
        super().__init__()
        if dim % heads:
            raise ValueError(f"WindowAttention: dim {dim} must be a multiple of heads {heads}")
        self.heads, self.window, self.shift = heads, window, window // 2 if shift else 0
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x, height, width):
        """Map (B, H*W, C) to the same shape."""
        m, b, dim = self.window, x.shape[0], x.shape[2]
        if height % m or width % m:
            raise ValueError(f"WindowAttention: map {height} x {width} must be a multiple of window {m}")
        grid = torch.roll(x.unflatten(1, (height, width)), (-self.shift, -self.shift), (1, 2))
        cut = grid.reshape(b, height // m, m, width // m, m, dim).transpose(2, 3).reshape(-1, m * m, dim)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(cut).chunk(3, -1))
        mask = self._unmixed(height, width).repeat(b, 1, 1).unsqueeze(1) if self.shift else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        y = y.reshape(b, height // m, width // m, m, m, dim).transpose(2, 3).reshape(b, height, width, dim)
        return self.out(torch.roll(y, (self.shift, self.shift), (1, 2)).flatten(1, 2))

    def _unmixed(self, height, width):
        """Pairs of a shifted window that were neighbours before the roll, (windows, M*M, M*M) bool."""
        m, shift = self.window, self.shift
        band = lambda size: torch.bucketize(torch.arange(size), torch.tensor([size - m, size - shift]), right=True)  # noqa: E731
        region = band(height)[:, None] * 3 + band(width)
        cut = region.reshape(height // m, m, width // m, m).transpose(1, 2).reshape(-1, m * m)
        return cut[:, :, None] == cut[:, None, :]


class FaViTBlock(nn.Module):
    """Pre-norm block: attention, then an MLP with a depthwise convolution; stochastic depth ``drop_path``."""

    def __init__(self, attention, dim, *, mlp_ratio=4, drop_path=0.0):
        super().__init__()
        self.attention, self.drop_path = attention, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        hidden = dim * mlp_ratio
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x, height, width):
        """Map (B, H*W, C) to the same shape."""
        x = x + self._kept(self.attention(self.norm1(x), height, width))
        y = self.widen(self.norm2(x)).mT.unflatten(2, (height, width))
        return x + self._kept(self.narrow(F.gelu(self.conv(y).flatten(2).mT)))

    def _kept(self, branch):
        if not self.training or self.drop_path == 0:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


@dataclass(frozen=True)
class Size:
    """Widths, depths, heads, MLP ratios and stage ratios of one published model."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...] = (1, 2, 4, 8)
    mlp_ratios: tuple[int, ...] = (8, 6, 4, 4)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)


SIZES = {
    "b0": Size((32, 64, 128, 256), (2, 2, 6, 2)),
    "b1": Size((64, 128, 256, 512), (2, 2, 6, 2)),
    "b2": Size((64, 128, 256, 512), (2, 3, 18, 3)),
    "b3": Size((96, 192, 384, 768), (2, 3, 14, 3)),
}


class FaViT(nn.Module):
    """Four stages of overlapping patch embedding and FaSA blocks, mean over tokens, linear head.

    Maps (B, 3, H, W) images to (B, classes) logits; H and W multiples of 32, and at least 128 at window 7.

    Source
    ------
    Qin et al. 2023, section 3.3 and Table 1.
    """

    def __init__(self, size: Size, num_classes=1000, *, window=7, pooling="released", drop_path=0.1):
        super().__init__()
        rates = np.linspace(0, drop_path, sum(size.depths))
        self.embeds, self.stages, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels, done = 3, 0
        for stage, dim in enumerate(size.dims):
            kernel, stride = (7, 4) if stage == 0 else (3, 2)
            conv = nn.Conv2d(channels, dim, kernel, stride=stride, padding=kernel // 2)
            self.embeds.append(nn.ModuleList([conv, nn.LayerNorm(dim)]))
            self.stages.append(
                nn.ModuleList(
                    FaViTBlock(
                        FaSA(dim, size.heads[stage], size.sr_ratios[stage], window=window, pooling=pooling),
                        dim,
                        mlp_ratio=size.mlp_ratios[stage],
                        drop_path=float(rates[done + i]),
                    )
                    for i in range(size.depths[stage])
                )
            )
            self.norms.append(nn.LayerNorm(dim, eps=1e-6))
            channels, done = dim, done + size.depths[stage]
        self.head = nn.Linear(channels, num_classes)
        self.apply(_initialise)

    def forward(self, images):
        """Map (B, 3, H, W) to (B, classes)."""
        x = images
        for stage, ((conv, embed_norm), blocks, norm) in enumerate(
            zip(self.embeds, self.stages, self.norms, strict=True)
        ):
            x = conv(x)
            height, width = x.shape[2:]
            x = embed_norm(x.flatten(2).mT)
            for block in blocks:
                try:
                    x = block(x, height, width)
                except ValueError as error:
                    raise ValueError(
                        f"FaViT: image {tuple(images.shape[2:])} does not fit stage {stage + 1}: {error}"
                    ) from None
            x = norm(x)
            if stage < 3:
                x = x.mT.unflatten(2, (height, width))
        return self.head(x.mean(1))


def favit(size: str, num_classes=1000, *, sr_ratios=None, **how) -> FaViT:
    """Build one of the published models, ``size`` one of "b0", "b1", "b2", "b3"; other arguments as `FaViT`."""
    if size not in SIZES:
        raise ValueError(f"favit: size must be one of {', '.join(SIZES)}; got {size!r}")
    spec = SIZES[size] if sr_ratios is None else replace(SIZES[size], sr_ratios=tuple(sr_ratios))
    return FaViT(spec, num_classes, **how)


def favit_b0(num_classes=1000, **how) -> FaViT:
    """Build FaViT-B0: 3.4 M parameters, 0.6 G multiply-adds at 224 x 224; arguments as `favit`."""
    return favit("b0", num_classes, **how)


def favit_b1(num_classes=1000, **how) -> FaViT:
    """Build FaViT-B1: 13 M parameters, 2.3 G multiply-adds; arguments as `favit`."""
    return favit("b1", num_classes, **how)


def favit_b2(num_classes=1000, **how) -> FaViT:
    """Build FaViT-B2: 25 M parameters, 4.5 G multiply-adds; arguments as `favit`."""
    return favit("b2", num_classes, **how)


def favit_b3(num_classes=1000, **how) -> FaViT:
    """Build FaViT-B3: 49 M parameters, 8.5 G multiply-adds; arguments as `favit`."""
    return favit("b3", num_classes, **how)


def attention_products(n, dim, sr_ratio, *, window=7) -> dict[str, int]:
    """Count the multiply-adds of the attention products of one FaSA layer on n tokens, by channel group.

    Window groups: 2 n M^2 c each, linear in n. Global group: 2 n (n / sr^2) c0, quadratic at a fixed sr.

    Source
    ------
    Qin et al. 2023, section 3.2 (complexity); the paper calls the whole linear.
    """
    c0, *local = channel_groups(dim, sr_ratio)
    names = ("dilation 1", f"dilation {sr_ratio}")
    found = {"global": 2 * n * (n // sr_ratio**2) * c0}
    return found | {name: 2 * n * window**2 * c for name, c in zip(names, local, strict=False)}


def fasa_multiply_adds(size: str, image=224, window=7) -> int:
    """Count the multiply-adds of one image, norms and head left out.

    Source
    ------
    Our count from the layers; Qin et al. 2023, Table 1 for comparison.
    """
    spec, total, before, side = SIZES[size], 0, 3, image
    keys = window * window
    for stage, dim in enumerate(spec.dims):
        side //= 4 if stage == 0 else 2
        n, heads, sr, ratio = side * side, spec.heads[stage], spec.sr_ratios[stage], spec.mlp_ratios[stage]
        total += (49 if stage == 0 else 9) * before * dim * n
        c0, *local = channel_groups(dim, sr)
        c_l, n_g = sum(local), n // sr**2
        attention = sum(attention_products(n, dim, sr, window=window).values())
        attention += 2 * n * dim**2 + n_g * c0**2 * sr**2 + 2 * n_g * c0**2 + 9 * n_g * c0
        attention += 9 * n * c_l + n * c_l**2
        attention += sum(3 * keys * c**2 // heads + 9 * keys * c for c in local)
        mlp = 2 * ratio * n * dim**2 + 9 * ratio * n * dim
        total += spec.depths[stage] * (attention + mlp)
        before = dim
    return total


def effective_attention(q, k, height, width, *, window=7, dilation=1):
    """Return how much every query reads every pixel through fused keys, (b, h, L, L), rows sum to 1.

    Exact for "window_mean" pooling with linear values; with the depthwise term and "released" pooling it is the
    channel-averaged picture.
    """
    s = torch.as_tensor(fusion_matrix(height, width, window, dilation).toarray(), dtype=q.dtype)  # (M*M, L)
    return attention_weights(q, s @ k, causal=False) @ s


def trace(q, k, height, width, *, window=7, dilation=1) -> AttentionTrace:
    """Return what one head reads from (1, h, L, d) tokens of a height x width map, for views."""
    q, k = (torch.as_tensor(x)[:1, :1] for x in (q, k))
    t, d = q.shape[2:]
    effective = effective_attention(q, k, height, width, window=window, dilation=dilation)[0, 0]
    attention = attention_weights(q, k, causal=False)[0, 0]
    fusion = fusion_matrix(height, width, window, dilation)
    reached = np.asarray(fusion.sum(axis=0)).ravel() > 0
    keys = window * window
    return AttentionTrace(
        method=f"FaSA (dilation {dilation})",
        t=t,
        causal=False,
        cost=attention_cost(t=t, d=d, causal=False, summaries=np.full(t, keys), before=2 * fusion.nnz * d),
        coverage=0.0,
        attention=attention.numpy(),
        effective=effective.numpy(),
        reached=np.broadcast_to(reached, (t, t)),
        facts={"fused keys per query": keys, "pixels reached": int(reached.sum())},
    )


def _initialise(module):
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
