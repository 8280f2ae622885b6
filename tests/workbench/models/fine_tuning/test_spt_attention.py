"""Sparse attention against dense attention with a mask, its gradients, the bytes it keeps, and which keys it takes."""

import copy
import math

import numpy as np
import pytest
import torch

from kernels.masks.pq_topk import fixed_degree_csr, pq_topk_reference
from workbench.models.fine_tuning.memory import saved_bytes
from workbench.models.fine_tuning.product_quantizer import ProductQuantizer
from workbench.models.fine_tuning.spt import memory_model
from workbench.models.fine_tuning.spt_attention import (
    CHOICES,
    PQAttention,
    SparseMHA,
    head_quantizer,
    sparse_attention,
)


def draw(*shape, dtype=torch.float64, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_pattern(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, columns)) < 0.4
    mask[0], mask[1] = True, False  # a full row and an empty one
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return torch.from_numpy(mask), indptr, np.nonzero(mask)[1].astype(np.int32)


def dense(q, k, v, mask, clamp=10.0):
    """Attend densely, with minus infinity outside the mask."""
    scores = (q @ k.mT * q.shape[-1] ** -0.5).clamp(-clamp, clamp)
    return torch.nan_to_num(torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)) @ v


def mask_of(indptr, columns, b, h, tq, tk):
    """Return the pairs of a block-diagonal pattern as a mask (b, h, tq, tk)."""
    mask = torch.zeros(b * h * tq, tk, dtype=torch.bool)
    rows = np.repeat(np.arange(b * h * tq), np.diff(indptr))
    assert (columns // tk == rows // tq).all()
    mask[rows, columns % tk] = True
    return mask.view(b, h, tq, tk)


# The function ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [1.0, 6.0])  # the second takes many scores beyond the clip
def test_any_pattern_equals_dense_attention_with_a_mask(scale, assert_close):
    mask, indptr, indices = random_pattern(9, 11)
    given = [draw(9, 5, scale=scale), draw(11, 5, seed=1, scale=scale), draw(11, 4, seed=2)]
    out, found = [], []
    g = draw(9, 4, seed=3)
    for attend in (lambda q, k, v: sparse_attention(q, k, v, indptr, indices), lambda q, k, v: dense(q, k, v, mask)):
        q, k, v = (x.clone().requires_grad_() for x in given)
        y = attend(q, k, v)
        out.append(y.detach())
        found.append(torch.autograd.grad(y, (q, k, v), g))
    assert_close(out[0], out[1])
    assert (out[0][1] == 0).all()
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def test_gradients_equal_differences():
    _, indptr, indices = random_pattern(5, 6)
    given = [x.requires_grad_() for x in (draw(5, 3), draw(6, 3, seed=1), draw(6, 2, seed=2))]
    assert torch.autograd.gradcheck(lambda *x: sparse_attention(*x, indptr, indices), given)
    for i in range(3):  # each alone
        alone = [x.detach().requires_grad_(j == i) for j, x in enumerate(given)]
        assert torch.autograd.gradcheck(lambda *x: sparse_attention(*x, indptr, indices, scale=0.7), alone)


def test_scores_beyond_the_clip_get_no_gradient():
    q, k, v = torch.full((1, 1), 5.0), torch.tensor([[4.0], [1.0]]), torch.tensor([[1.0], [2.0]])  # scores 20 and 5
    q, k = q.requires_grad_(), k.requires_grad_()
    out = sparse_attention(q, k, v, [0, 2], [0, 1], scale=1.0)
    weight = 1 / (1 + math.exp(-5))  # of the clipped score, 10, against 5
    assert float(out.detach()) == pytest.approx(weight + 2 * (1 - weight))
    out.sum().backward()
    slope = weight * (1 - weight)
    assert k.grad.flatten().tolist() == pytest.approx([0, 5 * slope]) and float(q.grad) == pytest.approx(slope)


def test_one_value_and_one_index_are_kept_for_each_pair():
    n, d, L = 64, 16, 8
    torch.manual_seed(0)
    attention = PQAttention(head_quantizer(d, 2)).requires_grad_(False)
    q, k, v = (torch.randn(3, 2, n, d).requires_grad_() for _ in range(3))
    counted = memory_model(n, d, 2, L, batch=3)
    kept = saved_bytes(lambda: attention(q, k, v), [q, k, v])
    assert kept == counted["entries"] * (4 + 4) + counted["row_starts"]
    bidirectional = PQAttention(head_quantizer(d, 2), causal=False).requires_grad_(False)
    kept = saved_bytes(lambda: bidirectional(q, k, v), [q, k, v])
    assert kept == counted["sparse_values"] + counted["sparse_indices"] + counted["row_starts"]
    assert counted["sparse_values"] * n == counted["dense_weights"] * L


def test_what_the_function_does_not_take_is_refused():
    q = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"indices\[1\] is 2"):
        sparse_attention(q, q, q, [0, 1, 2], [0, 2])
    with pytest.raises(ValueError, match="indptr decreases"):
        sparse_attention(q, q, q, [0, 2, 1], [0, 1])
    with pytest.raises(TypeError, match="sddmm"):
        sparse_attention(q, q.double(), q, [0, 1, 2], [0, 1])
    for clamp in (0, 41):
        with pytest.raises(ValueError, match="clamp must be above 0 and at most 40"):
            sparse_attention(q, q, q, [0, 1, 2], [0, 1], clamp=clamp)


