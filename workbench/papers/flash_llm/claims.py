"""Claims of Flash-LLM, and how our experiments judge them."""

import math
from itertools import pairwise
from statistics import fmean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, of_seeds, undecided, verdict
from workbench.paper import Claim, rows_with, values

_REPO = "repository, kernel benchmarks"
_PAPERS = (0.7, 0.8, 0.9)  # the sparsities that the paper reports
_OVER_DENSE = {0.7: 1.4, 0.8: 1.7, 0.9: 2.1}
_OVER_CSR = {0.7: 3.6, 0.8: 3.0, 0.9: 2.0}
_LSCD, _ENTRIES = "tiled-CSL, computed dense", "tiled-CSL, entry by entry"
_DENSE = ("dense, 32 bits", "dense, bfloat16")
_CSR = ("CSR, ours", "CSR, torch", "CSR, SciPy")
_BOUND, _LOOP = "speed over dense, bound by memory and arithmetic", "speed over dense, loop"
_OVERLAPPED = "loads with the product and with each other"
_PIECE = "bits per byte of a piece"


def _one(rows, quantity, **labels):
    return rows_with(rows, quantity, **labels)[0]["value"]


def _judge_bytes(rows):
    """Reproduced if the bytes are within 1 per cent of 2 (1 - s) of the dense ones at every sparsity; partly within 5.

    "Of the dense ones" in half precision.
    """
    found = {}
    for each in rows_with(rows, "bytes, tiled-CSL", words="reordered"):
        s = each["sparsity"]
        found[s] = each["value"] / _one(rows, "bytes, dense in half precision", words="reordered", sparsity=s)
    off = [abs(x / (2 * (1 - s)) - 1) for s, x in found.items()]
    shown = ", ".join(f"{x:.3f} at {s:.0%}" for s, x in sorted(found.items()))
    return f"{shown} of the dense bytes (random weights; counted)", verdict(
        at_most(max(off), 0.01), at_most(max(off), 0.05)
    )


def _judge_conflicts(rows):
    """Reproduced if at least 2.5 words meet in a bank row by row, and at most 1.5 reordered; partly if fewer meet."""
    quantity = "words that meet in the fullest bank"
    before, after = (
        {r["sparsity"]: r["value"] for r in rows_with(rows, quantity, words=words) if r["sparsity"] in _PAPERS}
        for words in ("row by row", "reordered")
    )
    if not before:
        raise LookupError(f"no row of {quantity!r} at {_PAPERS}")
    fewer = [below(after[s], x) for s, x in before.items()]
    word = verdict(at_least(min(before.values()), 2.5) and at_most(max(after.values()), 1.5), all(fewer))
    shown = ", ".join(f"{x:.2f} before and {after[s]:.2f} after at {s:.0%}" for s, x in sorted(before.items()))
    return f"{shown} (random weights; counted)", word


def _judge_exact(rows):
    """Reproduced if no weight changes and every product is within 1e-3 of float64; partly if no weight changes."""
    changed = max(values(rows, "weights that differ after decoding"))
    worst = max(values(rows, "largest error"))
    return f"{changed} weights changed, largest error {worst:.1e} of the largest element (measured)", verdict(
        not changed and at_most(worst, 1e-3), not changed
    )


def _judge_bound(rows):
    """Reproduced if the paper's mean lies below the roofline's at every sparsity; partly at some.

    A model of the machine says what is possible. It does not confirm what was measured.
    """
    bound = {s: fmean(values(rows, _BOUND, format="tiled-csl", sparsity=s)) for s in _PAPERS}
    low, high = (f(values(rows, _BOUND, format="tiled-csl", sparsity=0.8, n=16)) for f in (min, max))
    within = [at_least(bound[s], x) for s, x in _OVER_DENSE.items()]
    shown = ", ".join(f"{bound[s]:.2f}x at {s:.0%} (paper {x}x)" for s, x in _OVER_DENSE.items())
    return (
        f"at most {shown}, means over products; {low:.2f}x to {high:.2f}x at 80% with 16 columns (modelled)",
        verdict(all(within), any(within)),
    )


