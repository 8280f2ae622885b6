"""Dense-sparse factors: sizes by hand, special cases with a closed form, planted factors, products, bad inputs."""

import numpy as np
import pytest
import torch

from workbench.models.compression.dsformer import DSBlockSpec, DSFactors, ds_factorize, spec_for_ratio, trace

pytestmark = pytest.mark.usefixtures("one_thread")


def error(w, factors):
    return np.linalg.norm(w - factors.to_dense()) / np.linalg.norm(w)


def test_sizes_of_the_worked_example():
    """384 x 384 in blocks of 32 columns, 48 atoms, 12 a row: 12 (1,536 + 4,608) values; 12 (24,576 + 384 240) bits."""
    spec = DSBlockSpec(block_cols=32, atoms=48, nnz_per_row=12)
    assert spec.num_values((384, 384)) == 73_728 and spec.bits((384, 384)) == 1_400_832
    assert DSBlockSpec(atoms=40, nnz_per_row=12).bits((384, 384)) == 1_314_816
    few = DSBlockSpec(block_rows=4, block_cols=8, atoms=5, nnz_per_row=1)  # a list of 3 bits beats 5 of a bitmap
    assert few.bits((8, 16), value_bits=8) == 4 * (8 * (5 * 8 + 4) + 4 * 3)


@pytest.mark.parametrize(("ratio", "atoms", "s"), [(2, 48, 12), (2.8, 41, 8), (3.57, 35, 6)])
def test_a_ratio_of_values_is_met_and_the_next_size_is_too_large(ratio, atoms, s):
    spec = spec_for_ratio((384, 384), ratio)
    assert (spec.atoms, spec.nnz_per_row) == (atoms, s)
    assert spec.num_values((384, 384)) * ratio <= 384 * 384
    assert DSBlockSpec(atoms=atoms + 1, nnz_per_row=s).num_values((384, 384)) * ratio > 384 * 384
    assert DSBlockSpec(atoms=4 * (s + 1), nnz_per_row=s + 1).num_values((384, 384)) * ratio > 384 * 384


def test_atoms_for_each_coefficient_are_rounded_up():
    """By hand: 13 entries need 32.5 atoms, so 33, and 32 are what fits; 12 entries leave room for 44 atoms."""
    fits = DSBlockSpec(atoms=32, nnz_per_row=13).num_values((384, 384))
    spec = spec_for_ratio((384, 384), 384 * 384 / fits, rho=2.5)
    assert (spec.nnz_per_row, spec.atoms) == (12, 44)


def test_a_ratio_of_bits_pays_for_the_places():
    spec = spec_for_ratio((384, 384), 2, count="bits")
    assert 2 * spec.bits((384, 384)) <= 16 * 384 * 384 and spec.nnz_per_row < 12
    grown = DSBlockSpec(atoms=spec.atoms + 1, nnz_per_row=spec.nnz_per_row)
    assert 2 * grown.bits((384, 384)) > 16 * 384 * 384


def test_as_many_coefficients_as_columns_reconstruct_exactly(rng):
    w = rng.standard_normal((40, 24))
    made = ds_factorize(w, DSBlockSpec(block_cols=8, atoms=8, nnz_per_row=8), sweeps=1)
    assert error(w, made) < 1e-10


@pytest.mark.parametrize("sweeps", [0, 3])
def test_one_block_with_all_atoms_is_the_truncated_svd(rng, sweeps):
    w = rng.standard_normal((40, 24))
    made = ds_factorize(w, DSBlockSpec(block_cols=24, atoms=9, nnz_per_row=9), sweeps=sweeps)
    spectrum = np.linalg.svd(w, compute_uv=False)
    assert error(w, made) == pytest.approx(np.linalg.norm(spectrum[9:]) / np.linalg.norm(spectrum), abs=1e-8)


def planted(rng, s):
    basis = np.linalg.qr(rng.standard_normal((32, 32)))[0][:16]
    codes = np.zeros((2000, 16))
    for row in codes:
        row[rng.choice(16, s, replace=False)] = rng.standard_normal(s)
    return basis, codes @ basis


@pytest.mark.parametrize("s", [1, 2, 3])
def test_planted_factors_are_coded_exactly(rng, s):
    basis, w = planted(rng, s)
    made = ds_factorize(w, DSBlockSpec(atoms=16, nnz_per_row=s), sweeps=0, D0=basis[None, None])
    assert error(w, made) < 1e-10
    spectrum = np.linalg.svd(w, compute_uv=False)
    assert np.linalg.norm(spectrum[s:]) / np.linalg.norm(spectrum) > 0.85  # what the truncated SVD of rank s leaves


@pytest.mark.parametrize("s", [1, 2])
def test_planted_factors_are_found(s):
    for seed in range(3):
        w = planted(np.random.default_rng(seed), s)[1]
        made = ds_factorize(w, DSBlockSpec(atoms=16, nnz_per_row=s), sweeps=30, power_iters=8)
        assert error(w, made) < 1e-6


def test_every_row_has_its_own_atoms_and_equally_many(rng):
    spec = DSBlockSpec(block_rows=40, block_cols=16, atoms=20, nnz_per_row=3)
    made = ds_factorize(rng.standard_normal((120, 32)), spec)
    assert made.D.shape == (3, 2, 20, 16) and made.idx.shape == made.val.shape == (3, 2, 40, 3)
    assert made.idx.dtype == np.uint8 and (np.diff(made.idx.astype(int), axis=3) > 0).all()
    assert (made.val != 0).all() and np.abs(np.linalg.norm(made.D, axis=3) - 1).max() < 1e-6
    assert made.num_values() == 6 * (320 + 40 * 3) and made.nbytes() == 6 * (16 * (320 + 120) + 40 * 15) // 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block_rows", [None, 12])
