"""The sentence encoder that ships with the workbench, factorised and distilled for a few steps."""

from copy import deepcopy
from functools import partial

import torch
from torch.nn import functional as F

from workbench.explorers.pruning import sentence_encoder
from workbench.explorers.pruning.source import source
from workbench.models.compression.ds_linear import dsformer
from workbench.models.compression.ds_training import finetune
from workbench.models.compression.dsformer import DSBlockSpec, spec_for_ratio
from workbench.models.language import small_encoder
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row

COSINE, MEAN = "cosine of a window's vector before and after", "mean cosine of sentence vectors before and after"
SVD, FROZEN, STF = "SVD", "frozen places", "straight through"
NEIGHBOURS = "share of the 10 nearest texts that stay"
MODEL = "small_encoder"
FEW, SHORT = 12, 32  # texts and word pieces of them at size "tiny"
RATIOS = {"tiny": (2.8,), "small": (2.8,), "full": (2.0, 2.8, 3.57)}
STEPS = {"tiny": 1, "small": 40, "full": 100}
LAYERS = {"tiny": 1}
RATE = 5e-4
NEAREST, TOLD = 10, 64  # texts that count as near; windows whose cosines are told one by one


def encoder(size, seed, report, keep):
    """Factorise all matrices of the encoder, then train each of three ways to give what the dense one gives."""
    rows, work = [], [(ratio, way) for ratio in RATIOS[size] for way in (SVD, FROZEN, STF)]
    for i, (ratio, way) in enumerate(work):
        part = report.part(i, len(work), f"{way}, {ratio:g} times smaller")
        part(0.0, "factorise")
        rows += keep({"ratio": ratio, "way": way}, partial(_distilled, size, ratio, way, seed, part))
    return rows


def sizes(shape, ratio, way) -> DSBlockSpec:
    """Return the sizes of a matrix: for SVD one block with s = r, of at most as many values."""
    spec, (m, n) = spec_for_ratio(shape, ratio), shape
    if way != SVD:
        return spec
    rank = spec.num_values(shape) // (m + n)
    return DSBlockSpec(block_cols=n, atoms=rank, nnz_per_row=rank)


def _distilled(size, ratio, way, seed, part):
    of = source(MODEL)
    dense = of.load()
    found = dict(list(linear_layers(dense).items())[: LAYERS.get(size)])
    pupil = deepcopy(dense).requires_grad_(False)
    for name, layer in found.items():
        spec = sizes((layer.out_features, layer.in_features), ratio, way)
        how = {"mode": "stf" if way == STF else "frozen", "sweeps": 0 if way == SVD else 4, "seed": seed}
        pupil = dsformer(pupil, spec=spec, layers=[name], **how)
    windows = sentence_encoder.windows(small_encoder.load, sentence_encoder.NEIGHBOURS)
    if size == "tiny":
        windows = windows[:FEW, :SHORT]
    labels = {"model": MODEL, "way": way, "ratio": ratio}
    rows = _rows(dense, pupil, windows, labels | {"stage": "one-shot"})
    batches = of.training(STEPS[size], seed)
    how = {"epochs": 1, "lr": RATE, "refactor_every": 4, "report": lambda fraction, step: part(fraction, step)}
    tuned = finetune(pupil, lambda model, batch: of.distil(model, dense, batch), batches, **how)
    return rows + _rows(dense, tuned.finalised(), windows, labels | {"stage": "trained"})


@torch.no_grad()
def _rows(dense, model, windows, labels):
    both = [_vectors(each, windows) for each in (dense, model.eval())]
    cosines = (both[0] * both[1]).sum(1)
    rows = [row(MEAN, float(cosines.mean()), "cosine", "measured", **labels)]
    rows.append(row(NEIGHBOURS, kept_neighbours(*both), "fraction", "measured", **labels))
    told = range(min(len(cosines), TOLD))
    return rows + [row(COSINE, float(cosines[i]), "cosine", "measured", window=i, **labels) for i in told]


def _vectors(model, windows):
    """Return the sentence vectors of windows, each of length 1."""
    return torch.cat([F.normalize(model(part).mean(1), dim=1) for part in windows.split(sentence_encoder.BATCH)])


def kept_neighbours(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return the share of every text's 10 nearest that stay, of vectors (texts, width) before and after."""
    nearest = []
    for vectors in (before, after):
        likeness = (vectors @ vectors.T).fill_diagonal_(-torch.inf)
        at = likeness.topk(NEAREST, dim=1).indices
        nearest.append(torch.zeros_like(likeness, dtype=torch.bool).scatter(1, at, True))
    return float((nearest[0] & nearest[1]).sum()) / (NEAREST * len(before))
