"""SEA: every claim can fail, and what the rows of its experiments promise."""

import pytest
import torch

from workbench.papers.sea.claims import CLAIMS
from workbench.papers.sea.distillation import SIZES
from workbench.papers.sea.masks import local_attention, local_mask, masked_attention, top_attention

pytestmark = pytest.mark.filterwarnings("error")
JUDGES = {claim.key: claim.judge for claim in CLAIMS}
WINDOW = "local window, first and last token"
TURNED = "SEA, k turned after training"
FUSED = "dense, torch's fused kernel"
NOISE = (-0.01, 0.0, 0.01)  # by seed or head: a standard error of .00577, twice that .01155


def rows(quantity, values, **labels):
    """Rows by method; a tuple of values is one a seed."""
    return [
        {"quantity": quantity, "value": x, "method": name, "seed": seed, **labels}
        for name, each in values.items()
        for seed, x in enumerate(each if isinstance(each, tuple) else (each,))
    ]


def noisy(value):
    return tuple(value + x for x in NOISE)


def covered(sea, chance, window=0.4, heads=(0.0, 0.0), step=180):
    """Coverage by seed, and by head: what SEA adds to the window's in each head beyond its lead."""
    first = sea[0] if isinstance(sea, tuple) else sea
    return [
        *rows("coverage", {"SEA": sea}, step=step),
        *rows("coverage", {"random cells": chance, WINDOW: window, "oracle keys": 0.7}),
        *(
            row
            for head, extra in enumerate(heads)
            for row in rows("coverage of one head", {"SEA": first + extra, WINDOW: window}, head=head)
        ),
    ]


def errors(sea, performer, step=180):
    return rows("context error", {"SEA": sea, "Performer": performer}, step=step) + rows(
        "context error", {"SEA": 2.0, "Performer": 1.1}, step=0
    )


def losses(**ends):
    found = []
    for name, (before, after) in ends.items():
        for step, value in ((0, before), (150, after)):
            found += rows(f"loss: {name}", {"SEA": value}, step=step)
    return found + rows("loss: scores KL", {"SEA": 0.0}, step=0) + rows("loss: scores KL", {"SEA": 0.0}, step=150)


def turned(coverage, error):
    found = []
    for k, c, e in zip((6, 12, 24), coverage, error, strict=True):
        found += rows("coverage", {TURNED: c}, keys=k) + rows("context error", {TURNED: e}, keys=k)
    return found


def differences(flat, matrix):
    return rows("difference, flat_csr against dense", {"SEA": flat}) + rows(
        "difference, A V against the context", {"SEA": matrix}
    )


def cosines(sea, performer, window):
    return rows("embedding cosine", {"SEA": sea, "Performer": performer, WINDOW: window})


def bits(sea, performer):
    values = {"teacher": 1.4, "SEA": sea, "Performer": performer, "local window and first token": 1.5}
    return rows("perplexity per token, all layers replaced", values)


def grouped(trained, oracle):
    return [
        {"quantity": "coverage by group", "value": value, "estimate": name, "group": group}
        for name, values in (("trained", trained), ("oracle", oracle))
        for group, value in zip(("query", "causal_batch", "batch"), values, strict=True)
    ]


def grown(sea, dense, ms=(40, 90, 60), longest=4096):
    names = ("SEA, flat_csr", "dense, matrix written out", FUSED)
    return rows("growth exponent of the time", dict(zip(names, (sea, dense, dense), strict=True))) + rows(
        "time", dict(zip(names, ms, strict=True)), tokens=longest
    )


