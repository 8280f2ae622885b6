"""PBS-Attn: sort keys inside segments, so that a few blocks hold what attention looks for."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.judging import above, at_least, at_most, below, verdict
from workbench.paper import Claim, Experiment, Paper, loaded_later, values

# Keys and defaults are those of the mask explorer, this paper's view, which imports torch; this file may not.
KNOBS = (
    Knob("input", "Queries and keys", "lm", choices=(("lm", "Tiny language model (causal)"),
         ("minilm_causal", "MiniLM encoder under a causal mask"), ("heavy", "Generator: heavy-hitter keys")),
         help="Where queries and keys come from."),
    Knob("tokens", "Tokens", 512, 64, 65536, scale="log2", help="As many as the text has, at most."),
    Knob("layer", "Layer", 3, 0, 31, 1, help="Of the model."),
    Knob("head", "Head", 3, 0, 31, 1, help="Of the layer."),
    Knob("share", "Share of heavy keys", 0.02, 0.001, 0.2, scale="log10", help="Chance that a key is heavy."),
    Knob("seed", "Seed", 0, 0, 99, 1, help="Of the generator."),
    Knob("block", "Block (tokens)", 32, 16, 128, scale="log2", help="Tokens per block row and column."),
    Knob("segment", "Segment (blocks)", 2, 1, 16, scale="log2", help="Keys are sorted inside so many blocks."),
    Knob("threshold", "Share of mass to keep", 0.9, 0.0, 1.0, 0.01, help="Of the estimated off-segment mass."),
    Knob("permute", "Sort", "keys", choices=(("keys", "keys by last queries"), ("random", "random"),
         ("none", "none"), ("queries", "queries"), ("both", "keys and queries")), help="What is sorted in segments."),
)  # fmt: skip
_DEFAULTS = {knob.key: knob.default for knob in KNOBS}


def sample(**knobs):
    """Return one causal head, an `AttentionInput`."""
    from workbench.models.attention.attention_inputs import load_input

    k = _DEFAULTS | knobs
    return load_input(k["input"], **{name: k[name] for name in ("tokens", "layer", "head", "share", "seed")})


def run(given, **knobs):
    """Choose blocks and trace one head, an `AttentionTrace`."""
    from workbench.models.attention import pbs_attn

    k = _DEFAULTS | knobs
    how = {"block_size": k["block"], "segment_size": k["segment"] * k["block"], "permute": k["permute"]}
    return pbs_attn.trace(given.q, given.k, threshold=k["threshold"], causal=given.causal, **how)


def view(**state):
    """Return the mask explorer, opened on heavy-hitter keys."""
    from workbench.explorers.attention.explorer import explorer

    return explorer(**({"method": "pbs_attn", "input": "heavy", "right": "permuted"} | state))


# Claims --------------------------------------------------------------------------------------------------------------

SORTED, UNSORTED, RANDOM = "sorted (PBS-Attn)", "not sorted", "random order"
ENCODER, LM, GENERATOR = "MiniLM, read causally", "tiny language model", "heavy-hitter generator"


def _judge_exact(rows):
    """Reproduced if no error is above 1e-5."""
    worst = max(values(rows, "largest error"))
    shown = f"largest relative error {worst:.1e} over every order and input (measured, float32)"
    return shown, verdict(at_most(worst, 1e-5))


def _judge_blocks(rows):
    """Reproduced if sorting gains .05 for both block sizes and both ways to choose, and random order at most .01.

    Partly if sorting gains anything everywhere.
    """
    found, shown = [], []
    for choice in ("block means", "best possible"):
        for block in (16, 8):
            labels = {"input": ENCODER, "share": 0.25, "choice": choice, "block": block}
            plain, random, ordered = (
                float(np.mean(values(rows, "off-segment attention held", order=order, **labels)))
                for order in (UNSORTED, RANDOM, SORTED)
            )
            found.append((plain, random, ordered))
            shown.append(f"{plain:.3f} to {ordered:.3f}")
    lm = [
        np.mean(values(rows, "off-segment attention held", input=LM, share=0.25, choice="block means", order=order))
        for order in (UNSORTED, SORTED)
    ]
    much = all(at_least(ordered, plain + 0.05) and at_most(random, plain + 0.01) for plain, random, ordered in found)
    word = verdict(much, all(above(ordered, plain) for plain, _, ordered in found))
    return (
        f"MiniLM, B 16 and 8: {shown[0]} and {shown[1]}; best possible choice {shown[2]} and {shown[3]}; "
        f"tiny language model {lm[0]:.3f} to {lm[1]:.3f} (counted)"
    ), word


def _judge_generator(rows):
    """Reproduced if sorting halves the blocks needed or better; partly if it divides them by more than 1.1."""
    labels = {"heavy": 0.02, "segment": 256, "choice": "block means"}
    plain, ordered = (float(np.mean(values(rows, "blocks needed", order=o, **labels))) for o in (UNSORTED, SORTED))
    ratio = plain / ordered
    shown = f"{plain:.2f} of the off-segment blocks without sorting, {ordered:.2f} with it (counted)"
    return shown, verdict(at_least(ratio, 2), above(ratio, 1.1))


def _judge_figure(rows):
    """Reproduced if on the longest input of both kinds sorting lowers density and lowers coverage by .001 at most.

    Partly if it does at some threshold of one of them.
    """
    wins, shown = [], []
    for title, tokens, segment in ((GENERATOR, 8192, 512), (LM, 2048, 256)):
        for tau in (0.5, 0.9):
            labels = {"input": title, "tokens": tokens, "segment": segment, "threshold": tau}
            (d0, c0), (d1, c1) = (
                [values(rows, quantity, method=method, **labels)[0] for quantity in ("density", "coverage")]
                for method in (UNSORTED, SORTED)
            )
            wins.append(below(d1, d0) and at_least(c1, c0 - 0.001))
            shown.append(f"{title} at {tau}: density {d0:.1%} to {d1:.1%}, coverage {c0:.1%} to {c1:.1%}")
    return "; ".join(shown) + " (counted)", verdict(all(wins), any(wins))


def _judge_short(rows):
    """Reproduced if sorting raises the density at every threshold; partly if at some."""
    rises, shown = [], []
    for tau in (0.5, 0.7, 0.9):
        labels = {"input": ENCODER, "threshold": tau}
        plain, ordered = (values(rows, "density", method=method, **labels)[0] for method in (UNSORTED, SORTED))
        rises.append(above(ordered, plain))
        shown.append(f"{plain:.3f} to {ordered:.3f}")
    listed = ", ".join(shown)
    return f"density at 512 tokens, thresholds .5, .7, .9: {listed} (counted)", verdict(all(rises), any(rises))


def _judge_quality(rows):
    """Reproduced if near dense and better than every baseline; partly if near, or better than one.

    Near: at most 1 per cent from dense at threshold .9. Better: at PBS-Attn's densities the baseline costs more.
    """
    rows = [row for row in rows if row["quantity"] == "bits per byte"]
    dense = next(row["value"] for row in rows if row["method"] == "dense")
    ours = [row for row in rows if row["method"] == SORTED]
    excess = next(row["value"] for row in ours if row["threshold"] == 0.9) / dense - 1
    near, better = at_most(abs(excess), 0.01), {}
    for baseline in ("block means (MeanPooling)", "XAttention", UNSORTED):
        curve = sorted((row["density"], row["value"]) for row in rows if row["method"] == baseline)
        density, cost = np.array(curve).T
        here = [row for row in ours if at_least(row["density"], density[0]) and at_most(row["density"], density[-1])]
        lower = [below(row["value"], np.interp(row["density"], density, cost)) for row in here]
        better[baseline] = bool(lower) and all(lower)
    word = verdict(near and all(better.values()), near or any(better.values()))
    said = ", ".join(f"{'better' if won else 'not better'} than {name}" for name, won in better.items())
    return (
        f"{dense:.4f} bits per byte dense, {excess:+.2%} at threshold .9; at equal density {said} (measured)",
        word,
    )


def _judge_speed(rows):
    """Reproduced if PBS-Attn is 2.2 times faster than dense attention on some input, partly if faster on one.

    Both hold 95 per cent or more of the attention.
    """
    best = (0.0, "")
    keys = {(row["input"], row["tokens"], row["segment"]) for row in rows}
    for title, tokens, segment in sorted(keys):
        labels = {"input": title, "tokens": tokens, "segment": segment}
        dense, ordered, plain = (
            values(rows, "time", method=m, **labels)[0] for m in ("dense (torch)", SORTED, UNSORTED)
        )
        best = max(best, (dense / ordered, f"{tokens:,} tokens of the {title}; without sorting {dense / plain:.2f}x"))
    return f"{best[0]:.2f}x at {best[1]} (measured)", verdict(at_least(best[0], 2.2), above(best[0], 1))


CLAIMS = (
    Claim("exact", "Keys may stand in any order, and with every block kept sorted attention is full attention.",
          "method", "exact", "published", "exactness", _judge_exact),
    Claim("blocks", "Sorted keys let the same number of blocks hold more of the attention.", "method",
          "higher coverage", "published", "blocks", _judge_blocks),
    Claim("heavy", "Where few keys are wanted by all queries, sorting gathers them into few blocks.", "method",
          "few dense blocks", "published", "generator", _judge_generator),
    Claim("figure", "At the same threshold sorting lowers the density and raises the coverage.",
          "attention-map figure in the authors' repository, 8k tokens", "density 82.50 to 32.31 %, coverage 91.73 to "
          "96.44 %", "published", "thresholds", _judge_figure),
    Claim("short", "On short inputs the diagonal segments, always computed, cost more than sorting saves.",
          "follows from the method", "not reported; overhead about M / L", "from memory", "thresholds", _judge_short),
    Claim("quality", "Quality is near full attention and better than other block-sparse methods.",
          "abstract (LongBench, Llama-3.1-8B and Qwen2.5-7B)", "better in every setting", "published", "language",
          _judge_quality),
    Claim("speed", "Prefill is up to 2.75 times faster.", "abstract", "up to 2.75x", "published", "speed",
          _judge_speed),
)  # fmt: skip

PAPER = Paper(
    key="pbs_attn",
    title="Sparser Block-Sparse Attention via Token Permutation",
    authors="Xinghao Wang and nine co-authors",
    year=2025,
    arxiv="2510.21270",
    family="attention",
    summary=(
        "Block-sparse attention must keep a whole block for a single key that many queries want, and such keys lie "
        "scattered. Softmax does not care in which order keys are listed, so PBS-Attn sorts them inside segments by "
        "the attention that the last queries pay, and causality between segments stays as it was. The wanted keys then "
        "fill few blocks, the rest is skipped, and the authors report prefill up to 2.75 times faster."
    ),
    state="complete at small scale; no LongBench and no 8-billion-parameter model",
    claims=CLAIMS,
    knobs=KNOBS,
    sample=sample,
    run=run,
    view=view,
    experiments=(
        Experiment(
            "exactness",
            "Every order with every block kept, against dense attention",
            "accuracy",
            loaded_later("_pbs_attn_experiment", "exactness"),
        ),
        Experiment(
            "blocks",
            "Attention held by equal numbers of blocks",
            "accuracy",
            loaded_later("_pbs_attn_experiment", "blocks"),
        ),
        Experiment(
            "generator",
            "Blocks needed when few keys are heavy",
            "accuracy",
            loaded_later("_pbs_attn_experiment", "generator"),
        ),
        Experiment(
            "thresholds",
            "Density and coverage at equal thresholds",
            "accuracy",
            loaded_later("_pbs_attn_experiment", "thresholds"),
        ),
        Experiment(
            "language", "Bits per byte of a language model", "accuracy", loaded_later("_pbs_attn_language", "language")
        ),
        Experiment("speed", "Time of prefill attention", "timing", loaded_later("_pbs_attn_language", "speed")),
    ),
)
