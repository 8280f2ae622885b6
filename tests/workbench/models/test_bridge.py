"""Operators agree with dense torch, forward and backward, and pass torch's own checks."""

from functools import partial

import numpy as np
import pytest
import torch

from workbench.models import bridge

SIZES = [(1, 1, 0, 4, 16), (2, 2, 37, 8, 16), (1, 3, 70, 20, 32)]


def attention_case(size, rng, dtype=torch.float32):
    b, h, t, d, block = size
    q, k, v = (torch.tensor(rng.standard_normal((b, h, t, d)), dtype=dtype, requires_grad=True) for _ in range(3))
    blocks = -(-t // block)
    mask = torch.tensor(rng.random((b, h, blocks, blocks)) < 0.6) | torch.eye(blocks, dtype=torch.bool)
    return q, k, v, mask


def dense(q, k, v, mask, block, causal, positions=None):
    t, d = q.shape[2:]
    allowed = mask.repeat_interleave(block, 2).repeat_interleave(block, 3)[:, :, :t, :t]
    if causal:
        positions = torch.arange(t) if positions is None else positions[:, :, None]
        allowed = allowed & (positions <= torch.arange(t)[:, None])
    scores = (q @ k.mT * d**-0.5).masked_fill(~allowed, -torch.inf)
    return torch.softmax(scores, -1) @ v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_attention_and_gradients_match_dense(size, causal, rng, assert_close):
    q, k, v, mask = attention_case(size, rng)
    grad = torch.tensor(rng.standard_normal(q.shape), dtype=torch.float32)
    out = bridge.block_sparse_attention(q, k, v, mask, block_size=size[4], causal=causal)
    found = torch.autograd.grad(out, (q, k, v), grad)
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    truth = dense(*leaves, mask, size[4], causal)
    wanted = torch.autograd.grad(truth, leaves, grad.double())
    assert_close(out, truth)
    for mine, theirs in zip(found, wanted, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_attention_is_torch_s_own_where_every_block_is_kept(dtype, rng):
    """Grouped heads, values of another width, a causal rule of more keys than queries, and a mask, in every dtype."""
    sizes = ((2, 6, 11, 16), (2, 3, 30, 16), (2, 3, 30, 24))
    q, k, v = (torch.tensor(rng.standard_normal(size), dtype=dtype) for size in sizes)
    mask = torch.ones(11, 30, dtype=torch.bool).tril(19) & torch.tensor(rng.random((2, 1, 1, 30)) < 0.9)
    keep = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    out = bridge.block_sparse_attention(q, k, v, keep, block_size=16, causal=True, attn_mask=mask.expand(2, 6, -1, -1))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert out.dtype == dtype
    assert (out - wanted).abs().max() <= 4 * torch.finfo(dtype).eps * v.abs().max()


def test_attention_with_permuted_keys(rng, assert_close):
    q, k, v, mask = attention_case((1, 2, 64, 8, 16), rng)
    order = torch.tensor(np.stack([rng.permutation(64) for _ in range(2)])[None])
    mask[:] = True
    at = order[..., None].expand_as(k)
    out = bridge.block_sparse_attention(
        q, k.gather(2, at), v.gather(2, at), mask, block_size=16, causal=True, key_positions=order
    )
    assert_close(out, dense(q, k, v, mask, 16, True))


def test_attention_in_bfloat16_and_strided(rng, assert_close):
    q, k, v, mask = attention_case((1, 2, 40, 16, 16), rng, torch.bfloat16)
    out = bridge.block_sparse_attention(q, k, v, mask, block_size=16, causal=True)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    truth = dense(*leaves, mask, 16, True)
    assert_close(out, truth)
    for mine, theirs in zip(grads, torch.autograd.grad(truth.square().sum(), leaves), strict=True):
        assert mine.dtype == torch.bfloat16
        assert torch.linalg.norm(mine.double() - theirs) < 0.02 * torch.linalg.norm(theirs)
    strided = (x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    assert torch.equal(bridge.block_sparse_attention(*strided, mask, block_size=16, causal=True), out)


@pytest.mark.parametrize("added", [False, True])
def test_attention_passes_gradcheck_with_grouped_heads_and_a_mask(added, rng):
    sizes = ((2, 4, 9, 5), (2, 2, 20, 5), (2, 2, 20, 3))
    q, k, v = (torch.tensor(rng.standard_normal(size), requires_grad=True) for size in sizes)
    keep = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    mask = torch.tensor(rng.random((2, 1, 1, 20)) < 0.8)
    mask = torch.where(mask, torch.randn(9, 20, dtype=torch.float64), -torch.inf) if added else mask

    def attend(q, k, v):
        return bridge.block_sparse_attention(q, k, v, keep, block_size=8, causal=True, attn_mask=mask)

    assert torch.autograd.gradcheck(attend, (q, k, v))


def csr_case(rng, m=13, n=9, density=0.3):
    pattern = rng.random((m, n)) < density
    pattern[2] = False
    row_starts = torch.tensor(np.concatenate([[0], pattern.sum(1).cumsum()]))
    columns = torch.tensor(np.nonzero(pattern)[1])
    return torch.tensor(pattern), row_starts, columns


def test_spmm_and_gradients_match_dense(rng, assert_close):
    pattern, row_starts, columns = csr_case(rng)
    values = torch.tensor(rng.standard_normal(len(columns)), dtype=torch.float32, requires_grad=True)
    b = torch.tensor(rng.standard_normal((9, 5)), dtype=torch.float32, requires_grad=True)
    full = torch.zeros(pattern.shape).masked_scatter(pattern, values)
    out, truth = bridge.spmm(row_starts, columns, values, b), full @ b
    assert_close(out, truth)
    for mine, theirs in zip(*(torch.autograd.grad(x.square().sum(), (values, b)) for x in (out, truth)), strict=True):
        assert_close(mine, theirs)


def test_sddmm_and_gradients_match_dense(rng, assert_close):
    pattern, row_starts, columns = csr_case(rng)
    x = torch.tensor(rng.standard_normal((13, 6)), dtype=torch.float32, requires_grad=True)
    y = torch.tensor(rng.standard_normal((9, 6)), dtype=torch.float32, requires_grad=True)
    out, truth = bridge.sddmm(row_starts, columns, x, y), (x @ y.T)[pattern]
    assert_close(out, truth)
    for mine, theirs in zip(*(torch.autograd.grad(z.square().sum(), (x, y)) for z in (out, truth)), strict=True):
        assert_close(mine, theirs)


def test_gradients_of_sparse_products_in_float64(rng):
    _, row_starts, columns = csr_case(rng)
    values, x, y = (
        torch.tensor(rng.standard_normal(shape), requires_grad=True) for shape in (len(columns), (13, 5), (9, 5))
    )
    assert torch.autograd.gradcheck(partial(bridge.spmm, row_starts, columns), (values, y))
    assert torch.autograd.gradcheck(partial(bridge.sddmm, row_starts, columns), (x, y))


def test_refusals(rng):
    q, k, v, mask = attention_case((1, 1, 20, 4, 16), rng)
    with pytest.raises(TypeError, match="q must be a CPU tensor"):
        bridge.block_sparse_attention(q.detach().numpy(), k, v, mask, block_size=16)
    with pytest.raises(TypeError, match="k must be a NumPy array of float64, got float32"):
        bridge.block_sparse_attention(q.double(), k, v, mask, block_size=16)
    with pytest.raises(ValueError, match="block_size"):
        bridge.block_sparse_attention(q, k, v, mask, block_size=300)
    added = torch.zeros(20, 20, requires_grad=True)
    with pytest.raises(ValueError, match=r"attn_mask gets no gradient; pass attn_mask.detach\(\)"):
        bridge.block_sparse_attention(q, k, v, mask, block_size=16, attn_mask=added)


@pytest.mark.slow
def test_torch_checks_every_operator(rng):
    q, k, v, mask = attention_case((1, 2, 40, 8, 16), rng)
    arguments = (q, k, v, mask, None, torch.rand(40, 40) < 0.8, 16, True, 0.3)
    torch.library.opcheck(bridge._attention, arguments)
    with torch.no_grad():
        out, lse = bridge._attention(*arguments)
    plain = [x.detach() for x in (q, k, v)]
    torch.library.opcheck(
        bridge._attention_backward, (*plain, mask, None, None, out, lse, torch.ones_like(out), 16, True, 0.3)
    )
    _, row_starts, columns = csr_case(rng)
    values = torch.rand(len(columns), requires_grad=True)
    x, y = torch.rand(13, 5, requires_grad=True), torch.rand(9, 5, requires_grad=True)
    torch.library.opcheck(bridge._spmm, (row_starts, columns, values, y))
    torch.library.opcheck(bridge._sddmm, (row_starts, columns, x, y))
    torch.library.opcheck(bridge._spmm_transposed, (row_starts, columns, values.detach(), x.detach(), 9))


@pytest.mark.slow
def test_compiled_training_step_equals_eager(rng, assert_close):
    q, k, v, mask = attention_case((1, 2, 40, 8, 16), rng)
    weight = torch.tensor(rng.standard_normal((8, 8)), dtype=torch.float32, requires_grad=True)

    def loss(q, k, v, weight):
        return bridge.block_sparse_attention(q @ weight, k, v * 2, mask, block_size=16, causal=True).square().sum()

    compiled = torch.compile(loss, fullgraph=True)
    for mine, theirs in zip(
        *(torch.autograd.grad(f(q, k, v, weight), (q, k, v, weight)) for f in (compiled, loss)), strict=True
    ):
        assert_close(mine, theirs)
