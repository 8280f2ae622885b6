"""Products with block-diagonal matrices: NumPy's dense product, finite differences, every dtype and form."""

import numpy as np
import pytest
import scipy.linalg

from kernels.transforms.block_diagonal import (
    block_chain_gradient,
    block_chain_multiply,
    block_chain_multiply_reference,
    block_diagonal_gradient,
    block_diagonal_multiply,
    block_diagonal_multiply_reference,
    block_diagonal_work,
)

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def draw(rng, shape, dtype):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def real(x):
    return x.view(x.real.dtype) if x.dtype.kind == "c" else x


def wide(dtype):
    return np.result_type(dtype, np.float64)


def as_dense(w, inner):
    """Write a stage as one matrix, entry by entry."""
    blocks, o, i = w.shape
    dense = np.zeros((blocks * o, blocks * i), w.dtype)
    for k in range(blocks):
        a, c = divmod(k, inner)
        for row in range(o):
            for column in range(i):
                dense[(a * o + row) * inner + c, (a * i + column) * inner + c] = w[k, row, column]
    return dense


def test_with_inner_one_it_is_scipys_block_diagonal(rng, assert_close):
    w, x = draw(rng, (3, 5, 4), np.float64), draw(rng, (6, 12), np.float64)
    assert_close(as_dense(w, 1), scipy.linalg.block_diag(*w))
    assert_close(block_diagonal_multiply(x, w), x @ scipy.linalg.block_diag(*w).T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 4, 5, 17, 33, 130])
