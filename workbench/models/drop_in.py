"""Sparse attention in the place of a transformers model's own, and the queries, keys and values that pass there.

A model hands every layer's attention to a function that is registered by name, with a mask made by a function of the
same name. Ours asks for the mask in full, so that windows, chunks, padding and bidirectional models mean what the model
means. transformers is imported when something here is called, not before.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from workbench.models.attention.call import AttentionCall, attention_call
from workbench.models.attention.pbs_attn import pbs_attention
from workbench.models.attention.xattention import xattention

__all__ = ["METHODS", "Captured", "capture", "register", "short_batch", "sparse_attention", "use_sparse_attention"]

_numbers = count(1)
_BEYOND_SOFTMAX = {"softcap": "caps its scores", "s_aux": "has learned sinks in its softmax"}


def _xattention(call: AttentionCall, *, stride=16, block_size=128, **settings):
    return _choose(xattention, call, stride=stride, block_size=block_size, **settings)


def _pbs_attention(call: AttentionCall, *, block_size=128, segment_size=256, **settings):
    if not call.causal:
        if call.q.shape[2] != call.k.shape[2]:
            return call.dense()
        segment_size = -(-call.k.shape[2] // block_size) * block_size
    return _choose(pbs_attention, call, block_size=block_size, segment_size=segment_size, **settings)


def _choose(method, call, **settings):
    if call.q.shape[2] == 1:  # one query after a cache: there is nothing to choose from
        return call.dense()
    how = {"causal": call.causal, "scale": call.scale, "attn_mask": call.attn_mask}
    return method(call.q, call.k, call.v, **how, **settings)[0]


METHODS = {"xattention": _xattention, "pbs_attn": _pbs_attention, "dense": AttentionCall.dense}


def sparse_attention(method, *, layers: Collection[int] | None = None, **settings) -> str:
    """Register a method with transformers' attention interface and return its name there.

    Pass the name as ``attn_implementation`` to ``from_pretrained`` or to ``model.set_attn_implementation``. Prefer
    `use_sparse_attention`, which also finds out whether the model takes it.

    Parameters
    ----------
    method : one of `METHODS`, or a function of an `AttentionCall` that returns (b, h, tq, dv).
    layers : indices of the layers that use it; the others keep dense attention. All unless given.
    settings : of the method, such as ``threshold``, ``block_size``; see `xattention.xattention` and
        `pbs_attn.pbs_attention`.

    Raises
    ------
    ValueError : unknown method.
    """
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(f"sparse_attention: method must be one of {', '.join(METHODS)} or a function; got {method!r}")
    attend = METHODS[method] if isinstance(method, str) else method
    name = f"sparse_workbench_{method if isinstance(method, str) else 'own'}_{next(_numbers)}"

    def attend_in_layer(call, layer):
        return attend(call, **settings) if layers is None or layer in layers else call.dense()

    register(name, attend_in_layer)
    return name


def use_sparse_attention(model, method, *, layers=None, check=None, **settings):
    """Put a sparse method into a transformers model, and check that the model's attention is what it replaces.

    The check runs the model on a short padded batch with its eager attention and with dense attention by this door, and
    compares the results.

    Parameters
    ----------
    model : a ``PreTrainedModel``, changed in place.
    method, layers, settings : as `sparse_attention`.
    check : keyword arguments for the model to check with; made from ``input_ids`` unless given.

    Returns
    -------
    model.

    Raises
    ------
    ValueError : the model does not hand its attention over, or does more in it than softmax of q . k; the message names
        the model, which is left as it was.
    """
    name = sparse_attention(method, layers=layers, **settings)
    before = model.config._attn_implementation
    try:
        _check_takes_over(model, check)
    except ValueError:
        if model._can_set_attn_implementation():
            model.set_attn_implementation(before)
        raise
    model.set_attn_implementation(name)
    return model


def register(name: str, attend: Callable[[AttentionCall, Any], torch.Tensor], *, by_module: bool = False) -> None:
    """Register ``attend`` under a name of transformers' attention interface, with masks in full.

    Parameters
    ----------
    attend : called as ``attend(call, layer)``, layer None where a model does not number it; returns (b, h, tq, dv).
    by_module : call it as ``attend(call, module)``, the model's own attention, for what keeps its weights there.
    """
    import transformers
    from transformers.masking_utils import sdpa_mask

    def full_mask(*sizes, **how):
        how |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return sdpa_mask(*sizes, **how)

    def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, position_bias=None, **others):
        call = _call_of(module, query, key, value, attention_mask, scaling, position_bias)
        for word, meaning in _BEYOND_SOFTMAX.items():
            if others.get(word) is not None:
                _refuse(module, meaning)
        if dropout and module.training:
            _refuse(module, f"drops weights out while it trains (probability {dropout})")
        out = attend(call, module if by_module else getattr(module, "layer_idx", None))
        return out.transpose(1, 2).contiguous(), None

    transformers.AttentionInterface.register(name, attention)
    transformers.AttentionMaskInterface.register(name, full_mask)


@dataclass(frozen=True, kw_only=True)
class Captured:
    """What one layer's attention was called with: ``layer`` counts calls from 0, ``call`` holds q, k, v and rules."""

    layer: int
    call: AttentionCall


