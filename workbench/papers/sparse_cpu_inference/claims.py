"""Claims of Shen et al. 2023, and how our experiments judge them."""

import math
from itertools import pairwise
from statistics import fmean, geometric_mean

from workbench.judging import (
    Difference,
    above,
    at_least,
    at_most,
    below,
    clearly_above,
    difference,
    of_seeds,
    rising,
    verdict,
)
from workbench.paper import Claim, rows_with, values
from workbench.papers.sparse_cpu_inference.trained_claims import COSINE, TRAINED

DENSE, AT_ONCE, AT_ONCE_TRAINED = "dense, trained on", "pruned at once", "pruned at once, trained on"
GRADUAL, LASSOED = "gradual, cubic", "gradual, cubic, group lasso"
SCHEDULES = ("exp", "cos", "linear", "cube", "cubic")
SPARSITIES = (0.8, 0.9)
OURS_INT8, OURS_FLOAT = "4 x 1 blocks, int8", "4 x 1 blocks, float32"
DENSE_INT8, DENSE_FLOAT = "dense, int8 (oneDNN)", "dense, float32 (torch)"
MKL, SCIPY_CSR = "CSR, float32 (oneMKL)", "CSR, float32 (SciPy)"
BLOCKS = ("1 x 1", "4 x 1", "16 x 1")
SPARSE_ENCODER = "block-sparse int8"
ENOUGH_BLOCKS = 8  # kept in a block row on average; with fewer many rows have none, and then no padding
_ABSTRACT = "abstract"
_CODE = "notes of the released code"
_NET = "our net on handwritten digits"


# Accuracy -----------------------------------------------------------------------------------------------------------
def _accuracies(rows, training, sparsity, quantity="test accuracy"):
    return values(rows, quantity, training=training, sparsity=sparsity)


def _lost(rows, training, sparsity, quantity="test accuracy"):
    """What the dense net recognises more, by seeds that both share."""
    return difference(_accuracies(rows, DENSE, 0.0), _accuracies(rows, training, sparsity, quantity))


def _judge_quantised(rows):
    """Reproduced if the loss and twice its error are below one point at 80 % in int8; partly if the loss is."""
    lost = _lost(rows, GRADUAL, 0.8, "test accuracy in int8")
    shown = f"digits: {lost.ours:.1%} dense, {lost.theirs:.1%} at 80 % in int8, {lost.said(1, 100)} points lost"
    return (
        f"{shown} (± standard error over seeds; measured)",
        verdict(below(lost.mean + 2 * (lost.error or 0.0), 0.01), below(lost.mean, 0.01)),
    )


def _judge_gradual(rows):
    """Reproduced if at 90 % gradual pruning loses 1.5 points at most and pruning at once 40 or more; partly if one."""
    gradual, at_once = (_lost(rows, training, 0.9) for training in (GRADUAL, AT_ONCE))
    found = at_most(gradual.mean, 0.015), at_least(at_once.mean, 0.4)
    shown = f"points lost at 90 %: gradually {gradual.said(1, 100)}, at once {at_once.said(1, 100)}"
    return f"{shown} (± standard error over seeds; measured)", verdict(all(found), any(found))


def _judge_retrained(rows):
    """Reproduced if gradual pruning is clearly better than pruning at once and training as long, at 80 and 90 %.

    Partly if at one of them.
    """
    leads = {s: difference(*(_accuracies(rows, x, s) for x in (GRADUAL, AT_ONCE_TRAINED))) for s in SPARSITIES}
    clear = [clearly_above(lead) for lead in leads.values()]
    shown = ", ".join(f"{lead.said(1, 100)} at {s:.0%}" for s, lead in leads.items())
    return f"lead in points {shown} (± standard error over seeds; measured)", verdict(all(clear), any(clear))


def _judge_lasso(rows):
    """Reproduced if without group lasso accuracy is not clearly higher at 80 and 90 %; partly if at one."""
    leads = {s: difference(*(_accuracies(rows, x, s) for x in (LASSOED, GRADUAL))) for s in SPARSITIES}
    held = [not clearly_above(Difference(lead.theirs, lead.ours, lead.error)) for lead in leads.values()]
    shown = ", ".join(f"{lead.said(1, 100)} at {s:.0%}" for s, lead in leads.items())
    return f"points gained {shown} (± standard error over seeds; measured)", verdict(all(held), any(held))