# The layer ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("select", CHOICES)
def test_all_keys_give_dense_attention(select, causal, assert_close):
    attention = PQAttention(head_quantizer(16, 2, dtype=torch.float64), 1, causal, select=select)
    given, out, found = [draw(2, 2, 12, 16, seed=i) for i in range(3)], [], []
    order = torch.ones(12, 12, dtype=torch.bool)
    order = order.tril() if causal else order
    for attend in (attention, lambda q, k, v: dense(q, k, v, order)):
        q, k, v = (x.clone().requires_grad_() for x in given)
        y = attend(q, k, v)
        out.append(y.detach())
        found.append(torch.autograd.grad(y.square().sum(), (q, k, v)))
    assert_close(out[0], out[1])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("buckets", ["exact", 4])
def test_keys_are_those_of_the_most_shared_codewords(buckets, causal, per_head):
    torch.manual_seed(0)
    quantizer = head_quantizer(32, 3, 4, 8, per_head)
    attention = PQAttention(quantizer, 4, causal, buckets=buckets)
    q, k = torch.randn(2, 3, 24, 32), torch.randn(2, 3, 24, 32)
    mask = mask_of(*attention.pattern(q, k), 2, 3, 24, 24)
    for z in range(2):
        for h in range(3):
            book = quantizer.codebook[4 * h : 4 * h + 4] if per_head else quantizer.codebook
            codes = [
                (x[z, h].view(24, 4, 1, 8) - book).abs().sum(-1).argmin(-1).to(torch.uint8)[None].numpy()
                for x in (q, k)
            ]
            indices, valid = pq_topk_reference(*codes, 6, causal, buckets)
            for i in range(24):
                assert sorted(indices[0, i, : valid[0, i]]) == mask[z, h, i].nonzero()[:, 0].tolist()


def test_each_way_to_select_takes_its_keys():
    torch.manual_seed(0)
    quantizer, q, k = head_quantizer(16, 1), torch.randn(1, 1, 16, 16), torch.randn(1, 1, 16, 16)

    def chosen(select, **how):
        return mask_of(*PQAttention(quantizer, 4, select=select, **how).pattern(q, k), 1, 1, 16, 16)[0, 0]

    order = torch.ones(16, 16, dtype=torch.bool).tril()
    for scores, select in (
        (q @ k.mT, "exact"), (quantizer.quantize(q) @ quantizer.quantize(k).mT, "reconstruction"),
    ):  # fmt: skip
        least = scores[0, 0].masked_fill(~order, -torch.inf).sort(-1, descending=True).values[:, 3]
        least = torch.where(torch.arange(16) < 3, -torch.inf, least)
        mask = chosen(select)
        assert (mask.sum(1) == torch.arange(1, 17).clamp(max=4)).all() and (mask <= order).all()
        assert (scores[0, 0][mask] >= least.repeat_interleave(mask.sum(1))).all()
    assert torch.equal(chosen("window"), order & ~order.tril(-4))
    one, same, other = chosen("random", seed=1), chosen("random", seed=1), chosen("random", seed=2)
    assert torch.equal(one, same) and not torch.equal(one, other) and (one <= order).all()


