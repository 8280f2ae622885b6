"""Claims of CoSpaDi, and how our experiments judge them."""

from itertools import pairwise
from statistics import fmean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, verdict
from workbench.paper import Claim, rows_with

_TABLES = "tables of accuracy, as the follow-up ROCKET (arXiv 2602.11008) prints them again"
_ERROR, _GROUP = "relative error of a matrix's outputs", "relative error of a group's outputs"
_STAGE = "relative error of a matrix's outputs after a stage"
_WINDOW, _MEAN = "cosine of a window's vector before and after", "mean cosine of sentence vectors before and after"
_OUTPUT, _WEIGHT = "mean output error of the layers", "mean weight error of the layers"
_TIME = "time of the products of a block"
_MODELS = {"minilm": "MiniLM", "small_encoder": "our small encoder", "tiny_lm": "our language model"}
_PAPERS = ("0.3", "0.4", "0.5")  # the ratios of the paper that the explorer offers
_TITLES = {
    "svd": "SVD", "asvd": "SVD-LLM", "cospadi": "CoSpaDi", "nm_wanda": "Wanda 2:4", "nm_magnitude": "magnitude 2:4"
}  # fmt: skip
_ORDER = ("cospadi", "asvd", "nm_wanda", "nm_magnitude", "svd")
_PROTOTYPE = {"cospadi": 0.873, "asvd": 0.835, "nm_wanda": 0.716, "nm_magnitude": 0.532, "svd": 0.309}
_MARGIN = 0.03  # of a cosine: the texts differ between versions of Python


def _by_case(rows, quantity, label, value, case) -> dict:
    """Return case -> value of the rows that carry a label; the case is what the other labels say."""
    return {tuple(r[key] for key in case): r["value"] for r in rows_with(rows, quantity, **{label: value})}


def _judge_quality(rows):
    """Reproduced if every model keeps more with CoSpaDi than with SVD-LLM at 30, 40 and 50 per cent; partly at some.

    Bits per byte of the language model and cosines of sentence vectors of the encoder.
    """
    shown, words = [], []
    for model, quantity, better in (
        ("tiny_lm", "bits per byte of held-out text", below),
        ("minilm", "cosine of sentence vectors before and after", above),
    ):
        ours, theirs = (
            {level: rows_with(rows, quantity, model=model, point=f"{key}@{level}")[0]["value"] for level in _PAPERS}
            for key in ("cospadi", "asvd")
        )
        words += [better(ours[level], theirs[level]) for level in _PAPERS]
        each = (f"{ours[level]:.3f} against {theirs[level]:.3f}" for level in _PAPERS)
        shown.append(f"{quantity}, {_MODELS[model]}: {', '.join(each)}")
    told = "; ".join(shown) + f"; at {' / '.join(f'{float(x):.0%}' for x in _PAPERS)} (one text each; measured)"
    return told, verdict(all(words), any(words))


def _judge_matrices(rows):
    """Reproduced if CoSpaDi's error is below SVD-LLM's on every matrix after one sweep; partly on more than half."""
    case = ("model", "layer", "ratio")
    llm, last = (_by_case(rows, _ERROR, "method", method, case) for method in ("SVD-LLM", "CoSpaDi"))
    first: dict[tuple, float] = {}
    for r in rows_with(rows, _STAGE):
        if r["sweep"] <= 1:
            at = tuple(r[key] for key in case)
            first[at] = min(r["value"], first.get(at, float("inf")))
    better = [below(first[at], llm[at]) for at in llm]
    ratios = [last[at] / llm[at] for at in llm]
    shown = (
        f"below on {sum(better)} of {len(better)} matrices and ratios after one sweep; after all sweeps "
        f"{min(ratios):.2f} to {max(ratios):.2f} of SVD-LLM's error, mean {fmean(ratios):.2f} (measured)"
    )
    return shown, verdict(all(better), 2 * sum(better) > len(better))


def _judge_whitening(rows):
    """Reproduced if SVD-LLM's error of the outputs is below plain SVD's on every matrix; partly on more than half."""
    case = ("model", "layer", "ratio")
    plain, llm = (_by_case(rows, _ERROR, "method", method, case) for method in ("SVD", "SVD-LLM"))
    better = [below(llm[at], x) for at, x in plain.items()]
    ratios = [llm[at] / x for at, x in plain.items()]
    shown = f"below on {sum(better)} of {len(better)}; {min(ratios):.2f} to {max(ratios):.2f} of it (measured)"
    return shown, verdict(all(better), 2 * sum(better) > len(better))


