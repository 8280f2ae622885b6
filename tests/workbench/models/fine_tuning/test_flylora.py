"""Projections, routing, balancing and gradients of FlyLoRA, each against its definition."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.flylora import ROUTINGS, FlyLoRALinear, LoRAFALinear, sparse_gaussian_projection
from workbench.models.fine_tuning.memory import training_memory


def layer_of(n=24, m=10, r=8, k=3, **how):
    torch.manual_seed(0)
    layer = FlyLoRALinear(nn.Linear(n, m, dtype=torch.float64), r=r, k=k, **how)
    layer.B.data.normal_()
    return layer.eval()


def tokens(count=20, n=24):
    return torch.randn(count, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_projections_have_p_entries_in_a_row_and_their_own_generator():
    before: tuple[Any, ...] = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    one = sparse_gaussian_projection(32, 384, 96, 3)
    same, other = (sparse_gaussian_projection(32, 384, 96, seed) for seed in (3, 4))
    after: tuple[Any, ...] = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    assert (before[0][1] == after[0][1]).all() and before[0][2] == after[0][2] and torch.equal(before[1], after[1])
    assert (np.diff(one.indptr) == 96).all() and np.count_nonzero(one.toarray()) == 32 * 96
    assert (one.toarray() == same.toarray()).all() and (one.toarray() != other.toarray()).any()


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "fjlt"])
def test_projections_keep_their_scale(kind):
    n = 384
    norms = [np.square(a if kind == "fjlt" else a.toarray()).sum(1).mean()
             for a in (sparse_gaussian_projection(32, n, 96, seed, kind=kind) for seed in range(40))]  # fmt: skip
    assert np.mean(norms) == pytest.approx(96 / 32**2, rel=0.05)
    if kind == "rademacher":
        a = sparse_gaussian_projection(4, 9, 5, 0, std=0.5, kind=kind)
        assert set(np.abs(a.data)) == {0.5} and len(set(a.data)) == 2


def test_an_fjlt_turns_a_sparse_matrix_and_keeps_its_gram_matrix():
    turned, plain = (sparse_gaussian_projection(3, 16, 2, 5, kind=kind) for kind in ("fjlt", "gaussian"))
    np.testing.assert_allclose(turned @ turned.T, (plain @ plain.T).toarray(), atol=1e-12)
    assert (np.count_nonzero(turned, axis=1) > 2).all()
    assert sparse_gaussian_projection(3, 11, 2, 5, kind="fjlt").shape == (3, 11)


def test_it_begins_at_the_base():
    base = nn.Linear(24, 10)
    layer, x = FlyLoRALinear(base, r=8, k=3), torch.randn(2, 5, 24)
    assert torch.equal(layer(x), base(x)) and layer.B.requires_grad
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["B"]


@pytest.mark.parametrize("routing", ["signed", "magnitude", "abs_biased"])
def test_forward_is_a_loop_over_tokens(routing):
    layer, x = layer_of(routing=routing, alpha=5.0), tokens()
    layer.d.copy_(torch.linspace(-0.3, 0.3, 8))
    rule = {"signed": lambda u: u + layer.d, "magnitude": lambda u: u.abs() + layer.d,
            "abs_biased": lambda u: (u + layer.d).abs()}[routing]  # fmt: skip
    rows = []
    for row in x:
        u, y = layer.A @ row, torch.zeros(8, dtype=torch.float64)
        for i in sorted(range(8), key=lambda i: -float(rule(u)[i]))[:3]:
            y[i] = u[i]
        rows.append(layer.base(row) + 5.0 / 8 * layer.B @ y)
    torch.testing.assert_close(layer(x), torch.stack(rows))
    torch.testing.assert_close(layer(x.view(4, 5, 24)).view(20, 10), layer(x))


def test_biases_choose_and_never_enter_values():
    layer, x = layer_of(), tokens()
    values, index = layer.route(x)
    assert all(len(set(row)) == 3 for row in index.tolist())
    before = layer(x)
    layer.d += 0.7
    torch.testing.assert_close(layer(x), before)
    layer.d.copy_(torch.tensor([9.0] * 3 + [0.0] * 5))
    values, index = layer.route(x)
    assert set(index.unique().tolist()) == {0, 1, 2}
    torch.testing.assert_close(values, (x @ layer.A.T).gather(1, index))


def test_with_all_ranks_it_is_lora_with_a_frozen_a():
    layer, x = layer_of(k=8), tokens()
    torch.testing.assert_close(layer(x), layer.base(x) + x @ layer.delta().T)
    torch.testing.assert_close(layer.merge()(x), layer(x))
    fa = LoRAFALinear(layer.base, r=8, seed=0)
    assert torch.equal(fa.A, layer.A) and fa.k == 8 and (fa.A != 0).all()
    fa.B.data.copy_(layer.B)
    torch.testing.assert_close(fa(x), layer(x))
    routed = layer_of(k=3)
    assert not torch.allclose(routed(x), routed.base(x) + x @ routed.delta().T)
    with pytest.raises(NotImplementedError, match="own 3 of 8 ranks"):
        routed.merge()


@pytest.mark.parametrize("exact", [True, False])
def test_gradients_are_those_of_the_masked_product(exact):
    layer, x = layer_of(propagate_input_grad=exact), tokens().requires_grad_()
    weight = torch.randn(20, 10, dtype=torch.float64)
    dx, dB = torch.autograd.grad((layer(x) * weight).sum(), [x, layer.B])
    u = x @ layer.A.T
    mask = torch.zeros_like(u).scatter(1, u.topk(3).indices, 1.0)
    plain = layer.base(x) + layer.scale * (u * mask) @ layer.B.T
    want_x, want_B = torch.autograd.grad((plain * weight).sum(), [x, layer.B])
    torch.testing.assert_close(dB, want_B)
    torch.testing.assert_close(dx, want_x if exact else weight @ layer.base.weight)
    if exact:
        assert torch.autograd.gradcheck(lambda B: _with(layer, B, x.detach()), layer.B.detach().requires_grad_())


def _with(layer, B, x):
    return torch.func.functional_call(layer, {"B": B}, (x,))


def test_balancing_counts_choices_and_moves_by_signs():
    layer, x = layer_of(bias_u=0.1).train(), tokens()
    layer(x)
    _, index = layer_of().route(x)
    assert layer.counts.tolist() == torch.bincount(index.view(-1), minlength=8).tolist() and layer.counts.sum() == 60
    torch.testing.assert_close(layer.d, 0.1 * torch.sign(60 / 8 - layer.counts.double()))
    torch.testing.assert_close(layer.expert_load().sum(), torch.tensor(1.0, dtype=torch.float64))
    before = layer.d.clone()
    layer.eval()(x)
    assert torch.equal(layer.d, before)
    even = layer_of(r=4, k=4).train()  # every rank is chosen by every token, as often as the mean
    even(x)
    assert not even.d.any()


def test_padding_is_not_counted():
    layer, x = layer_of().train(), tokens()
    x[:5] = 0
    layer(x)
    assert layer.counts.sum() == 15 * 3
    layer.keep = torch.arange(20) >= 8
    layer(x)
    assert layer.counts.sum() == 12 * 3
    with pytest.raises(ValueError, match="keep must have one entry for each of 10 tokens"):
        layer(x[:10])


@pytest.mark.parametrize("routing", ["signed", "magnitude"])
def test_loads_become_even(routing):
    layer = layer_of(n=64, r=16, k=4, routing=routing, bias_u=2e-3).train()
    draw = torch.Generator().manual_seed(3)
    shift = torch.randn(64, dtype=torch.float64, generator=draw)
    spread = []
    for _ in range(300):
        layer(torch.randn(256, 64, dtype=torch.float64, generator=draw) + shift)
        spread.append(float(layer.counts.double().std() / layer.counts.double().mean()))
    assert spread[0] > 0.3 and np.mean(spread[-10:]) < 0.5 * spread[0]


def test_random_routing_activates_pairs_as_often_as_counted():
    layer = layer_of(n=40, r=32, k=8, routing="random")
    torch.manual_seed(0)
    _, index = layer.route(torch.ones(8_000, 40, dtype=torch.float64))
    chosen = torch.zeros(8_000, 32, dtype=torch.float64).scatter_(1, index, 1.0)
    together = chosen.T @ chosen / 8_000
    pairs = together[~torch.eye(32, dtype=torch.bool)]
    assert float(pairs.mean()) == pytest.approx(8 * 7 / (32 * 31), rel=1e-9)
    assert float((pairs / (8 * 7 / (32 * 31)) - 1).abs().mean()) < 0.06
    assert ROUTINGS[0] == "signed"


def test_it_keeps_values_and_places_and_not_its_input():
    n, m, t, r, k = 24, 10, 20, 8, 3
    layer = FlyLoRALinear(nn.Linear(n, m, bias=False), r=r, k=k)
    x, optimizer = torch.randn(t, n), torch.optim.AdamW([layer.B], lr=1e-3)
    found = training_memory(layer, lambda: layer(x).sum(), optimizer)
    assert found.weights == 4 * (m * n + m * r + r * n + r) and found.indices == 8 * r
    assert found.gradients == 4 * m * r and found.optimizer == 8 * m * r
    assert found.saved == t * k * (4 + 1)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"k": 9}, "k"), ({"k": 0}, "k"), ({"rho": 0.01}, "rho n must be at least 1"), ({"rho": 1.5}, "rho"),
    ({"routing": "best"}, "routing"), ({"bias_u": -1.0}, "bias_u"), ({"kind": "dense"}, "kind"),
    ({"alpha": 0}, "alpha"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FlyLoRALinear(nn.Linear(24, 10), **({"r": 8, "k": 3} | arguments))


@pytest.mark.parametrize("p", [0, 25])
def test_rows_without_room_are_refused(p):
    with pytest.raises(ValueError, match="sparse_gaussian_projection: p"):
        sparse_gaussian_projection(8, 24, p, 0)


def test_a_float_layer_trains():
    layer, x = FlyLoRALinear(nn.Linear(24, 10), r=8, k=3).train(), torch.randn(2, 5, 24)
    F.mse_loss(layer(x), torch.zeros(2, 5, 10)).backward()
    assert layer.B.grad is not None and layer.B.grad.abs().sum() > 0
