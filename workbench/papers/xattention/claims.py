"""Claims of XAttention, and how our experiments judge them."""

import numpy as np

from workbench.judging import (
    Difference,
    above,
    at_least,
    at_most,
    below,
    clearly_above,
    difference,
    falling,
    verdict,
)
from workbench.paper import Claim, rows_with, values

_SLIDES = "authors' slides"
_QUARTER = "mass kept, a quarter of the blocks"


def _value(rows, quantity, **labels):
    return rows_with(rows, quantity, **labels)[0]["value"]


def _leads(rows, against) -> dict[int, Difference]:
    """Return the antidiagonal's lead over another sampler, with its standard error over heads, by stride."""
    found = {}
    for row in rows_with(rows, f"lead in {_QUARTER}", against=against):
        error = _value(rows, "standard error of the lead over heads", against=against, stride=row["stride"])
        found[row["stride"]] = Difference(row["value"], 0.0, error)
    return found


def _said_leads(rows, against, leads):
    def share(s):
        return _value(rows, "heads on which the antidiagonal is ahead", against=against, stride=s)

    each = ", ".join(f"{lead.said(2, 100)} at S={s} ({share(s):.0%} of heads)" for s, lead in sorted(leads.items()))
    return f"{each}: points of attention mass, a quarter of the blocks kept (± standard error over heads; measured)"


def _judge_lead(against, least, strides=()):
    """Judge the lead over another sampler at the paper's strides, or at all that were recorded where it names none.

    Reproduced if it is clearly above zero at each of them, and at least ``least`` (by stride); partly if clearly above
    zero at some.
    """

    def judge(rows):
        leads = _leads(rows, against)
        clear = [clearly_above(leads[s]) for s in strides or leads]
        large = all(at_least(leads[s].mean, x) for s, x in least.items())
        return _said_leads(rows, against, leads), verdict(all(clear) and large, any(clear))

    return judge


def _judge_strides(rows):
    """Reproduced if the mass falls with S, and from 16 to 64 at least twice as much as from 4 to 16.

    Partly if it only falls.
    """
    ours = [_value(rows, _QUARTER, sampler="antidiagonal", stride=s, block=64) for s in (4, 8, 16, 64)]
    falls = falling(ours)
    steep = at_least(ours[2] - ours[3], 2 * (ours[0] - ours[2]))
    shown = " / ".join(f"{x:.3f}" for x in ours)
    return (
        f"{shown} of the attention mass at S = 4 / 8 / 16 / 64 (means over heads and windows, one seed; measured)",
        verdict(falls and steep, falls),
    )


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
    return "recall " + "; ".join(shown) + " (one draw of heads; counted)", word


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
    return f"recall {shown} (one draw of heads; counted)", word


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
    return f"points of attention mass at equal density: {shown} (one seed; measured)", verdict(all(ahead), any(ahead))


def _judge_thresholds(rows):
    """Reproduced if clearly sparser and no worse on held-out text too; partly if that holds on the calibration text."""
    better, shown = [], []
    for text in ("calibration", "held out"):
        density, error = (
            difference(*(values(rows, quantity, thresholds=name, text=text) for name in ("fixed 0.9", "minimum")))
            for quantity in ("density", "output error")
        )
        better.append(clearly_above(density) and at_most(error.theirs, error.ours))
        shown.append(
            f"{text}: density {density.theirs:.3f} against {density.ours:.3f}, lower by "
            f"{density.said(3, once='one layer')}, error {error.theirs:.3f} against {error.ours:.3f}, lower by "
            f"{error.said(3, once='one layer')}"
        )
    return "; ".join(shown) + " (± standard error over layers; measured)", verdict(all(better), better[0])


def _judge_quality(rows):
    """Reproduced if some threshold keeps under half of the blocks and costs no more than dense, nor over 1 % more.

    No more than dense: not clearly more, piece by piece of the text. Partly if some threshold costs at most 1 % more.
    """
    dense, pieces = _value(rows, "cost of the text", method="dense"), _pieces(rows, method="dense")
    good, shown = [], []
    for tau in (0.9, 0.8, 0.7):
        labels = {"sampler": "antidiagonal", "stride": 8, "threshold": tau}
        density, more = _value(rows, "density", **labels), _value(rows, "cost of the text", **labels) / dense - 1
        cost = difference(_pieces(rows, **labels), pieces)
        good += [below(density, 0.5) and not clearly_above(cost)] if at_most(more, 0.01) else []
        shown.append(f"{cost.said(1, 1000, 'one piece')} ({more:+.2%}) at density {density:.2f}, threshold {tau:g}")
    return (
        f"millibits per byte over dense attention: {'; '.join(shown)} (best of {len(shown)} settings; ± standard error "
        "over pieces of text; measured)"
    ), verdict(any(good), bool(good))


def _judge_cost(others, name, shown_only=()):
    """Compare what predictions cost, piece by piece, with ``others`` at every stride that was recorded of both.

    Reproduced if the lead over all of them is clear, partly if over some. What is in ``shown_only`` is not in the
    paper's table: it is shown and decides nothing.
    """

    def judge(rows):
        clear, shown = [], []
        for other, labels in others.items():
            for theirs in rows_with(rows, "density", **labels):
                ours = _OURS | {"stride": theirs["stride"]}
                same = labels | {"stride": theirs["stride"]}
                lead = difference(_pieces(rows, **same), _pieces(rows, **ours))
                clear += [clearly_above(lead)] if other not in shown_only else []
                shown.append(
                    f"{lead.said(1, 1000, 'one piece')} for {other} at S={theirs['stride']}, density "
                    f"{theirs['value']:.2f} against {_value(rows, 'density', **ours):.2f}"
                )
        aside = f"; {', '.join(shown_only)} not in the paper's table" if shown_only else ""
        return (
            f"extra millibits per byte over {name}: {'; '.join(shown)} (± standard error over pieces of text{aside}; "
            "measured)"
        ), verdict(all(clear), any(clear))

    return judge


def _pieces(rows, **labels):
    return values(rows, "cost of one piece", **labels)


_OURS = {"sampler": "antidiagonal", "threshold": 0.9}
_SAMPLERS = {"diagonal": "diagonal", "random": "random", "means": "mean_pool"}


CLAIMS = (
    Claim(
        key="diagonal",
        statement="Antidiagonal sampling finds the blocks that matter better than diagonal sampling.",
        where=f"{_SLIDES}, samplers",
        paper_value="RULER, S=8: 88.47 against 81.06; S=16: 88.08 against 79.63",
        tag="published",
        experiment="samplers",
        judge=_judge_lead("diagonal", {8: 0.003, 16: 0.005}, strides=(8, 16)),
    ),
    Claim(
        key="random",
        statement="Antidiagonal sampling finds the blocks that matter better than random sampling.",
        where=f"{_SLIDES}, samplers",
        paper_value="RULER, S=8: 88.47 against 82.48; S=16: 88.08 against 80.94",
        tag="published",
        experiment="samplers",
        judge=_judge_lead("random", {}, strides=(8, 16)),
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
        where="section 2.1, as public notes on the paper quote it",
        paper_value="meets every vertical line and every slash within a block; no number",
        tag="published",
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
        statement="In a language model, diagonal and random sampling lose more quality than antidiagonal sampling.",
        where=f"{_SLIDES}, samplers",
        paper_value="RULER, S=8: 88.47; random 82.48, diagonal 81.06",
        tag="published",
        experiment="language",
        judge=_judge_cost(
            {name: _OURS | {"sampler": sampler} for name, sampler in _SAMPLERS.items()},
            "antidiagonal sampling",
            shown_only=("means",),
        ),
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
