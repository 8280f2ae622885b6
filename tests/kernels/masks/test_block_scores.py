"""Block scores against the dense logits they sample."""

import numpy as np
import pytest

from kernels.masks.block_scores import (
    antidiagonal_reshape,
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
        ({"mode": "zigzag"}, ValueError, "mode must be one of"),
    ],
)
def test_bad_input_is_named(change, error, words):
    args = {"q": np.zeros((1, 1, 16, 4)), "k": np.zeros((1, 1, 16, 4)), "block_size": 8, "stride": 4} | change
    with pytest.raises(error, match=words):
        xattn_block_scores(args.pop("q"), args.pop("k"), **args)
