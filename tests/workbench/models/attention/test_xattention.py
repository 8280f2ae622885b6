"""XAttention: selection by antidiagonal sums, against dense attention and the vertical-slash picture of the paper."""

from math import exp, sqrt

import numpy as np
import pytest
import torch

from workbench.data.attention_patterns import vertical_slash
from workbench.models.attention.dense_attention import dense_attention, masked_attention
from workbench.models.attention.xattention import (
    block_scores,
    coverage,
    dp_thresholds,
    profile_thresholds,
    scoring_multiply_adds,
    token_mask,
    trace,
    xattention,
)


def qkv(b=1, h=2, t=200, d=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, h, t, d, generator=generator) for _ in range(3)]


def test_threshold_one_is_dense_attention(assert_close):
    q, k, v = qkv()
    out, keep = xattention(q, k, v, block_size=32, stride=8, threshold=1.0)
    assert keep.sum() == 2 * 7 * 8 / 2
    assert_close(out, dense_attention(q, k, v))


@pytest.mark.parametrize("causal", [True, False])
def test_threshold_one_keeps_blocks_whose_estimate_underflows(causal):
    q, k, v = qkv(h=1)
    q, k = 40 * q.abs(), 0.1 * k
    k[:, :, 32:64] += 40
    how = {"block_size": 32, "stride": 8, "causal": causal}
    scores = block_scores(q, k, **how)
    _, keep = xattention(q, k, v, threshold=1.0, **how)
    possible = np.tri(7, dtype=bool) | (not causal)
    assert (scores[0, 0][possible] == 0).any() and keep[0, 0][possible].all()


@pytest.mark.parametrize("causal", [True, False])
def test_kernel_equals_dense_attention_over_the_chosen_pairs(causal, assert_close):
    q, k, v = qkv()
    out, keep = xattention(q, k, v, block_size=32, stride=8, threshold=[0.4, 0.7], causal=causal)
    assert 0 < keep.mean() < 0.8
    assert_close(out, masked_attention(q, k, v, token_mask(keep, 200, block_size=32, causal=causal), causal=causal))


def test_never_uses_the_future():
    q, k, v = qkv()
    out, keep = xattention(q, k, v, block_size=32, stride=8, threshold=0.6)
    k2, v2 = k.clone(), v.clone()
    k2[:, :, 128:] += 10
    v2[:, :, 128:] -= 10
    again, keep2 = xattention(q, k2, v2, block_size=32, stride=8, threshold=0.6)
    assert (keep[:, :, :4] == keep2[:, :, :4]).all()
    assert torch.equal(out[:, :, :128], again[:, :, :128])


def test_heads_and_batches_are_independent():
    q, k, v = qkv(b=2, h=3)
    out, _ = xattention(q, k, v, block_size=32, stride=8, threshold=0.6)
    alone, _ = xattention(q[1:, 2:], k[1:, 2:], v[1:, 2:], block_size=32, stride=8, threshold=0.6)
    assert torch.equal(out[1:, 2:], alone)


@pytest.mark.parametrize("stride", [4, 8])
def test_antidiagonal_finds_slashes_that_the_diagonal_misses(stride):
    # The diagonal reads offsets that are multiples of the stride; slashes of width two from these offsets pass by them.
    offsets = [delta for delta in range(3, 400, 7) if delta % stride not in (0, stride - 1)][:24]
    q, k, true = vertical_slash(1024, heads=24, delta=offsets)
    needed = true.reshape(1, 24, 16, 64, 16, 64).any(axis=(3, 5))
    recall = {}
    for mode in ("antidiagonal", "diagonal"):
        scores = block_scores(q, k, block_size=64, stride=stride, mode=mode)
        order = np.argsort(-scores, axis=-1, kind="stable")
        keep = np.zeros_like(needed)
        np.put_along_axis(keep, order, np.arange(16) < needed.sum(-1, keepdims=True), axis=-1)
        recall[mode] = (keep & needed).sum() / needed.sum()
    assert recall["antidiagonal"] - recall["diagonal"] >= 0.15, recall


def test_coverage_is_the_kept_share_of_the_softmax():
    q, k, _ = qkv(t=64)
    keep = np.tril(np.ones((1, 2, 4, 4), bool))
    assert coverage(q, k, keep, block_size=16) == pytest.approx(1.0)
    keep[:, :, 3, 0] = False
    weights = torch.softmax((q @ k.mT / 4).masked_fill(~torch.ones(64, 64).tril().bool(), -torch.inf), -1)
    lost = weights[:, :, 48:, :16].sum((2, 3)) / 64
    np.testing.assert_allclose(coverage(q, k, keep, block_size=16), 1 - lost, atol=1e-6)


