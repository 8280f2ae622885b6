"""What the two versions of PreCropping claim, what we add to it, and how our experiments judge it."""

from collections.abc import Iterable

import numpy as np

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, of_seeds, verdict
from workbench.paper import Claim, rows_with, values
from workbench.papers.precropping.cases import DENSITIES, RESIDUAL

SMALL = 0.015  # of accuracy: a difference that counts as none
CASES = tuple((name, density) for name, densities in DENSITIES.items() for density in densities)
LOW = (RESIDUAL, 0.03)
SCORED = ("SynFlow", "SNIP", "GraSP", "magnitude")
CROP, PLAIN = "PreCrop, tied", "uniform width"
EPOCH, INFERENCE = "time of an epoch", "time of an inference"


def _seen(rows, training, case) -> list[float]:
    """Return the accuracies of a way to prune in a case, over the seeds."""
    name, density = case
    return values(rows, "test accuracy", training=training, net=name, density=density)


def _leads(rows, ours, theirs, cases=CASES):
    return {case: difference(_seen(rows, ours, case), _seen(rows, theirs, case)) for case in cases}


def _said(rows, leads, words) -> str:
    shown = "; ".join(f"{lead.said(1, 100)} ({name} net, density {density})" for (name, density), lead in leads.items())
    seeds = of_seeds(_seen(rows, CROP, LOW))
    return f"{words}, points of accuracy: {shown} ({seeds}; measured)"


def _judge_shuffled(rows):
    """Reproduced if shuffling changes the mean accuracy by 1.5 points at most in every case; partly in some.

    Cases: the residual net at densities .1 and .03, the inverted net at .25.
    """
    leads = _leads(rows, "SynFlow, shuffled", "SynFlow")
    small = [at_most(abs(lead.mean), SMALL) for lead in leads.values()]
    return _said(rows, leads, "shuffled minus SynFlow"), verdict(all(small), any(small))


def _judge_redrawn(rows):
    """Reproduced if new weights under SynFlow's mask change the mean accuracy by 1.5 points at most; partly in some.

    Cases: the residual net at densities .1 and .03.
    """
    leads = _leads(rows, "SynFlow, weights drawn again", "SynFlow", CASES[:2])
    small = [at_most(abs(lead.mean), SMALL) for lead in leads.values()]
    return _said(rows, leads, "drawn again minus SynFlow"), verdict(all(small), any(small))


def _judge_densities(rows):
    """Reproduced if SynFlow and its shuffled masks both lead uniform density by a point or more, clearly.

    Partly if both lead in the mean. Case: the residual net at density .03.
    """
    leads = [_leads(rows, ours, "uniform density", (LOW,))[LOW] for ours in ("SynFlow", "SynFlow, shuffled")]
    full = all(at_least(lead.mean, 0.01) and clearly_above(lead) for lead in leads)
    shown = " and ".join(lead.said(1, 100) for lead in leads)
    seeds = of_seeds(_seen(rows, CROP, LOW))
    words = f"SynFlow and its shuffled masks minus uniform density, points of accuracy: {shown} at density {LOW[1]}"
    return f"{words} ({seeds}; measured)", verdict(full, all(above(lead.mean, 0) for lead in leads))


def _judge_cropped(rows):
    """Reproduced if cropping is at most a point of accuracy below SynFlow's weights in every case.

    Partly if at most 2.5 points below in every case.
    """
    leads = _leads(rows, CROP, "SynFlow")
    full = all(at_least(lead.mean, -0.01) for lead in leads.values())
    part = all(at_least(lead.mean, -0.025) for lead in leads.values())
    return _said(rows, leads, "cropped minus SynFlow"), verdict(full, part)


def _judge_best(rows):
    """Reproduced if cropping is clearly above the best of four pruners of weights in both cases; partly in one.

    Cases: the residual net at densities .1 and .03. The best is the one of the highest mean.
    """
    leads = {}
    for case in CASES[:2]:
        best = max((_seen(rows, way, case) for way in SCORED), key=np.mean)
        leads[case] = difference(_seen(rows, CROP, case), best)
    clear = [clearly_above(lead) for lead in leads.values()]
    words = f"cropped minus the best of {len(SCORED)} pruners"
    return _said(rows, leads, words), verdict(all(clear), any(clear))


def _judge_plain(rows):
    """Reproduced if cropping by SynFlow's densities is clearly above equal shares everywhere in every case.

    Partly if it is clearly above in one and in none below by more than its error.
    """
    leads = _leads(rows, CROP, PLAIN)
    clear = [clearly_above(lead) for lead in leads.values()]
    lost = [below(lead.ours, lead.theirs - 2 * (lead.error or 0.0)) for lead in leads.values()]
    return _said(rows, leads, "cropped minus uniform width"), verdict(all(clear), any(clear) and not any(lost))


