"""SpGEMM against dense products and SciPy, and the counts of the four dataflows."""

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.spgemm import dataflow_traffic, row_flops, spgemm, spgemm_reference, spgemm_work, symbolic_nnz


@pytest.fixture
def worked_example():
    a = sparse.csr_array(np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0.0]]))
    b = sparse.csr_array(np.array([[0, 6], [7, 0], [8, 9.0]]))
    return a, b


def test_worked_example(worked_example):
    a, b = worked_example
    assert spgemm(a, b).toarray().tolist() == [[16, 24], [24, 27], [35, 24]]
    assert row_flops(a, b).tolist() == [3, 2, 2]
    assert symbolic_nnz(a, b).tolist() == [2, 2, 2]
    assert spgemm_work(a, b).flops == 14


@pytest.mark.parametrize(
    ("dataflow", "reads", "partial", "peak"),
    [("inner", (10, 12), 0, 1), ("outer", (5, 4), 7, 7), ("row", (5, 7), 0, 2), ("column", (7, 4), 0, 3)],
)
def test_traffic_of_the_worked_example(worked_example, dataflow, reads, partial, peak):
    traffic = dataflow_traffic(*worked_example, dataflow)
    assert (traffic.read_a, traffic.read_b) == reads
    assert traffic.pp_written == traffic.pp_read == partial
    assert traffic.peak_live == peak
    assert (traffic.write_c, traffic.flops) == (6, 7)


def test_against_dense_and_reference(rng):
    for _ in range(20):
        m, k, n = rng.integers(0, 50, 3)
        a = sparse.random_array((m, k), density=0.2, format="csr", rng=rng)
        b = sparse.random_array((k, n), density=0.3, format="csr", rng=rng)
        c, reference = spgemm(a, b), spgemm_reference(a, b)
        np.testing.assert_allclose(c.toarray(), a.toarray() @ b.toarray(), rtol=1e-12, atol=1e-15)
        assert c.indptr.tolist() == reference.indptr.tolist()
        assert c.indices.tolist() == reference.indices.tolist()
