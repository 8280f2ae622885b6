"""Combiner against a position-by-position reference, hand-computed rows, and exact limits."""

import numpy as np
import pytest
import scipy.sparse
import torch

from kernels.attention.csr_softmax import csr_softmax
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.combiner import (
    PATTERNS,
    combiner_attention,
    effective_attention,
    multiply_adds,
    sparse_counterpart_mask,
    support,
    trace,
)
from workbench.models.attention.combiner_layer import CombinerSelfAttention, DeepSetsSummary
from workbench.models.attention.dense_attention import dense_attention, masked_attention

pytestmark = pytest.mark.usefixtures("one_thread")


def qkv(length=40, d=6, seed=0, b=1, h=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, h, length, d, generator=generator, dtype=torch.float64) for _ in range(3)]


def laid_out(pattern, i, length, width, *, causal=True):
    """Direct keys and regions of position i, written down as the paper lays them out."""
    if pattern == "logsparse":  # each binary digit of i, from the lowest, is a block that ends where the last began
        regions, end = [], i
        while end:
            start = end - (end & -end)
            regions.append(range(start, end))
            end = start
        return [i], regions
    visible = range(i + 1) if causal else range(length)
    row, column, rows = i // width, i % width, range(-(-length // width))
    others = [t for t in rows if (t < row if causal else t != row)]
    if pattern in ("fixed", "axial_rowmajor"):
        return [j for j in visible if j // width == row], [range(t * width, (t + 1) * width) for t in others]
    direct = [j for j in visible if j // width == row or j % width == column]
    regions = []
    if pattern != "axial_horizontal":
        sides = [[t for t in others if t < row], [t for t in others if t > row]]
        regions += [[t * width + u for t in side] for side in sides for u in range(width) if u != column]
    if pattern != "axial_vertical":
        for t in others:
            regions += [[t * width + u for u in range(column)], [t * width + u for u in range(column + 1, width)]]
    return direct, [region for region in regions if len(region)]


POOLED = {"max": lambda x: x.amax(0), "mean": lambda x: x.mean(0), "sum": lambda x: x.sum(0)}


def reference(q, k, v, pattern, seg_len, *, causal=True, by_size=False, summary="max", key_row="wsum", inside=1.0):
    """One position at a time, straight from the definition, for one head (L, d); ``inside`` scales region values."""
    pool, out = POOLED[summary], []
    q = q / q.shape[1] ** 0.5
    for i in range(len(q)):
        direct, regions = laid_out(pattern, i, len(q), seg_len, causal=causal)
        logits, values = [q[i] @ k[j] for j in direct], [v[j] for j in direct]
        for region in map(list, regions):
            same_column = region[0] + i % seg_len if seg_len else None
            p = torch.softmax(k[region] @ (q[same_column] if pattern == "axial_rowmajor" else pool(q[region])), 0)
            key = pool(k[region])
            if pattern == "axial_rowmajor":  # the summary query is the token of the same column
                key = k[same_column] if key_row == "none" else p @ k[region]
            logits.append(q[i] @ key + (np.log(len(region)) if by_size else 0))
            values.append(inside * (p @ v[region]))
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


@pytest.mark.parametrize("summary", ["mean", "sum"])
@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p != "axial_rowmajor"])
def test_other_summaries_equal_their_definition(pattern, summary, assert_close):
    q, k, v = qkv(37)
    out = combiner_attention(q, k, v, pattern=pattern, seg_len=8, summary=summary)
    for head in range(2):
        assert_close(out[0, head], reference(q[0, head], k[0, head], v[0, head], pattern, 8, summary=summary))


def test_a_rows_key_may_be_that_of_the_same_column(assert_close):
    q, k, v = qkv(37)
    out = combiner_attention(q, k, v, pattern="axial_rowmajor", seg_len=8, key_row="none")
    assert_close(out[0, 0], reference(q[0, 0], k[0, 0], v[0, 0], "axial_rowmajor", 8, key_row="none"))


