r"""Scores that follow training: movement pruning, SNIP, and SNIP with momentum.

.. math:: S \leftarrow S - \eta\, W \odot g \quad (\text{movement}), \qquad |W \odot g| \quad (\text{SNIP}), \qquad
          S \leftarrow \beta S + |W \odot g| \quad (\text{SNIP with momentum})

g is the gradient of the loss. A movement score is large where weights move away from zero; it has a sign, so masks keep
its largest values, not its largest magnitudes: hand it to `kernels.masks.prune.prune_mask` as it is.
"""

import numpy as np

from kernels.check import as_number, check_array

__all__ = ["movement_scores", "snip_momentum_scores", "snip_scores"]


def movement_scores(scores, w, gradient, lr=1.0) -> np.ndarray:
    """Return the movement scores after one more step, S - lr w g.

    Parameters
    ----------
    scores : float32 or float64 of any shape, the scores so far; zeros at first.
    w : weights, same shape and dtype.
    gradient : of the loss with respect to the weights as they are used (masked), same shape and dtype.
    lr : learning rate of the scores, at least 0.

    Returns
    -------
    New array, shape and dtype of scores.

    Raises
    ------
    TypeError : dtypes are others, or differ.
    ValueError : shapes differ, or lr is out of range.

    Source
    ------
    Sanh et al. 2020, "Movement pruning", Eq. 3 (the straight-through gradient of a score is w g).
    """
    name = "movement_scores"
    _check_alike(name, scores=scores, w=w, gradient=gradient)
    return scores - scores.dtype.type(as_number(lr, function=name, name="lr", low=0, high=1e30)) * w * gradient


def snip_scores(w, gradient) -> np.ndarray:
    """Return |w g|, the change of the loss to first order if a weight goes.

    Parameters
    ----------
    w : float32 or float64 of any shape, the weights.
    gradient : of the loss, same shape and dtype.

    Returns
    -------
    New array, shape and dtype of w.

    Raises
    ------
    TypeError, ValueError : dtypes or shapes differ.

    Source
    ------
    Lee et al. 2019, "SNIP", Eq. 5 and 6. *Differs from the paper:* not divided by the sum, which changes no order.
    """
    _check_alike("snip_scores", w=w, gradient=gradient)
    return np.abs(w * gradient)


def snip_momentum_scores(scores, w, gradient, beta=0.9) -> np.ndarray:
    """Return the scores after one more step, beta S + |w g|.

    Parameters
    ----------
    scores : float32 or float64 of any shape, the scores so far; zeros at first.
    w, gradient : as for `snip_scores`, of the same shape and dtype.
    beta : how much of the scores so far remains, in [0, 1].

    Returns
    -------
    New array, shape and dtype of scores.

    Raises
    ------
    TypeError, ValueError : dtypes or shapes differ, or beta is out of range.

    Source
    ------
    The default criterion of Intel Neural Compressor's pruning; its score is a moving sum of that of Lee et al. 2019.
    """
    name = "snip_momentum_scores"
    _check_alike(name, scores=scores, w=w, gradient=gradient)
    beta = as_number(beta, function=name, name="beta", low=0, high=1)
    return scores.dtype.type(beta) * scores + np.abs(w * gradient)


def _check_alike(function, **arrays):
    first = next(iter(arrays))
    for name, x in arrays.items():
        check_array(x, function=function, name=name)
        if x.dtype != arrays[first].dtype:
            raise TypeError(
                f"{function}: {name} is {x.dtype}, {first} is {arrays[first].dtype}; convert one with astype"
            )
        if x.shape != arrays[first].shape:
            raise ValueError(
                f"{function}: {name} has shape {x.shape}, {first} {arrays[first].shape}; they must be equal"
            )
