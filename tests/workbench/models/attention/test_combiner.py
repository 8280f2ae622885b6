"""Combiner against a position-by-position reference, hand-computed rows, and exact limits."""

import numpy as np
import pytest
import scipy.sparse
import torch

from kernels.attention.csr_softmax import csr_softmax
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm
from workbench.models.attention.combiner import (
    PATTERNS,
    CombinerSelfAttention,
    combiner_attention,
    effective_attention,
    flops,
    sparse_counterpart_mask,
    support,
    trace,
)
from workbench.models.attention.dense_attention import dense_attention, masked_attention


def qkv(length=40, d=6, seed=0, b=1, h=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, h, length, d, generator=generator, dtype=torch.float64) for _ in range(3)]


def reference(q, k, v, pattern, seg_len, *, causal=True, by_size=False):
    """One position at a time, straight from the definition, for one head (L, d)."""
    q = q / q.shape[1] ** 0.5
    where, out = support(pattern, len(q), seg_len, causal=causal), []
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
            logits.append(q[i] @ key + (np.log(len(region)) if by_size else 0))
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


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p != "logsparse"])
def test_vectorised_equals_definition_looking_both_ways(pattern, assert_close):
    q, k, v = qkv(40)
    out = combiner_attention(q, k, v, pattern=pattern, seg_len=8, causal=False)
    assert_close(out[0, 0], reference(q[0, 0], k[0, 0], v[0, 0], pattern, 8, causal=False))
    a = effective_attention(q, k, pattern=pattern, seg_len=8, causal=False)
    assert (a > 0).all()
    assert_close(a.sum(-1), torch.ones(1, 2, 40, dtype=torch.float64))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_size_of_a_region_counts_only_when_asked(pattern, causal, assert_close):
    if pattern == "logsparse" and not causal:
        return
    q, k, v = qkv(40)
    out = combiner_attention(q, k, v, pattern=pattern, seg_len=8, causal=causal, span_bias="log_size")
    assert_close(out[0, 0], reference(q[0, 0], k[0, 0], v[0, 0], pattern, 8, causal=causal, by_size=True))
    plain = combiner_attention(q, k, v, pattern=pattern, seg_len=8, causal=causal)
    assert not torch.allclose(out, plain)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_single_precision_agrees_with_double(pattern, assert_close):
    q, k, v = qkv(61)
    out = combiner_attention(*(x.float() for x in (q, k, v)), pattern=pattern, seg_len=8)
    assert out.dtype == torch.float32
    assert_close(out, combiner_attention(q, k, v, pattern=pattern, seg_len=8).float())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_of_the_size_of_the_full_matrix_is_made(pattern, largest_tensor):
    q, k, v = (x.float() for x in qkv(4096, d=8, h=1))
    with largest_tensor:
        combiner_attention(q, k, v, pattern=pattern)
    assert largest_tensor.size <= 4096 * 64 * 8


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
    for key_row in ("wsum", "none") if pattern == "axial_rowmajor" else ("wsum",):
        out = combiner_attention(q, k, v, pattern=pattern, seg_len=seg_len, key_row=key_row)
        assert_close(out, dense_attention(q, k, v))


def test_logsparse_is_exact_where_its_regions_are_single_tokens(assert_close):
    q, k, v = qkv()
    out = combiner_attention(q, k, v, pattern="logsparse")
    assert_close(out[:, :, :2], dense_attention(q, k, v)[:, :, :2])
    weights = effective_attention(q, k, pattern="logsparse")
    for i in range(3, 40, 2):  # an odd position has its left neighbour as a region of one
        ratio = weights[0, 0, i, i - 1] / weights[0, 0, i, i]
        assert_close(ratio, torch.exp((q[0, 0, i] * (k[0, 0, i - 1] - k[0, 0, i])).sum() / 6**0.5))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9, 17, 33])
def test_logsparse_misses_no_block_one_past_a_power_of_two(length, assert_close):
    zero = torch.zeros(1, 1, length, 2, dtype=torch.float64)
    last = effective_attention(zero, zero, pattern="logsparse")[0, 0, -1]
    assert (last > 0).all()
    assert_close(last.sum(), torch.tensor(1.0, dtype=torch.float64))


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


@pytest.mark.parametrize("summary", ["mean", "sum"])
@pytest.mark.parametrize("pattern", ["fixed", "logsparse", "axial_mixture"])
def test_other_summaries_keep_full_support(pattern, summary, assert_close):
    q, k, _ = qkv()
    a = effective_attention(q, k, pattern=pattern, seg_len=8, summary=summary)
    lower = torch.ones(40, 40, dtype=torch.bool).tril()
    assert (a[:, :, lower] > 0).all() and (a[:, :, ~lower] == 0).all()
    assert not torch.allclose(a, effective_attention(q, k, pattern=pattern, seg_len=8))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_dropout_touches_regions_only(pattern):
    q, k, v = qkv()
    first = v.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = combiner_attention(q, k, v, pattern=pattern, seg_len=8, dropout=0.5)
    plain = combiner_attention(q, k, first, pattern=pattern, seg_len=8)
    assert not torch.allclose(out, plain)
    torch.testing.assert_close(out[:, :, 0], plain[:, :, 0])  # sees no region


def test_layer_drops_in_training_only():
    torch.manual_seed(0)
    layer = CombinerSelfAttention(16, 4, seg_len=5, pattern="axial_rowmajor", key_row="proj", dropout=0.5)
    x = torch.randn(1, 20, 16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


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


@pytest.mark.parametrize("pattern", ["fixed", "logsparse", "axial_mixture"])
def test_counterpart_runs_through_the_sparse_kernels(pattern, assert_close):
    q, k, v = (x[0, 0].float().numpy() for x in qkv(40, d=16, h=1))
    mask = sparse_counterpart_mask(pattern, 40, 8)
    scores = sddmm(scipy.sparse.csr_array(mask.astype(np.float32)), q / np.float32(4), k)
    out = spmm(csr_softmax(scores), v)
    assert_close(out, masked_attention(*(torch.from_numpy(x)[None, None] for x in (q, k, v)), mask)[0, 0].numpy())


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
        ({"pattern": "axial_mixture", "summary": torch.nn.Identity()}, "prefixes"),
        ({"span_bias": "size"}, "span_bias"),
    ],
)
def test_bad_input_is_named(how, words):
    with pytest.raises(ValueError, match=words):
        combiner_attention(*qkv(), **how)
