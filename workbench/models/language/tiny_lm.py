"""A small causal language model that ships with the workbench: decoder-only, RoPE, RMSNorm, SwiGLU.

Every layer's softmax attention can be replaced by a callable ``attention(q, k, v, layer) -> out`` on (b, h, t, d)
tensors, and `TinyLM.qkv` gives what such a method sees. What it was trained on and how well it predicts stands in
``weights/tiny_lm.md``.
"""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data.tokenizer import Tokenizer
from workbench.folders import WEIGHTS
from workbench.models.language import text_cost


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of a `TinyLM`."""

    vocabulary: int = 4096
    layers: int = 6
    heads: int = 8
    width: int = 256
    hidden: int = 704
    context: int = 2048
    rope_base: float = 10000.0


class Rotary(nn.Module):
    """Turn each pair of features by an angle that grows with the position (Su et al. 2021, RoFormer, Eq. 34)."""

    def __init__(self, head_width, base):
        super().__init__()
        self.register_buffer("frequency", base ** (-torch.arange(0, head_width, 2) / head_width), persistent=False)

    def angles(self, start, length):
        """Return cos and sin, each (t, d)."""
        position = torch.arange(start, start + length, device=self.frequency.device)
        angle = torch.outer(position, self.frequency.float()).repeat(1, 2)  # (t, d)
        return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Apply the angles of `Rotary` to x (b, h, t, d); features i and i + d/2 form a pair."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)


def dense_attention(q, k, v, layer=None):
    """Causal softmax attention; the queries are the last positions of the keys."""
    if q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    position = torch.arange(k.shape[2], device=q.device)
    allowed = position <= position[k.shape[2] - q.shape[2] :, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


class Layer(nn.Module):
    """Attention and a gated feed-forward part, each on a normalised copy of the stream."""

    def __init__(self, config):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm_attention = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm_feed = nn.RMSNorm(width, eps=1e-6)
        self.gate, self.up = (nn.Linear(width, config.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(config.hidden, width, bias=False)

    def qkv(self, x, angles):
        """Return q and k after RoPE, and v, each (b, h, t, d)."""
        b, t, width = x.shape
        x = self.norm_attention(x)
        q, k, v = (
            project(x).view(b, t, self.heads, width // self.heads).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        return rotate(q, *angles), rotate(k, *angles), v

    def finish(self, x, attended):
        """Add attention's output (b, h, t, d) and the feed-forward part to the stream (b, t, width)."""
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y = self.norm_feed(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class TinyLM(nn.Module):
    """Decoder-only language model.

    Parameters
    ----------
    config : TinyConfig.
    tokenizer : `workbench.data.tokenizer.Tokenizer`, needed by the methods that take text.
    """

    causal = True

    def __init__(self, config=None, tokenizer=None):
        super().__init__()
        config = config or TinyConfig()
        if config.width % (2 * config.heads):
            raise ValueError(f"TinyLM: width must be a multiple of 2 * heads = {2 * config.heads}, got {config.width}")
        self.config, self.tokenizer = config, tokenizer
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.rotary = Rotary(config.width // config.heads, config.rope_base)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.unembedding = nn.Linear(config.width, config.vocabulary, bias=False)
        self.reset()

    def reset(self, seed=0):
        """Draw the starting weights: normal with deviation 0.02, less for what adds to the stream."""
        rng = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                deviation = 0.02 / (2 * self.config.layers) ** 0.5 if residual else 0.02
                with torch.no_grad():
                    weight.normal_(0, deviation, generator=rng)

    @property
    def heads(self):
        """Attention heads per layer."""
        return self.config.heads

    def forward(self, tokens, *, attention=None, cache=None, start=0):
        """Return next-token logits.

        Parameters
        ----------
        tokens : int64 (b, t).
        attention : None for dense causal attention; a callable ``attention(q, k, v, layer) -> out`` for all layers; or
            a dict from layer to such a callable, dense elsewhere.
        cache : None, or a list that holds keys and values of earlier positions and is extended (start with ``[]``).
        start : position of the first token, where ``attention`` itself keeps the keys and values of earlier ones.

        Returns
        -------
        (b, t, vocabulary).
        """
        return self.unembedding(self.norm(self.hidden(tokens, attention=attention, cache=cache, start=start)))

    def hidden(self, tokens, *, attention=None, cache=None, layers=None, start=0):
        """Return the stream (b, t, width) after all layers, or after the first ``layers`` of them."""
        start = cache[0][0].shape[2] if cache else start
        x, angles = self.embedding(tokens), self.rotary.angles(start, tokens.shape[1])
        for index, layer in enumerate(self.layers[:layers]):
            q, k, v = layer.qkv(x, angles)
            if cache is not None:
                if index < len(cache):
                    k, v = torch.cat((cache[index][0], k), dim=2), torch.cat((cache[index][1], v), dim=2)
                    cache[index] = (k, v)
                else:
                    cache.append((k, v))
            x = layer.finish(x, _attention_of(attention, index)(q, k, v, index))
        return x

    @torch.no_grad()
    def qkv(self, tokens, layer, *, attention=None):
        """Return q and k after RoPE, and v, of one layer, each (b, h, t, d).

        Parameters
        ----------
        tokens : int64 (b, t).
        layer : int, from 0.
        attention : as in `forward`, for the layers before.

        Raises
        ------
        ValueError : no such layer.
        """
        if not 0 <= layer < len(self.layers):
            raise ValueError(f"TinyLM.qkv: layer must be from 0 to {len(self.layers) - 1}, got {layer}")
        x = self.hidden(tokens, attention=attention, layers=layer)
        return self.layers[layer].qkv(x, self.rotary.angles(0, tokens.shape[1]))

    def loss(self, tokens, *, attention=None):
        """Return the mean cross-entropy, in nats per token, of tokens (b, t) predicted from those before them."""
        return self.cost(self.hidden(tokens[:, :-1], attention=attention), tokens[:, 1:])

    def cost(self, x, targets):
        """Return the mean cross-entropy of targets (b, t) given the stream x (b, t, width)."""
        return F.cross_entropy(self.unembedding(self.norm(x)).flatten(0, 1).float(), targets.flatten())

    def encode(self, text):
        """Return the ids of a text after the end mark, which every document starts with: int64 (1, t)."""
        return torch.from_numpy(self._tokens().encode_documents([text])[None, :-1])

    def spans(self, text):
        """Return where each token of `encode` lies in the text: int64 (t, 2), an empty span for the end mark."""
        return np.concatenate([np.zeros((1, 2), np.int64), self._tokens().spans(text)])

    def bits_per_byte(self, text, *, context=512, attention=None):
        """Return the cost of a text in bits per byte of its UTF-8 form; see `text_cost.nats`."""
        return text_cost.bits_per_byte(self, text, context=context, attention=attention)

    @torch.no_grad()
    def generate(self, text, tokens, *, temperature=0.8, top_k=40, seed=0):
        """Continue a text by up to ``tokens`` tokens, keys and values cached; temperature 0 takes the likeliest."""
        rng, cache = torch.Generator().manual_seed(seed), []
        ids = given = self.encode(text)
        step = ids
        while ids.shape[1] < given.shape[1] + tokens:
            logits = self(step, cache=cache)[0, -1].float()
            if temperature == 0:
                step = logits.argmax()[None, None]
            else:
                best, where = logits.topk(min(top_k, len(logits)))
                step = where[torch.multinomial((best / temperature).softmax(0), 1, generator=rng)][None]
            if step.item() == self._tokens().end:
                break
            ids = torch.cat((ids, step), dim=1)
        return self._tokens().decode(ids[0, given.shape[1] :])

    def _tokens(self):
        if self.tokenizer is None:
            raise ValueError("TinyLM: this model has no tokenizer; pass one to TinyLM(config, tokenizer) or use load()")
        return self.tokenizer


def _attention_of(attention, layer):
    if isinstance(attention, dict):
        attention = attention.get(layer)
    return attention or dense_attention


@cache
def tokenizer() -> Tokenizer:
    """Return the embedded tokenizer."""
    return Tokenizer.read(WEIGHTS / "tokenizer.json")


def load(path=WEIGHTS / "tiny_lm.safetensors") -> TinyLM:
    """Return the embedded model in float32, ready to predict.

    Raises
    ------
    FileNotFoundError : the checkpoint is missing; train one with ``python -m workbench.models.language.train_tiny_lm``.
    """
    from safetensors import safe_open

    if not Path(path).exists():
        raise FileNotFoundError(
            f"tiny_lm.load: no {path}; train one with python -m workbench.models.language.train_tiny_lm"
        )
    with safe_open(str(path), framework="pt") as stored:
        sizes = {name: float(value) if "." in value else int(value) for name, value in stored.metadata().items()}
        weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    model = TinyLM(TinyConfig(**sizes), tokenizer())
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def save(model, path):
    """Store a model's weights in half precision, the sizes in its ``config`` in the file's metadata."""
    from safetensors.torch import save_file

    weights = {name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(path), metadata={name: str(value) for name, value in asdict(model.config).items()})