def _judge_reconfigured(rows):
    """Reproduced if PreConfig with 80 % of the weights has at least the dense net's mean accuracy.

    Partly if it is at most a point below.
    """
    ours = _seen(rows, "PreConfig", (RESIDUAL, 0.8))
    lead = difference(ours, _seen(rows, "dense", (RESIDUAL, 1.0)))
    words = f"PreConfig at 80 % minus dense, points of accuracy: {lead.said(1, 100)} ({of_seeds(ours)}; measured)"
    return words, verdict(at_least(lead.mean, 0.0), at_least(lead.mean, -0.01))


def _factors(rows, foretold) -> list[float]:
    """Return by which factor, up or down, each layer keeps another number of weights than foretold of it."""
    layers = rows_with(rows, "weights kept of a layer")
    return [float(np.exp(abs(np.log(max(r["value"], 1) / max(foretold(r), 1))))) for r in layers]


def _judge_level(rows):
    """Reproduced if every layer keeps what the water level foretells, within a factor of two, in every seed.

    Partly if three quarters of the layers do, and the water level is nearer than equal densities are, in the geometric
    mean of the factors. A layer that kept nothing counts as one weight.
    """
    levels = {(r["layer"], r["seed"]): r["value"] for r in rows_with(rows, "weights below the water level")}
    found = _factors(rows, lambda r: levels[r["layer"], r["seed"]])
    equal = _factors(rows, lambda r: r["size"] * r["density"])
    near = [at_most(x, 2.0) for x in found]
    means = [float(np.exp(np.mean(np.log(x)))) for x in (found, equal)]
    kept = values(rows, "weights kept of a layer")
    seeds = len({seed for _, seed in levels})
    words = (
        f"{sum(near)} of {len(near)} layers keep what the water level foretells within a factor of two (worst "
        f"{max(found):.1f}, geometric mean {means[0]:.2f}; equal densities would be off by {means[1]:.2f}); layers "
        f"keep {min(kept):,} to {max(kept):,} weights ({seeds} seed{'s' * (seeds != 1)}; counted)"
    )
    return words, verdict(all(near), 4 * sum(near) >= 3 * len(near) and below(*means))


def _judge_collapse(rows):
    """Reproduced if one round leaves a layer without a weight for every seed, and 100 rounds leave none.

    Partly if one round leaves more empty layers than 100, in the mean.
    """
    once, often = (values(rows, "layers without a weight", rounds=rounds) for rounds in (1, 100))
    words = (
        f"empty layers: {np.mean(once):.1f} after 1 round, {np.mean(often):.1f} after 100 ({of_seeds(once)}; counted)"
    )
    return words, verdict(all(once) and not any(often), float(np.mean(once)) > float(np.mean(often)))


def _judge_budget(rows):
    """Reproduced if no net is above its budget and all use 95 % of it or more; partly if none is above it."""
    used = values(rows, "share of the budget used", cropping=CROP)
    within, full = all(at_most(x, 1.0) for x in used), all(at_least(x, 0.95) for x in used)
    return f"{min(used):.3f} to {max(used):.3f} of {len(used)} budgets (counted)", verdict(within and full, within)


def _ratios(rows, quantity, form, over) -> list[float]:
    pairs = zip(rows_with(rows, quantity, form=form), rows_with(rows, quantity, form=over), strict=True)
    return [a["value"] / b["value"] for a, b in pairs]


def _range(found: Iterable[float]) -> str:
    found = list(found)
    return f"{min(found):.2f} to {max(found):.2f}"


def _judge_training(rows):
    """Reproduced if an epoch of the cropped net takes at most .8 of that of masked training at every density.

    Partly if it takes less.
    """
    found = _ratios(rows, EPOCH, "cropped", "masked")
    shown = f"epoch of the cropped net over that of masked training: {_range(found)} (measured)"
    return shown, verdict(all(at_most(x, 0.8) for x in found), all(below(x, 1.0) for x in found))


def _judge_masked(rows):
    """Reproduced if masks save no time: an epoch and an inference with zeros take .9 or more of the dense ones.

    Partly if the training does.
    """
    epoch, inference = (_ratios(rows, quantity, "masked", "dense") for quantity in (EPOCH, INFERENCE))
    words = f"masked over dense: {_range(epoch)} in training, {_range(inference)} in inference (measured)"
    kept = [all(at_least(x, 0.9) for x in found) for found in (epoch, inference)]
    return words, verdict(all(kept), kept[0])


