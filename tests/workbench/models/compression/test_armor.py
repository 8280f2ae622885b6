"""ARMOR against hand-worked losses, brute force over supports, theory's bound on every step, and dense products."""

import itertools

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn

from workbench.models.compression.armor import (
    armor_factorize,
    group_losses,
    nowag_normalize,
    nowag_p,
    proxy_loss,
    sanitize_hessian_diag,
    trace,
)
from workbench.models.compression.armor_linear import ArmorLinear, armor, hessian_diag
from workbench.models.compression.armor_steps import (
    State,
    core_step,
    descend,
    gradients,
    left_product,
    loss_of,
    right_product,
)
from workbench.models.sparse_inference.statistics import InputStatistics, gather_statistics

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def problem(rng):
    """A normalised matrix of 8 x 16, importances, and a state with random wrappers of 4 x 4."""
    w, h = rng.standard_normal((8, 16)), rng.random(16) + 0.1
    start = nowag_p(w, h)
    state = State(
        a=torch.from_numpy(np.eye(4) + 0.3 * rng.standard_normal((2, 4, 4))),
        s=torch.from_numpy(start.weight.copy()),
        b=torch.from_numpy(np.eye(4) + 0.3 * rng.standard_normal((4, 4, 4))),
        mask=torch.from_numpy(start.mask.copy()),
    )
    return state, torch.from_numpy(nowag_normalize(w)[0]), torch.from_numpy(h)


def product(state, core):
    return linalg.block_diag(*state.a.numpy()) @ core @ linalg.block_diag(*state.b.numpy())


def test_columns_are_scaled_before_rows():
    w = np.array([[3.0, 0.0], [4.0, 2.0]])
    normal, r, c = nowag_normalize(w, eps=1e-12)
    np.testing.assert_allclose(c, [5, 2])  # lengths of the columns
    np.testing.assert_allclose(r, [0.6, np.hypot(0.8, 1)])
    np.testing.assert_allclose(normal * r[:, None] * c, w)


def test_nowag_keeps_the_best_pairs_of_a_row(rng):
    w, h = rng.standard_normal((1, 8)), rng.random(8) + 0.1
    normal = nowag_normalize(w)[0]
    losses = {}
    for first in itertools.combinations(range(4), 2):
        for second in itertools.combinations(range(4, 8), 2):
            kept = np.zeros(8, bool)
            kept[[*first, *second]] = True
            losses[tuple(kept)] = (h * np.where(kept, 0, normal[0]) ** 2).sum() / (h * normal[0] ** 2).sum()
    found = nowag_p(w, h)
    assert tuple(found.mask[0]) == min(losses, key=losses.get) and found.loss == pytest.approx(min(losses.values()))
    one = np.ones((1, 8, 8))
    assert proxy_loss(normal, np.ones((1, 1, 1)), found.weight, np.eye(8) * one, h) == pytest.approx(found.loss)


def test_unit_wrappers_leave_nothing_to_gain(rng):
    w, h = rng.standard_normal((16, 32)), rng.random(32) + 0.1
    found = armor_factorize(w, h, 8, iters=20, wrappers=False, lr=1e-2)
    assert found.history.min() == pytest.approx(found.history[0], rel=1e-6)
    assert found.history[0] == pytest.approx(nowag_p(w, h).loss)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 3)])
