"""What a short training brings back to pruned models, ours more than the paper's, and how our experiments judge it."""

from workbench.judging import above, at_most, below, verdict
from workbench.paper import Claim, rows_with, values

AT_ONCE, DISTILLED = "pruned at once", "pruned while distilling"
REFITTED_DISTILLED = "refitted, then distilled"
COSINE, FOUND = "cosine of sentence vectors before and after", "second halves found by the first"
MEASURES = (COSINE, "rank correlation of similarities", FOUND)
UNSTRUCTURED = ("Magnitude", "Wanda", "SparseGPT")
OF_A_KIND = {"0.7": UNSTRUCTURED, "0.9": UNSTRUCTURED, "2:4": ("n:m, magnitude", "n:m, Wanda", "n:m, SparseGPT")}
QUALITY = {  # model -> what it is judged by, whether more is better, and its unit
    "minilm": (COSINE, 1, "cosine"),
    "tiny_lm": ("bits per byte of held-out text", -1, "bits per byte"),
}


def _distilled(rows, quantity, training, sparsity, form="int8"):
    return values(rows, quantity, training=training, sparsity=sparsity, form=form)[0]


def _judge_distilled(rows):
    """Reproduced if at every sparsity, in int8, all three measures are higher than pruned at once; partly if cosines.

    They are the cosine, the rank correlation of similarities, and the share of second halves found.
    """
    return _keeps_more(rows, AT_ONCE, DISTILLED, "at once to distilled")


def _judge_refitted(rows):
    """Reproduced if at every sparsity, in int8, all three measures are higher than pruned while distilling.

    Partly if the cosines are. Both had as many training steps; the measures are those of `_judge_distilled`.
    """
    return _keeps_more(rows, DISTILLED, REFITTED_DISTILLED, "gradual to refitted")


def _keeps_more(rows, worse, better, words):
    held, shown = [], []
    for s in sorted({r["sparsity"] for r in rows_with(rows, COSINE, training=better)}):
        pairs = [[_distilled(rows, quantity, x, s) for x in (worse, better)] for quantity in MEASURES]
        held.append([above(after, before) for before, after in pairs])
        shown.append(f"{', '.join(f'{before:.2f} to {after:.2f}' for before, after in pairs)} at {s:.0%}")
    words = f"cosine, rank correlation and halves found, {words}: {'; '.join(shown)}"
    return f"{words} (int8; one seed; measured)", verdict(all(map(all, held)), all(cosine for cosine, *_ in held))


def _judge_rounding(rows):
    """Reproduced if at every sparsity int8 changes the cosine by .02 at most; partly at some."""
    changes = {
        r["sparsity"]: _distilled(rows, COSINE, REFITTED_DISTILLED, r["sparsity"]) - r["value"]
        for r in rows_with(rows, COSINE, training=REFITTED_DISTILLED, form="float32")
    }
    small = [at_most(abs(x), 0.02) for x in changes.values()]
    shown = ", ".join(f"{x:+.3f} at {s:.0%}" for s, x in changes.items())
    return f"cosine changes by {shown} (one seed; measured)", verdict(all(small), any(small))


def _models(rows) -> list[str]:
    """Return the models that rows hold."""
    found = [model for model in QUALITY if any(r.get("model") == model for r in rows)]
    if not found:
        raise LookupError("no model's quality among the rows")
    return found


def _goodness(rows, model, method, level, stage) -> float:
    """Return the first quality of a model's point, turned so that more is better."""
    quantity, sign, _ = QUALITY[model]
    return sign * values(rows, quantity, model=model, method=method, level=level, stage=stage)[0]


def _judge_closer(rows):
    """Reproduced if in all groups of a kind the best and the worst method are closer after the training.

    Partly if in more than half. Groups: magnitude, Wanda and SparseGPT at 70 and 90 %, and at 2:4, on every model.
    """
    return _narrower(rows, OF_A_KIND, lambda found: max(found) - min(found), "best minus worst")


def _judge_blocks(rows):
    """Reproduced if the lead of single weights over 4 x 1 blocks, both by |w| ||x||, shrinks in all cases.

    Partly if in more than half. Cases: 70 and 90 % on every model.
    """
    pair = ("Wanda", "4x1 blocks")
    return _narrower(rows, {"0.7": pair, "0.9": pair}, lambda found: found[0] - found[1], "lead of single weights")


