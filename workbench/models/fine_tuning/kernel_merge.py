r"""Two thin sets of points merged by a kernel in place of a product: dW_ij = kappa(B_i, A_j), of full rank as a rule.

.. math:: \kappa(b, a) = \sum_p \alpha_p \, \|b_p - a_p\|_2 \quad \text{(piecewise linear)}, \qquad
          b \cdot a, \qquad \alpha / (1 + e^{-\beta\, b \cdot a}) + \gamma, \qquad
          \alpha\, e^{-\beta \|b - a\|^2} + \gamma

The first is SNELL's: the r numbers of a point fall into P pieces, whose distances are added with signs that alternate,
so that the sum takes both.
"""

from dataclasses import dataclass

import torch

from kernels.check import as_int, as_number, check_choice

__all__ = ["KINDS", "FitResult", "fit_kernel", "kernel_merge", "piecewise_linear_kernel"]

KINDS = ("piecewise_linear", "linear", "sigmoid", "rbf")
COEFFICIENTS = {"sigmoid": (1.0, 1.0, 0.0), "rbf": (1.0, 1.0, 0.0)}  # alpha, beta, gamma
SLOW = 0.7  # share of the steps of a fit after which the rate is a fifth


def piecewise_linear_kernel(B, A, alphas, p: float = 2.0) -> torch.Tensor:
    """Return the sum over pieces of a coefficient times the distance of two points' parts.

    Parameters
    ----------
    B : (P, m, r / P) float32 or float64.
    A : (P, n, r / P), of the same dtype.
    alphas : P numbers, a tensor where they are learnt.
    p : of the norm.

    Returns
    -------
    (m, n). Its gradient is finite where two parts are equal.

    Raises
    ------
    ValueError : pieces or widths that differ, or nothing to merge.

    Cost
    ----
    m n r multiply-adds; the P maps of distances are kept for the backward pass.

    Source
    ------
    Shen et al. 2024, "SNELL", Eq. 4 and the released code.
    """
    _check(B, A, "piecewise_linear_kernel")
    if len(alphas) != len(B):
        raise ValueError(f"piecewise_linear_kernel: alphas must be one for each of {len(B)} pieces, got {len(alphas)}")
    distances = torch.cdist(B, A, p=p)
    weights = torch.as_tensor(alphas, dtype=distances.dtype)
    return torch.einsum("p,pmn->mn", weights, distances)


def kernel_merge(B, A, kind: str = "piecewise_linear", *, alphas=(0.1, -0.1), alpha=1.0, beta=1.0, gamma=0.0):
    """Merge two sets of points by a kernel.

    Parameters
    ----------
    B, A : (P, m, r / P) and (P, n, r / P); all kernels but the piecewise linear one take a point's pieces together.
    kind : one of `KINDS`.
    alphas : of the piecewise linear kernel.
    alpha, beta, gamma : of "sigmoid" and "rbf", numbers or tensors.

    Returns
    -------
    (m, n).

    Raises
    ------
    ValueError : an unknown kind, or shapes that do not fit.

    Source
    ------
    Shen et al. 2024, "SNELL", the comparison of kernels in the appendix.
    """
    check_choice(kind, KINDS, function="kernel_merge", name="kind")
    if kind == "piecewise_linear":
        return piecewise_linear_kernel(B, A, alphas)
    _check(B, A, "kernel_merge")
    b, a = (each.transpose(0, 1).flatten(1) for each in (B, A))
    if kind == "linear":
        return b @ a.T
    if kind == "sigmoid":
        return alpha * torch.sigmoid(beta * (b @ a.T)) + gamma
    return alpha * torch.exp(-beta * torch.cdist(b, a).square()) + gamma


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """How well a kernel of thin points fits a matrix.

    Parameters
    ----------
    mse : mean squared error of the fit, of the best step.
    svd_mse : that of the best matrix of rank r.
    rank : of the fitted matrix, of singular values above one millionth of the largest.
    """

    mse: float
    svd_mse: float
    rank: int


