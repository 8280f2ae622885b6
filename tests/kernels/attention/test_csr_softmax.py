"""Row softmax over stored entries against dense softmax, and its gradient against finite differences."""

import numpy as np
import pytest
from scipy import sparse

from kernels.attention.csr_softmax import csr_softmax, csr_softmax_gradient


@pytest.fixture
def scores(rng):
    s = sparse.random_array((20, 15), density=0.3, format="csr", rng=rng)
    s.data = 50 * rng.standard_normal(s.nnz)
    return s


def test_rows_equal_dense_softmax(scores, assert_close):
    p = csr_softmax(scores)
    for i in range(20):
        row = scores.data[scores.indptr[i] : scores.indptr[i + 1]]
        if len(row):
            wanted = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert_close(p.data[p.indptr[i] : p.indptr[i + 1]], wanted)


def test_empty_matrix_and_large_scores():
    assert csr_softmax(sparse.csr_array((3, 0))).nnz == 0
    big = sparse.csr_array((np.array([1e4, 1e4], np.float32), [0, 1], [0, 2, 2]), shape=(2, 2))
    np.testing.assert_array_equal(csr_softmax(big).data, [0.5, 0.5])


def test_gradient_matches_finite_differences(scores, rng):
    scores.data /= 50
    g = rng.standard_normal(scores.nnz)
    ours = csr_softmax_gradient(csr_softmax(scores), g)
    for p in range(0, scores.nnz, 7):
        up, down = scores.copy(), scores.copy()
        up.data[p] += 1e-6
        down.data[p] -= 1e-6
        numeric = ((csr_softmax(up).data - csr_softmax(down).data) @ g) / 2e-6
        assert ours[p] == pytest.approx(numeric, abs=1e-7)
    with pytest.raises(ValueError, match="one number per entry"):
        csr_softmax_gradient(csr_softmax(scores), g[:-1])


def test_a_row_of_minus_infinity_is_zero_like_a_query_that_sees_no_key():
    inf = np.inf
    scores = np.array([-inf, -inf, 1.0, -inf, 1.0, -inf, np.nan, 0.0])
    s = sparse.csr_array((scores, [0, 1, 0, 1, 2, 0, 0, 1], [0, 2, 5, 6, 8]), shape=(4, 3))
    p = csr_softmax(s)
    np.testing.assert_array_equal(p.data[:6], [0, 0, 0.5, 0, 0.5, 0])
    assert np.isnan(p.data[6:]).all()
    np.testing.assert_array_equal(csr_softmax_gradient(p, np.ones(8))[:6], np.zeros(6))
    assert csr_softmax(s.astype(np.float32)).dtype == np.float32
