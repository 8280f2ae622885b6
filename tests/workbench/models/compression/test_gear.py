"""GEAR against the formula of the paper, worked in NumPy, and against itself without compression."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels.factor.power_iteration import power_iteration_lowrank
from kernels.formats.quantised import dequantize, quantize_groups
from workbench.models.compression.gear import (
    BACKBONES,
    WHOLE,
    GearCache,
    GearConfig,
    gear_compress,
)
from workbench.models.compression.gear_memory import memory_bits_per_scalar

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = {"rank": 0, "rank_gen": 0, "sparsity": 0.0}


def halves(rng, *shape):
    x = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[-1]))
    return x.astype(np.float16).astype(np.float32)


def size(x):
    return float(np.linalg.norm(x))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["key", "value"])
def test_without_corrections_it_is_the_quantiser_bit_for_bit(kind, backbone, rng):
    x = halves(rng, 2, 3, 128, 64)
    found = gear_compress(x, kind, GearConfig(backbone=backbone, **PLAIN)).dense()
    if kind == "key" and backbone != "token":
        wanted = dequantize(quantize_groups(x, 2, axis=2, group=None if backbone == "kcvt" else 64))
    else:
        rows = np.swapaxes(x, 1, 2).reshape(2, 128, 192)
        wanted = dequantize(quantize_groups(rows, 2, group=None if backbone == "kcvt" else 64))
        wanted = np.swapaxes(wanted.reshape(2, 128, 3, 64), 1, 2)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["key", "value"])
def test_each_correction_makes_the_error_smaller(kind, backbone, rng):
    x = halves(rng, 1, 2, 256, 64)
    x = x + (rng.standard_normal((256, 1)) * rng.standard_normal((1, 64)) * 3).astype(np.float32)
    x = x.astype(np.float16).astype(np.float32)
    cfg = GearConfig(backbone=backbone, sparsity=0.05)
    plain, low, out, both = (
        size(x - gear_compress(x, kind, replace(cfg, **left)).dense())
        for left in (PLAIN, {"sparsity": 0.0}, {"rank": 0}, {})
    )
    assert both < low < plain and both < out < plain


def test_outliers_are_as_many_as_the_formula_says_and_exact(rng):
    x = halves(rng, 2, 2, 128, 64)
    cfg = GearConfig(sparsity=0.05, rank=0)
    for kind, length in (("key", 128), ("value", 128)):
        block = gear_compress(x, kind, cfg)
        gone = block.blocks.outlier_mask()
        per_vector = gone.sum(2) if kind == "key" else gone.sum((1, 3))
        assert (per_vector == 2 * int(length * 0.05 / 2)).all()
        np.testing.assert_array_equal(block.dense()[gone], x[gone])
    rows = np.swapaxes(x, 1, 2).reshape(2, 128, 128)
    low, high = np.moveaxis(np.sort(rows, -1)[..., [2, -3]], -1, 0)[..., None]  # the third from each end leaves too
    gone = gone.transpose(0, 2, 1, 3).reshape(rows.shape)
    assert not (gone & (rows > low) & (rows < high)).any() and gone[(rows < low) | (rows > high)].all()


def test_the_low_rank_part_is_that_of_the_error_without_outliers(rng, assert_close):
    x = halves(rng, 1, 2, 64, 32)
    without = gear_compress(x, "key", GearConfig(sparsity=0.1, rank=0))
    found = gear_compress(x, "key", GearConfig(sparsity=0.1, rank=3, seed=4))
    error = np.where(without.blocks.outlier_mask(), 0, x - without.dense())
    a, b = power_iteration_lowrank(error, 3, seed=4)
    wanted = a @ np.swapaxes(b, -1, -2)
    assert np.abs(found.blocks.low_rank() - wanted).max() < 3e-3 * np.abs(wanted).max()  # factors are halves


def test_full_rank_or_all_outliers_is_exact(rng):
    x = halves(rng, 1, 1, 64, 16)
    cfg = GearConfig(group=16, sparsity=0.0)
    level = gear_compress(x, "key", replace(cfg, rank=0)).dense()
    a, b = power_iteration_lowrank(x - level, 16, orthogonalize="every")
    np.testing.assert_allclose(level + a @ np.swapaxes(b, -1, -2), x, atol=1e-4)
    assert np.abs(gear_compress(x, "key", cfg, 16).dense() - x).max() < 2e-3 * np.abs(x).max()
    every = gear_compress(x, "value", GearConfig(group=16, sparsity=0.999999, rank=0, min_outliers=8))
    np.testing.assert_array_equal(every.dense(), x)


def test_one_factor_for_all_heads_costs_less_and_repairs_less(rng):
    x = halves(rng, 1, 4, 128, 32)
    own, shared = (gear_compress(x, "key", GearConfig(lowrank_per_head=one, sparsity=0.0)) for one in (True, False))
    assert size(x - own.dense()) < size(x - shared.dense())
    assert shared.nbytes(True)["low rank"] == 2 * 4 * (128 + 4 * 32) < own.nbytes(True)["low rank"]


@pytest.mark.parametrize("kind", ["key", "value"])
def test_scores_and_sums_equal_the_dense_form(kind, rng, assert_close):
    x = halves(rng, 2, 2, 192, 32)
    block = gear_compress(x, kind, GearConfig(sparsity=0.05, group=32))
    dense = np.repeat(block.dense(), 3, axis=1)
    if kind == "key":
        q = rng.standard_normal((2, 6, 32)).astype(np.float32)
        assert_close(block.scores(q), np.einsum("bhd,bhtd->bht", q.astype(np.float64), dense).astype(np.float32))
    else:
        p = rng.random((2, 6, 192)).astype(np.float32)
        assert_close(block.weighted_sum(p), np.einsum("bht,bhtd->bhd", p.astype(np.float64), dense).astype(np.float32))


def attention(q, k, v):
    share = q.shape[1] // k.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        torch.from_numpy(q), *(torch.from_numpy(x).repeat_interleave(share, 1) for x in (k, v))
    ).numpy()


@pytest.mark.parametrize("cfg", [GearConfig(bits=WHOLE), GearConfig(), GearConfig(backbone="kcvt", buffer=20)], ids=str)
def test_a_cache_attends_to_what_it_stands_for_at_every_length(cfg, rng, assert_close):
    k, v = halves(rng, 2, 2, 260, 32), halves(rng, 2, 2, 260, 32)
    cache = GearCache(cfg)
    cache.prefill(k[:, :, :130], v[:, :, :130])
    for t in range(130, 260):
        cache.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
        if t % 31 == 0 or t > 256:
            q = rng.standard_normal((2, 4, 1, 32)).astype(np.float32)
            held = cache.dense("key"), cache.dense("value")
            assert cache.length == t + 1 and held[0].shape == (2, 2, t + 1, 32)
            assert np.abs(cache.attend(q) - attention(q, *held)).max() < 2e-5 * np.abs(v).max()
    if cfg.bits == WHOLE:
        np.testing.assert_array_equal(held[0], k)


LONG, FIRST = 32_768, 32_600  # tokens of a long cache, and of its prompt


def long_heads(rng):
    """Keys and values of one head of 128 channels: keys have offsets, and four of their channels are ten times larger.

    Eight query heads read it, as in models whose query heads share keys. Their queries are short, so that thousands of
    tokens share the attention: the few that a long query looks at lie at the ends of their groups, which err less.
    """
    k, v = rng.standard_normal((2, 1, 1, LONG, 128), dtype=np.float32)
    k += 2 * rng.standard_normal((1, 1, 1, 128), dtype=np.float32)
    k[..., :4] *= 10
    q = np.float32(0.4) * rng.standard_normal((1, 8, 1, 128), dtype=np.float32)
    return q, *(x.astype(np.float16).astype(np.float32) for x in (k, v))


def weighed(q, k, v):
    """Return shares of attention (query heads, tokens) and outputs (query heads, channels), in double precision."""
    q, k, v = (x.astype(np.float64) for x in (q[0, :, 0], k[0, 0], v[0, 0]))
    p = np.exp(q @ k.T / 128**0.5)
    p /= p.sum(1, keepdims=True)
    return p, p @ v


def streamed(cfg, k, v):
    """Return a cache whose last tokens came one by one."""
    cache = GearCache(cfg)
    cache.prefill(k[:, :, :FIRST], v[:, :, :FIRST])
    for t in range(FIRST, k.shape[2]):
        cache.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
    return cache


def test_a_streamed_cache_of_32_768_tokens_is_read_as_it_stands(rng):
    q, k, v = long_heads(rng)
    cache = streamed(GearConfig(), k[:, :, :-1], v[:, :, :-1])
    for length in (LONG - 1, LONG):  # 63 tokens wait in the buffer; then it is compressed
        assert (cache.length, cache.compressed) == (length, length // 64 * 64)
        _, wanted = weighed(q, cache.dense("key"), cache.dense("value"))
        assert np.abs(cache.attend(q)[0, :, 0] - wanted).max() < 2e-5 * np.abs(v).max()
        if length < LONG:
            cache.append(k[:, :, -1:], v[:, :, -1:])
    assert [(x.count, x.tokens) for x in cache.blocks("key")] == [(1, 32_576), (3, 64)]


def test_a_long_caches_error_is_what_its_quantiser_explains_and_the_corrections_lower_it(rng):
    """Against exact attention. An entry of step D errs by D^2 / 12 in the mean square, whatever the next one does.

    To first order a score's error e moves the output by p e (v - out), p the share of its token, and a value's by p.
    """
    q, k, v = long_heads(rng)
    p, exact = weighed(q, k, v)
    keys = np.ptp(k[0, 0].reshape(-1, 64, 128), axis=1).repeat(64, axis=0)  # ranges: 64 tokens of a channel
    values = np.ptp(v[0, 0].reshape(LONG, 2, 64), axis=2).repeat(64, axis=1)  # 64 channels of a token
    noise = [(each / 15) ** 2 / 12 for each in (keys, values)]  # 4 bits: 15 steps
    of_scores = q[0, :, 0].astype(np.float64) ** 2 @ noise[0].T / 128  # (query heads, tokens)
    apart = ((v[0, 0] - exact[:, None]) ** 2).sum(2)
    foretold = (p**2 * (of_scores * apart + noise[1].sum(1))).sum()
    plain, both = (
        size(streamed(cfg, k, v).attend(q)[0, :, 0] - exact)
        for cfg in (GearConfig(bits=4, **PLAIN), GearConfig(bits=4))
    )
    assert plain == pytest.approx(foretold**0.5, rel=0.1)
    assert both < 0.85 * plain


def test_blocks_end_at_the_buffer_and_are_never_compressed_again(rng):
    k, v = halves(rng, 1, 2, 300, 32), halves(rng, 1, 2, 300, 32)
    cache = GearCache(GearConfig())
    cache.prefill(k[:, :, :100], v[:, :, :100])
    assert (cache.length, cache.compressed) == (100, 64)
    before = cache.dense("key")[:, :, :64].copy()
    for start in (100, 101, 150, 290):  # one token, or many at once
        stop = {100: 101, 101: 150, 150: 290, 290: 300}[start]
        cache.append(k[:, :, start:stop], v[:, :, start:stop])
        assert cache.compressed == stop // 64 * 64
    np.testing.assert_array_equal(cache.dense("key")[:, :, :64], before)
    assert [(x.count, x.tokens, x.rank) for x in cache.blocks("key")] == [(1, 64, 4), (3, 64, 2)]
    for i in range(1, 4):
        alone = gear_compress(k[:, :, 64 * i : 64 * (i + 1)], "key", GearConfig(), 2).dense()
        np.testing.assert_array_equal(cache.dense("key")[:, :, 64 * i : 64 * (i + 1)], alone)
    np.testing.assert_array_equal(cache.dense("key")[:, :, 256:], k[:, :, 256:])


def test_a_short_prompt_is_not_compressed(rng):
    cache = GearCache(GearConfig())
    cache.prefill(halves(rng, 1, 1, 63, 8), halves(rng, 1, 1, 63, 8))
    assert cache.compressed == 0 and cache.nbytes(True) == {
        "codes": 0, "scales": 0, "low rank": 0, "outliers": 0, "buffer": 2 * 63 * 8 * 2,
    }  # fmt: skip


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["key", "value"])
def test_bytes_equal_the_formula(kind, backbone, rng):
    x = halves(rng, 1, 4, 256, 64)
    cfg = GearConfig(backbone=backbone, bits=3)
    bits = memory_bits_per_scalar(cfg, 256, 64, 4, kind=kind, recent=0)
    found = gear_compress(x, kind, cfg).nbytes(breakdown=True)
    for part, count in found.items():
        assert count * 8 == pytest.approx(bits[part] * x.size, abs=1e-6), part


def test_bits_of_the_papers_setting_worked_by_hand():
    cfg = GearConfig()  # 2 + 32/64 + 16 * 4 (1/128 + 1/1024) + 32 * 20/1024
    bare = memory_bits_per_scalar(cfg, 1024, 128, 32, recent=0)
    assert bare["total"] == pytest.approx(2 + 0.5 + 0.5625 + 0.625)
    assert memory_bits_per_scalar(replace(cfg, **PLAIN), 1024, 128, 32)["total"] / 16 == pytest.approx(0.206, abs=5e-4)
    assert memory_bits_per_scalar(cfg, 1024, 128, 32)["total"] / 16 == pytest.approx(0.277, abs=1.5e-3)
    assert memory_bits_per_scalar(GearConfig(bits=WHOLE), 9, 8, 1)["total"] == 16


def test_an_item_of_a_batch_and_heads_in_any_order_are_compressed_alike(rng):
    x = halves(rng, 3, 4, 128, 64)
    whole = gear_compress(x, "key").dense()
    np.testing.assert_array_equal(gear_compress(x[1:2], "key").dense(), whole[1:2])
    np.testing.assert_array_equal(gear_compress(x[:, ::-1], "key").dense(), whole[:, ::-1])


def test_seeds(rng):
    x = halves(rng, 1, 2, 128, 64)
    first, again, other = (gear_compress(x, "key", GearConfig(seed=seed)).dense() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert size(x - other) == pytest.approx(size(x - first), rel=0.02)


def test_the_smallest_cache_and_constant_channels(rng):
    cache = GearCache(GearConfig(group=8, buffer=8))
    one = np.ones((1, 1, 1, 8), np.float32)
    cache.prefill(one, 2 * one)
    np.testing.assert_allclose(cache.attend(one), 2 * one)
    flat = np.full((1, 1, 64, 64), 0.5, np.float32)
    np.testing.assert_array_equal(gear_compress(flat, "key").dense(), flat)
    assert np.isfinite(gear_compress(flat, "value").dense()).all()


def test_tensors_come_back_as_tensors_of_their_dtype(rng):
    k, q = torch.from_numpy(halves(rng, 1, 2, 70, 32)).bfloat16(), torch.ones(1, 4, 1, 32, dtype=torch.bfloat16)
    cache = GearCache(GearConfig())
    cache.prefill(k, k)
    out = cache.attend(q, torch.ones(1, 1, 1, 70, dtype=torch.bool))
    assert out.dtype == torch.bfloat16 and out.shape == (1, 4, 1, 32)


def test_bad_input_is_named(rng):
    x = halves(rng, 1, 2, 64, 32)
    with pytest.raises(ValueError, match="GearConfig: bits must be an int from 1 to 8, got 9"):
        GearConfig(bits=9)
    with pytest.raises(ValueError, match="buffer must be a multiple of group"):
        GearConfig(buffer=20)
    with pytest.raises(ValueError, match="sparsity must be below 1"):
        GearConfig(sparsity=1.0)
    with pytest.raises(ValueError, match="rank_gen must be at most buffer"):
        GearConfig(backbone="kcvt", buffer=1)
    with pytest.raises(ValueError, match="rank must be an int from 0 to 32, got 33"):
        gear_compress(x, "key", rank=33)
    with pytest.raises(ValueError, match="group must divide the axis"):
        gear_compress(x[:, :, :60], "key")
    with pytest.raises(ValueError, match="gear_compress: x must be finite"):
        gear_compress(np.where(x > 1, np.nan, x), "key")
    with pytest.raises(TypeError, match="x must hold floats, got int64"):
        gear_compress(x.astype(np.int64), "key")
    cache = GearCache()
    with pytest.raises(ValueError, match=r"GearCache\.attend: the cache is empty"):
        cache.attend(x[:, :, :1])
    cache.prefill(x, x)
    with pytest.raises(ValueError, match="the cache must be empty"):
        cache.prefill(x, x)
    with pytest.raises(ValueError, match="the cache holds"):
        cache.append(x[:, :1], x[:, :1])
    with pytest.raises(ValueError, match="keys and values must have one shape"):
        cache.append(x, x[:, :1])
