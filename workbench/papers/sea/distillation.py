"""One layer of the encoder distilled: the estimator beside a trained Performer and beside masks of the same size."""

from dataclasses import dataclass

import torch

from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.performer import PerformerAttention
from workbench.models.attention.sea import (
    distill_layer,
    effective_attention,
    expand_cells,
    grouped_topk,
    oracle_estimate,
)
from workbench.models.attention.sea_training import (
    BATCH,
    LAYER,
    batched,
    cached_qkv,
    context_error,
    coverage,
    measure,
    new_estimator,
    windows,
)
from workbench.models.language import minilm
from workbench.paper import row
from workbench.papers.sea.masks import local_mask, masked_attention, top_attention, top_keys

WINDOW = "local window, first and last token"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much one size of the experiments with the encoder's layer does.

    Parameters
    ----------
    tokens, width, keys : T, cells per estimated row, keys per query and head.
    batches : different training batches of four windows.
    checkpoints : training steps after which SEA and the Performer are tried; the last one ends training.
    seeds : how often both are trained, each time from another start.
    windows : held-out windows.
    ablation_steps : training of every variant.
    """

    tokens: int
    width: int
    keys: int
    batches: int
    checkpoints: tuple[int, ...]
    seeds: int
    windows: int
    ablation_steps: int


SIZES = {
    "tiny": Setting(
        tokens=32, width=8, keys=4, batches=2, checkpoints=(0, 2), seeds=1, windows=2, ablation_steps=1
    ),
    "small": Setting(
        tokens=96, width=32, keys=12, batches=16, checkpoints=(0, 30, 60), seeds=1, windows=6, ablation_steps=20
    ),
    "full": Setting(
        tokens=128, width=32, keys=12, batches=64, checkpoints=(0, 60, 120, 180), seeds=3, windows=12,
        ablation_steps=120,
    ),
}  # fmt: skip


def embedding_cosine(attention, ids):
    """Return the mean cosine of sentence embeddings with one layer's attention replaced to those without."""
    model = minilm.load()
    with torch.no_grad():
        vectors = [model(ids).mean(1), model(ids, attention={LAYER: attention}).mean(1)]
    return float(torch.nn.functional.cosine_similarity(*vectors).mean())


def distillation(size, seed, report):
    """Train estimators for one layer of the encoder and compare their masks with others of the same size."""
    s = SIZES[size]
    train, held = cached_qkv("train", s.tokens, BATCH * s.batches), cached_qkv("held_out", s.tokens, s.windows)
    ids = windows("held_out", s.tokens, s.windows)
    weights = attention_weights(*held[:2], causal=False)
    rows = _baselines(s, held, ids, weights, seed)
    for number in range(s.seeds):
        sea = new_estimator(384, 12, seed + number, width=s.width, k=s.keys)
        students = {"SEA": sea, "Performer": PerformerAttention(384, 12, sea.projection)}
        labels = {"seed": seed + number, "keys": s.keys}
        for place, (name, student) in enumerate(students.items()):

            def told(share, step, done=number + place / 2, name=name, seed=labels["seed"]):
                report((done + share / 2) / s.seeds, f"{name} from seed {seed}, step {step}")

            rows += _training(student, s, train, held, weights, told, method=name, **labels)
        rows += _after_training(students, s, held, ids, weights, labels)
    return rows


def _training(student, s, train, held, weights, report, **labels):
    """Train, and try the student on held-out windows at every checkpoint, untrained first."""
    rows, steps = checkpoint_rows(student, held, weights, step=0, **labels), s.checkpoints[-1]

    def seen(step, losses):
        report((step + 1) / steps, step + 1)
        if step + 1 in s.checkpoints:
            rows.extend(checkpoint_rows(student, held, weights, step=step + 1, **labels))

    distill_layer(batched(train), student, steps=steps, seed=labels["seed"], report=seen)
    return rows


