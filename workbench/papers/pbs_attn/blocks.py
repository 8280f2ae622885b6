"""PBS-Attn's experiments on real and generated heads: equal blocks, equal thresholds, equal results."""

import numpy as np
import torch

from kernels.masks.block_select import block_density, select_blocks
from workbench.data import text
from workbench.data.attention_patterns import heavy_hitters
from workbench.models.attention import xattention
from workbench.models.attention.dense_attention import attention_weights, dense_attention
from workbench.models.attention.pbs_attn import (
    PERMUTATIONS,
    PBSMask,
    computed_density,
    pbs_attention,
    permuted_block_mass,
    scored_mask,
    select_again,
)
from workbench.models.language import minilm, tiny_lm
from workbench.paper import row

SORTS = ("none", "random", "keys")
NAMES = {"none": "not sorted", "random": "random order", "keys": "sorted (PBS-Attn)", "queries": "queries sorted",
         "both": "keys and queries sorted"}  # fmt: skip
ENCODER, LM, GENERATOR = "MiniLM, read causally", "tiny language model", "heavy-hitter generator"
SHARES = (0.10, 0.25, 0.50)
THRESHOLDS = (0.5, 0.7, 0.9)
SETTINGS = ((16, 64), (8, 64))  # block, segment at 512 tokens


def minilm_heads(groups, layers=None, size=512, windows=3):
    """Yield (group, q, k, v) of MiniLM on documentation, ``windows`` windows a group; group 0 is the text's beginning.

    The encoder attends both ways; the experiments put a causal mask on its queries and keys.
    """
    model = minilm.load()
    documents = "\n\n".join(document.text for document in text.documents("documentation"))
    cut = model.windows(documents[: 6 * size * windows * (groups * 4 + 2)], size)
    for group in range(groups):
        for window in cut[group * windows * 2 :][:windows]:
            for layer in layers or range(model.config.layers):
                yield group, *(x.numpy() for x in model.qkv(window[None], layer))


def lm_heads(tokens, layers=None):
    """Yield q, k, v of the tiny language model on held-out documentation, after RoPE."""
    model = tiny_lm.load()
    ids = model.encode(text.sample(6 * tokens)[0])[:, :tokens]
    for layer in layers or range(model.config.layers):
        yield tuple(x.numpy() for x in model.qkv(ids, layer))


# All blocks kept -----------------------------------------------------------------------------------------------------
def exactness(size, seed, report):
    """Keep every block under every order: the result must be dense attention's."""
    tokens = 256 if size == "tiny" else 512
    heads = [(ENCODER, *found[1:]) for found in minilm_heads(1, layers=(2,), size=tokens, windows=1)]
    length = {"tiny": 300, "small": 1000, "full": 4000}[size]
    q, k = heavy_hitters(length, seed=seed)
    v = np.random.default_rng(seed).standard_normal(q.shape, np.float32)
    heads.append((f"{GENERATOR}, {length} tokens", q, k, v))
    rows = []
    for place, (title, q, k, v) in enumerate(heads):
        wanted = dense_attention(*map(torch.as_tensor, (q, k, v)))
        for order in PERMUTATIONS:
            report(place / len(heads), f"{NAMES[order]}, {title}")
            how = {"block_size": 16, "segment_size": 64, "permute": order, "seed": seed}
            out, _ = pbs_attention(q, k, v, threshold=1.0, **how)
            error = float((out - wanted).abs().max() / wanted.abs().max())
            rows.append(row("largest error", error, "relative", "measured", input=title, order=NAMES[order]))
    rows.append(row("largest error", _future_leak(seed), "relative", "measured",
                    input="keys and values after p changed, rows up to p", order=NAMES["keys"]))  # fmt: skip
    return rows


def _future_leak(seed, length=512, p=300):
    """Return how much rows up to p change when keys and values after p do, mask and order held."""
    q, k = heavy_hitters(length, seed=seed)
    v = np.random.default_rng(seed).standard_normal(q.shape, np.float32)
    out, mask = pbs_attention(q, k, v, block_size=16, segment_size=64, threshold=0.5)
    k[:, :, p + 1 :] += 3
    v[:, :, p + 1 :] -= 3
    again, _ = pbs_attention(q, k, v, block_size=16, segment_size=64, mask=mask)
    return float((out - again)[:, :, : p + 1].abs().max())


