"""BlockMask: counts against the expanded mask, and what it refuses."""

import numpy as np
import pytest

from kernels.formats.block_mask import BlockMask


def expanded(mask):
    return np.kron(mask.blocks, np.ones(mask.block_shape, bool))[: mask.shape[0], : mask.shape[1]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (64, 64), (65, 130), (7, 3)])
@pytest.mark.parametrize("block_shape", [(1, 1), (64, 64), (2, 3)])
def test_counts(rng, shape, block_shape):
    grid = tuple(-(-s // b) for s, b in zip(shape, block_shape, strict=True))
    mask = BlockMask(rng.random(grid) < 0.5, block_shape, shape)
    assert mask.nnz == expanded(mask).sum()
    assert mask.density == (mask.nnz / (shape[0] * shape[1]) if shape[0] * shape[1] else 0)
    rows = (
        np.frombuffer(mask.packed, np.uint8).reshape(grid[0], -(-grid[1] // 8))
        if grid[1]
        else np.zeros((grid[0], 0), np.uint8)
    )
    np.testing.assert_array_equal(np.unpackbits(rows, axis=1)[:, : grid[1]].astype(bool), mask.blocks)


def test_frozen(rng):
    mask = BlockMask(np.ones((2, 2), bool), (4, 4), (8, 8))
    with pytest.raises(AttributeError):
        mask.shape = (1, 1)


@pytest.mark.parametrize(
    ("blocks", "block_shape", "shape", "error"),
    [
        (np.ones((2, 2)), (4, 4), (8, 8), TypeError),
        (np.ones(4, bool), (4, 4), (8, 8), TypeError),
        (np.ones((2, 2), bool), (0, 4), (8, 8), ValueError),
        (np.ones((2, 2), bool), (4, 4), (9, 8), ValueError),
        (np.ones((2, 3), bool).T, (4, 4), (12, 8), ValueError),
        ([[True]], (4, 4), (4, 4), TypeError),
    ],
)
def test_refuses(blocks, block_shape, shape, error):
    with pytest.raises(error, match="BlockMask"):
        BlockMask(blocks, block_shape, shape)
