"""The nuclear norm by hand, its gradient against finite differences, and which matrix is drawn."""

import pytest
import torch

from workbench.models.fine_tuning.nuclear_norm import eligible, nuclear_gradient, nuclear_norm, rank_penalty


def test_a_diagonal_by_hand():
    P = torch.diag(torch.tensor([3.0, -2.0])).requires_grad_()
    norm = nuclear_norm(P, torch.ones(2, 2, dtype=torch.bool))
    (2 * norm).backward()
    assert norm.item() == pytest.approx(5)
    torch.testing.assert_close(P.grad, torch.diag(torch.tensor([2.0, -2.0])))
    P.grad = None
    corner = torch.tensor([[True, False], [False, False]])
    norm = nuclear_norm(P, corner)
    norm.backward()
    assert norm.item() == pytest.approx(3)
    torch.testing.assert_close(P.grad, torch.tensor([[1.0, 0], [0, 0]]))


def test_the_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    P, mask = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.rand(5, 4) < 0.8
    assert torch.autograd.gradcheck(lambda p: nuclear_norm(p, mask), P)
    torch.testing.assert_close(nuclear_gradient(P, mask), torch.autograd.grad(nuclear_norm(P, mask), P)[0])


def test_empty_rows_and_repeated_zeros_give_finite_gradients():
    P, mask = torch.ones(6, 5, requires_grad=True), torch.zeros(6, 5, dtype=torch.bool)
    mask[2, :3] = True  # rank 1, four singular values are 0
    norm = nuclear_norm(P, mask)
    norm.backward()
    assert norm.item() == pytest.approx(3**0.5)
    torch.testing.assert_close(P.grad[2, :3], torch.full((3,), 3**-0.5))
    assert not P.grad[~mask].any()
    assert not nuclear_gradient(P, mask & False).any() and nuclear_norm(P, mask & False) == 0


def test_long_matrices_with_chosen_entries_take_part():
    shapes = {"a": (65, 70), "b": (64, 200), "c": (65, 65), "d": (100,), "e": (66, 66)}
    masks = {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()}
    masks["c"][:] = False
    assert eligible(masks) == ["a", "e"] and eligible(masks, 63) == ["a", "b", "e"]


def test_one_matrix_is_drawn_for_each_penalty():
    weights = {n: i * torch.eye(3) for n, i in (("a", 1.0), ("b", 2.0))}
    masks = {n: torch.ones(3, 3, dtype=torch.bool) for n in weights}
    draw = torch.Generator().manual_seed(0)
    found = [round(float(rank_penalty(weights, masks, 0.5, draw=draw, side=2)), 4) for _ in range(40)]
    assert set(found) == {1.5, 3.0} and 8 < found.count(1.5) < 32
    assert rank_penalty(weights, masks, 0.5) == 0 and rank_penalty(weights, masks, 0.0, side=2) == 0


def test_bad_input_is_refused():
    P, mask = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"must be \(m, n\)"):
        nuclear_norm(P, mask[:1])
    with pytest.raises(ValueError, match=r"must be \(m, n\)"):
        nuclear_gradient(P[0], mask[0])
    with pytest.raises(TypeError, match="mask must be bool"):
        nuclear_norm(P, mask.float())
    with pytest.raises(ValueError, match="factor"):
        rank_penalty({"a": P}, {"a": mask}, -1)
