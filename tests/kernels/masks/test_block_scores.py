"""Block scores against the dense logits they sample."""

from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.masks.block_scores import (
    antidiagonal_reshape,
    lines_read,
    pooled_block_scores,
    true_block_mass,
    visible_blocks,
    xattn_block_scores,
)


def qk(rng, b=2, h=3, t=64, d=8, dtype=np.float64):
    return (rng.standard_normal((b, h, t, d)).astype(dtype) for _ in range(2))


@pytest.mark.parametrize("stride", [1, 2, 4, 16])
def test_group_products_are_the_antidiagonal_sums(stride, rng):
    q, k = qk(rng)
    qg, kg = antidiagonal_reshape(q, k, stride)
    tiles = (q @ k.swapaxes(2, 3)).reshape(2, 3, 64 // stride, stride, 64 // stride, stride)
    line = np.add.outer(np.arange(stride), np.arange(stride)) == stride - 1
    np.testing.assert_allclose(qg @ kg.swapaxes(2, 3), np.einsum("bhixjy,xy->bhij", tiles, line), atol=1e-10)


def test_hand_case():
    q = np.array([1.0, 2, 3, 4]).reshape(1, 1, 4, 1)
    k = np.array([1.0, 0, 0, 1]).reshape(1, 1, 4, 1)
    a = xattn_block_scores(q, k, block_size=2, stride=2)
    np.testing.assert_allclose(a[0, 0], [[1, 0], [0.62245933, 0.37754067]], atol=1e-8)


@pytest.mark.parametrize("causal", [True, False])
def test_stride_one_is_the_true_mass(causal, rng):
    q, k = qk(rng, t=70)
    ours = xattn_block_scores(q, k, block_size=16, stride=1, causal=causal)
    np.testing.assert_allclose(ours, true_block_mass(q, k, block_size=16, causal=causal), atol=1e-10)


def test_rows_sum_to_tiles_per_block_and_scale_moves_between_q_and_k(rng):
    q, k = qk(rng, dtype=np.float32)
    a = xattn_block_scores(q, k, block_size=32, stride=8)
    np.testing.assert_allclose(a.sum(-1), 4, atol=1e-5)
    np.testing.assert_allclose(xattn_block_scores(4 * q, k / 4, block_size=32, stride=8), a, atol=1e-6)


def test_last_queries_equal_the_last_rows_of_all(rng):
    q, k = qk(rng)
    a = xattn_block_scores(q, k, block_size=16, stride=4)
    np.testing.assert_allclose(xattn_block_scores(q[:, :, 32:], k, block_size=16, stride=4), a[:, :, 2:], atol=1e-12)


@pytest.mark.parametrize("queries", [1, 5, 16, 23, 40])
def test_queries_after_a_cache_get_their_rows_wherever_they_begin(queries, rng):
    """Stride 1 has no tile to cut, so every row of blocks must equal the true mass, whatever the offset."""
    q, k = qk(rng, t=70)
    late = q[:, :, 70 - queries :]
    ours = xattn_block_scores(late, k, block_size=16, stride=1)
    np.testing.assert_allclose(ours, true_block_mass(late, k, block_size=16), atol=1e-10)
    assert ours.shape[2] == 5 - (70 - queries) // 16
    whole = true_block_mass(q, k, block_size=16)[:, :, -ours.shape[2] :]
    np.testing.assert_allclose(ours[:, :, 1:], whole[:, :, 1:], atol=1e-10)
    np.testing.assert_allclose(ours.sum(), 6 * queries)
    pooled = pooled_block_scores(late, k, block_size=16, causal=True)
    np.testing.assert_allclose(pooled.sum(-1), 1)
    assert pooled.shape == ours.shape and (pooled[:, :, 0, 6 - ours.shape[2] :] == 0).all()


@pytest.mark.parametrize("mode", ["antidiagonal", "diagonal", "random", "double", "triple"])
def test_lines_read_say_what_the_score_sums(mode, rng):
    q, k = qk(rng, b=1, h=1, t=16)
    qg, kg = antidiagonal_reshape(q, k, 8, mode=mode, seed=3)
    tiles = (q @ k.swapaxes(2, 3)).reshape(2, 8, 2, 8)
    counted = np.einsum("ixjy,xy->ij", tiles, lines_read(8, mode=mode, seed=3))
    np.testing.assert_allclose((qg @ kg.swapaxes(2, 3))[0, 0], counted, atol=1e-10)
    each = {"double": 2, "triple": 4}.get(mode, 1)
    assert (lines_read(8, mode=mode).sum(0) == each).all() and (lines_read(8, mode=mode).sum(1) == each).all()


def test_lines_of_neighbouring_keys_by_hand():
    """Lane t reads query 3 - t and key t; "double" also the key after it, "triple" that, itself and the key before."""
    assert lines_read(4, mode="antidiagonal").tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert lines_read(4, mode="diagonal").tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert lines_read(4, mode="double").tolist() == [[1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]]
    assert lines_read(4, mode="triple").tolist() == [[1, 0, 1, 2], [0, 1, 2, 1], [1, 2, 1, 0], [2, 1, 0, 1]]


def times_counted(mode, stride, x, y):
    """How often the logit of query x and key y of a tile counts."""
    if mode == "diagonal":
        return int(x == y)
    on, after, before = ((x + y - at) % stride == 0 for at in (stride - 1, stride, stride - 2))
    return {"antidiagonal": on, "double": on + after, "triple": 2 * on + after + before}[mode]


def softmax(logits):
    """Shares of a dict of logits."""
    weights = {at: exp(x) for at, x in logits.items()}
    return {at: w / sum(weights.values()) for at, w in weights.items()}


@st.composite
def ragged(draw):
    """Queries (the last positions of the keys if causal), keys, and how to score them; lengths of any kind."""
    causal, stride, every = draw(st.booleans()), draw(st.sampled_from((1, 2, 3, 4))), draw(st.sampled_from((1, 2)))
    block = stride * every * draw(st.integers(1, 2))
    tk = draw(st.integers(1, 17))
    tq = draw(st.integers(1, tk if causal else 17))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    q, k = (rng.standard_normal((1, 1, t, 2)) for t in (tq, tk))
    return q, k, {"block_size": block, "causal": causal}, {"stride": stride, "query_every": every}


@settings(derandomize=True, deadline=None, max_examples=50)
@given(ragged(), st.sampled_from(("antidiagonal", "diagonal", "double", "triple")), st.sampled_from((1.0, 2.0)))
def test_scores_are_the_paper_s_double_loop(drawn, mode, norm):
    q, k, how, lines = drawn
    block, causal, stride = how["block_size"], how["causal"], lines["stride"]
    tq, tk = q.shape[2], k.shape[2]
    offset = tk - tq if causal else 0
    first, end = offset // block * block, -(-(offset + tq) // block) * block

    def logit(i, j):
        inside = offset <= i < offset + tq and j < tk
        return q[0, 0, i - offset] @ k[0, 0, j] / sqrt(2) if inside else 0.0

    wanted = np.zeros(((end - first) // block, -(-tk // block)))
    for i in range(first, end, stride * lines["query_every"]):
        if i + stride <= offset or i >= offset + tq:
            continue  # a tile row of padding alone
        means = {}
        seen = i + stride * lines["query_every"]  # by the last of the groups that this one stands for
        for j in range(0, min(tk, seen) if causal else tk, stride):
            tile = [(x, y) for x in range(stride) for y in range(stride)]
            counted = sum(times_counted(mode, stride, x, y) * logit(i + x, j + y) for x, y in tile)
            means[j] = counted / stride / norm
        for j, share in softmax(means).items():
            wanted[(i - first) // block, j // block] += share
    found = xattn_block_scores(q, k, mode=mode, norm=norm, **how, **lines)[0, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-10)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(ragged())
def test_true_mass_and_pooled_mass_are_double_loops(drawn):
    q, k, how, _ = drawn
    block, causal = how["block_size"], how["causal"]
    tq, tk = q.shape[2], k.shape[2]
    offset = tk - tq if causal else 0
    first, end = offset // block * block, -(-(offset + tq) // block) * block
    rows, cols = (end - first) // block, -(-tk // block)
    mass, pooled = np.zeros((2, rows, cols))
    for i in range(offset, offset + tq):
        shares = softmax({j: q[0, 0, i - offset] @ k[0, 0, j] / sqrt(2) for j in range(i + 1 if causal else tk)})
        for j, share in shares.items():
            mass[(i - first) // block, j // block] += share
    for row in range(rows):
        start = first + row * block
        q_mean = sum(q[0, 0, i - offset] for i in range(max(start, offset), min(start + block, offset + tq))) / block
        k_means = [k[0, 0, j : j + block].sum(0) / block for j in range(0, tk, block)]
        seen = cols if not causal else first // block + row + 1
        for col, share in softmax({j: q_mean @ k_means[j] / sqrt(2) for j in range(seen)}).items():
            pooled[row, col] = share
    np.testing.assert_allclose(true_block_mass(q, k, **how)[0, 0], mass, atol=1e-10)
    np.testing.assert_allclose(pooled_block_scores(q, k, **how)[0, 0], pooled, atol=1e-10)


@pytest.mark.parametrize("seed", range(40))
def test_random_lines_are_neither_diagonal(seed):
    for stride in (3, 4):
        line = lines_read(stride, mode="random", seed=seed)
        assert not np.array_equal(line, np.eye(stride)) and not np.array_equal(line, np.eye(stride)[::-1])


def test_norm_divides_the_logits_and_queries_may_be_skipped(rng):
    q, k = qk(rng)
    a = xattn_block_scores(q, k, block_size=16, stride=4, norm=2.0)
    np.testing.assert_allclose(a, xattn_block_scores(q / 2, k, block_size=16, stride=4), atol=1e-12)
    every = xattn_block_scores(q, k, block_size=16, stride=4, query_every=2)
    np.testing.assert_allclose(every.sum(-1), 2, atol=1e-12)
    with_others = q.copy()
    with_others.reshape(2, 3, 8, 8, 8)[:, :, :, 4:] = rng.standard_normal((2, 3, 8, 4, 8))
    np.testing.assert_array_equal(xattn_block_scores(with_others, k, block_size=16, stride=4, query_every=2), every)


def test_a_group_that_stands_for_others_sees_the_tiles_that_the_last_of_them_sees(rng):
    """As in the released code: of the causal mask of 12 x 12 tiles it takes every third row, from the third on."""
    q, k = qk(rng, b=1, h=1, t=24, d=4)
    groups, keys = antidiagonal_reshape(q, k, 2)
    logits = groups[0, 0, ::3] @ keys[0, 0].T / (2 * sqrt(4)) + np.where(np.tri(12)[2::3], 0, -np.inf)
    mass = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = xattn_block_scores(q, k, block_size=6, stride=2, query_every=3)[0, 0]
    np.testing.assert_allclose(found, mass.reshape(4, 4, 3).sum(2), atol=1e-12)


@pytest.mark.parametrize("query_pool", ["mean", "max"])
@pytest.mark.parametrize("key_pool", ["mean", "max"])
def test_a_block_may_be_pooled_by_its_largest_entries(query_pool, key_pool, rng):
    """As the code released for PBS-Attn does: padding counts as zeros, in the maximum as well."""
    q, k = qk(rng, b=1, h=1, t=10, d=3)
    pool = {"mean": lambda rows: rows.sum(0) / 4, "max": lambda rows: np.max([*rows, np.zeros(3)][:4], axis=0)}
    blocks = [[pool[how](x[0, 0, i : i + 4]) for i in (0, 4, 8)] for x, how in ((q, query_pool), (k, key_pool))]
    wanted = [softmax({j: a @ b / sqrt(3) for j, b in enumerate(blocks[1])}) for a in blocks[0]]
    found = pooled_block_scores(q, k, block_size=4, query_pool=query_pool, key_pool=key_pool)[0, 0]
    np.testing.assert_allclose(found, [[row[j] for j in range(3)] for row in wanted], atol=1e-12)
    with pytest.raises(ValueError, match="key_pool must be one of"):
        pooled_block_scores(q, k, block_size=4, key_pool="median")


def test_mean_pool_is_softmax_of_means_and_hides(rng):
    q, k = qk(rng, b=1, h=1, t=32, d=4)
    hidden = np.triu(np.ones((4, 4), bool))
    a = pooled_block_scores(q, k, block_size=8, hidden=hidden)
    assert (a[0, 0, 0] == 0).all()
    logits = q.reshape(4, 8, 4).mean(1) @ k.reshape(4, 8, 4).mean(1).T / 2
    np.testing.assert_allclose(a[0, 0, 3, :3], np.exp(logits[3, :3]) / np.exp(logits[3, :3]).sum(), atol=1e-12)


def test_scoring_costs_one_stride_th_of_the_logits(rng):
    """Nobody computes dense q k^T to decide what to skip: count the multiply-adds of the only product."""

    class Counting(np.ndarray):
        multiply_adds = 0

        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            plain = [np.asarray(x) for x in inputs]
            if ufunc is np.matmul:
                Counting.multiply_adds += plain[0].size * plain[1].shape[-1]
            return getattr(ufunc, method)(*plain, **kwargs)

    q, k = qk(rng, b=1, h=2, t=256, d=8)
    xattn_block_scores(q.view(Counting), k.view(Counting), block_size=32, stride=8)
    assert Counting.multiply_adds == 2 * 256 * 256 * 8 // 8


@pytest.mark.parametrize("query_every", [1, 2])
@pytest.mark.parametrize("cached", [0, 96])
def test_long_inputs_are_scored_in_pieces_without_a_seam(query_every, cached, rng, monkeypatch):
    from kernels.masks import block_scores

    q, k = qk(rng, b=1, h=2, t=256, d=8)
    how = {"block_size": 32, "stride": 4, "query_every": query_every}
    whole = xattn_block_scores(q[:, :, cached:], k, **how)
    monkeypatch.setattr(block_scores, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(xattn_block_scores(q[:, :, cached:], k, **how), whole, rtol=1e-6)


def masked(rng, tq, tk, kind):
    shape = {"pairs": (2, 1, tq, tk), "keys": (2, 1, 1, tk), "plain": (tq, tk)}[kind]
    mask = rng.random(shape) < 0.05
    mask[..., -1] = True
    return np.where(mask, 0.0, -np.inf).astype(np.float32) if kind == "plain" else mask


@pytest.mark.parametrize("kind", ["pairs", "keys", "plain"])
@pytest.mark.parametrize(("tq", "tk", "causal"), [(70, 70, True), (70, 70, False), (30, 70, True), (50, 70, False)])
def test_masks_hide_whole_tiles_from_scores_and_pairs_from_the_oracle(kind, tq, tk, causal, rng):
    q, k = rng.standard_normal((2, 2, tq, 8)), rng.standard_normal((2, 2, tk, 8))
    mask = masked(rng, tq, tk, kind)
    seen = np.broadcast_to(mask if mask.dtype == bool else mask == 0, (2, 2, tq, tk))
    first = tk - tq if causal else 0
    blocks = visible_blocks(mask, tq=tq, tk=tk, block_size=16, causal=causal)
    scores = xattn_block_scores(q, k, block_size=16, stride=4, causal=causal, attn_mask=mask)
    tiles = np.zeros((2, 2, scores.shape[2] * 4, scores.shape[3] * 4), bool)
    for b, h, i, j in np.argwhere(seen):
        tiles[b, h, (first % 16 + i) // 4, j // 4] = True
    by_block = tiles.reshape(2, 2, -1, 4, scores.shape[3], 4)
    np.testing.assert_array_equal(np.broadcast_to(blocks, scores.shape), by_block.any(axis=(3, 5)))
    start = first // 16 * 4
    open_to = tiles & ((np.arange(tiles.shape[3]) <= np.arange(tiles.shape[2])[:, None] + start) if causal else True)
    lines = [
        np.pad(x, [(0, 0), (0, 0), pad, (0, 0)])
        for x, pad in ((q, (first % 16, -(first + tq) % 16)), (k, (0, -tk % 16)))
    ]
    wanted = np.zeros(tiles.shape)
    for b, h, i, j in np.argwhere(open_to):
        wanted[b, h, i, j] = sum(lines[0][b, h, 4 * i + 3 - s] @ lines[1][b, h, 4 * j + s] for s in range(4))
    weights = np.where(open_to, np.exp(wanted / (8**0.5 * 4)), 0)
    weights /= np.where(weights.sum(axis=3, keepdims=True) == 0, 1, weights.sum(axis=3, keepdims=True))
    np.testing.assert_allclose(scores, weights.reshape(by_block.shape).sum(axis=(3, 5)), atol=1e-12)
    causal_pairs = np.arange(tk) <= first + np.arange(tq)[:, None] if causal else np.ones((tq, tk), bool)
    logits = np.where(seen & causal_pairs, q @ k.swapaxes(2, 3) / 8**0.5, -np.inf)
    true = np.exp(logits - np.maximum(logits.max(axis=3, keepdims=True), -1e9))
    true /= np.where(true.sum(axis=3, keepdims=True) == 0, 1, true.sum(axis=3, keepdims=True))
    found = true_block_mass(q, k, block_size=16, causal=causal, attn_mask=mask)
    np.testing.assert_allclose(found.sum(axis=(2, 3)), true.sum(axis=(2, 3)))
    np.testing.assert_allclose(
        found[..., 0],
        np.add.reduceat(true[..., :16].sum(axis=3), np.maximum(np.arange(-(first % 16), tq, 16), 0), axis=2),
    )


def test_what_a_mask_adds_enters_the_oracle_by_hand():
    """Equal keys and ln 3 added to one pair of two: shares 3/4 and 1/4; the lowest number leaves nothing."""
    zeros = np.zeros((1, 1, 2, 1))
    mask = np.array([[log(3), 0], [np.finfo(np.float64).min, 0]])
    found = true_block_mass(zeros, zeros, block_size=1, causal=False, attn_mask=mask)
    np.testing.assert_allclose(found[0, 0], [[0.75, 0.25], [0, 1]])


@pytest.mark.parametrize("level", [-5000, 5000])
def test_shares_of_logits_beyond_the_range_of_exp_by_hand(level):
    """Logits of one query are the level and ln 3 more, so the shares are 1/4 and 3/4."""
    q, k = np.ones((1, 1, 2, 1)), np.array([level, level + log(3)]).reshape(1, 1, 2, 1)
    how = {"block_size": 1, "causal": False}
    for found in (xattn_block_scores(q, k, stride=1, **how), pooled_block_scores(q, k, **how)):
        np.testing.assert_allclose(found[0, 0], [[0.25, 0.75]] * 2)
    np.testing.assert_allclose(true_block_mass(q, k, **how)[0, 0], [[0.25, 0.75]] * 2)


def test_masks_of_two_tokens_and_of_none_have_their_blocks():
    mask = np.array([[False, True], [False, False]])
    assert visible_blocks(mask, tq=2, tk=2, block_size=2).tolist() == [[[[True]]]]
    assert visible_blocks(mask, tq=2, tk=2, block_size=1).tolist() == [[[[False, True], [False, False]]]]
    assert visible_blocks(np.ones((0, 5), bool), tq=0, tk=5, block_size=2).shape == (1, 1, 0, 3)
    assert visible_blocks(np.ones((5, 0), bool), tq=5, tk=0, block_size=2).shape == (1, 1, 3, 0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stride": 5}, ValueError, "multiple of stride times query_every, 5"),
        ({"stride": 0}, ValueError, "stride must be an int from 1 to 65536, got 0"),
        ({"block_size": 0}, ValueError, "block_size must be an int of at least 1, got 0"),
        ({"block_size": 8.0}, TypeError, "block_size must be an int of at least 1, got 8.0"),
        ({"k": np.zeros((1, 1, 16, 4), np.float32)}, TypeError, "k is float32, q is float64"),
        ({"q": [1.0]}, TypeError, "q must be a NumPy array of float32 or float64, got list"),
        ({"k": np.zeros((1, 1, 16, 5))}, ValueError, "equal b, h, d"),
        ({"k": np.zeros((16, 4))}, ValueError, "equal b, h, d"),
        ({"query_every": 0}, ValueError, "query_every must be an int from 1 to 65536, got 0"),
        ({"q": np.zeros((1, 1, 16, 4), int)}, TypeError, "float32 or float64"),
        ({"k": np.zeros((1, 2, 16, 4))}, ValueError, "equal b, h, d"),
        ({"k": np.where(np.arange(64) == 63, np.nan, 0).reshape(1, 1, 16, 4)}, ValueError, "k holds NaN"),
        ({"k": np.zeros((1, 1, 8, 4))}, ValueError, "last positions"),
        ({"query_every": 3}, ValueError, "times query_every, 12"),
        ({"norm": 0.0}, ValueError, "norm must be a finite number above 0"),
        ({"mode": "zigzag"}, ValueError, "mode must be one of"),
        ({"attn_mask": np.ones((16, 15), bool)}, ValueError, r"attn_mask must broadcast to \(b, h, 16, 16\)"),
        ({"attn_mask": np.ones((1, 1, 16, 15), bool)}, ValueError, r"got \(1, 1, 16, 15\)"),
        ({"attn_mask": np.ones((1, 1, 15, 16), bool)}, ValueError, r"got \(1, 1, 15, 16\)"),
        ({"attn_mask": np.ones(16, bool)}, ValueError, r"got \(16,\)"),
        ({"attn_mask": np.ones((16, 16), int)}, TypeError, "attn_mask must be a NumPy array of bool"),
    ],
)
def test_bad_input_is_named(change, error, words):
    args = {"q": np.zeros((1, 1, 16, 4)), "k": np.zeros((1, 1, 16, 4)), "block_size": 8, "stride": 4} | change
    with pytest.raises(error, match=words):
        xattn_block_scores(args.pop("q"), args.pop("k"), **args)
