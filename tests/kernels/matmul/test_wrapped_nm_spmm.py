"""N:M weights between block-diagonal matrices, times dense, against the reference and dense products."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import linalg

import kernels
from kernels import _native
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.wrapped_nm_spmm import wrapped_nm_spmm, wrapped_nm_spmm_reference, wrapped_nm_spmm_work


def pruned(rows, k, n, m, rng):
    w = rng.standard_normal((rows, k // m, m)).astype(np.float32)
    return np.where(rng.random(w.shape).argsort(-1) < n, w, 0).reshape(rows, k)


def blocks(size, side, rng):
    return rng.standard_normal((size // side, side, side)).astype(np.float32) if side else None


def dense(of, size):
    return np.eye(size) if of is None else linalg.block_diag(*of.astype(np.float64))


@pytest.mark.parametrize("columns", [0, 1, 2, 4, 8, 9, 17, 33, 64, 127, 128, 300])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (0, 4), (6, 12), (9, 36), (18, 4)])
def test_it_equals_three_dense_products(left, right, columns, rng, assert_close):
    for n, m in ((2, 4), (1, 4), (3, 6)):
        w, x = pruned(18, 36, n, m, rng), rng.standard_normal((36, columns)).astype(np.float32)
        a, b = blocks(18, left, rng), blocks(36, right, rng)
        c = wrapped_nm_spmm(NMPacked.from_dense(w, n, m), x, left=a, right=b)
        assert c.dtype == np.float32 and c.shape == (18, columns)
        assert_close(c, dense(a, 18) @ w @ dense(b, 36) @ x)


FEW = """
import numpy as np, kernels
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.wrapped_nm_spmm import wrapped_nm_spmm, wrapped_nm_spmm_reference
rng = np.random.default_rng(3)
for rows, k, sides in ((6, 12, (1, 2, 3, 6)), (80, 160, (5, 16, 20, 40, 80)), (198, 132, (33, 66))):
    for n, m in ((2, 4), (3, 4)):
        w = rng.standard_normal((rows, k // m, m)).astype(np.float32)
        w[rng.random(w.shape).argsort(-1) >= n] = 0
        s = NMPacked.from_dense(w.reshape(rows, k), n, m)
        for side in sides:
            a, b = (rng.standard_normal((size // side, side, side)).astype(np.float32) for size in (rows, k))
            for left, right in ((a, None), (None, b), (a, b)):
                for columns in (1, 2, 3, 8):
                    x = rng.standard_normal((k, columns)).astype(np.float32)
                    want = wrapped_nm_spmm_reference(s, x, left, right)
                    worst = abs(wrapped_nm_spmm(s, x, left=left, right=right) - want).max() / abs(want).max()
                    assert worst <= 1e-5, (rows, side, n, columns, worst)
print(kernels.isa())
"""


@pytest.mark.parametrize("level", _native.LEVELS[: _native.LEVELS.index(kernels.isa()) + 1])
def test_few_columns_with_blocks_of_any_side_on_every_instruction_set(level):
    done = subprocess.run(
        [sys.executable, "-c", FEW], env=os.environ | {"WORKBENCH_ISA": level}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [level]


def test_the_reference_equals_dense_products(rng, assert_close):
    w, x, a, b = pruned(6, 8, 2, 4, rng), rng.standard_normal((8, 3)), blocks(6, 2, rng), blocks(8, 4, rng)
    found = wrapped_nm_spmm_reference(NMPacked.from_dense(w, 2, 4), x, a, b)
    assert found.dtype == np.float64
    assert_close(found, dense(a, 6) @ w @ dense(b, 8) @ x)


@pytest.mark.parametrize("columns", [1, 6, 20, 300])
def test_many_rows_large_blocks_and_any_thread_count_give_the_same_bits(columns, rng, assert_close):
    w, x = pruned(1280, 2560, 2, 4, rng), rng.standard_normal((2560, columns)).astype(np.float32)
    s = NMPacked.from_dense(w, 2, 4)
    for left, right in ((32, 32), (320, 128)):
        a, b = blocks(1280, left, rng), blocks(2560, right, rng)
        c = wrapped_nm_spmm(s, x, left=a, right=b, num_threads=1)
        assert_close(c[:, :2], wrapped_nm_spmm_reference(s, x, a, b)[:, :2])
        for threads in (2, 5):
            np.testing.assert_array_equal(wrapped_nm_spmm(s, x, left=a, right=b, num_threads=threads), c)


@pytest.mark.parametrize(("rows", "k"), [(0, 8), (4, 0), (0, 0)])
def test_empty_matrices(rows, k):
    s = NMPacked.from_dense(np.zeros((rows, k), np.float32), 2, 4)
    a, b = np.zeros((rows // 4, 4, 4), np.float32), np.zeros((k // 4, 4, 4), np.float32)
    found = wrapped_nm_spmm(s, np.ones((k, 3), np.float32), left=a, right=b)
    np.testing.assert_array_equal(found, np.zeros((rows, 3)))


@pytest.mark.parametrize("columns", [7, 40])
def test_infinity_and_nan_stay_in_their_columns(columns, rng):
    w, x = pruned(8, 8, 2, 4, rng), np.ones((8, columns), np.float32)
    x[3, 5], x[1, -1] = np.inf, np.nan
    c = wrapped_nm_spmm(NMPacked.from_dense(w, 2, 4), x, left=blocks(8, 4, rng), right=blocks(8, 8, rng))
    assert set(np.flatnonzero(~np.isfinite(c).all(axis=0))) == {5, columns - 1}


def test_work_counts(rng):
    s = NMPacked.from_dense(pruned(6, 40, 2, 4, rng), 2, 4)
    work = wrapped_nm_spmm_work(s, 8, left_side=3, right_side=4)
    assert work.flops == 2 * 8 * (6 * 20 + 6 * 3 + 40 * 4) and work.gathers == 6 * 20
    assert work.bytes_streamed == 6 * 20 * 5 + 4 * (18 + 160) + 4 * 8 * (6 + 40)
    assert wrapped_nm_spmm_work(s, 0).flops == 0


def test_bad_input_is_named(rng):
    s, x = NMPacked.from_dense(pruned(6, 8, 2, 4, rng), 2, 4), np.ones((8, 2), np.float32)
    with pytest.raises(TypeError, match="wrapped_nm_spmm: s must be an NMPacked, got ndarray"):
        wrapped_nm_spmm(x, x)
    with pytest.raises(TypeError, match="wrapped_nm_spmm_work: s must be an NMPacked"):
        wrapped_nm_spmm_work(x, 2)
    with pytest.raises(ValueError, match="x has 7 rows"):
        wrapped_nm_spmm(s, x[:7])
    for wrong in (np.ones((2, 2, 2), np.float32), np.ones((6, 1), np.float32), np.ones((2, 3, 2), np.float32)):
        with pytest.raises(ValueError, match=r"left must be \(blocks, side, side\) with blocks \* side = 6"):
            wrapped_nm_spmm(s, x, left=wrong)
    with pytest.raises(TypeError, match="right must be a NumPy array of float32"):
        wrapped_nm_spmm(s, x, right=np.ones((2, 4, 4)))
    with pytest.raises(ValueError, match="C-contiguous"):
        wrapped_nm_spmm(s, x, right=np.ones((2, 4, 4), np.float32).transpose(0, 2, 1))
