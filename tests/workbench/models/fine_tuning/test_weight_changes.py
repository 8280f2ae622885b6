"""Changes of weights as matrices: their strength and their sum, by hand."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from workbench.models.fine_tuning.weight_changes import apply_delta, change_matrix, merge_deltas


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Conv1d(2, 2, 2))


def test_flat_places_become_rows():
    matrix = change_matrix((2, 2, 3), np.array([1, 7, 11], np.int32), np.array([1.0, 2, 3]))
    assert matrix.toarray().tolist() == [[0, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 3]]
    assert change_matrix((4,), np.array([0, 3]), np.array([5.0, 0])).nnz == 2  # a 0 stays an entry
    assert change_matrix((0, 3), np.zeros(0, int), np.zeros(0)).shape == (0, 0)


def test_a_change_is_added_with_its_strength(net):
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    delta = {
        "1.weight": sparse.csr_array(np.array([[0, 0, 2.0, 0], [0, 0, 0, -1]])),
        "0.bias": sparse.csr_array([[3.0, 0]]),
    }
    assert apply_delta(net, delta, 0) is net
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    apply_delta(net, delta, 0.5)
    assert net[1].weight[0, 1, 0] == before["1.weight"][0, 1, 0] + 1
    assert net[1].weight[1, 1, 1] == before["1.weight"][1, 1, 1] - 0.5
    torch.testing.assert_close(net[0].bias, before["0.bias"] + torch.tensor([1.5, 0]))
    assert torch.equal(net[0].weight, before["0.weight"])
    assert int((net[1].weight != before["1.weight"]).sum()) == 2


def test_changes_are_summed_with_weights():
    a, b = sparse.csr_array([[1.0, 0, 2]]), sparse.csr_array([[0, 4.0, 1]])
    merged = merge_deltas([{"x": a, "y": a}, {"x": b}], [0.5, 2])
    assert merged["x"].toarray().tolist() == [[0.5, 8, 3]] and merged["y"].toarray().tolist() == [[0.5, 0, 1]]
    assert (merge_deltas([{"x": a}, {"x": a}], [0.5, 0.5])["x"].toarray() == a.toarray()).all()


def test_what_does_not_fit_is_refused_before_anything_changes(net):
    before = net[0].bias.clone()
    good = sparse.csr_array([[1.0, 1]])
    with pytest.raises(KeyError, match=r"no parameter '2\.bias'"):
        apply_delta(net, {"0.bias": good, "2.bias": good})
    with pytest.raises(ValueError, match=r"apply_delta: 1.bias must be \(1, 2\)"):
        apply_delta(net, {"0.bias": good, "1.bias": good.T.tocsr()})
    with pytest.raises(TypeError, match="csr_array"):
        apply_delta(net, {"0.bias": np.ones((1, 2))})
    with pytest.raises(ValueError, match="scale"):
        apply_delta(net, {"0.bias": good}, float("nan"))
    assert torch.equal(net[0].bias, before)
    with pytest.raises(ValueError, match="as many, got 1 and 2"):
        merge_deltas([{}], [1, 2])
    with pytest.raises(ValueError, match="as many, got 0"):
        merge_deltas([], [])
    with pytest.raises(ValueError, match=r"x is \(1, 2\) in one and \(2, 1\)"):
        merge_deltas([{"x": good}, {"x": good.T.tocsr()}], [1, 1])
