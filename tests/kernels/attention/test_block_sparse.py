"""Block-sparse attention against its dense float64 reference, and its gradients against torch's autograd."""

import numpy as np
import pytest
import torch

from kernels.attention.block_sparse import (
    block_shape,
    block_sparse_attention,
    block_sparse_attention_backward,
    block_sparse_attention_reference,
    block_sparse_attention_work,
)
from kernels.half_precision import as_float32

# (b, h, t, d, block): one token, ragged ends, odd widths, every block size class
SHAPES = [
    (1, 1, 0, 8, 16),
    (1, 1, 1, 8, 128),
    (2, 2, 100, 40, 32),
    (1, 3, 257, 64, 64),
    (1, 2, 300, 16, 16),
    (2, 1, 130, 65, 48),
]


def case(shape, rng, density=0.6):
    b, h, t, d, block = shape
    q, k, v, grad = (rng.standard_normal((b, h, t, d)).astype(np.float32) for _ in range(4))
    blocks = -(-t // block)
    return q, k, v, grad, rng.random((b, h, blocks, blocks)) < density


def dense_gradients(q, k, v, mask, grad, *, block_size, causal, key_positions=None, scale=None):
    """Gradients by torch's autograd in float64 through the dense formula; rows that see nothing give zero."""
    t, d = q.shape[2:]
    allowed = torch.tensor(np.repeat(np.repeat(mask, block_size, 2), block_size, 3)[:, :, :t, :t])
    if causal:
        position = torch.arange(t) if key_positions is None else torch.tensor(key_positions)[:, :, None, :]
        allowed = allowed & (position <= torch.arange(t)[:, None])
    sees = allowed.any(-1, keepdim=True)
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (q, k, v)]
    scores = (leaves[0] @ leaves[1].mT * (d**-0.5 if scale is None else scale)).masked_fill(~allowed & sees, -torch.inf)
    out = torch.where(sees, torch.softmax(scores, -1), 0.0) @ leaves[2]
    out.backward(torch.tensor(grad, dtype=torch.float64))
    return [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_gradients_match_dense_float64(shape, causal, rng):
    q, k, v, grad, mask = case(shape, rng)
    how = {"block_size": shape[4], "causal": causal}
    out, lse = block_sparse_attention(q, k, v, mask, return_lse=True, **how)
    np.testing.assert_allclose(out, block_sparse_attention_reference(q, k, v, mask, **how), atol=5e-6)
    ours = block_sparse_attention_backward(q, k, v, mask, out, lse, grad, **how)
    for mine, theirs in zip(ours, dense_gradients(q, k, v, mask, grad, **how), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_permuted_keys_keep_the_causal_rule(rng):
    q, k, v, grad, _ = case((1, 2, 192, 32, 32), rng)
    order = np.stack([np.concatenate([rng.permutation(64) + 64 * s for s in range(3)]) for _ in range(2)])[None]
    shuffled = [np.take_along_axis(x, order[..., None], axis=2) for x in (k, v)]
    segment = np.arange(6) // 2
    mask = np.broadcast_to(segment[:, None] >= segment, (1, 2, 6, 6)).copy()  # all that causality allows
    how = {"block_size": 32, "causal": True, "key_positions": order.astype(np.int32)}
    out, lse = block_sparse_attention(q, *shuffled, mask, return_lse=True, **how)
    full = np.ones_like(mask)
    np.testing.assert_allclose(
        out, block_sparse_attention_reference(q, k, v, full, block_size=32, causal=True), atol=5e-6
    )
    ours = block_sparse_attention_backward(q, *shuffled, mask, out, lse, grad, **how)
    for mine, theirs in zip(ours, dense_gradients(q, *shuffled, mask, grad, **how), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_bfloat16_input_equals_float32_of_the_same_values(rng):
    q, k, v, _, mask = case((1, 2, 100, 40, 32), rng)
    bits = [torch.tensor(x).bfloat16() for x in (q, k, v)]
    out = block_sparse_attention(*(x.view(torch.uint16).numpy() for x in bits), mask, block_size=32)
    same = block_sparse_attention(*(x.float().numpy() for x in bits), mask, block_size=32)
    np.testing.assert_array_equal(out, same)


def test_one_mask_serves_every_batch(rng):
    q, k, v, _, mask = case((3, 2, 64, 16, 16), rng)
    shared = block_sparse_attention(q, k, v, mask[:1], block_size=16)
    np.testing.assert_array_equal(shared, block_sparse_attention(q, k, v, np.repeat(mask[:1], 3, 0), block_size=16))


def test_same_bits_for_any_thread_count(rng):
    q, k, v, grad, mask = case((1, 3, 257, 64, 64), rng)
    runs = []
    for threads in (1, 2, 5):
        out, lse = block_sparse_attention(q, k, v, mask, block_size=64, return_lse=True, num_threads=threads)
        runs.append(
            (out, *block_sparse_attention_backward(q, k, v, mask, out, lse, grad, block_size=64, num_threads=threads))
        )
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nan_reaches_every_row_that_sees_it_and_no_other(rng):
    q, k, v, _, _ = case((1, 1, 64, 16, 16), rng)
    k[0, 0, 40, 3] = np.nan
    mask = np.ones((1, 1, 4, 4), bool)
    out = block_sparse_attention(q, k, v, mask, block_size=16, causal=True)
    assert np.isfinite(out[0, 0, :40]).all() and np.isnan(out[0, 0, 40:]).all()


@pytest.mark.parametrize("scale", [0.0, -0.1, -0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_scales_that_are_not_positive(shape, causal, scale, rng):
    """The ragged end and causality hide pairs by -inf, which such a scale would turn into NaN or +inf."""
    q, k, v, grad, mask = case(shape, rng)
    how = {"block_size": shape[4], "causal": causal, "scale": scale}
    out, lse = block_sparse_attention(q, k, v, mask, return_lse=True, **how)
    np.testing.assert_allclose(out, block_sparse_attention_reference(q, k, v, mask, **how), atol=2e-5)
    ours = block_sparse_attention_backward(q, k, v, mask, out, lse, grad, **how)
    for mine, theirs in zip(ours, dense_gradients(q, k, v, mask, grad, **how), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["q", "k", "v", "grad"])
@pytest.mark.parametrize("permuted", [False, True])
def test_what_is_not_finite_stays_where_it_is_seen(part, value, permuted, rng):
    """Queries that do not see the odd token, and keys that no spoiled query sees, keep every bit."""
    t, block = 70, 32
    given = dict(zip(("q", "k", "v", "grad"), case((1, 2, t, 12, block), rng)[:4], strict=True))
    mask = rng.random((1, 2, 3, 3)) < 0.8
    mask[:, :, range(3), range(3)] = True
    position = np.stack([rng.permutation(t) for _ in range(2)])[None].astype(np.int32) if permuted else None
    how = {"block_size": block, "causal": True, "key_positions": position}
    token = np.arange(t) if position is None else position[0, 0]
    seen = np.kron(mask[0, 0], np.ones((block, block), bool))[:t, :t] & (token <= np.arange(t)[:, None])

    def results(x):
        out, lse = block_sparse_attention(x["q"], x["k"], x["v"], mask, return_lse=True, **how)
        gradients = block_sparse_attention_backward(x["q"], x["k"], x["v"], mask, out, lse, x["grad"], **how)
        return [y[0, 0] for y in (out, *gradients)], block_sparse_attention_reference(
            x["q"], x["k"], x["v"], mask, **how
        )

    wanted, reference = results(given)
    for at in (0, 5, 40, t - 1):
        odd = given | {part: given[part].copy()}
        odd[part][0, 0, at, 3] = value
        rows = seen[:, at] if part in ("k", "v") else np.arange(t) == at
        out_rows = rows & (part != "grad")
        columns = seen[rows].any(axis=0)
        found, found_reference = results(odd)
        for mine, theirs, spoiled in zip(found, wanted, (out_rows, rows, columns, columns), strict=True):
            np.testing.assert_array_equal(mine[~spoiled], theirs[~spoiled])
        np.testing.assert_array_equal(found_reference[0, 0][~out_rows], reference[0, 0][~out_rows])
        if part == "v":
            assert (np.isnan(found[0][rows, 3]) if np.isnan(value) else found[0][rows, 3] == value).all()
            np.testing.assert_array_equal(np.isfinite(found[0]), np.isfinite(found_reference[0, 0]))


FORMATS = ("float32", "float64", "float16", "bfloat16")


def stored_as(x, name):
    """Return float64 values as a kernel takes them, and the values that this format really holds."""
    if name == "bfloat16":
        held = torch.tensor(x).bfloat16()
        return held.view(torch.uint16).numpy(), held.double().numpy()
    return x.astype(name), x.astype(name).astype(np.float64)


def seen_pairs(rng, shape, block, causal, mask, order):
    """Return which slots of the keys each query sees, pair by pair from the words of the docstring."""
    b, h, hk, tq, tk = shape
    rows, columns = block_shape(tq, tk, block_size=block, causal=causal)
    keep = rng.random((rng.choice([1, b]), rng.choice([1, h]), rows, columns)) < 0.7
    seen = np.zeros((b, h, tq, tk), bool)
    for at in np.ndindex(seen.shape):
        batch, head, i, slot = at
        key = order[batch, head * hk // h, slot]
        place = i + tk - tq if causal else i
        row = place // block - ((tk - tq) // block if causal else 0)
        kept = keep[batch % len(keep), head % keep.shape[1], row, slot // block]
        open_to = True if mask is None else mask[batch, head, i, key] not in (False, -np.inf)
        seen[at] = kept and (not causal or key <= place) and open_to
    return keep, seen


@pytest.mark.parametrize("seed", range(48))
def test_every_setting_together_matches_the_dense_formula(seed):
    """Formats, grouped heads, few queries, wide values, any block, masks of both kinds, permuted keys, gradients."""
    rng = np.random.default_rng(seed)
    stored, causal = FORMATS[seed % 4], bool(seed // 4 % 2)
    b, hk, group, tk = rng.integers(1, 3), rng.integers(1, 3), rng.integers(1, 4), rng.integers(1, 70)
    tq = rng.choice([1, rng.integers(1, tk + 1), tk]) if causal else rng.integers(1, 70)
    h, d, dv, block = hk * group, rng.integers(1, 40), rng.integers(1, 40), rng.choice([8, 13, 16, 24, 32, 100, 256])
    mask = None
    if kind := seed // 8 % 3:
        shape = [rng.choice([1, size]) for size in (b, h, tq, tk)]
        hidden = rng.random(shape) < 0.3
        mask = ~hidden if kind == 1 else np.where(hidden, -np.inf, rng.standard_normal(shape)).astype(np.float32)
    order = np.argsort(
        rng.random((b, hk, tk)) if seed % 5 == 0 else np.broadcast_to(np.arange(tk), (b, hk, tk)), axis=2
    )
    wide_mask = None if mask is None else np.broadcast_to(mask, (b, h, tq, tk))
    keep, seen = seen_pairs(rng, (b, h, hk, tq, tk), block, causal, wide_mask, order)
    sizes = ((b, h, tq, d), (b, hk, tk, d), (b, hk, tk, dv))
    given, held = zip(*(stored_as(rng.standard_normal(size), stored) for size in sizes), strict=True)
    how = {"block_size": block, "causal": causal, "attn_mask": mask, "scale": 0.3}
    how["key_positions"] = order if seed % 5 == 0 else None
    out, lse = block_sparse_attention(*given, keep, return_lse=True, **how)
    grad = rng.standard_normal(out.shape).astype(out.dtype)
    found = out, *block_sparse_attention_backward(*given, keep, out, lse, grad, **how)

    q, k, v = (torch.tensor(x, requires_grad=True) for x in held)
    added = 0 if mask is None or mask.dtype == bool else np.where(np.isinf(wide_mask), 0, wide_mask)
    added = np.take_along_axis(np.broadcast_to(added, seen.shape), np.repeat(order, group, 1)[:, :, None], axis=3)
    scores = 0.3 * q @ k.repeat_interleave(group, 1).mT + torch.tensor(added)
    any_seen = torch.tensor(seen.any(-1, keepdims=True))
    weights = torch.where(
        any_seen, torch.softmax(scores.masked_fill(torch.tensor(~seen) & any_seen, -torch.inf), -1), 0
    )
    wanted = weights @ v.repeat_interleave(group, 1)
    wanted.backward(torch.tensor(grad, dtype=torch.float64))
    tolerance = 1e-12 if stored == "float64" else 2e-5
    for mine, theirs in zip(found, (wanted.detach(), q.grad, k.grad, v.grad), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=tolerance)
    reference = block_sparse_attention_reference(*given, keep, **how)
    np.testing.assert_allclose(reference, wanted.detach().numpy(), atol=1e-12)


def test_half_precision_is_read_in_every_form():
    bits = np.arange(2**16, dtype=np.uint16)
    halves, wide = bits.view(np.float16), as_float32(bits.view(np.float16))
    np.testing.assert_array_equal(wide, halves.astype(np.float32))
    np.testing.assert_array_equal(as_float32(bits), as_float32(bits.view("V2")))
    finite = np.isfinite(as_float32(bits))
    given = torch.tensor(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(as_float32(bits)[finite], given[finite])
    one, keep = np.ones((1, 1, 1, 1), np.float16), np.ones((1, 1, 1, 1), bool)
    for name in (np.float16, "bits", "V2"):
        values = bits[finite if name != np.float16 else np.isfinite(halves)]
        v = values.view(np.float16 if name == np.float16 else "V2" if name == "V2" else np.uint16)
        unit = one if name == np.float16 else np.full(one.shape, 0x3F80, np.uint16).view(v.dtype)
        for start in range(0, len(v), 511):
            part = v[start : start + 511].reshape(1, 1, 1, -1)
            out = block_sparse_attention(unit, unit, part, keep, block_size=8)
            np.testing.assert_array_equal(out, as_float32(part))


def test_blocks_that_a_mask_hides_are_not_read(rng):
    """Keys beyond a left padding hold NaN: no query sees them, none is touched."""
    q, k, v, _, _ = case((2, 2, 96, 16, 32), rng)
    real = np.arange(96) >= np.array([0, 40])[:, None]
    k[1, :, :40], v[1, :, :40] = np.nan, np.nan
    keep = np.ones((1, 1, 3, 3), bool)
    out = block_sparse_attention(q, k, v, keep, block_size=32, causal=True, attn_mask=real[:, None, None])
    alone = block_sparse_attention(
        q[1:, :, 40:], k[1:, :, 40:], v[1:, :, 40:], keep[:, :, :2, :2], block_size=32, causal=True
    )
    np.testing.assert_allclose(out[1:, :, 40:], alone, atol=2e-6)
    assert (out[1, :, :40] == 0).all()


def test_large_logits_do_not_overflow(rng):
    q, k, v, _, mask = case((1, 1, 64, 16, 16), rng, density=1.0)
    out = block_sparse_attention(100 * q, 100 * k, v, mask, block_size=16)
    np.testing.assert_allclose(
        out, block_sparse_attention_reference(100 * q, 100 * k, v, mask, block_size=16), atol=2e-3
    )


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("stored", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_instruction_set_gives_the_formula(shape, stored, tolerance):
    q, k, v, _, mask = case(shape, np.random.default_rng(1))
    given, how = (*(x.astype(stored) for x in (q, k, v)), mask), {"block_size": shape[4]}
    wanted = block_sparse_attention_reference(*given, **how)
    np.testing.assert_allclose(block_sparse_attention(*given, **how), wanted, atol=tolerance)


def test_work_counts_kept_blocks_only():
    mask = np.eye(4, dtype=bool)[None, None]
    dense = block_sparse_attention_work(np.ones_like(mask), t=64, d=16, block_size=16)
    assert dense.flops == 4 * 64 * 64 * 16
    assert block_sparse_attention_work(mask, t=64, d=16, block_size=16).flops == dense.flops // 4


def test_work_of_a_ragged_end_and_of_queries_after_a_cache_by_hand():
    """Blocks of 16, 16, 16 and 2 tokens, 8 wide; bytes of queries and output, and of keys and values once a block."""
    ragged = block_sparse_attention_work(np.eye(4, dtype=bool)[None, None], t=50, d=8, block_size=16)
    assert ragged.flops == 4 * 8 * (3 * 16 * 16 + 2 * 2)
    assert ragged.bytes_streamed == 4 * 8 * (2 * 50 + 2 * 50)
    # queries 30 to 49 in rows of 2, 16 and 2 see 31 to 50 keys each; the rows read 32, 48 and 50 keys
    keep = np.ones((1, 2, 3, 4), bool)
    late = block_sparse_attention_work(keep, t=50, d=8, block_size=16, causal=True, queries=20)
    assert late.flops == 2 * 4 * 8 * 810
    assert late.bytes_streamed == 2 * 4 * 8 * (2 * 20 + 2 * 130)
    assert late.gathers == 0
    for wrong in (keep.astype(int), keep[0], keep[:, :, :2]):
        with pytest.raises(ValueError, match=r"block_mask must be bool of shape \(b, h, 3, 4\), got"):
            block_sparse_attention_work(wrong, t=50, d=8, block_size=16, causal=True, queries=20)


BAD = [
    (
        {"q": np.zeros((1, 1, 32, 8), int)},
        TypeError,
        "q must be a NumPy array of float64, float32, float16 or bfloat16",
    ),
    ({"k": np.zeros((1, 1, 32, 8))}, TypeError, "k must be a NumPy array of float32, got float64"),
    ({"k": np.zeros((1, 1, 31, 8), np.float32)}, ValueError, r"v \(b, hk, tk, dv\)"),
    (
        {"q": np.zeros((1, 3, 32, 8), np.float32), "k": np.zeros((1, 2, 32, 8), np.float32)},
        ValueError,
        "multiple of hk",
    ),
    ({"q": np.zeros((1, 1, 33, 8), np.float32), "causal": True}, ValueError, "33 queries, 32 keys"),
    ({"attn_mask": np.zeros((32, 31), bool)}, ValueError, r"broadcast to .* \(1, 1, 32, 32\), got \(32, 31\)"),
    ({"attn_mask": np.zeros((2, 1, 32, 32), bool)}, ValueError, "broadcast"),
    ({"attn_mask": np.zeros((32, 32), int)}, TypeError, "attn_mask must be a NumPy array of bool or float32"),
    ({"block_mask": np.zeros((1, 1, 2, 2))}, TypeError, "block_mask must be a NumPy array of bool, got float64"),
    ({"block_mask": np.zeros((1, 1, 3, 2), bool)}, ValueError, r"\(1 or 1, 1 or 1, 2, 2\), got \(1, 1, 3, 2\)"),
    ({"block_mask": np.zeros(1, bool)}, ValueError, r"\(1 or 1, 1 or 1, 2, 2\), got \(1,\)"),
    ({"block_mask": np.zeros((2, 1, 2, 2), bool)}, ValueError, r"got \(2, 1, 2, 2\)"),
    ({"block_mask": np.zeros((1, 2, 2, 2), bool)}, ValueError, r"got \(1, 2, 2, 2\)"),
    ({"q": np.zeros((1, 32, 8), np.float32)}, ValueError, "q must have four dimensions"),
    ({"q": np.zeros((2, 1, 32, 8), np.float32)}, ValueError, "multiple of hk"),
    ({"q": np.zeros((1, 1, 32, 9), np.float32)}, ValueError, "multiple of hk"),
    ({"q": np.zeros((1, 0, 32, 8), np.float32)}, ValueError, "multiple of hk"),
    ({"v": np.zeros((1, 1, 31, 8), np.float32)}, ValueError, "multiple of hk"),
    (dict.fromkeys("qk", np.zeros((1, 1, 32, 0), np.float32)), ValueError, "d must be from 1 to 512, got 0"),
    (dict.fromkeys("qk", np.zeros((1, 1, 32, 513), np.float32)), ValueError, "d must be from 1 to 512, got 513"),
    ({"v": np.zeros((1, 1, 32, 513), np.float32)}, ValueError, "dv must be from 1 to 512, got 513"),
    ({"scale": np.inf}, ValueError, "scale"),
    ({"block_size": 257}, ValueError, "block_size must be an int from 8 to 256, got 257"),
    ({"block_size": 7}, ValueError, "block_size must be an int from 8 to 256, got 7"),
    ({"key_positions": np.zeros((1, 1, 32), int)}, ValueError, "permutation"),
    ({"key_positions": np.arange(32.0).reshape(1, 1, 32)}, ValueError, "must be integers of shape"),
    ({"key_positions": np.arange(32)}, ValueError, r"must be integers of shape \(1, 1, 32\), got int64 \(32,\)"),
    ({"num_threads": 0}, ValueError, "num_threads"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD)
def test_bad_input_is_named(change, error, words):
    x = np.zeros((1, 1, 32, 8), np.float32)
    args = {
        "q": x,
        "k": x,
        "v": x,
        "block_mask": np.ones((1, 1, 2, 2), bool),
        "block_size": 16,
        "key_positions": None,
        "num_threads": None,
    }
    with pytest.raises(error, match=words):
        block_sparse_attention(**(args | change))


@pytest.mark.parametrize(
    ("part", "wrong", "error", "words"),
    [
        ("out", (1, 1, 32, 8), ValueError, r"out must have shape \(1, 1, 32, 5\), got \(1, 1, 32, 8\)"),
        ("lse", (1, 1, 31), ValueError, r"lse must have shape \(1, 1, 32\), got \(1, 1, 31\)"),
        ("grad", (1, 1, 31, 5), ValueError, r"grad must have shape \(1, 1, 32, 5\), got \(1, 1, 31, 5\)"),
        ("grad", np.float64, TypeError, "grad must be a NumPy array of float32, got float64"),
        ("lse", np.float64, TypeError, "lse must be a NumPy array of float32, got float64"),
    ],
)
def test_what_does_not_come_from_the_forward_call_is_refused_by_the_backward_call(part, wrong, error, words):
    x, v, keep = np.zeros((1, 1, 32, 8), np.float32), np.zeros((1, 1, 32, 5), np.float32), np.ones((1, 1, 2, 2), bool)
    out, lse = block_sparse_attention(x, x, v, keep, block_size=16, return_lse=True)
    given = {"out": out, "lse": lse, "grad": out}
    given[part] = np.zeros(wrong, np.float32) if isinstance(wrong, tuple) else given[part].astype(wrong)
    with pytest.raises(error, match=words):
        block_sparse_attention_backward(x, x, v, keep, **given, block_size=16)
