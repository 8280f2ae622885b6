"""The 8-bit moments against their bound, the optimiser against PyTorch's, updates one by one against all at once."""

import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.eight_bit_adam import (
    BlockAdam8bit,
    block_adam8bit,
    dequantize_blocks,
    per_layer_updates,
    quantize_blocks,
)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 1000])
def test_rounding_is_off_by_half_a_level_of_its_block(size, signed):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, size)
    x = x if signed else x.abs()
    codes, scales = quantize_blocks(x, 256, signed=signed)
    assert codes.element_size() == 1 and codes.shape == x.shape and len(scales) == -(-size // 256)
    back = dequantize_blocks(codes, scales, 256)
    for at in range(0, size, 256):
        most = x[at : at + 256].abs().max()
        assert (back[at : at + 256] - x[at : at + 256]).abs().max() <= most * 0.5001 / (127 if signed else 255)


def test_codes_worked_by_hand():
    codes, scales = quantize_blocks(torch.tensor([[-254.0, 3.0], [0.0, 12.7]]), 2)
    assert codes.tolist() == [[-127, 2], [0, 127]]
    torch.testing.assert_close(scales, torch.tensor([2.0, 0.1]))
    assert quantize_blocks(torch.zeros(3), 2)[0].tolist() == [0, 0, 0]


def grads_of(shape):
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=draw) for _ in range(5)]


def stepped(make, shape):
    p = nn.Parameter(torch.ones(shape))
    optimizer = make([p])
    for grad in grads_of(shape):
        p.grad = grad.clone()
        optimizer.step()
    return p.detach(), optimizer.state[p]


def test_small_tensors_are_updated_as_by_adamw():
    want, _ = stepped(lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.1), (63, 65))
    found, _ = stepped(lambda ps: block_adam8bit(ps, lr=0.01, weight_decay=0.1), (63, 65))
    torch.testing.assert_close(found, want)


def test_large_tensors_are_updated_nearly_so_in_a_quarter_of_the_bytes():
    want, _ = stepped(lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.0), (64, 64))
    found, state = stepped(lambda ps: BlockAdam8bit(ps, lr=0.01), (64, 64))
    assert 0 < (found - want).norm() < 0.03 * (want - 1).norm()
    held = sum(t.numel() * t.element_size() for t in state.values() if isinstance(t, torch.Tensor))
    assert held == 4096 * 2 * (1 + 4 / 256)


@pytest.mark.parametrize("make", [
    lambda ps: torch.optim.SGD(ps, lr=0.1), lambda ps: torch.optim.Adam(ps, lr=0.1),
    lambda ps: block_adam8bit(ps, lr=0.1),
])  # fmt: skip
def test_updates_one_by_one_are_those_of_all_at_once(make):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    other = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    other.load_state_dict(one.state_dict())
    handles, optimizer, x = per_layer_updates(one, make), make(list(other.parameters())), torch.randn(3, 5)
    for _ in range(3):
        one(x).square().sum().backward()
        assert all(p.grad is None for p in one.parameters())
        optimizer.zero_grad()
        other(x).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    for handle in handles:
        handle.remove()
    one(x).square().sum().backward()
    assert all(p.grad is not None for p in one.parameters())


def test_bad_settings_are_refused():
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="block must"):
        block_adam8bit([p], block=0)
    with pytest.raises(ValueError, match="betas must"):
        BlockAdam8bit([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="wants a gradient"):
        per_layer_updates(nn.Linear(2, 2).requires_grad_(False), lambda ps: torch.optim.SGD(ps, lr=1.0))