def checkpoint_rows(student, held, weights, **labels):
    """Return coverage, error, parts of the loss and keys spent on held-out windows; of a Performer its error."""
    if isinstance(student, PerformerAttention):
        with torch.no_grad():
            found = {"context error": context_error(student(*held).context, weights @ held[2])}
    else:
        found = measure(student, held, weights)
    units = {"coverage": "fraction", "context error": "relative", "keys per query and head": "keys"}
    rows = []
    for name, value in found.items():
        unit = units.get(name, "nats" if "KL" in name else "number")
        rows.append(row(name, value, unit, "measured", **labels))
    return rows


def _heads(weights, mask, **labels):
    """Return what a mask covers of each head's attention."""
    return [
        row("coverage of one head", coverage(weights[:, i], mask[:, i]), "fraction", "measured", head=i, **labels)
        for i in range(weights.shape[1])
    ]


def _after_training(students, s, held, ids, weights, labels):
    """Turn k, compare the two backends and the matrix with the context, and put the layer back into the model."""
    sea, trained = students["SEA"], {"step": s.checkpoints[-1], "method": "SEA", "seed": labels["seed"]}
    rows = []
    for keys in sorted({max(1, s.keys // 4), s.keys // 2, s.keys, 2 * s.keys, 4 * s.keys}):
        sea.k = keys
        with torch.no_grad():
            out = sea(*held)
        named = {"method": "SEA, k turned after training", "keys": keys, "seed": labels["seed"]}
        error = context_error(out.context, weights @ held[2])
        rows.append(row("coverage", coverage(weights, out.mask), "fraction", "measured", **named))
        rows.append(row("context error", error, "relative", "measured", **named))
    sea.k = s.keys
    with torch.no_grad():
        dense = sea(*held)
        matrix = effective_attention(dense, torch.full((len(ids),), s.tokens), causal=False)
        sea.backend = "flat_csr"
        flat = sea(*held)
    rows += _heads(weights, dense.mask, method="SEA", **labels)
    gaps = {
        "flat_csr against dense": context_error(flat.context, dense.context),
        "A V against the context": context_error(matrix @ held[2], dense.context),
    }
    rows += [row(f"difference, {name}", gap, "relative", "measured", **trained) for name, gap in gaps.items()]
    for name, student in students.items():
        cosine = embedding_cosine(lambda q, k, v, layer, student=student: student(q, k, v).context, ids)
        rows.append(row("embedding cosine", cosine, "cosine", "measured", method=name, **labels))
    return rows


def _baselines(s, held, ids, weights, seed):
    """Masks of the same size that nobody trained, and what no estimate can beat."""
    q, k, v = held
    n, h, t = q.shape[:3]
    lengths = torch.full((n,), t)
    draw = torch.Generator().manual_seed(seed)
    cells = {
        "random cells": torch.rand(n, h, t, s.width, generator=draw),
        "oracle cells": oracle_estimate(q, k, s.width, lengths),
    }
    masks = {name: expand_cells(grouped_topk(est, s.keys, lengths), lengths) for name, est in cells.items()}
    masks[WINDOW] = local_mask(t, s.keys).expand(n, h, t, t)
    masks["oracle keys"] = top_keys(weights, s.keys)
    rows = []
    for name, mask in masks.items():
        labels = {"method": name, "keys": s.keys}
        found = attention_weights(q, k, causal=False, allowed=mask) @ v
        rows.append(row("coverage", coverage(weights, mask), "fraction", "measured", **labels))
        rows.append(row("context error", context_error(found, weights @ v), "relative", "measured", **labels))
        rows.append(row("keys per query and head", float(mask.sum() / (n * h * t)), "keys", "measured", **labels))
    rows += _heads(weights, masks[WINDOW], method=WINDOW, keys=s.keys)
    for name in ("random cells", WINDOW, "oracle keys"):
        attend = masked_attention(masks[name]) if name != "oracle keys" else top_attention(s.keys)
        labels = {"method": name, "keys": s.keys}
        rows.append(row("embedding cosine", embedding_cosine(attend, ids), "cosine", "measured", **labels))
    return rows
