"""The encoder is the published one, and its attention can be replaced."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workbench.models.language import minilm


@pytest.fixture(scope="module")
def model():
    pytest.importorskip(minilm.PACKAGE, reason="needs the extra [models]")
    return minilm.load()


def plain_attention(q, k, v, layer):
    return torch.softmax(q @ k.mT * q.shape[3] ** -0.5, -1) @ v


def test_published_cosine(model):
    a, b, c = model.embed(["A man is eating food.", "A man is eating a piece of bread.", "A cheetah is running."])
    assert a @ b == pytest.approx(0.755, abs=0.002)
    assert a @ c < 0.2
    assert torch.linalg.norm(a) == pytest.approx(1, abs=1e-6)


def test_padding_changes_nothing(model, assert_close):
    texts = ["Short.", "This one is rather longer than the other, by several words."]
    assert_close(model.embed(texts), torch.cat([model.embed([text]) for text in texts]))


def test_replaced_attention_and_qkv(model, assert_close):
    tokens = model.encode("Sparse attention keeps few of the scores.")
    seen = {}

    def record(q, k, v, layer):
        seen[layer] = (q, k, v)
        return plain_attention(q, k, v, layer)

    assert_close(model(tokens, attention=record), model(tokens))
    assert sorted(seen) == list(range(6))
    for mine, theirs in zip(model.qkv(tokens, 4, attention=record), seen[4], strict=True):
        assert mine.shape == (1, 12, tokens.shape[1], 32)
        assert_close(mine, theirs)
    only_last = model(tokens, attention={5: lambda q, k, v, layer: torch.zeros_like(v)})
    assert not torch.allclose(only_last, model(tokens), atol=1e-2)


def test_layer_equals_torch_transformer_layer(model, assert_close):
    layer, x = model.layers[2], torch.randn(2, 9, 384, generator=torch.Generator().manual_seed(0))
    torch_layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, 0.0, F.gelu, 1e-12, batch_first=True)
    own = layer.state_dict()
    weights = {
        "self_attn.in_proj_weight": torch.cat([own[f"{part}.weight"] for part in ("query", "key", "value")]),
        "self_attn.in_proj_bias": torch.cat([own[f"{part}.bias"] for part in ("query", "key", "value")]),
    }
    pairs = {"self_attn.out_proj": "out", "linear1": "feed_in", "linear2": "feed_out"}
    pairs |= {"norm1": "norm_attention", "norm2": "norm_feed"}
    weights |= {
        f"{theirs}.{kind}": own[f"{mine}.{kind}"] for theirs, mine in pairs.items() for kind in ("weight", "bias")
    }
    torch_layer.load_state_dict(weights)
    assert_close(layer.finish(x, plain_attention(*layer.qkv(x), 2)), torch_layer.train()(x).detach())


def test_windows_and_spans(model):
    text = "The quick brown fox jumps over the lazy dog. " * 30
    windows = model.windows(text, 64)
    assert windows.shape[1] == 64
    assert (windows[:, 0] == 101).all() and (windows[:, -1] == 102).all()
    whole = model.encode(text)[0, 1:-1]
    assert torch.equal(windows[:, 1:-1].flatten(), whole[: windows[:, 1:-1].numel()])
    assert len(model.windows("short", 64)) == 0
    spans = model.spans("Hello, world")
    assert [("Hello, world"[a:b]) for a, b in spans] == ["", "Hello", ",", "world", ""]
    assert spans.dtype == np.int64


def test_refusals(model):
    with pytest.raises(ValueError, match="at most 512"):
        model(torch.zeros(1, 513, dtype=torch.int64))
    with pytest.raises(ValueError, match="layer must be from 0 to 5"):
        model.qkv(torch.zeros(1, 3, dtype=torch.int64), 6)
    with pytest.raises(ValueError, match="real cannot go with attention"):
        model(torch.zeros(1, 3, dtype=torch.int64), attention=plain_attention, real=torch.ones(1, 3, dtype=torch.bool))


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"sparse-workbench\[models\]"):
        minilm.load.__wrapped__()
