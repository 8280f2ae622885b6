"""What pruning to larger blocks costs a sentence encoder that is not trained again."""

import copy
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch.nn import functional as F

from kernels.masks.blocks import block_prune_mask
from workbench.data.text import documents
from workbench.models.language import minilm
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers, relative_output_error
from workbench.paper import row

BLOCKS = ((1, 1), (4, 1), (16, 1))
SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much a size does: windows of text, their tokens, sparsities, and what is read and pruned (None: all).

    Parameters
    ----------
    documents, blocks : how many documents are read, and how many transformer blocks are pruned, from the first one on.
    """

    windows: int
    tokens: int = 128
    sparsities: tuple[float, ...] = SPARSITIES
    documents: int | None = None
    blocks: int | None = None


PLANS = {
    "tiny": Plan(windows=3, tokens=16, sparsities=(0.5,), documents=8, blocks=1),
    "small": Plan(windows=16),
    "full": Plan(windows=64),
}


def patterns(size, seed, report):
    """Prune every linear layer of MiniLM by size, block by block; compare its outputs and the sentence vectors."""
    plan, model = PLANS[size], minilm.load()
    batches, chosen = windows_of_text(plan, seed), linear_layers(model)
    if plan.blocks is not None:
        chosen = {name: layer for name, layer in chosen.items() if int(name.split(".")[1]) < plan.blocks}
    report(0.0, "inputs of every layer")
    grams = {name: found.gram for name, found in gather_statistics(model, batches, layers=chosen).items()}
    dense = vectors(model, batches)
    cases = [(sparsity, block) for sparsity in plan.sparsities for block in BLOCKS]
    rows = []
    for place, (sparsity, block) in enumerate(cases):
        report(0.2 + 0.8 * place / len(cases), f"{block[0]} x {block[1]} blocks, {sparsity:.0%} gone")
        pruned = pruned_copy(model, sparsity, block, list(chosen))
        labels = {"block": "{} x {}".format(*block), "sparsity": sparsity, "windows": plan.windows}
        rows += _layer_rows(model, pruned, grams, labels)
        rows += vector_rows(dense, vectors(pruned, batches), labels)
    return rows


def windows_of_text(plan, seed) -> list[torch.Tensor]:
    """Return batches of windows that are drawn from the Python documentation."""
    text = "\n\n".join(document.text for document in documents("documentation")[: plan.documents])
    cut = minilm.load().windows(text, plan.tokens)
    taken = np.sort(np.random.default_rng(seed).choice(len(cut), plan.windows, replace=False))
    return list(cut[taken].split(BATCH))


@torch.no_grad()
def pruned_copy(model, sparsity, block, layers=None):
    """Return a copy whose named linear layers each lack the blocks of the least mean size of their weights."""
    pruned = copy.deepcopy(model)
    for layer in linear_layers(pruned, layers).values():
        layer.weight.mul_(torch.from_numpy(block_prune_mask(layer.weight.abs().numpy(), sparsity, block=block)))
    return pruned


@torch.no_grad()
def vectors(model, batches) -> torch.Tensor:
    """Return the sentence vectors of windows, each of length 1: (windows, width)."""
    return torch.cat([F.normalize(model(batch).mean(1), dim=1) for batch in batches])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's correlation of two lists of numbers, no two of a list equal."""
    first, second = (np.argsort(np.argsort(x)) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _layer_rows(model, pruned, grams, labels):
    after, rows = linear_layers(pruned), []
    for name, layer in linear_layers(model, grams).items():
        error = relative_output_error(layer.weight.numpy(), after[name].weight.numpy(), grams[name])
        rows.append(row("output error of a layer", error, "relative", "measured", layer=name, **labels))
    mean = fmean(each["value"] for each in rows)
    return [*rows, row("mean output error of the layers", mean, "relative", "measured", **labels)]


def vector_rows(dense, now, labels):
    """Return how near the vectors stay, with the error over windows, and whether likenesses keep their rank."""
    cosines = (dense * now).sum(1)
    pairs = np.triu_indices(len(dense), 1)
    likeness = [(x @ x.T).numpy()[pairs] for x in (dense, now)]
    kept = {
        "cosine of sentence vectors before and after": (float(cosines.mean()), "cosine"),
        "standard error of the cosine over windows": (float(cosines.std()) / len(cosines) ** 0.5, "cosine"),
        "rank correlation of similarities": (rank_correlation(*likeness), "number"),
    }
    return [row(name, *value, "measured", **labels) for name, value in kept.items()]