# Equal number of blocks ----------------------------------------------------------------------------------------------
def blocks(size, seed, report):
    """Keep the same number of off-segment blocks per row: which order catches more of the true attention?"""
    held: dict[tuple, list] = {}
    inputs = list(_equal_block_inputs(size))
    for place, (title, tokens, group, settings, q, k) in enumerate(inputs):
        report(place / len(inputs), f"{title}, group {group + 1}")
        for (block, segment), order in ((s, o) for s in settings for o in SORTS):
            how = {"block_size": block, "segment_size": segment, "permute": order, "seed": seed + place}
            for (share, choice), value in _held_at_shares(q, k, how).items():
                held.setdefault((title, tokens, group, block, segment, order, choice, share), []).append(value)
    return [
        row("off-segment attention held", float(np.mean(values)), "fraction", "measured", input=title, tokens=tokens,
            group=group, block=block, segment=segment, order=NAMES[order], choice=choice, share=share)
        for (title, tokens, group, block, segment, order, choice, share), values in held.items()
    ]  # fmt: skip


def _equal_block_inputs(size):
    """Yield (title, tokens, group of windows, settings, q, k)."""
    groups, layers, tokens, windows = {"tiny": (1, (1,), 256, 1), "small": (1, None, 512, 3), "full": (
        5, None, 512, 3)}[size]  # fmt: skip
    for group, q, k, _ in minilm_heads(groups, layers, tokens, windows):
        yield ENCODER, tokens, group, SETTINGS, q, k
    tokens = {"tiny": 256, "small": 1024, "full": 2048}[size]
    for q, k, _ in lm_heads(tokens, layers):
        yield LM, tokens, 0, (SETTINGS[0] if size == "tiny" else (32, 128),), q, k


def _held_at_shares(q, k, how):
    """Return (share, choice) -> mean over heads of the off-segment mass that so many blocks a row hold."""
    mask = scored_mask(q, k, **how)
    eligible = off_segment(mask)
    mass = permuted_block_mass(q, k, mask) * eligible
    total = mass.sum(axis=(2, 3))
    found = {}
    for share in SHARES:
        for choice, scores in (("block means", mask.block_scores), ("best possible", mass)):
            keep = select_blocks(scores, causal=False, eligible=eligible, method="ratio", k=share)
            found[share, choice] = float(((mass * keep).sum(axis=(2, 3)) / total).mean())
    return found


def off_segment(mask: PBSMask) -> np.ndarray:
    """Return the blocks of earlier segments, (n, n) bool."""
    return np.tri(len(mask.segment_mask), k=-1, dtype=bool) & ~mask.segment_mask


# Equal thresholds ----------------------------------------------------------------------------------------------------
def thresholds(size, seed, report):
    """Use one threshold with and without sorting, diagonal segments counted in full; two selections beside it."""
    rows = []
    inputs = _threshold_inputs(size, seed)
    for place, (title, tokens, (block, segment), heads) in enumerate(inputs):
        found: dict[tuple, list] = {}
        part = report.part(place, len(inputs), title)
        for number, (q, k) in enumerate(heads):
            part(number / len(heads))
            for name, points in _curves(q, k, block, segment, seed).items():
                for tau, density, coverage in points:
                    found.setdefault((name, tau), []).append((density, coverage))
        for (name, tau), points in found.items():
            labels = {"input": title, "tokens": tokens, "block": block, "segment": segment, "method": name,
                      "threshold": tau}  # fmt: skip
            for quantity, value in zip(("density", "coverage"), np.mean(points, axis=0), strict=True):
                kind = "counted" if title == GENERATOR else "measured"
                rows.append(row(quantity, float(value), "fraction", kind, **labels))
    return rows


def _threshold_inputs(size, seed):
    """Return (title, tokens, (block, segment), [(q, k), ...]) per input."""
    layers, windows, encoder_tokens, lm_tokens, tokens = {
        "tiny": ((1,), 1, 256, 256, 512), "small": ((1, 4), 3, 512, 1024, 4096), "full": (None, 3, 512, 2048, 8192)
    }[size]  # fmt: skip
    encoder = [(q, k) for _, q, k, _ in minilm_heads(1, layers, encoder_tokens, windows)]
    lm = [(q, k) for q, k, _ in lm_heads(lm_tokens, layers)]
    generated = [heavy_hitters(tokens, seed=seed)]
    return [
        (ENCODER, encoder_tokens, (16, 64), encoder),
        (LM, lm_tokens, (16, 64) if size == "tiny" else (32, 128), lm),
        (LM, lm_tokens, (32, 128) if size == "tiny" else (64, 256), lm),
        (GENERATOR, tokens, (16, 64) if size == "tiny" else (128, 512), generated),
    ]


