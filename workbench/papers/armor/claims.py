"""Claims of ARMOR, and how our experiments judge them."""

from statistics import fmean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, verdict
from workbench.paper import Claim, rows_with

_COSINE, _LOSS = "cosine of a window's vector before and after", "cross-entropy of a batch of held-out text"
_MEAN, _PERPLEXITY = "mean cosine of sentence vectors before and after", "perplexity of held-out text"
_STORED = "share of the bytes stored"
_RIVAL = "NoWag-P and low rank"
_MATRIX, _SETTING = "relative proxy loss of a matrix", "relative proxy loss after a round"
_SWEEP, _RISE = "relative proxy loss after a sweep", "largest rise of the relative loss in a step"
_SHORT = "smallest fall of the loss in a step, over what theory promises"
_TIME, _BYTES = "time of the products of a block", "bytes that the products of a block read"
_NOWAG, _WANDA, _SPARSEGPT = ("nowag", "2:4"), ("nm_wanda", "2:4"), ("nm_sparsegpt", "2:4")
_OURS = ("armor", "32")
_TITLES = {
    _NOWAG: "NoWag-P",
    _WANDA: "Wanda",
    _SPARSEGPT: "SparseGPT",
    ("nm_magnitude", "2:4"): "magnitude",
    _OURS: "ARMOR",
}
_DROP = 0.35  # by how much a matrix's loss falls below NoWag-P's with blocks of 32
_LEAD = 0.05  # of a cosine
_NEARLY_HALF, _SOME = 0.4, 0.1
_APART = 0.3  # of a perplexity: half of what the paper says of earlier pruners
_KEPT = 0.8  # of the speed of 2:4
_ROUNDING = 1e-9  # of the relative loss, and of a promise


def _texts(rows, model, point) -> list[float]:
    """Return how good a model is on each text, larger better: cosines, or losses with their sign turned."""
    of = [r for r in rows if r.get("model") == model and (r.get("method"), r.get("level")) == point]
    cosines = [r["value"] for r in of if r["quantity"] == _COSINE]
    return cosines or [-r["value"] for r in rows_with(of, _LOSS)]


def _models(rows) -> list[str]:
    found = dict.fromkeys(r["model"] for r in rows if r["quantity"] in (_MEAN, _PERPLEXITY))
    if not found:
        raise LookupError("no model was judged")
    return list(found)


def _shown(rows, model, point) -> float:
    """Return a model's mean cosine, or its perplexity."""
    for quantity in (_MEAN, _PERPLEXITY):
        found = [r for r in rows if r["quantity"] == quantity and r["model"] == model]
        if found:
            return rows_with(found, quantity, method=point[0], level=point[1])[0]["value"]
    raise LookupError(f"no quality of {model}")


def _judge_better(rows):
    """Reproduced if ARMOR is clearly better than NoWag-P, Wanda and SparseGPT on every model, over its texts.

    Partly if it is clearly better than NoWag-P and Wanda on every model.
    """
    words, said = {}, []
    for model in _models(rows):
        ours = _texts(rows, model, _OURS)
        words |= {(model, p): clearly_above(difference(ours, _texts(rows, model, p)))
                  for p in (_NOWAG, _WANDA, _SPARSEGPT)}  # fmt: skip
        each = ", ".join(f"{_TITLES[p]} {_shown(rows, model, p):.3f}" for p in (_OURS, _NOWAG, _WANDA, _SPARSEGPT))
        bytes_of = rows_with(rows, _STORED, model=model, method=_OURS[0], level=_OURS[1])[0]["value"]
        said.append(f"{model}: {each} (ARMOR takes {bytes_of:.3f} of the dense bytes)")
    shown = f"cosines of the encoder and perplexities of the language model, {'; '.join(said)} (measured)"
    return shown, verdict(all(words.values()), all(word for (_, p), word in words.items() if p != _SPARSEGPT))


