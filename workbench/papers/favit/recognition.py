"""FaViT's experiments: published sizes, how far one layer sees, digits, real pictures, time."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data.images import PICTURES, digits, patch_features, patches, picture
from workbench.judging import growth_exponent
from workbench.machines.stopwatch import measure
from workbench.models.attention.favit import (
    SIZES,
    FaSA,
    FaViTBlock,
    WindowAttention,
    attention_products,
    factorized_keys,
    fasa_flops,
    favit,
)
from workbench.models.attention.pixel_readings import pixel_readings
from workbench.paper import row


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much one size of the experiments does.

    Parameters
    ----------
    models, image : published models built, side of the photograph that the smallest one sees.
    reach : side, dilation and stride of the map on which the reach of one layer is measured.
    steps, batch, seeds, test : training steps of every digit net, digits per step, nets per kind, test digits.
    side, queries : patches per side of a photograph, queries asked in each.
    sides, rounds : map sides of the timing, and how often each is timed.
    """

    models: tuple[str, ...]
    image: int
    reach: tuple[int, int, int]
    steps: int
    batch: int
    seeds: int
    test: int
    side: int
    queries: int
    sides: tuple[int, ...]
    rounds: int


PUBLISHED = tuple(SIZES)
SETTINGS = {
    "tiny": Setting(
        models=PUBLISHED[:1],
        image=128,
        reach=(28, 4, 4),
        steps=1,
        batch=2,
        seeds=1,
        test=8,
        side=28,
        queries=2,
        sides=(56, 112),
        rounds=1,
    ),
    "small": Setting(
        models=PUBLISHED[:2],
        image=224,
        reach=(56, 8, 8),
        steps=60,
        batch=64,
        seeds=1,
        test=360,
        side=56,
        queries=16,
        sides=(56, 112),
        rounds=5,
    ),
    "full": Setting(
        models=PUBLISHED,
        image=224,
        reach=(56, 8, 8),
        steps=600,
        batch=64,
        seeds=3,
        test=360,
        side=56,
        queries=64,
        sides=(56, 112, 224),
        rounds=7,
    ),
}


# Published sizes -----------------------------------------------------------------------------------------------------


def architecture(size, seed, report):
    """Build the published models, count them, and show a photograph to the smallest."""
    s, rows = SETTINGS[size], []
    for number, name in enumerate(s.models):
        report(number / len(s.models), f"FaViT-{name.upper()}")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = favit(name).eval()
        label = {"model": f"FaViT-{name.upper()}"}
        rows.append(row("parameters", sum(p.numel() for p in model.parameters()), "parameters", "counted", **label))
        rows.append(row("multiply-adds at 224 x 224", fasa_flops(name), "multiply-adds", "counted", **label))
        if number == 0:
            image = patches(picture("astronaut"), s.image).mean(2)
            with torch.no_grad():
                logits = model(torch.from_numpy(image).permute(2, 0, 1)[None])
            finite = int(torch.isfinite(logits).sum())
            rows.append(row("finite logits for a photograph", finite, "logits", "counted", image=s.image, **label))
    return rows


# Reach ---------------------------------------------------------------------------------------------------------------


def reach(size, seed, report):
    """Count the pixels that move one output pixel, by gradients, and the multiply-adds of the attention products."""
    side, dilation, stride = SETTINGS[size].reach
    rows = []
    for number, (name, attend, keys) in enumerate(attentions(side, dilation, stride)):
        report(number / 6, name)
        labels = {"attention": name, "side": side}
        rows.append(
            row("pixels that move one output", moving_pixels(attend, side, seed), "pixels", "counted", **labels)
        )
        rows.append(row("keys per query", keys, "keys", "counted", **labels))
    rows.append(row("pixels of the map", side * side, "pixels", "counted", attention="", side=side))
    for each in (14, 28, 56, 112):
        n, dim, sr = each * each, 64, 2
        counts = attention_products(n, dim, sr)
        windows = sum(count for name, count in counts.items() if name != "global")
        shown = {
            "FaSA, window groups": windows,
            "FaSA, global group": counts["global"],
            "FaSA, all groups": windows + counts["global"],
            "full attention": 2 * n * n * dim,
            "windows": 2 * n * 49 * dim,
        }
        for name, count in shown.items():
            labels = {"attention": name, "side": each, "channels": dim, "stride": sr}
            rows.append(row("multiply-adds of the products", count, "multiply-adds", "counted", **labels))
    return rows


