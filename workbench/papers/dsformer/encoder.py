"""Sentence encoders, the one that ships with the workbench and MiniLM, factorised and distilled for a few steps."""

from copy import deepcopy
from functools import partial

import torch
from torch.nn import functional as F

from workbench.explorers.pruning import sentence_encoder
from workbench.explorers.pruning.source import source
from workbench.models.compression.ds_linear import dsformer
from workbench.models.compression.ds_training import finetune
from workbench.models.compression.dsformer import DSBlockSpec, spec_for_ratio
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row

COSINE, MEAN = "cosine of a window's vector before and after", "mean cosine of sentence vectors before and after"
SVD, FROZEN, STF = "SVD", "frozen places", "straight through"
NEIGHBOURS = "share of the 10 nearest texts that stay"
SMALL, LARGE = "small_encoder", "minilm"
FEW, SHORT = 12, 32  # texts and word pieces of them at size "tiny"
RATIOS = {  # of each encoder; the large one takes minutes for each
    "tiny": {SMALL: (2.8,)},
    "small": {SMALL: (2.8,)},
    "full": {SMALL: (2.0, 2.8, 3.57), LARGE: (2.0,)},
}
STEPS = {"tiny": 1, "small": 40, "full": 100}
LARGE_STEPS = 24  # of the pretrained encoder, which is twenty times as large
LAYERS = {"tiny": 1}
RATE = 5e-4
NEAREST, TOLD = 10, 64  # texts that count as near; windows whose cosines are told one by one


def encoder(size, seed, report, keep):
    """Factorise all matrices of an encoder, then train each of three ways to give what the dense one gives.

    An encoder whose weights are not installed is left out.
    """
    rows = []
    work = [(model, ratio, way) for model, ratios in RATIOS[size].items() if not source(model).missing()
            for ratio in ratios for way in (SVD, FROZEN, STF)]  # fmt: skip
    for i, (model, ratio, way) in enumerate(work):
        part = report.part(i, len(work), f"{model}, {way}, {ratio:g} times smaller")
        part(0.0, "factorise")
        labels = {"model": model, "ratio": ratio, "way": way}
        rows += keep(labels, partial(_distilled, size, labels, seed, part))
    return rows


def sizes(shape, ratio, way) -> DSBlockSpec:
    """Return the sizes of a matrix: for SVD one block with s = r, of at most as many values."""
    spec, (m, n) = spec_for_ratio(shape, ratio), shape
    if way != SVD:
        return spec
    rank = spec.num_values(shape) // (m + n)
    return DSBlockSpec(block_cols=n, atoms=rank, nnz_per_row=rank)


def _distilled(size, labels, seed, part):
    of, way = source(labels["model"]), labels["way"]
    dense, steps = of.load(), LARGE_STEPS if labels["model"] == LARGE else STEPS[size]
    found = dict(list(linear_layers(dense).items())[: LAYERS.get(size)])
    pupil = deepcopy(dense).requires_grad_(False)
    for name, layer in found.items():
        spec = sizes((layer.out_features, layer.in_features), labels["ratio"], way)
        how = {"mode": "stf" if way == STF else "frozen", "sweeps": 0 if way == SVD else 4, "seed": seed}
        pupil = dsformer(pupil, spec=spec, layers=[name], **how)
    windows = sentence_encoder.windows(of.load, sentence_encoder.NEIGHBOURS)
    if size == "tiny":
        windows = windows[:FEW, :SHORT]
    rows = _rows(dense, pupil, windows, labels | {"stage": "one-shot"})
    how = {"epochs": 1, "lr": RATE, "refactor_every": 4, "report": lambda fraction, step: part(fraction, step)}
    tuned = finetune(pupil, lambda model, batch: of.distil(model, dense, batch), of.training(steps, seed), **how)
    return rows + _rows(dense, tuned.finalised(), windows, labels | {"stage": "trained", "steps": steps})


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