def test_products_equal_those_with_the_matrix(rng, assert_close, dtype, block_rows):
    w = rng.standard_normal((36, 24)).astype(dtype)
    made = ds_factorize(w, DSBlockSpec(block_rows=block_rows, block_cols=8, atoms=11, nnz_per_row=3), sweeps=2)
    x = rng.standard_normal((3, 5, 24)).astype(dtype)
    by_hand = np.zeros((36, 24))
    rows = block_rows or 36
    for p, q, i in np.ndindex(36 // rows, 3, rows):
        for j in range(3):
            by_hand[p * rows + i, 8 * q : 8 * q + 8] += made.val[p, q, i, j] * made.D[p, q, made.idx[p, q, i, j]]
    assert_close(made.to_dense(), by_hand)
    assert_close(made.matmul(x), x.astype(np.float64) @ by_hand.T)
    assert_close(made.matmul(x[0, 0]), by_hand @ x[0, 0])
    assert_close(made.coefficients() @ made.basis(), by_hand)


def test_the_factors_are_the_best_of_the_search_and_reach_their_error(rng):
    w = rng.standard_normal((60, 32))
    spec = DSBlockSpec(block_cols=16, atoms=12, nnz_per_row=3)
    made = ds_factorize(w, spec, sweeps=5)
    assert len(made.history) == 10 and error(w, made) <= made.history.min() + 1e-12
    assert (np.diff(made.history)[::2] <= 1e-12).all()  # a sweep never raises it
    coded = ds_factorize(w, spec, sweeps=0, D0=made.D)
    assert coded.history == pytest.approx([error(w, coded)]) and coded.history[0] <= made.history.min() + 1e-12
    sparser = ds_factorize(w, DSBlockSpec(block_cols=16, atoms=12, nnz_per_row=2), sweeps=0, D0=made.D)
    assert error(w, sparser) >= error(w, ds_factorize(w, spec, sweeps=0, D0=made.D))


def test_many_atoms_take_wider_indices(rng):
    made = ds_factorize(rng.standard_normal((400, 8)), DSBlockSpec(block_cols=8, atoms=300, nnz_per_row=1), sweeps=1)
    assert made.idx.dtype == np.int16 and made.idx.max() > 255
    most = ds_factorize(rng.standard_normal((400, 8)), DSBlockSpec(block_cols=8, atoms=256, nnz_per_row=1), sweeps=0)
    assert most.idx.dtype == np.uint8 and most.idx.max() == 255


def test_zeros_and_equal_seeds(rng):
    spec = DSBlockSpec(block_cols=8, atoms=12, nnz_per_row=2)
    assert not ds_factorize(np.zeros((20, 16)), spec).to_dense().any()
    w = rng.standard_normal((20, 16))
    one, two = (ds_factorize(w, spec, seed=3).to_dense() for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, ds_factorize(w, spec, seed=4).to_dense())


def test_a_trace_compares_with_the_svd_of_as_many_values(rng):
    w = rng.standard_normal((40, 32)).astype(np.float32)
    shown = trace(w, DSBlockSpec(block_cols=16, atoms=8, nnz_per_row=2), sweeps=2)
    spectrum = np.linalg.svd(w.astype(float), compute_uv=False)
    rank = 2 * (8 * 16 + 40 * 2) // 72
    assert shown["rank"] == rank
    assert shown["svd_error"] == pytest.approx(np.linalg.norm(spectrum[rank:]) / np.linalg.norm(spectrum))
    assert shown["uses"].sum() == 2 * 40 * 2 and shown["bases"].shape == (8, 32)
    assert (np.count_nonzero(shown["coefficients"], axis=1) == 4).all()


def test_bad_inputs_are_told_apart(rng):
    w = rng.standard_normal((40, 24))
    for bad, what in ((w[0], "must be"), (np.where(w > 2, np.nan, w), "finite")):
        with pytest.raises(ValueError, match=what):
            ds_factorize(bad, DSBlockSpec(block_cols=8, atoms=8, nnz_per_row=2))
    with pytest.raises(ValueError, match="32 columns, which do not divide the 24 columns"):
        ds_factorize(w, DSBlockSpec())
    with pytest.raises(ValueError, match="7 rows, which do not divide the 40 rows"):
        ds_factorize(w, DSBlockSpec(block_rows=7, block_cols=8))
    for atoms, s in ((4, 5), (4, 0)):
        with pytest.raises(ValueError, match="nnz_per_row"):
            DSBlockSpec(atoms=atoms, nnz_per_row=s)
    with pytest.raises(ValueError, match="D0 must be"):
        ds_factorize(w, DSBlockSpec(block_cols=8, atoms=8, nnz_per_row=2), D0=np.zeros((1, 3, 7, 8)))
    with pytest.raises(ValueError, match=r"at most .* times smaller"):
        spec_for_ratio((384, 384), 40)
    with pytest.raises(ValueError, match="rise in every row"):
        DSFactors(
            D=np.ones((1, 1, 4, 8)), idx=np.ones((1, 1, 6, 2), np.uint8), val=np.ones((1, 1, 6, 2)), history=np.ones(1)
        )
    made = ds_factorize(torch.from_numpy(w), DSBlockSpec(block_cols=8, atoms=8, nnz_per_row=2))
    with pytest.raises(ValueError, match=r"must be float64 \(..., 24\)"):
        made.matmul(np.zeros((3, 25)))
