"""Kernels as torch operators: with gradients, and with fake implementations so that torch.compile keeps them whole.

An operator runs on CPU tensors and shares their memory with the kernel; ``torch.library.opcheck`` tests each one.
Patterns of CSR operands are two int64 tensors, row starts and columns, and stay constant under differentiation.
"""

import torch
from scipy import sparse
from torch import Tensor

from kernels.attention import block_sparse
from kernels.matmul import sddmm as sddmm_kernel
from kernels.matmul import spmm as spmm_kernel
from kernels.transforms import block_diagonal

__all__ = ["block_chain", "block_sparse_attention", "sddmm", "spmm"]


def block_sparse_attention(
    q, k, v, block_mask, *, block_size, causal=False, scale=None, key_positions=None, attn_mask=None
):
    """Compute exact softmax attention over the kept blocks, differentiable in q, k and v.

    Parameters
    ----------
    q, k, v : (b, h, tq, d), (b, hk, tk, d) and (b, hk, tk, dv) CPU tensors of float64, float32, float16 or bfloat16,
        one dtype for all; other strides are copied.
    block_mask : bool tensor or array (b or 1, h or 1, rows, columns).
    block_size, causal, scale : as in `kernels.attention.block_sparse.block_sparse_attention`.
    key_positions : None, or integers (b, hk, tk), the original position of each key if keys were permuted.
    attn_mask : None, or a bool or float tensor or array that broadcasts to (b, h, tq, tk), as in torch's
        scaled_dot_product_attention; it gets no gradient.

    Returns
    -------
    (b, h, tq, dv) in the dtype of q; sums are in float32, or in float64 for float64. Zero where a query sees no key.

    Raises
    ------
    TypeError, ValueError : as the kernel; also if a tensor does not lie in main memory, or attn_mask wants a gradient.

    Source
    ------
    Dao 2023, "FlashAttention-2", Algorithms 1 and 2.
    """
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor) or tensor.device.type != "cpu":
            got = tensor.device if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"block_sparse_attention: {name} must be a CPU tensor, got {got}; pass {name}.cpu()")
    if isinstance(attn_mask, Tensor) and attn_mask.requires_grad:
        raise ValueError("block_sparse_attention: attn_mask gets no gradient; pass attn_mask.detach()")
    scale = float(q.shape[-1] ** -0.5 if scale is None else scale)
    positions = None if key_positions is None else torch.as_tensor(key_positions).to(torch.int32)
    mask = None if attn_mask is None else torch.as_tensor(attn_mask)
    if mask is not None and mask.dtype == torch.bfloat16:
        mask = mask.float()
    out, _ = _attention(q, k, v, torch.as_tensor(block_mask), positions, mask, block_size, causal, scale)
    return out.to(q.dtype)


def spmm(row_starts, columns, values, dense):
    """Multiply a CSR matrix with a dense one, differentiable in ``values`` and ``dense``.

    Parameters
    ----------
    row_starts, columns : int64 (m + 1,) and (nnz,), the pattern.
    values : float32 or float64 (nnz,).
    dense : (k, n) of the same dtype.

    Returns
    -------
    (m, n) of that dtype.

    Raises
    ------
    TypeError, ValueError : as `kernels.matmul.spmm.spmm`.
    """
    return _spmm(row_starts, columns, values, dense)


def sddmm(row_starts, columns, x, y):
    """Compute x y^T at the entries of a CSR pattern, differentiable in ``x`` and ``y``.

    Parameters
    ----------
    row_starts, columns : int64 (m + 1,) and (nnz,), the pattern.
    x, y : (m, d) and (n, d), both float32 or both float64.

    Returns
    -------
    (nnz,) of that dtype.

    Raises
    ------
    TypeError, ValueError : as `kernels.matmul.sddmm.sddmm`.
    """
    return _sddmm(row_starts, columns, x, y)


def block_chain(x, weights, inner):
    """Multiply the rows of x with block-diagonal matrices in turn, differentiable in x and in each of the weights.

    Parameters
    ----------
    x : (..., n) of float32, float64, complex64 or complex128; other strides are copied.
    weights : list of (blocks, o, i) tensors of that dtype, the first to be applied first.
    inner : list of as many ints; see `kernels.transforms.block_diagonal.block_chain_multiply`.

    Returns
    -------
    (..., blocks * o) of the last of the weights.

    Raises
    ------
    TypeError, ValueError : as the kernel.
    """
    return _block_chain(x, list(weights), list(inner))


@torch.library.custom_op("sparse_workbench::block_sparse_attention", mutates_args=(), device_types="cpu")
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    positions: Tensor | None,
    attn_mask: Tensor | None,
    block_size: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    how = _options(positions, attn_mask, block_size, causal, scale)
    out, lse = block_sparse.block_sparse_attention(*map(_array, (q, k, v, mask)), return_lse=True, **how)
    return torch.from_numpy(out), torch.from_numpy(lse)


@_attention.register_fake
def _(q, k, v, mask, positions, attn_mask, block_size, causal, scale):
    kind = _dtype_of_sums(q)
    return q.new_empty((*q.shape[:3], v.shape[3]), dtype=kind), q.new_empty(q.shape[:3], dtype=kind)


