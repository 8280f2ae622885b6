"""FaViT: verdicts of every kind, rows that judges can read, and nets that differ in attention only."""

import pytest
import torch

from workbench.models.attention.favit import attention_products
from workbench.papers.favit import reach, recognition
from workbench.papers.favit.claims import CLAIMS, FASA, MODELS

JUDGES = {claim.key: claim.judge for claim in CLAIMS}
FULL = "full attention, fused kernel"


def models(quantity, values):
    return [{"quantity": quantity, "value": x, "model": m} for m, x in zip(MODELS, values, strict=True)]


def moving(fine, windows, keys=(49, 49), cost=(100, 100)):
    rows = [{"quantity": "pixels of the map", "value": 3136, "side": 56}]
    for name, pixels, count in zip(("FaSA, dilation 1", "windows"), (fine, windows), keys, strict=True):
        rows.append({"quantity": "pixels that move one output", "value": pixels, "attention": name})
        rows.append({"quantity": "keys per query", "value": count, "attention": name})
    for name, count in zip(("FaSA, all groups", "windows"), cost, strict=True):
        for side in (56, 112):  # only the map that is looked at counts
            labels = {"attention": name, "side": side}
            rows.append({"quantity": "multiply-adds of the products", "value": count * (side // 56) ** 9} | labels)
    return rows


def growing(groups, layer):
    counts = {
        ("of the products", "FaSA, window groups"): groups,
        ("of a layer", "FaSA, all groups"): layer,
        ("of a layer", "windows"): 4,
        ("of a layer", "full attention"): 16,
    }
    return [
        {"quantity": f"multiply-adds {quantity}", "value": ratio**i * 100, "attention": name, "side": 14 * 2**i}
        | {"stride": 8}
        for (quantity, name), ratio in counts.items()
        for i in range(3)
    ]


def accuracies(fasa, windows, shifted=None, steps=200):
    found = {FASA: fasa, "windows": windows, "windows, shifted": shifted or windows, "full attention": windows}
    return [
        {"quantity": "test accuracy", "value": value, "attention": name, "seed": seed, "corruption": "none"}
        | {"steps": steps}
        for name, values in found.items()
        for seed, value in enumerate(values)
    ]


def times(fasa, windows, full, side=112):
    values = {FASA: fasa, "windows": windows, FULL: full}
    return [{"quantity": "time of one layer", "value": x, "attention": n, "side": side} for n, x in values.items()]


CASES = [
    ("parameters", models("parameters", (3_428_000, 12_959_000, 24_920_000, 48_746_000)), "reproduced"),
    ("parameters", models("parameters", (3_500_000, 12_959_000, 24_920_000, 48_746_000)), "partly"),
    ("parameters", models("parameters", (4_500_000, 12_959_000, 24_920_000, 48_746_000)), "not reproduced"),
    ("operations", models("multiply-adds at 224 x 224", (0.63e9, 2.36e9, 4.46e9, 8.51e9)), "reproduced"),
    ("operations", models("multiply-adds at 224 x 224", (0.63e9, 2.34e9, 4.46e9, 8.7e9)), "partly"),
    ("operations", models("multiply-adds at 224 x 224", (0.63e9, 2.34e9, 4.46e9, 9.9e9)), "not reproduced"),
    ("reach", moving(3136, 49), "reproduced"),
    ("reach", moving(3136, 49, keys=(64, 49)), "partly"),
    ("reach", moving(700, 49), "partly"),
    ("reach", moving(3136, 49, cost=(101, 100)), "partly"),
    ("reach", moving(49, 49), "not reproduced"),
    ("linear", growing(4, 4), "reproduced"),
    ("linear", growing(4, 12), "partly"),
    ("linear", growing(5, 12), "not reproduced"),
    ("linear", growing(5, 4), "not reproduced"),
    ("accuracy", accuracies((0.98, 0.982), (0.96, 0.962)), "reproduced"),
    ("accuracy", accuracies((0.97, 0.98), (0.97, 0.98)), "partly"),
    ("accuracy", accuracies((0.98, 1.0, 0.96), (0.96, 0.96, 0.96)), "partly"),  # +0.020 ± 0.012 over seeds
    ("accuracy", accuracies((0.98, 0.982), (0.96, 0.962), shifted=(0.98, 0.982)), "partly"),
    ("accuracy", accuracies((0.96, 0.962), (0.95, 0.952), shifted=(0.99, 0.992)), "not reproduced"),
    ("accuracy", accuracies((0.94, 0.94), (0.95, 0.95)), "not reproduced"),
    ("accuracy", accuracies((0.95, 0.95), (0.98, 0.98)), "not reproduced"),
    ("accuracy", accuracies((0.97, 0.97), (0.93, 0.94)), "undecided"),
    ("accuracy", accuracies((0.97, 0.97), (0.96, 0.96), shifted=(0.93, 0.94)), "undecided"),
    ("time", times(1, 2, 3), "reproduced"),
    ("time", times(2, 1, 3), "partly"),
    ("time", times(3, 1, 2), "not reproduced"),
]

# Both sides equal on paper: the word is the one that the judge's docstring says.
TIES = [
    ("parameters", models("parameters", (3_428_510.0, 12_959_000, 24_920_000, 48_746_510.0)), "reproduced"),
    ("parameters", models("parameters", (3_770_800.0, 12_959_000, 24_920_000, 48_746_000)), "partly"),
    ("operations", models("multiply-adds at 224 x 224", (0.651e9, 2.4e9, 4.449e9, 8.5e9)), "reproduced"),
    ("linear", growing(4, 4.2), "reproduced"),
    ("accuracy", accuracies((0.96, 0.96), (0.98, 0.98)), "partly"),
    ("accuracy", accuracies((0.95, 0.95), (0.95, 0.95)), "partly"),
    ("accuracy", accuracies((0.97, 0.99), (0.95, 0.97)), "partly"),  # ahead by the standard errors' sum, no more
    ("time", times(2.0, 2.0, 3.0), "reproduced"),
    ("time", times(3.0, 1.0, 3.0), "not reproduced"),
]


@pytest.mark.parametrize("key, found, verdict", CASES)
def test_claims_judge_both_ways(key, found, verdict):
    ours, got, *because = JUDGES[key](found)
    assert got == verdict
    assert bool(because) == (got == "undecided")
    assert isinstance(ours, str) and ours.endswith(")")


@pytest.mark.parametrize("key, found, verdict", TIES)
def test_no_verdict_hangs_on_a_tie(words_at_a_tie, key, found, verdict):
    assert words_at_a_tie(JUDGES[key], found) == {verdict}


def test_every_claim_is_tried_both_ways():
    tried = {key: {verdict for k, _, verdict in CASES if k == key} for key in JUDGES}
    assert all({"reproduced", "not reproduced"} <= verdicts for verdicts in tried.values())
    assert set().union(*tried.values()) == {"reproduced", "partly", "not reproduced", "undecided"}


def test_short_runs_decide_nothing():
    with pytest.raises(ValueError, match="3 steps only"):
        JUDGES["accuracy"](accuracies((0.9,), (0.9,), steps=3))
    with pytest.raises(ValueError, match="28 x 28 only"):
        JUDGES["time"](times(1, 2, 3, side=28))
    with pytest.raises(LookupError, match="parameters"):
        JUDGES["parameters"]([])


def test_reach_is_counted_by_gradients(tiny_run):
    rows = tiny_run("favit", "reach").rows
    moving = {r["attention"]: r["value"] for r in rows if r["quantity"] == "pixels that move one output"}
    assert moving["windows"] == moving["windows, shifted"] == 49
    assert moving["FaSA, dilation 1"] == moving["FaSA, global"] == moving["full attention"] == 28 * 28
    # dilation 4 takes rows 0, 4 .. 24 of the first window and 25, 23 .. of the reflected second; the depthwise
    # convolution before the fusion adds their neighbours
    rows_taken = {*range(0, 25, 4), *(x if x < 28 else 54 - x for x in range(25, 50, 4))}
    near = {y for x in rows_taken for y in (x - 1, x, x + 1) if 0 <= y < 28}
    assert moving["FaSA, dilation 4"] == len(near) ** 2
    keys = {r["attention"]: r["value"] for r in rows if r["quantity"] == "keys per query"}
    assert keys["FaSA, all groups"] == 3 * 49 and keys["FaSA, global"] == 7 * 7
    assert JUDGES["reach"](rows)[1] == "reproduced" and JUDGES["linear"](rows)[1] == "partly"


@pytest.mark.parametrize("side, stride", [(28, 4), (56, 8)])
def test_counts_of_a_layer_follow_its_formula(side, stride):
    """Every projection, convolution and product by hand; torch's own count knows nothing of them."""
    n, c, keys = side * side, reach.DIM, 49
    c0, fine, coarse = 8, 28, 28
    attention = sum(attention_products(n, c, stride).values())
    assert reach.products(side, stride)["FaSA, all groups"] == attention
    cells = n // stride**2
    shared = cells * (c0 * c0 * stride**2 + 2 * c0 * c0 + 9 * c0)  # strided convolution, keys and values, depthwise
    local = 9 * n * (fine + coarse) + n * (fine + coarse) ** 2
    fused = sum(keys * (3 * x * x + 9 * x) for x in (fine, coarse))
    counted = reach.of_layer(side, stride)
    assert counted["FaSA, all groups"] == 2 * n * c * c + attention + shared + local + fused
    assert counted["windows"] == 4 * n * c * c + 2 * n * 49 * c
    assert counted["full attention"] == 4 * n * c * c + 2 * n * n * c


def test_nets_differ_in_attention_only():
    counts = {
        kind: sum(p.numel() for p in recognition.DigitNet(make()).parameters())
        for kind, make in recognition.KINDS.items()
    }
    assert counts[FASA] == counts["FaSA, window_mean"] and counts["windows"] == counts["full attention"]
    assert max(counts.values()) / min(counts.values()) < 1.01


def test_spoilt_digits_are_spoilt_and_equal_seeds_spoil_alike():
    images = recognition.digit_tensors()[2][:20]
    one, again = recognition.corruptions(images, 1), recognition.corruptions(images, 1)
    assert all(bool((one[name] == again[name]).all()) for name in one)
    assert one["none"] is images and all((x != images).any() for name, x in one.items() if name != "none")


def test_silent_convolutions_stay_silent(one_thread):
    net = recognition.train_digits(FASA, steps=1, seed=1, batch=4, convolutions=False)
    group = net.blocks[0].attention.local[0]
    assert not group.value_conv.weight.any() and not group.value_conv.bias.any()
    x = torch.randn(1, 28, 16, 16)
    torch.testing.assert_close(net.blocks[0].attention.local_depthwise(x)[:, :28], x)
