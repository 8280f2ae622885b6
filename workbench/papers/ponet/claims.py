"""Claims of PoNet, and how our experiments judge them."""

import numpy as np

from workbench.judging import (
    Difference,
    above,
    at_least,
    at_most,
    below,
    clearly_above,
    difference,
    growth_exponent,
    undecided,
    verdict,
)
from workbench.paper import Claim, rows_with, values

_LRA, _SPEED, _MEMORY = "LRA figure of the repository", "LRA text, training speed", "LRA text, peak memory"
_LAYER = "time of a layer, forward and backward"
_STEP = "time of a training step, batch 4"


def _by_mixing(rows, quantity):
    """Return the mean value per mixing."""
    found = {}
    for r in rows:
        if r["quantity"] == quantity:
            found.setdefault(r["mixing"], []).append(r["value"])
    if not found:
        raise LookupError(f"no row {quantity!r}")
    return {name: float(np.mean(values)) for name, values in found.items()}


def _by_length(rows, quantity, mixing):
    found = {r["tokens"]: r["value"] for r in rows if r["quantity"] == quantity and r["mixing"] == mixing}
    if not found:
        raise LookupError(f"no row {quantity!r} of {mixing}")
    return found


def _exponent(rows, quantity, mixing):
    """Growth of a quantity with the tokens, from 512 tokens on."""
    late = {t: x for t, x in _by_length(rows, quantity, mixing).items() if t >= 512}
    return growth_exponent(late.keys(), late.values())


def _judge_accuracy(other, near):
    """Reproduced if PoNet is clearly ahead; partly if it is equal or at most ``near`` behind."""

    def judge(rows):
        each = {name: values(rows, "test accuracy", mixing=name) for name in ("PoNet", other)}
        lead = difference(each["PoNet"], each[other])
        seeds = "; ".join(" and ".join(f"{x:.3f}" for x in found) for found in each.values())
        return (
            f"{lead.ours:.3f} against {lead.theirs:.3f} on digits of 256 pixels, {lead.said(3)} (means of the seeds "
            f"{seeds}; lead ± standard error over them; measured)"
        ), verdict(clearly_above(lead), at_least(lead.ours, lead.theirs - near))

    return judge


def _judge_parts(rows):
    """Reproduced if every ablation is clearly worse; partly if most are. One that is equal is not worse.

    An ablation is compared with whole nets from the same seeds.
    """
    whole = {r["seed"]: r["value"] for r in rows_with(rows, "test accuracy", mixing="PoNet")}
    ablated = {}
    for r in rows_with(rows, "test accuracy"):
        if r["mixing"] not in ("PoNet", "attention", "FNet"):
            ablated.setdefault(r["mixing"], {})[r["seed"]] = r["value"]
    losses = {name: difference([whole[seed] for seed in x], list(x.values())) for name, x in ablated.items()}
    worse = [clearly_above(loss) for loss in losses.values()]
    word = verdict(all(worse), 2 * sum(worse) > len(worse))
    shown = ", ".join(f"{name} {loss.theirs:.3f}, whole over it {loss.said(3)}" for name, loss in losses.items())
    return f"whole {' and '.join(f'{x:.3f}' for x in whole.values())}; {shown} (measured)", word


def _judge_linear(rows):
    """Reproduced if PoNet's exponent is at most 1.3 and attention's is larger; partly if it is only smaller."""
    ours, attention = (_exponent(rows, _LAYER, name) for name in ("PoNet", "attention"))
    smaller = below(ours, attention)
    shown = f"time grows as N^{ours:.2f}, that of attention as N^{attention:.2f} (measured)"
    return shown, verdict(smaller and at_most(ours, 1.3), smaller)


