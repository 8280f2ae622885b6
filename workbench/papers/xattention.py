"""XAttention: block-sparse attention whose blocks are chosen by sums along antidiagonals."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.judging import above, at_least, at_most, below, falling, verdict
from workbench.paper import Claim, Experiment, Paper, loaded_later, rows_with, values

INPUTS = (
    ("minilm", "MiniLM encoder (bidirectional)"),
    ("lm", "Tiny language model (causal)"),
    ("slash", "Generator: a slash and a column"),
)
LINES = ("antidiagonal", "diagonal", "random", "double", "triple", "mean_pool", "oracle")

KNOBS = (
    Knob("input", "Queries and keys", "minilm", choices=INPUTS, help="Where queries and keys come from."),
    Knob("tokens", "Tokens", 512, 64, 65536, scale="log2", help="Models stop at their context."),
    Knob("layer", "Layer", 2, 0, 31, 1, help="Of the model; clipped to what it has."),
    Knob("head", "Head", 0, 0, 31, 1, help="Of the layer; clipped to what it has."),
    Knob("block", "Block (tokens)", 32, 16, 128, scale="log2", help="Tokens per block row and column."),
    Knob("stride", "Stride", 8, 1, 16, scale="log2", help="One of this many lines of every tile is read."),
    Knob("threshold", "Share of mass to keep", 0.9, 0.0, 1.0, 0.01, help="Estimated mass that the kept blocks hold."),
    Knob("sampler", "Read", "antidiagonal", choices=tuple((key, key.replace("_", " ")) for key in LINES),
         help="Which logits the estimate looks at."),
)  # fmt: skip
_DEFAULTS = {knob.key: knob.default for knob in KNOBS}


def sample(**knobs):
    """Return one head's queries, keys and values, as the knobs describe."""
    from workbench.models.attention.attention_inputs import load_input

    k = _DEFAULTS | knobs
    return load_input(k["input"], tokens=k["tokens"], layer=k["layer"], head=k["head"])


def run(given, **knobs):
    """Choose blocks for one head; return what was read, estimated, kept and covered."""
    from workbench.models.attention.xattention import trace

    k = _DEFAULTS | knobs
    how = {"block_size": k["block"], "stride": k["stride"], "threshold": k["threshold"], "mode": k["sampler"]}
    return trace(given.q, given.k, given.v, causal=given.causal, **how)


def view(**state):
    """Return the interactive view of masks, opened on XAttention."""
    from workbench.explorers.attention.explorer import explorer

    return explorer(**({"method": PAPER.key, "input": _DEFAULTS["input"]} | state))


# Claims --------------------------------------------------------------------------------------------------------------

_SLIDES = "authors' slides"
_QUARTER = "mass kept, a quarter of the blocks"


def _value(rows, quantity, **labels):
    return rows_with(rows, quantity, **labels)[0]["value"]


def _judge_lead(against, least):
    """Reproduced if the lead reaches ``least`` (by stride) everywhere; partly if it is above zero everywhere."""

    def judge(rows):
        leads = {s: _value(rows, f"lead in {_QUARTER}", against=against, stride=s) for s in least}
        share = {s: _value(rows, "heads on which the antidiagonal is ahead", against=against, stride=s) for s in least}
        word = verdict(all(at_least(leads[s], least[s]) for s in least), all(above(x, 0) for x in leads.values()))
        shown = ", ".join(f"{100 * x:+.2f} points of attention mass at S={s} ({share[s]:.0%} of heads)"
                          for s, x in leads.items())  # fmt: skip
        return f"{shown}, a quarter of the blocks kept (counted)", word

    return judge


def _judge_random(rows):
    """Reproduced if the lead is more than twice its standard error over heads for both strides; partly if for one."""
    leads = [_value(rows, f"lead in {_QUARTER}", against="random", stride=s) for s in (8, 16)]
    errors = [_value(rows, "standard error of the lead over heads", against="random", stride=s) for s in (8, 16)]
    clear = [above(lead, 2 * error) for lead, error in zip(leads, errors, strict=True)]
    pairs = zip((8, 16), leads, errors, strict=True)
    shown = ", ".join(f"{100 * x:+.2f} ± {100 * e:.2f} points at S={s}" for s, x, e in pairs)
    return f"{shown} (lead ± its standard error over heads; counted)", verdict(all(clear), any(clear))


def _judge_strides(rows):
    """Reproduced if the mass falls with S, and from 16 to 64 at least twice as much as from 4 to 16.

    Partly if it only falls.
    """
    ours = [_value(rows, _QUARTER, sampler="antidiagonal", stride=s, block=64) for s in (4, 8, 16, 64)]
    falls = falling(ours)
    steep = at_least(ours[2] - ours[3], 2 * (ours[0] - ours[2]))
    shown = " / ".join(f"{x:.3f}" for x in ours)
    return f"{shown} of the attention mass at S = 4 / 8 / 16 / 64 (counted)", verdict(falls and steep, falls)