def test_segments_are_as_long_as_the_square_root_unless_given(assert_close):
    q, k, v = qkv(10)  # the root is 3.16: segments of 4
    assert_close(combiner_attention(q, k, v)[0, 0], reference(q[0, 0], k[0, 0], v[0, 0], "fixed", 4))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_single_precision_agrees_with_double(pattern, assert_close):
    q, k, v = qkv(61)
    out = combiner_attention(*(x.float() for x in (q, k, v)), pattern=pattern, seg_len=8)
    assert out.dtype == torch.float32
    assert_close(out, combiner_attention(q, k, v, pattern=pattern, seg_len=8).float())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_of_the_size_of_the_full_matrix_is_made(pattern):
    q, k, v = (x.float() for x in qkv(4096, d=8, h=1))
    assert largest_tensor_bytes(lambda: combiner_attention(q, k, v, pattern=pattern)) <= 4096 * 64 * 8 * 4


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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_support_is_laid_out_as_in_the_paper(pattern, causal):
    for length, width in ((40, 8), (37, 5), (1, 4), (0, 3)):
        where = support(pattern, length, width, causal=causal or pattern == "logsparse")
        for i in range(length):
            direct, regions = laid_out(pattern, i, length, width, causal=causal or pattern == "logsparse")
            assert np.flatnonzero(where["direct"][i]).tolist() == direct
            found = sorted(region.tolist() for region in where["regions"][i])
            inside = ([j for j in region if j < length] for region in regions)  # the last row may be short
            assert found == sorted(region for region in inside if region)


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


@pytest.mark.parametrize("pattern", PATTERNS)
def test_dropout_touches_regions_only(pattern, assert_close):
    """All weights inside regions dropped: direct values keep the weight that the joint softmax gave them."""
    q, k, v = qkv()
    how = {"pattern": pattern, "seg_len": 8, "key_row": "none"}
    out = combiner_attention(q, k, v, dropout=1.0, **how)
    assert_close(out[0, 0], reference(q[0, 0], k[0, 0], v[0, 0], pattern, 8, key_row="none", inside=0.0))
    plain = combiner_attention(q, k, v, **how)
    assert not torch.allclose(combiner_attention(q, k, v, dropout=0.5, **how), plain)


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


def attended(q, k, v, row_keys=None, width=3):
    """Heads (L, d) of Combiner-Fixed with segments of ``width``, or of the row-major pattern with the keys given."""
    if row_keys is None:
        return [reference(*head, "fixed", width) for head in zip(q, k, v, strict=True)]
    outs = []
    for q_h, k_h, v_h, keys in zip(q, k, v, row_keys, strict=True):
        q_h, rows = q_h / q_h.shape[1] ** 0.5, []
        for i in range(len(q_h)):
            first, column = i - i % width, i % width
            near = list(range(first, i + 1))
            logits, values = [q_h[i] @ k_h[j] for j in near], [v_h[j] for j in near]
            for start in range(0, first, width):
                row = slice(start, start + width)
                logits.append(q_h[i] @ keys[start + column])
                values.append(torch.softmax(k_h[row] @ q_h[start + column], 0) @ v_h[row])
            rows.append(torch.softmax(torch.stack(logits), 0) @ torch.stack(values))
        outs.append(torch.stack(rows))
    return outs


@pytest.mark.parametrize(("key_row", "released"), [("wsum", False), ("proj", False), ("proj", True)])
def test_layer_splits_heads_and_projects_as_attention_does(key_row, released, assert_close):
    """Two heads of 3 channels; a row's projected key is a linear map of the norm of input plus projected row output.

    The released JAX code has no biases after the attention, and 1e-6 beside the variance.
    """
    torch.manual_seed(0)
    pattern = "fixed" if key_row == "wsum" else "axial_rowmajor"
    layer, x = CombinerSelfAttention(6, 2, seg_len=3, pattern=pattern, key_row=key_row).double(), torch.randn(1, 8, 6)
    x, eps = x.double(), 1e-6 if released else 1e-5
    if released:
        layer.row_norm.eps = eps
        for after in (layer.out, layer.row_out, layer.row_key):
            torch.nn.init.zeros_(after.bias)
    heads = [(0, 3), (3, 6)]
    q, k, v = ([x[0] @ layer.qkv.weight[at + a : at + b].T for a, b in heads] for at in (0, 6, 12))
    row_keys = None
    if key_row == "proj":
        keys = []
        for i in range(6):  # the two rows that are complete
            row = slice(i - i % 3, i - i % 3 + 3)
            read = torch.cat([torch.softmax(k[h][row] @ q[h][i] / 3**0.5, 0) @ v[h][row] for h in range(2)])
            seen = x[0, i] + layer.row_out.weight @ read + layer.row_out.bias
            seen = (seen - seen.mean()) / (seen.var(unbiased=False) + eps).sqrt()
            keys.append(layer.row_key.weight @ seen + layer.row_key.bias)
        row_keys = [torch.stack(keys)[:, a:b] for a, b in heads]
    out = torch.cat(attended(q, k, v, row_keys), 1) @ layer.out.weight.T + layer.out.bias
    assert_close(layer(x)[0], out)