@torch.no_grad()
def capture(model, inputs, *, layers: Collection[int] | None = None, tokenizer=None) -> list[Captured]:
    """Run a transformers model with dense attention and return what its attention was called with.

    Parameters
    ----------
    model : a ``PreTrainedModel``; left as it was.
    inputs : a text, or keyword arguments for the model, such as what its tokenizer returns.
    layers : which calls to keep, counted from 0; all unless given.
    tokenizer : for a text; the one that lies where the model was loaded from unless given.

    Raises
    ------
    ValueError : the model does not hand its attention over; the message names it.
    """
    found, number = [], count()

    def keep(call, _):
        at = next(number)
        if layers is None or at in layers:
            found.append(Captured(layer=at, call=call))
        return call.dense()

    _require_interface(model)
    if isinstance(inputs, str):
        inputs = (tokenizer or _tokenizer_of(model))(inputs, return_tensors="pt")
    before = model.config._attn_implementation
    name = f"sparse_workbench_capture_{next(_numbers)}"
    register(name, keep)
    try:
        model.set_attn_implementation(name)
        model(**inputs)
    finally:
        model.set_attn_implementation(before)
    if not next(number):
        _refuse(model, "computes its attention itself")
    return found


def _tokenizer_of(model):
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(model.config._name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"capture: there is no tokenizer where {type(model).__name__} was loaded from; pass tokenizer=..., or what "
            "a tokenizer returned in place of the text"
        ) from error


def _require_interface(model):
    if not hasattr(model, "_can_set_attn_implementation"):
        raise ValueError(
            f"use_sparse_attention: model must be a transformers PreTrainedModel, got {type(model).__name__}"
        )
    if not model._can_set_attn_implementation():
        _refuse(model, "does not hand its attention over")


@torch.no_grad()
def _check_takes_over(model, check):
    _require_interface(model)
    inputs = short_batch(model) if check is None else check
    calls = []

    def watched(call, _):
        calls.append(call)
        return call.dense()

    name = f"sparse_workbench_check_{next(_numbers)}"
    register(name, watched)
    training = model.training
    model.eval()
    try:
        model.set_attn_implementation("eager")
        try:
            wanted = _result(model, inputs)
        except Exception as error:
            raise ValueError(
                f"use_sparse_attention: {type(model).__name__} does not run on the short batch of the check "
                f"({type(error).__name__}: {error}); pass one that it takes as check, such as what its tokenizer "
                "returns"
            ) from error
        model.set_attn_implementation(name)
        found = _result(model, inputs)
    finally:
        model.train(training)
    if not calls:
        _refuse(model, "computes its attention itself")
    eps = torch.finfo(wanted.dtype).eps
    gap = (found - wanted).abs().max().item() / wanted.abs().max().clamp(min=eps).item()
    if not gap < max(1e-4, 16 * eps):
        _refuse(model, f"does more in its attention than softmax of q . k (its results differ by {gap:.2g})")


def _result(model, inputs):
    """Return the first float result of a forward pass, at real tokens."""
    out = model(**inputs)
    found = next(x for x in out.to_tuple() if isinstance(x, torch.Tensor) and x.is_floating_point())
    real = inputs.get("attention_mask")
    if real is not None and found.shape[:2] == real.shape:
        return found[real.bool()]
    return found


def short_batch(model) -> dict[str, torch.Tensor]:
    """Return a small padded batch of tokens for a transformers model; ValueError if it takes no tokens."""
    sizes = model.config.get_text_config()
    if model.main_input_name != "input_ids" or not getattr(sizes, "vocab_size", None):
        raise ValueError(
            f"use_sparse_attention: {type(model).__name__} takes {model.main_input_name}; pass a small input for the "
            f"check, e.g. check={{'{model.main_input_name}': ...}}"
        )
    tokens = torch.randint(3, sizes.vocab_size, (2, 24), generator=torch.Generator().manual_seed(0))
    real = torch.ones(2, 24, dtype=torch.long)
    real[1, :5] = 0
    inputs = {"input_ids": tokens, "attention_mask": real}
    return inputs | ({"decoder_input_ids": tokens[:, :7]} if model.config.is_encoder_decoder else {})


def _call_of(module, query, key, value, attention_mask, scaling, position_bias):
    name = f"sparse attention in {type(module).__name__}"
    tq, tk = query.shape[2], key.shape[2]
    if attention_mask is not None and attention_mask.ndim != 4:
        _refuse(module, f"gives its attention a mask of {attention_mask.ndim} dimensions")
    causal = False
    if attention_mask is not None:
        attention_mask = attention_mask[..., :tk]
        if attention_mask.dtype == torch.bool:
            causal, attention_mask = _rule_of(attention_mask, tq, tk)
    if position_bias is not None:
        bias = position_bias if attention_mask is None else _added(position_bias, attention_mask)
        attention_mask = bias
    if tq > tk:
        causal = False
    return attention_call(name, query, key, value, causal=causal, scale=scaling, attn_mask=attention_mask)


def _added(bias, mask):
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask


def _rule_of(mask, tq, tk):
    """Return whether a mask is causal at the end of the keys, and what is left of it besides: None if nothing is."""
    known = getattr(mask, "_workbench_rule", None)
    if known is not None and known[0] == (tq, tk):
        return known[1]
    order = torch.ones(tq, tk, dtype=torch.bool).tril(tk - tq) if tq <= tk else torch.ones(tq, tk, dtype=torch.bool)
    keys = mask.any(dim=2, keepdim=True)
    causal = 1 < tq <= tk and not (mask & ~order).any()
    if (mask == ((order & keys) if causal else keys)).all():
        rule = causal, None if keys.all() else keys
    else:
        rule = causal, mask
    mask._workbench_rule = (tq, tk), rule  # the same mask passes through every layer
    return rule


def _refuse(module, reason):
    name = getattr(getattr(module, "config", None), "model_type", None)
    kind = f"{type(module).__name__} ({name})" if name else type(module).__name__
    raise ValueError(f"use_sparse_attention: {kind} {reason}; its attention cannot be replaced, choose another model")
