"""A whole encoder on the int8 kernel: activations stay columns of tokens from layer to layer, and steps are fused."""

import numpy as np
import torch
from torch import nn

from kernels.attention.block_sparse import block_shape, block_sparse_attention
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.matmul.quantize import quantize_activation_u8
from kernels.transforms.layer_norm import layer_norm_columns
from workbench.models.language.minilm import MiniLM
from workbench.models.sparse_inference.sparse_linear import SparseLinear

__all__ = ["SparseEncoder"]

BLOCK = 64  # of queries and keys that attention takes at a time


class SparseEncoder:
    """MiniLM with sparse int8 layers, run in the layout of the kernel.

    Query, key and value are one product. The feed-forward part's GELU and its quantisation, and the residual sums, are
    fused into the products. Attention and normalisation are in float32. Nothing between the products is torch's: two
    libraries with threads of their own would wait for each other's.

    Parameters
    ----------
    model : what `workbench.models.sparse_inference.compress.compress` made of a `MiniLM`, all linear layers sparse.

    Raises
    ------
    TypeError : a layer is not sparse.

    Source
    ------
    Shen et al. 2023: fused epilogues and no transposition between layers.
    """

    def __init__(self, model: MiniLM):
        for name, module in model.layers.named_modules():
            if isinstance(module, nn.Linear):
                raise TypeError(
                    f"SparseEncoder: layer {name!r} is dense; compress with least_sparsity=0, or run the model itself"
                )
        self.model = model
        self._layers = [_FusedLayer(layer) for layer in model.layers]

    def __call__(self, tokens: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Return the stream after all layers: tokens int64 (b, t) -> (b, t, width); ``real`` as in `MiniLM.forward`."""
        model, (b, t) = self.model, tokens.shape
        words, positions, segments = (_array(part.weight) for part in (model.words, model.positions, model.segments))
        rows = words[tokens.numpy()] + (positions[:t] + segments[0])  # (b, t, width)
        columns = _normalised(np.ascontiguousarray(rows.reshape(b * t, -1).T), model.norm)
        allowed = None if real is None else real[:, None, None, :].numpy()
        for layer in self._layers:
            columns = layer(columns, b, t, allowed)
        return torch.from_numpy(columns).t().view(b, t, -1)


class _FusedLayer:
    def __init__(self, layer):
        self.heads = layer.heads
        self.qkv = _joined([layer.query, layer.key, layer.value])
        self.out, self.feed_in, self.feed_out = layer.out, layer.feed_in, layer.feed_out
        self.norm_attention, self.norm_feed = layer.norm_attention, layer.norm_feed
        _, self.step, self.zero = _bytes(self.feed_out, np.zeros(1, np.float32))

    def __call__(self, x: np.ndarray, b, t, allowed) -> np.ndarray:
        """Map the stream (width, b t) to the next layer's."""
        qkv = self.qkv.columns(*_bytes(self.qkv, x)).reshape(3, self.heads, -1, b, t)
        q, k, v = np.ascontiguousarray(qkv.transpose(0, 3, 1, 4, 2))  # (b, h, t, d) each
        attended = _attention(q, k, v, allowed).transpose(1, 3, 0, 2)
        attended = np.ascontiguousarray(attended).reshape(len(x), b * t)  # back to (h d, b t)
        x = _normalised(self.out.columns(*_bytes(self.out, attended), append=x), self.norm_attention)
        hidden = self.feed_in.columns(
            *_bytes(self.feed_in, x), post=("gelu",), out_dtype="uint8", out_scale=self.step, out_zero=self.zero
        )
        return _normalised(self.feed_out.columns(hidden, self.step, self.zero, append=x), self.norm_feed)


def _bytes(layer: SparseLinear, x):
    return quantize_activation_u8(x, low=layer.low, high=layer.high)


def _joined(layers) -> SparseLinear:
    """Return one layer whose outputs are those of several layers with the same input, one behind the other."""
    first = layers[0]
    dense = np.concatenate([layer.weight.to_dense() for layer in layers])
    weight = BlockGroupedWeight.from_dense(dense, block=first.weight.block, group=first.weight.group)
    bias = None if first.bias is None else np.concatenate([layer.bias for layer in layers])
    scale = np.concatenate([layer.weight_scale for layer in layers])
    return SparseLinear(weight, scale, bias, min(x.low for x in layers), max(x.high for x in layers))


def _attention(q, k, v, allowed):
    """Return the attention of all queries to all keys, but to those that are not ``allowed`` (b, 1, 1, t)."""
    whole = np.ones((1, 1, *block_shape(q.shape[2], k.shape[2], block_size=BLOCK)), bool)
    return block_sparse_attention(q, k, v, whole, block_size=BLOCK, causal=False, attn_mask=allowed)


def _normalised(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    """Normalise every column."""
    return layer_norm_columns(x, _array(norm.weight), _array(norm.bias), eps=norm.eps)


def _array(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy()
