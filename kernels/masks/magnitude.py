r"""Magnitude pruning: the weights of the largest absolute value stay.

.. math:: S_{ij} = |W_{ij}|
"""

from typing import Any

import numpy as np

from kernels.check import check_array
from kernels.masks.prune import like, mask_at_sparsity, named_layers, prune_mask_reference
from kernels.masks.threshold import SCORES

__all__ = ["magnitude_mask", "magnitude_mask_reference"]


def magnitude_mask(weights, sparsity, *, scope="layer", least=0.0, most=1.0, num_threads=None) -> Any:
    """Keep the weights of the largest absolute value.

    Parameters
    ----------
    weights : float16, float32 or float64 without NaN; or a list, tuple or dict of such arrays, the layers.
    sparsity : share of the weights that go, in [0, 1]. Of N weights round(sparsity N) go, exactly.
    scope : "layer" prunes each array to this sparsity, "row" each row (last axis), "global" all arrays together.
    least, most : with "global", bounds of the sparsity of every layer; see `kernels.masks.prune.prune_mask`.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    bool, True where a weight stays, of the shape of weights; for several layers the same container of such masks.

    Raises
    ------
    TypeError, ValueError : as `kernels.masks.prune.prune_mask`.

    Cost
    ----
    A copy of the weights, and that of `kernels.masks.prune.prune_mask`.

    Source
    ------
    Han et al. 2015, "Learning both weights and connections for efficient neural networks".
    """
    name = "magnitude_mask"
    scores = like(weights, [_magnitudes(each, label, name) for label, each in named_layers(weights, "weights")])
    return mask_at_sparsity(
        scores, sparsity, scope=scope, least=least, most=most, num_threads=num_threads, function=name, name="weights"
    )


def magnitude_mask_reference(weights, sparsity, scope="layer", least=0.0, most=1.0) -> Any:
    """Prune by the absolute values, a list of arrays with "global"."""
    scores = [np.abs(each) for each in weights] if scope == "global" else np.abs(weights)
    return prune_mask_reference(scores, sparsity, scope, least, most)


def _magnitudes(weights, label, function):
    check_array(weights, function=function, name=label, dtypes=SCORES)
    return np.abs(weights, out=np.empty(weights.shape, weights.dtype))
