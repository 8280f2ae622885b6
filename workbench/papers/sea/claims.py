"""Claims of SEA, and how our experiments judge them."""

from itertools import pairwise
from statistics import fmean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, verdict
from workbench.paper import Claim, rows_with, values

_WINDOW = "local window, first and last token"


def _last_step(rows):
    """Steps of training; fewer than 100 decide nothing."""
    last = max(row["step"] for row in rows if "step" in row)
    if last < 100:
        raise ValueError(f"trained for {last} steps only")
    return last


def _judge_coverage(rows):
    """Reproduced if at least 4 times a random choice's and .45, and clearly above the local window's.

    Clearly above the window: by two standard errors over seeds, and by two over heads. Partly if clearly above random.
    """
    ours = values(rows, "coverage", method="SEA", step=_last_step(rows))
    chance, window, best = (fmean(values(rows, "coverage", method=m)) for m in ("random cells", _WINDOW, "oracle keys"))
    over_seeds = difference(ours, [window])
    heads = sorted({row["head"] for row in rows_with(rows, "coverage of one head", method=_WINDOW)})
    over_heads = difference(
        *([fmean(values(rows, "coverage of one head", method=m, head=h)) for h in heads] for m in ("SEA", _WINDOW))
    )
    far = at_least(fmean(ours), max(4 * chance, 0.45)) and clearly_above(over_seeds) and clearly_above(over_heads)
    return (
        f"attention covered with the same number of keys: SEA {fmean(ours):.3f}, random cells {chance:.3f}, local "
        f"window {window:.3f}, best possible {best:.3f}; SEA over the window {over_seeds.said(3)} over seeds, "
        f"{over_heads.said(3, once='one head')} over heads (± standard error; measured)"
    ), verdict(far, clearly_above(difference(ours, [chance])))


def _judge_error(rows):
    """Reproduced if clearly below the error of a Performer trained alike, and by .15; partly if clearly below."""
    last = _last_step(rows)
    ours, performer = (values(rows, "context error", method=name, step=last) for name in ("SEA", "Performer"))
    lead = difference(performer, ours)
    clear = clearly_above(lead)
    return (
        f"relative error of the output: SEA {lead.theirs:.2f}, Performer {lead.ours:.2f} after the same training, more "
        f"by {lead.said(3)} (± standard error over seeds; measured)"
    ), verdict(clear and at_most(lead.theirs, lead.ours - 0.15), clear)


def _judge_losses(rows):
    """Reproduced if training clearly lowers every loss that is not 0 before and after; partly if some."""
    last = _last_step(rows)
    names = sorted({row["quantity"] for row in rows if row["quantity"].startswith("loss")})
    falls = {name[6:]: difference(*(values(rows, name, step=step) for step in (0, last))) for name in names}
    moving = {name: fall for name, fall in falls.items() if above(max(fall.ours, fall.theirs), 0)}
    lower = [clearly_above(fall) for fall in moving.values()]
    shown = ", ".join(
        f"{name} {fall.ours:.3g} to {fall.theirs:.3g} (" + (f"± {fall.error:.1g})" if fall.error else "one seed)")
        for name, fall in moving.items()
    )
    return (
        f"{shown} (± standard error of the fall over seeds; measured on held-out text; the losses of the scores are 0, "
        "as both use the same q and k)"
    ), verdict(all(lower), any(lower))


def _judge_turned(rows):
    """Reproduced if with every larger k the coverage clearly rises and the error falls; partly if the coverage does."""
    method = "SEA, k turned after training"
    keys = sorted({row["keys"] for row in rows if row.get("method") == method})
    covered = [values(rows, "coverage", method=method, keys=k) for k in keys]
    errors = [values(rows, "context error", method=method, keys=k) for k in keys]
    gains = [difference(after, before) for before, after in pairwise(covered)]
    falls = [difference(before, after) for before, after in pairwise(errors)]
    rises = all(map(clearly_above, gains))
    shown = ", ".join(f"k={k} {fmean(c):.2f}" for k, c in zip(keys, covered, strict=True))
    least = [min(steps, key=lambda step: step.mean).said(3) for steps in (gains, falls)]
    return (
        f"coverage: {shown}, the smallest step {least[0]}; relative error of the output {fmean(errors[0]):.2f} to "
        f"{fmean(errors[-1]):.2f}, the smallest fall {least[1]} (± standard error over seeds; measured)"
    ), verdict(rises and all(map(clearly_above, falls)), rises)


