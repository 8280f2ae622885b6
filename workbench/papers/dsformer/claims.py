"""Claims of DSFormer, and how our experiments judge them."""

from statistics import fmean

from workbench.judging import at_least, at_most, below, clearly_above, difference, of_seeds, verdict
from workbench.paper import Claim, rows_with, values

_ABSTRACT, _SUMMARY = "abstract", "summaries by others; the tables could not be read"
_ACCURACY, _BEFORE, _SEARCHED = "test accuracy", "test accuracy before training", "test accuracy before the polish"
_CHOOSING = "validation accuracy"
_CHURN = "share of places that change in a step"
_ERROR, _WINDOW = "relative error of a matrix's weights", "cosine of a window's vector before and after"
_TIME = "time of a product"
_DENSE, _SVD, _FROZEN, _STF = "dense", "SVD, trained", "frozen places", "straight through"
_LOW = "SVD"
_NEIGHBOURS = "share of the 10 nearest texts that stay"
_OURS = "dense-sparse blocks"
_LARGER, _SMALLER = 9, 16  # ratios of the digits; the smaller factors hold 43 % fewer values
_NEAR = 0.01  # of the accuracy: "within about one per cent"
_MODELS = {"small_encoder": "our small encoder", "minilm": "MiniLM"}


def _lead(rows, ours, theirs):
    """Return the lead in accuracy of one (way, ratio, quantity) before another, over seeds."""
    sides = [values(rows, quantity, way=way, ratio=ratio) for way, ratio, quantity in (ours, theirs)]
    return difference(*sides)


def _best(rows, ratio):
    """Return the better way to train dense-sparse factors, by its mean accuracy on digits held out of the training."""
    return max((_FROZEN, _STF), key=lambda way: fmean(values(rows, _CHOOSING, way=way, ratio=ratio)))


def _other(way):
    return _STF if way == _FROZEN else _FROZEN


def _judge_low_rank(rows):
    """Reproduced if dense-sparse factors recognise at least as much as SVD's of 1.75 times as many values.

    In the mean over seeds, both trained as long. Partly if they are clearly ahead of SVD's of as many values. They are
    trained in the one of two ways that is better on digits held out of the training.
    """
    way = _best(rows, _SMALLER)
    smaller = _lead(rows, (way, _SMALLER, _ACCURACY), (_SVD, _LARGER, _ACCURACY))
    equal = _lead(rows, (way, _SMALLER, _ACCURACY), (_SVD, _SMALLER, _ACCURACY))
    other = fmean(values(rows, _ACCURACY, way=_other(way), ratio=_SMALLER))
    shown = (
        f"{way}, {_SMALLER}x: {smaller.ours:.1%}, chosen on validation digits ({_other(way)}: {other:.1%}); SVD "
        f"{smaller.theirs:.1%} at {_LARGER}x and {equal.theirs:.1%} at {_SMALLER}x; points ahead at equal values "
        f"{equal.said(1, 100)} (± standard error over seeds; measured)"
    )
    return shown, verdict(at_least(smaller.mean, 0.0), clearly_above(equal))


def _judge_straight(rows):
    """Reproduced if factors trained straight through are clearly more accurate than those of frozen places.

    After the same number of steps, at every ratio. Partly if before the polish they are clearly more accurate than
    factors of the weights alone before any training, which is what "task-unaware" says.
    """
    ratios = sorted({r["ratio"] for r in rows_with(rows, _ACCURACY, way=_STF)})
    final = [_lead(rows, (_STF, x, _ACCURACY), (_FROZEN, x, _ACCURACY)) for x in ratios]
    factors = [_lead(rows, (_STF, x, _SEARCHED), (_FROZEN, x, _BEFORE)) for x in ratios]
    each = "; ".join(
        f"{x}x: {a.said(1, 100)} and {b.said(1, 100)}" for x, a, b in zip(ratios, final, factors, strict=True)
    )
    shown = f"points ahead of frozen places, at the end, and of untrained factors before the polish: {each} (measured)"
    return shown, verdict(all(map(clearly_above, final)), all(map(clearly_above, factors)))


def _judge_near(rows):
    """Reproduced if at 9x the accuracy is within one point of the dense net's for each seed; partly in the mean.

    Of the way that is better on digits held out of the training.
    """
    way = _best(rows, _LARGER)
    dense, ours = values(rows, _ACCURACY, way=_DENSE, ratio=_LARGER), values(rows, _ACCURACY, way=way, ratio=_LARGER)
    lost = [a - b for a, b in zip(dense, ours, strict=True)]
    shown = (
        f"digits, {_LARGER}x, {way} (chosen on validation digits): {fmean(ours):.1%} after {fmean(dense):.1%}, points "
        f"lost {100 * min(lost):.1f} to {100 * max(lost):.1f} ({of_seeds(ours)}; measured)"
    )
    return shown, verdict(at_most(max(lost), _NEAR), at_most(fmean(lost), _NEAR))


