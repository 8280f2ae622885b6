"""Chosen entries by hand, and the map whose gradient exists at these alone."""

import math

import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.selection import (
    flat_places,
    places_digest,
    select_largest,
    select_random,
    select_smallest,
    smallest_threshold,
    unstructural_map,
)


@pytest.fixture
def net():
    """Magnitudes 1 to 6 in the weight, 0.5 and 3 in the bias: one threshold for both tensors."""
    net = nn.Linear(3, 2)
    net.weight.data = torch.tensor([[1.0, -2, 3], [-4, 5, -6]])
    net.bias.data = torch.tensor([-0.5, 3.0])
    return net


def test_the_smallest_are_strictly_below_one_threshold_for_all_tensors(net):
    found = select_smallest(net, threshold=3.0)
    assert found["weight"].tolist() == [[True, True, False], [False, False, False]]
    assert found["bias"].tolist() == [True, False]
    assert all(mask.all() for mask in select_smallest(net, threshold=math.inf).values())
    assert not any(mask.any() for mask in select_smallest(net, threshold=0).values())


def test_a_fraction_is_a_share_of_all_entries(net):
    assert smallest_threshold(dict(net.named_parameters()), None, 0.25, "f") == 2.0  # p = 0.25 * 7, the next one up
    found = select_smallest(net, fraction=0.25)
    assert [int(found[n].sum()) for n in ("weight", "bias")] == [1, 1]
    assert {n: m.tolist() for n, m in select_largest(net, 0.25).items()} == {
        "weight": [[False, False, False], [False, True, True]], "bias": [False, False],
    }  # fmt: skip


def test_the_count_of_a_fraction_in_a_large_model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 90), nn.LayerNorm(90), nn.Conv1d(90, 3, 2))
    size = sum(p.numel() for p in net.parameters())
    for share in (0.1, 0.2):
        assert sum(int(m.sum()) for m in select_smallest(net, fraction=share).values()) == math.ceil(share * (size - 1))
        assert sum(int(m.sum()) for m in select_random(net, share).values()) == round(share * size)
        small, large = select_smallest(net, fraction=share), select_largest(net, share)
        assert not any((small[n] & large[n]).any() for n in small)


def test_chance_is_decided_by_the_seed_and_spares_nothing(net):
    one, same, other = (select_random(net, 0.5, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)
    often = sum(select_random(net, 0.5, seed=seed)["bias"].double() for seed in range(300)) / 300
    assert (abs(often - 0.5) < 0.1).all()


def test_bad_choices_are_refused(net):
    for given, message in (
        ({}, "got neither"), ({"threshold": 1, "fraction": 0.1}, "got both"), ({"threshold": -1}, "threshold"),
        ({"fraction": 0}, "fraction"), ({"fraction": 1.0}, "between 0 and 1"), ({"threshold": math.nan}, "threshold"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"select_smallest: .*{message}"):
            select_smallest(net, **given)
    whole = nn.Module()
    whole.p = nn.Parameter(torch.arange(3), requires_grad=False)
    with pytest.raises(ValueError, match=r"floating-point parameters only, got 'p' of torch.int64"):
        select_smallest(whole, threshold=1)
    with pytest.raises(ValueError, match="got none"):
        select_largest(nn.Module(), 0.1)


def test_places_and_their_digest():
    mask = torch.tensor([[False, True], [True, False]])
    assert flat_places(mask).tolist() == [1, 2] and flat_places(mask).dtype == torch.int32
    one = places_digest([("a", torch.tensor([1, 2])), ("b", torch.tensor([3]))])
    assert one == places_digest([("a", torch.tensor([1, 2], dtype=torch.int32)), ("b", torch.tensor([3]))])
    assert one != places_digest([("a", torch.tensor([1])), ("b", torch.tensor([2, 3]))])
    assert one != places_digest([("a", torch.tensor([1, 4])), ("b", torch.tensor([3]))])


@pytest.mark.parametrize("kind", ["int32", "int64", "mask"])
def test_the_map_writes_values_and_gathers_gradients(kind):
    torch.manual_seed(0)
    P, index = torch.randn(4, 3, dtype=torch.float64), torch.tensor([1, 5, 11])
    mask = torch.zeros(12, dtype=torch.bool).index_fill(0, index, True).view(4, 3)
    chosen = mask if kind == "mask" else index.to(getattr(torch, kind))
    before, learnt = P.clone(), torch.randn(3, dtype=torch.float64, requires_grad=True)
    out = unstructural_map(P, learnt, chosen)
    assert torch.equal(out.detach()[mask], learnt.detach()) and torch.equal(out.detach()[~mask], before[~mask])
    assert out.data_ptr() == P.data_ptr()
    weights = torch.randn(4, 3, dtype=torch.float64)
    (out * weights).sum().backward()
    assert torch.equal(learnt.grad, weights[mask])
    x = torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: torch.tanh(x @ unstructural_map(P.clone(), p, chosen).T), learnt)


def test_two_uses_of_one_vector_add_up():
    P, index = torch.zeros(2, 2), torch.tensor([0, 3])
    learnt = torch.tensor([2.0, 3.0], requires_grad=True)
    first = unstructural_map(P, learnt, index) ** 2
    second = unstructural_map(P, learnt, index) * 5
    (first.sum() + second.sum()).backward()
    assert learnt.grad.tolist() == [2 * 2 + 5, 2 * 3 + 5]


def test_a_tensor_that_was_changed_between_forward_and_backward_is_noticed():
    P, index = torch.ones(2, 2), torch.tensor([0])
    learnt = torch.tensor([2.0], requires_grad=True)
    early = (unstructural_map(P, learnt, index) ** 2).sum()
    unstructural_map(P, learnt.detach() + 1, index)
    with pytest.raises(RuntimeError, match="modified inplace"):
        early.backward()


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"P": torch.zeros(2, 2, requires_grad=True)}, ValueError, "want no gradient"),
    ({"P": torch.zeros(2, 4)[:, ::2]}, ValueError, "contiguous"),
    ({"p_learn": torch.zeros(1, dtype=torch.float64)}, TypeError, "dtype of P"),
    ({"index": torch.tensor([4])}, ValueError, r"in \[0, 4\)"),
    ({"index": torch.tensor([-1])}, ValueError, r"in \[0, 4\)"),
    ({"index": torch.tensor([1, 2])}, ValueError, "must both be"), ({"index": torch.tensor([0.0])}, TypeError, "int32"),
    ({"index": torch.ones(2, 2, dtype=torch.bool)}, ValueError, r"must be \(4,\)"),
    ({"index": torch.ones(4, dtype=torch.bool)}, ValueError, "shape of P"),
])  # fmt: skip
def test_bad_maps_are_refused(change, error, message):
    good = {"P": torch.zeros(2, 2), "p_learn": torch.zeros(1), "index": torch.tensor([0])}
    with pytest.raises(error, match=f"unstructural_map: .*{message}"):
        unstructural_map(**(good | change))