def test_the_first_query_sees_the_first_key_once():
    torch.manual_seed(0)
    attention = PQAttention(head_quantizer(16, 1), 4)
    q, k, v = torch.randn(3, 1, 1, 16, 16).unbind(0)
    out = attention(q, k, v)
    torch.testing.assert_close(out[0, 0, 0], v[0, 0, 0])
    # The released kernel leaves unused slots 0, which the rule j <= i takes for key 0.
    indptr, columns = attention.pattern(q, k)
    slots = np.zeros((1, 16, 4), np.int32)
    for i in range(16):
        slots[0, i, : indptr[i + 1] - indptr[i]] = columns[indptr[i] : indptr[i + 1]]
    released = sparse_attention(q[0, 0], k[0, 0], v[0, 0], *fixed_degree_csr(slots, np.full((1, 16), 4, np.int32)))
    differs = (released - out[0, 0]).abs().amax(1) > 1e-4
    assert differs[1:3].all() and not differs[0] and not differs[3:].any()


def test_hidden_keys_are_neither_chosen_nor_read(assert_close):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 16, 16).unbind(0)
    real = torch.ones(2, 1, 1, 16, dtype=torch.bool)
    real[1, ..., :5] = False  # padding at the left end
    for select in ("matching", "exact"):
        attention = PQAttention(head_quantizer(16, 2), 4, causal=False, select=select)
        out = attention(q, k, v, attn_mask=real)
        mask = mask_of(*attention.pattern(q, k, attn_mask=real), 2, 2, 16, 16)
        assert not mask[1, :, :, :5].any() and (mask.sum(-1) == 4).all()
        assert_close(out, dense(q, k, v, mask))
    causal = PQAttention(head_quantizer(16, 2), 4)
    mask = mask_of(*causal.pattern(q, k, attn_mask=real), 2, 2, 16, 16)
    assert not mask[1, :, :5].any() and (causal(q, k, v, attn_mask=real)[1, :, :5] == 0).all()
    pairs = torch.rand(2, 2, 16, 16) < 0.5  # of each query its own
    assert not (mask_of(*causal.pattern(q, k, attn_mask=pairs), 2, 2, 16, 16) & ~pairs).any()


def test_fewer_queries_than_keys_grouped_heads_and_half_precision(assert_close):
    torch.manual_seed(0)
    quantizer = head_quantizer(16, 4)
    q, k, v = torch.randn(1, 4, 16, 16), torch.randn(1, 2, 16, 16), torch.randn(1, 2, 16, 16)
    attention = PQAttention(quantizer, 4)
    whole = attention(q, k, v)
    assert_close(attention(q[:, :, -3:], k, v), whole[:, :, -3:])
    repeated = [x.repeat_interleave(2, 1) for x in (k, v)]
    assert_close(attention(q, *repeated), whole)
    half = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    wanted = attention(*(x.bfloat16().float() for x in (q, k, v)))
    assert half.dtype == torch.bfloat16 and torch.equal(half, wanted.bfloat16())
    assert attention(q[:0], k[:0], v[:0]).shape == (0, 4, 16, 16)
    assert [x.tolist() for x in attention.pattern(q[:0], q[:0])] == [[0], []]


def test_the_codebook_learns_by_its_loss_alone_and_now_and_then():
    torch.manual_seed(0)
    attention = PQAttention(head_quantizer(16, 1), 4, every=2)
    q, k, v = (torch.randn(1, 1, 16, 16).requires_grad_() for _ in range(3))
    attention.eval()(q, k, v)
    assert attention.quantization_loss() == 0
    attention.train()
    losses = []
    for _ in range(4):
        out = attention(q, k, v)
        losses.append(attention.quantization_loss())
    assert losses[1] == losses[3] == 0 and attention.quantization_loss() == 0
    wanted = attention.quantizer.loss(q[0, 0]) + attention.quantizer.loss(k[0, 0])
    torch.testing.assert_close(losses[0], wanted)
    (book,) = torch.autograd.grad(out.sum(), attention.quantizer.codebook, allow_unused=True)
    assert book is None
    (book,) = torch.autograd.grad(losses[2], attention.quantizer.codebook)
    assert book.abs().max() > 0
    attention(q, k, v)
    copied = copy.deepcopy(attention)
    assert copied.quantization_loss() == 0 and torch.equal(copied(q, k, v), out)


