"""K-SVD: sweeps against the formula in NumPy and against the SVD, and that no atom's update raises the error."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.cancel import Cancelled, CancelToken
from kernels.factor.ksvd import (
    code_residual,
    first_dictionary,
    ksvd,
    ksvd_sweep,
    ksvd_sweep_reference,
    ksvd_sweep_work,
)
from kernels.factor.omp import omp


def unit(rng, d, k, dtype=np.float64):
    atoms = rng.standard_normal((d, k))
    return (atoms / np.linalg.norm(atoms, axis=0)).astype(dtype)


def dense(codes):
    return codes.as_csr().toarray().T


def planted(rng, s, d=32, k=16, n=2000):
    atoms, x = np.linalg.qr(rng.standard_normal((d, k)))[0], np.zeros((k, n))
    for column in x.T:
        column[rng.choice(k, s, replace=False)] = rng.standard_normal(s)
    return atoms @ x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k", "n", "s"), [(1, 1, 2, 1), (5, 4, 3, 2), (20, 33, 70, 3), (37, 24, 300, 6)])
def test_a_sweep_equals_the_formula(d, k, n, s, dtype, rng):
    atoms, y = unit(rng, d, k, dtype), rng.standard_normal((d, n)).astype(dtype)
    codes = omp(atoms, y, s)
    found, coded, replaced = ksvd_sweep(atoms, codes, y, power_iters=3)
    wanted, x = ksvd_sweep_reference(atoms, dense(codes), y, power_iters=3)
    tolerance = 2e-4 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(found, wanted, atol=tolerance)
    np.testing.assert_allclose(dense(coded), x, atol=tolerance * np.abs(x).max())
    assert replaced == (np.abs(dense(codes)).sum(1) == 0).sum()
    assert found.dtype == coded.values.dtype == dtype
    assert (coded.indices == codes.indices).all() and (coded.counts == codes.counts).all()


def test_no_update_of_an_atom_raises_the_error(rng):
    y, atoms = rng.standard_normal((24, 90)), unit(rng, 24, 30)
    codes = omp(atoms, y, 5)
    before = np.linalg.norm(code_residual(atoms, codes, y))
    for j in range(30):
        atoms, codes, _ = ksvd_sweep(atoms, codes, y, power_iters=1, first=j, stop=j + 1)
        now = np.linalg.norm(y - atoms @ dense(codes))
        assert now <= before + 1e-10
        before = now
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=0), 1, atol=1e-8)


def test_parts_of_a_sweep_are_the_sweep(rng):
    y, atoms = rng.standard_normal((16, 50)), unit(rng, 16, 12)
    codes = omp(atoms, y, 3)
    whole = ksvd_sweep(atoms, codes, y)
    half = ksvd_sweep(atoms, codes, y, stop=7)
    assert (half[0][:, 7:] == atoms[:, 7:]).all()
    both = ksvd_sweep(half[0], half[1], y, first=7)
    np.testing.assert_allclose(both[0], whole[0], atol=1e-12)
    np.testing.assert_allclose(both[1].values, whole[1].values, atol=1e-12)


def test_many_power_iterations_give_the_best_rank_one_fit(rng):
    y, atoms = rng.standard_normal((20, 40)), unit(rng, 20, 8)
    codes = omp(atoms, y, 3)
    x = dense(codes)
    users = np.flatnonzero(x[0])
    e = (y - atoms @ x + np.outer(atoms[:, 0], x[0]))[:, users]
    u, values, vt = np.linalg.svd(e)
    found, coded, _ = ksvd_sweep(atoms, codes, y, power_iters=400, stop=1)
    sign = np.sign(found[:, 0] @ u[:, 0])
    np.testing.assert_allclose(sign * found[:, 0], u[:, 0], atol=1e-6)
    np.testing.assert_allclose(sign * dense(coded)[0, users], values[0] * vt[0], atol=1e-6)


def test_an_atom_that_none_uses_becomes_the_vector_that_is_worst_each_another(rng):
    atoms = np.eye(6)
    y = np.array([[1.0, 0, 0], [0, 0.1, 0.2], [0, 0.2, 0.1], [0, 3, 0], [0, 0, 2], [0, 0, 0]])
    codes = omp(atoms, y, 1)
    assert codes.indices.ravel().tolist() == [0, 3, 4]
    found, coded, replaced = ksvd_sweep(atoms, codes, y)
    assert replaced == 2  # the first vector is exact, and two are not: atoms 1 and 2 of 1, 2 and 5
    np.testing.assert_allclose(found[:, 1], y[:, 1] / np.linalg.norm(y[:, 1]), atol=1e-12)
    np.testing.assert_allclose(found[:, 2], y[:, 2] / np.linalg.norm(y[:, 2]), atol=1e-12)
    assert (found[:, 5] == atoms[:, 5]).all() and (coded.indices == codes.indices).all()


@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_planted_dictionaries_are_found_from_the_svd(s, seed):
    y = planted(np.random.default_rng(seed), s)
    found = ksvd(y, 16, s, iters=30, init="svd")
    assert found.error < 1e-6
    left_out = np.linalg.svd(y, compute_uv=False)[s:]
    assert np.linalg.norm(left_out) / np.linalg.norm(y) > 0.85


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_history_holds_every_stage_and_the_best_is_returned(dtype, rng):
    y = (rng.standard_normal((24, 24)) @ rng.standard_normal((24, 80))).astype(dtype)
    seen = []
    found = ksvd(y, 12, 4, iters=9, callback=lambda *stage: seen.append(stage))
    assert [(i, word) for i, word, _ in seen] == [(i, word) for i in range(9) for word in ("coded", "swept")]
    assert found.history.tolist() == [error for *_, error in seen]
    assert found.best == np.argmin(found.history) and found.error == found.history.min()
    assert (found.history[1::2] <= found.history[::2] * (1 + 1e-6)).all()
    wanted = np.linalg.norm(y - found.dictionary @ dense(found.codes)) / np.linalg.norm(y)
    assert abs(wanted - found.error) < 1e-5
    assert found.dictionary.dtype == dtype and (found.codes.counts == 4).all()


def test_the_best_of_all_stages_is_kept_although_coding_is_not_monotone():
    """On these vectors a later coding is worse than an earlier sweep, and the last stage is not the best."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = ksvd(rng.standard_normal((6, 12)), 5, 2, iters=6, init="vectors", seed=seed)
        if (np.diff(found.history)[1::2] > 1e-6).any() and found.best < len(found.history) - 1:
            return
    raise AssertionError("no run in which coding raised the error and an earlier stage was best")


