"""Merged updates, their cosines, bounds, covariances, and the table of memory, against hand counts."""

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.adapter_merging import (
    RoutedMixture,
    gradient_covariance,
    memory_report,
    merge_adapters,
    orthogonality_bound,
    pairwise_cosine,
)
from workbench.models.fine_tuning.flylora import FlyLoRALinear, sparse_gaussian_projection


def projection(seed, n=384, r=32, p=96):
    return torch.from_numpy(sparse_gaussian_projection(r, n, p, seed).toarray())


def test_merging_is_a_weighted_sum():
    torch.manual_seed(0)
    tasks = [{"a": torch.randn(3, 4), "b": torch.randn(2, 2)} for _ in range(3)]
    assert torch.equal(merge_adapters(tasks[:1], [1.0])["a"], tasks[0]["a"])
    torch.testing.assert_close(merge_adapters(tasks)["b"], sum(t["b"] for t in tasks) / 3)
    one, other = merge_adapters(tasks, [0.5, 2, -1]), merge_adapters(tasks[::-1], [-1, 2, 0.5])
    torch.testing.assert_close(one["a"], other["a"])


@pytest.mark.parametrize(("tasks", "weights", "message"), [
    ([], None, "at least one adapter"), ([{"a": torch.ones(1)}, {"b": torch.ones(1)}], None, "adapter 1 does not fit"),
    ([{"a": torch.ones(2)}, {"a": torch.ones(3)}], None, "a differs"),
    ([{"a": torch.ones(1)}], [1, 2], "one for each of 1"),
    ([{"a": torch.ones(1)}], [float("nan")], "weights"),
])  # fmt: skip
def test_adapters_that_do_not_fit_are_refused(tasks, weights, message):
    with pytest.raises(ValueError, match=message):
        merge_adapters(tasks, weights)


def test_independent_projections_make_norms_add_and_shared_ones_do_not():
    torch.manual_seed(0)
    B = [torch.randn(384, 32, dtype=torch.float64) for _ in range(2)]
    far = [{"w": b @ projection(seed)} for seed, b in enumerate(B)]
    total = float(merge_adapters(far, [1, 1])["w"].square().sum())
    apart = sum(float(each["w"].square().sum()) for each in far)
    assert total == pytest.approx(apart, rel=0.02) and abs(float(pairwise_cosine(far)[0, 1])) < 0.02
    near = [{"w": (B[0] + 0.3 * b) @ projection(0)} for b in B]
    total = float(merge_adapters(near, [1, 1])["w"].square().sum())
    assert total > 1.3 * sum(float(each["w"].square().sum()) for each in near) and pairwise_cosine(near)[0, 1] > 0.8
    torch.testing.assert_close(pairwise_cosine(near).diagonal(), torch.ones(2, dtype=torch.float64))


def test_the_bound_is_its_formula_and_loose():
    assert orthogonality_bound(384, 32, 96, 0.2) == pytest.approx(96**2 / (384 * 32**2 * 0.04))
    assert orthogonality_bound(384, 32, 96, 0.15) == 1.0 and orthogonality_bound(384, 32, 96, 0.154) < 1
    norms = [float(torch.linalg.matrix_norm(projection(2 * i) @ projection(2 * i + 1).T, 2)) for i in range(200)]
    assert max(norms) < 0.2 * 32 and np.mean(norms) == pytest.approx(0.052, rel=0.1)
    entries = torch.stack([projection(i) @ projection(i + 500).T for i in range(20)])
    assert float(entries.var()) == pytest.approx(96**2 / (384 * 32**4), rel=0.1)
    with pytest.raises(ValueError, match="orthogonality_bound: p"):
        orthogonality_bound(8, 4, 9, 0.1)


def test_a_mixture_sums_what_each_task_adds():
    torch.manual_seed(0)
    base = nn.Linear(24, 10, dtype=torch.float64)
    layers = [FlyLoRALinear(base, r=8, k=3, seed=seed).eval() for seed in range(2)]
    for each in layers:
        each.B.data.normal_()
    x = torch.randn(6, 24, dtype=torch.float64)
    want = base(x) + 0.5 * sum(each(x) - base(x) for each in layers)
    torch.testing.assert_close(RoutedMixture(layers)(x), want)
    torch.testing.assert_close(RoutedMixture(layers[:1], [1.0])(x), layers[0](x))
    with pytest.raises(ValueError, match="the same base"):
        RoutedMixture([layers[0], FlyLoRALinear(nn.Linear(24, 10, dtype=torch.float64), r=8, k=3)])