@pytest.mark.parametrize("how", [
    {"pattern": "axial_rowmajor", "key_row": "proj", "dropout": 0.5}, {"pattern": "axial_rowmajor", "key_row": "none"},
    {"pattern": "axial_mixture"}, {"summary": "deepsets"},
])  # fmt: skip
def test_a_layer_s_matrix_times_its_values_is_its_output(how, assert_close):
    """Also where a row's key is projected from the row's values, which the matrix then depends on."""
    torch.manual_seed(0)
    layer, x = CombinerSelfAttention(6, 2, seg_len=3, **how).double(), torch.randn(2, 8, 6, dtype=torch.float64)
    a = layer.attention_matrix(x)
    assert (a >= 0).all() and not a.triu(1).any()
    assert_close(a.sum(-1), torch.ones(2, 2, 8, dtype=torch.float64))
    v = (x @ layer.qkv.weight[12:].T).unflatten(-1, (2, 3)).transpose(1, 2)
    assert_close(layer.eval()(x), layer.out((a @ v).transpose(1, 2).flatten(2)))


def test_a_matrix_that_depends_on_values_asks_for_them():
    q, k, _ = qkv(12)
    with pytest.raises(ValueError, match="reads a row's values; give v"):
        effective_attention(q, k, pattern="axial_rowmajor", seg_len=4, key_row=lambda rows: rows)


def test_layer_hands_on_what_it_was_given(assert_close):
    torch.manual_seed(0)
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    for how in ({"causal": False}, {"span_bias": "log_size"}, {"summary": "mean"}, {"pattern": "axial_vertical"}):
        layer = CombinerSelfAttention(8, 1, seg_len=4, **how).double()
        q, k, v = (x[0] @ w.T for w in layer.qkv.weight.split(8))
        wanted = reference(q, k, v, how.get("pattern", "fixed"), 4, causal=how.get("causal", True),
                           by_size="span_bias" in how, summary=how.get("summary", "max"))  # fmt: skip
        assert_close(layer(x)[0], wanted @ layer.out.weight.T + layer.out.bias)


def test_learned_summary_is_a_map_of_the_maximum_of_maps(assert_close):
    torch.manual_seed(0)
    net, x = DeepSetsSummary(3), torch.randn(2, 5, 3)
    first, second = net.phi[0], net.rho
    for region in range(2):
        largest = torch.full((3,), -torch.inf)
        for token in x[region]:
            largest = torch.maximum(largest, torch.clamp(first.weight @ token + first.bias, min=0))
        assert_close(net(x)[region], second.weight @ largest + second.bias)


def test_counterparts():
    assert sparse_counterpart_mask("fixed", 16, 4)[9].nonzero()[0].tolist() == [3, 7, 8, 9]
    assert sparse_counterpart_mask("logsparse", 16)[11].nonzero()[0].tolist() == [3, 7, 9, 10, 11]
    for pattern in ("axial_mixture", "axial_vertical", "axial_horizontal"):
        assert sparse_counterpart_mask(pattern, 16, 4)[10].nonzero()[0].tolist() == [2, 6, 8, 9, 10]
    assert sparse_counterpart_mask("axial_rowmajor", 16, 4)[10].nonzero()[0].tolist() == [8, 9, 10]


