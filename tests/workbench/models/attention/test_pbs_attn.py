"""PBS-Attn: permutation identities, causality, and the gain that sorting brings on heavy-hitter keys."""

import itertools
import math

import numpy as np
import pytest
import torch

from workbench.data.attention_patterns import heavy_hitters
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.dense_attention import attention_weights, dense_attention, masked_attention
from workbench.models.attention.pbs_attn import (
    block_coverage,
    computed_blocks,
    computed_density,
    coverage_curve,
    key_scores,
    pbs_attention,
    permuted_block_mass,
    permuted_block_selection,
    query_aware_permutation,
    random_segment_permutation,
    scored_mask,
    scoring_multiply_adds,
    segment_permutation_is_valid,
    select_again,
    token_mask,
    trace,
)

SMALL = {"block_size": 16, "segment_size": 64}


def qkv(b=1, h=2, t=300, d=16, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, h, t, d, generator=generator, dtype=dtype) for _ in range(3)]


POOLS = {"mean": lambda rows, block: rows.sum(0) / block, "max": lambda rows, block: np.max(rows, axis=0)}


def by_the_paper(q, k, v, *, block, segment, tau, query_pool="mean", key_pool="mean", force_first=True):
    """One head, (t, d) float64, one step after another: order of keys, shares of blocks, blocks kept, output."""
    (t, d), blocks = q.shape, -(-len(q) // block)
    complete = len(q) // segment * segment
    heaviness = np.zeros(complete)
    for i in range(t - block, t):
        weights = np.exp(k[:complete] @ q[i] / math.sqrt(d))
        heaviness += weights / weights.sum()
    order = [j for s in range(0, complete, segment) for j in sorted(range(s, s + segment), key=lambda j: -heaviness[j])]
    order += range(complete, t)
    k, v = k[order], v[order]
    shares, keep, out = np.zeros((blocks, blocks)), np.zeros((blocks, blocks), bool), np.zeros((t, d))
    for i in range(blocks):
        mine = i * block // segment
        earlier = [j for j in range(blocks) if j * block // segment < mine]
        for j in earlier:
            one, other = (
                POOLS[query_pool](q[i * block :][:block], block),
                POOLS[key_pool](k[j * block :][:block], block),
            )
            shares[i, j] = math.exp(one @ other / math.sqrt(d))
        shares[i] /= shares[i].sum() or 1
        for j in sorted(earlier, key=lambda j: -shares[i, j]):
            if shares[i][keep[i]].sum() < tau:
                keep[i, j] = True
        first = order.index(0) // block if force_first else -1
        keep[i, [j for j in range(blocks) if j * block // segment == mine or j == first]] = True
    for i in range(t):
        seen = [slot for slot in range(t) if order[slot] <= i and keep[i // block, slot // block]]
        weights = np.exp(k[seen] @ q[i] / math.sqrt(d))
        out[i] = weights @ v[seen] / weights.sum()
    return order, shares, keep, out


RELEASED = ({"query_pool": "max"}, {"key_pool": "max", "force_first": False}, {"query_pool": "max", "key_pool": "max"})


@pytest.mark.parametrize(
    ("t", "tau", "choose"), [(128, 0.6, {}), (150, 0.6, {}), (150, 0.9, {}), *((128, 0.6, how) for how in RELEASED)]
)
def test_the_method_is_the_paper_s_loop_and_has_the_released_code_s_options(t, tau, choose, assert_close):
    q, k, v = qkv(t=t, d=4)
    out, mask = pbs_attention(q, k, v, block_size=16, segment_size=32, threshold=tau, **choose)
    for h in range(2):
        one_head = (x[0, h].double().numpy() for x in (q, k, v))
        order, shares, keep, wanted = by_the_paper(*one_head, block=16, segment=32, tau=tau, **choose)
        assert mask.perm[0, h].tolist() == order
        assert_close(mask.block_scores[0, h], shares)
        assert_close(mask.keep[0, h], keep)
        assert_close(out[0, h], wanted)


def test_means_are_taken_over_sorted_keys():
    heavy = math.log(4)
    q = np.ones((1, 1, 8, 1), np.float32)
    k = np.float32([0, heavy, 0, heavy, 0, 0, 0, 0]).reshape(1, 1, 8, 1)
    how = {"block_size": 2, "segment_size": 4}
    apart, together = (scored_mask(q, k, permute=order, **how).block_scores[0, 0, 2:] for order in ("none", "keys"))
    np.testing.assert_allclose(apart, [[0.5, 0.5, 0, 0]] * 2)  # blocks (0, ln 4) and (0, ln 4)
    np.testing.assert_allclose(together, [[0.8, 0.2, 0, 0]] * 2, rtol=1e-6)  # blocks (ln 4, ln 4) and (0, 0)


def test_order_of_keys_is_free_and_order_of_queries_moves_rows(assert_close):
    q, k, v = qkv(dtype=torch.float64)
    p = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    plain = dense_attention(q, k, v, causal=False)
    assert_close(dense_attention(q, k[:, :, p], v[:, :, p], causal=False), plain)
    assert_close(dense_attention(q[:, :, p], k, v, causal=False), plain[:, :, p])


def test_sort_stays_in_segments_and_puts_heavy_keys_first():
    q, k, _ = qkv()
    perm = query_aware_permutation(q, k, **SMALL)
    assert segment_permutation_is_valid(perm, 64)
    scores = np.take_along_axis(key_scores(q, k, **SMALL), perm[..., :256], axis=2).reshape(1, 2, 4, 64)
    assert (np.diff(scores, axis=3) <= 0).all()
    assert (perm[..., 256:] == np.arange(256, 300)).all()
    assert not segment_permutation_is_valid(np.arange(300)[::-1], 64)


@pytest.mark.parametrize("permute", ["keys", "none", "random", "queries", "both"])
def test_all_blocks_kept_is_causal_attention(permute, assert_close):
    q, k, v = qkv()
    out, mask = pbs_attention(q, k, v, threshold=1.0, permute=permute, **SMALL)
    assert_close(out, dense_attention(q, k, v))
    assert token_mask(mask, 300).sum() == 2 * 300 * 301 / 2


@pytest.mark.parametrize("permute", ["keys", "queries", "both"])
@pytest.mark.parametrize("threshold", [0.3, [0.5, 0.9]])
def test_kernel_equals_dense_attention_over_the_computed_pairs(threshold, permute, assert_close):
    q, k, v = qkv()
    out, mask = pbs_attention(q, k, v, threshold=threshold, permute=permute, **SMALL)
    allowed = token_mask(mask, 300)
    assert allowed.sum() < 0.95 * 2 * 300 * 301 / 2
    assert_close(out, masked_attention(q, k, v, allowed))


def test_forced_blocks():
    q, k, v = qkv()
    _, mask = pbs_attention(q, k, v, threshold=0.0, **SMALL)
    first = mask.perm.argmin(axis=2) // 16
    for h in range(2):
        assert mask.keep[0, h, :, first[0, h]].all()
        assert mask.keep[0, h][mask.segment_mask].all()
    assert token_mask(mask, 300)[:, :, :64, :64].sum() == 2 * 64 * 65 / 2


def test_kept_prefix_is_minimal_and_includes_the_crossing_block():
    q, k, _ = qkv(h=1)
    perm = query_aware_permutation(q, k, **SMALL)
    k_sorted = np.take_along_axis(k.numpy(), perm[..., None], axis=2)
    mask = permuted_block_selection(q, k_sorted, perm, threshold=0.6, force_first=False, **SMALL)
    for scores, keep in zip(mask.block_scores[0, 0], (mask.keep & ~mask.segment_mask)[0, 0], strict=True):
        if scores.sum() > 0:
            assert scores[keep].sum() >= 0.6 - 1e-6
            assert scores[keep].sum() - scores[keep].min() < 0.6


def test_never_uses_the_future_with_the_mask_held():
    q, k, v = qkv()
    out, mask = pbs_attention(q, k, v, threshold=0.5, **SMALL)
    k[:, :, 100:] += 5
    v[:, :, 100:] -= 5
    again, _ = pbs_attention(q, k, v, mask=mask, **SMALL)
    assert torch.equal(out[:, :, :100], again[:, :, :100])


def test_short_input_is_dense_and_one_segment_needs_no_causality(assert_close):
    q, k, v = qkv(t=60)
    out, mask = pbs_attention(q, k, v, **SMALL)
    assert mask is None
    assert_close(out, dense_attention(q, k, v))
    q, k, v = qkv(h=1, t=2048)
    made = largest_tensor_bytes(lambda: pbs_attention(q, k, v, block_size=128, segment_size=2048))
    assert made <= 2048 * 16 * 4  # nothing of 2048 x 2048
    q, k, v = qkv(t=64)
    out, _ = pbs_attention(q, k, v, causal=False, threshold=1.0, **SMALL)
    assert_close(out, dense_attention(q, k, v, causal=False))


@pytest.mark.slow
def test_sorting_halves_the_blocks_that_heavy_keys_need():
    q, k = heavy_hitters(4096)
    weights = attention_weights(torch.as_tensor(q), torch.as_tensor(k))[0, 0].numpy()
    segment = np.arange(64) // 4
    off = segment[:, None] > segment
    share = {}
    for name, perm in (
        ("identity", np.arange(4096)),
        ("random", random_segment_permutation(q.shape, 256)[0, 0]),
        ("sorted", query_aware_permutation(q, k, block_size=64, segment_size=256)[0, 0]),
    ):
        mass = weights[:, perm].reshape(64, 64, 64, 64).sum(axis=(1, 3), dtype=np.float64) * off
        ordered = -np.sort(-mass, axis=1)
        needed = (np.cumsum(ordered, axis=1) < 0.95 * mass.sum(1, keepdims=True)).sum(1) + 1
        share[name] = needed[4:].sum() / off.sum()
    assert share["identity"] / share["sorted"] >= 2, share
    assert share["random"] / share["sorted"] >= 2, share


def test_trace_agrees_with_the_method():
    q, k, _ = qkv(h=1)
    seen = trace(q, k, threshold=0.5, **SMALL)
    _, mask = pbs_attention(q, k, q, threshold=0.5, **SMALL)
    assert (seen.allowed == token_mask(mask, 300)[0, 0]).all()
    assert seen.density == computed_density(mask)
    assert seen.coverage == pytest.approx(block_coverage(q, k, mask)[0, 0], abs=1e-5)
    assert (seen.order == mask.perm[0, 0]).all() and (seen.keep == computed_blocks(mask)[0, 0]).all()
    np.testing.assert_allclose(seen.effective.sum(1), 1, atol=1e-5)


def test_trace_counts_tiles_and_operations():
    """Blocks of 16 in segments of 64: 300 tokens make 19 blocks, 4 + 4 + 4 + 4 + 3 in their segments."""
    seen = trace(*qkv(h=1)[:2], threshold=1.0, permute="none", **SMALL)
    same, earlier = 4 * 10 + 6, 19 * 20 // 2 - 4 * 10 - 6
    assert seen.facts == {
        "kept blocks outside the diagonal segment": earlier,
        "share of the kept blocks that lie in diagonal segments": same / (same + earlier),
    }
    assert seen.density == 1 and seen.cost.kept == seen.cost.dense
    assert seen.cost.kept.blocks == 190  # those right of the diagonal hold no pair, where keys stand in order
    assert seen.cost.dense.multiply_adds == 2 * 16 * (300 * 301 // 2)
    assert seen.cost.before == 19 * 19 * 16
    sorted_too = trace(*qkv(h=1)[:2], threshold=1.0, **SMALL)
    assert sorted_too.density == 1 and sorted_too.cost.kept.blocks > 190  # sorted keys have pairs right of it, too
    assert sorted_too.cost.before == 19 * 19 * 16 + 16 * 256 * 16  # 256 keys in complete segments
    assert scoring_multiply_adds(10, 4, block_size=16, segment_size=5) == 4 + 10 * 10 * 4  # all ten queries are last


def test_trace_without_causality_counts_all_pairs():
    seen = trace(*qkv(h=1, t=60)[:2], threshold=1.0, causal=False, **SMALL)
    assert seen.density == seen.coverage == 1 and seen.allowed.all()
    assert seen.cost.kept == seen.cost.dense and seen.cost.dense.multiply_adds == 2 * 16 * 60 * 60
    assert seen.cost.before == 16 * 60 * 16 + 4 * 4 * 16
    assert len(seen.key_scores) == 60 and seen.key_scores.sum() == pytest.approx(1, abs=1e-5)
    long = trace(*qkv(h=1)[:2], dense_limit=299, **SMALL)
    assert long.attention is None and np.isnan(long.coverage) and long.density > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_dtype_grouped_heads_and_a_scale(dtype):
    q, k, v = (x.to(dtype) for x in qkv(h=4))
    k, v = k[:, ::2], torch.cat([v, v], -1)[:, ::2]
    out, mask = pbs_attention(q, k, v, threshold=0.5, scale=0.5, **SMALL)
    wide = (2 * q.float(), *(x.float().repeat_interleave(2, 1) for x in (k, v)))
    wanted, wanted_mask = pbs_attention(*wide, threshold=0.5, **SMALL)
    assert out.dtype == dtype
    assert (mask.keep == wanted_mask.keep).all() and (mask.perm == wanted_mask.perm).all()
    eps = max(4 * torch.finfo(dtype).eps, 2e-6)
    assert torch.allclose(out.float(), wanted, atol=eps, rtol=eps)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_seen(side, causal, assert_close):
    """At threshold 1 real tokens get dense attention over real tokens, whatever padding holds; below, never more."""
    q, k, v = qkv(b=2)
    real = torch.ones(2, q.shape[2], dtype=torch.bool)
    real[1, slice(0, 130) if side == "left" else slice(170, None)] = False
    how = SMALL if causal else SMALL | {"segment_size": 304, "causal": False}
    allowed = real[:, None, None]
    wanted = masked_attention(q, k, v, allowed, causal=causal)
    for x in (q, k, v):
        x[~real[:, None].expand(x.shape[:3])] = 1e4
    out, _ = pbs_attention(q, k, v, threshold=1.0, attn_mask=allowed, **how)
    assert_close(out[0], wanted[0])
    assert_close(out[1][:, real[1]], wanted[1][:, real[1]])
    out, mask = pbs_attention(q, k, v, threshold=0.4, attn_mask=allowed, **how)
    assert_close(
        out[1][:, real[1]],
        masked_attention(q, k, v, torch.as_tensor(token_mask(mask, q.shape[2])) & allowed, causal=causal)[1][
            :, real[1]
        ],
    )
    scored = real[1, : mask.perm.shape[2]].numpy()[mask.perm[1, 0]]
    assert not mask.keep[1, 0][:, [not part.any() for part in np.split(scored, range(16, len(scored), 16))]].any()


@pytest.mark.parametrize("tq", [1, 40, 150])
def test_queries_after_a_cache(tq, assert_close):
    q, k, v = qkv()
    out, mask = pbs_attention(q[:, :, -tq:], k, v, threshold=1.0, **SMALL)
    assert_close(out, masked_attention(q[:, :, -tq:], k, v, torch.ones(1, 1, dtype=torch.bool)))
    if tq > 1:
        out, mask = pbs_attention(q[:, :, -tq:], k, v, threshold=0.4, **SMALL)
        allowed = torch.as_tensor(token_mask(mask, q.shape[2]))[:, :, -tq:]
        assert_close(out, masked_attention(q[:, :, -tq:], k, v, allowed))


def test_added_masks_are_added_by_original_position(assert_close):
    q, k, v = qkv()
    distance = torch.arange(300)[:, None] - torch.arange(300)
    added = torch.where(distance < 90, -0.05 * distance.abs(), torch.finfo(torch.float32).min)
    causal = added.masked_fill(distance < 0, -torch.inf)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=causal)
    out, mask = pbs_attention(q, k, v, threshold=1.0, attn_mask=added, **SMALL)
    assert_close(out, wanted)
    assert mask.keep.sum() < mask.keep.size / 2


def test_gradients_are_those_of_dense_attention_over_the_computed_pairs(assert_close):
    q, k, v = (x.double().requires_grad_() for x in qkv())
    out, mask = pbs_attention(q, k, v, threshold=0.4, **SMALL)
    dense = masked_attention(q, k, v, token_mask(mask, 300))
    grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, wanted = (torch.autograd.grad(x, (q, k, v), grad) for x in (out, dense))
    for mine, theirs in zip(found, wanted, strict=True):
        assert_close(mine, theirs)
    with pytest.raises(ValueError, match="gradients"):
        pbs_attention(q.float(), k.float(), v.float(), permute="queries", threshold=0.4, **SMALL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segment_size": 40}, "multiple of block_size"),
        ({"block_size": 0}, "multiple of block_size"),
        ({"segment_size": 0}, "multiple of block_size"),
        ({"k": torch.zeros(1, 2, 200, 16)}, "h a multiple of hk"),
        ({"v": torch.zeros(1, 2, 200, 16)}, "h a multiple of hk"),
        ({"permute": "sideways"}, "permute must be one of"),
        ({"threshold": 2.0}, "threshold"),
        ({"causal": False}, "one segment"),
        ({"k": torch.zeros(1, 3, 300, 16), "v": torch.zeros(1, 3, 300, 16)}, "h a multiple of hk"),
        ({"permute": "both", "attn_mask": torch.ones(300, 300, dtype=torch.bool)}, "sorted queries are for teaching"),
    ],
)
def test_bad_input_is_named(change, words):
    q, k, v = qkv()
    args = {"q": q, "k": k, "v": v} | SMALL | change
    with pytest.raises(ValueError, match=words):
        pbs_attention(args.pop("q"), args.pop("k"), args.pop("v"), **args)


def test_an_unknown_order_is_refused_where_blocks_are_scored_alone():
    q, k, _ = qkv(t=64)
    with pytest.raises(ValueError, match="scored_mask: permute must be one of keys, queries, both, none, random"):
        scored_mask(q, k, permute="sideways", **SMALL)


def test_threshold_one_keeps_blocks_whose_estimate_underflows():
    q, k, v = qkv(h=1)
    q, k = 40 * q.abs(), 0.1 * k
    k[:, :, 64:80] += 40
    q[:, :, 200] = -q[:, :, 200]
    _, mask = pbs_attention(q, k, v, threshold=1.0, **SMALL)
    eligible = np.arange(19)[:, None] // 4 > np.arange(19) // 4
    assert (mask.block_scores[0, 0][eligible] == 0).any()
    assert mask.keep[0, 0][eligible].all()
    assert token_mask(mask, 300).sum() == 300 * 301 / 2


@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_density_and_blocks_count_permitted_pairs_wherever_rows_and_keys_stand(threshold):
    q, k, v = qkv(t=120)
    for permute in ("none", "keys", "queries", "both", "random"):
        _, mask = pbs_attention(q, k, v, threshold=threshold, permute=permute, **SMALL)
        pairs = 0
        for b, h in np.ndindex(mask.keep.shape[:2]):
            seen = np.tri(120, dtype=bool)[mask.query_perm[b, h]][:, mask.perm[b, h]]
            kept = np.kron(mask.keep[b, h], np.ones((16, 16), bool))[:120, :120] & seen
            pairs += kept.sum()
            padded = np.zeros((128, 128), bool)
            padded[:120, :120] = kept
            assert (computed_blocks(mask)[b, h] == padded.reshape(8, 16, 8, 16).any(axis=(1, 3))).all()
        assert computed_density(mask) == pairs / (mask.keep.shape[0] * mask.keep.shape[1] * 120 * 121 / 2) <= 1


def test_without_causality_any_length_is_sorted_whole(assert_close):
    q, k, v = qkv(t=100)
    out, mask = pbs_attention(q, k, v, causal=False, threshold=1.0, block_size=16, segment_size=112)
    scores = np.take_along_axis(key_scores(q, k, block_size=16, segment_size=100), mask.perm, axis=2)
    assert (np.diff(scores, axis=2) <= 0).all()
    assert_close(out, dense_attention(q, k, v, causal=False))


@pytest.mark.parametrize("name", ["perm", "query_perm"])
def test_orders_that_leave_their_segment_are_refused(name):
    q, k, _ = qkv()
    orders = {"perm": np.broadcast_to(np.arange(300), (1, 2, 300))}
    orders[name] = np.broadcast_to(np.arange(300)[::-1], (1, 2, 300))
    with pytest.raises(ValueError, match=f"{name} must be"):
        permuted_block_selection(q, k, orders.pop("perm"), **orders, **SMALL)


class Counted(np.ndarray):
    """An array that counts the operations of its matrix products."""

    flops = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(x) if isinstance(x, Counted) else x for x in inputs]
        if ufunc is np.matmul:
            Counted.flops += 2 * plain[0].size * plain[1].shape[-1]
        kwargs = {key: tuple(map(np.asarray, x)) if key == "out" else x for key, x in kwargs.items()}
        found = getattr(ufunc, method)(*plain, **kwargs)
        return found.view(Counted) if isinstance(found, np.ndarray) else found


@pytest.mark.parametrize("permute", ["keys", "none", "random"])
def test_deciding_what_to_skip_costs_one_row_of_blocks_and_the_block_means(permute):
    from torch.utils.flop_counter import FlopCounterMode

    q, k, _ = (x.numpy().view(Counted) for x in qkv(h=1, t=1024))
    Counted.flops = 0
    with FlopCounterMode(display=False) as counter:
        mask = select_again(scored_mask(q, k, permute=permute, **SMALL), 0.9)
    spent = Counted.flops + counter.get_total_flops()
    assert spent == 2 * scoring_multiply_adds(1024, 16, permute=permute, **SMALL)
    assert spent < 2 * 1024**2 * 16 / 30
    plain, _ = (np.asarray(x) for x in (q, k))
    assert (mask.keep == pbs_attention(plain, np.asarray(k), plain, permute=permute, **SMALL)[1].keep).all()


def test_curve_scores_once_and_gives_what_each_threshold_gives_alone(monkeypatch):
    import workbench.models.attention.pbs_mask as module

    q, k, _ = qkv()
    scored, calls = module.pooled_block_scores, []
    monkeypatch.setattr(module, "pooled_block_scores", lambda *a, **n: calls.append(1) or scored(*a, **n))
    thresholds = (0.2, 0.5, 0.8, 1.0)
    density, coverage = coverage_curve(q, k, thresholds, **SMALL)
    assert len(calls) == 1
    for at, threshold in enumerate(thresholds):
        _, mask = pbs_attention(q, k, q, threshold=threshold, **SMALL)
        assert density[at] == computed_density(mask)
        assert coverage[at] == pytest.approx(block_coverage(q, k, mask).mean(), abs=1e-12)
    assert (np.diff(density) > 0).all() and (np.diff(coverage) > 0).all()
    assert coverage[-1] == pytest.approx(1)


@pytest.mark.parametrize("permute", ["keys", "both"])
def test_mass_of_tiles_is_the_true_attention_in_the_order_of_the_mask(permute):
    q, k, _ = qkv(h=1, t=100)
    mask = scored_mask(q, k, permute=permute, **SMALL)
    weights = attention_weights(q, k)[0, 0].numpy()[mask.query_perm[0, 0]][:, mask.perm[0, 0]]
    padded = np.pad(weights, (0, 12))
    wanted = padded.reshape(7, 16, 7, 16).sum(axis=(1, 3))
    np.testing.assert_allclose(permuted_block_mass(q, k, mask)[0, 0], wanted, atol=1e-5)


def test_raising_the_threshold_only_adds_blocks():
    q, k, _ = qkv()
    scored = scored_mask(q, k, **SMALL)
    keeps = [select_again(scored, tau).keep for tau in (0.0, 0.2, 0.5, 0.9, 1.0)]
    for fewer, more in itertools.pairwise(keeps):
        assert (fewer <= more).all() and more.sum() > fewer.sum()


def test_sorted_queries_never_see_a_full_mask():
    q, k, v = qkv(h=1, t=2048)
    made = largest_tensor_bytes(lambda: pbs_attention(q, k, v, permute="both", threshold=0.3, **SMALL))
    assert made <= 2048 * 16 * 4