def _judge_exact(rows):
    """Reproduced if no difference is above 1e-5."""
    gaps = values(rows, "difference, flat_csr against dense") + values(rows, "difference, A V against the context")
    return f"largest relative difference {max(gaps):.1e} (measured)", verdict(at_most(max(gaps), 1e-5))


def _judge_embedding(rows):
    """Reproduced if clearly closer to the teacher than a Performer of the same training and the local window.

    Partly if clearly closer than the Performer.
    """
    ours, performer, window = (values(rows, "embedding cosine", method=m) for m in ("SEA", "Performer", _WINDOW))
    leads = difference(ours, performer), difference(ours, window)
    clear = [clearly_above(lead) for lead in leads]
    return (
        f"one layer replaced, cosine to the teacher's embedding: SEA {fmean(ours):.3f}, Performer "
        f"{fmean(performer):.3f} ({leads[0].said(4)}), local window {fmean(window):.3f} ({leads[1].said(4)}; lead ± "
        "standard error over seeds; measured)"
    ), verdict(all(clear), clear[0])


def _judge_language(rows):
    """Reproduced if SEA's perplexity is at most 5 % above the teacher's, and the Performer's three times as far above.

    Partly if SEA's is clearly below that of the Performer, which has had the same training.
    """
    quantity = "perplexity per token, all layers replaced"
    ours, performer, [teacher], [window] = (
        values(rows, quantity, method=m) for m in ("SEA", "Performer", "teacher", "local window and first token")
    )
    more, lead = difference(ours, [teacher]), difference(performer, ours)
    near = at_most(more.ours, 1.05 * teacher) and at_least(lead.ours, teacher + 3 * more.mean)
    return (
        f"{quantity}: teacher {teacher:.2f}, SEA {more.ours:.2f} ({more.said(2)} over the teacher, "
        f"{more.mean / teacher:+.1%}), Performer {lead.ours:.2f} after the same training ({lead.said(2)} over SEA), "
        f"local window and first token {window:.2f} (± standard error over seeds; measured)"
    ), verdict(near and clearly_above(lead), clearly_above(lead))


def _judge_groups(rows):
    """Reproduced if ranking over heads or over all covers more than per query for both estimates, partly if for one."""
    found = {
        estimate: [
            fmean(values(rows, "coverage by group", estimate=estimate, group=group))
            for group in ("query", "causal_batch", "batch")
        ]
        for estimate in ("trained", "oracle")
    }
    leads = {name: difference([max(b, c)], [a]) for name, (a, b, c) in found.items()}
    better = [clearly_above(lead) for lead in leads.values()]
    shown = "; ".join(
        f"{name} {a:.3f} / {b:.3f} / {c:.3f}, the better of two {leads[name].said(3)}"
        for name, (a, b, c) in found.items()
    )
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
        whose="workbench",
    ),
    Claim(
        key="coverage",
        statement="The estimate that is learnt from the teacher finds keys that hold much of the attention.",
        where="method; no number",
        paper_value="no number; our bound is a coverage of 0.45 and 4 times that of a random choice",
        tag="from memory",
        experiment="distillation",
        judge=_judge_coverage,
        whose="workbench",
    ),
    Claim(
        key="error",
        statement="The layer's output is closer to the teacher's than that of the linear attention it starts from.",
        where="tables of accuracy",
        paper_value="not reported; the Performer is clearly less accurate",
        tag="from memory",
        experiment="distillation",
        judge=_judge_error,
        whose="workbench",
    ),
    Claim(
        key="losses",
        statement="Training lowers every loss between the layer and its teacher.",
        where="method",
        paper_value="not reported",
        tag="from memory",
        experiment="distillation",
        judge=_judge_losses,
        whose="workbench",
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
        where="Table 1 (GLUE-MNLI), as public notes on the paper quote it",
        paper_value="the best of four groupings, accuracy .8055 at k = 7",
        tag="published",
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
        where="section 5, as public notes on the paper quote it",
        paper_value="32.7 % of the time at 8,192 tokens on a GPU; no number for a CPU",
        tag="published",
        experiment="timing",
        judge=_judge_cheaper,
    ),
)
