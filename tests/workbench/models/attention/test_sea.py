"""SEA: selection budgets, stretching, flat CSR against dense masks, causality, padding, losses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kernels.transforms.random_projection import orthogonal_random_features
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.dense_attention import attention_weights, dense_attention
from workbench.models.attention.sea import (
    SEAAttention,
    cells_to_flat_csr,
    column_of_key,
    distill_layer,
    effective_attention,
    estimate_multiply_adds,
    expand_cells,
    flat_csr_to_dense,
    grouped_topk,
    oracle_estimate,
    sea_loss,
    softmax_kernel,
    teacher,
    trace,
)


def qkv(n=2, h=4, t=40, d=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, h, t, d, generator=generator) for _ in range(3)]


def layer(causal=False, **how):
    torch.manual_seed(0)
    return SEAAttention(64, 4, **({"width": 16, "k": 5, "causal": causal} | how)).eval()


def test_cells_cover_all_keys_in_order():
    for length in (1, 7, 16, 40, 333):
        column = column_of_key(length, 16)
        assert (column.diff() >= 0).all()
        assert length < 16 or sorted(set(column.tolist())) == list(range(16))
    assert column_of_key(16, 16).tolist() == list(range(16))


@pytest.mark.parametrize("group", ["query", "head", "batch", "causal_batch"])
def test_budget_is_k_keys_per_query_and_head(group):
    est = torch.rand(2, 4, 40, 16, generator=torch.Generator().manual_seed(1))
    cells = grouped_topk(est, 5, torch.tensor([40, 40]), group)
    keys = expand_cells(cells, torch.tensor([40, 40])).sum(-1).float().mean()
    assert 4.6 <= keys <= 5.1
    exact = expand_cells(grouped_topk(est, 6, torch.tensor([32, 32]), group), torch.tensor([32, 32]))
    assert exact[:, :, :32].sum(-1).float().mean() == pytest.approx(6, abs=0.2)
    assert not grouped_topk(est, 5, torch.tensor([40, 8]), group)[1, :, 8:].any()


@pytest.mark.parametrize("causal", [False, True])
def test_the_best_cells_are_kept_and_of_ties_the_first(causal):
    est = torch.randint(0, 5, (1, 3, 20, 8), generator=torch.Generator().manual_seed(4)).float()
    cells = grouped_topk(est, 4, torch.tensor([17]), causal=causal)
    for i in range(17):
        row = est[0, :, i].ravel()
        count = min(24, max(1, round(3 * 4 * 8 / (i + 1 if causal else 17))))
        expected = torch.zeros(24, dtype=torch.bool)
        expected[torch.argsort(row, descending=True, stable=True)[:count]] = True
        assert torch.equal(cells[0, :, i].ravel(), expected)


def test_groups_move_budget_to_sharp_heads():
    est = torch.full((1, 2, 8, 16), 0.01)
    est[0, 0, :, :12], est[0, 0, :, 12:] = 1.0, 0.0
    cells = grouped_topk(est, 4, torch.tensor([8]), "causal_batch")
    assert cells[0, 0].sum() == 8 * 12 and cells[0, 1].sum() == 8 * 4


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[40, 40], [40, 23], [1, 9]])
def test_flat_csr_is_the_stretched_mask(causal, lengths):
    est = torch.rand(2, 4, 40, 16, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor(lengths)
    cells = grouped_topk(est, 5, lengths, causal=causal)
    flat = cells_to_flat_csr(cells, lengths, causal=causal)
    mask = expand_cells(cells, lengths, causal=causal).numpy()
    assert (flat_csr_to_dense(flat) == mask).all()
    assert flat.indptr[-1] == mask.sum()
    sample = flat.sample(1).toarray().reshape(40, 4, 40).transpose(1, 0, 2) > 0
    assert (sample == mask[1]).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 5, 16, 23, 40])
def test_all_cells_together_cover_every_visible_key_once(causal, length):
    cells = torch.zeros(1, 1, 40, 16, dtype=torch.bool)
    cells[:, :, :length] = True
    flat = cells_to_flat_csr(cells, torch.tensor([length]), causal=causal)
    for row in range(40):
        visible = (row + 1 if causal else length) if row < length else 0
        assert flat.keys[flat.indptr[row] : flat.indptr[row + 1]].tolist() == list(range(visible))


def test_cap_keeps_the_right_end_and_spreads():
    cells = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    flat = cells_to_flat_csr(cells, torch.tensor([40]), cap=3)
    assert flat.keys.reshape(4, 3).tolist() == [[3, 6, 9], [13, 16, 19], [23, 26, 29], [33, 36, 39]]


@pytest.mark.parametrize("causal", [False, True])
def test_backends_agree_and_the_matrix_remakes_the_context(causal, assert_close):
    q, k, v = qkv()
    keep = torch.arange(40) < torch.tensor([[40], [23]])
    sea = layer(causal)
    with torch.no_grad():
        dense = sea(q, k, v, keep)
        sea.backend = "flat_csr"
        flat = sea(q, k, v, keep)
    assert torch.equal(dense.cells, flat.cells)
    torch.testing.assert_close(flat.context, dense.context, atol=1e-5, rtol=1e-5)
    matrix = effective_attention(dense, keep.sum(1), causal=causal)
    masked = v * keep[:, None, :, None]
    torch.testing.assert_close(matrix @ masked, dense.context, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_both_backends_have_the_same_gradients(causal):
    """Of the inputs and of every weight, with a padded sample."""
    keep = torch.arange(40) < torch.tensor([[40], [23]])
    target, found = qkv(seed=9)[0], {}
    for backend in ("dense", "flat_csr"):
        sea = layer(causal, backend=backend).train()
        inputs = [x.requires_grad_() for x in qkv()]
        (sea(*inputs, keep).context * target).sum().backward()
        found[backend] = {**dict(zip("qkv", inputs, strict=True)), **dict(sea.named_parameters())}
    for name, dense in found["dense"].items():
        flat = found["flat_csr"][name].grad
        assert (flat is None) == (dense.grad is None), name
        if flat is not None:
            torch.testing.assert_close(flat, dense.grad, atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    assert all(found["flat_csr"][name].grad.abs().max() > 0.1 for name in "qkv")


def test_distillation_learns_the_same_through_both_backends():
    batches = [(*qkv(seed=seed), None) for seed in (1, 2)]
    learnt = {}
    for backend in ("dense", "flat_csr"):
        sea = layer(backend=backend)
        learnt[backend] = distill_layer(batches, sea, steps=4), sea.state_dict()
    for dense, flat in zip(learnt["dense"][0], learnt["flat_csr"][0], strict=True):
        assert flat == pytest.approx(dense, rel=1e-3)
    for name, weight in learnt["dense"][1].items():
        torch.testing.assert_close(learnt["flat_csr"][1][name], weight, atol=1e-3, rtol=1e-2)


def test_future_changes_nothing_before():
    q, k, v = qkv()
    sea = layer(causal=True)
    with torch.no_grad():
        before = sea(q, k, v)
        later = [torch.cat([x[:, :, :25], x[:, :, 25:] * -2 + 1], 2) for x in (q, k, v)]
        after = sea(*later)
    torch.testing.assert_close(before.est[:, :, :25], after.est[:, :, :25], atol=1e-6, rtol=1e-5)
    assert torch.equal(before.cells[:, :, :25], after.cells[:, :, :25])
    torch.testing.assert_close(before.context[:, :, :25], after.context[:, :, :25], atol=1e-6, rtol=1e-5)


def test_padding_is_never_seen():
    q, k, v = qkv(n=1)
    sea = layer()
    with torch.no_grad():
        whole = sea(q, k, v)
        marked = sea(q, k, v, torch.ones(1, 40))
        keep = torch.arange(40)[None] < 30
        one = sea(q, k, v, keep)
        junk = [torch.cat([x[:, :, :30], 9 + 0 * x[:, :, 30:]], 2) for x in (q, k, v)]
        other = sea(*junk, keep)
    assert torch.equal(whole.context, marked.context)
    assert not one.mask[..., 30:].any() and not one.mask[:, :, 30:].any()
    torch.testing.assert_close(one.probs, other.probs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one.context[:, :, :30], other.context[:, :, :30], atol=1e-6, rtol=1e-5)


def test_full_budget_is_exact_attention(assert_close):
    q, k, v = qkv()
    sea = layer(group="query", k=40)
    torch.nn.init.zeros_(sea.scale.weight)
    torch.nn.init.constant_(sea.scale.bias, 40.0)
    with torch.no_grad():
        assert_close(sea(q, k, v).context, dense_attention(q, k, v, causal=False))


def test_random_features_estimate_softmax_better_with_more():
    q, k = (0.5 * x for x in qkv(n=1, h=1, t=30)[:2])
    exact = attention_weights(q, k, causal=False)
    errors = []
    for m in (16, 64, 256):
        gaps = []
        for seed in range(8):
            projection = torch.as_tensor(orthogonal_random_features(m, 16, seed=seed), dtype=torch.float32)
            weights = softmax_kernel(q, projection, is_query=True) @ softmax_kernel(k, projection, is_query=False).mT
            gaps.append((weights / weights.sum(-1, keepdim=True) - exact).abs().sum(-1).mean())
        errors.append(float(torch.stack(gaps).mean()))
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2]


@pytest.mark.parametrize("causal", [False, True])
def test_losses_vanish_where_the_student_is_the_teacher(causal):
    q, k, v = qkv(t=16)
    lengths = torch.tensor([16, 11])
    keep = torch.arange(16) < lengths[:, None]
    scores, context = teacher(q, k, v * keep[:, None, :, None], keep, causal=causal)
    stretched = torch.zeros(2, 4, 16, 16)
    parts = sea_loss(stretched, q, k, context, scores, context, lengths, causal=causal)
    assert float(parts["scores KL"]) == pytest.approx(0, abs=1e-6) and float(parts["scores MSE"]) < 1e-12
    assert float(parts["context MSE"]) == 0
    assert float(parts["estimate KL"]) > 0
    if not causal:  # with as many cells as keys the teacher's own scores are a perfect estimate
        full = torch.tensor([16, 16])
        scores, context = teacher(q, k, v)
        assert float(sea_loss(scores, q, k, context, scores, context, full, causal=False)["estimate KL"]) < 1e-6


def test_the_estimator_learns_from_the_scores_not_from_the_mask():
    q, k, v = qkv()
    sea = layer(causal=True).train()
    out = sea(q, k, v)
    (out.probs.sum() + 0 * out.context.sum()).backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in sea.parameters())
    out = sea(q, k, v, None, *teacher(q, k, v, causal=True))
    out.loss.backward()
    assert sea.last.conv.weight.grad.abs().sum() > 0 and sea.scale.weight.grad.abs().sum() > 0


def test_the_average_path_teaches_the_estimator_where_it_is_bidirectional():
    out = layer().train()(*qkv())
    found = torch.autograd.grad(out.context.sum(), out.scores)[0]
    assert found.abs().sum() > 0
    causal = layer(causal=True).train()(*qkv())
    assert torch.autograd.grad(causal.context.sum(), causal.scores, allow_unused=True)[0] is None


@pytest.mark.slow
def test_distillation_lowers_every_part_and_finds_the_mass():
    generator = torch.Generator().manual_seed(3)
    centre = torch.randn(1, 4, 64, 16, generator=generator)
    batches = []
    for _ in range(6):
        q, k, v = (torch.randn(2, 4, 64, 16, generator=generator) for _ in range(3))
        batches.append((0.3 * q + 2 * centre, 0.3 * k + 2 * centre, v, None))
    sea = layer(k=8)
    history = distill_layer(batches, sea, steps=60)
    start, end = history[0], history[-1]
    for name in ("estimate KL", "estimate MSE", "context MSE"):
        assert end[name] < start[name], name
    q, k, v, _ = batches[0]
    with torch.no_grad():
        weights = attention_weights(q, k, causal=False)
        masks = [layer(k=8)(q, k, v).mask, sea(q, k, v).mask]
    before, after = (float((weights * m).sum() / weights.sum()) for m in masks)
    assert after > 2 * before, (before, after)


class OneWeight(torch.nn.Module):
    """In place of an estimator: the loss is one weight times +1 and -1 in turn."""

    causal = False

    def __init__(self):
        super().__init__()
        self.weight, self.calls, self.redrawn = torch.nn.Parameter(torch.ones(1)), 0, []

    def redraw_features(self, seed):
        self.redrawn.append((self.calls, seed))

    def forward(self, q, k, v, keep, scores, context):
        loss = (1 - 2 * (self.calls % 2)) * self.weight.sum()
        self.calls += 1
        return SimpleNamespace(loss=loss, losses={"part": loss})


NOTHING = [(*(torch.zeros(1, 1, 1, 1) for _ in range(3)), None)]


def test_training_steps_are_adamw_s_worked_out_by_hand():
    """Rate 0.1, decay 0.01. Step 1: gradient 1, so a full step. Step 2: gradient -1; the means are then
    (0.9 * 0.1 - 0.1) / (1 - 0.9^2) = -1/19 and 1, so a 19th of a step back."""
    sea, seen = OneWeight(), []
    history = distill_layer(NOTHING, sea, steps=2, lr=0.1, report=lambda *found: seen.append(found))
    first = 1 * (1 - 0.1 * 0.01) - 0.1
    assert history == [{"part": 1.0}, {"part": pytest.approx(-first)}] and seen == list(enumerate(history))
    assert sea.weight.item() == pytest.approx(first * (1 - 0.1 * 0.01) + 0.1 / 19, rel=1e-5)
    assert not sea.training


def test_gradients_are_clipped_to_their_bound():
    sea = OneWeight()
    distill_layer(NOTHING, sea, steps=3, lr=0.1, clip=0.0)
    assert sea.weight.item() == pytest.approx((1 - 0.1 * 0.01) ** 3)  # nothing is left but the decay


def test_features_are_drawn_again_every_thousand_steps():
    sea = OneWeight()
    distill_layer(NOTHING, sea, steps=1001, seed=7)
    assert sea.redrawn == [(1000, 1007)]


def test_batches_are_drawn_by_the_seed():
    def drawn(seed):
        sea, taken = OneWeight(), []
        sea.register_forward_pre_hook(lambda sea, inputs: taken.append(int(inputs[0])))
        distill_layer(
            [(torch.full((1, 1, 1, 1), i), *NOTHING[0][1:]) for i in (0.0, 1.0, 2.0)], sea, steps=12, seed=seed
        )
        return taken

    assert drawn(1) == drawn(1) != drawn(2) and set(drawn(1)) == {0, 1, 2}


def test_a_step_moves_every_weight_of_the_estimator():
    sea = layer(causal=True).train()
    before = [p.detach().clone() for p in sea.parameters()]
    distill_layer([(*qkv(), None)], sea, steps=1, lr=0.01)
    for old, new in zip(before, sea.parameters(), strict=True):
        used = new[:, :, :40] - old[:, :, :40] if new.ndim == 4 and new.shape[2] > 40 else new - old
        assert used.abs().max() > 0.005


def test_random_features_are_as_many_as_the_width_asks_for():
    assert layer().projection.shape == (int(16 * np.log(16)), 16)
    assert layer(nb_factor=8).projection.shape == (int(16 * np.log(16) / 8), 16)
    assert layer(nb_factor=99).projection.shape == (1, 16)
    np.testing.assert_array_equal(
        layer(seed=4).projection, orthogonal_random_features(44, 16, seed=4).astype(np.float32)
    )


def test_long_sequence_needs_no_square():
    """At T = 8192 one T x T float map of one head is 256 MiB; the flat path must stay far below."""
    sea = SEAAttention(32, 2, width=32, k=8, backend="flat_csr").eval()
    q, k, v = qkv(n=1, h=2, t=8192)
    with torch.no_grad():
        assert largest_tensor_bytes(lambda: sea(q, k, v)) < 8192 * 8192 * 4 / 16


def test_oracle_estimate_keeps_the_heaviest_cells():
    q, k, _ = qkv(n=1, h=1)
    est = oracle_estimate(3 * q, k, 16, torch.tensor([40]))
    seen = trace(3 * q, k, width=16, k_keys=8)
    weights = attention_weights(3 * q, k, causal=False)[0, 0]
    random = expand_cells(grouped_topk(torch.rand(est.shape), 8, torch.tensor([40]), "query"), torch.tensor([40]))[0, 0]
    assert seen.coverage > 1.5 * float((weights * random).sum() / weights.sum())
    assert seen.density == pytest.approx(0.2, abs=0.03)
    np.testing.assert_allclose(seen.effective.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_trace_counts_pairs_and_operations_of_the_first_head(causal):
    q, k, _ = qkv(n=1, h=2, t=20)
    seen = trace(q, k, width=10, k_keys=4, causal=causal)
    hidden = ~torch.ones(20, 20).tril().bool() & causal
    weights = torch.softmax((q @ k.mT / 4).masked_fill(hidden, -torch.inf), -1)[0, 0]
    pairs = int(seen.allowed.sum())
    assert seen.allowed.shape == (20, 20) and seen.estimate.shape == (20, 10) and seen.t == 20
    assert seen.density == pytest.approx(pairs / (20 * 21 / 2 if causal else 400), rel=1e-6)
    assert seen.coverage == pytest.approx(float(weights[torch.from_numpy(seen.allowed)].sum() / 20), rel=1e-5)
    np.testing.assert_allclose(seen.attention, weights, atol=1e-6)
    kept = np.where(seen.allowed, weights, 0)
    np.testing.assert_allclose(seen.effective, kept / kept.sum(1, keepdims=True), atol=1e-6)
    assert seen.cost.kept.multiply_adds == 2 * 16 * pairs
    assert seen.cost.dense.multiply_adds == 2 * 16 * (20 * 21 // 2 if causal else 400)
    assert seen.cost.before == estimate_multiply_adds(20, 16, 1, 10, causal=causal)
    assert seen.facts == {"cells per row": 10, "mean keys per query": pytest.approx(pairs / 20, rel=1e-6)}
    if not causal:  # 2 cells of 2 keys for each query
        assert pairs == 20 * 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SEAAttention(64, 4, width=15), "multiple of 2"),
        (lambda: SEAAttention(64, 4, width=2), "at least 4"),
        (lambda: SEAAttention(64, 4, backend="sparse"), "backend must be 'dense' or 'flat_csr'"),
        (lambda: layer(causal=True, max_positions=39)(*qkv()), "T = 40 is longer than max_positions = 39"),
        (lambda: layer()(*qkv()[:2], qkv(t=39)[2]), r"must be \(N, 4, T, 16\)"),
        (lambda: layer()(qkv()[0], qkv(t=39)[1], qkv()[2]), r"must be \(N, 4, T, 16\)"),
        (lambda: layer()(*qkv(h=3)), r"must be \(N, 4, T, 16\)"),
        (lambda: layer()(*(x[0] for x in qkv())), r"must be \(N, 4, T, 16\)"),
        (lambda: layer()(*qkv(), torch.arange(40) < torch.tensor([[0], [9]])), "at least one"),
        (lambda: layer()(*qkv(), None, None, qkv()[0]), "together"),
        (lambda: layer()(*qkv(), None, torch.zeros(2, 4, 40, 40), qkv(t=39)[0]), "teacher_scores must be"),
        (lambda: distill_layer([], layer(), steps=1), "at least one batch"),
        (lambda: distill_layer(NOTHING, layer(), steps=0), "and one step"),
        (lambda: SEAAttention(64, 4, width=18, causal=True), "multiple of 4"),
        (lambda: SEAAttention(64, 4, causal=True, group="batch"), "causal_batch"),
        (lambda: SEAAttention(63, 4), "multiple of heads"),
        (lambda: layer()(*qkv(d=8)), r"must be \(N, 4, T, 16\)"),
        (lambda: layer()(*qkv(), torch.zeros(2, 40)), "at least one"),
        (lambda: layer()(*qkv(), None, torch.zeros(2, 4, 40, 40)), "together"),
        (lambda: layer()(*qkv(), None, torch.zeros(2, 4, 40, 39), torch.zeros(2, 4, 40, 16)), "teacher_scores must be"),
        (lambda: layer()(*qkv(), torch.arange(40) > torch.tensor([[-1], [9]])), "from the left"),
        (lambda: grouped_topk(torch.rand(1, 1, 2, 4), 0, torch.tensor([2])), "k must be positive"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    with pytest.raises(TypeError, match="floats"):
        layer()(*(x.long() for x in qkv()))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", [40, 64, 65])
def test_the_estimate_costs_what_is_counted(causal, t):
    from torch.utils.flop_counter import FlopCounterMode

    sea, (h, d, m) = layer(causal), (4, 16, int(16 * np.log(16)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        sea(*qkv(n=1, t=t))
    attending = 4 * t * t * d  # per head, over all pairs: the dense backend masks, it does not skip
    if causal:  # prefix sums in chunks of 64 do more than the method needs
        whole = -(-t // 64) * 64
        features, rest = 4 * t * m * d, 2 * t * m * (4 * d + 1)
        chunks = 4 * whole * m * (2 * d + 1) + 128 * whole * (m + 2 * d + 1)
        attending += chunks - rest
        assert features + rest == t * 2 * m * (6 * d + 1)
    else:
        attending += 2 * t * d  # the average path
    assert counter.get_total_flops() == h * (2 * estimate_multiply_adds(t, d, h, 16, causal=causal) + attending)


@pytest.mark.parametrize("causal", [False, True])
def test_stages_add_up_to_the_layer(causal):
    from workbench.models.attention.sea_stages import stages

    q, k, v = qkv(n=1)
    sea = layer(causal=causal)
    seen = stages(sea, q, k, v, head=3)
    with torch.no_grad():
        context = sea(q, k, v).context[0, 3].numpy()
    np.testing.assert_allclose(seen.effective @ v[0, 3].numpy(), context, atol=1e-5)
    assert seen.mixed.shape == (40, 32) and seen.position.shape == (40, 16) and seen.keys_by_head.shape == (4,)
    if not causal:  # the identity stretched: rows sum to one and move from the first to the last direction
        np.testing.assert_allclose(seen.position.sum(1), 1, atol=1e-6)
        assert seen.position[0, 0] == seen.position[-1, -1] == 1
    with pytest.raises(ValueError, match="head from 0 to 3"):
        stages(sea, q, k, v, head=4)
