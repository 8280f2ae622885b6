"""Claims of FaViT, and how our experiments judge them."""

from statistics import fmean

from workbench.judging import above, at_least, at_most, below, clearly_above, difference, verdict
from workbench.paper import Claim, values

MODELS = ("FaViT-B0", "FaViT-B1", "FaViT-B2", "FaViT-B3")
FASA = "FaSA, released"


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
    """Reproduced if every pixel moves an output at a window's number of keys; partly if more move it than a window's.

    All of these are counts and compare exactly.
    """
    everything = values(rows, "pixels of the map")[0]
    moving = {r["attention"]: r["value"] for r in rows if r["quantity"] == "pixels that move one output"}
    keys = {r["attention"]: r["value"] for r in rows if r["quantity"] == "keys per query"}
    fine, window = moving["FaSA, dilation 1"], moving["windows"]
    same_cost = keys["FaSA, dilation 1"] == keys["windows"]
    return (
        f"with {keys['FaSA, dilation 1']} keys per query, one output depends on {fine:,} of {everything:,} pixels; "
        f"with windows, on {window:,} (counted, by gradients)"
    ), verdict(fine == everything and same_cost, fine > window)


def _judge_linear(rows):
    """Reproduced if twice the side costs the window groups exactly 4 times as much, and all groups at most 4.2 times.

    Partly if only the first holds. Operations are counts, so 4 times compares exactly.
    """

    def doublings(attention):
        counts = {
            r["side"]: r["value"]
            for r in rows
            if r["quantity"] == "multiply-adds of the products" and r["attention"] == attention
        }
        sides = sorted(counts)
        return [(counts[2 * side], counts[side]) for side in sides[:-1]]

    groups, layer, full = map(doublings, ("FaSA, window groups", "FaSA, all groups", "full attention"))
    linear = all(large == 4 * small for large, small in groups)
    whole = all(at_most(large / small, 4.2) for large, small in layer)
    last = [large / small for large, small in (groups[-1], layer[-1], full[-1])]
    return (
        f"multiply-adds when the side doubles: window groups {last[0]:.2f} times as many, all groups {last[1]:.1f} "
        f"(stride 2), full attention {last[2]:.0f} (counted)"
    ), verdict(linear and whole, linear)


def _accuracies(rows, attention):
    return values(rows, "test accuracy", attention=attention, corruption="none")


def _judge_accuracy(rows):
    """Reproduced if FaSA is ahead of windows by more than the standard errors' sum; partly if it is at most .02 behind.

    The lead must be clear as well, seed by seed. Both need nets that have learned: FaSA's and windows' accuracy at
    least .95.
    """
    steps = max(row.get("steps", 0) for row in rows)
    if steps < 100:
        raise ValueError(f"trained for {steps} steps only")
    ours, windows, full = (_accuracies(rows, name) for name in (FASA, "windows", "full attention"))
    gain = difference(ours, windows)
    noise = sum(difference(each, [0.0]).error for each in (ours, windows)) if len(ours) > 1 else 0.01
    near = at_least(gain.mean, -0.02) and at_least(min(gain.ours, gain.theirs), 0.95)
    ahead = clearly_above(gain) and above(gain.ours, gain.theirs + noise)
    return (
        f"accuracy on digits, mean of {len(ours)} networks: FaSA {gain.ours:.3f}, windows {gain.theirs:.3f}, full "
        f"attention {fmean(full):.3f}; FaSA over windows {gain.said(3)} (± standard error over seeds; sum of the "
        f"errors of both {noise:.3f}; measured)"
    ), verdict(near and ahead, near)


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
