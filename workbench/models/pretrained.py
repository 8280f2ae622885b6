"""A Hugging Face causal language model by its id, in `TinyLM`'s place.

The model hands its attention over (`workbench.models.drop_in`), so that any layer's can be replaced and its q, k and
v read after position encoding, keys and values repeated to the query heads. Nothing is downloaded unless `load` is
called.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.drop_in import register
from workbench.models.language import text_cost

FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
NAME = "sparse_workbench"


@dataclass(frozen=True)
class PretrainedConfig:
    """Sizes of a pretrained model."""

    name: str
    vocabulary: int
    layers: int
    heads: int
    width: int
    context: int


class PretrainedLM(nn.Module):
    """A causal language model of transformers with the methods of `TinyLM`; `load` makes one."""

    causal = True

    def __init__(self, inner, tokenizer, name):
        super().__init__()
        sizes = inner.config.get_text_config()
        self.config = PretrainedConfig(
            name,
            sizes.vocab_size,
            sizes.num_hidden_layers,
            sizes.num_attention_heads,
            sizes.hidden_size,
            sizes.max_position_embeddings,
        )
        self.inner, self.tokenizer = inner, tokenizer

    @property
    def heads(self):
        """Query heads per layer."""
        return self.config.heads

    def forward(self, tokens, *, attention=None):
        """Return next-token logits (b, t, vocabulary); ``attention`` as in `TinyLM.forward`.

        Raises
        ------
        ValueError : the model's attention is not plain softmax over all earlier tokens, so it cannot be replaced.
        """
        _Hook.current, _Hook.calls = attention, 0
        try:
            logits = self.inner(tokens, use_cache=False).logits
        finally:
            _Hook.current = None
        if _Hook.calls == 0:
            raise ValueError(
                f"PretrainedLM.forward: {self.config.name} does not use transformers' attention interface; choose "
                "another model"
            )
        return logits

    @torch.no_grad()
    def qkv(self, tokens, layer, *, attention=None):
        """Return q and k after position encoding, and v, of one layer, each (b, h, t, d).

        q is scaled so that the model's logits are q . k / sqrt(d).

        Raises
        ------
        ValueError : no such layer.
        """
        if not 0 <= layer < self.config.layers:
            raise ValueError(f"PretrainedLM.qkv: layer must be from 0 to {self.config.layers - 1}, got {layer}")

        def watch(q, k, v, index):
            if index == layer:
                raise _Reached(q, k, v)
            replaced = attention.get(index) if isinstance(attention, dict) else attention
            return replaced(q, k, v, index) if replaced else F.scaled_dot_product_attention(q, k, v, is_causal=True)

        try:
            self(tokens, attention=watch)
        except _Reached as reached:
            return reached.args
        raise ValueError(f"PretrainedLM.qkv: layer {layer} of {self.config.name} has no softmax attention")

    def encode(self, text):
        """Return the ids of a text after a start mark, where the tokenizer has one: int64 (1, t)."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([self._start() + ids])

    def spans(self, text):
        """Return where each token of `encode` lies in the text: int64 (t, 2), an empty span for the start mark."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return np.array([(0, 0)] * len(self._start()) + offsets, np.int64).reshape(-1, 2)

    def bits_per_byte(self, text, *, context=512, attention=None):
        """Return the cost of a text in bits per byte of its UTF-8 form; see `text_cost.nats`."""
        return text_cost.bits_per_byte(self, text, context=context, attention=attention)

    def _start(self):
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return [mark for mark in marks if mark is not None][:1]


def load(name, *, revision=None, offline=False) -> PretrainedLM:
    """Load a causal language model in float32.

    Parameters
    ----------
    name : id on huggingface.co such as ``"meta-llama/Llama-3.2-1B"``, or a folder that ``save_pretrained`` wrote.
    revision : branch, tag or commit of the id.
    offline : use only what is in the local cache.

    Returns
    -------
    PretrainedLM, ready to predict.

    Raises
    ------
    ModuleNotFoundError : transformers is not installed.
    ConnectionError : the model is not in the cache and cannot be fetched; the message says what to do.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pretrained.load: transformers is not installed; pip install 'sparse-workbench[models]', or use the "
            "embedded model, workbench.models.language.tiny_lm.load()"
        ) from error
    folder = Path(name) if Path(name).is_dir() else _fetch(name, revision, offline)
    register(NAME, _attention)
    how = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **how)
    inner = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=NAME, dtype=torch.float32, **how
    )
    return PretrainedLM(inner.eval().requires_grad_(False), tokenizer, str(name)).eval()


def _fetch(name, revision, offline):
    from huggingface_hub import constants, snapshot_download

    try:
        return snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=offline)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"pretrained.load: {name!r} is not in the cache {constants.HF_HUB_CACHE} and could not be fetched "
            f"({type(error).__name__}). On a machine with access run `hf download {name}` (after `hf auth login` if "
            "the model asks for consent) and copy that cache here, or pass the folder of a saved model; the embedded "
            "model, workbench.models.language.tiny_lm.load(), needs no network"
        ) from error


class _Hook:
    """The replaced attention of the forward pass that runs now, and how often the model asked for attention."""

    current = None
    calls = 0


class _Reached(Exception):
    """Carries q, k and v out of a forward pass once the wanted layer is reached."""


def _attention(call, layer):
    """Attention of one layer; see `PretrainedLM.forward`."""
    _Hook.calls += 1
    replaced = _Hook.current.get(layer) if isinstance(_Hook.current, dict) else _Hook.current
    if not replaced:
        return call.dense()
    if not call.causal or call.attn_mask is not None:
        raise ValueError(
            f"PretrainedLM: layer {layer} does not see all earlier tokens and only those (it has a window, chunks or a "
            f"bias), so its attention cannot be replaced for {call.q.shape[2]} tokens; pass fewer tokens"
        )
    groups = call.q.shape[1] // call.k.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (call.k, call.v))
    return replaced(call.q * (call.scale * call.q.shape[3] ** 0.5), key, value, layer)
