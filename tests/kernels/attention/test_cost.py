"""Pairs, blocks, multiply-adds and bytes against loops over single pairs, at ragged and short lengths."""

import numpy as np
import pytest

from kernels.attention.block_sparse import block_sparse_attention_work
from kernels.attention.cost import (
    DENSE_BLOCK,
    AttentionCost,
    attention_cost,
    block_share,
    blocks_with_pairs,
    dense_pairs,
    kept_pairs,
    pair_share,
    pairs_in_blocks,
)

LENGTHS = (0, 1, 7, 63, 64, 65, 100, 129)
BLOCKS = (8, 16, 64, 128)


def pairs_of(keep, t, block, causal, keys=None, asking=None, queries=None):
    """Every (query, key) that a block mask keeps, by the definition, slot by slot; rows are the last ``queries``."""
    queries = t if queries is None else queries
    first = t - queries if causal else 0
    keys, asking = (np.arange(t) if order is None else order for order in (keys, asking))
    top = first // block
    found = np.zeros((queries, t), bool)
    for i in range(queries):
        for j in range(t):
            seen = not causal or keys[j] <= asking[first + i]
            found[i, j] = seen and keep[(first + i) // block - top, j // block]
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("t", LENGTHS)
def test_pairs_of_a_block_mask_are_those_of_its_explicit_mask(t, block, causal, rng):
    n, d = -(-t // block), 5
    dense = np.tri(t, dtype=bool) if causal else np.ones((t, t), bool)
    for keep in (rng.random((n, n)) < 0.5, np.ones((n, n), bool), np.zeros((n, n), bool)):
        mask = pairs_of(keep, t, block, causal)
        assert kept_pairs(keep, t, block_size=block, causal=causal) == mask.sum()
        assert dense_pairs(t, causal=causal) == dense.sum()
        cost = attention_cost(t=t, d=d, causal=causal, keep=keep, block_size=block)
        for found, wanted in ((cost.kept, mask), (cost.dense, dense)):
            tiles = [wanted[i : i + block, j : j + block] for i in range(0, t, block) for j in range(0, t, block)]
            read = sum(tile.shape[1] for tile in tiles if tile.any())
            assert found.pairs == wanted.sum() and found.blocks == sum(bool(tile.any()) for tile in tiles)
            assert found.multiply_adds == 2 * d * wanted.sum() and found.bytes == 4 * d * (2 * t + 2 * read)
            seen = sum(wanted[:, j : j + block].any() * min(block, t - j) for j in range(0, t, block))
            assert found.least_bytes == 4 * d * (2 * t + 2 * seen)
        assert cost.density == (mask.sum() / dense.sum() if t else 0) and 0 <= cost.density <= 1
        assert pair_share(keep[None, None], t, block_size=block, causal=causal) == cost.density
        work = block_sparse_attention_work(keep[None, None], t=t, d=d, block_size=block, causal=causal)
        assert (work.flops, work.bytes_streamed) == (2 * cost.kept.multiply_adds, cost.kept.bytes)
        by_pair = attention_cost(t=t, d=d, causal=causal, allowed=mask, block_size=block)
        starts = np.arange(0, t, block)
        counts = np.add.reduceat(np.add.reduceat(mask, starts, axis=0, dtype=np.int64), starts, axis=1)
        assert attention_cost(t=t, d=d, causal=causal, pairs=counts, block_size=block) == by_pair
        assert by_pair == cost
    full = attention_cost(t=t, d=d, causal=causal, keep=np.ones((n, n), bool), block_size=block)
    assert full.kept == full.dense


@pytest.mark.parametrize("t", [1, 33, 65, 100])
def test_sorted_keys_and_queries_have_the_pairs_of_their_explicit_mask(t, rng):
    for block in (8, 16, 64):
        n = -(-t // block)
        keep = rng.random((n, n)) < 0.6
        for keys, asking in ((rng.permutation(t), None), (None, rng.permutation(t)), (rng.permutation(t),) * 2):
            how = {"key_positions": keys, "query_positions": asking}
            mask = pairs_of(keep, t, block, True, keys, asking)
            assert kept_pairs(keep, t, block_size=block, causal=True, **how) == mask.sum()
            cost = attention_cost(t=t, d=4, causal=True, keep=keep, block_size=block, **how)
            alive = [mask[i : i + block, j : j + block].any() for i in range(0, t, block) for j in range(0, t, block)]
            assert cost.kept.pairs == mask.sum() and cost.kept.blocks == sum(alive) and 0 <= cost.density <= 1
            share = block_share(keep[None, None], t, block_size=block, causal=True, **how)
            assert share == sum(alive) / cost.dense.blocks == sum(alive) / (n * (n + 1) / 2)
            every = attention_cost(t=t, d=4, causal=True, keep=np.ones((n, n), bool), block_size=block, **how)
            assert every.density == 1 and every.kept.multiply_adds == every.dense.multiply_adds


def test_heads_have_orders_of_their_own(rng):
    keep = rng.random((2, 3, 4, 4)) < 0.5
    order = np.array([[rng.permutation(50) for _ in range(3)] for _ in range(2)])
    wanted = [pairs_of(keep[at], 50, 16, True, order[at]).sum() for at in np.ndindex(2, 3)]
    assert kept_pairs(keep, 50, block_size=16, causal=True, key_positions=order) == sum(wanted)
    work = block_sparse_attention_work(keep, t=50, d=3, block_size=16, causal=True, key_positions=order)
    assert work.flops == 4 * 3 * sum(wanted)


@pytest.mark.parametrize(("t", "queries"), [(100, 1), (100, 37), (100, 100), (64, 16), (65, 64)])
def test_the_last_queries_of_a_longer_cache(t, queries, rng):
    for block in (8, 32, 64):
        rows = -(-t // block) - (t - queries) // block
        keep = rng.random((rows, -(-t // block))) < 0.5
        found = kept_pairs(keep, t, block_size=block, causal=True, queries=queries)
        assert found == pairs_of(keep, t, block, True, queries=queries).sum()
    assert pairs_in_blocks(t, block_size=16, queries=queries).sum() == queries * t


def test_the_edge_block_of_the_report():
    """65 tokens, blocks of 64, a mask that keeps the first block: 64 x 64 of 65 x 65 pairs, not a quarter."""
    keep = np.array([[True, False], [False, False]])
    assert pair_share(keep[None, None], 65, block_size=64) == 64 * 64 / (65 * 65)


def test_summaries_are_scored_beside_pairs_and_are_none():
    """Four queries in blocks of two; they score 0, 1, 2, 3 summaries, which lie together for a block of queries."""
    cost = attention_cost(t=4, d=3, causal=True, allowed=np.eye(4, dtype=bool), block_size=2, summaries=range(4))
    assert (cost.kept.pairs, cost.summaries, cost.density) == (4, 6, 0.4)
    assert cost.kept.multiply_adds == 2 * 3 * (4 + 6) and cost.kept.blocks == 2 + 1 + 2
    assert cost.kept.bytes == 4 * 3 * (2 * 4 + 2 * (2 + 2 + 1 + 3))
    assert cost.kept.least_bytes == 4 * 3 * (2 * 4 + 2 * (4 + 3))
    assert attention_cost(t=4, d=3, causal=False).kept.pairs == 0
    assert attention_cost(t=4, d=3, causal=False).block_size == DENSE_BLOCK


def test_more_pairs_than_dense_attention_are_refused():
    with pytest.raises(ValueError, match="those of dense attention, 10, but they are 16"):
        attention_cost(t=4, d=3, causal=True, allowed=np.ones((4, 4), bool))
    few = attention_cost(t=4, d=3, causal=False, allowed=np.ones((4, 4), bool))
    assert isinstance(few, AttentionCost) and few.density == 1


def test_bad_masks_are_named():
    for count in (kept_pairs, pair_share, block_share):
        with pytest.raises(
            ValueError, match=rf"{count.__name__}: keep must have 2 x 2 blocks .* got shape \(1, 3, 3\)"
        ):
            count(np.ones((1, 3, 3), bool), 65, block_size=64)
        with pytest.raises(TypeError, match="keep must be a NumPy array of bool, got int64"):
            count(np.ones((2, 2), int), 65, block_size=64)
    for wrong in (np.ones((3, 3), int), np.full((2, 2), 65**2), np.full((2, 2), -1)):
        with pytest.raises(ValueError, match=r"pairs must have shape \(2, 2\) and at most the pairs"):
            attention_cost(t=65, d=4, causal=True, pairs=wrong, block_size=64)
    with pytest.raises(ValueError, match="block_size must be an int of at least 1"):
        pairs_in_blocks(65, block_size=0)


@pytest.mark.parametrize("queries", [2**31, 2**27])
def test_too_many_blocks_of_queries_are_refused_before_they_are_counted(queries):
    with pytest.raises(ValueError, match=rf"{queries:,} tokens in blocks of 1 make more than 268,435,456 blocks"):
        pairs_in_blocks(40, block_size=1, queries=queries)


def test_long_masks_are_counted_without_their_pairs():
    n = 65536 // 128
    cost = attention_cost(t=65536, d=64, causal=True, keep=np.tri(n, dtype=bool), block_size=128)
    assert cost.kept == cost.dense and cost.dense.pairs == 65536 * 65537 // 2 and cost.dense.blocks == n * (n + 1) // 2


@pytest.mark.parametrize("t", [0, 1, 7, 64, 65, 129])
@pytest.mark.parametrize("block_size", [1, 8, 64])
def test_blocks_that_hold_a_pair_are_told_without_counting(rng, t, block_size):
    order = [rng.permutation(t) for _ in range(3)]
    for keys, queries in ((None, None), (order[0], None), (None, order[1]), (np.stack(order[:2]), order[2])):
        how = {"block_size": block_size, "causal": True, "key_positions": keys, "query_positions": queries}
        assert np.array_equal(blocks_with_pairs(t, **how), pairs_in_blocks(t, **how) > 0)


def test_shares_go_over_all_batches_and_heads_and_no_tokens_share_nothing(rng):
    keep = rng.random((2, 3, 4, 4)) < 0.5
    assert block_share(keep, 64, block_size=16) == keep.mean()
    assert pair_share(keep, 64, block_size=16) == keep.mean()
    assert np.array_equal(blocks_with_pairs(64, block_size=16), np.ones((4, 4), bool))
    nothing = np.zeros((1, 1, 0, 0), bool)
    assert block_share(nothing, 0, block_size=16) == pair_share(nothing, 0, block_size=16) == 0
    cost = attention_cost(t=0, d=4, causal=True, allowed=np.zeros((0, 0), bool))
    assert (cost.kept.pairs, cost.kept.blocks, cost.density) == (0, 0, 0)
