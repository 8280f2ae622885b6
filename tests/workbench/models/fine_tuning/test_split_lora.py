"""Split-LoRA against a loop over tokens, and the gradient of its router."""

import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.split_lora import SplitLoRALinear


@pytest.mark.parametrize("active", [1, 2, 4])
def test_forward_is_a_loop_over_tokens(active):
    torch.manual_seed(0)
    base = nn.Linear(12, 5, dtype=torch.float64)
    layer, x = SplitLoRALinear(base, experts=4, r=3, active=active, alpha=6.0), torch.randn(7, 12, dtype=torch.float64)
    assert torch.equal(layer(x), base(x))
    layer.B.data.normal_()
    rows = []
    for row in x:
        scores, y = layer.router @ row, base(row)
        for e in sorted(range(4), key=lambda e: -scores[e].item())[:active]:
            part = slice(3 * e, 3 * e + 3)
            y = y + 2.0 * torch.sigmoid(scores[e]) * layer.B[:, part] @ (layer.A[part] @ row)
        rows.append(y)
    torch.testing.assert_close(layer(x), torch.stack(rows))
    assert ((layer.gates(x) > 0).sum(-1) == active).all()
    layer(x).square().sum().backward()
    assert layer.router.grad is not None and layer.router.grad.abs().sum() > 0


def test_it_has_no_plain_form_and_refuses_what_does_not_fit():
    layer = SplitLoRALinear(nn.Linear(12, 5), experts=2)
    for call in (layer.merge, layer.delta):
        with pytest.raises(NotImplementedError, match="chooses experts for every token"):
            call()
    with pytest.raises(ValueError, match="SplitLoRALinear: active"):
        SplitLoRALinear(nn.Linear(12, 5), experts=2, active=3)