def test_lowering_thresholds_prefers_the_head_that_costs_least():
    table = dp_thresholds(lambda tau: float((np.array([10.0, 1.0, 5.0]) * (tau - 0.9)).sum()), 3)
    np.testing.assert_allclose(table.performance, [0, -0.09, -0.54, -1.44])
    np.testing.assert_allclose(table.thresholds[1], [0.9, 0.81, 0.9])
    for bar in (-0.6, -0.54, -0.54 * (1 - 1e-12)):  # a bar that an entry meets but for rounding is met
        np.testing.assert_allclose(table.cheapest(at_least=bar), [0.9, 0.81, 0.81])
    np.testing.assert_allclose(table.cheapest(at_least=table.performance[1]), [0.9, 0.81, 0.9])
    again = dp_thresholds(lambda tau: float((tau - 0.9).sum()), 2, passes=2)
    np.testing.assert_allclose(again.thresholds[-1], 0.9 * 0.81)
    with pytest.raises(ValueError, match="no entry reaches"):
        table.cheapest(at_least=1)


def numbers(*rows):
    """Numbers of one head, width one, as a (1, 1, t, 1) float32 array."""
    return np.float32(rows).reshape(1, 1, -1, 1)


HAND = numbers(1, 2, 3, 4), numbers(1, 0, 0, 1)  # true masses of two blocks of two: (2, 0) and (1.455, 0.545)


@pytest.mark.parametrize(
    ("coverage", "threshold"),
    [
        (0.7, (1 + 1 / (1 + exp(-0.5))) / 2),  # truth needs block 0 alone in row 1, whose estimate is .622 of that row
        (0.9, 0.96),  # truth needs both, so all of the estimate, cut at the cap
    ],
)
def test_profiled_thresholds_by_hand(coverage, threshold):
    found = profile_thresholds([HAND], block_size=2, stride=2, coverage=coverage)
    np.testing.assert_allclose(found, [threshold], rtol=1e-6)


