"""Truncated SVD and whitening: closed forms, identities and singular Gram matrices."""

import warnings

import numpy as np
import pytest

from kernels.factor.svd import (
    rank_for_ratio,
    svd_llm,
    svd_llm_reference,
    svd_plain,
    svd_plain_reference,
    truncated_svd_work,
)
from kernels.factor.whitening import unwhiten, whiten


def inputs(rng, tokens=80, n=12):
    return rng.standard_normal((tokens, n)) @ (np.eye(n) + 0.4 * rng.standard_normal((n, n)))


def test_a_diagonal_matrix_by_hand():
    """W = diag(3, 2): with inputs of size 1 and 10 the second is worth 20 and stays, without them the first."""
    w = np.diag([3.0, 2.0])
    np.testing.assert_allclose(svd_plain(w, 1).left @ svd_plain(w, 1).right, np.diag([3.0, 0]), atol=1e-14)
    found = svd_llm(w, np.diag([1.0, 100.0]), 1)
    np.testing.assert_allclose(found.left @ found.right, np.diag([0, 2.0]), atol=1e-14)
    np.testing.assert_allclose(found.values, [20, 3], rtol=1e-14)
    np.testing.assert_allclose(found.left_out, 3, rtol=1e-14)


@pytest.mark.parametrize("shape", [(1, 12), (9, 12), (20, 12)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_the_references(shape, dtype, rng, assert_close):
    w, x = rng.standard_normal(shape).astype(dtype), inputs(rng)
    for rank in range(1, min(shape) + 1, 4):
        plain, weighted = svd_plain(w, rank), svd_llm(w, x.T @ x, rank)
        assert plain.left.shape == (shape[0], rank) and plain.right.shape == (rank, 12)
        assert plain.left.dtype == weighted.right.dtype == dtype
        tolerance = {"atol": 2e-5 if dtype == np.float32 else 1e-9, "rtol": 0}
        np.testing.assert_allclose(plain.left @ plain.right, svd_plain_reference(w, rank), **tolerance)
        np.testing.assert_allclose(weighted.left @ weighted.right, svd_llm_reference(w, x.T @ x, rank), **tolerance)


def test_the_error_is_that_of_the_singular_values_left_out(rng):
    w, x = rng.standard_normal((7, 12)), inputs(rng)
    found = svd_llm(w, x.T @ x, 4)
    error = np.linalg.norm(x @ (w - found.left @ found.right).T)
    np.testing.assert_allclose(found.left_out, error, rtol=1e-9)
    plain = svd_plain(w, 4)
    assert error < np.linalg.norm(x @ (w - plain.left @ plain.right).T)
    assert np.linalg.norm(w - plain.left @ plain.right) < np.linalg.norm(w - found.left @ found.right)


def test_with_inputs_alike_in_all_directions_both_agree(rng):
    w = rng.standard_normal((7, 12))
    a, b = svd_plain(w, 3), svd_llm(w, np.eye(12), 3)
    np.testing.assert_allclose(a.left @ a.right, b.left @ b.right, atol=1e-12)


def test_whitening_keeps_the_error_of_the_outputs(rng):
    x, change = inputs(rng), rng.standard_normal((12, 5))
    found = whiten(x.T @ x)
    assert found.jitter == 0 and (np.tril(found.factor, -1) == 0).all()
    np.testing.assert_allclose(found.factor.T @ found.factor, x.T @ x, rtol=1e-10)
    np.testing.assert_allclose(
        np.linalg.norm(x @ change), np.linalg.norm(found.factor @ change), rtol=1e-9
    )  # not so with the lower factor: G is not diagonal
    np.testing.assert_allclose(found.factor @ unwhiten(found.factor, change), change, atol=1e-12)


@pytest.mark.parametrize("what", ["few samples", "a dead input"])
def test_a_singular_gram_matrix_gets_a_jitter_and_a_warning(what, rng):
    x = 1e3 * inputs(rng, 5 if what == "few samples" else 80)
    x[:, 4] *= what == "few samples"
    gram = x.T @ x
    with pytest.warns(UserWarning, match=r"whiten: gram is singular; .* was added"):
        found = whiten(gram)
    assert 0 < found.jitter <= 1e-4 * np.mean(np.diag(gram))
    np.testing.assert_allclose(found.factor.T @ found.factor, gram + found.jitter * np.eye(12), atol=1e-9 * gram.max())
    with pytest.warns(UserWarning):
        low = svd_llm(rng.standard_normal((6, 12)), gram, 3)
    assert np.isfinite(low.right).all() and low.jitter == found.jitter


def test_inputs_that_are_all_zero_weigh_alike():
    found = whiten(np.zeros((3, 3)))
    assert (found.factor == np.eye(3)).all() and found.jitter == 0


def test_a_gram_matrix_of_large_condition_is_factored_as_it_is(rng):
    q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    gram = q * np.logspace(0, 8, 30) @ q.T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert whiten((gram + gram.T) / 2).jitter == 0


@pytest.mark.parametrize(
    ("gram", "told"),
    [
        (np.ones((2, 3)), "gram must be square"),
        (np.array([[1.0, 2], [0, 1]]), "gram must be symmetric"),
        (np.array([[1.0, np.nan], [np.nan, 1]]), "gram must be finite"),
        (np.array([[1.0, 0], [0, -1]]), "negative eigenvalue -1"),
        (-np.eye(2), "negative eigenvalue"),
    ],
)
def test_what_is_no_gram_matrix(gram, told):
    with pytest.raises(ValueError, match=f"whiten: {told}|whiten: .*{told}"):
        whiten(gram)


def test_ranks_by_hand():
    assert rank_for_ratio(0.2, (2048, 2048)) == 819
    assert rank_for_ratio(0.3, (4096, 14336)) == 2230
    assert rank_for_ratio(0.2, (384, 384)) == 153
    for cr in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="rank_for_ratio: cr must be a"):
            rank_for_ratio(cr, (4, 4))
    with pytest.raises(ValueError, match=r"cr must be at most 0\.5 for 4 x 4, got 0.6"):
        rank_for_ratio(0.6, (4, 4))


def test_bad_arguments(rng):
    w = rng.standard_normal((4, 5))
    with pytest.raises(ValueError, match="svd_plain: rank must be an int from 1 to 4"):
        svd_plain(w, 5)
    with pytest.raises(ValueError, match="svd_llm: gram must be 5 x 5"):
        svd_llm(w, np.eye(4), 2)
    with pytest.raises(ValueError, match="svd_plain: w must be finite"):
        svd_plain(np.full((2, 2), np.inf), 1)
    with pytest.raises(ValueError, match=r"svd_plain: w must be \(m, n\)"):
        svd_plain(np.empty((0, 3)), 1)
    assert truncated_svd_work((4, 5), 2).flops == 36
