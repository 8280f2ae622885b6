"""Claims of SEA, and how our experiments judge them."""

from statistics import fmean

from workbench.judging import above, at_least, at_most, below, falling, rising, verdict
from workbench.paper import Claim, values


def _last_step(rows):
    """Steps of training; fewer than 100 decide nothing."""
    last = max(row["step"] for row in rows if "step" in row)
    if last < 100:
        raise ValueError(f"trained for {last} steps only")
    return last


def _judge_coverage(rows):
    """Reproduced if the coverage is at least 4 times a random choice's and .45; partly if above a random choice's."""
    ours = fmean(values(rows, "coverage", method="SEA", step=_last_step(rows)))
    chance = fmean(values(rows, "coverage", method="random cells"))
    window = fmean(values(rows, "coverage", method="local window, first and last token"))
    best = fmean(values(rows, "coverage", method="oracle keys"))
    return (
        f"attention covered with the same number of keys: SEA {ours:.3f}, random cells {chance:.3f}, "
        f"local window {window:.3f}, best possible {best:.3f} (measured)"
    ), verdict(at_least(ours, max(4 * chance, 0.45)), above(ours, chance))


def _judge_error(rows):
    """Reproduced if the error is at least .15 below the Performer's; partly if any lower."""
    ours = fmean(values(rows, "context error", method="SEA", step=_last_step(rows)))
    performer = fmean(values(rows, "context error", method="Performer"))
    shown = f"relative error of the output: SEA {ours:.2f}, Performer {performer:.2f} (measured)"
    return shown, verdict(at_most(ours, performer - 0.15), below(ours, performer))


def _judge_losses(rows):
    """Reproduced if training lowers every loss that is not 0 before and after; partly if some."""
    last = _last_step(rows)
    names = sorted({row["quantity"] for row in rows if row["quantity"].startswith("loss")})
    ends = {name: [fmean(values(rows, name, step=step)) for step in (0, last)] for name in names}
    moving = {name: pair for name, pair in ends.items() if above(max(pair), 0)}
    lower = [below(after, before) for before, after in moving.values()]
    word = verdict(all(lower), any(lower))
    shown = ", ".join(f"{name[6:]} {a:.3g} to {b:.3g}" for name, (a, b) in moving.items())
    return f"{shown} (measured on held-out text; the losses of the scores are 0, as both use the same q and k)", word


def _judge_turned(rows):
    """Reproduced if with every larger k the coverage rises and the error falls; partly if only the coverage rises."""
    method = "SEA, k turned after training"
    keys = sorted({row["keys"] for row in rows if row.get("method") == method})
    covered = [fmean(values(rows, "coverage", method=method, keys=k)) for k in keys]
    errors = [fmean(values(rows, "context error", method=method, keys=k)) for k in keys]
    word = verdict(rising(covered) and falling(errors), rising(covered))
    shown = ", ".join(f"k={k} {c:.2f}" for k, c in zip(keys, covered, strict=True))
    return f"coverage: {shown}; relative error of the output {errors[0]:.2f} to {errors[-1]:.2f} (measured)", word


def _judge_exact(rows):
    """Reproduced if no difference is above 1e-5."""
    gaps = values(rows, "difference, flat_csr against dense") + values(rows, "difference, A V against the context")
    return f"largest relative difference {max(gaps):.1e} (measured)", verdict(at_most(max(gaps), 1e-5))


def _judge_embedding(rows):
    """Reproduced if closer to the teacher than the Performer and the local window; partly if than the Performer."""
    ours, performer, window = (
        fmean(values(rows, "embedding cosine", method=name))
        for name in ("SEA", "Performer", "local window, first and last token")
    )
    return (
        f"one layer replaced, cosine to the teacher's embedding: SEA {ours:.3f}, Performer {performer:.3f}, "
        f"local window {window:.3f} (measured)"
    ), verdict(above(ours, max(performer, window)), above(ours, performer))


def _judge_language(rows):
    """Reproduced if SEA costs at most 5 % more than the teacher, and the Performer at least three times as much more.

    Partly if SEA costs less than the Performer.
    """
    bits = {
        name: fmean(values(rows, "bits per byte, all layers replaced", method=name))
        for name in ("teacher", "SEA", "Performer", "local window and first token")
    }
    teacher, ours, performer = bits["teacher"], bits["SEA"], bits["Performer"]
    near = at_most(ours, 1.05 * teacher) and at_least(performer, teacher + 3 * (ours - teacher))
    shown = ", ".join(f"{name} {b:.3f}" for name, b in bits.items())
    return f"bits per byte, all layers replaced: {shown} (measured)", verdict(near, below(ours, performer))


