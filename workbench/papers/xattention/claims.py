"""Claims of XAttention, and how our experiments judge them."""

import numpy as np

from workbench.judging import above, at_least, at_most, below, falling, verdict
from workbench.paper import Claim, rows_with, values

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
        return f"{shown}, a quarter of the blocks kept (measured)", word

    return judge


def _judge_random(rows):
    """Reproduced if the lead is more than twice its standard error over heads for both strides; partly if for one."""
    leads = [_value(rows, f"lead in {_QUARTER}", against="random", stride=s) for s in (8, 16)]
    errors = [_value(rows, "standard error of the lead over heads", against="random", stride=s) for s in (8, 16)]
    clear = [above(lead, 2 * error) for lead, error in zip(leads, errors, strict=True)]
    pairs = zip((8, 16), leads, errors, strict=True)
    shown = ", ".join(f"{100 * x:+.2f} ± {100 * e:.2f} points at S={s}" for s, x, e in pairs)
    return f"{shown} (lead ± its standard error over heads; measured)", verdict(all(clear), any(clear))


def _judge_strides(rows):
    """Reproduced if the mass falls with S, and from 16 to 64 at least twice as much as from 4 to 16.

    Partly if it only falls.
    """
    ours = [_value(rows, _QUARTER, sampler="antidiagonal", stride=s, block=64) for s in (4, 8, 16, 64)]
    falls = falling(ours)
    steep = at_least(ours[2] - ours[3], 2 * (ours[0] - ours[2]))
    shown = " / ".join(f"{x:.3f}" for x in ours)
    return f"{shown} of the attention mass at S = 4 / 8 / 16 / 64 (measured)", verdict(falls and steep, falls)


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
    return f"points of attention mass at equal density: {shown} (measured)", verdict(all(ahead), any(ahead))


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
    return f"{shown} (measured)", word


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
    return f"bits per byte over dense attention: {shown} (measured)", word


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
        return f"extra millibits per byte over {name} at density {own:.2f}: {listed} (measured)", word

    return judge


def _pieces(rows, **labels):
    return np.array([r["value"] for r in rows_with(rows, "cost of one piece", **labels)])


def _sampled(sampler):
    return {"sampler": sampler, "stride": 8, "threshold": 0.9}


CLAIMS = (
    Claim(
        key="diagonal",
        statement="Antidiagonal sampling finds the blocks that matter better than diagonal sampling.",
        where=f"{_SLIDES}, samplers",
        paper_value="RULER, S=8: 88.47 against 81.06; S=16: 88.08 against 79.63",
        tag="published",
        experiment="samplers",
        judge=_judge_lead("diagonal", {8: 0.003, 16: 0.005}),
    ),
    Claim(
        key="random",
        statement="Antidiagonal sampling finds the blocks that matter better than random sampling.",
        where=f"{_SLIDES}, samplers",
        paper_value="RULER, S=8: 88.47 against 82.48; S=16: 88.08 against 80.94",
        tag="published",
        experiment="samplers",
        judge=_judge_random,
    ),
    Claim(
        key="pool",
        statement="Antidiagonal sampling finds the blocks that matter better than means of queries and keys.",
        where="introduction",
        paper_value="means miss thin lines; no number is given",
        tag="from memory",
        experiment="samplers",
        judge=_judge_lead("mean_pool", {4: 0.003, 8: 0.003}),
    ),
    Claim(
        key="strides",
        statement="A stride of 16 loses little accuracy, a stride of 64 loses much.",
        where=f"{_SLIDES}, strides",
        paper_value="RULER 88.89 / 88.47 / 88.08 / 81.21 at S = 4 / 8 / 16 / 64",
        tag="published",
        experiment="samplers",
        judge=_judge_strides,
    ),
    Claim(
        key="slashes",
        statement="An antidiagonal crosses vertical lines and slashes, while a diagonal misses slashes.",
        where="section 2.1, figures",
        paper_value="shown as a picture",
        tag="from memory",
        experiment="pattern",
        judge=_judge_slashes,
    ),
    Claim(
        key="complete",
        statement="Antidiagonal sampling misses no vertical line and no slash.",
        where="section 2.1",
        paper_value="stated without a number",
        tag="from memory",
        experiment="pattern",
        judge=_judge_complete,
    ),
    Claim(
        key="selection",
        statement="Keeping a share of each row's attention mass is better than a number or a share of its blocks.",
        where=f"{_SLIDES}, selection",
        paper_value="RULER, S=8: 88.47 (density 20.97 %); top-k 84.13 (19.92 %), ratio 85.42 (21.00 %)",
        tag="published",
        experiment="selection",
        judge=_judge_selection,
    ),
    Claim(
        key="thresholds",
        statement="Thresholds chosen per head give a lower density than one for all heads, without loss of accuracy.",
        where=f"{_SLIDES}, thresholds",
        paper_value="RULER, S=8: 88.47 (density 20.97 %); fixed 0.9: 84.96 (26.13 %)",
        tag="published",
        experiment="selection",
        judge=_judge_thresholds,
    ),
    Claim(
        key="quality",
        statement="With sparse attention a language model predicts as well as with full attention.",
        where=f"{_SLIDES}, RULER and LongBench",
        paper_value="RULER 88.47 against 87.52, LongBench 40.54 against 40.34",
        tag="published",
        experiment="language",
        judge=_judge_quality,
    ),
    Claim(
        key="language-samplers",
        statement="In a language model, other sampling patterns lose more quality than antidiagonals.",
        where=f"{_SLIDES}, samplers",
        paper_value="RULER, S=8: 88.47; random 82.48, diagonal 81.06",
        tag="published",
        experiment="language",
        judge=_judge_cost({x: _sampled(x) for x in ("diagonal", "random", "mean_pool")}, "antidiagonals"),
    ),
    Claim(
        key="language-selection",
        statement="In a language model, top-k and ratio lose more quality than a threshold.",
        where=f"{_SLIDES}, selection",
        paper_value="RULER, S=8: 88.47; top-k 84.13, ratio 85.42",
        tag="published",
        experiment="language",
        judge=_judge_cost({"top-k": {"method": "top-k"}, "ratio": {"method": "ratio"}}, "a threshold of 0.9"),
    ),
)
