"""How far one layer sees: pixels that move one output, and the multiply-adds of the products."""

import torch
from torch.nn import functional as F

from workbench.models.attention.favit import attention_products, factorized_keys
from workbench.paper import row

MAPS = {"tiny": (28, 4, 4), "small": (56, 8, 8), "full": (56, 8, 8)}  # side of the map, dilation, stride


def reach(size, seed, report):
    """Count the pixels that move one output pixel, by gradients, and the multiply-adds of the attention products."""
    side, dilation, stride = MAPS[size]
    layers, rows = attentions(side, dilation, stride), []
    for number, (name, attend, keys) in enumerate(layers):
        report(number / len(layers), name)
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
