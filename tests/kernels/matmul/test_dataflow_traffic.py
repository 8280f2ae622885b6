"""The four dataflows' traffic: the table of formulas, checked by brute force."""

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.traffic import dataflow_traffic

DATAFLOWS = ["inner", "inner-masked", "outer", "row", "column"]


@pytest.fixture
def worked_example():
    a = sparse.csr_array(np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0.0]]))
    b = sparse.csr_array(np.array([[0, 6], [7, 0], [8, 9.0]]))
    return a, b


@pytest.mark.parametrize(
    ("dataflow", "reads", "partial", "peak"),
    [("inner", (10, 12), 0, 1), ("outer", (5, 4), 7, 7), ("row", (5, 7), 0, 2), ("column", (7, 4), 0, 3)],
)
def test_worked_example(worked_example, dataflow, reads, partial, peak):
    traffic = dataflow_traffic(*worked_example, dataflow)
    assert (traffic.read_a, traffic.read_b) == reads
    assert traffic.pp_written == traffic.pp_read == partial
    assert traffic.peak_live == peak
    assert (traffic.write_c, traffic.flops) == (6, 7)


def test_brute_force(rng):
    a = sparse.random_array((20, 30), density=0.1, format="csr", rng=rng)
    b = sparse.random_array((30, 25), density=0.15, format="csr", rng=rng)
    p, q = (a.toarray() != 0).astype(int), (b.toarray() != 0).astype(int)
    products = p @ q
    traffic = {d: dataflow_traffic(a, b, d) for d in DATAFLOWS}
    rows, columns = (p.sum(1) > 0).sum(), (q.sum(0) > 0).sum()
    assert traffic["inner"].read_a == a.nnz * columns
    assert traffic["inner"].read_b == b.nnz * rows
    reached = products > 0
    assert traffic["inner-masked"].read_a == (reached * p.sum(1)[:, None]).sum()
    assert traffic["inner-masked"].read_b == (reached * q.sum(0)[None, :]).sum()
    assert traffic["outer"].peak_live == products.sum()
    assert traffic["row"].peak_live == reached.sum(1).max()
    assert traffic["column"].peak_live == reached.sum(0).max()
    assert {t.flops for t in traffic.values()} == {products.sum()}
    assert {t.write_c for t in traffic.values()} == {reached.sum()}


def test_dense_inner_reads_n_cubed():
    full = sparse.csr_array(np.ones((6, 6)))
    assert dataflow_traffic(full, full, "inner").read_a == 6**3


def test_bytes_and_ideal_cache(worked_example):
    traffic = dataflow_traffic(*worked_example, "row", index_bytes=4, value_bytes=8, cache="ideal")
    assert (traffic.read_a, traffic.read_b) == (5, 4)
    assert traffic.bytes_by_stream["write_c"] == 6 * 12
    assert traffic.total_bytes == traffic.elements * 12 + traffic.ptr * 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataflow": "diagonal"}, "dataflow must be one of"),
        ({"dataflow": "row", "cache": "big"}, "'none' or 'ideal'"),
        ({"dataflow": "row", "index_bytes": 0}, "index_bytes must be"),
    ],
)
def test_bad_arguments(worked_example, change, words):
    with pytest.raises(ValueError, match=words):
        dataflow_traffic(*worked_example, **change)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_empty(dataflow):
    a, b = sparse.csr_array((0, 4)), sparse.csr_array((4, 0))
    assert dataflow_traffic(a, b, dataflow).elements == 0