def _curves(q, k, block, segment, seed):
    """Return method -> [(threshold, density, coverage)], every method scored once."""
    found = {}
    for order in SORTS:
        scored = scored_mask(q, k, block_size=block, segment_size=segment, permute=order, seed=seed)
        mass = permuted_block_mass(q, k, scored)
        masks = [select_again(scored, tau) for tau in THRESHOLDS]
        found[NAMES[order]] = [
            (tau, computed_density(mask), _covered(mass, mask.keep))
            for tau, mask in zip(THRESHOLDS, masks, strict=True)
        ]
        if order == "none":
            plain = mass  # in the original order: what methods without sorting are held against
    stride = min(8, block)
    scores = xattention.block_scores(q, k, block_size=block, stride=stride)
    means = xattention.block_scores(q, k, block_size=block, mode="mean_pool")
    for name, choose in (
        ("XAttention", lambda tau: select_blocks(scores, tau)),
        ("block means (MeanPooling)", lambda tau: mean_pooling(means, tau)),
    ):
        keeps = [choose(tau) for tau in THRESHOLDS]
        found[name] = [
            (tau, block_density(keep), _covered(plain, keep)) for tau, keep in zip(THRESHOLDS, keeps, strict=True)
        ]
    return found


def mean_pooling(scores, threshold):
    """Choose blocks as the authors' baseline does: block means, then block 0 and the diagonal block on top."""
    blocks = scores.shape[2]
    keep = select_blocks(scores, threshold, keep_sink=False, keep_diagonal=False)
    return keep | np.eye(blocks, dtype=bool) | (np.arange(blocks) == 0)


def _covered(mass, keep):
    return float(((mass * keep).sum(axis=(2, 3)) / mass.sum(axis=(2, 3))).mean())


# Long contexts, generated --------------------------------------------------------------------------------------------
def generator(size, seed, report):
    """Count the off-segment blocks that hold 95 per cent of each row's off-segment mass, by share of heavy keys."""
    tokens, seeds = {"tiny": (1024, 1), "small": (4096, 1), "full": (4096, 3)}[size]
    cases = [(share, 64, 256) for share in (0.02, 0.01)] + [(0.02, 64, segment) for segment in (128, 512, 1024)]
    if size == "tiny":
        cases = [(0.02, 16, 64)]
    rows = []
    for place, (heavy, block, segment) in enumerate(cases):
        labels = {"input": GENERATOR, "tokens": tokens, "heavy": heavy, "block": block,
                  "segment": segment}  # fmt: skip
        part = report.part(place, len(cases), f"{heavy:.0%} heavy keys, segments of {segment}")
        for number in range(seeds):
            part(number / seeds)
            q, k = heavy_hitters(tokens, share=heavy, seed=seed + number)
            for order in SORTS:
                named = labels | {"draw": number, "order": NAMES[order]}
                how = {"block_size": block, "segment_size": segment, "permute": order, "seed": seed + number}
                for choice, value in needed(q, k, 0.95, how).items():
                    rows.append(row("blocks needed", value, "fraction", "counted", **named, choice=choice))
        rows.append(row("mass of heavy keys", _heavy_mass(q, k), "fraction", "counted", **labels, draw=number))
    return rows


def needed(q, k, goal, how):
    """Return choice -> share of off-segment blocks after which every row holds ``goal`` of its off-segment mass."""
    mask = scored_mask(q, k, **how)
    eligible = off_segment(mask)
    mass = permuted_block_mass(q, k, mask)[0, 0] * eligible
    found = {}
    for choice, scores in (("block means", mask.block_scores[0, 0]), ("best possible", mass)):
        order = np.argsort(np.where(eligible, -scores, np.inf), axis=1, kind="stable")
        held = np.cumsum(np.take_along_axis(mass, order, axis=1), axis=1)
        rows = eligible.any(axis=1)
        count = (held < goal * mass.sum(axis=1, keepdims=True)).sum(axis=1) + 1
        found[choice] = float(count[rows].sum() / eligible.sum())
    return found


def _heavy_mass(q, k):
    """Return what the heavy keys hold of the attention of the last 256 queries."""
    weights = attention_weights(torch.as_tensor(q[:, :, -256:]), torch.as_tensor(k))[0, 0].numpy()
    heavy = k[0, 0, :, 0] > 8
    return float(weights[:, heavy].sum() / weights.sum())
