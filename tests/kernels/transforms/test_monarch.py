"""Monarch matrices against the index formula, LAPACK, random search and the transforms they are to contain."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from kernels.transforms.monarch import (
    monarch_dense,
    monarch_multiply,
    monarch_multiply_reference,
    monarch_order_p_multiply,
    monarch_permutation,
    monarch_project,
    monarch_project_reference,
    monarch_sizes,
    monarch_spectra,
    monarch_work,
)


def dft(n):
    return scipy.linalg.dft(n, scale="sqrtn")


def factors(rng, first, second, dtype=np.float64):
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in (first, second))


def test_entries_follow_the_index_formula(rng, assert_close):
    m = 5
    r, l = factors(rng, (m, m, m), (m, m, m))
    dense = monarch_dense(r, l)
    for s, j, k, p in np.ndindex(m, m, m, m):
        assert_close(dense[s * m + j, k * m + p], l[j, s, k] * r[k, j, p])


@pytest.mark.parametrize(("first", "second"), [((4, 4, 4), (4, 4, 4)), ((3, 8, 4), (6, 5, 4)), ((2, 9, 7), (3, 1, 6))])
@pytest.mark.parametrize("rows", [1, 6, 70])
def test_product_equals_the_dense_one(first, second, rows, rng, assert_close):
    w1, w2 = factors(rng, first, second)
    x = rng.standard_normal((rows, first[0] * first[2]))
    assert_close(monarch_multiply(x, w1, w2), x @ monarch_dense(w1, w2).T)
    assert_close(monarch_multiply(x, w1, w2), monarch_multiply_reference(x, w1, w2))


def test_complex_numbers_are_not_conjugated(rng, assert_close):
    w1, w2 = (
        a + 1j * b for a, b in zip(factors(rng, (3, 4, 2), (2, 5, 6)), factors(rng, (3, 4, 2), (2, 5, 6)), strict=True)
    )
    x = rng.standard_normal((9, 6)) * (1 - 2j)
    found = monarch_multiply(x, w1, w2)
    want = x @ monarch_dense(w1, w2).T
    assert_close(found.real, want.real)
    assert_close(found.imag, want.imag)


@pytest.mark.parametrize("n", [16, 64, 256])
def test_a_monarch_matrix_is_its_own_projection(n, rng, assert_close):
    m = round(n**0.5)
    w1, w2 = factors(rng, (m, m, m), (m, m, m))
    dense = monarch_dense(w1, w2)
    r, l, error = monarch_project(dense)
    assert error < 1e-14
    assert_close(monarch_dense(r, l), dense)
    scale = (r / w1)[:, :, 0]  # (k, j): the factors differ by one number for each part
    assert_close(r, w1 * scale[:, :, None])
    assert_close(l, w2 / scale.T[:, None, :])


@pytest.mark.parametrize(("shape", "blocks", "rank"), [((12, 20), (4, 3), 2), ((24, 18), (2, 4), 3), ((8, 8), 2, 1)])
def test_projection_equals_its_parts(shape, blocks, rank, rng, assert_close):
    a = rng.standard_normal(shape)
    k, l = (blocks, blocks) if isinstance(blocks, int) else blocks
    w1, w2, error = monarch_project(a, blocks, rank=rank)
    near = monarch_dense(w1, w2)
    assert (w1.shape, w2.shape) == ((k, rank * l, shape[1] // k), (l, shape[0] // l, k * rank))
    assert_close(near, monarch_project_reference(a, k, l, rank))
    assert error == pytest.approx(np.linalg.norm(a - near) / np.linalg.norm(a), rel=1e-12)
    assert error == pytest.approx((monarch_spectra(a, blocks)[..., rank:] ** 2).sum() ** 0.5 / np.linalg.norm(a))
    again = monarch_project(near, blocks, rank=rank)
    assert again[2] < 1e-14
    assert_close(monarch_dense(*again[:2]), near)


def test_no_search_finds_a_nearer_one(rng):
    a = rng.standard_normal((16, 16))
    best = monarch_project(a)[2]
    parts = a.reshape(4, 4, 4, 4).transpose(2, 1, 0, 3)  # (k, j, s, p)
    for _ in range(5):
        u, v = rng.standard_normal((4, 4, 4)), rng.standard_normal((4, 4, 4))
        for _ in range(500):  # alternating least squares on all parts at once
            v = np.einsum("kjsp,kjs->kjp", parts, u) / (u**2).sum(-1, keepdims=True)
            u = np.einsum("kjsp,kjp->kjs", parts, v) / (v**2).sum(-1, keepdims=True)
        found = np.linalg.norm(parts - u[..., None] * v[..., None, :]) / np.linalg.norm(a)
        assert found >= best - 1e-9


@pytest.mark.parametrize("n", [16, 36, 48, 85, 196, 512])
def test_the_fourier_transform_is_one_with_its_permutation(n, rng, assert_close):
    order = monarch_permutation(n)
    w1, w2, error = monarch_project(dft(n)[:, order])
    assert error < 1e-12
    x = rng.standard_normal((3, n)) + 1j * rng.standard_normal((3, n))
    found, want = monarch_multiply(x[:, order].copy(), w1, w2), scipy.fft.fft(x, norm="ortho")
    assert_close(found.real, want.real)
    assert_close(found.imag, want.imag)


@pytest.mark.parametrize("m", [4, 8])
def test_without_the_right_order_the_error_is_in_closed_form(m):
    order = np.arange(m * m).reshape(m, m).T.reshape(-1)
    assert monarch_project(dft(m * m), m)[2] == pytest.approx((1 - 1 / m) ** 0.5, abs=1e-9)
    hadamard = scipy.linalg.hadamard(m * m).astype(float)
    assert monarch_project(hadamard, m)[2] < 1e-14
    assert monarch_project(hadamard[:, order].copy(), m)[2] == pytest.approx((1 - 1 / m) ** 0.5, abs=1e-9)


def test_kronecker_products_and_the_identity_are_exact(rng):
    assert monarch_project(np.kron(rng.standard_normal((4, 4)), rng.standard_normal((4, 4))))[2] < 1e-14
    assert monarch_project(np.eye(36))[2] < 1e-14


def test_a_circulant_matrix_is_not_a_single_monarch_matrix(rng):
    assert 0.7 < monarch_project(scipy.linalg.circulant(rng.standard_normal(64)))[2] < 0.9


def test_full_rank_or_one_block_reproduce_anything(rng, assert_close):
    a = rng.standard_normal((6, 10))
    for blocks, rank in (((5, 2), 2), ((1, 3), 2), (1, 6)):
        w1, w2, error = monarch_project(a, blocks, rank=rank)
        assert error < 1e-14
        assert_close(monarch_dense(w1, w2), a)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_large_and_small_numbers_neither_overflow_nor_vanish(size, rng, assert_close):
    a = rng.standard_normal((16, 16))
    w1, w2, error = monarch_project(a * size)
    assert error == pytest.approx(monarch_project(a)[2])
    assert_close(monarch_dense(w1, w2) / size, monarch_dense(*monarch_project(a)[:2]))
    assert monarch_project(np.zeros((4, 4)))[2] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_the_factors_have_the_dtype_of_the_matrix(dtype):
    w1, w2, error = monarch_project(scipy.linalg.hadamard(16).astype(dtype))
    assert (w1.dtype, w2.dtype, monarch_spectra(np.eye(4, dtype=dtype)).dtype) == (dtype, dtype, np.float64)
    assert error < 1e-14


def test_order_p_acts_along_each_axis(rng, assert_close):
    m, p = 3, 3
    weights, x = rng.standard_normal((p, m * m, m, m)), rng.standard_normal((2, m**p))
    want = np.zeros((2, m, m, m))
    one, two, three = weights.reshape(p, m, m, m, m)
    for a, b, c in np.ndindex(m, m, m):
        first = np.einsum("abij,nabj->nabi", one, x.reshape(2, m, m, m))
        second = np.einsum("acij,najc->naic", two, first)
        want[:, a, b, c] = np.einsum("j,nj->n", three[b, c, a], second[:, :, b, c])
    assert_close(monarch_order_p_multiply(x, weights), want.reshape(2, -1))
    assert_close(
        monarch_order_p_multiply(x[:, :9].copy(), weights[:2, :3].copy()),
        monarch_multiply(x[:, :9].copy(), weights[0, :3].copy(), weights[1, :3].copy()),
    )


def test_a_butterfly_of_hadamard_blocks_is_the_hadamard_transform(rng, assert_close):
    weights = np.broadcast_to([[1.0, 1.0], [1.0, -1.0]], (5, 16, 2, 2)).copy()
    x = rng.standard_normal((20, 32))
    assert_close(monarch_order_p_multiply(x, weights), x @ scipy.linalg.hadamard(32))


def test_sizes_and_permutation():
    assert [monarch_sizes(n) for n in (1, 4, 16, 48, 85, 512)] == [(1, 1), (2, 2), (4, 4), (8, 6), (17, 5), (32, 16)]
    assert monarch_permutation(6, (3, 2)).tolist() == [0, 3, 1, 4, 2, 5]
    order = monarch_permutation(49)
    assert order[order].tolist() == list(range(49))  # P^T P = I, and P is its own transpose


def test_work_counts():
    work = monarch_work((3, 8, 4), (6, 5, 4), 10)
    assert (work.flops, work.bytes_streamed) == (20 * (96 + 120), 4 * (216 + 10 * (12 + 30)))
    assert monarch_work((3, 8, 4), (6, 5, 4), 10, parts=2).flops == 4 * work.flops


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: monarch_project(np.eye(12), 5), "5 blocks do not divide 12 columns; use one of 1, 2, 3, 4, 6, 12"),
        (lambda: monarch_project(np.eye(7)), "a side of matrix is 7, which has only factors 1 and n"),
        (lambda: monarch_project(np.eye(12), 4, rank=4), "rank must be an int from 1 to 3, got 4"),
        (lambda: monarch_project(np.full((4, 4), np.nan)), "matrix holds NaN or infinity"),
        (lambda: monarch_sizes(13), "n is 13, which has only factors 1 and n"),
        (lambda: monarch_permutation(6, (2, 2)), "sizes 2 and 2 multiply to 4, n is 6"),
        (lambda: monarch_dense(np.ones((2, 3, 2)), np.ones((2, 2, 2))), "k q and l r must be equal"),
        (lambda: monarch_multiply(np.ones((1, 5)), np.ones((2, 2, 2)), np.ones((2, 2, 2))), "x has 5 columns, w1"),
        (lambda: monarch_order_p_multiply(np.ones((1, 4)), np.ones((2, 3, 2, 2))), "order 2 needs 2"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
