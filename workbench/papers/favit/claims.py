"""Claims of FaViT, and how our experiments judge them."""

from statistics import fmean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, undecided, verdict
from workbench.paper import Claim, rows_with, values

MODELS = ("FaViT-B0", "FaViT-B1", "FaViT-B2", "FaViT-B3")
FASA, WINDOWS = "FaSA, released", ("windows", "windows, shifted")
LEARNED = 0.95


def _judge_sizes(quantity, scale, paper, digits, note):
    """Reproduced if every model rounds to the paper's figure; partly if all are within a tenth."""

    def judge(rows):
        ours = [values(rows, quantity, model=model)[0] / scale for model in MODELS]
        gaps = [abs(x - y) for x, y in zip(ours, paper, strict=True)]
        same = all(at_most(gap, 0.51 * 10**-digits) for gap in gaps)
        near = all(at_most(gap, 0.1 * y) for gap, y in zip(gaps, paper, strict=True))
        return " / ".join(f"{x:.3f}" for x in ours) + f" {note} (counted)", verdict(same, near)

    return judge


def _judge_reach(rows):
    """Reproduced if FaSA's fine group is moved by every pixel through as many keys as a window has, at windows' cost.

    The cost is that of the products of the whole layer, all groups together. Partly if more pixels move it than a
    window's. All of these are counts and compare exactly.
    """
    pixels = rows_with(rows, "pixels of the map")[0]
    everything, side = pixels["value"], pixels["side"]
    moving = {r["attention"]: r["value"] for r in rows if r["quantity"] == "pixels that move one output"}
    keys = {r["attention"]: r["value"] for r in rows if r["quantity"] == "keys per query"}
    cost = {
        name: values(rows, "multiply-adds of the products", attention=name, side=side)[0]
        for name in ("FaSA, all groups", "windows")
    }
    fine, window = moving["FaSA, dilation 1"], moving["windows"]
    same_cost = keys["FaSA, dilation 1"] == keys["windows"] and cost["FaSA, all groups"] <= cost["windows"]
    return (
        f"with {keys['FaSA, dilation 1']} keys per query, one output of FaSA's fine group depends on {fine:,} of "
        f"{everything:,} pixels; with windows, on {window:,}, shifted or not; multiply-adds of the products of all "
        f"groups {cost['FaSA, all groups'] / 1e6:.1f} M, of windows {cost['windows'] / 1e6:.1f} M (counted, by "
        "gradients through the layers)"
    ), verdict(fine == everything and same_cost, fine > window)


def _judge_linear(rows):
    """Reproduced if twice the side costs the window groups at most 4 times as much, and a whole layer 4.2 times.

    Partly if only the first holds. A layer has its projections and convolutions, the window groups their products.
    """

    def doublings(quantity, attention):
        counts = {r["side"]: r["value"] for r in rows_with(rows, quantity, attention=attention)}
        sides = sorted(counts)
        return [counts[2 * side] / counts[side] for side in sides[:-1]]

    groups = doublings("multiply-adds of the products", "FaSA, window groups")
    layer, windows, full = (
        doublings("multiply-adds of a layer", name) for name in ("FaSA, all groups", "windows", "full attention")
    )
    stride = rows_with(rows, "multiply-adds of a layer")[0]["stride"]
    linear = all(at_most(each, 4) for each in groups)
    whole = all(at_most(each, 4.2) for each in layer)
    said = " and ".join(f"{each:.1f}" for each in layer)
    return (
        f"multiply-adds when the side doubles: products of the window groups {groups[-1]:.2f} times as many; a whole "
        f"layer of FaSA {said} (stride {stride}), of windows {windows[-1]:.1f}, of full attention {full[-1]:.1f} "
        "(counted)"
    ), verdict(linear and whole, linear)


def _accuracies(rows, attention):
    return values(rows, "test accuracy", attention=attention, corruption="none")