def test_a_core_step_is_the_best_of_all_supports(rng, n, m):
    w, h = rng.standard_normal((8, 12)), rng.random(12) + 0.1
    start, side = nowag_p(w, h, n, m), 12 if m == 3 else 4
    target, weights, root = torch.from_numpy(nowag_normalize(w)[0]), torch.from_numpy(h), np.sqrt(h)
    state = State(
        a=torch.from_numpy(rng.standard_normal((2, 4, 4))), s=torch.from_numpy(start.weight.copy()),
        b=torch.from_numpy(rng.standard_normal((12 // side, side, side))), mask=torch.from_numpy(start.mask.copy()),
    )  # fmt: skip
    before, mask = state.core().numpy().copy(), state.mask.numpy().copy()
    core_step(state, target, weights, n, m, select="greedy")
    after, right = state.core().numpy(), linalg.block_diag(*state.b.numpy())
    assert (state.mask.numpy().reshape(8, -1, m).sum(-1) == n).all()
    changed = {(row, column // m) for row, column in np.argwhere((after != before) | (state.mask.numpy() != mask))}
    assert len(changed) <= 2 * (12 // side)  # one group of every pair of blocks
    for row, group in changed:
        p, q = row // 4, group * m // side
        at, lines = slice(q * side, (q + 1) * side), slice(group * m, (group + 1) * m)
        zeroed = before.copy()
        zeroed[row, lines] = 0
        left = (target.numpy() - product(state, zeroed))[4 * p : 4 * p + 4, at] * root[at]
        best = None
        for support in itertools.combinations(range(m), n):
            basis = [np.outer(state.a[p, :, row % 4], right[group * m + i, at] * root[at]).ravel() for i in support]
            values, *_ = np.linalg.lstsq(np.stack(basis, 1), left.ravel(), rcond=None)
            loss = ((left.ravel() - np.stack(basis, 1) @ values) ** 2).sum()
            if best is None or loss < best[0]:
                best = (loss, support, values)
        assert tuple(np.flatnonzero(state.mask.numpy()[row, lines])) == best[1]
        np.testing.assert_allclose(after[row, lines][list(best[1])], best[2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("select", ["l1", "greedy", "uniform"])
def test_core_steps_never_raise_the_loss_and_keep_the_pattern(problem, select):
    state, target, weights = problem
    draw, losses = torch.Generator().manual_seed(0), []
    for _ in range(200):
        core_step(state, target, weights, 2, 4, select=select, draw=draw)
        losses.append(loss_of(state, target, weights))
        assert (state.mask.reshape(8, 4, 4).sum(-1) == 2).all()
    assert (np.diff(losses) <= 1e-9).all() and losses[-1] < losses[0]


@pytest.mark.parametrize("select", ["l1", "greedy", "uniform"])
def test_a_core_that_is_exact_stays_as_it_is(problem, select):
    """No entry has a gradient then, so that every group is as likely as any other."""
    state, _, weights = problem
    before = state.core().clone()
    target = right_product(left_product(state.a, state.core()), state.b)
    torch.testing.assert_close(target, torch.from_numpy(product(state, before.numpy())))
    core_step(state, target, weights, 2, 4, select=select, draw=torch.Generator().manual_seed(0))
    torch.testing.assert_close(state.core(), before, rtol=0, atol=1e-6)
    assert loss_of(state, target, weights) < 1e-12


def test_gradients_are_those_of_autograd(problem):
    state, target, weights = problem
    leaves = [tensor.clone().requires_grad_() for tensor in (state.a, state.s, state.b)]
    out = torch.block_diag(*leaves[0]) @ (leaves[1] * state.mask) @ torch.block_diag(*leaves[2])
    (weights * (out - target) ** 2).sum().backward()
    by_a, by_b, by_s = gradients(state, target, weights)
    for found, leaf in zip((by_a, by_s, by_b), leaves, strict=True):
        torch.testing.assert_close(found, leaf.grad)


def test_sequential_steps_lower_the_loss_by_what_theory_says(rng):
    w, h = rng.standard_normal((12, 16)), rng.random(16) + 0.1
    found = armor_factorize(w, h, 4, iters=200, optimizer="sequential_gd", patience=200)
    assert (np.diff(found.history) <= 1e-12).all() and found.loss < 0.7 * found.history[0]


def test_each_sequential_step_meets_its_bound(problem):
    state, target, weights = problem
    whole = [("a", 0), ("b", 1), ("s", 2)]
    for _ in range(5):
        for name, which in whole:
            before, gradient = loss_of(state, target, weights), gradients(state, target, weights)[which]
            smooth = descend(state, target, weights, only=name)
            promised = float((gradient.square() / (2 * smooth)).sum())
            assert loss_of(state, target, weights) <= before - promised + 1e-9


def test_losses_of_a_group_are_those_of_least_squares(rng):
    w, h = rng.standard_normal((8, 16)), rng.random(16) + 0.1
    factors, (normal, r, c) = armor_factorize(w, h, 4, iters=20), nowag_normalize(w)
    a, b = (linalg.block_diag(*x).astype(np.float64) for x in (factors.left, factors.right))
    a, b, core = a / r[:, None], b / c, factors.core.to_dense().astype(np.float64)
    row, group = 5, 2
    now = tuple(np.flatnonzero(core[row, 8:12]).tolist())
    core[row, 8:12] = 0
    missing, found = (normal - a @ core @ b) * np.sqrt(h), group_losses(w, h, factors, row, group)
    for places, loss in found.items():
        basis = np.stack([(np.outer(a[:, row], b[8 + i]) * np.sqrt(h)).ravel() for i in places], 1)
        left = missing.ravel() - basis @ np.linalg.lstsq(basis, missing.ravel(), rcond=None)[0]
        assert loss == pytest.approx((left**2).sum() / (h * normal**2).sum(), rel=1e-5)
    assert len(found) == 6 and found[now] <= factors.loss * (1 + 1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"row": 8}, "row must be"), ({"group": 4}, "group must be"), ({"w": np.ones((4, 16))}, "of shape"),
])  # fmt: skip
def test_losses_of_a_group_that_is_not_there_are_refused(rng, arguments, message):
    w, h = rng.standard_normal((8, 16)), np.ones(16)
    given = {"w": w, "h": h, "factors": armor_factorize(w, h, 4, iters=0), "row": 0, "group": 0} | arguments
    with pytest.raises(ValueError, match=f"group_losses: .*{message}"):
        group_losses(**given)


def test_a_trace_is_the_search(rng):
    w, h = rng.standard_normal((8, 16)), rng.random(16) + 0.1
    shown, found = trace(w, h, 4, iters=150, every=60, seed=3), armor_factorize(w, h, 4, iters=150, seed=3)
    np.testing.assert_array_equal(shown["history"], found.history)
    assert shown["rounds"].tolist() == [0, 60, 120] and (shown["masks"].reshape(3, 8, 4, 4).sum(-1) == 2).all()
    np.testing.assert_array_equal(shown["masks"][0], nowag_p(w, h).mask)
    other = (shown["masks"][2] != shown["masks"][0]).reshape(8, 4, 4).any(-1)
    assert shown["changed"][0] == 0 and shown["changed"][2] == other.mean() > 0
    early = armor_factorize(w, h, 4, iters=60, seed=3)  # the best round is the last one here
    assert early.best == 60
    a = linalg.block_diag(*early.left) / nowag_normalize(w)[1][:, None] - np.eye(8)
    assert (shown["drift"][0] == 0).all()
    assert shown["drift"][1][0] == pytest.approx(np.linalg.norm(a) / np.sqrt(8), rel=1e-4)


def test_one_large_block_fits_nearly_everything(rng):
    found = armor_factorize(rng.standard_normal((16, 16)), np.ones(16), 16, iters=800, lr=1e-2, patience=800)
    assert found.loss < 1e-3


def test_larger_blocks_fit_better_and_the_best_round_is_returned(rng):
    w, h = rng.standard_normal((32, 32)).astype(np.float32), rng.random(32) + 0.1
    losses = [armor_factorize(w, h, side, iters=60).loss for side in (4, 8, 16)]
    assert losses[0] > losses[1] > losses[2]
    rough = armor_factorize(w, h, 8, iters=30, lr=0.5)
    assert rough.loss == rough.history.min() <= rough.history[0]


@pytest.mark.parametrize("select", ["l1", "greedy", "uniform"])
def test_steps_that_overflow_end_the_search_with_the_best_factors(rng, select):
    w, h = rng.standard_normal((8, 16)).astype(np.float32), np.ones(16)
    found = armor_factorize(w, h, 4, iters=5, lr=1e30, select=select)
    assert found.best == 0 and len(found.history) == 1 and found.loss == pytest.approx(nowag_p(w, h).loss)


def test_scales_of_weights_and_inputs_do_not_matter(rng):
    w, h = 10 * rng.standard_normal((8, 16)), rng.random(16) + 0.1
    one, other = armor_factorize(w, h, 4, iters=15), armor_factorize(4 * w, 8 * h, 4, iters=15)
    np.testing.assert_array_equal(one.core.positions, other.core.positions)
    np.testing.assert_allclose(4 * one.to_dense(), other.to_dense(), rtol=1e-3, atol=1e-3)


def test_factors_hold_the_normalisers_and_multiply_as_their_dense_matrix(rng, assert_close):
    w, h = rng.standard_normal((24, 32)).astype(np.float32), rng.random(32) + 0.1
    found = armor_factorize(w, h, (8, 16), iters=5)
    want = linalg.block_diag(*found.left) @ found.core.to_dense() @ linalg.block_diag(*found.right)
    assert_close(found.to_dense(), want)
    x = rng.standard_normal((2, 3, 32)).astype(np.float32)
    assert_close(found.matmul(x), x @ want.T)
    start = armor_factorize(w, h, 8, iters=0)
    normal, r, c = nowag_normalize(w)
    assert_close(start.to_dense(), nowag_p(w, h).weight * r[:, None] * c)
    assert proxy_loss(normal, start.left / r.reshape(-1, 8, 1), start.core.to_dense(),
                      start.right / c.reshape(-1, 1, 8), h) == pytest.approx(start.loss, rel=1e-4)  # fmt: skip


def test_bits_are_those_of_the_formula(rng):
    w = rng.standard_normal((384, 384)).astype(np.float32)
    found = armor_factorize(w, np.ones(384), 16, iters=0)
    assert found.bits() == {"values": 16 * 73728, "indices": 2 * 73728, "dense factors": 16 * 16 * 768}
    assert sum(found.bits().values()) == 1_523_712 and found.nbytes() == 190_464


def test_seeds_decide_and_a_caller_may_stop(rng):
    w, h = rng.standard_normal((8, 16)).astype(np.float32), np.ones(16)
    one, same, other = (armor_factorize(w, h, 4, iters=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.history, same.history)
    assert (one.history != other.history).any()
    told = []
    stopped = armor_factorize(w, h, 4, iters=30, callback=lambda i, loss: told.append((i, loss)) or i == 3)
    assert [i for i, _ in told] == [1, 2, 3] and len(stopped.history) == 4
    assert len(armor_factorize(w, h, 4, iters=30, lr=1e-30, core_updates=0, patience=2).history) == 3


def test_importances_that_cannot_be_used_become_the_mean():
    np.testing.assert_array_equal(sanitize_hessian_diag([1, 0, np.nan, 3, -1, np.inf]), [1, 2, 2, 3, 2, 2])
    known = InputStatistics(np.diag([2.0, 4.0, 0.0]), 4)
    np.testing.assert_array_equal(hessian_diag(known), [1, 2, 1.5])
    with pytest.raises(ValueError, match="h must be"):
        sanitize_hessian_diag([0, np.nan])


def test_a_whole_model_runs_on_the_factors(rng):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16, bias=False)).eval()
    batches = [torch.randn(8, 32) for _ in range(4)]
    told = []
    small = armor(model, batches, 8, iters=4, report=lambda f, step: told.append((f, step)))
    assert isinstance(small[0], ArmorLinear) and isinstance(model[0], nn.Linear)
    assert told[0][0] == 0 and told[-1][0] == pytest.approx(1) and "relative loss" in told[-1][1]
    x = torch.randn(5, 7, 32)
    layer = small[0]
    single = layer(x[0]) - layer.bias
    full = linalg.block_diag(*layer.left.numpy()) @ layer.core.to_dense() @ linalg.block_diag(*layer.right.numpy())
    np.testing.assert_allclose(single.numpy(), x[0].numpy() @ full.T, rtol=1e-4, atol=1e-4)
    assert layer.multiply_adds == 64 * 16 + 64 * 8 + 32 * 8 and layer.nbytes == 1024 * 5 + 4 * (512 + 256 + 64)
    with pytest.raises(ValueError, match="x must have 32 features"):
        layer(x[..., :5])


def weighted_loss(dense, layer, inputs):
    """Return the proxy loss of a layer, and that of a matrix of zeros.

    Unit vectors show the layer's matrix; the loss is written out in NumPy, from the inputs that the layer has seen.
    """
    w = dense.weight.detach().numpy().astype(np.float64)
    shown = layer(torch.eye(w.shape[1])).numpy().T - (0 if dense.bias is None else dense.bias.detach().numpy()[:, None])
    c = np.linalg.norm(w, axis=0) + 1e-5
    r = np.linalg.norm(w / c, axis=1) + 1e-5
    h = 2 * inputs.flatten(0, -2).square().double().mean(0).numpy()
    return (h * ((w - shown) / r[:, None] / c) ** 2).sum(), (h * (w / r[:, None] / c) ** 2).sum()


def test_the_layers_of_a_model_have_the_losses_that_their_searches_say():
    """NoWag-P is the beginning of each search, so the losses of all layers together fall as the histories fall."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16, bias=False)).eval()
    batches = [torch.randn(8, 32) * torch.linspace(0.2, 3, 32) for _ in range(4)]
    start, small = (armor(model, batches, 8, iters=iters, seed=3) for iters in (0, 25))
    known = gather_statistics(model, batches)
    with torch.no_grad():
        seen = {0: torch.cat(batches), 2: model[:2](torch.cat(batches))}
    before = after = promised_before = promised_after = 0.0
    for at, inputs in seen.items():
        weight, h = model[at].weight.detach().numpy(), hessian_diag(known[str(at)])
        history = armor_factorize(weight, h, 8, iters=25, seed=3).history
        first, whole = weighted_loss(model[at], start[at], inputs)
        last, _ = weighted_loss(model[at], small[at], inputs)
        assert [first / whole, last / whole] == pytest.approx([history[0], history.min()], rel=1e-3)
        before, after = before + first, after + last
        promised_before, promised_after = promised_before + whole * history[0], promised_after + whole * history.min()
    assert after / before == pytest.approx(promised_after / promised_before, rel=1e-3) and after < before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"block": 3}, "block must divide 8 outputs and 16 inputs"),
        ({"block": (4, 2)}, "m=4 divide that of the inputs"),
        ({"block": (4, 4, 4)}, "block must be one side or two"),
        ({"n": 4}, "n must be from 1 to m - 1"),
        ({"n": 8, "m": 16}, "more than 1,000 supports"),
        ({"h": np.ones(3)}, "h must be 16 finite numbers"),
        ({"h": np.zeros(16)}, "h must be 16 finite numbers above 0"),
        ({"w": np.full((8, 16), np.nan)}, "w must be a finite matrix"),
        ({"select": "best"}, "select"),
        ({"lr": 0}, "lr"),
    ],
)
def test_bad_input_is_named(rng, change, told):
    given = {"w": rng.standard_normal((8, 16)), "h": np.ones(16), "block": 4} | change
    with pytest.raises(ValueError, match=told):
        armor_factorize(**given)
    with pytest.raises(TypeError, match="w must be a float32 or float64 array"):
        armor_factorize(np.ones((8, 16), int), np.ones(16), 4)