def attentions(side, dilation, stride):
    """Attention of one head on (1, side * side, d) tokens without any learnt map or convolution; its keys per query."""
    window = 7

    def fused(each):
        def attend(x):
            z = factorized_keys(x.mT.unflatten(2, (side, side)), window=window, dilation=each)[:, 0]
            return torch.softmax(x @ z.mT, -1) @ z

        return attend

    def strided(x):
        z = F.avg_pool2d(x.mT.unflatten(2, (side, side)), stride).flatten(2).mT
        return torch.softmax(x @ z.mT, -1) @ z

    def windowed(x):
        down = side // window
        cut = x.unflatten(1, (down, window, down, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        y = torch.softmax(cut @ cut.mT, -1) @ cut
        return y.unflatten(1, (down, down)).unflatten(3, (window, window)).transpose(2, 3).flatten(1, 4)

    return (
        ("windows", windowed, window**2),
        ("FaSA, dilation 1", fused(1), window**2),
        (f"FaSA, dilation {dilation}", fused(dilation), window**2),
        (f"FaSA, global, stride {stride}", strided, (side // stride) ** 2),
        ("full attention", lambda x: torch.softmax(x @ x.mT, -1) @ x, side**2),
    )


def moving_pixels(attend, side, seed):
    """Count the input pixels with a gradient on one output pixel near the middle."""
    draw = torch.Generator().manual_seed(seed)
    x = (0.3 * torch.randn(1, side * side, 8, generator=draw, dtype=torch.float64)).requires_grad_()
    query = (side // 2) * side + side // 2 + 1
    attend(x)[0, query].square().sum().backward()
    return int((x.grad[0].abs().sum(-1) > 0).sum())


# Digits --------------------------------------------------------------------------------------------------------------


class DigitNet(nn.Module):
    """Two stages of one block each on 16 x 16 pictures; ``attentions`` are its two attention layers."""

    def __init__(self, attentions, *, convolutions=True):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(FaViTBlock(a, dim) for a, dim in zip(attentions, (32, 64), strict=True))
        self.head = nn.Linear(64, 10)
        if not convolutions:
            _silence_convolutions(self.blocks)

    def forward(self, images):
        """Map (B, 1, 16, 16) to (B, 10)."""
        x = self.blocks[0](self.first(images).flatten(2).mT, 16, 16)
        x = self.second(x.mT.unflatten(2, (16, 16)))
        return self.head(self.blocks[1](x.flatten(2).mT, 8, 8).mean(1))


def _silence_convolutions(blocks):
    """Make every depthwise convolution pass its input on, or add nothing, for good: the blocks know no position."""
    for block in blocks:
        quiet = [block.conv, getattr(block.attention, "local_depthwise", None)]
        for conv in filter(None, quiet):
            nn.init.dirac_(conv.weight, groups=conv.groups)
        added = [getattr(block.attention, "global_value_conv", None)]
        added += [group.value_conv for group in getattr(block.attention, "local", ())]
        for conv in filter(None, added):
            nn.init.zeros_(conv.weight)
        for conv in filter(None, quiet + added):
            nn.init.zeros_(conv.bias)
            conv.requires_grad_(False)


def _fasa(pooling):
    return lambda: (FaSA(32, 1, 2, window=4, pooling=pooling), FaSA(64, 2, 1, window=4, pooling=pooling))


KINDS = {
    "FaSA, window_mean": _fasa("window_mean"),
    "FaSA, released": _fasa("released"),
    "windows": lambda: (WindowAttention(32, 1, window=4), WindowAttention(64, 2, window=4)),
    "full attention": lambda: (WindowAttention(32, 1, window=16), WindowAttention(64, 2, window=8)),
}
ABLATIONS = {
    "FaSA, released, no depthwise convolutions": ("FaSA, released", {"convolutions": False}),
    "windows, no depthwise convolutions": ("windows", {"convolutions": False}),
}


@lru_cache(maxsize=2)
def digit_tensors(test=360):
    """Return the digits at 16 x 16 pixels: training images and labels, test images and labels."""
    (x, y), (z, w) = digits()
    wide = [F.interpolate(torch.from_numpy(a)[:, None], size=(16, 16), mode="bilinear") for a in (x, z[:test])]
    return wide[0], torch.from_numpy(y), wide[1], torch.from_numpy(w[:test])


def train_digits(kind, *, steps, seed, batch=64, convolutions=True):
    """Return a `DigitNet` of a kind of `KINDS` after so many steps of AdamW at a cosine rate."""
    images, labels = digit_tensors()[:2]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = DigitNet(KINDS[kind](), convolutions=convolutions).train()
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(images), (batch,), generator=draw)
        loss = F.cross_entropy(net(images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def corruptions(images, seed):
    """Return the test pictures clean, with noise of deviation 0.2, blurred, and with a 5 x 5 hole."""
    draw = torch.Generator().manual_seed(seed)
    kernel = torch.exp(-torch.arange(-2, 3).float().square() / 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    holes = images.clone()
    for i, (top, left) in enumerate(torch.randint(2, 10, (len(images), 2), generator=draw).tolist()):
        holes[i, :, top : top + 5, left : left + 5] = 0
    return {
        "none": images,
        "noise 0.2": images + 0.2 * torch.randn(images.shape, generator=draw),
        "blur": F.conv2d(images, kernel[None, None], padding=2),
        "occlusion": holes,
    }


def recognition(size, seed, report):
    """Train the same net with each kind of attention and test it on clean and on spoilt digits."""
    s = SETTINGS[size]
    images, labels = digit_tensors(s.test)[2:]
    spoilt = corruptions(images, seed)
    plan = [(kind, kind, {}, seed + i) for i in range(s.seeds) for kind in KINDS]
    plan += [(name, kind, how, seed) for name, (kind, how) in ABLATIONS.items()]
    rows = []
    for number, (name, kind, how, each) in enumerate(plan):
        report(number / len(plan), f"{name}, seed {each}")
        net = train_digits(kind, steps=s.steps, seed=each, batch=s.batch, **how)
        labelled = {"attention": name, "seed": each, "steps": s.steps}
        rows.append(row("parameters", sum(p.numel() for p in net.parameters()), "parameters", "counted", **labelled))
        for corruption, x in spoilt.items():
            with torch.no_grad():
                right = float((net(x).argmax(1) == labels).float().mean())
            rows.append(row("test accuracy", right, "fraction", "measured", corruption=corruption, **labelled))
    return rows


# Photographs ---------------------------------------------------------------------------------------------------------


def pictures(size, seed, report):
    """Ask what queries of photographs read: how far, how much of full attention's mass is in reach, how alike."""
    s = SETTINGS[size]
    side, dilation, sr = s.reach
    places = np.random.default_rng(seed).choice(side * side, s.queries, replace=False)
    rows = []
    for number, name in enumerate(PICTURES):
        report(number / len(PICTURES), name)
        tokens = patch_features(picture(name), side)
        found = {}
        for query in places.tolist():
            full, *others = pixel_readings(tokens, side, side, query, dilation=dilation, sr=sr)
            for reading in (full, *others):
                found.setdefault(reading.name, []).append(_numbers(full, reading, query, side))
        for attention, numbers in found.items():
            labels = {"attention": attention, "picture": name, "queries": s.queries, "side": side}
            for (quantity, unit, kind), value in zip(_QUANTITIES, np.mean(numbers, 0).tolist(), strict=True):
                rows.append(row(quantity, value, unit, kind, **labels))
    return rows


_QUANTITIES = (
    ("keys per query", "keys", "counted"),
    ("pixels reached", "fraction", "counted"),
    ("full attention's mass in reach", "fraction", "counted"),
    ("mean distance of what is read", "patches", "counted"),
    ("likeness to full attention", "cosine", "counted"),
)


def _numbers(full, reading, query, side):
    rows, columns = np.indices((side, side))
    distance = np.hypot(rows - query // side, columns - query % side)
    likeness = (full.heat * reading.heat).sum() / np.sqrt((full.heat**2).sum() * (reading.heat**2).sum())
    inside = (full.heat * reading.reached).sum() / full.heat.sum()
    return reading.keys, reading.reached.mean(), inside, (distance * reading.heat).sum(), likeness


# Time ----------------------------------------------------------------------------------------------------------------


class _FullAttention(WindowAttention):
    """Attention of every pixel to every pixel by torch's fused kernel: one window as large as the map."""

    def forward(self, x, height, width):
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def timing(size, seed, report):
    """Time a first-stage layer of FaViT-B1 (64 channels, one head, stride 8) on maps of growing side, interleaved."""
    s, rows = SETTINGS[size], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = {
            "FaSA, released": FaSA(64, 1, 8),
            "FaSA, window_mean": FaSA(64, 1, 8, pooling="window_mean"),
            "windows": WindowAttention(64, 1),
            "full attention, fused kernel": _FullAttention(64, 1),
        }
    draw = torch.Generator().manual_seed(seed)
    for number, side in enumerate(s.sides):
        report(number / len(s.sides), f"{side} x {side}")
        x = torch.randn(1, side * side, 64, generator=draw)
        with torch.no_grad():
            times = measure({name: partial(layer, x, side, side) for name, layer in layers.items()}, rounds=s.rounds)
        for name, found in times.items():
            labels = {"attention": name, "side": side, "rounds": s.rounds, "channels": 64, "stride": 8}
            rows.append(row("time of one layer", 1e3 * found.median_s, "ms", "measured", **labels))
            rows.append(row("spread of the times", 1e3 * found.spread_s, "ms", "measured", **labels))
    for name in layers:
        ends = [r for r in rows if r["quantity"] == "time of one layer" and r["attention"] == name]
        growth = growth_exponent([s.sides[0] ** 2, s.sides[-1] ** 2], [ends[0]["value"], ends[-1]["value"]])
        rows.append(row("growth exponent in the pixels", growth, "number", "measured", attention=name))
    return rows
