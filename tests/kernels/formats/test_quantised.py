"""Groups in few bits: levels, errors, packing, bad input."""

import numpy as np
import pytest

from kernels.formats.quantised import (
    dequantize,
    group_codes,
    group_codes_reference,
    pack_bits,
    pack_bits_reference,
    quantize_groups,
    quantize_groups_work,
    unpack_bits,
)

WORKED = np.array([0, 0.1, 0.5, 0.9, 1, -1, 2, 0.3], np.float32)


def test_codes_worked_by_hand(assert_close):
    q = quantize_groups(WORKED, 2)
    np.testing.assert_array_equal(unpack_bits(q.codes, 2, 8), [1, 1, 2, 2, 2, 0, 3, 1])
    assert_close(dequantize(q), np.array([0, 0, 1, 1, 1, -1, 2, 0], np.float32))
    exact = np.array([0, 0.1, 0.5, 0.9, 1, -1, 2, 0.3])
    codes, scale, zero = group_codes_reference(exact, 4)
    np.testing.assert_array_equal(codes, [5, 6, 8, 9, 10, 0, 15, 6])
    np.testing.assert_allclose([scale[0], zero[0]], [0.2, -1])
    fast = group_codes(WORKED, 4, scales="float32")[0]
    np.testing.assert_array_equal(fast[[0, 1, 2, 4, 5, 6, 7]], [5, 6, 8, 10, 0, 15, 6])  # 0.9 is a tie in float32


@pytest.mark.parametrize("scales", ["float16", "float32"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_no_number_is_farther_than_half_a_step_from_its_level(bits, scales, rng):
    x = (rng.standard_normal((3, 5, 96)) * 10.0 ** rng.integers(-3, 3, (3, 5, 1))).astype(np.float32)
    q = quantize_groups(x, bits, group=32, scales=scales)
    step = np.repeat(q.scale.astype(np.float64), 32, axis=-1)
    assert (np.abs(dequantize(q) - x.astype(np.float64)) <= 0.5 * step * (1 + 1e-5) + 1e-6 * np.abs(x)).all()
    codes = unpack_bits(q.codes, bits, 96)
    assert codes.max() == 2**bits - 1 and codes.min() == 0


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_codes_equal_the_reference_along_any_axis(axis, bits, rng, assert_close):
    x = rng.standard_normal((12, 18, 24)).astype(np.float32)
    codes, scale, zero = group_codes(x, bits, axis=axis, group=6, scales="float32")
    wanted, step, low = group_codes_reference(x, bits, axis, 6)
    assert (codes != wanted).mean() < 1e-3 and np.abs(codes.astype(int) - wanted).max() <= 1  # ties of float32
    assert_close(scale, step.astype(np.float32))
    assert_close(zero, low.astype(np.float32))
    assert dequantize(quantize_groups(x, bits, axis=axis, group=6)).shape == x.shape


@pytest.mark.parametrize("n", [1, 7, 15, 16, 17, 64, 100])
@pytest.mark.parametrize("bits", range(1, 9))
def test_packing_keeps_every_code_and_follows_the_layout(bits, n, rng):
    codes = rng.integers(0, 2**bits, (3, n)).astype(np.uint8)
    packed = pack_bits(codes, bits)
    assert packed.shape == (3, -(-n // 16), 2 * bits)
    np.testing.assert_array_equal(packed.reshape(3, -1), pack_bits_reference(codes, bits).reshape(3, -1))
    np.testing.assert_array_equal(unpack_bits(packed, bits, n), codes)


def test_a_constant_group_comes_back_exactly_and_without_nan():
    x = np.full((2, 32), 0.25, np.float32)
    x[1] = 0
    q = quantize_groups(x, 2, group=16)
    np.testing.assert_array_equal(dequantize(q), x)
    assert not q.scale.any()
    odd = np.full(16, 0.1, np.float32)  # not a half: one step covers it
    assert np.abs(dequantize(quantize_groups(odd, 2)) - odd).max() <= quantize_groups(odd, 2).scale.max() / 2 * 1.001


def test_bytes_are_those_of_the_formula(rng):
    q = quantize_groups(rng.standard_normal((4, 128)).astype(np.float32), 3, group=64)
    assert q.nbytes == 4 * (128 * 3 // 8 + 2 * 2 * 2)
    work = quantize_groups_work((4, 128), 3, group=64)
    assert work.bytes_streamed == 8 * 512 + q.nbytes and work.flops == 5 * 512 and work.gathers == 0


def test_same_codes_for_any_thread_count(rng):
    x = rng.standard_normal((700, 64)).astype(np.float32)
    wanted = quantize_groups(x, 2, num_threads=1)
    for threads in (2, 5):
        found = quantize_groups(x, 2, num_threads=threads)
        np.testing.assert_array_equal(found.codes, wanted.codes)
        np.testing.assert_array_equal(found.scale, wanted.scale)


def test_bad_input_is_named(rng):
    x = rng.standard_normal((4, 64)).astype(np.float32)
    with pytest.raises(TypeError, match="quantize_groups: x must be a NumPy array of float32, got float64"):
        quantize_groups(x.astype(np.float64), 2)
    with pytest.raises(ValueError, match="bits must be an int from 1 to 8, got 9"):
        quantize_groups(x, 9)
    with pytest.raises(ValueError, match="group must divide the axis of 64 numbers, got 48"):
        quantize_groups(x, 2, group=48)
    with pytest.raises(ValueError, match="group must divide the axis of 0 numbers"):
        quantize_groups(x[:, :0], 2)
    with pytest.raises(ValueError, match="axis must be an int from -2 to 1"):
        quantize_groups(x, 2, axis=2)
    with pytest.raises(ValueError, match="x must be finite"):
        quantize_groups(np.where(x > 2, np.nan, x) + np.float32(np.inf), 2)
    with pytest.raises(ValueError, match=r"beyond 65,504.*scales='float32'"):
        quantize_groups(x * 1e6, 2)
    assert np.isfinite(dequantize(quantize_groups(x * 1e6, 2, scales="float32"))).all()
    with pytest.raises(ValueError, match="codes must be below 4 for 2 bits, got 7"):
        pack_bits(np.full(3, 7, np.uint8), 2)
    with pytest.raises(ValueError, match=r"packed must end in \(2, 4\) for 17 codes of 2 bits"):
        unpack_bits(np.zeros((1, 1, 4), np.uint8), 2, 17)
    with pytest.raises(TypeError, match="dequantize: q must be a QTensor"):
        dequantize(x)