def _judge_schedules(rows):
    """Reproduced if the best and the worst schedule differ by one point at most at 80 and 90 %; partly if at one."""
    near, shown = [], []
    for s in SPARSITIES:
        means = {x: fmean(_accuracies(rows, f"gradual, {x}", s)) for x in SCHEDULES}
        best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        near.append(at_most(means[best] - means[worst], 0.01))
        shown.append(f"{s:.0%}: {means[best]:.1%} with {best}, {means[worst]:.1%} with {worst}")
    seeds = of_seeds(_accuracies(rows, GRADUAL, 0.8))
    return f"best and worst at {'; '.join(shown)} ({seeds}; measured)", verdict(all(near), any(near))


def _judge_int8(rows):
    """Reproduced if every sum is exact and int8 changes accuracy by half a point at most; partly if every sum is."""
    wrong = sum(values(rows, "sums that differ from exact ones"))
    before, after = (
        [x for training in (GRADUAL, LASSOED) for s in SPARSITIES for x in _accuracies(rows, training, s, quantity)]
        for quantity in ("test accuracy", "test accuracy in int8")
    )
    changes = [abs(x - y) for x, y in zip(after, before, strict=True)]
    shown = f"{wrong} sums differ; accuracy changes by {100 * max(changes):.1f} points at most in {len(changes)} nets"
    return f"{shown} (measured)", verdict(wrong == 0 and at_most(max(changes), 0.005), wrong == 0)


def _judge_patterns(rows):
    """Reproduced if at every sparsity the error clearly rises from 1 x 1 to 4 x 1 to 16 x 1, layer by layer.

    Partly if its mean over layers rises at some.
    """
    clear, rises, shown = [], [], []
    for s in _sparsities(rows):
        found = [values(rows, "output error of a layer", sparsity=s, block=block) for block in BLOCKS]
        clear += [clearly_above(difference(larger, smaller)) for smaller, larger in pairwise(found)]
        rises.append(rising(map(fmean, found)))
        shown.append(f"{' / '.join(f'{fmean(x):.2f}' for x in found)} at {s:.0%}")
    words = f"mean relative error with {' / '.join(BLOCKS)}: {'; '.join(shown)}"
    return f"{words} (clear if over twice the standard error over layers; measured)", verdict(all(clear), any(rises))


def _judge_vectors(rows):
    """Reproduced if at every sparsity the cosine clearly falls from 1 x 1 to 4 x 1 to 16 x 1; partly if at some.

    Clearly: by more than twice the standard error over windows.
    """
    held, shown = [], []
    for s in _sparsities(rows):
        means, errors = (
            [values(rows, quantity, sparsity=s, block=block)[0] for block in BLOCKS]
            for quantity in (COSINE, "standard error of the cosine over windows")
        )
        falls = [
            clearly_above(Difference(*means[i : i + 2], math.hypot(*errors[i : i + 2]))) for i in range(len(BLOCKS) - 1)
        ]
        held.append(all(falls))
        each = (f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True))
        shown.append(f"{' / '.join(each)} at {s:.0%}")
    words = f"cosine with {' / '.join(BLOCKS)}: {'; '.join(shown)}"
    return f"{words} (± standard error over windows; measured)", verdict(all(held), any(held))


def _sparsities(rows) -> list[float]:
    found = sorted({r["sparsity"] for r in rows_with(rows, COSINE)})
    if len(found) < 2:
        raise LookupError("needs two sparsities or more")
    return found


# Bytes --------------------------------------------------------------------------------------------------------------
def _judge_padding(rows):
    """Reproduced if padding is within .01 of 1.5 / (K d + 1.5) wherever a block row keeps 8 blocks or more.

    Partly if within .02.
    """
    gaps = []
    for found in rows_with(rows, "padding over stored blocks"):
        if at_least(found["inputs"] * found["density"], ENOUGH_BLOCKS):
            same = {key: found[key] for key in ("outputs", "inputs", "density")}
            gaps.append(abs(found["value"] - values(rows, "padding over stored blocks, expected", **same)[0]))
    worst = max(gaps)
    shown = f"at most {worst:.4f} apart on {len(gaps)} drawn weights that keep 8 blocks a row or more (counted)"
    return shown, verdict(at_most(worst, 0.01), at_most(worst, 0.02))


# Times --------------------------------------------------------------------------------------------------------------
def _speedups(rows, ours, theirs) -> dict[tuple, float]:
    """Return their time over ours by (outputs, inputs, sparsity)."""
    found = {}
    for r in rows_with(rows, "time of a product", method=ours):
        same = {key: r[key] for key in ("outputs", "inputs", "sparsity")}
        found[tuple(same.values())] = values(rows, "time of a product", method=theirs, **same)[0] / r["value"]
    return found


def _range(found, digits=1) -> str:
    return f"{min(found):.{digits}f}x to {max(found):.{digits}f}x"