def _judge_loop(rows):
    """Reproduced if the modelled loop is within 15 per cent of the paper's mean at every sparsity; partly at some."""
    found = {s: fmean(values(rows, _LOOP, words="reordered", overlap=_OVERLAPPED, sparsity=s)) for s in _OVER_DENSE}
    near = [at_most(abs(found[s] / x - 1), 0.15) for s, x in _OVER_DENSE.items()]
    shown = ", ".join(f"{found[s]:.2f}x at {s:.0%} (paper {x}x)" for s, x in _OVER_DENSE.items())
    return f"{shown}, means over columns (modelled)", verdict(all(near), any(near))


def _judge_overlap(rows):
    """Reproduced if each overlap makes the modelled loop faster on every product; partly if both together do."""
    kinds = ("none", "loads with the product", _OVERLAPPED)
    speeds = [values(rows, _LOOP, words="reordered", overlap=kind) for kind in kinds]
    first, both = ([y / x for x, y in zip(speeds[i], speeds[j], strict=True)] for i, j in ((0, 1), (0, 2)))
    second = [y / x for x, y in zip(speeds[1], speeds[2], strict=True)]
    shown = (
        f"loads beside the product: {min(first):.2f}x to {max(first):.2f}x; beside each other as well: "
        f"{min(second):.2f}x to {max(second):.2f}x more (modelled)"
    )
    return shown, verdict(above(min(first), 1) and above(min(second), 1), above(min(both), 1))


def _times(rows, contenders):
    """Return (m, k, n, sparsity) -> ms of the fastest of some contenders, at the paper's columns."""
    found = [r for name in contenders for r in rows_with(rows, "time", contender=name) if r["n"] >= 8]
    cases: dict[tuple, float] = {}
    for r in found:
        case = (r["m"], r["k"], r["n"], r["sparsity"])
        cases[case] = min(r["value"], cases.get(case, math.inf))
    return cases


def _gains(rows, ours, theirs) -> dict[float, float]:
    """Return sparsity -> geometric mean, over products of 8 columns or more, of how much faster ours is."""
    mine, other = _times(rows, (ours,)), _times(rows, theirs)
    found: dict[float, list[float]] = {}
    for case, time in mine.items():
        found.setdefault(case[-1], []).append(math.log(other[case] / time))
    return {s: math.exp(fmean(x)) for s, x in sorted(found.items())}


def _said(gains, sparsities=_PAPERS):
    return " / ".join(f"{gains[s]:.2f}x" for s in sparsities)


def _judge_against(others, wanted):
    """Compare with ``others``: name as shown -> contenders, the fastest of which counts for each product.

    Reproduced if the speed over each of the others is at least the paper's at 70, 80 and 90 per cent.

    Speeds are geometric means over shapes and 8 to 64 columns. Partly if it is above 1 over one of them at one
    sparsity. What is judged is the paper's way, computed dense; entry by entry is shown beside it.
    """

    def judge(rows):
        gains = {other: _gains(rows, _LSCD, names) for other, names in others.items()}
        if any(s not in found for found in gains.values() for s in _PAPERS):
            raise LookupError(f"needs {_PAPERS}")
        full = all(at_least(found[s], wanted[s]) for found in gains.values() for s in _PAPERS)
        partly = any(above(found[s], 1) for found in gains.values() for s in _PAPERS)
        shown = "; ".join(
            f"over {other} {_said(found)}, entry by entry {_said(_gains(rows, _ENTRIES, others[other]))}"
            for other, found in gains.items()
        )
        threads = rows_with(rows, "time", contender=_LSCD)[0]["threads"]
        return f"{shown}, at 70 / 80 / 90% on this CPU, {threads} threads (measured)", verdict(full, partly)

    return judge


