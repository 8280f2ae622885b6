"""Decoding over a compressed cache against dense attention on what the cache stands for, on every instruction set."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.attention.compressed_blocks import CompressedBlocks
from kernels.attention.quantised_decode import (
    quantised_decode,
    quantised_decode_reference,
    quantised_decode_work,
    quantised_scores,
    quantised_weighted_sum,
)


def halves(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float16)


def blocks(rng, kind, *, count=2, batch=2, heads=3, tokens=48, d=32, bits=2, group=16, by_channel=None, rank=2, each=2,
           shared=False, apart=None):  # fmt: skip
    """Random codes in the layout of the dataclass; values are near 1, so that nothing cancels."""
    by_channel = kind == "key" if by_channel is None else by_channel
    lead, units = (count, batch, heads), -(-(tokens if by_channel else d) // 16)
    codes = rng.integers(0, 256, (*lead, d if by_channel else tokens, units, 2 * bits)).astype(np.uint8)
    apart = d % group == 0 if apart is None else apart
    if by_channel:
        scales = (*lead, d, -(-tokens // group))
    else:
        scales = (*lead, tokens, d // group) if apart else (count, batch, 1, tokens, -(-heads * d // group))
    padded = -(-tokens // 16) * 16
    factor = halves(rng, count, batch, 1 if shared else heads, rank, padded, scale=0.3)
    factor[..., tokens:] = 0
    length = tokens if kind == "key" else heads * d
    vectors = (*lead, d) if kind == "key" else (count, batch, tokens)
    places = np.sort(np.argsort(rng.random((*vectors, length)), -1)[..., :each], -1).astype(np.uint16)
    made = CompressedBlocks(
        kind=kind, tokens=tokens, d=d, bits=bits, group=group, by_channel=by_channel, codes=codes,
        scale=np.abs(halves(rng, *scales, scale=1 / 2**bits)), zero=halves(rng, *scales) + np.float16(1), factor=factor,
        basis=halves(rng, *lead, rank, d, scale=0.3), places=places, values=halves(rng, *places.shape, scale=4.0),
    )  # fmt: skip
    gone = made.outlier_mask()  # outliers have code 0: clear their bits through the mask of one block after the other
    return replace(made, codes=cleared(made, gone))


def cleared(made, gone):
    from kernels.formats.quantised import pack_bits, unpack_bits

    n = made.tokens if made.by_channel else made.d
    codes = unpack_bits(made.codes, made.bits, n)
    parts = gone.reshape(made.batch, made.heads, made.count, made.tokens, made.d)
    mask = np.moveaxis(parts, 2, 0)
    codes[np.swapaxes(mask, -1, -2) if made.by_channel else mask] = 0
    return pack_bits(codes, made.bits)


SETTINGS = [
    {},
    {"bits": 1}, {"bits": 3}, {"bits": 4}, {"bits": 5}, {"bits": 7}, {"bits": 8},
    {"tokens": 20, "group": 20}, {"tokens": 40, "group": 8}, {"tokens": 33, "group": 33},
    {"d": 8, "group": 8}, {"d": 48, "group": 24}, {"d": 40, "group": 20}, {"d": 24, "group": 72},
    {"d": 128, "group": 64},
    {"rank": 0}, {"each": 0}, {"rank": 0, "each": 0}, {"shared": True},
    {"count": 1, "tokens": 1, "group": 1, "rank": 1, "each": 1},
    {"apart": False}, {"tokens": 300, "group": 60}, {"tokens": 320, "group": 320, "count": 1},
]  # fmt: skip


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("share", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_step_equals_dense_attention(setting, share, rng, assert_close):
    keys = (
        [blocks(rng, "key", **setting), blocks(rng, "key", count=1)]
        if "d" not in setting
        else [blocks(rng, "key", **setting)]
    )
    values = (
        [blocks(rng, "value", **setting), blocks(rng, "value", count=1)]
        if "d" not in setting
        else [blocks(rng, "value", **setting)]
    )
    d = keys[0].d
    recent = [halves(rng, 2, 3, 9, d) for _ in range(2)]
    q = rng.standard_normal((2, 3 * share, d)).astype(np.float32) / d**0.5
    found = quantised_decode(q, keys, values, *recent)
    assert found.dtype == np.float32
    assert_close(found, quantised_decode_reference(q, keys, values, *recent).astype(np.float32))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("share", [1, 2, 7])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_keys_by_token(setting, share, rng, assert_close):
    keys, values = blocks(rng, "key", by_channel=False, **setting), blocks(rng, "value", **setting)
    recent = halves(rng, 2, 3, 4, keys.d)
    q = rng.standard_normal((2, 3 * share, keys.d)).astype(np.float32) / keys.d**0.5
    found = quantised_decode(q, [keys], [values], recent, recent)
    assert_close(found, quantised_decode_reference(q, [keys], [values], recent, recent).astype(np.float32))


@pytest.mark.usefixtures("level")
def test_scores_and_sums_alone(rng, assert_close):
    keys, values = blocks(rng, "key", tokens=50, group=50), blocks(rng, "value", tokens=50)
    q, p = (rng.random(shape).astype(np.float32) for shape in ((2, 6, 32), (2, 6, 100)))
    for share, heads in ((2, np.arange(6) // 2),):
        dense = keys.dense().astype(np.float64)[:, heads]
        assert_close(
            quantised_scores(q, keys), np.einsum("bhd,bhtd->bht", q, dense).astype(np.float32), label=str(share)
        )
        dense = values.dense().astype(np.float64)[:, heads]
        assert_close(quantised_weighted_sum(p, values), np.einsum("bht,bhtd->bhd", p, dense).astype(np.float32))


def test_mask_scale_and_how_many_recent_tokens_count(rng, assert_close):
    keys, values = [blocks(rng, "key")], [blocks(rng, "value")]
    recent = [halves(rng, 2, 3, 6, 32) for _ in range(2)]
    q = rng.standard_normal((2, 6, 32)).astype(np.float32) / 6
    for heads in (1, 6):
        mask = rng.random((2, heads, 96 + 4)) < 0.6
        mask[0] = False
        found = quantised_decode(q, keys, values, *recent, recent=4, scale=0.7, mask=mask)
        wanted = quantised_decode_reference(q, keys, values, *(x[:, :, :4] for x in recent), scale=0.7, mask=mask)
        assert_close(found, wanted.astype(np.float32))
        assert not found[0].any() and found[1].any()


def test_nothing_compressed_and_nothing_at_all(rng, assert_close):
    recent, q = halves(rng, 1, 2, 70, 32), rng.standard_normal((1, 4, 32)).astype(np.float32)
    assert_close(
        quantised_decode(q, [], [], recent, recent),
        quantised_decode_reference(q, [], [], recent, recent).astype(np.float32),
    )
    empty = halves(rng, 1, 2, 0, 32)
    assert not quantised_decode(q, [], [], empty, empty).any()


def test_the_dense_form_puts_every_code_in_its_place():
    """Two tokens of two channels, 2 bits: worked by hand."""
    codes = np.zeros((1, 1, 1, 2, 1, 4), np.uint8)
    codes[0, 0, 0, 0, 0, 0], codes[0, 0, 0, 1, 0, 0] = 0b0110, 0b0011  # channel 0: 2, 1; channel 1: 3, 0
    half = np.float16
    key = CompressedBlocks(
        kind="key", tokens=2, d=2, bits=2, group=2, by_channel=True, codes=codes,
        scale=np.array([[[[[0.5], [2]]]]], half), zero=np.array([[[[[-1], [10]]]]], half),
        factor=np.pad(np.array([[[[[1, 2]]]]], half), [(0, 0)] * 4 + [(0, 14)]),
        basis=np.array([[[[[0.25, 4]]]]], half),
        places=np.array([[[[[1], [1]]]]], np.uint16), values=np.array([[[[[7], [8]]]]], half),
    )  # fmt: skip
    np.testing.assert_array_equal(key.levels()[0, 0], [[0, 16], [-0.5, 10]])
    np.testing.assert_array_equal(key.low_rank()[0, 0], [[0.25, 4], [0.5, 8]])
    np.testing.assert_array_equal(key.sparse()[0, 0], [[0, 0], [7, 8]])
    np.testing.assert_array_equal(key.dense()[0, 0], [[0.25, 20], [7.5, 16]])
    np.testing.assert_array_equal(key.dense(low_rank=False, outliers=False)[0, 0], [[0, 16], [-0.5, 10]])
    assert key.bytes_by_part() == {"codes": 8, "scales": 8, "low rank": 36, "outliers": 8} and key.nbytes == 60


def test_same_bits_for_any_thread_count(rng):
    keys, values = [blocks(rng, "key", tokens=700, group=700)], [blocks(rng, "value", tokens=700)]
    recent, q = halves(rng, 2, 3, 5, 32), rng.standard_normal((2, 9, 32)).astype(np.float32)
    wanted = quantised_decode(q, keys, values, recent, recent, num_threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(quantised_decode(q, keys, values, recent, recent, num_threads=threads), wanted)


def test_nan_reaches_its_own_head_only(rng):
    keys, values = [blocks(rng, "key")], [blocks(rng, "value")]
    recent, q = halves(rng, 2, 3, 5, 32), rng.standard_normal((2, 3, 32)).astype(np.float32)
    q[1, 2, 7] = np.nan
    found = quantised_decode(q, keys, values, recent, recent)
    assert np.isnan(found[1, 2]).all() and np.isfinite(np.delete(found.reshape(6, 32), 5, 0)).all()


def test_work_counts(rng):
    keys, values = [blocks(rng, "key")], [blocks(rng, "value")]
    recent = halves(rng, 2, 3, 5, 32)
    work = quantised_decode_work(6, keys, values, recent)
    per_query = 4 * 32 * (96 + 5) + 2 * 2 * 2 * (96 + 2 * 32)  # dense part, and two products of rank 2 in two caches
    outliers = 2 * 2 * (keys[0].places.size + values[0].places.size)
    assert work.flops == 2 * 6 * per_query + outliers
    assert work.bytes_streamed == keys[0].nbytes + values[0].nbytes + 2 * recent.nbytes + 8 * 2 * 6 * 32
    assert work.gathers == 2 * (keys[0].places.size + values[0].places.size)


def test_bad_input_is_named(rng):
    keys, values = [blocks(rng, "key")], [blocks(rng, "value")]
    recent, q = halves(rng, 2, 3, 5, 32), rng.standard_normal((2, 3, 32)).astype(np.float32)
    with pytest.raises(TypeError, match="q must be a NumPy array of float32, got float64"):
        quantised_decode(q.astype(np.float64), keys, values, recent, recent)
    with pytest.raises(ValueError, match="q must have a multiple of the 3 heads of the keys, got 4"):
        quantised_decode(np.zeros((2, 4, 32), np.float32), keys, values, recent, recent)
    with pytest.raises(ValueError, match=r"keys must be blocks of keys .* got values"):
        quantised_decode(q, values, values, recent, recent)
    with pytest.raises(ValueError, match="keys and values must have blocks of the same tokens"):
        quantised_decode(q, keys, [blocks(rng, "value", count=1)], recent, recent)
    with pytest.raises(ValueError, match="recent must be an int from 0 to 5"):
        quantised_decode(q, keys, values, recent, recent, recent=6)
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 1, 101\) or \(2, 3, 101\)"):
        quantised_decode(q, keys, values, recent, recent, mask=np.ones((2, 3, 100), bool))
    with pytest.raises(TypeError, match="cache must be a CompressedBlocks of keys, got one of values"):
        quantised_scores(q, values[0])
    with pytest.raises(ValueError, match="p must weigh 96 tokens of 2 sequences"):
        quantised_weighted_sum(np.ones((2, 3, 95), np.float32), values[0])
    with pytest.raises(ValueError, match="CompressedBlocks: codes must have shape"):
        replace(keys[0], bits=3)
    with pytest.raises(ValueError, match="values share scales along channels"):
        replace(values[0], by_channel=True)


def test_an_outlier_outside_its_block_is_refused_before_it_is_used(rng):
    recent, q = halves(rng, 2, 3, 0, 32), rng.standard_normal((2, 3, 32)).astype(np.float32)
    for kind, place in (("key", 48), ("value", 96)):
        cache = {name: blocks(rng, name) for name in ("key", "value")}
        bad = cache[kind].places.copy()
        bad.flat[-1] = place
        cache[kind] = replace(cache[kind], places=bad)
        with pytest.raises(ValueError, match="quantised_decode: an outlier lies outside its block"):
            quantised_decode(q, [cache["key"]], [cache["value"]], recent, recent)
