"""N:M times dense against the reference and a dense product."""

import os
import subprocess
import sys

import numpy as np
import pytest

import kernels
from kernels import _native
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.nm_spmm import nm_spmm, nm_spmm_reference, nm_spmm_work

PATTERNS = [(2, 4), (1, 4), (4, 8), (1, 8), (3, 7), (1, 1), (1, 256)]


def pruned(rows, k, n, m, rng):
    w = rng.standard_normal((rows, k // m, m)).astype(np.float32)
    return np.where(rng.random(w.shape).argsort(-1) < n, w, 0).reshape(rows, k)


@pytest.mark.parametrize("columns", [0, 1, 15, 16, 33, 50, 70, 81, 97, 113, 128, 300])
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_every_pattern_equals_a_dense_product(n, m, columns, rng, assert_close):
    for rows, groups in ((5, 1), (70, 300 // m + 1)):
        w, b = pruned(rows, groups * m, n, m, rng), rng.standard_normal((groups * m, columns)).astype(np.float32)
        c = nm_spmm(NMPacked.from_dense(w, n, m), b)
        assert c.dtype == np.float32
        assert_close(c, w.astype(np.float64) @ b.astype(np.float64))


FEW = """
import numpy as np, kernels
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.nm_spmm import nm_spmm, nm_spmm_reference
rng, worst = np.random.default_rng(3), 0.0
patterns = (2, 4), (1, 4), (4, 8), (3, 4), (2, 8), (1, 2), (4, 4), (3, 7), (5, 9), (8, 32), (16, 64), (40, 50)
for n, m in (*patterns, (1, 256), (255, 256)):
    for rows, groups in ((1, 1), (3, 2), (17, 9), (70, 33)):
        w = rng.standard_normal((rows, groups, m)).astype(np.float32)
        w[rng.random(w.shape).argsort(-1) >= n] = 0
        a = NMPacked.from_dense(w.reshape(rows, -1), n, m)
        for columns in range(1, 10):
            b = rng.standard_normal((groups * m, columns)).astype(np.float32)
            want = nm_spmm_reference(a, b)
            worst = max(worst, float(abs(nm_spmm(a, b) - want).max() / abs(want).max()))
            assert not worst > 1e-5, (n, m, rows, groups, columns, worst)
print(kernels.isa())
"""


@pytest.mark.parametrize("level", _native.LEVELS[: _native.LEVELS.index(kernels.isa()) + 1])
def test_few_columns_of_every_pattern_on_every_instruction_set(level):
    done = subprocess.run(
        [sys.executable, "-c", FEW], env=os.environ | {"WORKBENCH_ISA": level}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [level]


@pytest.mark.parametrize("columns", range(1, 10))
def test_every_value_meets_its_own_input(columns):
    """Row i keeps one value, i + 1, at place i of the inputs: what comes out names row, column and place."""
    for n, m in ((2, 4), (1, 4), (3, 6)):
        k = 5 * m
        a = NMPacked.from_dense(np.diag(np.arange(1, k + 1)).astype(np.float32), n, m)
        b = (np.arange(k)[:, None] + 100 * np.arange(columns)[None]).astype(np.float32)
        np.testing.assert_array_equal(nm_spmm(a, b), np.arange(1, k + 1)[:, None] * b)


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_what_lies_behind_a_row_or_a_column_is_never_met(columns):
    """The last vector of a row reaches over its end, where the values of the next row lie."""
    values = np.repeat(np.float32([[1], [np.nan], [2], [np.inf]]), 18, axis=1)
    positions = np.tile(np.uint8([0, 3]), (4, 9))
    a = NMPacked(values, positions, 2, 4, (4, 36))
    c = nm_spmm(a, np.ones((36, columns), np.float32))
    np.testing.assert_array_equal(c, np.repeat(np.float32([[18], [np.nan], [36], [np.inf]]), columns, axis=1))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (3, 7)])
def test_reference_equals_a_dense_product(n, m, rng, assert_close):
    w, b = pruned(6, 5 * m, n, m, rng), rng.standard_normal((5 * m, 3)).astype(np.float32)
    assert_close(nm_spmm_reference(NMPacked.from_dense(w, n, m), b), w.astype(np.float64) @ b)


@pytest.mark.parametrize(("rows", "k"), [(0, 8), (3, 0), (0, 0)])
def test_empty_matrices(rows, k):
    a = NMPacked.from_dense(np.zeros((rows, k), np.float32), 2, 4)
    np.testing.assert_array_equal(nm_spmm(a, np.ones((k, 3), np.float32)), np.zeros((rows, 3)))


def test_many_rows_and_groups_are_cut_into_parts(rng, assert_close):
    w, b = pruned(2100, 260, 2, 4, rng), rng.standard_normal((260, 20)).astype(np.float32)
    assert_close(nm_spmm(NMPacked.from_dense(w, 2, 4), b), w.astype(np.float64) @ b)


@pytest.mark.parametrize(("rows", "columns"), [(300, 20), (300, 300), (1100, 1), (1100, 2), (700, 8)])
def test_same_bits_for_any_thread_count(rows, columns, rng):
    w, b = pruned(rows, 512, 2, 4, rng), rng.standard_normal((512, columns)).astype(np.float32)
    a = NMPacked.from_dense(w, 2, 4)
    for threads in (2, 5):
        np.testing.assert_array_equal(nm_spmm(a, b, num_threads=threads), nm_spmm(a, b, num_threads=1))


def test_infinity_and_nan_stay_with_the_values_they_meet():
    w = np.zeros((3, 8), np.float32)
    w[0, 1], w[1, 6], w[2, 7] = 2, 3, np.nan
    b = np.ones((8, 20), np.float32)
    b[1, 2], b[6, 19], b[0, 5] = (
        np.inf,
        np.nan,
        np.inf,
    )  # 1:4 keeps (1, 0) and (2, 0) as zeros, and zero times inf is NaN
    c = nm_spmm(NMPacked.from_dense(w, 1, 4), b)
    assert c[0, 2] == np.inf and np.isfinite(np.delete(c[0], 2)).all()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(c[1])), [5, 19])
    assert np.isnan(c[2]).all()


@pytest.mark.parametrize("columns", [1, 5])
def test_few_columns_keep_infinity_with_the_values_that_meet_it(columns):
    w, b = np.zeros((3, 40), np.float32), np.ones((40, columns), np.float32)
    w[0, 1], w[1, 38], w[2, 22] = 2, 3, 5
    b[38, -1] = np.inf
    c = nm_spmm(NMPacked.from_dense(w, 1, 4), b)
    np.testing.assert_array_equal(c[:, :-1], np.repeat(np.float32([[2], [3], [5]]), columns - 1, axis=1))
    np.testing.assert_array_equal(c[:, -1], [2, np.inf, 5])


def test_work_counts(rng):
    a = NMPacked.from_dense(pruned(6, 40, 2, 4, rng), 2, 4)
    work = nm_spmm_work(a, 8)
    assert nm_spmm_work(a, 0).flops == 0
    assert work.flops == 2 * 6 * 20 * 8 and work.gathers == 6 * 20
    assert work.bytes_streamed == 6 * 20 * 5 + 4 * 8 * (6 + 40)


def test_bad_input_is_named(rng):
    a, b = NMPacked.from_dense(pruned(6, 8, 2, 4, rng), 2, 4), np.ones((8, 2), np.float32)
    with pytest.raises(TypeError, match="nm_spmm: a must be an NMPacked, got ndarray"):
        nm_spmm(b, b)
    with pytest.raises(TypeError, match="nm_spmm_work: a must be an NMPacked"):
        nm_spmm_work(b, 2)
    with pytest.raises(TypeError, match="b must be a NumPy array of float32, got float64"):
        nm_spmm(a, b.astype(np.float64))
    with pytest.raises(ValueError, match="b has 7 rows"):
        nm_spmm(a, b[:7])
    with pytest.raises(ValueError, match="C-contiguous"):
        nm_spmm(a, np.asfortranarray(b))
