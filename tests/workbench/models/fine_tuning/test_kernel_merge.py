"""Kernels of thin points against loops, invariances, ranks, and fits against the singular value decomposition."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from workbench.models.fine_tuning.kernel_merge import fit_kernel, kernel_merge, piecewise_linear_kernel

ALPHAS = (0.1, -0.1)


@pytest.fixture
def points():
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, size, 3, generator=draw, dtype=torch.float64) for size in (7, 5))


def test_a_matrix_worked_out_by_hand():
    A = torch.tensor([[[0.0, 0], [3, 4]], [[0, 0], [0, 0]]])
    B = torch.tensor([[[0.0, 0], [0, 0]], [[0, 0], [5, 12]]])
    found = piecewise_linear_kernel(B, A, ALPHAS)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.5], [-1.3, -0.8]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_piecewise_linear_kernel_is_a_sum_of_distances(points, dtype):
    B, A = (each.to(dtype) for each in points)
    want = sum(alpha * cdist(b, a) for alpha, b, a in zip(ALPHAS, B, A, strict=True))
    np.testing.assert_allclose(
        piecewise_linear_kernel(B, A, ALPHAS), want, atol=1e-5 if dtype == torch.float32 else 1e-12
    )


def test_what_leaves_it_as_it_is(points):
    B, A = points
    shift, (turn, _) = torch.randn(2, 1, 3).double(), torch.linalg.qr(torch.randn(3, 3).double())
    want = piecewise_linear_kernel(B, A, ALPHAS)
    torch.testing.assert_close(piecewise_linear_kernel(B + shift, A + shift, ALPHAS), want)
    torch.testing.assert_close(piecewise_linear_kernel(B @ turn, A @ turn, ALPHAS), want)
    torch.testing.assert_close(piecewise_linear_kernel(B.flip(0), A.flip(0), ALPHAS), -want)


def test_other_kernels_by_their_formulas(points):
    B, A = points
    b, a = (np.concatenate(list(each.numpy()), 1) for each in (B, A))
    np.testing.assert_allclose(kernel_merge(B, A, "linear"), b @ a.T)
    how = {"alpha": 2.0, "beta": 0.3, "gamma": -0.5}
    np.testing.assert_allclose(kernel_merge(B, A, "sigmoid", **how), 2 / (1 + np.exp(-0.3 * b @ a.T)) - 0.5)
    np.testing.assert_allclose(kernel_merge(B, A, "rbf", **how), 2 * np.exp(-0.3 * cdist(b, a) ** 2) - 0.5)
    torch.testing.assert_close(kernel_merge(B, A, alphas=(0.2, 0.3)), piecewise_linear_kernel(B, A, (0.2, 0.3)))


def test_distances_have_full_rank_and_products_do_not():
    B, A = (torch.randn(2, size, 2, dtype=torch.float64) for size in (40, 32))
    assert torch.linalg.matrix_rank(piecewise_linear_kernel(B, A, ALPHAS)) == 32
    assert torch.linalg.matrix_rank(kernel_merge(B, A, "linear")) == 4


def test_gradients_are_finite_where_points_meet():
    B = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    A = B.detach().clone().requires_grad_()
    piecewise_linear_kernel(B, A, ALPHAS).sum().backward()
    assert torch.isfinite(B.grad).all() and torch.isfinite(A.grad).all()


@pytest.mark.parametrize(("b", "a", "alphas"), [
    ((2, 3, 2), (1, 3, 2), ALPHAS), ((2, 3, 2), (2, 3, 4), ALPHAS), ((2, 0, 2), (2, 3, 2), ALPHAS),
    ((2, 3, 2), (2, 3, 2), (0.1,)),
])  # fmt: skip
def test_points_that_do_not_fit_are_refused(b, a, alphas):
    with pytest.raises(ValueError, match="piecewise_linear_kernel: "):
        piecewise_linear_kernel(torch.ones(b), torch.ones(a), alphas)


def test_fits_know_the_best_error_of_a_rank(points):
    target = torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(1))
    linear = fit_kernel(target, 4, "linear", steps=600)
    for each, one in zip(linear, target, strict=True):
        values = torch.linalg.svdvals(one.double())
        assert each.svd_mse == pytest.approx(float(values[4:].square().sum() / (16 * 12)))
        assert each.svd_mse <= each.mse * (1 + 1e-6) <= 1.02 * each.svd_mse and each.rank == 4
    full = fit_kernel(target[0], 4, steps=600)
    assert full.rank == 12 and full.mse < full.svd_mse
    with pytest.raises(ValueError, match="multiple of 2 and at most 12, got 13"):
        fit_kernel(target, 13)