def _judge_accuracy(rows):
    """Reproduced if FaSA is clearly ahead of windows, shifted or not; partly if it is at most .02 behind either.

    A lead is clear if it is more than twice its standard error over seeds and more than the errors of both sides
    together. Undecided if a net with windows has not learned: if it recognises fewer than .95.
    """
    steps = max(row.get("steps", 0) for row in rows)
    if steps < 100:
        raise ValueError(f"trained for {steps} steps only")
    ours = _accuracies(rows, FASA)
    leads = {name: difference(ours, _accuracies(rows, name)) for name in WINDOWS}
    found = ", ".join(f"{name} {lead.theirs:.3f} ({lead.said(3)})" for name, lead in leads.items())
    shown = (
        f"accuracy on digits, mean of {len(ours)} networks: FaSA {fmean(ours):.3f}; FaSA over {found}; full attention "
        f"{fmean(_accuracies(rows, 'full attention')):.3f} (± standard error over seeds; measured)"
    )
    for name, lead in leads.items():
        if below(lead.theirs, LEARNED):
            return undecided(shown, baseline=name, figure=f"{lead.theirs:.3f} of the digits, {LEARNED} wanted")
    near = all(at_least(lead.mean, -0.02) for lead in leads.values()) and at_least(fmean(ours), LEARNED)
    ahead = all(clearly_above(lead) and _beyond_both(lead, rows, name) for name, lead in leads.items())
    return shown, verdict(near and ahead, near)


def _beyond_both(lead, rows, name):
    """Tell whether FaSA leads by more than the standard errors of both sides together; .01 if there is one seed."""
    errors = [difference(_accuracies(rows, each), [0.0]).error for each in (FASA, name)]
    return above(lead.ours, lead.theirs + sum(0.005 if error is None else error for error in errors))


def _judge_time(rows):
    """Reproduced if FaSA takes no longer than windows; partly if less than full attention."""
    sides = sorted({row["side"] for row in rows if "side" in row})
    if sides[-1] < 112:
        raise ValueError(f"timed up to {sides[-1]} x {sides[-1]} only")
    names = (FASA, "windows", "full attention, fused kernel")
    ours, windows, full = (values(rows, "time of one layer", attention=n, side=sides[-1])[0] for n in names)
    return (
        f"one layer at {sides[-1]} x {sides[-1]}: FaSA {ours:.1f} ms, windows {windows:.1f} ms, "
        f"full attention {full:.1f} ms (measured)"
    ), verdict(at_most(ours, windows), below(ours, full))


CLAIMS = (
    Claim(
        key="parameters",
        statement="The four models have the stated numbers of parameters.",
        where="model table, authors' repository",
        paper_value="3.4 / 13 / 24 / 48 M; 3.428 / 12.959 / 24.920 / 48.746 in the released code",
        tag="published",
        experiment="architecture",
        judge=_judge_sizes("parameters", 1e6, (3.428, 12.959, 24.920, 48.746), 3, "M"),
    ),
    Claim(
        key="operations",
        statement="The four models need the stated numbers of multiply-adds for a picture of 224 x 224 pixels.",
        where="model table, authors' repository",
        paper_value="0.6 / 2.4 / 4.5 / 8.5 G",
        tag="published",
        experiment="architecture",
        judge=_judge_sizes("multiply-adds at 224 x 224", 1e9, (0.6, 2.4, 4.5, 8.5), 1, "G"),
    ),
    Claim(
        key="reach",
        statement="In one layer the fine group reaches the whole picture with as many keys as a window has.",
        where="method",
        paper_value="whole picture at local window cost",
        tag="published",
        experiment="reach",
        judge=_judge_reach,
    ),
    Claim(
        key="linear",
        statement="The cost of the attention is linear in the number of pixels.",
        where="abstract",
        paper_value="linear",
        tag="published",
        experiment="reach",
        judge=_judge_linear,
    ),
    Claim(
        key="accuracy",
        statement="At equal cost FaViT classifies better than window attention.",
        where="abstract, ImageNet-1k: B2 against Swin-T",
        paper_value="+1 % (82.3 against 81.3)",
        tag="published",
        experiment="recognition",
        judge=_judge_accuracy,
    ),
    Claim(
        key="time",
        statement="A layer of FaSA takes no longer than a layer of window attention.",
        where="title: local window cost",
        paper_value="local window cost",
        tag="published",
        experiment="timing",
        judge=_judge_time,
    ),
)