def _judge_inference(rows):
    """Reproduced if the cropped net infers in less time than the dense one at every density and batch.

    Partly at some.
    """
    found = _ratios(rows, INFERENCE, "cropped", "dense")
    faster = [below(x, 1.0) for x in found]
    return f"cropped over dense: {_range(found)} (measured)", verdict(all(faster), any(faster))


def _judge_sparse(rows):
    """Reproduced if sparse products of the masked net take longer than the cropped net in all cases; partly in some."""
    found = _ratios(rows, INFERENCE, "masked, by sparse products", "cropped")
    slower = [above(x, 1.0) for x in found]
    return f"sparse products over cropped: {_range(found)} (measured)", verdict(all(slower), any(slower))


def _claim(key, statement, where, paper_value, experiment, judge, *, ours=False, tag="published") -> Claim:
    whose = "workbench" if ours else "paper"
    return Claim(
        key=key, statement=statement, where=where, paper_value=paper_value, tag=tag, experiment=experiment, judge=judge,
        whose=whose,
    )  # fmt: skip


CLAIMS = (
    _claim(
        "shuffled",
        "Which weights of a layer are pruned before training does not matter: shuffled masks reach the same accuracy.",
        "abstract of version 1; Frankle et al. 2020",
        "no loss (VGG and ResNet, CIFAR-10)",
        "evidence",
        _judge_shuffled,
    ),
    _claim(
        "redrawn",
        "The mask does not hang on the weights that it was scored on: new initial weights reach the same accuracy.",
        "Frankle et al. 2020",
        "no loss (CIFAR-10)",
        "evidence",
        _judge_redrawn,
        tag="from memory",
    ),
    _claim(
        "densities",
        "What matters is how much of each layer stays: equal densities everywhere are worse.",
        "abstract of version 1",
        "layerwise compression ratios decide",
        "evidence",
        _judge_densities,
        tag="from memory",
    ),
    _claim(
        "cropped",
        "Cropped channels reach the accuracy of pruned weights with as many parameters.",
        "abstract of version 1",
        "similar accuracy (ResNet, MobileNet; CIFAR-10, ImageNet)",
        "evidence",
        _judge_cropped,
    ),
    _claim(
        "best",
        "Cropped channels are better than the best pruner of weights at initialisation.",
        "abstract of version 2",
        "up to +2.7 points (MobileNetV2, ImageNet)",
        "evidence",
        _judge_best,
    ),
    _claim(
        "reconfigured",
        "A net that is reconfigured to fewer parameters is at least as good as the original.",
        "abstract of version 2",
        "+0.3 points with 80 % of the parameters (EfficientNet-B0, ImageNet)",
        "evidence",
        _judge_reconfigured,
    ),
    _claim(
        "plain",
        "Widths from SynFlow's densities are better than the same share of channels in every layer.",
        "our nets",
        "no comparison known",
        "evidence",
        _judge_plain,
        ours=True,
        tag="from memory",
    ),
    _claim(
        "level",
        "SynFlow keeps as many weights of every layer, or all of a smaller one, as its expectation's closed form says.",
        "version 2, SynExp",
        "the expectation has this closed form",
        "structure",
        _judge_level,
        tag="from memory",
    ),
    _claim(
        "collapse",
        "SynFlow in one round empties layers, in a hundred it does not.",
        "Tanaka et al. 2020, Figure 1",
        "no collapse with 100 rounds",
        "structure",
        _judge_collapse,
        ours=True,
        tag="from memory",
    ),
    _claim(
        "budget",
        "Cropped widths stay within their budget and use it.",
        "our solver",
        "none",
        "structure",
        _judge_budget,
        ours=True,
        tag="from memory",
    ),
    _claim(
        "training",
        "The cropped net trains faster than the masked one.",
        "abstract of version 1",
        "training on ordinary hardware gets faster; no figure in the abstract",
        "speed",
        _judge_training,
    ),
    _claim(
        "masked",
        "Masks on single weights save no time on dense kernels.",
        "our measurement",
        "none",
        "speed",
        _judge_masked,
        ours=True,
        tag="from memory",
    ),
    _claim(
        "inference",
        "The cropped net infers faster than the dense one.",
        "abstract of version 1",
        "inference on ordinary hardware gets faster; no figure in the abstract",
        "speed",
        _judge_inference,
    ),
    _claim(
        "sparse",
        "Sparse products of the pruned weights are slower than the cropped net.",
        "our measurement",
        "unstructured sparsity rarely runs faster",
        "speed",
        _judge_sparse,
        ours=True,
        tag="from memory",
    ),
)
