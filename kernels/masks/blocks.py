"""Block pruning: the blocks of the largest scores stay, each of them whole."""

from typing import Any

import numpy as np

from kernels.check import as_ints, check_choice
from kernels.masks.prune import like, mask_at_sparsity, named_layers, prune_mask_reference
from kernels.masks.threshold import check_scores

__all__ = ["block_prune_mask", "block_prune_mask_reference", "block_scores"]

SCORES_OF_BLOCKS = {
    "mean": lambda tiles: tiles.mean(axis=(1, 3), dtype=np.float64),
    "sum": lambda tiles: tiles.sum(axis=(1, 3), dtype=np.float64),
    "norm": lambda tiles: np.sqrt(np.square(tiles, dtype=np.float64).sum(axis=(1, 3))),
}


def block_prune_mask(
    scores, sparsity, *, block=(4, 1), score="mean", scope="layer", least=0.0, most=1.0, num_threads=None
) -> Any:
    """Keep the blocks of the largest scores.

    Parameters
    ----------
    scores : (m, n) float16, float32 or float64, C-contiguous, without NaN; or a list, tuple or dict of such matrices,
        the layers. They are taken as they are: for pruning by magnitude pass absolute values.
    sparsity : share of the blocks that go, in [0, 1]. Of N blocks round(sparsity N) go, exactly.
    block : (br, bc), rows and columns of a block; m must be a multiple of br, n of bc.
    score : what a block is worth: the "mean" or the "sum" of its scores, or their Euclidean "norm" (of a weight matrix:
        its Frobenius norm), in float64.
    scope : "layer" prunes each matrix to this sparsity, "row" each row of blocks, "global" all blocks of all matrices
        together.
    least, most : with "global", bounds of the sparsity of every layer; see `kernels.masks.prune.prune_mask`.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    bool (m, n), True where a score stays, constant on blocks; for several layers the same container of such masks. Of
    blocks of equal score the one further up, and then further left, stays.

    Raises
    ------
    TypeError, ValueError : as `kernels.masks.prune.prune_mask`; shapes that are no multiples of the block.

    Cost
    ----
    One pass over the scores, and `kernels.masks.prune.prune_mask` over one score per block.

    Source
    ------
    Narang et al. 2017, "Block-sparse recurrent neural networks"; Lagunas et al. 2021.
    """
    name = "block_prune_mask"
    layers = named_layers(scores, "scores")
    worth = like(scores, [_block_scores(each, block, score, name, label) for label, each in layers])
    masks = mask_at_sparsity(
        worth, sparsity, scope=scope, least=least, most=most, num_threads=num_threads, function=name
    )
    br, bc = as_ints(block, 2, function=name, name="block", low=1, high=2**20)
    return like(scores, [each.repeat(br, axis=0).repeat(bc, axis=1) for _, each in named_layers(masks, "masks")])


def block_scores(scores, block=(4, 1), score="mean") -> np.ndarray:
    """Return the score of every block.

    Parameters
    ----------
    scores : (m, n) float16, float32 or float64, C-contiguous, without NaN.
    block, score : as for `block_prune_mask`.

    Returns
    -------
    float64 (m / br, n / bc).

    Raises
    ------
    TypeError, ValueError : as `block_prune_mask`.

    Source
    ------
    Narang et al. 2017.
    """
    return _block_scores(scores, block, score, "block_scores", "scores")


def block_prune_mask_reference(scores, sparsity, block=(4, 1), score="mean", scope="layer") -> np.ndarray:
    """Prune the scores of the blocks, worked out one by one, and repeat what stays."""
    (m, n), (br, bc) = scores.shape, block
    tiles = [[scores[i : i + br, j : j + bc].astype(float) for j in range(0, n, bc)] for i in range(0, m, br)]
    worth = {"mean": np.mean, "sum": np.sum, "norm": np.linalg.norm}[score]
    kept = prune_mask_reference(np.array([[worth(tile) for tile in row] for row in tiles]), sparsity, scope)
    return np.kron(kept, np.ones(block, bool))


def _block_scores(scores, block, score, function, label):
    br, bc = as_ints(block, 2, function=function, name="block", low=1, high=2**20)
    check_choice(score, SCORES_OF_BLOCKS, function=function, name="score")
    check_scores(scores, function=function, name=label)
    if scores.ndim != 2 or scores.shape[0] % br or scores.shape[1] % bc:
        raise ValueError(
            f"{function}: {label} must be a matrix of whole {br} x {bc} blocks, got shape {scores.shape}; pad it with "
            "zeros or choose a block that divides it"
        )
    tiles = scores.reshape(scores.shape[0] // br, br, scores.shape[1] // bc, bc)
    return SCORES_OF_BLOCKS[score](tiles)
