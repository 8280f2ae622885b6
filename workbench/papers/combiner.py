"""Combiner: full attention support at sub-quadratic cost, by attending to regions where a pattern does not reach."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.judging import above, at_least, at_most, below, growth_exponent, verdict
from workbench.paper import Claim, Experiment, Paper, loaded_later, values

_PATTERNS = ("fixed", "logsparse", "axial_rowmajor", "axial_mixture", "axial_vertical", "axial_horizontal")
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
    Knob("pattern", "Factorisation", "fixed", choices=tuple((p, p.replace("_", " ")) for p in _PATTERNS),
         help="How the past is cut into regions."),
    Knob("part", "Segment (tokens)", 16, 1, 1024, scale="log2", help="Tokens per segment or row."),
)  # fmt: skip
_DEFAULTS = {knob.key: knob.default for knob in KNOBS}


def sample(**knobs):
    """Return one causal head, an `AttentionInput`."""
    from workbench.models.attention.attention_inputs import load_input

    k = _DEFAULTS | knobs
    return load_input(k["input"], **{name: k[name] for name in ("tokens", "layer", "head", "share", "seed")})


def run(given, **knobs):
    """Attend through direct keys and regions and trace one head, an `AttentionTrace`."""
    from workbench.models.attention import combiner

    k = _DEFAULTS | knobs
    return combiner.trace(given.q, given.k, pattern=k["pattern"], seg_len=k["part"], causal=given.causal)


def view(**state):
    """Return the mask explorer, opened on Combiner beside true attention."""
    from workbench.explorers.attention.explorer import explorer

    return explorer(**({"method": "combiner", "input": "lm", "tokens": 256, "right": "effective"} | state))


# Claims --------------------------------------------------------------------------------------------------------------

FULL = "full attention"


def _bits(rows, method) -> float:
    """Mean bits per pixel of a method over its seeds."""
    return float(np.mean(values(rows, "bits per pixel", method=method)))


def _judge_support(rows):
    """Reproduced if no pair is without weight and the matrix is a distribution to 1e-12; partly if only the latter."""
    empty = sum(values(rows, "pairs without weight"))
    leaked = max(values(rows, "weight on the future"))
    error = max(values(rows, "matrix against method") + values(rows, "rows' sums from one"))
    exact = at_most(leaked, 0) and at_most(error, 1e-12)
    shown = f"{empty} pairs without weight, {leaked:.0e} on the future, matrix and method differ by {error:.0e}"
    return shown, verdict(exact and empty == 0, exact)


def _judge_beats(pattern):
    """Reproduced if Combiner needs .05 bits per pixel less than the pattern alone or better, partly if any less."""

    def judge(rows):
        alone, ours = _bits(rows, f"{pattern} alone"), _bits(rows, f"Combiner {pattern}")
        shown = f"{alone:.3f} alone, {ours:.3f} Combiner, bits per pixel of digits (measured)"
        return shown, verdict(at_least(alone, ours + 0.05), above(alone, ours))

    return judge


def _judge_full(rows):
    """Reproduced if every main Combiner is at most .01 below and at most .1 above full attention.

    Partly if one of them is at most .1 above.
    """
    full = _bits(rows, FULL)
    over = {p: _bits(rows, f"Combiner {p}") - full for p in ("fixed", "logsparse", "axial_mixture")}
    near = all(at_least(gap, -0.01) and at_most(gap, 0.1) for gap in over.values())
    word = verdict(near, at_most(min(over.values()), 0.1))
    shown = ", ".join(f"{name.replace('_', ' ')} {gap:+.3f}" for name, gap in over.items())
    return f"over full attention's {full:.3f} bits per pixel: {shown} (measured)", word


def _judge_best(rows):
    """Reproduced if no Combiner is better than the mixture and every pattern alone is worse; partly if only the latter.

    A Combiner that is equal to the mixture does not take the first place from it.
    """
    names = {row["method"] for row in rows if row["quantity"] == "bits per pixel"} - {FULL}
    bits = {name: _bits(rows, name) for name in sorted(names)}
    mixture = bits["Combiner axial_mixture"]
    sparse = min(value for name, value in bits.items() if name.endswith("alone"))
    first = at_most(mixture, min(bits.values()))
    best = "Combiner axial_mixture" if first else min(bits, key=bits.get)
    shown = f"mixture {mixture:.3f}, best pattern alone {sparse:.3f}, best of all {best} {bits[best]:.3f} (measured)"
    beats = below(mixture, sparse)
    return shown, verdict(beats and first, beats)


def growth(rows, quantity, method) -> float:
    """Exponent of the growth with length, over the longest three lengths."""
    points = sorted((r["tokens"], r["value"]) for r in rows if r["quantity"] == quantity and r["method"] == method)[-3:]
    if len(points) < 2:
        raise LookupError(f"no growth of {quantity!r} for {method!r}: needs two lengths or more")
    return growth_exponent(*zip(*points, strict=True))


def _judge_cost(rows):
    """Reproduced if operations and times grow below 1.7 (fixed) and 1.3 (log-sparse); partly if one of the two does.

    Dense attention's time must also grow above fixed regions' and above 1.5.
    """
    time = {m: growth(rows, "time", m) for m in ("fixed", "logsparse", "dense (torch)")}
    counted = {m: growth(rows, "operations", m) for m in ("fixed", "logsparse")}
    by_count, by_time = (below(e["fixed"], 1.7) and below(e["logsparse"], 1.3) for e in (counted, time))
    by_time = by_time and above(time["dense (torch)"], max(time["fixed"], 1.5))
    shown = ", ".join(f"{name} {value:.2f}" for name, value in time.items())
    return (
        f"exponent of time (measured): {shown}; of operations (counted): fixed {counted['fixed']:.2f}, "
        f"logsparse {counted['logsparse']:.2f}"
    ), verdict(by_count and by_time, by_count or by_time)


CLAIMS = (
    Claim("support", "Every earlier position has weight in a single layer, and the factors are a true distribution.",
          "abstract and method", "full support", "published", "support", _judge_support),
    Claim("fixed", "Combiner-Fixed beats the fixed sparse pattern that it starts from.",
          "language-model table (Wiki-40B)", "perplexity 18.04 alone, 17.70 Combiner", "from memory", "pictures",
          _judge_beats("fixed")),
    Claim("logsparse", "Combiner-Logsparse beats the log-sparse pattern that it starts from.", "experiments",
          "better than the sparse counterpart", "from memory", "pictures", _judge_beats("logsparse")),
    Claim("axial", "Combiner-Axial beats the axial pattern that it starts from.", "language-model table (Wiki-40B)",
          "perplexity 20.82 alone, 17.56 Combiner", "from memory", "pictures", _judge_beats("axial_mixture")),
    Claim("near-full", "Combiner stays close to full attention.", "language-model table (Wiki-40B)",
          "perplexity 17.26 full; 17.70 and 17.56 Combiner", "from memory", "pictures", _judge_full),
    Claim("images", "On pictures the axial mixture is better than sparse attention.", "image density (CIFAR-10)",
          "2.77 bits per dimension against 2.80", "from memory", "pictures", _judge_best),
    Claim("cost", "Cost grows as L to the 1.5 for fixed regions and as L log L for log-sparse ones.",
          "abstract and method", "L sqrt L, L log L", "published", "cost", _judge_cost),
)  # fmt: skip

PAPER = Paper(
    key="combiner",
    title="Combiner: Full Attention Transformer with Sparse Computation Cost",
    authors="Hongyu Ren, Hanjun Dai, Zihang Dai, Mengjiao Yang, Jure Leskovec, Dale Schuurmans, Bo Dai",
    year=2021,
    arxiv="2107.05768",
    family="attention",
    summary=(
        "Sparse attention patterns give most pairs of positions no weight at all, so that one layer cannot connect "
        "them. Combiner keeps a sparse pattern's direct keys and reaches all others through regions: first a region, "
        "then a position inside it by a distribution that is computed once and shared by all queries. Every pair keeps "
        "a positive weight, at a cost of L sqrt L or L log L, and each pattern gets better than it was alone."
    ),
    state="complete at small scale; regions learned by clustering are left out",
    claims=CLAIMS,
    knobs=KNOBS,
    sample=sample,
    run=run,
    view=view,
    experiments=(
        Experiment(
            "support",
            "The effective attention matrix of every pattern",
            "accuracy",
            loaded_later("_combiner_experiment", "full_support"),
        ),
        Experiment(
            "pictures",
            "Digits learned pixel by pixel with each pattern",
            "accuracy",
            loaded_later("_combiner_experiment", "pictures"),
        ),
        Experiment(
            "lost",
            "Attention that a pattern loses, on real heads",
            "accuracy",
            loaded_later("_combiner_experiment", "lost"),
        ),
        Experiment(
            "cost", "Time, operations and memory over length", "timing", loaded_later("_combiner_experiment", "cost")
        ),
    ),
)