def _judge_crossing(rows):
    """Reproduced if CSR overtakes products computed dense between 65 and 90 per cent, at 16 columns; partly elsewhere.

    The fastest CSR counts. The crossing is interpolated in the sparsity between neighbours whose order changes, on
    geometric means over shapes.
    """
    ratio = _gains([r for r in rows if r.get("n") == 16], _LSCD, _CSR)
    if len(ratio) < 2:
        raise LookupError("needs two sparsities or more")
    crossing = None
    for (low, before), (high, after) in pairwise((s, math.log(x)) for s, x in ratio.items()):
        if above(before, 0) and at_most(after, 0):
            crossing = low + (high - low) * before / (before - after)
            break
    edges = " / ".join(f"{x:.2f}x at {s:.0%}" for s, x in ratio.items())
    where = "no crossing" if crossing is None else f"CSR overtakes at {crossing:.0%}"
    within = crossing is not None and at_least(crossing, 0.65) and at_most(crossing, 0.9)
    return f"{where}; speed over the fastest CSR {edges}, 16 columns (measured)", verdict(within, crossing is not None)


def _judge_accuracy(rows):
    """Reproduced if a text costs at most 3 per cent more than with the dense model that had the same training.

    Partly if training takes back more than half of what pruning cost, clearly over pieces of text. Undecided if the
    dense model predicts no better than 4 bits a byte.
    """
    trained = {}
    for sparsity, name in ((0.0, "dense"), (0.8, "wanda")):
        found = [r for r in rows_with(rows, _PIECE, masks=name, sparsity=sparsity) if r["steps"]]
        if not found:
            raise LookupError(f"no trained model at {sparsity}")
        trained[sparsity] = _by_piece(found)
    at_once = _by_piece(r for r in rows_with(rows, _PIECE, masks="wanda", sparsity=0.8) if not r["steps"])
    before = _by_piece(r for r in rows_with(rows, _PIECE, masks="dense") if not r["steps"])
    loss = difference(trained[0.8], trained[0.0])
    half = [(a + b) / 2 for a, b in zip(at_once, before, strict=True)]
    steps = max(r["steps"] for r in rows_with(rows, _PIECE, masks="wanda"))
    seeds = {r["seed"] for r in rows_with(rows, _PIECE, masks="wanda") if r["steps"]}
    shown = (
        f"{loss.ours:.3f} bits per byte at 80% after {steps} steps, dense {loss.theirs:.3f}, more by "
        f"{loss.said(3, once='one piece')} ({loss.mean / loss.theirs:+.1%}); pruned at once {fmean(at_once):.3f} "
        f"({of_seeds(list(seeds))}, ± standard error over pieces of text; measured)"
    )
    if not below(fmean(before), 4):
        return undecided(shown, baseline="the dense model", figure=f"{fmean(before):.2f} bits per byte")
    return shown, verdict(at_most(loss.ours, 1.03 * loss.theirs), clearly_above(difference(half, trained[0.8])))


def _by_piece(rows):
    found: dict[int, list[float]] = {}
    for each in rows:
        found.setdefault(each["piece"], []).append(each["value"])
    if not found:
        raise LookupError(f"no row of {_PIECE!r}")
    return [fmean(x) for _, x in sorted(found.items())]


def _judge_tokens(rows):
    """Reproduced if 80 per cent sparse weights write at least 3.6 times as many tokens as the faster dense decoder.

    At some batch size of a decoder. Partly if they write more somewhere.
    """
    speed = {(r["decoder"], r["batch"], r["weights"]): r["value"] for r in rows_with(rows, "tokens written")}
    gains = {}
    for decoder, batch, weights in speed:
        if weights == "tiled-CSL, 80%":
            dense = max(speed[decoder, batch, name] for name in _DENSE)
            gains[decoder, batch] = speed[decoder, batch, weights] / dense
    if not gains:
        raise LookupError("no row of tokens written at 80%")
    shown = ", ".join(f"{x:.2f}x {decoder}, batch {batch}" for (decoder, batch), x in gains.items())
    return f"over the faster of float32 and bfloat16: {shown} (measured)", verdict(
        at_least(max(gains.values()), 3.6), above(max(gains.values()), 1)
    )


