"""Power iteration against the loop of the paper and the truncated SVD."""

from itertools import pairwise

import numpy as np
import pytest

from kernels.factor.power_iteration import (
    power_iteration_lowrank,
    power_iteration_lowrank_reference,
    power_iteration_lowrank_work,
)


def residual(e, a, b):
    return np.linalg.norm(e - a @ np.swapaxes(b, -1, -2))


def best(e, rank):
    return np.sqrt((np.linalg.svd(e, compute_uv=False)[rank:] ** 2).sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loops", [1, 2, 3])
def test_factors_equal_the_loop_of_the_paper(loops, dtype, rng, assert_close):
    e = rng.standard_normal((2, 3, 40, 24)).astype(dtype)
    a, b = power_iteration_lowrank(e, 4, loops=loops, seed=5)
    start = np.random.default_rng(5).random((24, 4))
    for i in range(2):
        for j in range(3):
            q, p = power_iteration_lowrank_reference(e[i, j], 4, start, loops)
            assert_close((a[i, j] @ b[i, j].T), (q @ p.T).astype(dtype))
    assert a.dtype == b.dtype == dtype and a.shape == (2, 3, 40, 4) and b.shape == (2, 3, 24, 4)


def test_an_exact_rank_is_recovered_with_orthonormal_columns(rng):
    e = (rng.standard_normal((50, 2)) @ rng.standard_normal((2, 30))).astype(np.float32)
    a, b = power_iteration_lowrank(e, 2)
    assert residual(e, a, b) < 1e-5 * np.linalg.norm(e)
    np.testing.assert_allclose(a.T @ a, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_the_residual_lies_between_the_svd_and_the_matrix(rank, rng):
    e = rng.standard_normal((64, 32)) @ np.diag(0.8 ** np.arange(32))
    found = residual(e, *power_iteration_lowrank(e, rank))
    assert best(e, rank) <= found * (1 + 1e-12) and found < np.linalg.norm(e)


def test_with_qr_in_every_pass_more_passes_come_to_the_svd(rng):
    e = rng.standard_normal((60, 20)) @ np.diag(0.7 ** np.arange(20))
    found = [
        residual(e, *power_iteration_lowrank(e, 3, loops=loops, orthogonalize="every")) for loops in (1, 2, 5, 20, 300)
    ]
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(found))
    assert found[-1] == pytest.approx(best(e, 3), rel=1e-4)


def test_without_qr_in_between_many_passes_lose_the_rank(rng):
    e = (rng.standard_normal((60, 20)) @ np.diag(0.5 ** np.arange(20))).astype(np.float32)
    few, many = (residual(e, *power_iteration_lowrank(e, 3, loops=loops)) for loops in (6, 30))
    assert many > 1.2 * few
    assert residual(e, *power_iteration_lowrank(e, 3, loops=30, orthogonalize="every")) <= few


def test_zeros_give_zeros_and_rank_zero_gives_nothing():
    a, b = power_iteration_lowrank(np.zeros((9, 5), np.float32), 2)
    assert np.isfinite(a).all() and not (a @ b.T).any()
    a, b = power_iteration_lowrank(np.ones((2, 9, 5)), 0)
    assert a.shape == (2, 9, 0) and b.shape == (2, 5, 0)


def test_a_matrix_has_the_same_factors_in_any_stack_and_seeds_differ(rng):
    e = rng.standard_normal((3, 40, 16)).astype(np.float32)
    a, b = power_iteration_lowrank(e, 2, seed=1)
    alone = power_iteration_lowrank(e[1], 2, seed=1)
    np.testing.assert_array_equal(a[1], alone[0])
    np.testing.assert_array_equal(b[1], alone[1])
    other = power_iteration_lowrank(e[1], 2, seed=2)
    assert not np.array_equal(other[0], alone[0])
    assert residual(e[1], *other) == pytest.approx(residual(e[1], *alone), rel=0.02)


def test_work_counts():
    work = power_iteration_lowrank_work((2, 30, 8), 4, loops=3)
    assert work.flops == 4 * 3 * 2 * 30 * 8 * 4 and work.gathers == 0
    assert work.bytes_streamed == 2 * 3 * 4 * 2 * (30 * 8 + 4 * 38)


def test_bad_input_is_named(rng):
    e = rng.standard_normal((6, 4))
    with pytest.raises(ValueError, match="rank must be an int from 0 to 4, got 5"):
        power_iteration_lowrank(e, 5)
    with pytest.raises(ValueError, match="loops must be an int from 1 to 1000"):
        power_iteration_lowrank(e, 1, loops=0)
    with pytest.raises(ValueError, match="orthogonalize must be one of last, every"):
        power_iteration_lowrank(e, 1, orthogonalize="never")
    with pytest.raises(ValueError, match="at least two axes"):
        power_iteration_lowrank(e[0], 1)
    with pytest.raises(ValueError, match="e must be finite"):
        power_iteration_lowrank(np.where(e > 0, np.nan, e), 1)
