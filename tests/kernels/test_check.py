"""The public door: whatever is handed in, a clear error or a right answer, never a crash."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from kernels.attention.block_sparse import block_sparse_attention
from kernels.attention.csr_softmax import csr_softmax, csr_softmax_gradient
from kernels.check import as_csr, is_canonical
from kernels.formats.block_mask import BlockMask
from kernels.masks.block_scores import pooled_block_scores, xattn_block_scores
from kernels.masks.block_select import select_blocks
from kernels.matmul.dataflow import output_births
from kernels.matmul.sddmm import sddmm, sddmm_reference
from kernels.matmul.spgemm import row_flops, spgemm, spgemm_reference, symbolic_nnz
from kernels.matmul.spmm import spmm
from kernels.matmul.traffic import dataflow_traffic
from kernels.raster import block_density, raster, raster_bits, window_entries
from kernels.reorder import METHODS, bit_statistics, permuted, reorder, statistics
from workbench.machines.piuma import hash_trace, plan_windows

MARGIN = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 4, 5, 6, 2**31 - 1, 2**31, 2**62, 2**63 - 1]


def forged(data, indices, indptr, shape):
    """A csr_array whose attributes were replaced behind SciPy's back."""
    a = sparse.csr_array(shape)
    a.data, a.indices, a.indptr = data, indices, indptr
    return a


@st.composite
def malformed(draw, rows=None, cols=None):
    m = draw(st.integers(0, 5)) if rows is None else rows
    n = draw(st.integers(0, 5)) if cols is None else cols
    stored = draw(st.integers(0, 8))

    def integers(count, good):
        dtype = draw(st.sampled_from([np.int32, np.int64]))
        limits = np.iinfo(dtype)
        odd = st.sampled_from([x for x in MARGIN if limits.min <= x <= limits.max])
        values = draw(st.lists(good if draw(st.booleans()) else good | odd, min_size=count, max_size=count))
        return np.array(values, dtype=dtype)

    indices = integers(stored + draw(st.sampled_from([0, 0, 0, 1, -1])) if stored else 0, st.integers(0, max(n - 1, 0)))
    indptr = integers(m + 1 + draw(st.sampled_from([0, 0, 0, 1, -1])), st.integers(0, stored))
    if draw(st.booleans()):
        indptr = np.sort(indptr)
        indptr[:1] = 0
    values = st.sampled_from([0.0, 1.0, -2.5, np.nan, np.inf, 1e30])
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    data = np.array(draw(st.lists(values, min_size=stored, max_size=stored)), dtype=dtype)
    return forged(data, indices, indptr, (m, n))


def is_valid(a):
    lengths = len(a.indptr) == a.shape[0] + 1 and len(a.data) == len(a.indices)
    if not lengths or a.indptr[0] != 0 or np.any(np.diff(a.indptr.astype(object)) < 0) or a.indptr[-1] > len(a.indices):
        return False
    used = a.indices[: a.indptr[-1]]
    return bool(np.all((used >= 0) & (used < a.shape[1])))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_malformed_operands_never_crash(data):
    a = data.draw(malformed())
    b = data.draw(malformed(rows=a.shape[1]))
    method = data.draw(st.sampled_from(["auto", "hash", "dense", "inner", "outer", "merge", "smash-v1", "smash-v3"]))
    if not (is_valid(a) and is_valid(b)):
        for call in (spgemm, row_flops, symbolic_nnz, lambda x, y: dataflow_traffic(x, y, "row")):
            with pytest.raises((ValueError, TypeError)):
                call(a, b)
        return
    if a.dtype != b.dtype:
        return
    c = spgemm(a, b, method=method)
    c.check_format(full_check=True)
    assert c.nnz == symbolic_nnz(a, b).sum()
    assert c.indices.tolist() == spgemm_reference(a, b).indices.tolist()