def test_covariances_are_those_of_the_tokens_gradients():
    torch.manual_seed(0)
    layer = FlyLoRALinear(nn.Linear(24, 5, dtype=torch.float64), r=8, k=3).eval()
    x, g = torch.randn(30, 24, dtype=torch.float64), torch.randn(30, 5, dtype=torch.float64)
    per_token = []
    for row, gradient in zip(x, g, strict=True):
        per_token.append(torch.autograd.grad((layer(row[None]) * gradient).sum(), layer.B)[0])
    G = torch.stack(per_token)  # (T, m, r)
    G = G - G.mean(0)
    want = torch.einsum("tmi,tmj->ij", G, G) / 30
    torch.testing.assert_close(gradient_covariance(layer, [(x[:10], g[:10]), (x[10:], g[10:])]), want)
    for loader, message in (([], "at least one token"), ([(x, g[:3])], "gradients must be")):
        with pytest.raises(ValueError, match=message):
            gradient_covariance(layer, loader)


def test_random_choice_decouples_by_the_square_of_the_share():
    torch.manual_seed(0)
    base = nn.Linear(64, 5, dtype=torch.float64)
    dense, chosen = (FlyLoRALinear(base, r=32, k=k, rho=0.25, routing="random").eval() for k in (32, 8))
    x = torch.randn(20_000, 64, dtype=torch.float64) + 3 * torch.randn(20_000, 1, dtype=torch.float64)
    loader = [(x, torch.randn(20_000, 5, dtype=torch.float64))]
    beside = ~torch.eye(32, dtype=torch.bool)
    full, some = (gradient_covariance(each, loader)[beside] for each in (dense, chosen))
    share = float((full * some).sum() / full.square().sum())
    assert share == pytest.approx(8 * 7 / (32 * 31), rel=0.05)


def test_memory_is_the_table_of_the_paper():
    d, t, r, k, e = 64, 10, 32, 8, 4
    lora = memory_report("lora", m=d, n=d, tokens=t, r=r)
    assert (lora.parameters, lora.weights, lora.gradients, lora.optimizer, lora.activations) == (
        2 * d * r, 2 * (d * d + 2 * d * r), 4 * d * r, 24 * d * r, 2 * t * d + 2 * t * r)  # fmt: skip
    split = memory_report("split_lora", m=d, n=d, tokens=t, r=r, k=k, experts=e, view="activated")
    assert (split.parameters, split.weights, split.gradients, split.optimizer, split.activations) == (
        2 * d * k + d * e, 2 * (d * d + 2 * d * r + d * e), 4 * d * k + 2 * d * e, 24 * d * k + 12 * d * e,
        2 * t * (d + k + e))  # fmt: skip
    fly = memory_report("flylora", m=d, n=d, tokens=t, r=r, k=k, view="activated")
    assert (fly.parameters, fly.weights, fly.gradients, fly.optimizer, fly.activations) == (
        d * k, 2 * (d * d + 2 * d * r), 2 * d * k, 12 * d * k, 2 * t * k)  # fmt: skip
    held = memory_report("flylora", m=d, n=d, tokens=t, r=r, k=k, sparse_A=True)
    assert (held.parameters, held.gradients, held.optimizer) == (d * r, 2 * d * r, 12 * d * r)
    assert held.weights == 2 * (d * d + d * r) + 4 * r * 16 and held.activations == 3 * t * k
    assert held.total == held.weights + held.gradients + held.optimizer + held.activations
    with pytest.raises(ValueError, match="memory_report: k"):
        memory_report("flylora", m=d, n=d, tokens=t, r=r, k=33)


def test_parameters_of_a_published_model():
    shapes = [(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336)]

    def count(method, **how):
        return 32 * sum(memory_report(method, m=m, n=n, tokens=1, **how).parameters for m, n in shapes)

    assert count("flylora", r=32, k=8, view="activated") == 11_010_048
    assert count("flylora", r=32, k=8) == 44_040_192 and count("lora", r=8) == 20_971_520