def _judge_gap(rows):
    """Reproduced if ARMOR closes 40 per cent or more of NoWag-P's gap to the dense model, on every model.

    Partly if it closes 10 per cent or more on every model. The gap is one of perplexities or of cosines.
    """
    closed = {}
    for model in _models(rows):
        dense, start, ours = (_shown(rows, model, p) for p in (("dense", ""), _NOWAG, _OURS))
        closed[model] = (ours - start) / (dense - start)
    shown = f"{', '.join(f'{model} {x:.0%}' for model, x in closed.items())} of NoWag-P's gap, blocks of 32 (measured)"
    return shown, verdict(
        all(at_least(x, _NEARLY_HALF) for x in closed.values()), all(at_least(x, _SOME) for x in closed.values())
    )


def _judge_unstructured(rows):
    """Reproduced if the perplexity at 2:4 is 30 per cent or more above that of the same pruner at any places.

    Half of the weights go. For Wanda and for SparseGPT; partly if it is clearly above for both, over texts.
    """
    words, clear, said = [], [], []
    models = [
        model for model in _models(rows) if any(r["quantity"] == _PERPLEXITY and r["model"] == model for r in rows)
    ]
    for model in models:
        for free, regular in ((("wanda", "0.5"), _WANDA), (("sparsegpt", "0.5"), _SPARSEGPT)):
            over = _shown(rows, model, regular) / _shown(rows, model, free) - 1
            words.append(at_least(over, _APART))
            clear.append(clearly_above(difference(_texts(rows, model, free), _texts(rows, model, regular))))
            said.append(f"{_TITLES[regular]} {over:+.1%}")
    if not said:
        raise LookupError("no language model was judged")
    return f"perplexity {', '.join(said)}, {', '.join(models)} (measured)", verdict(all(words), all(clear))


def _judge_speed(rows):
    """Reproduced if the wrapped product is always faster than dense, and at 80 per cent of the speed of 2:4 or more.

    Partly if it is faster than dense for some width and number of tokens.
    """
    gains, kept, said = [], [], []
    for dense in rows_with(rows, _TIME, run="dense"):
        at = {"width": dense["width"], "tokens": dense["tokens"]}
        plain, ours = (rows_with(rows, _TIME, run=run, **at)[0]["value"] for run in ("2:4", "2:4 between wrappers"))
        gains.append(dense["value"] / ours)
        kept.append(plain / ours)
        said.append(f"{gains[-1]:.2f}x ({dense['value'] / plain:.2f}x) at {at['width']} with {at['tokens']}")
    read = {run: rows_with(rows, _BYTES, run=run, width=at["width"])[0]["value"]
            for run in ("dense", "2:4", "2:4 between wrappers")}  # fmt: skip
    shares = " and ".join(f"{read[run] / read['dense']:.2f}" for run in ("2:4 between wrappers", "2:4"))
    shown = (
        f"speed over dense, in brackets that of plain 2:4: {', '.join(said)} tokens (measured); reads {shares} of the "
        f"dense bytes in float32 at width {at['width']} (counted)"
    )
    fast = [at_least(x, 1) for x in gains]
    return shown, verdict(all(fast) and all(at_least(x, _KEPT) for x in kept), any(fast))


def _judge_monotone(rows):
    """Reproduced if no step raises the loss, each falls by what theory promises, and all end at or below NoWag-P.

    Partly if all end at or below NoWag-P. Rises below one part in 10^9 of the loss are those of rounding.
    """
    rises = [r["value"] for r in rows_with(rows, _RISE)]
    short = [r["value"] for r in rows_with(rows, _SHORT)]
    ends, said = [], []
    for layer in dict.fromkeys(r["layer"] for r in rows_with(rows, _SWEEP, method="sequential gradient descent")):
        for method in ("sequential gradient descent", "Adam"):
            found = {r["sweep"]: r["value"] for r in rows_with(rows, _SWEEP, method=method, layer=layer)}
            ends.append(at_most(found[max(found)], found[0]))
            said.append(f"{layer}, {method} {found[0]:.4f} to {found[max(found)]:.4f} in {max(found)} sweeps")
    steady = all(x <= _ROUNDING for x in rises) and all(x >= 1 - 1e-6 for x in short)
    worst = f"a step rises by {max(rises):.0e}" if max(rises) > 0 else "no step rises"
    shown = f"{'; '.join(said)}; {worst}, falls are {min(short):.2f} times the promise or more (measured)"
    return shown, verdict(steady and all(ends), all(ends))


