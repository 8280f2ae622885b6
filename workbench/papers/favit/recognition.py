"""Digits: the same net with each kind of attention, tested on clean and on spoilt digits."""

from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import nn
from torch.nn import functional as F

from workbench.data.images import digits
from workbench.models.attention.favit import FaSA, FaViTBlock, WindowAttention
from workbench.paper import row


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: training steps of every net, digits per step, nets per kind, and test digits."""

    steps: int
    batch: int
    seeds: int
    test: int


SETTINGS = {
    "tiny": Setting(steps=1, batch=2, seeds=1, test=8),
    "small": Setting(steps=60, batch=64, seeds=1, test=360),
    "full": Setting(steps=600, batch=64, seeds=3, test=360),
}


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
    "windows, shifted": lambda: (WindowAttention(32, 1, window=4), WindowAttention(64, 2, window=4, shift=True)),
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


def recognition(size, seed, report, keep):
    """Train the same net with each kind of attention and test it on clean and on spoilt digits.

    Shifted windows alternate with plain ones, as in Swin: the second block's are shifted by half a window.
    """
    s = SETTINGS[size]
    plan = [(kind, kind, {}, seed + i) for i in range(s.seeds) for kind in KINDS]
    plan += [(name, kind, how, seed) for name, (kind, how) in ABLATIONS.items()]
    rows = []
    for number, (name, kind, how, each) in enumerate(plan):
        report(number / len(plan), f"{name}, seed {each}")
        labels = {"attention": name, "seed": each, "steps": s.steps}
        rows += keep(labels, partial(_trained, kind, how, labels, s, seed))
    return rows


def _trained(kind, how, labels, setting, seed):
    """The rows of one net: its parameters, and its accuracy on clean and on spoilt test digits (spoilt by ``seed``)."""
    images, wanted = digit_tensors(setting.test)[2:]
    net = train_digits(kind, steps=setting.steps, seed=labels["seed"], batch=setting.batch, **how)
    rows = [row("parameters", sum(p.numel() for p in net.parameters()), "parameters", "counted", **labels)]
    for corruption, x in corruptions(images, seed).items():
        with torch.no_grad():
            right = float((net(x).argmax(1) == wanted).float().mean())
        rows.append(row("test accuracy", right, "fraction", "measured", corruption=corruption, **labels))
    return rows