def _models(rows):
    return list(dict.fromkeys(r["model"] for r in rows_with(rows, _NEIGHBOURS)))


def _judge_encoder(rows):
    """Reproduced if every encoder of half the values keeps nine of ten nearest texts and SVD fails to in one.

    Partly if every encoder keeps as many, but so do all SVDs (then they are too easy to tell methods apart), or if one
    encoder keeps as many. The better of both ways. The paper's figure is of tasks; ours is how alike the sentence
    vectors stay.
    """
    enough, told, shown = [], [], []
    for model in _models(rows):
        ratio = min(r["ratio"] for r in rows_with(rows, _NEIGHBOURS, model=model))
        of = {"model": model, "ratio": ratio, "stage": "trained"}
        kept = {way: values(rows, _NEIGHBOURS, way=way, **of)[0] for way in (_LOW, _FROZEN, _STF)}
        steps = rows_with(rows, _NEIGHBOURS, **of)[0]["steps"]
        enough.append(at_least(max(kept[_FROZEN], kept[_STF]), 0.9))
        told.append(below(kept[_LOW], 0.9))
        each = ", ".join(f"{way} {share:.1%}" for way, share in kept.items())
        shown.append(f"{_MODELS.get(model, model)}, {ratio:g}x, {steps} steps: {each}")
    words = f"nearest texts that stay after a short distillation, {'; '.join(shown)} (one seed; measured)"
    return words, verdict(all(enough) and any(told), any(enough))


def _judge_encoder_lead(rows):
    """Reproduced if for every encoder and ratio dense-sparse factors keep a clearly larger cosine than SVD's.

    Both distilled. Partly for some. Clearly: by more than twice the standard error over windows.
    """
    words, shown = [], []
    for model, ratio in sorted({(r["model"], r["ratio"]) for r in rows_with(rows, _WINDOW)}):
        of = {"model": model, "ratio": ratio, "stage": "trained"}
        lead = difference(values(rows, _WINDOW, way=_FROZEN, **of), values(rows, _WINDOW, way=_LOW, **of))
        words.append(clearly_above(lead))
        each = f"{lead.ours:.3f} against {lead.theirs:.3f}, lead {lead.said(3, once='one window')}"
        shown.append(f"{_MODELS.get(model, model)}, {ratio:g}x: {each}")
    return f"{'; '.join(shown)} (± standard error over windows, one seed; measured)", verdict(all(words), any(words))


def _errors(rows, method, count, **more):
    return {(r["layer"], r["ratio"]): r["value"] for r in rows_with(rows, _ERROR, method=method, count=count, **more)}


def _widths(rows):
    return sorted({r["columns"] for r in rows_with(rows, _ERROR, method=_OURS)})


def _judge_matrices(rows):
    """Reproduced if blocks of 32 columns err at most 0.8 times as much as SVD on every matrix, at equal values.

    And one block of all columns less than SVD on every matrix. Partly if one of both holds.
    """
    svd, whole = (_errors(rows, _LOW, "values"), _errors(rows, _OURS, "values", columns=_widths(rows)[-1]))
    narrow = _errors(rows, _OURS, "values", columns=32)
    ratios, wide = [narrow[at] / x for at, x in svd.items()], [whole[at] / x for at, x in svd.items()]
    found = at_most(max(ratios), 0.8), below(max(wide), 1.0)
    shown = (
        f"error over SVD's: {min(ratios):.2f} to {max(ratios):.2f} with 32 columns a block, {min(wide):.2f} to "
        f"{max(wide):.2f} with one block ({len(svd)} matrices and ratios; measured)"
    )
    return shown, verdict(all(found), any(found))


def _judge_places(rows):
    """Reproduced if with places counted magnitude pruning with a bitmap errs less than the best blocks everywhere.

    Partly on more than half of the matrices and ratios.
    """
    pruned = _errors(rows, "magnitude", "bits")
    each = [_errors(rows, _OURS, "bits", columns=width) for width in _widths(rows)]
    ratios = [x / min(blocks[at] for blocks in each) for at, x in pruned.items()]
    less = [below(x, 1.0) for x in ratios]
    shown = (
        f"magnitude errs less in {sum(less)} of {len(less)}; {min(ratios):.2f} to {max(ratios):.2f} times as much as "
        "the best width of blocks (measured)"
    )
    return shown, verdict(all(less), 2 * sum(less) > len(less))


