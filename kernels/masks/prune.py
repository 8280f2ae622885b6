"""Which entries of a matrix, or of several, keep their place at a given sparsity: those of the largest scores.

Every pruning criterion that gives one score per weight ends here; they differ in the score alone.
"""

from collections.abc import Mapping
from math import ceil, floor
from typing import Any

import numpy as np

from kernels.check import as_number, check_choice, check_threads
from kernels.masks.threshold import check_scores, mask_of_largest, topk_mask_reference

__all__ = ["count_pruned", "like", "mask_at_sparsity", "named_layers", "prune_mask", "prune_mask_reference"]

SCOPES = ("layer", "row", "global")


def count_pruned(size: int, sparsity: float) -> int:
    """Return how many of ``size`` entries go at a sparsity: the nearest integer, the even one in the middle."""
    return round(sparsity * size)


def prune_mask(scores, sparsity, *, scope="layer", least=0.0, most=1.0, num_threads=None) -> Any:
    """Keep the entries of the largest scores.

    Parameters
    ----------
    scores : float16, float32 or float64, C-contiguous, without NaN; or a list, tuple or dict of such arrays, the
        layers.
    sparsity : share of the entries that go, in [0, 1]. Of N entries round(sparsity N) go, exactly.
    scope : "layer" prunes each array to this sparsity, "row" each row along the last axis, "global" all arrays
        together, so that layers differ.
    least, most : with "global", the sparsity of every layer stays between them, rounded outwards to whole entries: of a
        layer of N entries floor(least N) to ceil(most N) go. Among all masks within these bounds the one that keeps the
        largest scores is chosen.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    bool, True where an entry stays, of the shape of scores; for several layers the same container of such masks. Of
    equal scores the one of the lower index stays, and across layers the one of the earlier layer.

    Raises
    ------
    TypeError : scores are no floats, or layers of different dtype with "global".
    ValueError : NaN, shares outside [0, 1], an unknown scope, or a sparsity that is not between least and most.

    Cost
    ----
    That of `kernels.masks.threshold.topk_mask`; with "global" three times, and a copy of the scores.

    Source
    ------
    Han et al. 2015 (threshold per layer); Frankle and Carbin 2019 (global).
    """
    return mask_at_sparsity(
        scores, sparsity, scope=scope, least=least, most=most, num_threads=num_threads, function="prune_mask"
    )


def mask_at_sparsity(
    scores, sparsity, *, scope="layer", least=0.0, most=1.0, num_threads=None, function: str, name: str = "scores"
) -> Any:
    """Return `prune_mask` for a function whose errors bear its own name, and its name of the scores."""
    sparsity = as_number(sparsity, function=function, name="sparsity", low=0, high=1)
    check_choice(scope, SCOPES, function=function, name="scope")
    least = as_number(least, function=function, name="least", low=0, high=1)
    most = as_number(most, function=function, name="most", low=0, high=1)
    if scope != "global" and (least, most) != (0, 1):
        raise ValueError(
            f"{function}: least and most must be 0 and 1 unless scope='global', got {least} and {most} with {scope!r}"
        )
    if not least <= sparsity <= most:
        raise ValueError(f"{function}: sparsity must lie between least={least} and most={most}, got {sparsity}")
    check_threads(num_threads, function=function)
    layers = named_layers(scores, name)
    for label, each in layers:
        check_scores(each, function=function, name=label)
    if scope == "global":
        masks = _global(layers, sparsity, least, most, num_threads, function)
    else:
        masks = [_alone(each, sparsity, scope, num_threads, function, label) for label, each in layers]
    return like(scores, masks)


def named_layers(arrays, name: str) -> list[tuple[str, Any]]:
    """Return the arrays of a list, tuple or dict, or the only one, each with what error messages call it."""
    if isinstance(arrays, Mapping):
        return [(f"{name}[{key!r}]", each) for key, each in arrays.items()]
    if isinstance(arrays, (list, tuple)):
        return [(f"{name}[{i}]", each) for i, each in enumerate(arrays)]
    return [(name, arrays)]


def like(arrays, results: list) -> Any:
    """Return the results of `named_layers` in a container as that of the arrays."""
    if isinstance(arrays, Mapping):
        return dict(zip(arrays, results, strict=True))
    return results if isinstance(arrays, (list, tuple)) else results[0]


def prune_mask_reference(scores, sparsity, scope="layer", least=0.0, most=1.0) -> Any:
    """Sort; with "global" take entries in falling order for as long as their layer and the whole have room."""
    if scope == "layer":
        return topk_mask_reference(scores, scores.size - round(sparsity * scores.size))
    if scope == "row":
        return topk_mask_reference(scores, scores.shape[-1] - round(sparsity * scores.shape[-1]), axis=-1)
    room = [each.size - floor(least * each.size) for each in scores]  # entries of a layer that may still be kept
    owed = [each.size - ceil(most * each.size) for each in scores]  # and that must be
    left = sum(each.size for each in scores) - round(sparsity * sum(each.size for each in scores))
    masks = [np.zeros(each.size, bool) for each in scores]
    order = sorted((-float(x), i, j) for i, each in enumerate(scores) for j, x in enumerate(each.ravel()))
    for _, i, j in order:
        if room[i] and (owed[i] > 0 or left > sum(max(0, n) for n in owed)):
            masks[i][j] = True
            room[i], owed[i], left = room[i] - 1, owed[i] - 1, left - 1
    return [mask.reshape(each.shape) for mask, each in zip(masks, scores, strict=True)]


def _alone(scores, sparsity, scope, threads, function, label):
    if scope == "row" and scores.ndim == 0:
        raise ValueError(f"{function}: {label} must have an axis for scope='row', got a single number")
    axis, size = (-1, scores.shape[-1]) if scope == "row" else (None, scores.size)
    k = size - count_pruned(size, sparsity)
    return mask_of_largest(scores, k, axis=axis, num_threads=threads, function=function, name=label)


def _global(named, sparsity, least, most, threads, function):
    layers = [each for _, each in named]
    if len({each.dtype for each in layers}) > 1:
        found = ", ".join(sorted({str(each.dtype) for each in layers}))
        raise TypeError(f"{function}: layers must have one dtype with scope='global', got {found}; convert with astype")
    size = sum(each.size for each in layers)
    kept = size - count_pruned(size, sparsity)
    fewest = [each.size - ceil(most * each.size) for each in layers]
    largest = [each.size - floor(least * each.size) for each in layers]

    def own(counts):
        return [
            mask_of_largest(each, k, num_threads=threads, function=function, name=label)
            for (label, each), k in zip(named, counts, strict=True)
        ]

    # What a layer must keep and what it may keep are its own largest; the rest is chosen among those in between.
    masks = own(fewest)
    between = [may & ~must for may, must in zip(own(largest), masks, strict=True)]
    rest = np.concatenate([each[at] for each, at in zip(layers, between, strict=True)]) if layers else np.empty(0)
    chosen = mask_of_largest(rest, kept - sum(fewest), num_threads=threads, function=function)
    stops = np.cumsum([np.count_nonzero(at) for at in between])
    for mask, at, some in zip(masks, between, np.split(chosen, stops), strict=False):
        mask[at] = some
    return masks
