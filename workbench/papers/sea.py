"""SEA: linear attention that estimates a compressed attention matrix and attends exactly where the estimate is high."""

from dataclasses import dataclass
from statistics import fmean

import numpy as np

from widgets.controls.knob import Knob
from workbench.judging import above, at_least, at_most, below, falling, rising, verdict
from workbench.paper import Claim, Experiment, Paper, loaded_later, values

GROUP_CHOICES = (
    ("query", "each query and head"),
    ("head", "each head"),
    ("batch", "all heads and queries"),
    ("causal_batch", "all heads of one query"),
)
KNOBS = (
    Knob("tokens", "Tokens", 128, 16, 512, scale="log2", help="Held-out documentation text, through the encoder."),
    Knob("layer", "Layer", 3, 0, 5, 1, help="Of the encoder, the teacher."),
    Knob("head", "Head", 0, 0, 11, 1, help="Of the layer."),
    Knob("cells", "Cells per estimated row", 32, 8, 256, scale="log2", help="Width of the compressed attention."),
    Knob("keys_per_query", "Keys per query", 12, 1, 256, 1, help="Budget of exact attention; free after training."),
    Knob("group", "Rank together", "causal_batch", choices=GROUP_CHOICES,
         help="Which cells of the estimate compete for the budget."),
    Knob("steps", "Training steps", 60, 0, 200, 1, help="Of the estimator, against the frozen teacher; 0 for none."),
)  # fmt: skip
_KNOB_DEFAULTS = {knob.key: knob.default for knob in KNOBS}


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of every head of one layer, (heads, tokens, d) float32, and where they come from."""

    title: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray


def sample(**knobs) -> Heads:
    """Return what one layer of the encoder sees on a window of held-out text."""
    from workbench.models.attention.sea_training import cached_qkv

    k = _KNOB_DEFAULTS | knobs
    q, key, v = (x[0].numpy() for x in cached_qkv("held_out", k["tokens"], 1, k["layer"]))
    return Heads(f"MiniLM, layer {k['layer']}, {k['tokens']} tokens of held-out documentation", q, key, v)


def run(heads: Heads, **knobs):
    """Return the stages of SEA for one head, by an estimator trained as the knobs say."""
    import torch

    from workbench.models.attention.sea_stages import stages
    from workbench.models.attention.sea_training import trained

    k = _KNOB_DEFAULTS | knobs
    sea = trained(heads.q.shape[1], k["cells"], k["steps"], k["layer"])
    sea.k, sea.group = k["keys_per_query"], k["group"]
    return stages(sea, *(torch.from_numpy(x)[None] for x in (heads.q, heads.k, heads.v)), head=k["head"])


def view(**state):
    """Return the mask explorer with this method chosen; its estimate is the shipped estimator's."""
    from workbench.explorers.attention.explorer import explorer

    start = {"method": "sea", "input": "minilm", "layer": 3, "tokens": 128, "estimator": "trained_180"}
    return explorer(**(start | {"group": "causal_batch", "left": "estimate", "right": "effective"} | state))


# Claims --------------------------------------------------------------------------------------------------------------


def _last_step(rows):
    """Steps of training; fewer than 100 decide nothing."""
    last = max(row["step"] for row in rows if "step" in row)
    if last < 100:
        raise ValueError(f"trained for {last} steps only")
    return last


def _judge_coverage(rows):
    """Reproduced if the coverage is at least 4 times a random choice's and .45; partly if above a random choice's."""
    ours = fmean(values(rows, "coverage", method="SEA", step=_last_step(rows)))
    chance = fmean(values(rows, "coverage", method="random cells"))
    window = fmean(values(rows, "coverage", method="local window, first and last token"))
    best = fmean(values(rows, "coverage", method="oracle keys"))
    return (
        f"{ours:.3f} of the attention at the same budget; random {chance:.3f}, local window {window:.3f}, "
        f"best possible {best:.3f} (measured)"
    ), verdict(at_least(ours, max(4 * chance, 0.45)), above(ours, chance))


def _judge_error(rows):
    """Reproduced if the error is at least .15 below the Performer's; partly if any lower."""
    ours = fmean(values(rows, "context error", method="SEA", step=_last_step(rows)))
    performer = fmean(values(rows, "context error", method="Performer"))
    shown = f"relative error of the output {ours:.2f}, Performer {performer:.2f} (measured)"
    return shown, verdict(at_most(ours, performer - 0.15), below(ours, performer))