@pytest.mark.parametrize(
    ("part", "value", "error", "words"),
    [
        ("indptr", np.array([1, 1, 2]), ValueError, r"indptr\[0\] is 1"),
        ("indptr", np.array([0, 2, 1]), ValueError, "decreases after row 1"),
        ("indptr", np.array([0, 1, 3]), ValueError, "ends at 3 but only 2"),
        ("indptr", np.array([0, 2]), ValueError, "2 rows need 3"),
        ("indices", np.array([0, 3]), ValueError, r"indices\[1\] is 3, must be in \[0, 3\)"),
        ("indices", np.array([-1, 0]), ValueError, r"indices\[0\] is -1"),
        ("indices", np.array([0]), ValueError, "2 values but 1 indices"),
        ("indices", np.array([0, 1], np.int16), TypeError, "int32, int64"),
        ("indices", np.array([0.0, 1.0]), TypeError, "int32, int64"),
        ("indices", [0, 1], ValueError, "NumPy array"),
        ("data", np.ones((2, 1)), ValueError, "one-dimensional"),
        ("data", np.ones(2, ">f8"), TypeError, "float32, float64"),
        ("data", np.ones(4)[::2], ValueError, "contiguous"),
    ],
)
def test_each_fault_is_named(part, value, error, words):
    parts = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2])} | {part: value}
    with pytest.raises(error, match=words):
        as_csr(forged(**parts, shape=(2, 3)), function="spgemm", name="a")


def test_first_bad_index_of_many(rng):
    a = sparse.random_array((3000, 100), density=0.9, format="csr", rng=rng)
    a.indices[[200_001, 150_000]] = 100, -7
    with pytest.raises(ValueError, match=r"indices\[150000\] is -7"):
        as_csr(a, function="f", name="x")


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rising_rows_are_told_from_others(rng, index):
    a = sparse.random_array((5000, 60), density=0.5, format="csr", rng=rng)
    a.sort_indices()
    a = sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)
    assert is_canonical(a, function="f", name="x")[1]
    for p in (1, 65_535, 65_536, 65_537, a.nnz - 1):
        row = np.searchsorted(a.indptr, p, side="right") - 1
        if p == a.indptr[row]:
            continue
        broken = a.copy()
        broken.indices[p] = broken.indices[p - 1]
        assert not is_canonical(broken, function="f", name="x")[1]


def test_shares_buffers(rng):
    a = sparse.csr_matrix(sparse.random_array((9, 9), density=0.5, format="csr", rng=rng))
    b = as_csr(a, function="f", name="x")
    assert isinstance(b, sparse.csr_array)
    assert np.shares_memory(a.data, b.data)
    assert np.shares_memory(a.indices, b.indices)


def test_read_only_operands(rng):
    a = sparse.random_array((9, 9), density=0.5, format="csr", rng=rng)
    for x in (a.data, a.indices, a.indptr):
        x.flags.writeable = False
    np.testing.assert_allclose(spgemm(a, a).toarray(), a.toarray() @ a.toarray())


def masked(array):
    return np.ma.masked_array(array, mask=np.zeros(array.shape, bool))


EYE = sparse.eye_array(4, dtype=np.float32, format="csr")
ONES, HEAD, KEEP = np.ones((4, 4), np.float32), np.ones((1, 1, 16, 4), np.float32), np.ones((1, 1, 1, 1), bool)


@pytest.mark.parametrize(
    "call",
    [
        lambda f: spmm(EYE, f(ONES)),
        lambda f: sddmm(EYE, f(ONES), ONES),
        lambda f: sddmm(EYE, ONES, f(ONES)),
        lambda f: block_sparse_attention(HEAD, f(HEAD), HEAD, KEEP, block_size=16),
        lambda f: xattn_block_scores(f(HEAD), HEAD, block_size=16, stride=4),
        lambda f: select_blocks(f(np.ones((1, 1, 2, 2)))),
    ],
)
def test_masked_foreign_and_half_arrays_are_refused_with_the_cure(call):
    call(lambda array: array)
    with pytest.raises(TypeError, match=r"got a masked array; say what stands for .*\.filled\(0\)"):
        call(masked)
    for dtype, cure in ((">f4", r"got >f4; convert it with \w+\.astype"), ("float16", "got float(16|32); convert it")):
        with pytest.raises(TypeError, match=cure):
            call(lambda array, dtype=dtype: array.astype(dtype))