def _judge_spread(rows):
    """Reproduced if k / s = 2 errs less than 1.25 and than 4, clearly over matrices, values counted.

    Partly if its mean is the smallest of these three.
    """
    found = {}
    for rho in sorted({r["rho"] for r in rows_with(rows, _ERROR, counted="values")}):
        found[rho] = [r["value"] for r in rows_with(rows, _ERROR, counted="values", rho=rho)]
    base = found[2.0]
    leads = [
        difference([x / y for x, y in zip(found[rho], base, strict=True)], [1.0] * len(base)) for rho in (1.25, 4.0)
    ]
    best = min(found, key=lambda rho: fmean(x / y for x, y in zip(found[rho], base, strict=True)))
    means = ", ".join(f"{fmean(x / y for x, y in zip(each, base, strict=True)):.3f} at {rho:g}"
                      for rho, each in found.items())  # fmt: skip
    shown = f"errors over those at 2: {means}; smallest at {best:g} ({len(base)} matrices; measured)"
    return shown, verdict(all(map(clearly_above, leads)), all(above(lead.ours, lead.theirs) for lead in leads))


def _judge_shared(rows):
    """Reproduced if one dictionary errs less than one for each in every group of both kinds; partly in some groups."""
    shown, words = [], []
    for kind in dict.fromkeys(r["group"] for r in rows_with(rows, _GROUP)):
        case = ("model", "first")
        of = [r for r in rows if r.get("group") == kind]
        one, each = (_by_case(of, _GROUP, "method", f"CoSpaDi, {how}", case)
                     for how in ("one dictionary", "a dictionary each"))  # fmt: skip
        basis = _by_case(of, _GROUP, "method", "SVD-LLM, one basis", case)
        better = [below(one[at], x) for at, x in each.items()]
        words += better
        shown.append(
            f"{kind}: below in {sum(better)} of {len(better)}, means {fmean(one.values()):.3f} against "
            f"{fmean(each.values()):.3f}, one SVD basis {fmean(basis.values()):.3f}"
        )
    return "; ".join(shown) + " (measured)", verdict(all(words), any(words))


def _judge_encoder(rows):
    """Reproduced if every mean cosine is within 0.03 of the prototype's and the order is its; partly if the order is.

    Neighbours of the order that are less than 0.05 apart in the prototype may change places.
    """
    found = {key: rows_with(rows, _MEAN, model="minilm", method=key)[0]["value"] for key in _ORDER}
    near = all(at_most(abs(found[key] - x), _MARGIN) for key, x in _PROTOTYPE.items())
    order = all(
        above(found[a], found[b]) or (_PROTOTYPE[a] - _PROTOTYPE[b] < 0.05 and at_least(found[a], found[b] - _MARGIN))
        for a, b in pairwise(_ORDER)
    )
    lead = difference(
        *([r["value"] for r in rows_with(rows, _WINDOW, model="minilm", method=key)] for key in _ORDER[:2])
    )
    shown = " > ".join(f"{_TITLES[key]} {found[key]:.3f}" for key in sorted(found, key=lambda key: -found[key]))
    shown += f"; CoSpaDi before SVD-LLM by {lead.said(3, once='one window')} (± standard error over windows; measured)"
    return shown, verdict(near and order and clearly_above(lead), order)


def _judge_lesson(rows):
    """Reproduced if SVD has the smaller weight error and SVD-LLM and CoSpaDi the smaller output error, on each model.

    Partly on one of the models.
    """
    words, shown = [], []
    for model in dict.fromkeys(r["model"] for r in rows_with(rows, _WEIGHT)):
        weight, output = (
            {key: rows_with(rows, q, model=model, method=key)[0]["value"] for key in ("svd", "asvd", "cospadi")}
            for q in (_WEIGHT, _OUTPUT)
        )
        words.append(all(below(weight["svd"], weight[key]) and below(output[key], output["svd"])
                         for key in ("asvd", "cospadi")))  # fmt: skip
        each = ", ".join(f"{_TITLES[key]} {weight[key]:.3f} and {output[key]:.3f}" for key in weight)
        shown.append(f"{_MODELS.get(model, model)}: {each}")
    return f"errors of weights and of outputs, {'; '.join(shown)} (measured)", verdict(all(words), any(words))


