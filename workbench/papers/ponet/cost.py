"""What a mixing layer costs over the length: its largest tensor, and its time beside attention and FNet."""

import torch
import torch.nn.functional as F

import kernels
from workbench.machines.stopwatch import measure
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.ponet import PoNetMixing, SelfAttentionMixing, lra_segment_index
from workbench.paper import row
from workbench.papers.ponet.digits import COMPARED, DIM, HEADS, MIXINGS, SYMBOLS, Classifier

LENGTHS = {"tiny": (64, 128), "small": (512, 1024, 2048), "full": (256, 512, 1024, 2048, 4096, 8192)}
ENCODER_LENGTHS = {"tiny": (64,), "small": (512, 1024), "full": (256, 512, 1024, 2048, 4096)}
ROUNDS = {"tiny": 1, "small": 5, "full": 7}


class PlainAttention(SelfAttentionMixing):
    """The same attention with its weights written out, as the papers of 2021 measured it."""

    def forward(self, x, segment_index=None, keep=None, special=None):
        """Map (b, N, D) to (b, N, D)."""
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        weights = torch.softmax(q @ k.mT * q.shape[3] ** -0.5, -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


LAYERS = {"PoNet": PoNetMixing, "attention, weights written out": PlainAttention, "FNet": MIXINGS["FNet"]}


def memory(size, seed, report):
    """Count the largest tensor that forward and backward of one layer make."""
    rows = []
    for place, (name, mixing) in enumerate(LAYERS.items()):
        part = report.part(place, len(LAYERS), name)
        for number, t in enumerate(LENGTHS[size]):
            if name.startswith("attention") and t > 4096:
                continue  # 8192 x 8192 x 2 heads would take half a gigabyte per tensor
            part(number / len(LENGTHS[size]), f"{t} tokens")
            largest = largest_tensor_bytes(_layer_step(mixing, t, seed))
            rows.append(row("largest tensor", largest, "bytes", "counted", mixing=name, tokens=t, dim=DIM))
    return rows


def _layer_step(mixing, t, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, t, DIM, generator=generator, requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = mixing(DIM, HEADS)
    segments = lra_segment_index(t, 64)
    return lambda: layer(x, segments).sum().backward()


def timing(size, seed, report):
    """Time forward and backward of one layer, and a training step of the encoder; interleaved medians."""
    before = torch.get_num_threads()
    threads = 1 if size == "tiny" else kernels.get_num_threads()  # with tiny operators a second one mostly waits
    torch.set_num_threads(threads)
    labels = {"threads": threads, "rounds": ROUNDS[size]}
    layers, steps = report.part(0, 2, "one layer"), report.part(1, 2, "a training step")
    rows = []
    try:
        for place, t in enumerate(LENGTHS[size]):
            layers(place / len(LENGTHS[size]), f"{t} tokens")
            runs = {name: _layer_step(MIXINGS[name], t, seed) for name in COMPARED}
            rows += _times(runs, "time of a layer, forward and backward", tokens=t, **labels)
        for place, t in enumerate(ENCODER_LENGTHS[size]):
            steps(place / len(ENCODER_LENGTHS[size]), f"{t} tokens")
            runs = {name: _encoder_step(MIXINGS[name], t, seed) for name in COMPARED}
            rows += _times(runs, "time of a training step, batch 4", tokens=t, **labels)
    finally:
        torch.set_num_threads(before)
    return rows


def _encoder_step(mixing, t, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Classifier(mixing, length=t, segments=16, dropout=0.0)  # random numbers are no part of what is compared
    ids = torch.randint(SYMBOLS, (4, t), generator=torch.Generator().manual_seed(seed))
    return lambda: F.cross_entropy(model(ids), torch.zeros(4, dtype=torch.long)).backward()


def _times(runs, quantity, **labels):
    return [
        row(quantity, 1e3 * found.median_s, "ms", "measured", mixing=name, spread_ms=1e3 * found.spread_s, **labels)
        for name, found in measure(runs, rounds=labels["rounds"]).items()
    ]
