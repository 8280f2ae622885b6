import numpy as np
import pytest

from kernels.masks.blocks import block_prune_mask, block_prune_mask_reference, block_scores


def test_scores_of_blocks_by_hand():
    scores = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]], np.float16)
    assert block_scores(scores, (2, 2), "sum").tolist() == [[14, 22]]
    assert block_scores(scores, (2, 1), "mean").tolist() == [[3, 4, 5, 6]]
    assert block_scores(np.array([[3.0, -4.0]]), (1, 2), "norm").tolist() == [[5]]


def test_mean_and_norm_may_disagree():
    scores = np.array([[3.0, 0, 2, 2]])
    assert block_prune_mask(scores, 0.5, block=(1, 2), score="norm").tolist() == [[True, True, False, False]]
    assert block_prune_mask(scores, 0.5, block=(1, 2), score="mean").tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("score", ["mean", "sum", "norm"])
@pytest.mark.parametrize("scope", ["layer", "row"])
@pytest.mark.parametrize("block", [(4, 1), (1, 4), (2, 3), (16, 24), (1, 1)])
def test_equals_the_loop_over_blocks(block, scope, score, rng):
    scores = rng.integers(0, 5, (16, 24)).astype(np.float32)
    for sparsity in (0, 0.3, 0.9, 1):
        mask = block_prune_mask(scores, sparsity, block=block, score=score, scope=scope)
        assert (mask == block_prune_mask_reference(scores, sparsity, block, score, scope)).all()


def test_exactly_so_many_whole_blocks_stay(rng):
    mask = block_prune_mask(rng.random((12, 10)), 0.7, block=(4, 2))
    tiles = mask.reshape(3, 4, 5, 2).sum(axis=(1, 3))
    assert set(tiles.ravel()) == {0, 8} and (tiles == 8).sum() == 15 - round(0.7 * 15)
    rows = block_prune_mask(rng.random((12, 10)), 0.6, block=(4, 2), scope="row")
    assert (rows[::4, ::2].sum(axis=1) == 2).all()
    by_default = block_prune_mask(rng.random((8, 3)), 0.5)
    assert (by_default.reshape(2, 4, 3).sum(axis=1) % 4 == 0).all() and by_default.sum() == 12


def test_global_counts_the_blocks_of_all_layers():
    layers = {"a": np.full((4, 2), 1.0), "b": np.arange(12.0).reshape(4, 3) + 2}
    masks = block_prune_mask(layers, 0.4, scope="global")
    assert not masks["a"].any() and masks["b"].all()
    masks = block_prune_mask(layers, 0.4, scope="global", most=0.5)
    assert masks["a"].astype(int).tolist() == [[1, 0]] * 4 and masks["b"].astype(int).tolist() == [[0, 1, 1]] * 4


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"scores must be a matrix of whole 4 x 1 blocks, got shape \(6, 4\); pad it"):
        block_prune_mask(np.ones((6, 4)), 0.5)
    with pytest.raises(ValueError, match=r"scores\[0\] must be a matrix of whole 1 x 3 blocks"):
        block_prune_mask([np.ones((6, 4))], 0.5, block=(1, 3))
    with pytest.raises(ValueError, match="score must be one of mean, sum, norm"):
        block_scores(np.ones((4, 4)), score="max")
    with pytest.raises(ValueError, match="block_prune_mask: scores must hold no NaN"):
        block_prune_mask(np.full((4, 4), np.nan), 0.5)