def _judge_slashes(rows):
    """Reproduced if the lead over diagonals is at least .15 for both strides, all offsets drawn; partly if any lead."""
    found, shown = [], []
    for s in (4, 8):
        for offsets in ("all drawn", "not read by the diagonal"):
            ours, diagonal = (_value(rows, "recall of the pattern's blocks", sampler=x, stride=s, offsets=offsets)
                              for x in ("antidiagonal", "diagonal"))  # fmt: skip
            found += [(ours, diagonal)] if offsets == "all drawn" else []
            shown.append(f"{ours:.2f} against {diagonal:.2f} at S={s}, offsets {offsets}")
    word = verdict(all(at_least(x, y + 0.15) for x, y in found), all(above(x, y) for x, y in found))
    return "recall " + "; ".join(shown) + " (counted)", word


def _judge_complete(rows):
    """Reproduced if no kind of slash is missed (a recall below .6); partly if those of width two are all met."""
    found = {
        (width, offset): min(
            _value(rows, "recall of the slash's blocks", width=width, offset=offset, stride=s) for s in (4, 8)
        )
        for width in (1, 2)
        for offset in ("even", "odd")
    }
    wide = min(found[2, "even"], found[2, "odd"])
    word = verdict(at_least(min(found.values()), 0.6), at_least(wide, 0.6))
    shown = ", ".join(f"{x:.2f} for width {w} at {o} offsets" for (w, o), x in found.items())
    return f"recall {shown} (counted)", word


def _judge_selection(rows):
    """Reproduced if the threshold curve lies above every point of top-k and of ratio; partly if above some."""
    both = (values(rows, quantity, rule="threshold") for quantity in ("density", "mass kept"))
    curve = sorted(zip(*both, strict=True))
    densities, masses = np.array(curve).T
    found = {}
    for rule in ("top-k", "ratio"):
        for d, m in zip(rows_with(rows, "density", rule=rule), rows_with(rows, "mass kept", rule=rule), strict=True):
            if at_least(d["value"], densities[0]) and at_most(d["value"], densities[-1]):
                found[rule, d["setting"]] = float(np.interp(d["value"], densities, masses)), m["value"]
    ahead = [above(ours, theirs) for ours, theirs in found.values()]
    shown = ", ".join(f"{100 * (x - y):+.1f} over {rule} {setting}" for (rule, setting), (x, y) in found.items())
    return f"points of attention mass at equal density: {shown} (counted)", verdict(all(ahead), any(ahead))


def _judge_thresholds(rows):
    """Reproduced if sparser and no worse on held-out text too; partly if that holds on the calibration text."""
    mean = {}
    for method in ("fixed 0.9", "minimum"):
        for text in ("calibration", "held out"):
            for quantity in ("density", "output error"):
                found = rows_with(rows, quantity, thresholds=method, text=text)
                mean[method, text, quantity] = sum(r["value"] for r in found) / len(found)

    def better(text):
        sparser = below(mean["minimum", text, "density"], mean["fixed 0.9", text, "density"])
        return sparser and at_most(mean["minimum", text, "output error"], mean["fixed 0.9", text, "output error"])

    word = verdict(better("calibration") and better("held out"), better("calibration"))
    shown = "; ".join(
        f"{text}: density {mean['minimum', text, 'density']:.3f} against {mean['fixed 0.9', text, 'density']:.3f}, "
        f"error {mean['minimum', text, 'output error']:.3f} against {mean['fixed 0.9', text, 'output error']:.3f}"
        for text in ("calibration", "held out")
    )
    return f"{shown} (counted)", word


def _judge_quality(rows):
    """Reproduced if some threshold costs at most 1 % more than dense with under half of the blocks.

    Partly if some threshold costs no more than that.
    """
    dense = _value(rows, "cost of the text", method="dense")
    found = [
        (_value(rows, "density", sampler="antidiagonal", stride=8, threshold=tau),
         _value(rows, "cost of the text", sampler="antidiagonal", stride=8, threshold=tau) / dense - 1, tau)
        for tau in (0.9, 0.8, 0.7)
    ]  # fmt: skip
    good = [density for density, more, _ in found if at_most(more, 0.01)]
    word = verdict(any(below(density, 0.5) for density in good), bool(good))
    shown = ", ".join(f"{more:+.2%} at density {density:.2f} (threshold {tau:g})" for density, more, tau in found)
    return f"bits per byte over dense attention: {shown} (counted)", word


def _judge_cost(others, name):
    """Compare what predictions cost, piece by piece; a lead counts when it is more than twice its standard error.

    Reproduced if the lead over all others counts; partly if over some.
    """

    def judge(rows):
        ours = _pieces(rows, sampler="antidiagonal", stride=8, threshold=0.9)
        clear, shown = [], []
        for other, labels in others.items():
            theirs = _pieces(rows, **labels)
            lead = theirs - ours
            error = lead.std(ddof=1) / np.sqrt(len(lead))
            clear.append(above(theirs.mean(), ours.mean() + 2 * error))
            density = _value(rows, "density", **labels)
            shown.append(f"{1000 * lead.mean():+.1f} ± {1000 * error:.1f} for {other} at density {density:.2f}")
        own = _value(rows, "density", sampler="antidiagonal", stride=8, threshold=0.9)
        listed = ", ".join(shown)
        word = verdict(all(clear), any(clear))
        return f"extra millibits per byte over {name} at density {own:.2f}: {listed} (counted)", word

    return judge


