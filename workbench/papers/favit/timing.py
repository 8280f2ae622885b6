"""Time of one layer over the pixels, beside windows and full attention."""

from functools import partial

import torch
from torch.nn import functional as F

from workbench.judging import growth_exponent
from workbench.machines.stopwatch import measure
from workbench.models.attention.favit import FaSA, WindowAttention
from workbench.paper import row

SIDES = {"tiny": (56, 112), "small": (56, 112), "full": (56, 112, 224)}  # of the map
ROUNDS = {"tiny": 1, "small": 5, "full": 7}


class _FullAttention(WindowAttention):
    """Attention of every pixel to every pixel by torch's fused kernel: one window as large as the map."""

    def forward(self, x, height, width):
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def timing(size, seed, report):
    """Time a first-stage layer of FaViT-B1 (64 channels, one head, stride 8) on maps of growing side, interleaved."""
    sides, rounds, rows = SIDES[size], ROUNDS[size], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = {
            "FaSA, released": FaSA(64, 1, 8),
            "FaSA, window_mean": FaSA(64, 1, 8, pooling="window_mean"),
            "windows": WindowAttention(64, 1),
            "windows, shifted": WindowAttention(64, 1, shift=True),
            "full attention, fused kernel": _FullAttention(64, 1),
        }
    draw = torch.Generator().manual_seed(seed)
    for number, side in enumerate(sides):
        report(number / len(sides), f"{side} x {side}")
        x = torch.randn(1, side * side, 64, generator=draw)
        with torch.no_grad():
            times = measure({name: partial(layer, x, side, side) for name, layer in layers.items()}, rounds=rounds)
        for name, found in times.items():
            labels = {"attention": name, "side": side, "rounds": rounds, "channels": 64, "stride": 8}
            rows.append(row("time of one layer", 1e3 * found.median_s, "ms", "measured", **labels))
            rows.append(row("spread of the times", 1e3 * found.spread_s, "ms", "measured", **labels))
    for name in layers:
        ends = [r for r in rows if r["quantity"] == "time of one layer" and r["attention"] == name]
        growth = growth_exponent([sides[0] ** 2, sides[-1] ** 2], [ends[0]["value"], ends[-1]["value"]])
        rows.append(row("growth exponent in the pixels", growth, "number", "measured", attention=name))
    return rows
