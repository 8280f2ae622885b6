"""OPT's layers against torch's own, and one token at a time against all at once."""

import pytest
import torch
from torch import nn

from workbench.models.language.opt_stack import OptConfig, OptStack


@pytest.fixture(scope="module")
def stack():
    torch.manual_seed(0)
    return OptStack(OptConfig(width=16, heads=4, layers=2)).eval().requires_grad_(False)


def of_torch(layer):
    """Return torch's layer with the same weights."""
    made = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, batch_first=True, norm_first=True).eval()
    attention = made.self_attn
    with torch.no_grad():
        for name in ("weight", "bias"):
            parts = [getattr(p, name) for p in (layer.query, layer.key, layer.value)]
            getattr(attention, f"in_proj_{name}").copy_(torch.cat(parts))
            for theirs, ours in ((attention.out_proj, layer.out), (made.linear1, layer.feed_in),
                                 (made.linear2, layer.feed_out), (made.norm1, layer.norm_attention),
                                 (made.norm2, layer.norm_feed)):  # fmt: skip
                getattr(theirs, name).copy_(getattr(ours, name))
    return made


def test_it_computes_what_torchs_layers_compute(assert_close, stack):
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    wanted, mask = x, nn.Transformer.generate_square_subsequent_mask(5)
    for layer in stack.layers:
        wanted = of_torch(layer)(wanted, src_mask=mask, is_causal=True).detach()
    assert_close(stack(x), wanted)


def test_one_token_at_a_time_gives_the_same(assert_close, stack):
    x, cache = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1)), []
    steps = [stack(x[:, :2], cache=cache), *(stack(x[:, [t]], cache=cache) for t in (2, 3))]
    assert_close(torch.cat(steps, dim=1), stack(x))
    assert len(cache) == 2 and cache[0][0].shape == (2, 4, 4, 4)


def test_width_must_be_a_multiple_of_heads():
    with pytest.raises(ValueError, match="multiple of heads = 3"):
        OptStack(OptConfig(width=16, heads=3))
