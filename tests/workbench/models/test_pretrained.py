"""A transformers model takes the embedded model's place: its own logits, attention replaced, no network."""

import sys

import pytest
import torch

from workbench.folders import WEIGHTS
from workbench.models import pretrained

transformers = pytest.importorskip("transformers", reason="needs the extra [models]")

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {"vocab_size": 4096, "max_position_embeddings": 256}


def save_model(folder, inner):
    inner.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(WEIGHTS / "tokenizer.json"), eos_token="<|end|>"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_key_value_heads=2, **SIZES)
    return save_model(tmp_path_factory.mktemp("llama"), transformers.LlamaForCausalLM(config))


@pytest.fixture(scope="module")
def model(folder):
    return pretrained.load(str(folder))


def plain_attention(q, k, v, layer):
    t = q.shape[2]
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    return torch.softmax((q @ k.mT * q.shape[3] ** -0.5).masked_fill(future, -torch.inf), -1) @ v


TEXT = "def largest(numbers):\n    return max(numbers, default=None)\n"


def test_logits_are_those_of_the_eager_model(model, folder, assert_close):
    tokens = model.encode(TEXT)
    eager = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    wanted = eager(tokens).logits.detach()
    assert_close(model(tokens), wanted)
    assert_close(model(tokens, attention=plain_attention), wanted)
    assert_close(model(tokens, attention={1: plain_attention}), wanted)


def test_attention_is_replaced_in_one_layer(model):
    tokens = model.encode(TEXT)
    changed = model(tokens, attention={2: lambda q, k, v, layer: torch.zeros_like(v)})
    assert not torch.allclose(changed, model(tokens), atol=1e-4)


def test_qkv_repeats_keys_to_the_query_heads(model):
    tokens, seen = model.encode(TEXT), {}

    def record(q, k, v, layer):
        seen[layer] = (q, k, v)
        return plain_attention(q, k, v, layer)

    model(tokens, attention=record)
    assert sorted(seen) == [0, 1, 2]
    for layer in seen:
        for mine, theirs in zip(model.qkv(tokens, layer, attention=record), seen[layer], strict=True):
            assert mine.shape == (1, 4, tokens.shape[1], 8)
            assert torch.equal(mine, theirs)
    k = seen[0][1]
    assert torch.equal(k[:, 0], k[:, 1]) and not torch.equal(k[:, 1], k[:, 2])


def test_text_has_spans_and_a_cost(model):
    tokens, spans = model.encode(TEXT), model.spans(TEXT)
    assert tokens.shape[1] == len(spans)
    assert "".join(TEXT[a:b] for a, b in spans) == TEXT
    assert 0 < model.bits_per_byte(TEXT * 4, context=16) < 20
    assert model.config.layers == 3 and model.heads == 4 and model.config.context == 256


def test_sliding_window_is_kept_and_not_replaced(tmp_path, assert_close):
    torch.manual_seed(0)
    config = transformers.MistralConfig(num_key_value_heads=4, sliding_window=4, **SIZES)
    folder = save_model(tmp_path, transformers.MistralForCausalLM(config))
    model = pretrained.load(str(folder))
    tokens = model.encode(TEXT)
    eager = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    assert_close(model(tokens), eager(tokens).logits.detach())
    with pytest.raises(ValueError, match="layer 0 does not see all earlier tokens"):
        model(tokens, attention=plain_attention)


def test_no_network_says_what_to_do(monkeypatch):
    with pytest.raises(ConnectionError, match=r"hf download nobody/nothing.*tiny_lm\.load"):
        pretrained.load("nobody/nothing", offline=True)

    import huggingface_hub

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ConnectionError, match="could not be fetched"):
        pretrained.load("nobody/nothing")


def test_without_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"sparse-workbench\[models\]"):
        pretrained.load("nobody/nothing")


def test_refusals(model):
    with pytest.raises(ValueError, match="layer must be from 0 to 2"):
        model.qkv(model.encode(TEXT), 3)
