"""Claims of PoNet, and how our experiments judge them."""

from statistics import fmean

from workbench.judging import (
    Difference,
    above,
    at_least,
    at_most,
    below,
    clearly_above,
    difference,
    growth_exponent,
    of_seeds,
    rising,
    undecided,
    verdict,
)
from workbench.paper import Claim, rows_with, values

_LRA, _SPEED, _MEMORY = "LRA figure of the repository", "LRA text, training speed", "LRA text, peak memory"
_LAYER = "time of a layer, forward and backward"
_STEP = "time of a training step, batch 4"
_COST, _COMPARED = "loss per masked word", ("PoNet", "attention", "FNet")
AS_SHIPPED = "PoNet, rate of the shipped encoder"  # trained beside the rest for the order of sentences
LEARNED = 0.95  # of its training digits: a net that recognises fewer is still learning


def _by_length(rows, quantity, mixing):
    found = {r["tokens"]: r["value"] for r in rows if r["quantity"] == quantity and r["mixing"] == mixing}
    if not found:
        raise LookupError(f"no row {quantity!r} of {mixing}")
    return found


def _exponent(rows, quantity, mixing):
    """Growth of a quantity with the tokens, from 512 tokens on."""
    late = {t: x for t, x in _by_length(rows, quantity, mixing).items() if t >= 512}
    return growth_exponent(late.keys(), late.values())


def _by_seed(rows, mixing, quantity="test accuracy") -> list[float]:
    """Return the values of a mixing at the rate that validation chose, in the order of the seeds."""
    return [r["value"] for r in sorted(rows_with(rows, quantity, mixing=mixing, chosen=True), key=lambda r: r["seed"])]


def _unlearned(rows, mixing) -> str:
    """Say how many training digits a net recognises that has not learned them; nothing of one that has."""
    share = fmean(_by_seed(rows, mixing, "training accuracy"))
    return "" if at_least(share, LEARNED) else f"{share:.3f} of its training digits recognised, {LEARNED} wanted"


def _judge_accuracy(other):
    """Reproduced if PoNet is clearly ahead; partly if it is ahead on the mean only.

    Undecided if the other has not learned the digits that it was trained on: fewer than 95 % of them recognised.
    """

    def judge(rows):
        ours, theirs = (_by_seed(rows, name) for name in ("PoNet", other))
        lead = difference(ours, theirs)
        steps, tokens = (rows_with(rows, "test accuracy")[0][label] for label in ("steps", "tokens"))
        shown = (
            f"{lead.ours:.3f} against {lead.theirs:.3f} on digits of {tokens} pixels after {steps:,} steps, "
            f"{lead.said(3)} ({of_seeds(ours)}, lead ± standard error; measured)"
        )
        missing = _unlearned(rows, other)
        if missing:
            return undecided(shown, baseline=other, figure=missing)
        return shown, verdict(clearly_above(lead), above(lead.ours, lead.theirs))

    return judge


def _judge_parts(rows):
    """Reproduced if every ablation is clearly worse, seed by seed; partly if most are. One that is equal is not worse.

    Undecided if the whole net has not learned its training digits.
    """
    whole = _by_seed(rows, "PoNet")
    names = dict.fromkeys(r["mixing"] for r in rows_with(rows, "test accuracy", chosen=True))
    ablated = [name for name in names if name not in _COMPARED]
    losses = {name: difference(whole, _by_seed(rows, name)) for name in ablated}
    worse = [clearly_above(loss) for loss in losses.values()]
    found = ", ".join(f"{name} {loss.theirs:.3f}, whole over it {loss.said(3)}" for name, loss in losses.items())
    shown = f"whole {fmean(whole):.3f} ({of_seeds(whole)}); {found} (± standard error over seeds; measured)"
    missing = _unlearned(rows, "PoNet")
    if missing:
        return undecided(shown, baseline="the whole net", figure=missing)
    return shown, verdict(all(worse), 2 * sum(worse) > len(worse))


def _judge_linear(rows):
    """Reproduced if PoNet's exponent is at most 1.3 and attention's is larger; partly if it is only smaller."""
    ours, attention = (_exponent(rows, _LAYER, name) for name in ("PoNet", "attention"))
    smaller = below(ours, attention)
    shown = f"time grows as N^{ours:.2f}, that of attention as N^{attention:.2f} (measured)"
    return shown, verdict(smaller and at_most(ours, 1.3), smaller)