def _judge_losses(rows):
    """Reproduced if training lowers every loss that is not 0 before and after; partly if some."""
    last = _last_step(rows)
    names = sorted({row["quantity"] for row in rows if row["quantity"].startswith("loss")})
    ends = {name: [fmean(values(rows, name, step=step)) for step in (0, last)] for name in names}
    moving = {name: pair for name, pair in ends.items() if above(max(pair), 0)}
    lower = [below(after, before) for before, after in moving.values()]
    word = verdict(all(lower), any(lower))
    shown = ", ".join(f"{name[6:]} {a:.3g} to {b:.3g}" for name, (a, b) in moving.items())
    return f"{shown} (measured, held-out; the scores' parts are 0, queries and keys being the teacher's)", word


def _judge_turned(rows):
    """Reproduced if with every larger k the coverage rises and the error falls; partly if only the coverage rises."""
    method = "SEA, k turned after training"
    keys = sorted({row["keys"] for row in rows if row.get("method") == method})
    covered = [fmean(values(rows, "coverage", method=method, keys=k)) for k in keys]
    errors = [fmean(values(rows, "context error", method=method, keys=k)) for k in keys]
    word = verdict(rising(covered) and falling(errors), rising(covered))
    shown = ", ".join(f"k={k} {c:.2f}" for k, c in zip(keys, covered, strict=True))
    return f"coverage {shown}; output error {errors[0]:.2f} to {errors[-1]:.2f} (measured)", word


def _judge_exact(rows):
    """Reproduced if no difference is above 1e-5."""
    gaps = values(rows, "difference, flat_csr against dense") + values(rows, "difference, A V against the context")
    return f"largest relative difference {max(gaps):.1e} (measured)", verdict(at_most(max(gaps), 1e-5))


def _judge_embedding(rows):
    """Reproduced if closer to the teacher than the Performer and the local window; partly if than the Performer."""
    ours, performer, window = (
        fmean(values(rows, "embedding cosine", method=name))
        for name in ("SEA", "Performer", "local window, first and last token")
    )
    return (
        f"one layer replaced, cosine to the teacher's embedding: SEA {ours:.3f}, Performer {performer:.3f}, "
        f"local window {window:.3f} (measured)"
    ), verdict(above(ours, max(performer, window)), above(ours, performer))


def _judge_language(rows):
    """Reproduced if SEA costs at most 5 % more than the teacher, and the Performer at least three times as much more.

    Partly if SEA costs less than the Performer.
    """
    bits = {
        name: fmean(values(rows, "bits per byte, all layers replaced", method=name))
        for name in ("teacher", "SEA", "Performer", "local window and first token")
    }
    teacher, ours, performer = bits["teacher"], bits["SEA"], bits["Performer"]
    near = at_most(ours, 1.05 * teacher) and at_least(performer, teacher + 3 * (ours - teacher))
    shown = ", ".join(f"{name} {b:.3f}" for name, b in bits.items())
    return f"bits per byte, all layers replaced: {shown} (measured)", verdict(near, below(ours, performer))


def _judge_groups(rows):
    """Reproduced if ranking over heads or over all covers more than per query for both estimates, partly if for one."""
    found = {
        estimate: [
            fmean(values(rows, "coverage by group", estimate=estimate, group=group))
            for group in ("query", "causal_batch", "batch")
        ]
        for estimate in ("trained", "oracle")
    }
    better = [above(max(together, all_), each) for each, together, all_ in found.values()]
    shown = "; ".join(f"{name} {a:.3f} / {b:.3f} / {c:.3f}" for name, (a, b, c) in found.items())
    return f"coverage per query / over heads / over all: {shown} (measured)", verdict(all(better), any(better))


_TIMED = ("SEA, flat_csr", "dense, matrix written out", "dense, torch's fused kernel")


def _timed_lengths(rows, method):
    lengths = sorted({row["tokens"] for row in rows if row["quantity"] == "time" and row["method"] == method})
    if not lengths or lengths[-1] < 2048:
        raise ValueError(f"{method} was timed up to {lengths[-1] if lengths else 0} tokens only")
    return lengths


def _judge_growth(rows):
    """Reproduced if the exponent is at most 1.2 and .4 below dense attention's; partly if more than .2 below."""
    _timed_lengths(rows, _TIMED[0])
    ours, written, fused = (values(rows, "growth exponent of the time", method=name)[0] for name in _TIMED)
    dense = min(written, fused)
    shown = f"time grows as T^{ours:.2f}, dense T^{written:.2f} (written out), T^{fused:.2f} (fused) (measured)"
    return shown, verdict(at_most(ours, min(1.2, dense - 0.4)), below(ours, dense - 0.2))