CASES = [
    ("exact", differences(1e-7, 2e-7), "reproduced"),
    ("exact", differences(1e-7, 2e-3), "not reproduced"),
    ("coverage", covered(0.54, 0.09), "reproduced"),
    ("coverage", covered(noisy(0.54), 0.09, window=0.5, heads=NOISE), "reproduced"),
    ("coverage", covered(noisy(0.51), 0.09, window=0.5), "partly"),  # over seeds +0.010 ± 0.006
    ("coverage", covered(0.54, 0.09, window=0.5, heads=(-0.1, 0.0, 0.1)), "partly"),  # over heads +0.04 ± 0.06
    ("coverage", covered(0.54, 0.09, window=0.55), "partly"),
    ("coverage", covered(0.40, 0.09), "partly"),
    ("coverage", covered(0.50, 0.15), "partly"),
    ("coverage", covered(0.08, 0.09), "not reproduced"),
    ("coverage", covered(noisy(0.1), 0.09), "not reproduced"),  # +0.010 ± 0.006
    ("error", errors(0.6, 0.94), "reproduced"),
    ("error", errors(0.85, 0.94), "partly"),
    ("error", errors(0.95, 0.94), "not reproduced"),
    ("error", errors(noisy(0.6), (0.94, 0.95, 0.96)), "reproduced"),
    ("error", errors((0.4, 0.6, 0.8), (0.95, 0.8, 0.8)), "not reproduced"),  # +0.25 ± 0.16
    ("losses", losses(KL=(2.0, 1.0), MSE=(0.2, 0.1)), "reproduced"),
    ("losses", losses(KL=(2.0, 1.0), MSE=(0.2, 0.3)), "partly"),
    ("losses", losses(KL=(2.0, 2.5), MSE=(0.2, 0.3)), "not reproduced"),
    ("dynamic-k", turned((0.4, 0.5, 0.6), (0.8, 0.7, 0.6)), "reproduced"),
    ("dynamic-k", turned((0.4, 0.5, 0.6), (0.8, 0.9, 0.6)), "partly"),
    ("dynamic-k", turned((0.4, 0.3, 0.6), (0.8, 0.7, 0.6)), "not reproduced"),
    ("dynamic-k", turned(((0.4, 0.4), (0.5, 0.4), (0.6, 0.6)), (0.8, 0.7, 0.6)), "not reproduced"),  # +0.05 ± 0.05
    ("encoder", cosines(0.99, 0.9, 0.98), "reproduced"),
    ("encoder", cosines(0.97, 0.9, 0.98), "partly"),
    ("encoder", cosines(0.89, 0.9, 0.88), "not reproduced"),
    ("encoder", cosines(noisy(0.98), 0.9, 0.97), "partly"),  # over the window +0.010 ± 0.006
    ("encoder", cosines((0.95, 0.95), (0.95, 0.9), 0.9), "not reproduced"),  # over the Performer +0.025 ± 0.025
    ("groups", grouped((0.5, 0.52, 0.51), (0.6, 0.62, 0.7)), "reproduced"),
    ("groups", grouped((0.5, 0.49, 0.48), (0.6, 0.62, 0.7)), "partly"),
    ("groups", grouped((0.5, 0.49, 0.48), (0.6, 0.5, 0.5)), "not reproduced"),
    ("language", bits(1.43, 1.7), "reproduced"),
    ("language", bits(1.52, 1.7), "partly"),
    ("language", bits(1.43, 1.45), "partly"),
    ("language", bits(1.8, 1.7), "not reproduced"),
    ("language", bits(noisy(1.43), noisy(1.45)), "partly"),
    ("language", bits((1.45, 1.41), (1.45, 1.61)), "not reproduced"),  # +0.1 ± 0.1
    ("linear", grown(1.0, 2.0), "reproduced"),
    ("linear", grown(1.5, 1.9), "partly"),
    ("linear", grown(1.9, 2.0), "not reproduced"),
    ("cheaper", grown(1.0, 2.0), "reproduced"),
    ("cheaper", grown(1.0, 2.0, ms=(80, 90, 60)), "partly"),
    ("cheaper", grown(1.0, 2.0, ms=(99, 90, 60)), "not reproduced"),
]

# Both sides equal on paper: the word is the one that the judge's docstring says.
TIES = [
    ("exact", differences(1e-5, 1e-7), "reproduced"),
    ("coverage", covered(0.48, 0.12), "reproduced"),
    ("coverage", covered(0.45, 0.09), "reproduced"),
    ("coverage", covered(0.5, 0.09, window=0.5), "partly"),
    ("coverage", covered(0.52, 0.09, window=0.5, heads=(-0.02, 0.0, 0.0, 0.02)), "reproduced"),
    ("coverage", covered((0.49, 0.52), 0.09, window=0.475), "partly"),  # over seeds +0.030 ± 0.015
    ("coverage", covered(0.09, 0.09), "not reproduced"),
    ("error", errors(0.79, 0.94), "reproduced"),
    ("error", errors(0.94, 0.94), "not reproduced"),
    ("losses", losses(KL=(2.0, 1.0), MSE=(0.2, 0.2)), "partly"),
    ("losses", losses(KL=(2.0, 2.0), MSE=(0.2, 0.2)), "not reproduced"),
    ("dynamic-k", turned((0.4, 0.4, 0.6), (0.8, 0.7, 0.6)), "not reproduced"),
    ("dynamic-k", turned((0.4, 0.5, 0.6), (0.8, 0.7, 0.7)), "partly"),
    ("encoder", cosines(0.98, 0.9, 0.98), "partly"),
    ("encoder", cosines(0.9, 0.9, 0.88), "not reproduced"),
    ("groups", grouped((0.5, 0.5, 0.48), (0.6, 0.62, 0.7)), "partly"),
    ("groups", grouped((0.5, 0.5, 0.5), (0.6, 0.6, 0.5)), "not reproduced"),
    ("language", bits(1.47, 1.7), "reproduced"),
    ("language", bits(1.43, 1.49), "reproduced"),
    ("language", bits(1.4, 1.4), "not reproduced"),
    ("language", bits(1.5, 1.5), "not reproduced"),
    ("linear", grown(1.2, 2.0), "reproduced"),
    ("linear", grown(1.1, 1.5), "reproduced"),
    ("linear", grown(1.7, 1.9), "not reproduced"),
    ("cheaper", grown(1.0, 2.0, ms=(60.0, 90.0, 60.0)), "partly"),
    ("cheaper", grown(1.0, 2.0, ms=(90.0, 90.0, 60.0)), "not reproduced"),
]


