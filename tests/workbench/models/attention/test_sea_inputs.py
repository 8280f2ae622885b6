"""SEA on padded, grouped and half-precision inputs, against the layer on each text by itself."""

import pytest
import torch

from workbench.models.attention.sea import SEAAttention
from workbench.models.attention.sea_inputs import attend


def qkv(heads=4, keys=4, t=24, n=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, h, t, 8, generator=generator) for h in (heads, keys, keys)]


def layer(causal):
    torch.manual_seed(0)
    return SEAAttention(32, 4, width=16, k=3, causal=causal, max_positions=32).eval()


@pytest.mark.parametrize("where", ["left", "right", "between"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing_for_real_tokens(causal, where, assert_close):
    sea, (q, k, v) = layer(causal), qkv(keys=2)
    real = torch.ones(2, 24, dtype=torch.bool)
    real[1, {"left": slice(0, 9), "right": slice(15, None), "between": slice(4, 13)}[where]] = False
    for x in (q, k, v):
        x[1, :, ~real[1]] = 1e3
    out = attend(sea, q, k, v, real.long())
    repeated = [q, *(x.repeat_interleave(2, 1) for x in (k, v))]
    for n in range(2):
        alone = [x[n : n + 1, :, real[n]] for x in repeated]
        if not causal:  # the bidirectional decoder resizes its images by T, so the text keeps its padding on the right
            alone = [torch.nn.functional.pad(x, (0, 0, 0, 24 - x.shape[2])) for x in alone]
        wanted = sea(*alone, None if causal else torch.arange(24)[None] < real[n].sum()).context
        assert_close(out[n : n + 1, :, real[n]], wanted[:, :, : real[n].sum()])
    assert (out[1, :, ~real[1]] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_dtype(dtype):
    sea, parts = layer(False), [x.to(dtype) for x in qkv()]
    out = attend(sea, *parts)
    wanted = sea(*(x.float() for x in parts)).context
    assert out.dtype == dtype and torch.equal(out, wanted.to(dtype))


def test_gradients_flow_and_bad_input_is_named():
    sea, (q, k, v) = layer(False), qkv()
    v.requires_grad_()
    attend(sea, q, k, v, torch.arange(24) >= torch.tensor([[0], [5]])).sum().backward()
    assert v.grad.abs().sum() > 0 and (v.grad[1, :, :5] == 0).all()
    with pytest.raises(ValueError, match="as many queries as keys, got 10 and 24"):
        attend(sea, q[:, :, :10], k, v)
    with pytest.raises(ValueError, match=r"attn_mask must be \(N, T\) = \(2, 24\), got \(24,\)"):
        attend(sea, q, k, v, torch.ones(24))