def _narrower(rows, groups, gap, words):
    held, shown = [], []
    for model in _models(rows):
        each, unit = [], QUALITY[model][2]
        for level, members in groups.items():
            before, after = (
                gap([_goodness(rows, model, method, level, stage) for method in members])
                for stage in ("one-shot", "recovered")
            )
            held.append(below(after, before))
            each.append(f"{before:.2f} to {after:.2f} at {level}")
        shown.append(f"{', '.join(each)} ({unit})")
    words = f"{words} before and after: {'; '.join(shown)}; smaller in {sum(held)} of {len(held)}"
    return f"{words} (one seed; measured)", verdict(all(held), sum(held) > len(held) / 2)


def _judge_trained(rows):
    """Reproduced if magnitude, trained, is better than SparseGPT without training in all cases.

    Partly if in more than half. Cases: 70 %, 90 % and 2:4 on every model.
    """
    held, shown = [], []
    for model in _models(rows):
        each, (_, sign, unit) = [], QUALITY[model]
        for level, (plain, *_, best) in OF_A_KIND.items():
            trained = _goodness(rows, model, plain, level, "recovered")
            chosen = _goodness(rows, model, best, level, "one-shot")
            held.append(above(trained, chosen))
            each.append(f"{sign * trained:.2f} and {sign * chosen:.2f} at {level}")
        shown.append(f"{', '.join(each)} ({unit})")
    words = f"magnitude trained and SparseGPT untrained: {'; '.join(shown)}"
    return f"{words} (one seed; measured)", verdict(all(held), sum(held) > len(held) / 2)


def _judge_movement(rows):
    """Reproduced if at 90 % movement is better than magnitude, trained as long, on every model; partly on some."""
    found = {
        model: [_goodness(rows, model, method, "0.9", "recovered") for method in ("Movement", "Magnitude")]
        for model in _models(rows)
    }
    better = [above(*pair) for pair in found.values()]
    shown = "; ".join(
        f"{abs(ours):.2f} and {abs(theirs):.2f} ({QUALITY[model][2]})" for model, (ours, theirs) in found.items()
    )
    return f"movement and magnitude: {shown} (one seed; measured)", verdict(all(better), any(better))


TRAINED = (
    Claim(
        key="distilled",
        statement="Pruned while it learns from the dense encoder, an encoder keeps more than pruned at once.",
        where="our encoder",
        paper_value="pruning with distillation; no comparison",
        tag="from memory",
        experiment="encoder_quality",
        judge=_judge_distilled,
        whose="workbench",
    ),
    Claim(
        key="refitted",
        statement="Blocks pruned at once, refitted and then distilled keep more than blocks pruned while distilling.",
        where="our encoder",
        paper_value="pruning is gradual; no comparison",
        tag="from memory",
        experiment="encoder_quality",
        judge=_judge_refitted,
        whose="workbench",
    ),
    Claim(
        key="rounding",
        statement="Rounding the pruned encoder to int8 turns its sentence vectors by little.",
        where="our encoder",
        paper_value="none for sentence encoders",
        tag="from memory",
        experiment="encoder_quality",
        judge=_judge_rounding,
        whose="workbench",
    ),
    Claim(
        key="closer",
        statement="After the same short training, methods of a kind lie closer together than before.",
        where="our encoder and our language model",
        paper_value="no comparison",
        tag="from memory",
        experiment="tradeoffs_recovered",
        judge=_judge_closer,
        whose="workbench",
    ),
    Claim(
        key="trained",
        statement="A short training of the simplest method is worth more than the best choice without training.",
        where="our encoder and our language model",
        paper_value="no comparison",
        tag="from memory",
        experiment="tradeoffs_recovered",
        judge=_judge_trained,
        whose="workbench",
    ),
    Claim(
        key="blocks",
        statement="The lead of single weights over 4 x 1 blocks shrinks with a short training.",
        where="our encoder and our language model",
        paper_value="pruned models of 4 x 1 blocks lose little after training; no comparison with single weights",
        tag="from memory",
        experiment="tradeoffs_recovered",
        judge=_judge_blocks,
        whose="workbench",
    ),
    Claim(
        key="movement",
        statement="At 90 per cent, movement pruning is better than magnitude pruning after as many steps.",
        where="Sanh et al. 2020, on other models",
        paper_value="better at high sparsity (BERT, fine-tuned on tasks)",
        tag="from memory",
        experiment="tradeoffs_recovered",
        judge=_judge_movement,
        whose="workbench",
    ),
)