def _judge_libraries(rows):
    """Reproduced if int8 is ten times faster than oneMKL in the mean, and than SciPy; partly if over one of them.

    The mean over layers and sparsities is the geometric one.
    """
    found = {name: list(_speedups(rows, OURS_INT8, theirs).values()) for name, theirs in _LIBRARIES.items()}
    means = {name: geometric_mean(ratios) for name, ratios in found.items()}
    large = [at_least(mean, 10) for mean in means.values()]
    shown = ", ".join(f"{means[name]:.1f}x over {name} ({_range(ratios)})" for name, ratios in found.items())
    return f"int8: {shown}; one thread (measured)", verdict(all(large), any(large))


def _judge_dense(rows):
    """Reproduced if int8 is five times faster than dense int8 on some layer; partly if three times."""
    found = _speedups(rows, OURS_INT8, DENSE_INT8)
    by_sparsity = {s: [x for key, x in found.items() if key[2] == s] for s in sorted({key[2] for key in found})}
    shown = ", ".join(f"{_range(ratios)} at {s:.0%}" for s, ratios in by_sparsity.items())
    best = max(found.values())
    return f"over oneDNN {shown}; one thread (measured)", verdict(at_least(best, 5), at_least(best, 3))


def _judge_threshold(rows):
    """Reproduced if int8 is faster than dense int8 on every layer at 70 %; partly if on some."""
    found = [x for (_, _, s), x in _speedups(rows, OURS_INT8, DENSE_INT8).items() if s == 0.7]
    if not found:
        raise LookupError("no product at 70 per cent")
    faster = [above(x, 1) for x in found]
    even = values(rows, "density at which times break even", method=OURS_INT8, sparsity=0.7)
    shown = f"faster on {sum(faster)} of {len(found)} layers at 70 % ({_range(found)})"
    return (
        f"{shown}; as fast as dense at a density of about {min(even):.2f} to {max(even):.2f} (measured)",
        verdict(all(faster), any(faster)),
    )


def _judge_float(rows):
    """Reproduced if float32 is 2, 3 and 5 times faster than dense at 70, 80, 90 % on every layer.

    Partly if it is faster on every layer at least.
    """
    found, enough, shown = _speedups(rows, OURS_FLOAT, DENSE_FLOAT), [], []
    for sparsity, least in ((0.7, 2), (0.8, 3), (0.9, 5)):
        ratios = [x for (_, _, s), x in found.items() if s == sparsity]
        enough.append(at_least(min(ratios), least))
        shown.append(f"{_range(ratios)} at {sparsity:.0%}")
    faster = all(above(x, 1) for x in found.values())
    return f"over torch {', '.join(shown)}; one thread (measured)", verdict(all(enough) and faster, faster)


def _judge_heights(rows):
    """Reproduced if 4 x 1 is twice as fast as 1 x 4 and 2 x 1 at most 3/4 as fast as 4 x 1; partly if one.

    In the mean over layers, the geometric one.
    """
    times = {block: values(rows, "time of an int8 product", block=block) for block in ("1 x 4", "2 x 1", "4 x 1")}
    over = {
        block: geometric_mean(x / y for x, y in zip(times[block], times["4 x 1"], strict=True))
        for block in ("1 x 4", "2 x 1")
    }
    found = at_least(over["1 x 4"], 2), at_most(1 / over["2 x 1"], 0.75)
    shown = f"4 x 1 is {over['1 x 4']:.1f}x as fast as 1 x 4, 2 x 1 is {1 / over['2 x 1']:.2f}x as fast as 4 x 1"
    return f"{shown}, 80 % gone (means over {len(times['4 x 1'])} layers; measured)", verdict(all(found), any(found))


def _judge_encoder(rows):
    """Reproduced if the sparse encoder is faster than every other in every case; partly if in most of them."""
    times = {}
    for r in rows_with(rows, "time of the encoder"):
        times.setdefault((r["sparsity"], r["batch"], r["tokens"]), {})[r["run"]] = r["value"]
    over = [{name: x / case[SPARSE_ENCODER] for name, x in case.items() if name != SPARSE_ENCODER}
            for case in times.values()]  # fmt: skip
    names = dict.fromkeys(name for case in over for name in case)
    if len(names) < 2:
        raise LookupError("needs two other encoders or more")
    won = [above(min(case.values()), 1) for case in over]
    shown = ", ".join(f"over {name} {_range([case[name] for case in over])}" for name in names)
    return (
        f"{shown}; the fastest in {sum(won)} of {len(won)} cases (measured)",
        verdict(all(won), sum(won) > len(won) / 2),
    )


_LIBRARIES = {"oneMKL": MKL, "SciPy": SCIPY_CSR}


