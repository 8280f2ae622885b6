"""What pruning costs a language model, and what a short training with fixed masks takes back.

The masks are those of |w| and of Wanda; training is language modelling on the text that the model was trained on, and
the dense model is trained beside the pruned ones, for as many steps at the same rate.
"""

import copy
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from kernels.formats.storage import tiled_csl_bits
from workbench.data import text
from workbench.models.language import tiny_lm
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers
from workbench.models.sparse_inference.tiled_csl import CRITERIA, pruning_mask
from workbench.paper import row

CORPORA = ("documentation", "library")
WINDOW, CONTEXT = 256, 512
RATE, WARM = 5e-4, 0.1  # the highest rate, and the share of the steps in which it rises
TILE = (128, 64)
TRAINED, TRAINED_BY = (0.8, 0.9), "wanda"
DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: sparsities, pieces of held-out text and characters of each, training."""

    sparsities: tuple[float, ...]
    pieces: int
    characters: int
    calibration: int
    steps: int
    batch: int
    seeds: int
    training: int


SETTINGS = {
    "tiny": Setting(
        sparsities=(0.8,), pieces=1, characters=300, calibration=1, steps=1, batch=1, seeds=1,
        training=20_000,
    ),
    "small": Setting(
        sparsities=(0.5, 0.7, 0.8, 0.9), pieces=2, characters=4000, calibration=4, steps=10, batch=4, seeds=1,
        training=200_000,
    ),
    "full": Setting(
        sparsities=(0.5, 0.6, 0.7, 0.8, 0.9), pieces=6, characters=6000, calibration=16, steps=60, batch=4, seeds=3,
        training=2_000_000,
    ),
}  # fmt: skip


def language(size, seed, report, keep):
    """Prune the tiny language model at once, and train the pruned models for a short while with their masks fixed."""
    s = SETTINGS[size]
    report(0.0, "inputs of the layers")
    pieces, statistics = _pieces(s), _statistics(s)
    rows = _rows(tiny_lm.load(), {}, pieces, masks=DENSE, sparsity=0.0)
    one_shot = report.part(0, 4)
    for place, sparsity in enumerate(s.sparsities):
        one_shot(place / len(s.sparsities), f"prune {sparsity:.0%}")
        for name in CRITERIA:
            kept = masks(statistics, sparsity, name)
            rows += _rows(masked(kept), kept, pieces, masks=name, sparsity=sparsity)
    trained = (0.0, *(x for x in s.sparsities if x in TRAINED))
    runs = [(x, own_seed) for x in trained for own_seed in range(seed, seed + s.seeds)]
    for place, (sparsity, own_seed) in enumerate(runs):
        report(0.25 + 0.75 * place / len(runs), f"train at {sparsity:.0%}, seed {own_seed}")
        kept = masks(statistics, sparsity, TRAINED_BY) if sparsity else {}
        labels = {"masks": TRAINED_BY if sparsity else DENSE, "sparsity": sparsity, "seed": own_seed, "steps": s.steps}
        rows += keep(labels, partial(_trained, kept, pieces, s, labels))
    return rows


def masks(statistics, sparsity, criterion) -> dict[str, np.ndarray]:
    """Return layer name -> bool, True where a weight stays."""
    return {
        name: pruning_mask(layer.weight.detach().numpy(), sparsity, criterion, gram=statistics[name].gram)
        for name, layer in linear_layers(tiny_lm.load()).items()
    }


@torch.no_grad()
def masked(kept) -> tiny_lm.TinyLM:
    """Return a copy of the model without the weights that go."""
    model = copy.deepcopy(tiny_lm.load())
    _apply(model, kept)
    return model


def train(model, kept, steps, batch, seed, ids):
    """Train a model in place on windows of ``ids``, int64 (tokens,), with AdamW; weights that went stay 0."""
    model.train().requires_grad_(True)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
    for _ in range(steps):
        starts = rng.integers(0, len(ids) - WINDOW, batch)
        optimiser.zero_grad()
        model.loss(torch.stack([ids[start : start + WINDOW + 1] for start in starts])).backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            _apply(model, kept)
    return model.eval().requires_grad_(False)


def layer_bytes(kept) -> dict[str, int]:
    """Return what the pruned layers take in memory: dense in half precision, and as Tiled-CSL."""
    shapes = {name: layer.weight.shape for name, layer in linear_layers(tiny_lm.load()).items()}
    dense = sum(2 * m * k for m, k in shapes.values())
    if not kept:
        return {"dense, 16 bits": dense}
    return {"tiled-CSL": sum(tiled_csl_bits(_tile_counts(mask)) for mask in kept.values()) // 8}


def _tile_counts(mask):
    """Entries in each tile, those at the edges included."""
    (m, k), (tile_m, tile_k) = mask.shape, TILE
    padded = np.zeros((-(-m // tile_m) * tile_m, -(-k // tile_k) * tile_k), bool)
    padded[:m, :k] = mask
    return padded.reshape(-1, tile_m, padded.shape[1] // tile_k, tile_k).sum((1, 3)).ravel().tolist()


def _rate(done):
    """Up in a line, down in a line to nothing; ``done`` is the share of the steps taken."""
    return min((done + 1e-3) / WARM, (1 - done) / (1 - WARM))


def _apply(model, kept):
    layers = linear_layers(model)
    for name, mask in kept.items():
        layers[name].weight.mul_(torch.from_numpy(mask))


def _trained(kept, pieces, setting, labels):
    model = train(masked(kept), kept, setting.steps, setting.batch, labels["seed"], _training_tokens(setting.training))
    return _rows(model, kept, pieces, **labels)


def _rows(model, kept, pieces, **labels):
    labels = {"seed": 0, "steps": 0} | labels
    costs = [model.bits_per_byte(piece, context=CONTEXT) for piece in pieces]
    rows = [row("bits per byte of a piece", x, "bits per byte", "measured", piece=i, **labels)
            for i, x in enumerate(costs)]  # fmt: skip
    mean = float(np.average(costs, weights=[len(piece.encode()) for piece in pieces]))
    rows.append(row("bits per byte of the text", mean, "bits per byte", "measured", **labels))
    for form, size in layer_bytes(kept).items():
        rows.append(row("bytes, pruned layers", size, "bytes", "counted", format=form, **labels))
    return rows


def _pieces(setting):
    told, _ = text.sample(setting.pieces * setting.characters, CORPORA, "held_out")
    return [told[i * setting.characters : (i + 1) * setting.characters] for i in range(setting.pieces)]


def _statistics(setting):
    ids = _training_tokens(setting.training)
    windows = ids[: setting.calibration * CONTEXT].view(setting.calibration, 1, CONTEXT)
    return gather_statistics(tiny_lm.load(), windows)


@cache
def _training_tokens(characters):
    told, _ = text.sample(characters, CORPORA, "train")
    return tiny_lm.load().encode(told)[0]