@pytest.mark.parametrize("key, found, verdict", CASES)
def test_claims_judge_both_ways(key, found, verdict):
    ours, got = JUDGES[key](found)
    assert got == verdict
    assert isinstance(ours, str) and ours.endswith(")")


@pytest.mark.parametrize("key, found, verdict", TIES)
def test_no_verdict_hangs_on_a_tie(words_at_a_tie, key, found, verdict):
    assert words_at_a_tie(JUDGES[key], found) == {verdict}


def test_every_claim_is_tried_both_ways():
    tried = {key: {verdict for k, _, verdict in CASES if k == key} for key in JUDGES}
    assert all({"reproduced", "not reproduced"} <= verdicts for verdicts in tried.values())
    assert set().union(*tried.values()) == {"reproduced", "partly", "not reproduced"}


def test_errors_stand_beside_the_numbers():
    assert "± 0.006 over seeds" in JUDGES["coverage"](covered(noisy(0.54), 0.09))[0]
    assert "one seed" in JUDGES["language"](bits(1.43, 1.7))[0]


def test_short_runs_decide_nothing():
    with pytest.raises(ValueError, match="60 steps only"):
        JUDGES["coverage"](covered(0.54, 0.09, step=60))
    with pytest.raises(ValueError, match="up to 64 tokens"):
        JUDGES["linear"](grown(1.0, 2.0, longest=64))
    with pytest.raises(LookupError, match="coverage"):
        JUDGES["coverage"](rows("context error", {"SEA": 0.5}, step=150))


def test_tiny_distillation_names_every_step_and_keeps_its_budget(tiny_run):
    found = tiny_run("sea", "distillation").rows
    steps = {row["step"] for row in found if row["quantity"] == "coverage" and row["method"] == "SEA"}
    assert steps == {0, 2}
    budgets = [row["value"] for row in found if row["quantity"] == "keys per query and head"]
    assert budgets == pytest.approx([4] * len(budgets), abs=0.2)
    assert JUDGES["exact"](found)[1] == "reproduced"


def test_the_performer_is_trained_and_tried_as_often_as_sea(tiny_run):
    found = [row for row in tiny_run("sea", "distillation").rows if row["quantity"] == "context error"]
    tried = {
        name: [row["step"] for row in found if row["method"] == name and "step" in row] for name in ("SEA", "Performer")
    }
    assert tried == {"SEA": [0, 2], "Performer": [0, 2]}
    before, after = (row["value"] for row in found if row["method"] == "Performer")
    assert before != after


def test_in_the_language_model_sea_and_the_performer_are_trained_from_the_same_seeds(tiny_run):
    found = tiny_run("sea", "causal").rows
    trained = {row["method"]: (row["seed"], row["steps per layer"]) for row in found if "seed" in row}
    assert trained == {"SEA": (3, 1), "Performer": (3, 1)}
    teacher = [row["value"] for row in found if row["method"] == "teacher"]
    assert teacher[0] == pytest.approx(teacher[1])


def test_the_full_size_trains_as_the_shipped_estimators_were():
    from workbench.models.attention import sea_training as shipped

    full = SIZES["full"]
    assert (full.tokens, full.width, full.keys) == (shipped.TOKENS, shipped.WIDTH, shipped.KEYS)
    assert (full.batches, full.windows) == (shipped.BATCHES, shipped.HELD_OUT_WINDOWS)
    assert full.checkpoints[-1] == shipped.STEPS[-1]


def test_local_masks_hold_the_same_number_of_keys():
    both = local_mask(20, 6)
    assert (both.sum(1) == 6).all() and both[:, 0].all() and both[:, -1].all() and both.diagonal().all()
    causal = local_mask(20, 6, causal=True)
    assert causal.sum(1).tolist() == [min(i + 1, 6) for i in range(20)] and not causal.triu(1).any()


def test_attention_over_masks_is_attention_where_the_mask_holds_everything(assert_close):
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 9, 4, generator=draw) for _ in range(3))
    dense, causal = (
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal) for is_causal in (False, True)
    )
    assert_close(masked_attention(torch.ones(9, 9, dtype=torch.bool))(q, k, v, 0), dense)
    assert_close(top_attention(9)(q, k, v, 0), dense)
    assert_close(top_attention(9, causal=True)(q, k, v, 0), causal)
    assert_close(local_attention(10)(q, k, v, 0), causal)
    assert_close(local_attention(1)(q, k, v, 0)[:, :, 1:], v[:, :, :1].expand(1, 2, 8, 4))  # the first token alone