def _judge_speed(rows):
    """Reproduced if PoNet is faster from 512 tokens on, by a ratio that rises from each length to the next.

    Partly if it is faster from some length up to 4096.
    """
    ours, attention = (_by_length(rows, _STEP, name) for name in ("PoNet", "attention"))
    ratio = {t: attention[t] / ours[t] for t in ours if t >= 512}
    late = [r for t, r in ratio.items() if t >= 4096]
    if not late:
        raise LookupError("needs 4096 tokens")
    shown = ", ".join(f"{r:.2f}x at {t:,}" for t, r in ratio.items())
    crossing = min((t for t in ratio if all(above(ratio[u], 1) for u in ratio if u >= t)), default=None)
    grows = rising(ratio[t] for t in sorted(ratio))
    word = verdict(grows and above(min(ratio.values()), 1), above(min(late), 1))
    found = f"speed over attention: {shown} tokens; faster from {crossing or 'no'} tokens on"
    how = "rises" if grows else "does not rise"
    return f"{found}; the ratio {how} with the length (training steps of the encoder; measured)", word


def _judge_fnet_speed(rows):
    """Reproduced if FNet is as fast or faster, but at most twice as fast; partly if it is faster still."""
    ours, fnet = (_by_length(rows, _STEP, name) for name in ("PoNet", "FNet"))
    ratio = {t: ours[t] / fnet[t] for t in ours if t >= 512}
    if not ratio:
        raise LookupError("needs 512 tokens")
    faster = at_least(min(ratio.values()), 1)
    shown = ", ".join(f"{r:.2f}x at {t:,}" for t, r in ratio.items())
    word = verdict(faster and at_most(max(ratio.values()), 2), faster)
    return f"speed of FNet over PoNet: {shown} tokens (training steps of the encoder; measured)", word


def _judge_memory(rows):
    """Reproduced if PoNet's exponent is at most 1.05 and attention's is larger; partly if it is only smaller."""
    ours = _exponent(rows, "largest tensor", "PoNet")
    attention = _exponent(rows, "largest tensor", "attention, weights written out")
    smaller = below(ours, attention)
    shown = f"the largest tensor grows as N^{ours:.2f}, attention's weights as N^{attention:.2f} (counted)"
    return shown, verdict(smaller and at_most(ours, 1.05), smaller)


def _judge_words(rows):
    """Reproduced if a masked word costs clearly less than the words' entropy; partly if less than their frequencies.

    The frequencies' cost is that of guessing every word by how frequent it is.
    """
    entropy, guessing, ours = _entropy(rows), *(values(rows, _COST, mixing=m) for m in ("word frequencies", "PoNet"))
    gain = difference(entropy, ours)
    return (
        f"{gain.theirs:.2f} nats per masked word, entropy of the words {gain.ours:.2f}, fewer by {gain.said(2)}, "
        f"guessing by frequency {guessing[0]:.2f} (held-out text, {of_seeds(ours)}; measured)"
    ), verdict(clearly_above(gain), below(gain.theirs, guessing[0]))


def _entropy(rows):
    return values(rows, "entropy of the words", mixing="word frequencies")


def _judge_pretraining(rows):
    """Partly if clearly at least 95.7 % of attention's words and 1.045 times FNet's: it is no more than a stand-in.

    Undecided if attention or FNet has not learned: if a masked word costs it as much as the words' entropy, or more.
    """
    right = {name: values(rows, "masked words guessed", mixing=name) for name in _COMPARED}
    cost = {name: fmean(values(rows, _COST, mixing=name)) for name in _COMPARED[1:]}
    entropy = _entropy(rows)[0]
    ratios = {
        name: difference([x / y for x, y in zip(right["PoNet"], right[name], strict=True)], [wanted])
        for name, wanted in (("attention", 0.957), ("FNet", 1.045))
    }
    enough = all(at_least(ratio.ours, ratio.theirs + 2 * (ratio.error or 0)) for ratio in ratios.values())
    steps = rows_with(rows, "masked words guessed", mixing="PoNet")[0]["steps"]
    found = ", ".join(f"{name} {fmean(right[name]):.3f}" for name in _COMPARED)
    times = ", ".join(f"{r.ours:.3f} times {name}'s" for name, r in ratios.items())
    shown = (
        f"masked words guessed after {steps:,} steps: {found}; {times} (a stand-in for GLUE, "
        f"{of_seeds(right['PoNet'])}; measured)"
    )
    for name, x in cost.items():
        if not below(x, entropy):
            figure = f"a masked word costs it {x:.2f} nats, the words' entropy is {entropy:.2f}"
            return undecided(shown, baseline=name, figure=figure)
    return shown, verdict(False, enough)