def _judge_speed(rows):
    """Reproduced if the products of a block with one token are at most as slow as low rank's at 20, 30 and 40 per cent.

    At the largest width. Partly if that holds for some ratio or for some number of tokens.
    """
    width = max(r["width"] for r in rows_with(rows, _TIME))
    gains = {}
    for r in rows_with(rows, _TIME, width=width, run="dictionary and sparse codes"):
        at = {"width": width, "ratio": r["ratio"], "tokens": r["tokens"]}
        other = rows_with(rows, _TIME, run="low rank", **at)[0]
        gains[r["tokens"], r["ratio"]] = other["value"] / r["value"]
    one = {ratio: x for (tokens, ratio), x in gains.items() if tokens == 1}
    if not one:
        raise LookupError("no time with one token")
    said = [
        f"{' / '.join(f'{x:.2f}x' for (t, _), x in sorted(gains.items()) if t == tokens)} with {tokens} tokens"
        for tokens in sorted({t for t, _ in gains})
    ]
    ratios = " / ".join(f"{ratio:.0%}" for ratio in sorted(one))
    shown = f"speed over low rank {', '.join(said)}, at {ratios}, width {width} on this CPU (measured)"
    return shown, verdict(all(at_least(x, 1) for x in one.values()), any(at_least(x, 1) for x in gains.values()))


CLAIMS = (
    Claim(
        key="quality",
        statement="At every compression ratio a model loses less with CoSpaDi than with SVD-LLM.",
        where=_TABLES,
        paper_value=(
            "Qwen3-8B at 30 / 40 / 50 %: mean accuracy 60.0 / 50.3 / 42.0 % against 55.8 / 45.4 / 38.1 %, perplexity "
            "23 / 36 / 59 against 27 / 43 / 76"
        ),
        tag="published",
        experiment="tradeoffs",
        judge=_judge_quality,
    ),
    Claim(
        key="matrices",
        statement=(
            "With equally many values, atoms that every output picks for itself represent a matrix better than one "
            "subspace for all outputs."
        ),
        where="abstract",
        paper_value="no error of single matrices is given",
        tag="published",
        experiment="matrices",
        judge=_judge_matrices,
    ),
    Claim(
        key="whitening",
        statement="Whitening by calibration data makes the truncated SVD change the outputs of a matrix less.",
        where="method, and SVD-LLM (arXiv 2403.07378)",
        paper_value="the error of the outputs is minimal among all matrices of that rank",
        tag="published",
        experiment="matrices",
        judge=_judge_whitening,
    ),
    Claim(
        key="spread",
        statement="Twice as many atoms as coefficients of an output is the right ratio.",
        where="settings; the follow-up ROCKET sweeps 1 to 3",
        paper_value="k / s = 2",
        tag="published",
        experiment="spreads",
        judge=_judge_spread,
    ),
    Claim(
        key="shared",
        statement="With equally many values, matrices that share one dictionary lose less than with one for each.",
        where="setting with groups of layers",
        paper_value="the groups do better than Basis Sharing; the numbers are not known to us",
        tag="from memory",
        experiment="shared",
        judge=_judge_shared,
    ),
    Claim(
        key="speed",
        statement="A model in CoSpaDi's form writes at least as fast as one in low-rank form.",
        where=_TABLES,
        paper_value="Qwen3-8B, one text, 20 / 30 / 40 %: 25.5 / 25.8 / 25.6 against 24.4 / 24.3 / 24.7 tokens/s",
        tag="published",
        experiment="products",
        judge=_judge_speed,
    ),
    Claim(
        key="encoder",
        statement=(
            "With indices counted, at the bytes of 2:4, an encoder keeps most with CoSpaDi, then with SVD-LLM, Wanda "
            "2:4, magnitude 2:4 and plain SVD."
        ),
        where="our own prototype, on the same encoder",
        paper_value="cosines 0.873 > 0.835 > 0.716 > 0.532 > 0.309",
        tag="published",
        experiment="encoder",
        judge=_judge_encoder,
        whose="workbench",
    ),
    Claim(
        key="lesson",
        statement="What is fitted to the outputs changes the weights more than plain SVD does, and the outputs less.",
        where="follows from the two minimisations",
        paper_value="weights: SVD less; outputs: SVD-LLM and CoSpaDi less",
        tag="published",
        experiment="encoder",
        judge=_judge_lesson,
        whose="workbench",
    ),
)