@torch.library.custom_op("sparse_workbench::block_sparse_attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    positions: Tensor | None,
    attn_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    grad: Tensor,
    block_size: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    how = _options(positions, attn_mask, block_size, causal, scale)
    grads = block_sparse.block_sparse_attention_backward(*map(_array, (q, k, v, mask, out, lse, grad)), **how)
    return tuple(torch.from_numpy(grad) for grad in grads)


@_attention_backward.register_fake
def _(q, k, v, mask, positions, attn_mask, out, lse, grad, block_size, causal, scale):
    return tuple(x.new_empty(x.shape, dtype=_dtype_of_sums(q)) for x in (q, k, v))


def _attention_save(ctx, inputs, output):
    *tensors, ctx.block_size, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _attention_gradients(ctx, grad, _):
    grads = _attention_backward(*ctx.saved_tensors, grad, ctx.block_size, ctx.causal, ctx.scale)
    return *(g.to(ctx.saved_tensors[0].dtype) for g in grads), *[None] * 6


_attention.register_autograd(_attention_gradients, setup_context=_attention_save)


@torch.library.custom_op("sparse_workbench::spmm", mutates_args=(), device_types="cpu")
def _spmm(row_starts: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    a = _csr(row_starts, columns, values, dense.shape[0])
    return torch.from_numpy(spmm_kernel.spmm(a, _array(dense)))


@_spmm.register_fake
def _(row_starts, columns, values, dense):
    return dense.new_empty(row_starts.shape[0] - 1, dense.shape[1])


@torch.library.custom_op("sparse_workbench::spmm_transposed", mutates_args=(), device_types="cpu")
def _spmm_transposed(row_starts: Tensor, columns: Tensor, values: Tensor, dense: Tensor, rows: int) -> Tensor:
    a = _csr(row_starts, columns, values, rows)
    return torch.from_numpy(spmm_kernel.spmm(a.T.tocsr(), _array(dense)))


@_spmm_transposed.register_fake
def _(row_starts, columns, values, dense, rows):
    return dense.new_empty(rows, dense.shape[1])


@torch.library.custom_op("sparse_workbench::sddmm", mutates_args=(), device_types="cpu")
def _sddmm(row_starts: Tensor, columns: Tensor, x: Tensor, y: Tensor) -> Tensor:
    pattern = _csr(row_starts, columns, torch.ones(columns.shape[0]), y.shape[0])
    return torch.from_numpy(sddmm_kernel.sddmm(pattern, _array(x), _array(y)).data)


@_sddmm.register_fake
def _(row_starts, columns, x, y):
    return x.new_empty(columns.shape[0])


@torch.library.custom_op("sparse_workbench::block_chain", mutates_args=(), device_types="cpu")
def _block_chain(x: Tensor, weights: list[Tensor], inner: list[int]) -> Tensor:
    return torch.from_numpy(block_diagonal.block_chain_multiply(_array(x), [_array(w) for w in weights], inner))


@_block_chain.register_fake
def _(x, weights, inner):
    return x.new_empty(*x.shape[:-1], weights[-1].shape[0] * weights[-1].shape[1])


@torch.library.custom_op("sparse_workbench::block_chain_backward", mutates_args=(), device_types="cpu")
def _block_chain_backward(x: Tensor, weights: list[Tensor], inner: list[int], grad: Tensor) -> list[Tensor]:
    arrays = [_array(w) for w in weights]
    to_x, to_weights = block_diagonal.block_chain_gradient(_array(x), arrays, inner, _array(grad))
    return [torch.from_numpy(to_x), *map(torch.from_numpy, to_weights)]


@_block_chain_backward.register_fake
def _(x, weights, inner, grad):
    return [torch.empty_like(x), *(torch.empty_like(w) for w in weights)]


def _block_chain_save(ctx, inputs, output):
    x, weights, ctx.inner = inputs
    ctx.save_for_backward(x, *weights)


def _block_chain_gradients(ctx, grad):
    x, *weights = ctx.saved_tensors
    to_x, *to_weights = _block_chain_backward(x, weights, ctx.inner, grad)
    return to_x, to_weights, None


_block_chain.register_autograd(_block_chain_gradients, setup_context=_block_chain_save)


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _spmm_gradients(ctx, grad):
    row_starts, columns, values, dense = ctx.saved_tensors
    needs = ctx.needs_input_grad
    to_values = _sddmm(row_starts, columns, grad, dense) if needs[2] else None
    to_dense = _spmm_transposed(row_starts, columns, values, grad, dense.shape[0]) if needs[3] else None
    return None, None, to_values, to_dense


def _sddmm_gradients(ctx, grad):
    row_starts, columns, x, y = ctx.saved_tensors
    needs = ctx.needs_input_grad
    to_x = _spmm(row_starts, columns, grad, y) if needs[2] else None
    to_y = _spmm_transposed(row_starts, columns, grad, x, y.shape[0]) if needs[3] else None
    return None, None, to_x, to_y


_spmm.register_autograd(_spmm_gradients, setup_context=_save_inputs)
_sddmm.register_autograd(_sddmm_gradients, setup_context=_save_inputs)


def _options(positions, attn_mask, block_size, causal, scale):
    how = {"block_size": block_size, "causal": causal, "scale": scale}
    how["key_positions"] = None if positions is None else _array(positions)
    how["attn_mask"] = None if attn_mask is None else attn_mask.detach().numpy()  # may be broadcast: not copied
    return how


def _dtype_of_sums(q):
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _array(tensor):
    tensor = tensor.detach().resolve_conj().contiguous()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _csr(row_starts, columns, values, width):
    parts = (_array(values), _array(columns), _array(row_starts))
    return sparse.csr_array(parts, shape=(row_starts.shape[0] - 1, width))
