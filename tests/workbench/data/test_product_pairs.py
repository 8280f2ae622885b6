"""Pairs to multiply: shapes match, labels are shuffled alike on both sides."""

import numpy as np
import pytest

from workbench.data.matrices import erdos_renyi, rmat, w0
from workbench.data.product_pairs import paired, relabelled, rmat_pair, small_pairs, worked_example


def test_worked_example():
    a, b = worked_example()
    assert (a.nnz, b.nnz) == (5, 4)
    assert (a @ b).toarray().tolist() == [[16, 24], [24, 27], [35, 24]]


def test_rectangular_matrices_meet_their_transpose():
    a, b = paired(erdos_renyi(5, 3, 2.0))
    assert a.shape == (5, 3) and b.shape == (3, 5)


def test_relabelling_only_permutes_the_product():
    a = rmat(6, 4, values="uniform")
    left, right = relabelled(a, a)
    assert np.sort((left @ right).data) == pytest.approx(np.sort((a @ a).data))
    assert left.has_sorted_indices and not np.array_equal(left.indices, a.indices)


def test_the_defaults_at_scale_14_are_the_reference_workload():
    for ours, theirs in zip(rmat_pair(14), w0(), strict=True):
        assert np.array_equal(ours.indptr, theirs.indptr) and np.array_equal(ours.indices, theirs.indices)


def test_quadrants_must_leave_something():
    with pytest.raises(ValueError, match="at most 1"):
        rmat_pair(5, a=0.6, b=0.3, c=0.2)


def test_small_pairs_can_be_multiplied():
    pairs = small_pairs()
    assert len(pairs) == 8
    assert all(a.shape[1] == b.shape[0] and a.nnz and b.nnz for a, b in pairs.values())