def _judge_groups(rows):
    """Reproduced if ranking over heads or over all covers more than per query for both estimates, partly if for one."""
    found = {
        estimate: [
            fmean(values(rows, "coverage by group", estimate=estimate, group=group))
            for group in ("query", "causal_batch", "batch")
        ]
        for estimate in ("trained", "oracle")
    }
    better = [above(max(together, all_), each) for each, together, all_ in found.values()]
    shown = "; ".join(f"{name} {a:.3f} / {b:.3f} / {c:.3f}" for name, (a, b, c) in found.items())
    return f"coverage, ranked per query / over heads / over all: {shown} (measured)", verdict(all(better), any(better))


_TIMED = ("SEA, flat_csr", "dense, matrix written out", "dense, torch's fused kernel")


def _timed_lengths(rows, method):
    lengths = sorted({row["tokens"] for row in rows if row["quantity"] == "time" and row["method"] == method})
    if not lengths or lengths[-1] < 2048:
        raise ValueError(f"{method} was timed up to {lengths[-1] if lengths else 0} tokens only")
    return lengths


def _judge_growth(rows):
    """Reproduced if the exponent is at most 1.2 and .4 below dense attention's; partly if more than .2 below."""
    _timed_lengths(rows, _TIMED[0])
    ours, written, fused = (values(rows, "growth exponent of the time", method=name)[0] for name in _TIMED)
    dense = min(written, fused)
    shown = (
        f"time: SEA T^{ours:.2f}, dense T^{written:.2f} (matrix written out), T^{fused:.2f} (fused kernel) (measured)"
    )
    return shown, verdict(at_most(ours, min(1.2, dense - 0.4)), below(ours, dense - 0.2))


def _judge_cheaper(rows):
    """Reproduced if faster than both dense forms at the longest sequence that each was timed at; partly if than one."""
    faster, shown = [], []
    for dense in _TIMED[1:]:
        longest = _timed_lengths(rows, dense)[-1]
        ours, theirs = (values(rows, "time", method=name, tokens=longest)[0] for name in (_TIMED[0], dense))
        faster.append(below(ours, theirs))
        shown.append(f"at {longest:,} tokens: SEA {ours:.0f} ms, {dense} {theirs:.0f} ms")
    return "; ".join(shown) + " (measured)", verdict(all(faster), any(faster))


CLAIMS = (
    Claim(
        key="exact",
        statement="The sparse form computes exactly the attention of the mask, and its matrix can be inspected.",
        where="method",
        paper_value="exact",
        tag="from memory",
        experiment="distillation",
        judge=_judge_exact,
    ),
    Claim(
        key="coverage",
        statement="The estimate that is learnt from the teacher finds keys that hold much of the attention.",
        where="method; no number",
        paper_value="no number; our bound is a coverage of 0.45 and 4 times that of a random choice",
        tag="from memory",
        experiment="distillation",
        judge=_judge_coverage,
    ),
    Claim(
        key="error",
        statement="The layer's output is closer to the teacher's than that of the linear attention it starts from.",
        where="tables of accuracy",
        paper_value="the Performer is clearly less accurate",
        tag="from memory",
        experiment="distillation",
        judge=_judge_error,
    ),
    Claim(
        key="losses",
        statement="Training lowers every loss between the layer and its teacher.",
        where="method",
        paper_value="every loss falls",
        tag="from memory",
        experiment="distillation",
        judge=_judge_losses,
    ),
    Claim(
        key="dynamic-k",
        statement="The number of keys can be changed after training, and more keys lower the error of the output.",
        where="experiments; MNLI in the authors' repository",
        paper_value="trained with k = 7 / 13 / 25: .818 / .835 / .843",
        tag="published",
        experiment="distillation",
        judge=_judge_turned,
    ),
    Claim(
        key="encoder",
        statement="BERT keeps its accuracy with SEA instead of attention, while other linear methods lose much.",
        where="MNLI accuracy, authors' repository",
        paper_value="SEA 84.6, CosFormer 82.7, Reformer 82.3, Performer 74.7",
        tag="published",
        experiment="distillation",
        judge=_judge_embedding,
    ),
    Claim(
        key="groups",
        statement="Ranking cells over all heads covers more attention than a fixed number for each head and query.",
        where="method",
        paper_value="better; no number",
        tag="from memory",
        experiment="ablations",
        judge=_judge_groups,
    ),
    Claim(
        key="language",
        statement="A causal language model keeps its perplexity with SEA, while the Performer doubles it.",
        where="OPT-125M on WikiText-2, k = 64, plot script in the authors' repository",
        paper_value="teacher 25.16, SEA 25.88, Performer 49.79",
        tag="published",
        experiment="causal",
        judge=_judge_language,
    ),
    Claim(
        key="linear",
        statement="Time grows linearly with the length of the sequence, at a fixed number of keys and width.",
        where="abstract",
        paper_value="linear",
        tag="published",
        experiment="timing",
        judge=_judge_growth,
    ),
    Claim(
        key="cheaper",
        statement="On long sequences SEA takes less time than dense attention.",
        where="experiments",
        paper_value="less; no number for a CPU",
        tag="from memory",
        experiment="timing",
        judge=_judge_cheaper,
    ),
)