def test_cost_by_hand():
    """Length 12, width 3, so 4 rows; d = 2: 4 multiply-adds per slot of a softmax, 6 per key that enters a summary."""
    keys = {"fixed": 12, "logsparse": 4 * 12, "axial_rowmajor": 3 * 12, "axial_vertical": 4 * 12,
            "axial_horizontal": 2 * 3 * 12, "axial_mixture": (4 + 2 * 3) * 12}  # fmt: skip
    fixed = 3 * (1 + 2 + 3 + 4) + 4 * (0 + 1 + 2)  # rows 0 to 3 with as many summaries before, and the own row so far
    assert multiply_adds("fixed", 12, 2, 3) == fixed * 4 + keys["fixed"] * 6
    for pattern in PATTERNS:
        for length in (1, 2, 7, 12, 13, 64, 65):
            for width in (1, 3, 5, 100):
                where = support(pattern, length, width)
                slots = where["direct"].sum() + sum(map(len, where["regions"]))
                summing = multiply_adds(pattern, length, 2, width) - slots * 4
                assert summing >= 0 and (length != 12 or width != 3 or summing == keys[pattern] * 6), pattern
                seen = trace(*(torch.zeros(1, 1, length, 2) for _ in range(2)), pattern=pattern, seg_len=width)
                assert seen.cost.kept.multiply_adds == slots * 4 and seen.cost.before == summing
                for i, regions in enumerate(where["regions"]):  # every earlier key, by a summary or itself
                    met = {*np.flatnonzero(where["direct"][i]).tolist()}.union(*(r.tolist() for r in regions))
                    assert met == set(np.flatnonzero(seen.reached[i]).tolist()) == set(range(i + 1))
    growth = np.log2(multiply_adds("fixed", 16384, 32) / multiply_adds("fixed", 4096, 32)) / 2
    assert 1.4 < growth < 1.6
    assert np.log2(multiply_adds("logsparse", 16384, 32) / multiply_adds("logsparse", 4096, 32)) / 2 < 1.2


def test_one_token_per_segment_costs_what_dense_attention_does():
    seen = trace(*(torch.zeros(1, 1, 65, 4) for _ in range(2)), pattern="fixed", seg_len=1)
    assert seen.cost.kept.multiply_adds == seen.cost.dense.multiply_adds and seen.cost.kept.pairs == 65


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


def test_trace_by_hand():
    """Equal logits, four tokens, segments of two: rows 2 and 3 see one region and miss half of two thirds, a half."""
    zero = torch.zeros(1, 1, 4, 3)
    seen = trace(zero, zero, seg_len=2)
    assert (
        seen.density == pytest.approx(6 / 10)
        and seen.cost.summaries == 2
        and seen.coverage == pytest.approx((1 + 1 + 1 / 3 + 1 / 2) / 4)
    )
    np.testing.assert_allclose(seen.effective[3], [1 / 6, 1 / 6, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(seen.attention[3], [1 / 4] * 4, rtol=1e-6)
    assert seen.facts["segment length"] == 2 and seen.facts["regions of the last position"] == 1
    assert seen.facts["mean L1 distance of a row to true attention"] == pytest.approx((1 / 3 + 1 / 3) / 4)
    both = trace(zero, zero, seg_len=2, causal=False)
    assert (
        both.density == pytest.approx(4 * 2 / 16) and both.cost.summaries == 4 and both.coverage == pytest.approx(1 / 2)
    )


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


@pytest.mark.parametrize("part", ["q", "k", "v"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_stands_later_reaches_no_earlier_row(pattern, value, part, assert_close):
    """Causal: rows before the odd token are what they are without it; those that see its value are not."""
    given = dict(zip("qkv", qkv(), strict=True))
    wanted = combiner_attention(*given.values(), pattern=pattern, seg_len=7)
    for at in (0, 3, 17, 20, 39):
        odd = given | {part: given[part].clone()}
        odd[part][0, 0, at, 2] = value
        found = combiner_attention(*odd.values(), pattern=pattern, seg_len=7)
        assert_close(found[0, 0, :at], wanted[0, 0, :at])
        assert_close(found[0, 1], wanted[0, 1])
        if part == "v":
            assert not found[0, 0, at:, 2].isfinite().any()