def test_the_stage_before_attends_to_all_keys(assert_close):
    torch.manual_seed(0)
    attention = PQAttention(head_quantizer(16, 1), 4, sparse=False).train()
    q, k, v = torch.randn(3, 1, 1, 16, 16).unbind(0)
    assert_close(attention(q, k, v), dense(q, k, v, torch.ones(16, 16, dtype=torch.bool).tril()))
    assert attention.quantization_loss() > 0


@pytest.mark.parametrize("causal", [True, False])
def test_kept_attention_is_the_dense_weight_of_the_pairs(causal, assert_close):
    torch.manual_seed(0)
    layer = SparseMHA(32, 2, 4, causal)
    x = torch.randn(2, 16, 32)
    q, k, _ = layer.heads_of(x)
    visible = torch.ones(16, 16, dtype=torch.bool)
    weights = torch.softmax((q @ k.mT / 4).masked_fill(~(visible.tril() if causal else visible), -torch.inf), -1)
    mask = mask_of(*layer.attention.pattern(q, k), 2, 2, 16, 16)
    mass = layer.attention_mass(x)
    assert mass.shape == (2, 2, 16)
    assert_close(mass, (weights * mask).sum(-1).detach())
    exact = PQAttention(layer.attention.quantizer, 4, causal, select="exact").attention_mass(q, k)
    assert (exact >= mass - 1e-6).all() and exact.mean() > mass.mean()


def test_heads_are_put_side_by_side_and_tokens_stay_in_place(assert_close):
    torch.manual_seed(0)
    layer, x = SparseMHA(32, 4, 2, d_codeword=4), torch.randn(2, 8, 32)
    q, k, _ = layer.heads_of(x)
    mask, heads = mask_of(*layer.attention.pattern(q, k), 2, 4, 8, 8), []
    for h in range(4):
        part = slice(8 * h, 8 * h + 8)
        heads.append(dense(*(each(x)[..., part] for each in (layer.query, layer.key, layer.value)), mask[:, h]))
    assert_close(layer(x), layer.out(torch.cat(heads, -1)))
    made = SparseMHA.from_pretrained(layer.query, layer.key, layer.value, layer.out, 4, sparse_coeff=2, d_codeword=4,
                                     quantizer=layer.attention.quantizer)  # fmt: skip
    assert torch.equal(made(x), layer(x)) and made.query is layer.query


def test_sizes_that_do_not_fit_are_refused():
    layer = SparseMHA(32, 2, 8)
    with pytest.raises(ValueError, match="multiple of sparse_coeff=8, got 12; pad the sequence, or pass round_up=True"):
        layer(torch.zeros(1, 12, 32))
    assert SparseMHA(32, 2, 8, round_up=True)(torch.zeros(1, 12, 32)).shape == (1, 12, 32)
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads=3"):
        SparseMHA(32, 3)
    with pytest.raises(
        ValueError, match="d_codeword must divide the width of a head, 16; got 5; take one of 1, 2, 4, 8"
    ):
        SparseMHA(32, 2, d_codeword=5)
    with pytest.raises(ValueError, match="vectors of 24; a head has 16, all 2 have 32"):
        SparseMHA(32, 2, quantizer=ProductQuantizer(3))(torch.zeros(1, 8, 32))
    with pytest.raises(ValueError, match="select must be one of matching"):
        SparseMHA(32, 2, select="best")
    with pytest.raises(TypeError, match="attn_mask must be bool"):
        layer.attention(*torch.zeros(3, 1, 2, 8, 16).unbind(0), attn_mask=torch.zeros(8, 8))