def _pieces(rows, **labels):
    return np.array([r["value"] for r in rows_with(rows, "cost of one piece", **labels)])


def _sampled(sampler):
    return {"sampler": sampler, "stride": 8, "threshold": 0.9}


CLAIMS = (
    Claim("diagonal", "Antidiagonals find the blocks that matter better than diagonals do.", f"{_SLIDES}, samplers",
          "RULER, S=8: 88.47 against 81.06; S=16: 88.08 against 79.63", "published", "samplers",
          _judge_lead("diagonal", {8: 0.003, 16: 0.005})),
    Claim("random", "Antidiagonals find them better than random positions do.", f"{_SLIDES}, samplers",
          "RULER, S=8: 88.47 against 82.48; S=16: 88.08 against 80.94", "published", "samplers", _judge_random),
    Claim("pool", "Antidiagonals find them better than means of queries and keys do.", "introduction",
          "pooling misses thin lines; no number", "from memory", "samplers",
          _judge_lead("mean_pool", {4: 0.003, 8: 0.003})),
    Claim("strides", "Reading one line in 16 loses little, reading one in 64 loses much.", f"{_SLIDES}, strides",
          "RULER 88.89 / 88.47 / 88.08 / 81.21 at S = 4 / 8 / 16 / 64", "published", "samplers", _judge_strides),
    Claim("slashes", "An antidiagonal crosses verticals and slashes, where a diagonal misses slashes.",
          "section 2.1, figures", "shown as a picture", "from memory", "pattern", _judge_slashes),
    Claim("complete", "No vertical and no slash escapes the antidiagonals.", "section 2.1",
          "stated without a number", "from memory", "pattern", _judge_complete),
    Claim("selection", "Keeping a share of each row's mass beats keeping a number or a share of its blocks.",
          f"{_SLIDES}, selection", "RULER, S=8: 88.47 (density 20.97 %); top-k 84.13 (19.92 %), ratio 85.42 (21.00 %)",
          "published", "selection", _judge_selection),
    Claim("thresholds", "Thresholds searched head by head are sparser than one for all, and no worse.",
          f"{_SLIDES}, thresholds", "RULER, S=8: 88.47 (density 20.97 %); fixed 0.9: 84.96 (26.13 %)", "published",
          "selection", _judge_thresholds),
    Claim("quality", "With sparse attention a language model predicts as well as with full attention.",
          f"{_SLIDES}, RULER and LongBench", "RULER 88.47 against 87.52, LongBench 40.54 against 40.34", "published",
          "language", _judge_quality),
    Claim("language-samplers", "Inside a language model, other samplers cost more than antidiagonals.",
          f"{_SLIDES}, samplers", "RULER, S=8: 88.47; random 82.48, diagonal 81.06", "published", "language",
          _judge_cost({x: _sampled(x) for x in ("diagonal", "random", "mean_pool")}, "antidiagonals")),
    Claim("language-selection", "Inside a language model, top-k and ratio cost more than a threshold.",
          f"{_SLIDES}, selection", "RULER, S=8: 88.47; top-k 84.13, ratio 85.42", "published", "language",
          _judge_cost({"top-k": {"method": "top-k"}, "ratio": {"method": "ratio"}}, "a threshold of 0.9")),
)  # fmt: skip

PAPER = Paper(
    key="xattention",
    title="XAttention: Block Sparse Attention with Antidiagonal Scoring",
    authors="Ruyi Xu, Guangxuan Xiao, Haofeng Huang, Junxian Guo, Song Han",
    year=2025,
    arxiv="2503.16428",
    family="attention",
    summary=(
        "Block-sparse attention must know which blocks matter before it computes them, and means of queries and keys "
        "overlook thin lines. XAttention reads one antidiagonal of every small tile of the logits, which crosses "
        "vertical lines and slashes alike, and takes its sum as the tile's score. The fewest blocks that hold a given "
        "share of the estimated attention are computed, without training, and long prompts are read several times "
        "faster."
    ),
    state="complete; long-context benchmarks of 8-billion-parameter models are replaced by small models and generators",
    claims=CLAIMS,
    knobs=KNOBS,
    sample=sample,
    run=run,
    view=view,
    experiments=(
        Experiment("samplers", "Samplers on 72 heads of a sentence encoder", "accuracy",
                   loaded_later("_xattention_heads", "samplers")),
        Experiment("pattern", "Samplers on generated slashes and columns", "accuracy",
                   loaded_later("_xattention_runs", "pattern")),
        Experiment("selection", "Thresholds against top-k, and thresholds per head", "accuracy",
                   loaded_later("_xattention_heads", "selection")),
        Experiment("language", "A language model with sparse attention in every layer", "accuracy",
                   loaded_later("_xattention_runs", "language")),
        Experiment("timing", "Scoring, selecting and attending against dense attention", "timing",
                   loaded_later("_xattention_runs", "timing")),
    ),
)  # fmt: skip