def test_masked_masks_and_values_are_refused():
    with pytest.raises(TypeError, match="masked array"):
        block_sparse_attention(HEAD, HEAD, HEAD, masked(KEEP), block_size=16)
    with pytest.raises(TypeError, match="two-dimensional bool array"):
        BlockMask(masked(KEEP[0, 0]), (1, 1), (1, 1))
    with pytest.raises(TypeError, match="got a masked array"):
        raster_bits(masked(np.ones((2, 1), np.uint8)), 8)
    for call in (
        lambda: csr_softmax_gradient(EYE, masked(np.ones(4))),
        lambda: block_sparse_attention(
            HEAD, HEAD, HEAD, KEEP, block_size=16, key_positions=masked(np.zeros((1, 1, 16)))
        ),
        lambda: select_blocks(np.ones((1, 1, 2, 2)), masked(np.ones(1))),
        lambda: select_blocks(np.ones((1, 1, 2, 2)), eligible=masked(np.ones((1, 1, 2, 2), bool))),
        lambda: pooled_block_scores(HEAD, HEAD, block_size=16, hidden=masked(KEEP)),
        lambda: bit_statistics(masked(np.ones((2, 1), np.uint8)), 8),
    ):
        with pytest.raises(TypeError, match="a masked array; say what stands for masked elements"):
            call()
    hidden = EYE.copy()
    hidden.data = masked(hidden.data)
    for call in (lambda: spmm(hidden, ONES), lambda: spgemm(hidden, EYE), lambda: raster(hidden)):
        with pytest.raises(TypeError, match=r"a\.data is a masked array"):
            call()


@pytest.mark.parametrize("dense", [np.eye(3, dtype=np.float16), np.eye(3).astype(">f8"), masked(np.eye(3)), np.eye(3)])
def test_the_cure_for_a_dense_operand_works(dense):
    with pytest.raises(TypeError, match="use csr_array") as error:
        raster(dense)
    cure = str(error.value).partition("; use ")[2]
    assert raster(eval(cure, {"csr_array": sparse.csr_array, "a": dense})).sum() == 3


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_spare_room_behind_the_entries_changes_nothing(rng, index, assert_close):
    """Buffers longer than the last row pointer, as an append leaves them, with garbage behind the entries."""
    a = sparse.random_array((12, 12), density=0.3, format="csr", rng=rng, dtype=np.float32)
    a.sort_indices()
    tight = sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)
    garbage = np.array([np.nan, np.inf, 7], np.float32)
    roomy = forged(
        np.concatenate([a.data, garbage]), np.append(a.indices, [-5, 99, 3]).astype(index), tight.indptr, a.shape
    )
    dense, gradient = rng.random((12, 5), np.float32), rng.random(a.nnz, np.float32)
    order = reorder(tight, "cluster")
    calls = {
        "spmm": lambda x: spmm(x, dense),
        "sddmm": lambda x: sddmm(x, dense, dense),
        "sddmm_reference": lambda x: sddmm_reference(x, dense, dense),
        "csr_softmax": csr_softmax,
        "csr_softmax_gradient": lambda x: csr_softmax_gradient(x, gradient),
        "raster": lambda x: raster(x, shape=(5, 5)),
        "window_entries": lambda x: np.stack(window_entries(x, (2, 9, 1, 12))),
        "block_density": lambda x: block_density(x, 5).histogram,
        "permuted": lambda x: permuted(x, order),
        "statistics": lambda x: np.array(statistics(x).symmetric_share),
        "row_flops": lambda x: row_flops(x, x),
        "symbolic_nnz": lambda x: symbolic_nnz(x, x),
        "output_births": lambda x: output_births(x, x, "column"),
        "hash_trace": lambda x: hash_trace(x, x, plan_windows(x, x, 64, 0.5), 64).probes,
    }
    calls |= {f"spgemm {m}": lambda x, m=m: spgemm(x, x, method=m) for m in ("auto", "inner", "outer", "smash-v3")}
    calls |= {f"reorder {m}": lambda x, m=m: reorder(x, m).columns for m in METHODS}
    calls |= {
        f"traffic {d}": lambda x, d=d: np.array(dataflow_traffic(x, x, d).total_bytes)
        for d in ("inner", "inner-masked", "outer", "row", "column")
    }
    for name, call in calls.items():
        found, wanted = call(roomy), call(tight)
        if name not in ("csr_softmax", "sddmm"):
            assert_close(found, wanted)
        elif sparse.issparse(found):
            np.testing.assert_array_equal(found.data, wanted.data, err_msg=name)
            np.testing.assert_array_equal(found.indices, wanted.indices, err_msg=name)
    assert np.shares_memory(as_csr(roomy, function="f", name="x").data, roomy.data)
