"""SpMM of int8 weights: exact sums, the order of what follows them, hand-worked bytes, and what it refuses."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from kernels.formats.block_groups import BlockGroupedWeight
from kernels.matmul.quantize import quantize_activation_u8
from kernels.matmul.spmm_int8 import spmm_int8, spmm_int8_reference, spmm_int8_work

BLOCKS = [((4, 1), 4), ((8, 1), 4), ((16, 1), 4), ((2, 1), 4), ((1, 1), 4), ((7, 1), 4), ((1, 4), 1), ((2, 2), 2)]


def operands(rng, rows, columns, n, block=(4, 1), group=4, density=0.3):
    kept = np.kron(rng.random((rows, columns)) < density, np.ones(block, bool))
    w = np.where(kept, rng.integers(-128, 128, kept.shape), 0).astype(np.int8)
    x = rng.integers(0, 256, (kept.shape[1], n)).astype(np.uint8)
    return BlockGroupedWeight.from_dense(w, block=block, group=group), x


def around(rng, m, n):
    """Bias, scale and residual that bring sums of small weights near 1."""
    bias = rng.integers(-(10**4), 10**4, m).astype(np.int32)
    return bias, (rng.random(m) / 30_000).astype(np.float32), rng.standard_normal((m, n)).astype(np.float32)


@pytest.mark.parametrize(("block", "group"), BLOCKS)
@pytest.mark.parametrize("n", [1, 16, 63, 64, 65, 200])
def test_sums_are_those_of_whole_numbers(rng, block, group, n):
    for rows, columns, density in ((1, 1, 1), (9, 30, 0.3), (3, 57, 1), (5, 8, 0)):
        weight, x = operands(rng, rows, columns, n, block, group, density)
        bias = rng.integers(-(2**20), 2**20, weight.shape[0]).astype(np.int32)
        whole = weight.to_dense().astype(np.int64) @ x.astype(np.int64)
        found = spmm_int8(weight, x)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, whole)
        np.testing.assert_array_equal(spmm_int8(weight, x, bias=bias), whole + bias[:, None])
        np.testing.assert_array_equal(spmm_int8_reference(weight, x, bias=bias), whole + bias[:, None])


def test_no_extreme_saturates():
    for value, k in ((127, 65_000), (-128, 65_000)):
        weight = BlockGroupedWeight.from_dense(np.full((4, k), value, np.int8))
        assert np.all(spmm_int8(weight, np.full((k, 3), 255, np.uint8)) == 255 * value * k)


def test_sums_beyond_int32_wrap():
    weight = BlockGroupedWeight.from_dense(np.full((1, 4), 127, np.int8), block=(1, 1))
    found = spmm_int8(weight, np.full((4, 20), 255, np.uint8), bias=np.array([2**31 - 1], np.int32))
    assert np.all(found == 255 * 127 * 4 - 2**31 - 1)


def test_wide_matrices_have_wide_indices(rng):
    k = (1 << 16) + 7
    w = np.zeros((4, k), np.int8)
    w[:, [0, 5, 1 << 16, k - 1]] = rng.integers(-128, 128, (4, 4))
    weight, x = BlockGroupedWeight.from_dense(w), rng.integers(0, 256, (k, 5)).astype(np.uint8)
    assert weight.indices.dtype == np.int32
    np.testing.assert_array_equal(spmm_int8(weight, x), w.astype(int) @ x.astype(int))
    scale = np.full(4, 2.0**-10, np.float32)
    for out_dtype in ("float32", "uint8", "int8"):
        found = spmm_int8(weight, x, scale=scale, out_dtype=out_dtype)
        np.testing.assert_array_equal(found, spmm_int8_reference(weight, x, scale=scale, out_dtype=out_dtype))


@pytest.mark.parametrize(
    "post", [(), ("relu",), ("gelu",), ("tanh",), ("exp",), (("linear", 2.0, -0.5),), ("tanh", ["linear", 3, 1], "exp")]
)
@pytest.mark.parametrize("n", [64, 130])
def test_floats_equal_reference(rng, assert_close, post, n):
    weight, x = operands(rng, 9, 60, n, density=0.2)
    bias, scale, append = around(rng, 36, n)
    for options in ({"bias": bias, "scale": scale, "append": append}, {"scale": scale}):
        found = spmm_int8(weight, x, out_dtype="float32", post=post, **options)
        assert found.dtype == np.float32
        assert_close(found, spmm_int8_reference(weight, x, out_dtype="float32", post=post, **options))


def test_order_of_what_follows_the_sums():
    weight = BlockGroupedWeight.from_dense(np.array([[1], [1], [1], [1]], np.int8))
    x, scale = np.array([[2, 4]], np.uint8), np.array([0.5, 0.5, -0.5, -0.5], np.float32)
    append = np.array([[-3, 3]] * 4, np.float32)
    found = spmm_int8(
        weight, x, bias=np.full(4, 2, np.int32), scale=scale, append=append, post=("relu",), out_dtype="float32"
    )
    assert found.tolist() == [[0, 6], [0, 6], [0, 0], [0, 0]]  # relu(scale (x + bias) + append)
    chain = (("linear", 2, 1), "relu", ("linear", -1, 0))
    found = spmm_int8(weight, x, scale=scale, post=chain, out_dtype="float32")
    assert found.tolist() == [[-3, -5], [-3, -5], [0, 0], [0, 0]]


def test_bytes_round_halves_to_even_and_are_cut():
    weight = BlockGroupedWeight.from_dense(np.array([[1], [-1]], np.int8), block=(2, 1))
    x = np.array([[0, 1, 3, 5, 7, 20, 255]], np.uint8)
    half = {"scale": np.full(2, 0.5, np.float32)}
    found = spmm_int8(weight, x, out_dtype="int8", **half)
    assert found.tolist() == [[0, 0, 2, 2, 4, 10, 127], [0, 0, -2, -2, -4, -10, -128]]
    found = spmm_int8(weight, x, out_dtype="uint8", out_scale=0.25, out_zero=3, **half)
    assert found.tolist() == [[3, 5, 9, 13, 17, 43, 255], [3, 1, 0, 0, 0, 0, 0]]
    assert found.dtype == np.uint8


def test_what_is_not_finite():
    weight = BlockGroupedWeight.from_dense(np.array([[1]] * 4, np.int8))
    x = np.array([[200, 1, 0]], np.uint8)
    append = np.array([[np.inf, np.nan, -np.inf]] * 4, np.float32)
    for post, want in (
        ((), [np.inf, np.nan, -np.inf]),
        (("gelu",), [np.inf, np.nan, 0]),
        (("relu",), [np.inf, np.nan, 0]),
        (("tanh",), [1, np.nan, -1]),
        (("exp",), [np.inf, np.nan, 0]),
    ):
        found = spmm_int8(weight, x, append=append, post=post, out_dtype="float32")
        np.testing.assert_array_equal(found, [want] * 4)
    overflown = spmm_int8(weight, x, post=("exp", ("linear", 0, 5)), out_dtype="int8")  # inf 0 is NaN
    assert overflown.tolist() == [[-128, 5, 5]] * 4


def dense_values(values, post):
    """Return post(values): a sum of 0 plus the residual."""
    weight = BlockGroupedWeight.from_dense(np.zeros((1, 1), np.int8), block=(1, 1))
    x = np.zeros((1, len(values)), np.uint8)
    return spmm_int8(weight, x, append=values[None], post=(post,), out_dtype="float32")[0].astype(np.float64)


def test_functions_are_accurate_all_along():
    values = np.concatenate([np.linspace(-13, 13, 40_001), np.geomspace(1e-30, 1, 500), -np.geomspace(1e-30, 1, 500)])
    values = values.astype(np.float32)
    exact = values.astype(np.float64)
    want = exact * ndtr(exact)
    for post, right, tolerance in (
        ("gelu", want, 1e-5),  # in the far tail, from the square in the exponent; 2e-6 from -5 on
        ("tanh", np.tanh(exact), 1e-6),
        ("exp", np.exp(exact), 2e-6),
    ):
        found = dense_values(values, post)
        assert np.max(np.abs(found - right) / np.maximum(np.abs(right), 1e-36)) < tolerance, post
    middle = (np.abs(values) < 5) & (values != 0)
    assert np.max(np.abs(dense_values(values[middle], "gelu") / want[middle] - 1)) < 2e-6
    ends = np.array([88.7, 89, -87, -110, 1000, -1000], np.float32)
    np.testing.assert_allclose(
        dense_values(ends, "exp"), [math.exp(np.float32(88.7)), np.inf, math.exp(-87), 0, np.inf, 0], 1e-5, 1e-44
    )
    np.testing.assert_array_equal(dense_values(ends, "gelu")[[0, 3, 4, 5]], [np.float32(88.7), 0, 1000, 0])


@pytest.mark.parametrize("n", [64, 70])
def test_panels_give_what_the_matrix_gives(rng, n):
    weight, x = operands(rng, 9, 60, 3 * n)
    bias, scale, append = around(rng, 36, 3 * n)

    def panels(matrix):
        return np.ascontiguousarray(matrix.reshape(len(matrix), 3, n).transpose(1, 0, 2))

    whole = {"bias": bias, "scale": scale, "post": ("gelu",), "out_dtype": "float32"}
    found = spmm_int8(weight, panels(x), append=panels(append), **whole)
    np.testing.assert_array_equal(found, panels(spmm_int8(weight, x, append=append, **whole)))
    np.testing.assert_array_equal(spmm_int8(weight, panels(x)), panels(spmm_int8(weight, x)))


@pytest.mark.parametrize("out_dtype", ["int32", "float32", "uint8", "int8"])
def test_nothing_to_do(rng, out_dtype):
    for rows, k, n in ((0, 5, 7), (2, 5, 0), (2, 0, 7)):
        weight = BlockGroupedWeight.from_dense(np.zeros((4 * rows, k), np.int8))
        for shape in ((k, n), (2, k, n), (0, k, n)):
            found = spmm_int8(weight, np.zeros(shape, np.uint8), out_dtype=out_dtype)
            assert found.shape == (*shape[:-2], 4 * rows, n)
            assert not found.any()


def test_threads_change_no_bit(rng):
    weight, x = operands(rng, 120, 400, 333)
    _, scale, append = around(rng, 480, 333)
    for options in ({}, {"scale": scale, "append": append, "post": ("gelu",), "out_dtype": "float32"}):
        first = spmm_int8(weight, x, num_threads=1, **options)
        for threads in (2, 3, 8):
            np.testing.assert_array_equal(spmm_int8(weight, x, num_threads=threads, **options), first)


def test_a_weight_that_was_changed_is_noticed(rng):
    for part, value in (("indices", 60), ("indptr", 10**9), ("indptr", -1)):
        weight, x = operands(rng, 9, 60, 5)
        getattr(weight, part)[1] = value
        with pytest.raises(ValueError, match="spmm_int8: weight was changed"):
            spmm_int8(weight, x)


def test_work_counts_padding_too():
    w = np.zeros((8, 9), np.int8)
    w[4:, [0, 2, 3, 5, 8]] = 1
    work = spmm_int8_work(BlockGroupedWeight.from_dense(w), 10)
    assert (work.flops, work.gathers) == (2 * 32 * 10, 8)
    assert work.bytes_streamed == 24 + 16 + 32 + 90 + 320
    assert spmm_int8_work(BlockGroupedWeight.from_dense(w), 10, out_bytes=1).bytes_streamed == 24 + 16 + 32 + 90 + 80


ONES = np.ones(36, np.float32)
REFUSED = [
    ({"weight": np.zeros((36, 60), np.int8)}, TypeError, "use BlockGroupedWeight.from_dense"),
    ({"weight": BlockGroupedWeight.from_dense(np.zeros((36, 60), np.float32))}, TypeError, "hold int8"),
    ({"weight": BlockGroupedWeight.from_dense(np.zeros((36, 60), np.int8), group=2)}, ValueError, "groups of four"),
    ({"x": np.zeros((59, 5), np.uint8)}, ValueError, "x has 59 rows, weight has 60 columns"),
    ({"x": np.zeros((60, 5), np.int8)}, TypeError, "x must be a NumPy array of uint8"),
    ({"x": np.zeros(60, np.uint8)}, ValueError, "two- or three-dimensional"),
    ({"x": np.zeros((5, 60), np.uint8).T}, ValueError, "C-contiguous"),
    ({"bias": np.zeros(35, np.int32)}, ValueError, r"bias must be contiguous and of shape \(36,\)"),
    ({"bias": np.zeros(72, np.int32)[::2]}, ValueError, "bias must be contiguous"),
    ({"bias": np.zeros(36)}, TypeError, "bias must be a NumPy array of int32"),
    ({"scale": ONES}, ValueError, "takes no scale and no post"),
    ({"post": ("relu",)}, ValueError, "takes no scale and no post"),
    ({"scale": ONES * np.nan, "out_dtype": "float32"}, ValueError, "scale must be finite"),
    ({"scale": ONES.astype(float), "out_dtype": "float32"}, TypeError, "scale must be a NumPy array of float32"),
    ({"append": np.zeros((36, 5), np.float32)}, ValueError, 'append needs out_dtype "float32"'),
    ({"append": np.zeros((36, 5), np.float32), "out_dtype": "uint8"}, ValueError, "append needs"),
    ({"append": np.zeros((36, 4), np.float32), "out_dtype": "float32"}, ValueError, r"result's shape \(36, 5\)"),
    ({"append": np.zeros((5, 36), np.float32).T, "out_dtype": "float32"}, ValueError, "C-contiguous"),
    ({"append": np.zeros((36, 5)), "out_dtype": "float32"}, TypeError, "append must be"),
    ({"post": "relu", "out_dtype": "float32"}, TypeError, "pass a tuple"),
    ({"post": ("silu",), "out_dtype": "float32"}, ValueError, "'silu'"),
    ({"post": ("linear",), "out_dtype": "float32"}, ValueError, "'linear'"),
    ({"post": (("linear", 1),), "out_dtype": "float32"}, ValueError, "linear"),
    ({"post": (("linear", 1, np.nan),), "out_dtype": "float32"}, ValueError, "finite number"),
    ({"out_dtype": "float64"}, ValueError, "out_dtype must be one of"),
    ({"out_scale": 2.0}, ValueError, "out_scale and out_zero are for"),
    ({"out_zero": 2}, ValueError, "out_scale and out_zero are for"),
    ({"out_scale": 0.0, "out_dtype": "int8"}, ValueError, "out_scale must be"),
    ({"out_zero": -1, "out_dtype": "uint8"}, ValueError, "out_zero must be an int from 0 to 255"),
    ({"out_zero": 128, "out_dtype": "int8"}, ValueError, "out_zero must be an int from -128 to 127"),
    ({"num_threads": 0}, ValueError, "num_threads"),
]


@pytest.mark.parametrize(("change", "error", "told"), REFUSED)
def test_refuses(rng, change, error, told):
    weight, x = operands(rng, 9, 60, 5)
    with pytest.raises(error, match=f"spmm_int8: .*{told}"):
        spmm_int8(**({"weight": weight, "x": x} | change))


def test_instruction_sets_give_the_same_bits_without_transcendental_functions(rng, levels, use_level):
    weight, _ = operands(rng, 30, 90, 1)
    inputs = rng.standard_normal((90, 150)).astype(np.float32)
    s, append = rng.random(120).astype(np.float32), rng.standard_normal((120, 150)).astype(np.float32)
    answers = set()
    for level in levels:
        use_level(level)
        x, scale, zero = quantize_activation_u8(inputs)
        found = [x.tobytes(), scale, zero]
        for options in (
            {},
            {"out_dtype": "uint8", "scale": s, "out_scale": 300.0, "post": ("relu", ("linear", 2, 1))},
            {"out_dtype": "float32", "scale": s, "append": append, "post": (("linear", 0.3, 0.7),)},
        ):
            found.append(spmm_int8(weight, x, **options).tobytes())
        answers.add(tuple(found))
    assert len(answers) == 1