CLAIMS = (
    Claim(
        key="bytes",
        statement="Tiled-CSL takes 2 (1 - s) of the bytes of the dense matrix in half precision.",
        where="the format Tiled-CSL, and the released encoder",
        paper_value="0.6 / 0.4 / 0.2 of the dense bytes at 70 / 80 / 90 %, as many at 50 %",
        tag="published",
        experiment="format",
        judge=_judge_bytes,
    ),
    Claim(
        key="conflicts",
        statement="Reordering the words ahead of time removes most bank conflicts of the expansion.",
        where="reordering ahead of time, and the released encoder",
        paper_value="the encoder gives 1.2 to 1.5 words in the fullest bank instead of 3.1 to 3.3",
        tag="published",
        experiment="format",
        judge=_judge_conflicts,
    ),
    Claim(
        key="exact",
        statement="The format keeps every weight, and products are as exact as half-precision weights allow.",
        where="the format Tiled-CSL",
        paper_value="no number is given",
        tag="from memory",
        experiment="format",
        judge=_judge_exact,
        whose="workbench",
    ),
    Claim(
        key="bound",
        statement="The speed over dense products that the paper measured lies within what the memory traffic allows.",
        where=_REPO,
        paper_value="1.4x / 1.7x / 2.1x over cuBLAS at 70 / 80 / 90 %; 2 (1 - s) of the bytes",
        tag="published",
        experiment="replay",
        judge=_judge_bound,
        whose="workbench",
    ),
    Claim(
        key="loop",
        statement="Copying the activations beside the nonzeros explains why less than that was measured.",
        where=_REPO,
        paper_value="1.4x / 1.7x / 2.1x over cuBLAS at 70 / 80 / 90 %",
        tag="published",
        experiment="replay",
        judge=_judge_loop,
        whose="workbench",
    ),
    Claim(
        key="overlap",
        statement="Loads that overlap with the product and with each other make the kernel faster.",
        where="two-level overlap of loads and products",
        paper_value="two levels of overlap; we have no number of their own",
        tag="from memory",
        experiment="replay",
        judge=_judge_overlap,
    ),
    Claim(
        key="dense",
        statement="Weights loaded sparse and multiplied dense are faster than dense ones from 70 % on.",
        where=_REPO,
        paper_value="A100, 8 to 64 columns: 1.4x / 1.7x / 2.1x over cuBLAS at 70 / 80 / 90 %",
        tag="published",
        experiment="kernel",
        judge=_judge_against({name: (name,) for name in _DENSE}, _OVER_DENSE),
    ),
    Claim(
        key="sparse",
        statement="They are faster than a kernel that skips the zeros.",
        where=_REPO,
        paper_value="A100, 8 to 64 columns: 3.6x / 3.0x / 2.0x over Sputnik at 70 / 80 / 90 %",
        tag="published",
        experiment="kernel",
        judge=_judge_against({"the fastest CSR": _CSR}, _OVER_CSR),
    ),
    Claim(
        key="crossing",
        statement="On a CPU a kernel that skips the zeros overtakes somewhere between 65 and 90 %.",
        where="our expectation from a prototype; on GPUs the paper says that it takes far more",
        paper_value="no number for CPUs",
        tag="from memory",
        experiment="kernel",
        judge=_judge_crossing,
        whose="workbench",
    ),
    Claim(
        key="accuracy",
        statement="A language model that is 80 % sparse at random places and trained again loses little.",
        where="the accuracy of pruned models",
        paper_value="about 1.4 (OPT-30B) and 0.7 points (GPT-NeoX-20B) of mean accuracy",
        tag="from memory",
        experiment="language",
        judge=_judge_accuracy,
    ),
    Claim(
        key="tokens",
        statement="A model whose weights are loaded sparse writes more tokens per second.",
        where="abstract",
        paper_value="up to 3.8x over DeepSpeed, 3.6x over FasterTransformer, per GPU (OPT-30B to OPT-175B)",
        tag="published",
        experiment="decoding",
        judge=_judge_tokens,
    ),
)