def _judge_order(rows):
    """Reproduced if the order of sentences is guessed more often than by chance, by twice the standard error.

    The error is the larger one of that over seeds and that of so many guesses. Undecided if neither PoNet nor attention
    does that. Otherwise partly if PoNet does at the shipped encoder's rate, or guesses more often at all.
    """
    guesses = rows_with(rows, "orders guessed")
    each = {name: [r["value"] for r in guesses if r["mixing"] == name] for name in (*_COMPARED, AS_SHIPPED)}
    each = {name: found for name, found in each.items() if found}
    tested = rows_with(rows, "orders guessed", mixing="PoNet")[0]["tested"]
    lead = {name: _over_chance(found, tested) for name, found in each.items()}
    found = {name: f"{name} {x.ours:.3f} ± {x.error:.3f}" for name, x in lead.items()}
    shown = f"{', '.join(found.values())}, chance 0.333 ({len(each['PoNet'])} x {tested} held-out pairs; measured)"
    if not any(clearly_above(lead[name]) for name in ("PoNet", "attention")):
        figure = f"{lead['attention'].ours:.3f} ± {lead['attention'].error:.3f} of the orders guessed, chance 0.333"
        return undecided(shown, baseline="attention", figure=figure)
    partly = AS_SHIPPED in lead and clearly_above(lead[AS_SHIPPED])
    return shown, verdict(clearly_above(lead["PoNet"]), partly or above(lead["PoNet"].ours, 1 / 3))


def _over_chance(found, tested):
    over = difference(found, [1 / 3])
    return Difference(over.ours, 1 / 3, max(over.error or 0.0, (2 / 9 / tested / len(found)) ** 0.5))


CLAIMS = (
    Claim(
        key="image",
        statement="PoNet classifies sequences of pixels more accurately than attention.",
        where=_LRA,
        paper_value="LRA Image 46.88 against 38.20; average 61.05 against 58.77",
        tag="published",
        experiment="image",
        judge=_judge_accuracy("attention"),
    ),
    Claim(
        key="fnet",
        statement="PoNet classifies sequences of pixels more accurately than Fourier mixing.",
        where=_LRA,
        paper_value="LRA Image 46.88 against 35.55; average 61.05 against 53.10",
        tag="published",
        experiment="image",
        judge=_judge_accuracy("FNet"),
    ),
    Claim(
        key="parts",
        statement="Each pooling and the product with the token's features contribute to the accuracy.",
        where="abstract; the ablation study's numbers are not at hand",
        paper_value="pooling at several granularities and their fusion are effective",
        tag="published",
        experiment="image",
        judge=_judge_parts,
    ),
    Claim(
        key="linear",
        statement="Time grows linearly with the length of the sequence.",
        where="section 3, complexity",
        paper_value="O(N D)",
        tag="published",
        experiment="timing",
        judge=_judge_linear,
    ),
    Claim(
        key="speed",
        statement="Training is faster than with attention, and more so the longer the sequence is.",
        where=_SPEED,
        paper_value="1.1x at 512, 2.1x at 1024, 4.4x at 2048, 9.0x at 4096 tokens",
        tag="published",
        experiment="timing",
        judge=_judge_speed,
    ),
    Claim(
        key="fnet-speed",
        statement="Training is only a little slower than with Fourier mixing.",
        where=_SPEED,
        paper_value="FNet is 1.65x as fast at 512, 1.3x at 4096, 1.2x at 16384 tokens",
        tag="published",
        experiment="timing",
        judge=_judge_fnet_speed,
    ),
    Claim(
        key="memory",
        statement="Memory grows linearly with the length of the sequence.",
        where=_MEMORY,
        paper_value="1.1 to 2.4 GB from 512 to 4096 tokens, attention 1.4 to 23.8 GB",
        tag="published",
        experiment="memory",
        judge=_judge_memory,
    ),
    Claim(
        key="words",
        statement="Pre-training with masked words learns to use the context.",
        where="section 3.2",
        paper_value="works; no number is given",
        tag="from memory",
        experiment="language",
        judge=_judge_words,
        whose="workbench",
    ),
    Claim(
        key="glue",
        statement="After transfer, PoNet reaches most of BERT's accuracy, and more than Fourier mixing.",
        where="abstract",
        paper_value="GLUE: 95.7 % of BERT, 4.5 % above FNet",
        tag="published",
        experiment="language",
        judge=_judge_pretraining,
    ),
    Claim(
        key="order",
        statement="The objective on the order of sentences can be learnt.",
        where="section 3.2",
        paper_value="we have no number",
        tag="from memory",
        experiment="language",
        judge=_judge_order,
        whose="workbench",
    ),
)
