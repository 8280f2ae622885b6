"""Claims of Combiner, and how our experiments judge them."""

import numpy as np

from workbench.judging import above, at_least, at_most, below, growth_exponent, verdict
from workbench.paper import Claim, values

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
    shown = f"{empty} pairs without weight, weight {leaked:.0e} on later keys, largest difference {error:.0e}"
    return shown, verdict(exact and empty == 0, exact)


def _judge_beats(pattern):
    """Reproduced if Combiner needs .05 bits per pixel less than the pattern alone or better, partly if any less."""

    def judge(rows):
        alone, ours = _bits(rows, f"{pattern} alone"), _bits(rows, f"Combiner {pattern}")
        shown = f"bits per pixel on digits: sparse pattern alone {alone:.3f}, Combiner {ours:.3f} (measured)"
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
    return (
        f"bits per pixel on digits: full attention {full:.3f}; Combiner minus full attention: {shown} (measured)",
        word,
    )


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
    numbers = f"axial mixture {mixture:.3f}, best sparse pattern alone {sparse:.3f}, lowest {bits[best]:.3f}"
    shown = f"bits per pixel on digits: {numbers} (measured)"
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
        f"exponents of the time (measured): {shown}; of the operations (counted): fixed {counted['fixed']:.2f}, "
        f"logsparse {counted['logsparse']:.2f}"
    ), verdict(by_count and by_time, by_count or by_time)


CLAIMS = (
    Claim(
        key="support",
        statement="One layer gives every earlier position weight, and the weights are a probability distribution.",
        where="abstract and method",
        paper_value="full support",
        tag="published",
        experiment="support",
        judge=_judge_support,
    ),
    Claim(
        key="fixed",
        statement="Combiner-Fixed predicts better than the fixed sparse pattern that it starts from.",
        where="language-model table (Wiki-40B)",
        paper_value="perplexity: sparse pattern alone 18.04, Combiner 17.70",
        tag="from memory",
        experiment="pictures",
        judge=_judge_beats("fixed"),
    ),
    Claim(
        key="logsparse",
        statement="Combiner-Logsparse predicts better than the log-sparse pattern that it starts from.",
        where="experiments",
        paper_value="better than the sparse counterpart",
        tag="from memory",
        experiment="pictures",
        judge=_judge_beats("logsparse"),
    ),
    Claim(
        key="axial",
        statement="Combiner-Axial predicts better than the axial pattern that it starts from.",
        where="language-model table (Wiki-40B)",
        paper_value="perplexity: sparse pattern alone 20.82, Combiner 17.56",
        tag="from memory",
        experiment="pictures",
        judge=_judge_beats("axial_mixture"),
    ),
    Claim(
        key="near-full",
        statement="Combiner predicts nearly as well as full attention.",
        where="language-model table (Wiki-40B)",
        paper_value="perplexity: full attention 17.26, Combiner 17.70 and 17.56",
        tag="from memory",
        experiment="pictures",
        judge=_judge_full,
    ),
    Claim(
        key="images",
        statement="On pictures the axial mixture predicts better than sparse attention.",
        where="image density (CIFAR-10)",
        paper_value="2.77 bits per dimension against 2.80",
        tag="from memory",
        experiment="pictures",
        judge=_judge_best,
    ),
    Claim(
        key="cost",
        statement="The cost grows as L sqrt L for fixed regions and as L log L for log-sparse regions.",
        where="abstract and method",
        paper_value="L sqrt L, L log L",
        tag="published",
        experiment="cost",
        judge=_judge_cost,
    ),
)