@pytest.mark.parametrize(("blocks", "o", "i", "inner"), [(1, 1, 1, 1), (3, 5, 7, 1), (6, 17, 33, 3), (4, 68, 16, 4)])
def test_product_equals_the_dense_one(dtype, rows, blocks, o, i, inner, rng, assert_close):
    w, x = draw(rng, (blocks, o, i), dtype), draw(rng, (rows, blocks * i), dtype)
    y = block_diagonal_multiply(x, w, inner=inner)
    assert y.dtype == dtype
    assert_close(real(y), real(x.astype(wide(dtype)) @ as_dense(w, inner).T.astype(wide(dtype))).astype(y.real.dtype))
    assert_close(real(y), real(block_diagonal_multiply_reference(x, w, inner).astype(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 40, 200])
@pytest.mark.parametrize("inner", [(1, 8, 2), (4, 4, 1), (2, 1, 10)])
def test_chain_equals_its_stages(dtype, rows, inner, rng, assert_close):
    weights = [draw(rng, shape, dtype) for shape in ((4, 12, 6), (8, 5, 6), (10, 3, 4))]
    x = draw(rng, (rows, 24), dtype)
    want = block_chain_multiply_reference(x, weights, inner).astype(dtype)
    assert_close(real(block_chain_multiply(x, weights, list(inner))), real(want))


def test_chain_of_large_blocks_goes_stage_by_stage(rng, assert_close):
    weights = [draw(rng, (2, 304, 300), np.float32), draw(rng, (2, 310, 304), np.float32)]
    x = draw(rng, (37, 600), np.float32)
    want = block_chain_multiply_reference(x, weights, [1, 2]).astype(np.float32)
    assert_close(block_chain_multiply(x, weights, [1, 2]), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inner"), [(1, 1), (5, 3), (300, 1)])
def test_gradient_of_the_blocks(dtype, rows, inner, rng, assert_close):
    x, g = draw(rng, (rows, 6 * 7), dtype), draw(rng, (rows, 6 * 5), dtype)
    found = block_diagonal_gradient(x, g, (6, 5, 7), inner=inner)
    dense = g.T.astype(complex) @ x.conj().astype(complex)  # of which the blocks are a part
    kept = as_dense(np.arange(1, 6 * 5 * 7 + 1).reshape(6, 5, 7), inner)
    want = np.array([dense[kept == entry][0] for entry in range(1, 6 * 5 * 7 + 1)]).reshape(6, 5, 7)
    assert_close(real(found), real((want if np.dtype(dtype).kind == "c" else want.real).astype(dtype)))


def test_gradient_of_tall_blocks_is_made_in_pieces(rng, assert_close):
    x, g = draw(rng, (9, 4), np.float64), draw(rng, (9, 200), np.float64)
    assert_close(block_diagonal_gradient(x, g, (1, 200, 4))[0], g.T @ x)


def test_gradient_of_a_chain_equals_finite_differences(rng):
    weights = [draw(rng, (2, 6, 3), np.float64), draw(rng, (3, 2, 4), np.float64)]
    x, g = draw(rng, (4, 6), np.float64), draw(rng, (4, 6), np.float64)

    def value():
        return float((block_chain_multiply(x, weights, [1, 3]) * g).sum())

    to_x, to_weights = block_chain_gradient(x, weights, [1, 3], g)
    for array, gradient in ((x, to_x), (weights[0], to_weights[0]), (weights[1], to_weights[1])):
        assert gradient.shape == array.shape
        for at in np.ndindex(array.shape):
            before = array[at]
            array[at] = before + 1e-3
            above = value()
            array[at] = before - 1e-3
            below = value()
            array[at] = before
            assert (above - below) / 2e-3 == pytest.approx(gradient[at], rel=1e-6, abs=1e-8)


def test_rows_may_have_any_shape_and_none(rng):
    w = draw(rng, (2, 3, 4), np.float32)
    x = draw(rng, (3, 5, 8), np.float32)
    y = block_diagonal_multiply(x, w)
    assert y.shape == (3, 5, 6)
    assert np.array_equal(y[1], block_diagonal_multiply(x[1].copy(), w))
    assert block_diagonal_multiply(x[0, 0].copy(), w).shape == (6,)
    assert block_diagonal_multiply(np.zeros((0, 8), np.float32), w).shape == (0, 6)
    assert block_diagonal_multiply(np.zeros((5, 0), np.float32), np.zeros((0, 3, 4), np.float32)).shape == (5, 0)
    assert not block_diagonal_multiply(np.zeros((5, 0), np.float32), np.zeros((2, 3, 0), np.float32)).any()
    assert not block_diagonal_gradient(np.zeros((0, 8), np.float32), np.zeros((0, 6), np.float32), (2, 3, 4)).any()


def test_nan_and_infinity_stay_in_their_row_and_block(rng):
    x, w = draw(rng, (40, 8), np.float32), draw(rng, (2, 3, 4), np.float32)
    x[3, 1], x[7, 6] = np.nan, np.inf
    bad = ~np.isfinite(block_diagonal_multiply(x, w))
    want = np.zeros((40, 6), bool)
    want[3, :3], want[7, 3:] = True, True
    assert np.array_equal(bad, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [2, 20, 700])
def test_the_bits_do_not_depend_on_the_threads(dtype, rows, rng):
    weights = [draw(rng, (8, 48, 32), dtype), draw(rng, (12, 40, 32), dtype)]
    x, g = draw(rng, (rows, 256), dtype), draw(rng, (rows, 480), dtype)
    one = block_chain_multiply(x, weights, [1, 12], num_threads=1)
    for threads in (2, 3, 5):
        assert np.array_equal(block_chain_multiply(x, weights, [1, 12], num_threads=threads), one)
    slopes = [block_chain_gradient(x, weights, [1, 12], g, num_threads=threads)[1] for threads in (1, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(*slopes, strict=True))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_every_instruction_set_is_right(dtype, rng):
    worst = 0.0
    for rows in (1, 7, 21, 90):
        for shape, inner in (((3, 5, 7), 1), ((4, 18, 33), 4), ((1, 70, 9), 1)):
            x = rng.standard_normal((rows, shape[0] * shape[2])).astype(dtype)
            w = (rng.standard_normal(shape) * (1 + (1j if np.dtype(dtype).kind == "c" else 0))).astype(dtype)
            y, want = block_diagonal_multiply(x, w, inner=inner), block_diagonal_multiply_reference(x, w, inner)
            slope = block_diagonal_gradient(x, y, shape, inner=inner)
            assert np.isclose((slope * w.conj()).sum(), (y * y.conj()).sum(), rtol=1e-4)
            worst = max(worst, float(abs(y - want).max() / abs(want).max()) / np.finfo(dtype).eps)
    assert worst < 40  # units in the last place, over sums of at most 33


def test_work_counts():
    work = block_diagonal_work(4, 3, 5, 10)
    assert (work.flops, work.gathers) == (2 * 10 * 60, 0)
    assert work.bytes_streamed == 4 * (60 + 10 * 4 * 8)
    twice = block_diagonal_work(4, 3, 5, 10, itemsize=8, parts=2)
    assert (twice.flops, twice.bytes_streamed) == (4 * work.flops, 4 * work.bytes_streamed)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": np.ones((2, 7), np.float32)}, ValueError, "w has 2 blocks of 3 x 4, which read 8 numbers, but get 7"),
        ({"inner": 3}, ValueError, "inner is 3, which does not divide the 2 blocks of w"),
        ({"w": np.ones((2, 3, 4))}, TypeError, "w must be a NumPy array of float32, got float64"),
        ({"w": np.ones((3, 4), np.float32)}, ValueError, r"w must have shape \(blocks, out, in\), got \(3, 4\)"),
        ({"x": np.ones((2, 16), np.float32)[:, ::2]}, ValueError, "x must be C-contiguous .* np.ascontiguousarray"),
        ({"x": np.ones((2, 8), np.float16)}, TypeError, "x must be a NumPy array of float32 or float64 or complex64"),
    ],
)
def test_refusals(change, error, words):
    good = {"x": np.ones((2, 8), np.float32), "w": np.ones((2, 3, 4), np.float32)}
    with pytest.raises(error, match=f"block_diagonal_multiply: {words}"):
        block_diagonal_multiply(**(good | change))


def test_a_chain_that_does_not_fit_is_refused():
    x, w = np.ones((2, 8), np.float32), np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match=r"weights\[1\] has 2 blocks of 3 x 4, which read 8 numbers, but get 6"):
        block_chain_multiply(x, [w, w], [1, 1])
    with pytest.raises(ValueError, match="inner must be a list of 1 ints"):
        block_chain_multiply(x, [w], [1, 1])
    with pytest.raises(ValueError, match=r"g has shape \(2, 5\), the product has \(2, 6\)"):
        block_chain_gradient(x, [w], [1], np.ones((2, 5), np.float32))
    with pytest.raises(ValueError, match="x has rows"):
        block_diagonal_gradient(x, np.ones((3, 6), np.float32), (2, 3, 4))