def _by_matrix(rows, method, block) -> dict:
    return {(r["model"], r["layer"]): r["value"] for r in rows_with(rows, _MATRIX, method=method, block=block)}


def _judge_matrices(rows):
    """Reproduced if every matrix's loss with blocks of 32 is 35 per cent or more below NoWag-P's; partly if below."""
    start, ours = (_by_matrix(rows, method, 32) for method in ("NoWag-P", "ARMOR"))
    falls = [1 - ours[at] / x for at, x in start.items()]
    shown = f"{min(falls):.0%} to {max(falls):.0%} lower, mean {fmean(falls):.0%} ({len(falls)} matrices; measured)"
    return shown, verdict(all(at_least(x, _DROP) for x in falls), all(below(ours[at], x) for at, x in start.items()))


def _judge_rival(rows):
    """Reproduced if with blocks of 32 ARMOR's loss is below that of NoWag-P and low rank in turns on every matrix.

    Both take as many bytes. Partly if it is below on more than half.
    """
    words, said = {}, []
    for block in sorted({r["block"] for r in rows_with(rows, _MATRIX)}):
        ours, turns, once = (_by_matrix(rows, method, block) for method in ("ARMOR", f"{_RIVAL}, in turns", _RIVAL))
        words[block] = [below(ours[at], x) for at, x in turns.items()]
        means = " / ".join(f"{fmean(each.values()):.4f}" for each in (ours, turns, once))
        said.append(f"blocks of {block}: below on {sum(words[block])} of {len(turns)}, means {means}")
    last = words[32]
    shown = f"{'; '.join(said)} (ARMOR / in turns / low rank once; measured)"
    return shown, verdict(all(last), 2 * sum(last) > len(last))


def _ends(rows, way, block=32) -> dict:
    """Return (layer, seed) -> loss at the last round told."""
    of = rows_with(rows, _SETTING, way=way, block=block)
    last = max(r["round"] for r in of)
    return {(r["layer"], r["seed"]): r["value"] for r in of if r["round"] == last}


def _judge_selection(rows):
    """Reproduced if groups drawn by their gradient end clearly lower than the largest gradient and than no choice.

    Over matrices and seeds. Partly if they end clearly lower than no choice.
    """
    ours, said, words = _ends(rows, "by gradient, drawn"), [], {}
    for way in ("drawn, all alike", "largest gradient", "never"):
        theirs = _ends(rows, way)
        lead = difference([theirs[at] / x for at, x in ours.items()], [1.0] * len(ours))
        words[way] = clearly_above(lead)
        said.append(f"{way} {lead.ours:.3f} ± {lead.error or 0:.3f}")
    shown = f"loss over that of groups drawn by gradient: {', '.join(said)} (mean ± standard error; measured)"
    return shown, verdict(words["largest gradient"] and words["never"], words["never"])


def _judge_wrappers(rows):
    """Reproduced if nothing moves while the wrappers are frozen, and larger blocks end lower for every matrix and seed.

    Partly if the frozen search does not move.
    """
    frozen = rows_with(rows, _SETTING, way="wrappers frozen")
    start = {r["layer"]: r["value"] for r in frozen if r["round"] == 0}
    still = all(at_least(r["value"], start[r["layer"]] * (1 - 1e-5)) for r in frozen)
    ends = {block: _ends(rows, "by gradient, drawn", block) for block in (16, 32, 64)}
    order = all(below(ends[64][at], ends[32][at]) and below(ends[32][at], x) for at, x in ends[16].items())
    means = " / ".join(f"{fmean(each.values()):.4f}" for each in ends.values())
    shown = f"frozen {fmean(start.values()):.4f} throughout" if still else "the frozen search moves"
    return f"{shown}; {means} with blocks of 16 / 32 / 64 (means; measured)", verdict(still and order, still)