def profiled_by_the_paper(q, k, *, block, stride, coverage, causal):
    """One head (t, d): bars from the true masses, the estimate above the bars over all of it."""
    (t, d), blocks = q.shape, len(q) // block
    true, estimate = np.zeros((2, blocks, blocks))
    for i in range(t):
        weights = [exp(q[i] @ k[j] / sqrt(d)) for j in range(i + 1 if causal else t)]
        for j, w in enumerate(weights):
            true[i // block, j // block] += w / sum(weights)
    for i in range(0, t, stride):
        tiles = range(0, i + 1 if causal else t, stride)
        lines = [sum(q[i + stride - 1 - s] @ k[j + s] for s in range(stride)) for j in tiles]
        weights = [exp(line / sqrt(d) / stride) for line in lines]
        for j, w in zip(tiles, weights, strict=True):
            estimate[i // block, j // block] += w / sum(weights)
    above = 0.0
    for i in range(blocks):
        seen, needed = range(i + 1 if causal else blocks), []
        for j in sorted(seen, key=lambda j, row=true[i]: -row[j]):
            if true[i, needed].sum() < coverage * true[i].sum():
                needed.append(j)
        bar = min(estimate[i, needed])
        above += sum(x for x in estimate[i, seen] if x >= bar)
    return above / estimate.sum()


@pytest.mark.parametrize("causal", [True, False])
def test_profiled_thresholds_are_a_loop_over_rows(causal):
    texts = [[x[..., :4] for x in qkv(t=64, seed=seed)[:2]] for seed in (1, 2)]
    found = profile_thresholds(texts, block_size=8, stride=4, coverage=0.5, causal=causal)
    for h in range(2):
        heads = [[x[0, h].double().numpy() for x in text] for text in texts]
        alone = [profiled_by_the_paper(*head, block=8, stride=4, coverage=0.5, causal=causal) for head in heads]
        assert found[h] == pytest.approx(max(alone), rel=1e-5) and max(alone) < 0.96


def searched_by_the_paper(performance, heads, passes, most):
    """D[h][m] = max(D[h-1][m], P(h, m)): the table's cells as (performance, thresholds), a pass after another."""
    cells = {0: (performance([0.8] * heads), [0.8] * heads)}
    for _ in range(passes):
        for h in range(heads):
            before = dict(cells)
            for m in range(1, most + 1):
                if m - 1 in before:
                    lowered = [tau * 0.5 if i == h else tau for i, tau in enumerate(before[m - 1][1])]
                    here = (performance(lowered), lowered)
                    cells[m] = here if m not in before else max(before[m], here, key=lambda cell: cell[0])
    return cells


@pytest.mark.parametrize("passes", [1, 3])
def test_search_of_thresholds_is_the_paper_s_recurrence(passes, rng):
    weights, pairs = rng.random(4), rng.random((4, 4))

    def performance(tau):
        lost = 1 - np.array(tau)
        return float(-(weights * lost).sum() - lost @ pairs @ lost)

    table = dp_thresholds(performance, 4, start=0.8, factor=0.5, passes=passes)
    wanted = searched_by_the_paper(performance, 4, passes, 4 * passes)
    np.testing.assert_allclose(table.performance, [wanted[m][0] for m in range(4 * passes + 1)])
    np.testing.assert_allclose(table.thresholds, [wanted[m][1] for m in range(4 * passes + 1)])


def test_profiled_thresholds_are_shares_and_take_the_hardest_text():
    one, two = qkv(t=256, seed=1)[:2], qkv(t=256, seed=2)[:2]
    how = {"block_size": 32, "stride": 8}
    alone = [profile_thresholds([text], **how) for text in (one, two)]
    np.testing.assert_allclose(profile_thresholds([one, two], **how), np.maximum(*alone))
    assert ((alone[0] > 0.5) & (alone[0] <= 0.96)).all()


def test_trace_agrees_with_the_method():
    q, k, _ = qkv(h=1)
    seen = trace(q, k, block_size=32, stride=8, threshold=0.6)
    _, keep = xattention(q, k, q, block_size=32, stride=8, threshold=0.6)
    assert (seen.keep == keep[0, 0]).all()
    assert seen.coverage == pytest.approx(coverage(q, k, keep, block_size=32)[0, 0], abs=1e-5)
    assert seen.read.sum() == 200 * 200 / 8
    assert seen.cost.before == scoring_multiply_adds(200, 16, block_size=32, stride=8) == 224 * 224 * 16 // 8
    np.testing.assert_allclose(seen.effective.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(seen.estimate.sum(1), 1, atol=1e-5)
    scores = block_scores(q, k, block_size=32, stride=8)[0, 0]  # a whole block row holds 32 / 8 tile rows
    np.testing.assert_allclose(4 * seen.estimate[:6], scores[:6], rtol=1e-5)


def test_scoring_is_counted_by_what_is_multiplied():
    how = {"block_size": 32, "stride": 8}  # 200 tokens are padded to 224, seven blocks
    assert scoring_multiply_adds(200, 16, **how) == 224 * 28 * 16
    assert scoring_multiply_adds(200, 16, mode="oracle", **how) == 224 * 224 * 16
    assert scoring_multiply_adds(200, 16, mode="mean_pool", **how) == 7 * 7 * 16


@pytest.mark.parametrize("queries", [1, 7, 64, 100, 150])
def test_queries_after_a_cache_equal_dense_attention_over_the_chosen_pairs(queries, assert_close):
    q, k, v = qkv()
    late = q[:, :, 200 - queries :]
    out, keep = xattention(late, k, v, block_size=32, stride=8, threshold=0.5)
    allowed = token_mask(keep, 200, block_size=32, queries=queries)
    assert_close(out, masked_attention(late, k, v, allowed))
    assert allowed.all(where=np.tri(queries, 200, 200 - queries, dtype=bool)) == (queries == 1)


def test_whole_blocks_after_a_cache_choose_as_the_whole_prompt_does():
    q, k, v = qkv()
    out, keep = xattention(q[:, :, 64:], k, v, block_size=32, stride=8, threshold=0.5)
    whole, whole_keep = xattention(q, k, v, block_size=32, stride=8, threshold=0.5)
    assert (keep == whole_keep[:, :, 2:]).all()
    assert torch.equal(out, whole[:, :, 64:])


def test_a_search_may_be_cut_short():
    calls = []
    table = dp_thresholds(lambda tau: calls.append(tau) or float(tau.sum()), 3, passes=2, max_steps=2)
    assert len(table.performance) == 3 and len(calls) == 1 + 1 + 2 + 2 + 3 * 2


def test_only_the_value_of_the_diagonal_tile_is_read_ahead():
    """The estimate may look at future keys inside a diagonal tile; the attention never reads future values."""
    q, k, v = qkv()
    v2 = v.clone()
    v2[:, :, 101:] += 5
    out, _ = xattention(q, k, v, block_size=32, stride=8, threshold=0.6)
    again, _ = xattention(q, k, v2, block_size=32, stride=8, threshold=0.6)
    assert torch.equal(out[:, :, :101], again[:, :, :101]) and not torch.equal(out, again)


def test_threshold_zero_keeps_sink_and_diagonal():
    _, keep = xattention(*qkv(), block_size=32, stride=8, threshold=0.0)
    expected = np.eye(7, dtype=bool)
    expected[:, 0] = True
    assert (keep == expected).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_dtype_chooses_and_attends_as_its_values_do(dtype, assert_close):
    q, k, v = (x.to(dtype) for x in qkv())
    out, keep = xattention(q, k, v, block_size=32, stride=8, threshold=0.6)
    wide, wide_keep = xattention(q.float(), k.float(), v.float(), block_size=32, stride=8, threshold=0.6)
    assert out.dtype == dtype
    assert (keep == wide_keep).all()
    eps = max(4 * torch.finfo(dtype).eps, 2e-6)
    assert torch.allclose(out.float(), wide, atol=eps, rtol=eps)


def test_grouped_heads_values_of_another_width_and_a_scale_equal_repeated_keys(assert_close):
    q, k, v = qkv(h=6)
    k, v = k[:, ::3], torch.cat([v, v[..., :3]], -1)[:, ::3]
    how = {"block_size": 32, "stride": 8, "threshold": 0.6}
    out, keep = xattention(q, k, v, scale=0.4, **how)
    repeated = (x.repeat_interleave(3, 1) for x in (k, v))
    wanted, wanted_keep = xattention(q * 0.4 * q.shape[3] ** 0.5, *repeated, **how)
    assert (keep == wanted_keep).all()
    assert_close(out, wanted)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing_for_real_tokens(side, causal, assert_close):
    """A batch of 96 and 200 real tokens, padded by whole blocks of odd content, equals each text alone."""
    q, k, v = qkv(b=2, t=192)
    real = torch.ones(2, 192, dtype=torch.bool)
    real[1, slice(0, 96) if side == "left" else slice(96, None)] = False
    for x in (q, k, v):
        x[~real[:, None].expand(x.shape[:3])] = 1e4
    how = {"block_size": 32, "stride": 8, "threshold": 0.6, "causal": causal}
    out, keep = xattention(q, k, v, attn_mask=real[:, None, None], **how)
    part = slice(96, None) if side == "left" else slice(0, 96)
    alone, alone_keep = xattention(*(x[1:, :, part] for x in (q, k, v)), **how)
    assert_close(out[1:, :, part], alone)
    blocks = slice(3, None) if side == "left" else slice(0, 3)
    assert (keep[1:, :, blocks, blocks] == alone_keep).all()
    first, first_keep = xattention(q[:1], k[:1], v[:1], **how)
    assert torch.equal(out[:1], first) and (keep[:1] == first_keep).all()


@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("tq", [1, 50, 200])
def test_added_masks_are_added_and_what_they_hide_is_not_chosen(tq, lowest, assert_close):
    q, k, v = qkv()
    q = q[:, :, -tq:]
    distance = torch.arange(200 - tq, 200)[:, None] - torch.arange(200)
    added = torch.where((distance >= 0) & (distance < 70), -0.05 * distance.abs(), lowest)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=added)
    out, keep = xattention(q, k, v, block_size=32, stride=8, threshold=1.0, attn_mask=added)
    assert_close(out, wanted)
    if tq > 1:
        seen = np.add.reduceat(distance.numpy() < 70, np.arange(0, 200, 32), axis=1) > 0
        hidden = range(0, tq - 32, 32)
        assert all(not keep[:, :, row // 32, ~seen[row : row + 32].any(axis=0)].any() for row in hidden)


def test_gradients_are_those_of_dense_attention_over_the_chosen_pairs(assert_close):
    q, k, v = (x.double().requires_grad_() for x in qkv(h=2, t=70))
    out, keep = xattention(q, k, v, block_size=16, stride=8, threshold=0.5)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(out, (q, k, v), grad)
    dense = masked_attention(q, k, v, token_mask(keep, 70, block_size=16))
    for mine, theirs in zip(found, torch.autograd.grad(dense, (q, k, v), grad), strict=True):
        assert_close(mine, theirs)


def test_bad_input_is_named():
    q, k, v = qkv()
    with pytest.raises(ValueError, match="200 queries, 100 keys"):
        xattention(q, k[:, :, 100:], v[:, :, 100:])
    with pytest.raises(ValueError, match="h a multiple of hk"):
        xattention(q[:, :1], k, v)
    with pytest.raises(ValueError, match="multiple of stride"):
        xattention(q, k, v, block_size=32, stride=5)
    with pytest.raises(TypeError, match=r"xattention: q must be a CPU tensor of floats, got torch\.int64 on cpu"):
        xattention(q.long(), k.long(), v)
    with pytest.raises(TypeError, match=r"v is torch\.float64, q is torch\.float32"):
        xattention(q, k, v.double())
    with pytest.raises(ValueError, match="attn_mask must broadcast"):
        xattention(q, k, v, attn_mask=torch.ones(3, 200, 100, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"attn_mask must be bool or float, got torch\.int64"):
        xattention(q, k, v, attn_mask=torch.ones(200, 200, dtype=torch.int64))