def test_all_atoms_of_the_svd_give_the_truncated_svd(rng):
    y = rng.standard_normal((20, 33))
    found = ksvd(y, 7, 7, iters=0)
    values = np.linalg.svd(y, compute_uv=False)
    assert len(found.history) == 1
    np.testing.assert_allclose(found.error, np.linalg.norm(values[7:]) / np.linalg.norm(values), rtol=1e-12)


def test_a_dictionary_that_is_given_and_the_columns_themselves(rng):
    y = rng.standard_normal((10, 15))
    found = ksvd(y, 15, 1, iters=0, dictionary=y / np.linalg.norm(y, axis=0))
    assert found.error < 1e-14
    drawn = first_dictionary(y, 15, init="vectors", seed=3)
    assert sorted(np.abs(drawn.T @ (y / np.linalg.norm(y, axis=0))).argmax(1).tolist()) == list(range(15))
    more = first_dictionary(np.concatenate([y[:, :2], np.zeros((10, 3))], 1), 6)
    np.testing.assert_allclose(np.linalg.norm(more, axis=0), 1, atol=1e-12)
    assert (first_dictionary(y, 12, seed=1) != first_dictionary(y, 12, seed=2)).any()
    assert (first_dictionary(y, 12, seed=1) == first_dictionary(y, 12, seed=1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_nothing_where_they_share_an_atom(dtype, rng):
    y, atoms = rng.standard_normal((300, 1100)).astype(dtype), unit(rng, 300, 4, dtype)
    codes = omp(atoms, y, 4)  # every atom is used by all vectors: 330,000 numbers
    found = [ksvd_sweep(atoms, codes, y, power_iters=2, num_threads=threads) for threads in (1, 2, 5)]
    for each in found[1:]:
        assert (each[0] == found[0][0]).all() and (each[1].values == found[0][1].values).all()


def test_a_callback_may_end_it_with_the_best_so_far(rng):
    y = rng.standard_normal((12, 40))
    found = ksvd(y, 8, 2, iters=50, callback=lambda iteration, stage, error: iteration == 2)
    assert len(found.history) == 5

    def stop(iteration, stage, error):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        ksvd(y, 8, 2, iters=50, callback=stop)
    token = CancelToken()
    token.cancel()
    with token, pytest.raises(Cancelled):
        ksvd(y, 8, 2)


def test_zeros_and_one_vector():
    found = ksvd(np.zeros((4, 3)), 2, 1, iters=2)
    assert found.error == 0 and not found.codes.values.any()
    one = ksvd(np.array([[3.0], [4.0]]), 1, 1, iters=1)
    assert one.error < 1e-15
    np.testing.assert_allclose(abs(one.dictionary[:, 0]), [0.6, 0.8], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"s": 4}, "ksvd: s must be an int from 1 to 3"),
        ({"k": 0}, "ksvd: k must be an int from 1"),
        ({"vectors": np.full((4, 6), np.nan)}, "ksvd: vectors must be finite"),
        ({"vectors": np.empty((4, 0))}, "both at least 1"),
        ({"init": "svd", "k": 5}, "init 'svd' has at most 4 atoms, k is 5; use 'vectors'"),
        ({"init": "none"}, "init must be one of auto, svd, vectors"),
        ({"dictionary": np.eye(4)}, "dictionary must have k=3 columns, got 4"),
        ({"dictionary": 2 * np.eye(4)[:, :3]}, "columns of unit length"),
        ({"dictionary": np.eye(5)[:, :3]}, r"dictionary must be \(d, k\)"),
        ({"power_iters": 0}, "power_iters must be an int from 1"),
    ],
)
def test_bad_arguments(change, told):
    with pytest.raises(ValueError, match=told):
        ksvd(**({"vectors": np.ones((4, 6)), "k": 3, "s": 2} | change))


def test_codes_must_fit(rng):
    y, atoms = rng.standard_normal((4, 6)), np.eye(4)
    codes = omp(atoms, y, 2)
    with pytest.raises(ValueError, match="codes are of 6 vectors and 4 atoms, there are 5 and 4"):
        ksvd_sweep(atoms, codes, y[:, :5])
    with pytest.raises(TypeError, match="codes are float64, vectors float32"):
        ksvd_sweep(atoms.astype(np.float32), codes, y.astype(np.float32))
    codes.indices[0, 0] = 77  # a code may be changed after it was checked
    with pytest.raises(ValueError, match=r"indices must be in \[0, 4\)"):
        code_residual(atoms, codes, y)
    with pytest.raises(ValueError, match="at most once"):
        replace(codes, indices=np.zeros_like(codes.indices))


def test_work_by_hand():
    work = ksvd_sweep_work(3, 2, 5, 1, 2)
    assert work.flops == 4 * 3 * 15 and work.gathers == 15
    assert work.bytes_streamed == 4 * (30 + 12 + 10) + 4 * 10
