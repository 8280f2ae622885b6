"""Adam with both moments held to 8 bits a number, block by block; optimisers that update one tensor at a time."""

from collections.abc import Callable

import torch
from torch import nn

from kernels.check import as_int, as_number

__all__ = ["BlockAdam8bit", "block_adam8bit", "dequantize_blocks", "per_layer_updates", "quantize_blocks"]

LEAST = 4096  # smaller tensors keep their moments whole


def quantize_blocks(x: torch.Tensor, block: int = 256, *, signed: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a tensor to 8 bits, each run of ``block`` numbers by a scale of its own.

    Parameters
    ----------
    x : float of any shape, finite; not below 0 unless ``signed``.
    block : from 1 on; the last run may be shorter.
    signed : levels -127 .. 127 of int8; else 0 .. 255 of uint8.

    Returns
    -------
    codes like x, and scales (ceil(size / block),) float32, so that x is about codes * scale; off by at most half a
    scale, which is the largest magnitude of the run over 127, or over 255.
    """
    block = as_int(block, function="quantize_blocks", name="block", low=1)
    levels, kind = (127, torch.int8) if signed else (255, torch.uint8)
    runs = _runs(x.float(), block)
    scales = runs.abs().amax(1) / levels
    codes = (runs / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().clamp(-levels, levels)
    return codes.to(kind).view(-1)[: x.numel()].view(x.shape), scales


def dequantize_blocks(codes: torch.Tensor, scales: torch.Tensor, block: int = 256) -> torch.Tensor:
    """Return the float32 numbers that codes and scales of `quantize_blocks` stand for."""
    whole = _runs(codes.float(), block) * scales[:, None]
    return whole.view(-1)[: codes.numel()].view(codes.shape)


class BlockAdam8bit(torch.optim.Optimizer):
    """AdamW that stores the first moment and the root of the second as 8-bit codes with one scale a block.

    Parameters
    ----------
    params : tensors or groups, as every optimiser of PyTorch takes them.
    lr, betas, eps, weight_decay : of AdamW.
    block : numbers that share a scale. Tensors of fewer than 4,096 numbers keep float32 moments.

    Source
    ------
    Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861. *Differs from the paper:*
    levels are evenly spaced, and the second moment is held as its root, so that fewer small values are rounded to 0;
    a moment that is rounded to 0 counts as half a level in the divisor.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, block: int = 256):
        lr = as_number(lr, function="BlockAdam8bit", name="lr", above=0)
        block = as_int(block, function="BlockAdam8bit", name="block", low=1)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"BlockAdam8bit: betas must be in [0, 1), got {betas}")
        every = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "block": block}
        super().__init__(params, every)

    @torch.no_grad()
    def step(self, closure=None):
        """Update every tensor that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return loss

    def _update(self, p, group):
        state, (first, second), block = self.state[p], group["betas"], group["block"]
        small = p.numel() < LEAST
        if not state:
            state["step"] = 0
        m, root = (state["m"], state["root"]) if small and "m" in state else self._moments(p, state, block)
        state["step"] += 1
        m = m.lerp(p.grad.float(), 1 - first)
        root = (root.square() * second + p.grad.float().square() * (1 - second)).sqrt()
        least = torch.zeros(())
        if small:
            state["m"], state["root"] = m, root
        else:
            state["m_codes"], state["m_scales"] = quantize_blocks(m, block)
            state["root_codes"], state["root_scales"] = quantize_blocks(root, block, signed=False)
            least = (state["root_scales"] / 2).repeat_interleave(block)[: p.numel()].view(p.shape)
        bias1, bias2 = 1 - first ** state["step"], 1 - second ** state["step"]
        divisor = torch.maximum(root, least) / bias2**0.5 + group["eps"]
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_((group["lr"] / bias1 * m / divisor).to(p.dtype))

    def _moments(self, p, state, block):
        if "m_codes" not in state:
            zero = torch.zeros_like(p, dtype=torch.float32)
            return zero, zero
        m = dequantize_blocks(state["m_codes"], state["m_scales"], block)
        return m, dequantize_blocks(state["root_codes"], state["root_scales"], block)


def block_adam8bit(params, block: int = 256, **how) -> BlockAdam8bit:
    """Return `BlockAdam8bit` for some parameters."""
    return BlockAdam8bit(params, block=block, **how)


def per_layer_updates(model: nn.Module, opt_factory: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> list:
    """Update each trained tensor as soon as its gradient is there, and free the gradient at once.

    Parameters
    ----------
    model : any module; gradients can then neither be clipped together nor be summed over several batches.
    opt_factory : ``opt_factory([p])`` -> optimiser of one tensor.

    Returns
    -------
    Handles; ``handle.remove()`` ends the updates of one tensor.

    Raises
    ------
    ValueError : nothing in the model is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("per_layer_updates: model must have a parameter that wants a gradient, got none")
    return [p.register_post_accumulate_grad_hook(_updater(opt_factory([p]))) for p in trained]


def _updater(optimizer):
    def update(_):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def _runs(x, block):
    """Return the numbers of a tensor as rows of a block each, zeros at the end, (blocks, block)."""
    flat = x.reshape(-1)
    return nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