def _judge_encoder(rows):
    """Reproduced if the encoder's mean cosine with blocks of 32 is above NoWag-P's by 0.05 or more; partly if above."""
    names = {
        _OURS: "ARMOR 32",
        ("armor", "16"): "ARMOR 16",
        ("nowag_low_rank", "32"): "low rank 32",
        ("nowag_low_rank", "16"): "low rank 16",
        _NOWAG: "NoWag-P",
        _SPARSEGPT: "SparseGPT",
    }
    by = {p: rows_with(rows, _MEAN, method=p[0], level=p[1])[0]["value"] for p in names}
    lead = by[_OURS] - by[_NOWAG]
    shown = ", ".join(f"{name} {by[p]:.3f}" for p, name in names.items())
    return f"mean cosines: {shown} (measured)", verdict(at_least(lead, _LEAD), above(by[_OURS], by[_NOWAG]))


CLAIMS = (
    Claim(
        key="better",
        statement="At 2:4 a model loses less with ARMOR than with NoWag-P, Wanda and SparseGPT.",
        where="abstract",
        paper_value="better perplexity and task accuracy for Llama-2, Llama-3 and Qwen of 7 to 70 billion parameters",
        tag="published",
        experiment="models",
        judge=_judge_better,
    ),
    Claim(
        key="gap",
        statement="ARMOR closes nearly half of the gap in perplexity between 2:4 and the dense model.",
        where="as a summary of the paper tells it",
        paper_value="nearly half",
        tag="from memory",
        experiment="models",
        judge=_judge_gap,
    ),
    Claim(
        key="unstructured",
        statement="Earlier pruners lose far more at 2:4 than where half of the weights may go at any places.",
        where="as a summary of the paper tells it",
        paper_value="a perplexity about 59 % higher, Llama-7B on Wikitext2",
        tag="from memory",
        experiment="models",
        judge=_judge_unstructured,
    ),
    Claim(
        key="speed",
        statement="The wrappers keep the speed and the memory of 2:4.",
        where="abstract",
        paper_value="the speed-up of 2:4 on a GPU",
        tag="published",
        experiment="products",
        judge=_judge_speed,
    ),
    Claim(
        key="monotone",
        statement=(
            "With gradient steps on A, B and S in turn and the exact choice of groups, the loss never rises and ends "
            "no higher than NoWag-P's."
        ),
        where="theory of convergence; the step sizes are our derivation",
        paper_value="no rise",
        tag="published",
        experiment="convergence",
        judge=_judge_monotone,
    ),
    Claim(
        key="matrices",
        statement="After 300 rounds with blocks of 32 the loss of every matrix is 35 per cent or more below NoWag-P's.",
        where="our own prototype, on one matrix",
        paper_value="62 % lower for the query matrix of the first layer",
        tag="published",
        experiment="matrices",
        judge=_judge_matrices,
        whose="workbench",
    ),
    Claim(
        key="rival",
        statement="The wrappers lower the loss more than a low-rank matrix of as many bytes beside the 2:4 matrix.",
        where="a comparison of our own",
        paper_value="not compared",
        tag="published",
        experiment="matrices",
        judge=_judge_rival,
        whose="workbench",
    ),
    Claim(
        key="selection",
        statement="Groups drawn by the size of their gradient end lower than the largest gradient, and than no choice.",
        where="our own prototype, on one matrix",
        paper_value="0.0448 against 0.0575 and 0.0591 after 300 rounds",
        tag="published",
        experiment="settings",
        judge=_judge_selection,
        whose="workbench",
    ),
    Claim(
        key="wrappers",
        statement="Without wrappers nothing can move, and larger blocks of the wrappers fit better.",
        where="follows from the loss, and our own prototype, on one matrix",
        paper_value="0.1188 with frozen wrappers; 0.0643, 0.0448 and 0.0154 with blocks of 16, 32 and 64",
        tag="published",
        experiment="settings",
        judge=_judge_wrappers,
        whose="workbench",
    ),
    Claim(
        key="encoder",
        statement="A sentence encoder's vectors stay nearer with ARMOR than with NoWag-P, by 0.05 of a cosine or more.",
        where="our own prototype, on the same encoder",
        paper_value="0.819 and 0.796 with blocks of 32 and 16, 0.713 with NoWag-P, 0.877 with SparseGPT",
        tag="published",
        experiment="models",
        judge=_judge_encoder,
        whose="workbench",
    ),
)