CLAIMS = (
    Claim(
        key="libraries",
        statement="The sparse product is an order of magnitude faster than those of other sparse libraries.",
        where=_ABSTRACT,
        paper_value="an order of magnitude over oneMKL, TVM and LIBXSMM",
        tag="published",
        experiment="products",
        judge=_judge_libraries,
    ),
    Claim(
        key="dense",
        statement="The sparse int8 product is up to five times faster than a dense int8 product.",
        where=_ABSTRACT,
        paper_value="up to 5x over dense oneDNN, 70 to 90 % of the weights gone",
        tag="published",
        experiment="products",
        judge=_judge_dense,
    ),
    Claim(
        key="threshold",
        statement="From 70 per cent sparsity on, a layer is faster on the sparse kernel than on the dense one.",
        where=_CODE,
        paper_value="a layer is switched to the sparse kernel at 70 %",
        tag="published",
        experiment="products",
        judge=_judge_threshold,
    ),
    Claim(
        key="heights",
        statement="Four rows that share each row of the activations make the product fast.",
        where=_CODE,
        paper_value="4 x 1 at least 2x faster than 1 x 4 (estimate); two rows instead of four cost a third",
        tag="published",
        experiment="heights",
        judge=_judge_heights,
    ),
    Claim(
        key="quantised",
        statement="With 80 per cent of its blocks gone and in int8, a model loses less than one point of accuracy.",
        where="model card of the authors' DistilBERT",
        paper_value="less than 1 % (SQuAD)",
        tag="published",
        experiment="digits",
        judge=_judge_quantised,
    ),
    Claim(
        key="float",
        statement="In float32, 4 x 1 blocks are 2, 3 and 5 times faster than dense at 70, 80 and 90 per cent.",
        where="the authors' list of layers",
        paper_value="none for float32",
        tag="from memory",
        experiment="products",
        judge=_judge_float,
        whose="workbench",
    ),
    Claim(
        key="encoder",
        statement="A whole encoder with 70 to 90 per cent of its blocks gone is faster than on dense libraries.",
        where="abstract, on other models and machines",
        paper_value="37x over ONNX Runtime and 345x over PyTorch under limits of latency",
        tag="published",
        experiment="encoder_times",
        judge=_judge_encoder,
        whose="workbench",
    ),
    Claim(
        key="gradual",
        statement="Pruning while training keeps accuracy at 90 per cent, where pruning at once destroys it.",
        where=_NET,
        paper_value="pruning is gradual; no comparison",
        tag="from memory",
        experiment="digits",
        judge=_judge_gradual,
        whose="workbench",
    ),
    Claim(
        key="retrained",
        statement="Pruning gradually is better than pruning at once and training for as long.",
        where=_NET,
        paper_value="no comparison",
        tag="from memory",
        experiment="digits",
        judge=_judge_retrained,
        whose="workbench",
    ),
    Claim(
        key="lasso",
        statement="Group lasso during the pruning does not lower accuracy.",
        where=_NET,
        paper_value="offered by the released code; no comparison",
        tag="from memory",
        experiment="digits",
        judge=_judge_lasso,
        whose="workbench",
    ),
    Claim(
        key="schedules",
        statement="Which schedule sparsity follows makes a difference of at most one point.",
        where=_NET,
        paper_value="four schedules in the released code; no comparison",
        tag="from memory",
        experiment="digits",
        judge=_judge_schedules,
        whose="workbench",
    ),
    Claim(
        key="int8",
        statement="The int8 kernel is exact, and int8 changes accuracy by at most half a point.",
        where=_NET,
        paper_value="exact sums in int32",
        tag="from memory",
        experiment="digits",
        judge=_judge_int8,
        whose="workbench",
    ),
    Claim(
        key="patterns",
        statement="Without training, larger blocks change the outputs of a layer more.",
        where="our encoder",
        paper_value="larger blocks cost accuracy; no number",
        tag="from memory",
        experiment="patterns",
        judge=_judge_patterns,
        whose="workbench",
    ),
    Claim(
        key="vectors",
        statement="Without training, larger blocks turn sentence vectors further away.",
        where="our encoder",
        paper_value="larger blocks cost accuracy; no number",
        tag="from memory",
        experiment="patterns",
        judge=_judge_vectors,
        whose="workbench",
    ),
    Claim(
        key="padding",
        statement="Filling up the last group of each block row costs a share of 1.5 / (K d + 1.5) at density d.",
        where="our cost model",
        paper_value="no number",
        tag="from memory",
        experiment="storage",
        judge=_judge_padding,
        whose="workbench",
    ),
    *TRAINED,
)
