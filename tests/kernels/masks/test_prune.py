"""Masks at a sparsity: exact counts, scopes, bounds of layers, and magnitude pruning, which is all of it on |w|."""

from itertools import product
from math import ceil, floor

import numpy as np
import pytest

from kernels.masks.magnitude import magnitude_mask, magnitude_mask_reference
from kernels.masks.prune import count_pruned, prune_mask, prune_mask_reference


def test_by_hand():
    scores = np.array([[1.0, 5.0, 2.0], [6.0, 4.0, 3.0]])
    assert prune_mask(scores, 0.5).tolist() == [[False, True, False], [True, True, False]]
    assert prune_mask(scores, 1 / 3, scope="row").tolist() == [[False, True, True], [True, True, False]]
    assert prune_mask(scores, 0).all() and not prune_mask(scores, 1).any()


def test_the_number_that_goes_is_the_nearest_integer():
    assert [count_pruned(100, s) for s in (0.29, 0.57, 0.995, 0.005)] == [29, 57, 100, 0]
    assert [count_pruned(n, 0.5) for n in (1, 3, 5, 7)] == [0, 2, 2, 4]
    mask = prune_mask(np.arange(100.0), 0.29)
    assert mask.sum() == 71 and mask[29:].all()


@pytest.mark.parametrize("scope", ["layer", "row"])
@pytest.mark.parametrize("sparsity", [0, 0.3, 0.5, 0.9, 1])
def test_equals_the_reference(scope, sparsity, rng):
    for shape in ((7, 11), (1, 1), (2, 3, 40)):
        scores = np.round(rng.standard_normal(shape), 1).astype(np.float32)
        assert (prune_mask(scores, sparsity, scope=scope) == prune_mask_reference(scores, sparsity, scope)).all()


def test_layers_come_back_in_the_container_they_came_in(rng):
    a, b = rng.random((3, 4)), rng.random((5, 2))
    alone = prune_mask(a, 0.25)
    by_name = prune_mask({"q": a, "k": b}, 0.25)
    assert list(by_name) == ["q", "k"] and (by_name["q"] == alone).all()
    assert (prune_mask([a, b], 0.25)[1] == by_name["k"]).all() and isinstance(prune_mask((a, b), 0.25), list)
    assert prune_mask([], 0.5, scope="global") == [] == prune_mask([], 0.5)
    assert list(magnitude_mask({"q": -a, "k": b}, 0.25, scope="global")) == ["q", "k"]


def test_global_is_one_threshold_for_all_layers():
    layers = [np.array([1.0, 9, 3]), np.array([[8.0, 2], [7, 6]])]
    masks = prune_mask(layers, 3 / 7, scope="global")
    assert [mask.tolist() for mask in masks] == [[False, True, False], [[True, False], [True, True]]]
    tied = prune_mask([np.ones(3), np.ones(2)], 0.6, scope="global")
    assert [mask.tolist() for mask in tied] == [[True, True, False], [False, False]]


def test_bounds_hold_the_layers_back_by_hand():
    small, large = np.array([1.0, 2, 3, 4]), np.array([5.0, 6, 7, 8])
    free = prune_mask([small, large], 0.5, scope="global")
    assert [mask.sum() for mask in free] == [0, 4]
    bounded = prune_mask([small, large], 0.5, scope="global", most=0.75)
    assert [mask.tolist() for mask in bounded] == [[False, False, False, True], [False, True, True, True]]
    bounded = prune_mask([small, large], 0.5, scope="global", least=0.5)
    assert [mask.tolist() for mask in bounded] == [[False, False, True, True], [False, False, True, True]]


@pytest.mark.parametrize(("least", "most"), [(0, 1), (0.25, 1), (0, 0.75), (0.3, 0.7), (0.5, 0.5)])
def test_bounded_masks_keep_the_largest_sum_that_the_bounds_allow(least, most, rng):
    sizes = (4, 3, 2)
    kept = sum(sizes) - round(0.5 * sum(sizes))
    fewest, largest = ([n - whole(share * n) for n in sizes] for whole, share in ((ceil, most), (floor, least)))
    for _ in range(20):
        layers = [rng.integers(0, 9, n) + rng.random(n) + (0, 4, 8)[i] for i, n in enumerate(sizes)]
        masks = prune_mask(layers, 0.5, scope="global", least=least, most=most)
        assert [m.tolist() for m in masks] == [
            m.tolist() for m in prune_mask_reference(layers, 0.5, "global", least, most)
        ]
        best = max(
            sum(np.sort(layer)[len(layer) - k :].sum() for layer, k in zip(layers, counts, strict=True))
            for counts in product(*(range(low, high + 1) for low, high in zip(fewest, largest, strict=True)))
            if sum(counts) == kept
        )
        assert sum(layer[m].sum() for layer, m in zip(layers, masks, strict=True)) == pytest.approx(best)


@pytest.mark.parametrize("scope", ["layer", "row", "global"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_magnitude_keeps_the_largest_absolute_values(scope, dtype, rng):
    w = [rng.standard_normal((6, 9)).astype(dtype) for _ in range(2)]
    w[0][0, 0] = -np.inf
    masks = magnitude_mask(w, 0.6, scope=scope)
    wanted = (
        magnitude_mask_reference(w, 0.6, scope)
        if scope == "global"
        else [magnitude_mask_reference(each, 0.6, scope) for each in w]
    )
    assert all((mask == want).all() for mask, want in zip(masks, wanted, strict=True))
    assert masks[0][0, 0]
    assert (magnitude_mask(w[0].T, 0.5) == prune_mask(np.ascontiguousarray(np.abs(w[0].T)), 0.5)).all()


def test_bad_arguments_are_refused():
    a = np.ones((2, 4))
    with pytest.raises(ValueError, match=r"least and most must be 0 and 1 unless scope='global', got 0.1 and 1.0"):
        prune_mask(a, 0.5, least=0.1)
    for least, most in ((0.6, 1), (0, 0.4), (0.6, 0.4)):
        with pytest.raises(
            ValueError, match=f"sparsity must lie between least={least:.1f} and most={most:.1f}, got 0.5"
        ):
            prune_mask([a, a], 0.5, scope="global", least=least, most=most)
    with pytest.raises(TypeError, match="one dtype with scope='global', got float32, float64"):
        prune_mask([a, a.astype(np.float32)], 0.5, scope="global")
    for name in ("sparsity", "least", "most"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number from 0 to 1"):
            prune_mask(a, **({"sparsity": 0.5, "scope": "global"} | {name: 1.5}))
    with pytest.raises(ValueError, match="scope must be one of layer, row, global"):
        prune_mask(a, 0.5, scope="all")
    with pytest.raises(ValueError, match=r"prune_mask: scores\['v'\] must hold no NaN"):
        prune_mask({"v": a * np.nan}, 0.5)
    with pytest.raises(ValueError, match=r"magnitude_mask: weights\[1\] must hold no NaN"):
        magnitude_mask([a, a * np.nan], 0.5, scope="global")
    with pytest.raises(TypeError, match="magnitude_mask: weights must be a NumPy array"):
        magnitude_mask(a.astype(int), 0.5)
    with pytest.raises(ValueError, match="must have an axis for scope='row'"):
        prune_mask(np.array(1.0), 0.5, scope="row")
