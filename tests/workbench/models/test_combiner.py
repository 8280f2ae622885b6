"""Combiner against a position-by-position reference, hand-computed rows, and exact limits."""

import numpy as np
import pytest
import torch

from workbench.models.combiner import (
    PATTERNS,
    CombinerSelfAttention,
    combiner_attention,
    effective_attention,
    flops,
    sparse_counterpart_mask,
    support,
    trace,
)
from workbench.models.dense_attention import dense_attention


def qkv(length=40, d=6, seed=0, b=1, h=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, h, length, d, generator=generator, dtype=torch.float64) for _ in range(3)]


def reference(q, k, v, pattern, seg_len):
    """One position at a time, straight from the definition, for one head (L, d)."""
    q = q / q.shape[1] ** 0.5
    where, out = support(pattern, len(q), seg_len), []
    for i in range(len(q)):
        direct = torch.as_tensor(np.flatnonzero(where["direct"][i]))
        logits, values = [q[i] @ k[j] for j in direct], [v[j] for j in direct]
        for region in map(torch.as_tensor, where["regions"][i]):
            if pattern == "axial_rowmajor":  # the summary query is the token of the same column
                pooled = q[region[0] + i % seg_len]
            else:
                pooled = q[region].amax(0)
            p = torch.softmax(k[region] @ pooled, 0)
            key = p @ k[region] if pattern == "axial_rowmajor" else k[region].amax(0)
            logits.append(q[i] @ key)
            values.append(p @ v[region])
        out.append(torch.softmax(torch.stack(logits), 0) @ torch.stack(values))
    return torch.stack(out)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("length", "seg_len"), [(40, 8), (37, 8), (1, 4), (33, 5)])
def test_vectorised_equals_definition(pattern, length, seg_len, assert_close):
    q, k, v = qkv(length)
    out = combiner_attention(q, k, v, pattern=pattern, seg_len=seg_len)
    for head in range(2):
        assert_close(out[0, head], reference(q[0, head], k[0, head], v[0, head], pattern, seg_len))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_earlier_pair_has_weight_and_no_later_one(pattern, assert_close):
    q, k, v = qkv()
    a = effective_attention(q, k, pattern=pattern, seg_len=8)
    assert_close(a.sum(-1), torch.ones(1, 2, 40, dtype=torch.float64))
    lower = torch.ones(40, 40, dtype=torch.bool).tril()
    assert (a[:, :, lower] > 0).all() and (a[:, :, ~lower] == 0).all()
    assert_close(a @ v, combiner_attention(q, k, v, pattern=pattern, seg_len=8))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_changing_the_future_changes_nothing_before(pattern):
    q, k, v = qkv()
    before = combiner_attention(q, k, v, pattern=pattern, seg_len=8)
    for x in (q, k, v):
        x[:, :, 21:] += 3
    after = combiner_attention(q, k, v, pattern=pattern, seg_len=8)
    torch.testing.assert_close(before[:, :, :21], after[:, :, :21], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("pattern", "seg_len"), [("fixed", 1), ("fixed", 40), ("axial_rowmajor", 1), ("axial_rowmajor", 40)]
)
def test_limits_are_exact_attention(pattern, seg_len, assert_close):
    q, k, v = qkv()
    assert_close(combiner_attention(q, k, v, pattern=pattern, seg_len=seg_len), dense_attention(q, k, v))


def test_bidirectional_fixed_covers_everything(assert_close):
    q, k, v = qkv()
    a = effective_attention(q, k, pattern="fixed", seg_len=8, causal=False)
    assert (a > 0).all()
    assert_close(a.sum(-1), torch.ones(1, 2, 40, dtype=torch.float64))
    exact = combiner_attention(q, k, v, pattern="fixed", seg_len=40, causal=False)
    assert_close(exact, dense_attention(q, k, v, causal=False))