def fit_kernel(W_target, r: int, kind: str = "piecewise_linear", *, steps=3000, lr=1e-2, seed=0, pieces=2):
    """Fit the points of a kernel to one matrix, or to several of one shape, by Adam.

    Parameters
    ----------
    W_target : (m, n) or (k, m, n) float32 or float64.
    r : numbers of a point, divisible by ``pieces``.
    kind : one of `KINDS`; coefficients are learnt too.
    steps, lr : of Adam; the rate falls to a fifth after 70 per cent of the steps.
    seed : of the first points, normal with deviation 0.5.
    pieces : P of the piecewise linear kernel; the others take the points whole.

    Returns
    -------
    FitResult, or a list of one for each matrix.

    Raises
    ------
    TypeError, ValueError : arguments out of range, or weights that are not finite.

    Source
    ------
    Shen et al. 2024, "SNELL", Fig. 4: random matrices fitted with equally many numbers.
    """
    name = "fit_kernel"
    check_choice(kind, KINDS, function=name, name="kind")
    r, pieces = as_int(r, function=name, name="r", low=1), as_int(pieces, function=name, name="pieces", low=1)
    steps, lr = as_int(steps, function=name, name="steps", low=1), as_number(lr, function=name, name="lr", above=0)
    if not isinstance(W_target, torch.Tensor) or W_target.ndim not in (2, 3) or not torch.isfinite(W_target).all():
        raise ValueError(f"{name}: W_target must be a finite tensor (m, n) or (k, m, n)")
    if r % pieces or r > min(W_target.shape[-2:]):
        raise ValueError(f"{name}: r must be a multiple of {pieces} and at most {min(W_target.shape[-2:])}, got {r}")
    target = W_target if W_target.ndim == 3 else W_target[None]
    (k, m, n), draw = target.shape, torch.Generator().manual_seed(seed)

    def points(count):
        return (0.5 * torch.randn(k, pieces, count, r // pieces, generator=draw, dtype=target.dtype)).requires_grad_()

    b, a = points(m), points(n)
    start = [0.1 * (-1) ** p for p in range(pieces)] if kind == "piecewise_linear" else COEFFICIENTS.get(kind, ())
    numbers = torch.tensor(start, dtype=target.dtype).repeat(k, 1).requires_grad_()
    optimizer = torch.optim.Adam([b, a, numbers], lr=lr)
    best = torch.full((k,), torch.inf, dtype=target.dtype)
    kept = torch.zeros_like(target)
    for step in range(steps):
        if step == int(SLOW * steps):
            optimizer.param_groups[0]["lr"] = lr / 5
        merged = _merged(b, a, numbers, kind)
        errors = (merged - target).square().mean((1, 2))
        with torch.no_grad():
            better = errors < best
            best, kept = torch.where(better, errors, best), torch.where(better[:, None, None], merged, kept)
        optimizer.zero_grad()
        errors.sum().backward()
        optimizer.step()
    values = torch.linalg.svdvals(target.double())
    fitted = torch.linalg.svdvals(kept.detach().double())
    found = [
        FitResult(
            mse=float(best[i]),
            svd_mse=float(values[i, r:].square().sum() / (m * n)),
            rank=int((fitted[i] > 1e-6 * fitted[i, 0]).sum()),
        )
        for i in range(k)
    ]
    return found if W_target.ndim == 3 else found[0]


def _merged(b, a, numbers, kind):
    """Merge several pairs of sets at once: (k, P, m, r / P) and (k, P, n, r / P) to (k, m, n)."""
    if kind == "piecewise_linear":
        return torch.einsum("kp,kpmn->kmn", numbers, torch.cdist(b, a))
    b, a = (each.transpose(1, 2).flatten(2) for each in (b, a))
    if kind == "linear":
        return b @ a.mT
    alpha, beta, gamma = (numbers[:, i, None, None] for i in range(3))
    if kind == "sigmoid":
        return alpha * torch.sigmoid(beta * (b @ a.mT)) + gamma
    return alpha * torch.exp(-beta * torch.cdist(b, a).square()) + gamma


def _check(B, A, function):
    if B.ndim != 3 or A.ndim != 3 or len(B) != len(A) or B.shape[2] != A.shape[2] or not B.numel() or not A.numel():
        raise ValueError(
            f"{function}: B and A must be (P, m, r / P) and (P, n, r / P) and not empty, got {tuple(B.shape)} and "
            f"{tuple(A.shape)}"
        )
