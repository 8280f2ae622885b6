"""Block scores against the dense logits they sample."""

import numpy as np
import pytest

from kernels.masks.block_scores import (
    antidiagonal_reshape,
    lines_read,
    mean_pool_block_scores,
    true_block_mass,
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
    pooled = mean_pool_block_scores(late, k, block_size=16, causal=True)
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


@pytest.mark.parametrize("seed", range(40))
def test_random_lines_are_neither_diagonal(seed):
    line = lines_read(4, mode="random", seed=seed)
    assert not np.array_equal(line, np.eye(4)) and not np.array_equal(line, np.eye(4)[::-1])


def test_norm_divides_the_logits_and_queries_may_be_skipped(rng):
    q, k = qk(rng)
    a = xattn_block_scores(q, k, block_size=16, stride=4, norm=2.0)
    np.testing.assert_allclose(a, xattn_block_scores(q / 2, k, block_size=16, stride=4), atol=1e-12)
    every = xattn_block_scores(q, k, block_size=16, stride=4, query_every=2)
    np.testing.assert_allclose(every.sum(-1), 2, atol=1e-12)
    with_others = q.copy()
    with_others.reshape(2, 3, 8, 8, 8)[:, :, :, 4:] = rng.standard_normal((2, 3, 8, 4, 8))
    np.testing.assert_array_equal(xattn_block_scores(with_others, k, block_size=16, stride=4, query_every=2), every)


def test_mean_pool_is_softmax_of_means_and_hides(rng):
    q, k = qk(rng, b=1, h=1, t=32, d=4)
    hidden = np.triu(np.ones((4, 4), bool))
    a = mean_pool_block_scores(q, k, block_size=8, hidden=hidden)
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


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stride": 5}, ValueError, "multiple of stride 5"),
        ({"q": np.zeros((1, 1, 16, 4), int)}, TypeError, "float32 or float64"),
        ({"k": np.zeros((1, 2, 16, 4))}, ValueError, "equal b, h, d"),
        ({"k": np.full((1, 1, 16, 4), np.nan)}, ValueError, "NaN"),
        ({"k": np.zeros((1, 1, 8, 4))}, ValueError, "last positions"),
        ({"query_every": 3}, ValueError, "times query_every 3"),
        ({"norm": 0.0}, ValueError, "norm must be above 0"),
        ({"mode": "zigzag"}, ValueError, "mode must be one of"),
    ],
)
def test_bad_input_is_named(change, error, words):
    args = {"q": np.zeros((1, 1, 16, 4)), "k": np.zeros((1, 1, 16, 4)), "block_size": 8, "stride": 4} | change
    with pytest.raises(error, match=words):
        xattn_block_scores(args.pop("q"), args.pop("k"), **args)