ROWS = [
    ("fixed", 9, [1 / 16] * 8 + [1 / 4] * 2 + [0] * 6),
    ("fixed", 15, [1 / 28] * 12 + [1 / 7] * 4),
    ("logsparse", 11, [1 / 32] * 8 + [1 / 8] * 2 + [1 / 4] * 2 + [0] * 4),
    ("axial_rowmajor", 13, [0.05] * 12 + [0.2] * 2 + [0] * 2),
    ("axial_mixture", 13, [0.0952381, 0.0714286, 0.0595238, 0.0595238] * 3 + [0.0714286, 0.0714286, 0, 0]),
]


@pytest.mark.parametrize(("pattern", "row", "wanted"), ROWS)
def test_rows_with_equal_logits(pattern, row, wanted):
    zero = torch.zeros(1, 1, 16, 3, dtype=torch.float64)
    a = effective_attention(zero, zero, pattern=pattern, seg_len=4)
    np.testing.assert_allclose(a[0, 0, row], wanted, atol=5e-8)


def test_binary_digits_tile_the_past():
    for i, regions in enumerate(support("logsparse", 200)["regions"]):
        assert sorted(np.concatenate([*regions, [i]])) == list(range(i + 1))


def test_order_inside_an_earlier_segment_is_free(assert_close):
    q, k, v = qkv()
    before = combiner_attention(q, k, v, pattern="fixed", seg_len=8)
    order = torch.cat([torch.randperm(8, generator=torch.Generator().manual_seed(1)), torch.arange(8, 40)])
    after = combiner_attention(q[:, :, order], k[:, :, order], v[:, :, order], pattern="fixed", seg_len=8)
    assert_close(after[:, :, 8:], before[:, :, 8:])


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients(pattern):
    leaves = [x.requires_grad_() for x in qkv(length=9, d=2, h=1)]
    assert torch.autograd.gradcheck(lambda *x: combiner_attention(*x, pattern=pattern, seg_len=3), leaves)


@pytest.mark.parametrize("how", [{"summary": "deepsets"}, {"pattern": "axial_rowmajor", "key_row": "proj"}])
def test_layer_learns_and_stays_causal(how):
    torch.manual_seed(0)
    layer = CombinerSelfAttention(16, 4, seg_len=5, **how)
    x = torch.randn(2, 23, 16)
    y = layer(x)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    x[:, 12:] += 1
    torch.testing.assert_close(layer(x)[:, :12], y[:, :12])


def test_counterparts_and_cost():
    assert sparse_counterpart_mask("fixed", 16, 4)[9].nonzero()[0].tolist() == [3, 7, 8, 9]
    assert sparse_counterpart_mask("logsparse", 16)[11].nonzero()[0].tolist() == [3, 7, 9, 10, 11]
    assert sparse_counterpart_mask("axial_mixture", 16, 4)[9].nonzero()[0].tolist() == [1, 5, 8, 9]
    growth = np.log2(flops("fixed", 16384, 32) / flops("fixed", 4096, 32)) / 2
    assert 1.4 < growth < 1.6
    assert np.log2(flops("logsparse", 16384, 32) / flops("logsparse", 4096, 32)) / 2 < 1.2


def test_trace_agrees_with_the_method(assert_close):
    q, k, _ = qkv(h=1)
    seen = trace(q, k, pattern="axial_mixture", seg_len=8)
    assert_close(seen.effective, effective_attention(q, k, pattern="axial_mixture", seg_len=8)[0, 0])
    assert 0 < seen.coverage < 1 and 0 < seen.density < 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"pattern": "spiral"}, "pattern must be one of"),
        ({"seg_len": 0}, "seg_len"),
        ({"pattern": "logsparse", "causal": False}, "causal attention"),
        ({"seg_len": 7, "causal": False}, "multiple of seg_len"),
        ({"summary": "median"}, "summary"),
        ({"pattern": "axial_rowmajor", "key_row": "median"}, "key_row"),
    ],
)
def test_bad_input_is_named(how, words):
    with pytest.raises(ValueError, match=words):
        combiner_attention(*qkv(), **how)