def _judge_cheaper(rows):
    """Reproduced if faster than both dense forms at the longest sequence that each was timed at; partly if than one."""
    faster, shown = [], []
    for dense in _TIMED[1:]:
        longest = _timed_lengths(rows, dense)[-1]
        ours, theirs = (values(rows, "time", method=name, tokens=longest)[0] for name in (_TIMED[0], dense))
        faster.append(below(ours, theirs))
        shown.append(f"at {longest:,} tokens {ours:.0f} ms, {dense} {theirs:.0f} ms")
    return "; ".join(shown) + " (measured)", verdict(all(faster), any(faster))


CLAIMS = (
    Claim("exact", "The flattened sparse path computes what the mask says, and an attention matrix is there to see.",
          "method", "exact", "from memory", "distillation", _judge_exact),
    Claim("coverage", "The compressed estimate, learnt from the teacher, finds where the attention is.",
          "method; no figure", "at least 4 x random and 0.45 (our bound)", "from memory", "distillation",
          _judge_coverage),
    Claim("error", "The layer's output comes closer to the teacher's than the linear attention it starts from.",
          "tables of accuracy", "Performer clearly worse", "from memory", "distillation", _judge_error),
    Claim("losses", "The layer's losses make every part of the student follow the teacher.",
          "method", "every part falls", "from memory", "distillation", _judge_losses),
    Claim("dynamic-k", "The number of keys can be changed after training; more keys come closer to the teacher.",
          "experiments; MNLI in the authors' repository", "trained with k = 7 / 13 / 25: .818 / .835 / .843",
          "published", "distillation", _judge_turned),
    Claim("encoder", "A BERT keeps its accuracy with SEA in place of attention where other linear methods lose much.",
          "MNLI accuracy, authors' repository", "SEA 84.6, CosFormer 82.7, Reformer 82.3, Performer 74.7",
          "published", "distillation", _judge_embedding),
    Claim("groups", "Ranking cells over all heads spends the budget better than a fixed number per query.",
          "method", "better; no figure", "from memory", "ablations", _judge_groups),
    Claim("language", "A causal language model keeps its perplexity with SEA where the Performer doubles it.",
          "OPT-125M on WikiText-2, k = 64, plot script in the authors' repository",
          "teacher 25.16, SEA 25.88, Performer 49.79", "published", "causal", _judge_language),
    Claim("linear", "Time grows linearly with the sequence at fixed k and width.",
          "abstract", "linear", "published", "timing", _judge_growth),
    Claim("cheaper", "On long sequences it costs less than dense attention.",
          "experiments", "less; no figure for a CPU", "from memory", "timing", _judge_cheaper),
)  # fmt: skip

PAPER = Paper(
    key="sea",
    title="SEA: Sparse Linear Attention with Estimated Attention Mask",
    authors="Heejun Lee, Jina Kim, Jeffrey Willette and Sung Ju Hwang",
    year=2023,
    arxiv="2310.01777",
    family="attention",
    summary=(
        "A trained transformer is distilled into one of linear cost that keeps an attention matrix to look at. "
        "A kernel-based pass over the sequence lets a small convolutional decoder predict, for every query, a row of "
        "fixed width that stands for its attention over all keys. The best cells are stretched to the keys they cover, "
        "and exact softmax attention runs over those alone."
    ),
    state=(
        "complete for one layer at a time; the whole model is not trained together, as the paper does, and there is no "
        "LoRA and no oversampling of cells; the estimate of the layer shown owes next to nothing to the linear pass."
    ),
    claims=CLAIMS,
    knobs=KNOBS,
    sample=sample,
    run=run,
    view=view,
    experiments=(
        Experiment(
            "distillation", "One layer of MiniLM distilled", "accuracy", loaded_later("_sea_experiment", "distillation")
        ),
        Experiment("ablations", "Width, features and groups", "accuracy", loaded_later("_sea_experiment", "ablations")),
        Experiment(
            "causal", "Every layer of a language model distilled", "accuracy", loaded_later("_sea_experiment", "causal")
        ),
        Experiment(
            "timing", "Time over the length of the sequence", "timing", loaded_later("_sea_experiment", "timing")
        ),
    ),
)