def _judge_speed(rows):
    """Reproduced if PoNet is faster from 512 tokens on; partly if it is from some length up to 4096."""
    ours, attention = (_by_length(rows, _STEP, name) for name in ("PoNet", "attention"))
    ratio = {t: attention[t] / ours[t] for t in ours if t >= 512}
    late = [r for t, r in ratio.items() if t >= 4096]
    if not late:
        raise LookupError("needs 4096 tokens")
    shown = ", ".join(f"{r:.2f}x at {t:,}" for t, r in ratio.items())
    crossing = min((t for t in ratio if all(above(ratio[u], 1) for u in ratio if u >= t)), default=None)
    word = verdict(above(min(ratio.values()), 1), above(min(late), 1))
    found = f"speed over attention: {shown} tokens; faster from {crossing or 'no'} tokens on"
    return f"{found} (training steps of the encoder; measured)", word


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
    """Reproduced if a masked word costs less than the words' entropy; partly if less than guessing by frequency."""
    loss, entropy = _by_mixing(rows, "loss per masked word"), _entropy(rows)
    ours, guessing = loss["PoNet"], loss["word frequencies"]
    word = verdict(below(ours, entropy), below(ours, guessing))
    shown = f"{ours:.2f} nats per masked word, entropy of the words {entropy:.2f}, guessing by frequency {guessing:.2f}"
    return f"{shown} (held-out text, one seed; measured)", word


def _entropy(rows):
    return _by_mixing(rows, "entropy of the words")["word frequencies"]


def _judge_pretraining(rows):
    """Partly within 4.3 % of attention and ahead of FNet by 4.5 %: a stand-in can say no more about GLUE.

    Undecided if attention has not learned: if a masked word costs it as much as the words' entropy, or more.
    """
    right, loss, entropy = (
        _by_mixing(rows, "masked words guessed"),
        _by_mixing(rows, "loss per masked word"),
        _entropy(rows),
    )
    learned = below(loss["attention"], entropy)
    to_attention, to_fnet = right["PoNet"] / right["attention"], right["PoNet"] / right["FNet"]
    word = verdict(False, at_least(to_attention, 0.957) and at_least(to_fnet, 1.045))
    steps = next(r["steps"] for r in rows if r["quantity"] == "masked words guessed")
    found = ", ".join(f"{name} {right[name]:.3f}" for name in ("PoNet", "attention", "FNet"))
    costs = f"a masked word costs it {loss['attention']:.2f} nats, the words' entropy is {entropy:.2f}"
    shown = f"masked words guessed after {steps} steps: {found} (a stand-in for GLUE, one seed; measured)"
    return (shown, word) if learned else undecided(shown, baseline="attention", figure=costs)


def _judge_order(rows):
    """Reproduced if the order of sentences is guessed more often than by chance, by twice the standard error.

    Undecided if neither PoNet nor attention does that. Otherwise partly if PoNet guesses more often at all.
    """
    right = _by_mixing(rows, "orders guessed")
    tested = next(r["tested"] for r in rows if r["quantity"] == "orders guessed")
    error = float(np.sqrt(2 / 9 / tested))
    lead, learned = (Difference(right[name], 1 / 3, error) for name in ("PoNet", "attention"))
    chance = f"chance 0.333 ± {error:.3f}"
    shown = (
        f"PoNet {lead.ours:.3f}, attention {learned.ours:.3f} of {tested} held-out pairs, {chance} (one seed; measured)"
    )
    if not clearly_above(lead) and not clearly_above(learned):
        return undecided(shown, baseline="attention", figure=f"{learned.ours:.3f} of the orders guessed, {chance}")
    return shown, verdict(clearly_above(lead), above(lead.ours, 1 / 3))


CLAIMS = (
    Claim(
        key="image",
        statement="PoNet classifies sequences of pixels more accurately than attention.",
        where=_LRA,
        paper_value="LRA Image 46.88 against 38.20; average 61.05 against 58.77",
        tag="published",
        experiment="image",
        judge=_judge_accuracy("attention", 0.08),
    ),
    Claim(
        key="fnet",
        statement="PoNet classifies sequences of pixels more accurately than Fourier mixing.",
        where=_LRA,
        paper_value="LRA Image 46.88 against 35.55; average 61.05 against 53.10",
        tag="published",
        experiment="image",
        judge=_judge_accuracy("FNet", 0.02),
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