def _judge_churn(rows):
    """Reproduced if at every ratio the places change less in the last tenth of the search than half of the first.

    Partly at some ratio. Straight through, means over seeds.
    """
    words, shown = [], []
    for ratio in sorted({r["ratio"] for r in rows_with(rows, _CHURN, way=_STF)}):
        of = rows_with(rows, _CHURN, way=_STF, ratio=ratio)
        parts = [r["part"] for r in of]
        first, last = (fmean(values(rows, _CHURN, way=_STF, ratio=ratio, part=p)) for p in (min(parts), max(parts)))
        words.append(below(last, 0.5 * first))
        shown.append(f"{ratio}x: {first:.2%} of the places a step at first, {last:.2%} at last")
    return f"{'; '.join(shown)} (measured)", verdict(all(words), any(words))


def _judge_speed(rows):
    """Reproduced if with 32 or more tokens the blocks are faster than the dense product at every ratio and shape.

    Partly at more than half. On the machine of the record.
    """
    gains = []
    for r in rows_with(rows, _TIME, run=_OURS):
        same = {key: r[key] for key in ("outputs", "inputs", "ratio", "tokens")}
        gains.append((r["tokens"], values(rows, _TIME, run=_DENSE, **same)[0] / r["value"]))
    many, one = ([gain for tokens, gain in gains if (tokens >= 32) is large] for large in (True, False))
    faster = [below(1.0, gain) for gain in many]
    shown = (
        f"dense time over ours {min(many):.2f}x to {max(many):.2f}x with 32 tokens and more, {min(one):.2f}x to "
        f"{max(one):.2f}x with one (measured)"
    )
    return shown, verdict(all(faster), 2 * sum(faster) > len(faster))


CLAIMS = (
    Claim(
        key="low_rank",
        statement="Dense-sparse factors compress up to 40 per cent further than low-rank factorisations.",
        where=_ABSTRACT,
        paper_value="up to 40 % better compression, on tasks of natural language",
        tag="published",
        experiment="digits",
        judge=_judge_low_rank,
    ),
    Claim(
        key="straight_through",
        statement="Factorising inside the training, straight through, beats factors that know only the weights.",
        where=_ABSTRACT,
        paper_value="all factorisations are learnt jointly on the task; no figure could be read",
        tag="published",
        experiment="digits",
        judge=_judge_straight,
    ),
    Claim(
        key="near_dense",
        statement="Compressed by a factor of 2.8, accuracy stays within about one per cent of the dense model's.",
        where=_SUMMARY,
        paper_value="2.8x, within about 1 % of BERT-base; ours is a net for digits at 9x",
        tag="from memory",
        experiment="digits",
        judge=_judge_near,
    ),
    Claim(
        key="on_top",
        statement="Compressed encoders, distilled ones among them, can be made up to 50 per cent smaller still.",
        where=_ABSTRACT,
        paper_value="up to 50 % on top of distilled, layer-shared and quantised models",
        tag="published",
        experiment="encoder",
        judge=_judge_encoder,
    ),
    Claim(
        key="encoder_lead",
        statement="In encoders that are distilled for a few steps, dense-sparse factors keep more than SVDs do.",
        where="follows from the abstract; the setting is ours",
        paper_value="better than low rank at equally many values",
        tag="published",
        experiment="encoder",
        judge=_judge_encoder_lead,
        whose="workbench",
    ),
    Claim(
        key="matrices",
        statement="At equally many values, blocks of 32 columns err at most 0.8 times as much as a truncated SVD.",
        where="our own prototype, on the same encoder",
        paper_value="0.53 to 0.75 of SVD's error",
        tag="published",
        experiment="matrices",
        judge=_judge_matrices,
        whose="workbench",
    ),
    Claim(
        key="places",
        statement="Once the bits of the places are paid for, magnitude pruning with a bitmap errs less.",
        where="our own count of bits; the paper counts values, as far as we know",
        paper_value="not in the paper",
        tag="published",
        experiment="matrices",
        judge=_judge_places,
        whose="workbench",
    ),
    Claim(
        key="churn",
        statement="The places that the factorisation chooses settle as the training goes on.",
        where="our own question to the straight-through training",
        paper_value="not in the paper",
        tag="published",
        experiment="digits",
        judge=_judge_churn,
        whose="workbench",
    ),
    Claim(
        key="speed",
        statement="With 32 tokens or more, products with dense-sparse blocks take less time than dense ones.",
        where="our own kernels; as far as we know the paper gives no times",
        paper_value="not in the paper",
        tag="published",
        experiment="products",
        judge=_judge_speed,
        whose="workbench",
    ),
)
