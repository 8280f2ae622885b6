"""Sparse attention in transformers models: equal to eager attention at threshold 1, or refused by name."""

import pytest
import torch

from workbench.models.attention.call import attention_call
from workbench.models.attention.dense_attention import masked_attention
from workbench.models.attention.xattention import xattention
from workbench.models.drop_in import METHODS, capture, sparse_attention, use_sparse_attention

transformers = pytest.importorskip("transformers", reason="needs the extra [models]")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    "attention_chunk_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # other names of the same sizes
    **dict.fromkeys(["d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"], 32),
    **dict.fromkeys(["ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "hidden_dim", "d_ff", "dff"], 48),
    **dict.fromkeys(["n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"], 4),
    **dict.fromkeys(["n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"], 2),
    **dict.fromkeys(["num_local_experts", "num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "num_kv_heads"], 2),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size"], 16),
    "rotary_dim": 8,
    "n_positions": 64,
}
SPARSE = {
    "xattention": {"block_size": 16, "stride": 4},
    "pbs_attn": {"block_size": 8, "segment_size": 16},
    "dense": {},
}


def tiny(name, **changes):
    """Make a model of random weights by the name of its configuration."""
    kind = transformers.CONFIG_MAPPING[name]
    base = kind()
    sizes = {k: v for k, v in SIZES.items() if hasattr(base, k) and not isinstance(getattr(kind, k, None), property)}
    torch.manual_seed(0)
    config = kind(**(sizes | changes))
    causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    return kind.from_config(config).eval()


def batch(padded="left", t=50):
    tokens = torch.randint(3, 99, (2, t), generator=torch.Generator().manual_seed(1))
    real = torch.ones(2, t, dtype=torch.long)
    real[1, {"left": slice(0, 20), "right": slice(t - 20, None), "nowhere": slice(0)}[padded]] = 0
    return {"input_ids": tokens, "attention_mask": real}


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits[inputs["attention_mask"].bool()]


@pytest.mark.parametrize("padded", ["left", "right", "nowhere"])
@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("name", ["llama", "mistral", "llama4_text", "bert", "gpt2"])
def test_threshold_one_is_eager_attention(name, method, padded, assert_close):
    """Grouped heads, a window of 8, chunks of 8, both directions, and a scale by layer, in batches padded or not."""
    changes = {"layer_types": ["chunked_attention", "full_attention"]} if name == "llama4_text" else {}
    model = tiny(name, **changes)
    model.set_attn_implementation("eager")
    wanted = logits(model, batch(padded))
    threshold = {} if method == "dense" else {"threshold": 1.0}
    use_sparse_attention(model, method, **SPARSE[method], **threshold)
    assert model.config._attn_implementation.startswith(f"sparse_workbench_{method}")
    assert_close(logits(model, batch(padded)), wanted)
    if method != "dense" and name in ("llama", "bert"):  # windows and chunks of 8 leave nothing to skip
        use_sparse_attention(model, method, **SPARSE[method], threshold=0.0)
        assert not torch.allclose(logits(model, batch(padded)), wanted, atol=1e-3)
        use_sparse_attention(model, "dense")  # what the model has now is not what the check compares with
        assert_close(logits(model, batch(padded)), wanted)


ARCHITECTURES = [
    "albert", "arcee", "bart", "bert-generation", "biogpt", "bitnet", "blenderbot", "camembert", "codegen",
    "cohere", "cohere2", "ctrl", "diffllama", "distilbert", "doge", "electra", "ernie", "esm", "exaone4", "gemma",
    "gemma3_text", "glm4", "gpt_bigcode", "gpt_neox", "gptj", "granite", "granitemoe", "helium", "jetmoe", "lfm2",
    "mbart", "ministral", "mixtral", "modernbert", "nemotron", "olmo2", "olmoe", "opt", "pegasus", "persimmon",
    "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "roberta",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_equals_its_eager_attention(name, assert_close):
    model = tiny(name)
    inputs = batch()
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :31]
    use_sparse_attention(model, "xattention", threshold=1.0, **SPARSE["xattention"])
    with torch.no_grad():
        found = model(**inputs).logits
        model.set_attn_implementation("eager")
        wanted = model(**inputs).logits
    real = inputs["attention_mask"].bool()
    assert_close(*((x[real] if x.shape[:2] == real.shape else x) for x in (found, wanted)))


@pytest.mark.parametrize("name", ["bloom", "gemma2", "gpt_oss"])
def test_models_that_cannot_be_replaced_are_refused_by_name_and_left_as_they_were(name):
    model = tiny(name)
    before = model.config._attn_implementation
    wanted = logits(model, batch())
    with pytest.raises(ValueError, match=rf"\({name}\) .*its attention cannot be replaced, choose another model"):
        use_sparse_attention(model, "xattention", threshold=1.0)
    assert model.config._attn_implementation == before
    assert torch.equal(logits(model, batch()), wanted)


@pytest.mark.parametrize("method", ["xattention", "pbs_attn"])
def test_generation_follows_eager_at_threshold_one_and_runs_below(method):
    model = tiny("llama")
    model.set_attn_implementation("eager")
    how = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    wanted = model.generate(**batch(), **how)
    use_sparse_attention(model, method, **SPARSE[method], threshold=1.0)
    assert torch.equal(model.generate(**batch(), **how), wanted)
    assert torch.equal(model.generate(**batch(), **how, cache_implementation="static"), wanted)
    use_sparse_attention(model, method, **SPARSE[method], threshold=0.3)
    assert model.generate(**batch(), **how).shape == wanted.shape


@pytest.mark.parametrize("padded", ["left", "nowhere"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_prompt_read_in_pieces_is_followed_as_the_whole_is(method, padded):
    """Pieces of 16 of its 50 tokens: several queries after a cache, with a mask and without one."""
    model = tiny("llama")
    model.set_attn_implementation("eager")
    how = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    wanted = torch.stack(model.generate(**batch(padded), **how).logits)
    threshold = {} if method == "dense" else {"threshold": 1.0}
    use_sparse_attention(model, method, **SPARSE[method], **threshold)
    found = model.generate(**batch(padded), **how, prefill_chunk_size=16)
    assert torch.allclose(torch.stack(found.logits), wanted, atol=1e-4)


@pytest.mark.parametrize("method", ["xattention", "pbs_attn"])
def test_a_single_query_is_dense_and_two_are_not(method):
    """Of 64 keys, nothing but the last blocks of 8 or 16 is kept at threshold 0."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 64, 8, generator=generator) for _ in range(3))
    for tq in (1, 2):
        call = attention_call("test", q[:, :, -tq:], k, v, causal=True)
        found = METHODS[method](call, threshold=0.0, **SPARSE[method])
        sees = torch.ones(tq, 64, dtype=torch.bool).tril(64 - tq)
        dense = masked_attention(q[:, :, -tq:], k, v, sees, causal=False)
        assert torch.allclose(found, dense, atol=1e-4) == (tq == 1)


def test_only_the_layers_asked_for_are_sparse(assert_close):
    model, seen = tiny("llama"), []
    dense = logits(model, batch())

    def own(call):
        seen.append(call.q.shape)
        return torch.zeros_like(call.q)

    model.set_attn_implementation(sparse_attention(own, layers={1}))
    changed = logits(model, batch())
    assert len(seen) == 1 and not torch.allclose(changed, dense, atol=1e-4)
    model.set_attn_implementation(sparse_attention(own, layers=()))
    assert_close(logits(model, batch()), dense)


def test_what_a_layer_is_called_with_can_be_captured(assert_close):
    model = tiny("mistral", num_hidden_layers=3)
    before = model.config._attn_implementation
    found = capture(model, batch(), layers={0, 2})
    assert [each.layer for each in found] == [0, 2]
    call = found[0].call
    assert call.q.shape == (2, 4, 50, 8) and call.k.shape == (2, 2, 50, 8) and call.causal
    distance = torch.arange(50)[:, None] - torch.arange(50)
    window = (distance >= 0) & (distance < 8) & batch()["attention_mask"].bool()[:, None, None]
    k, v = (x.repeat_interleave(2, 1) for x in (call.k, call.v))
    assert_close(call.dense(), masked_attention(call.q, k, v, window, causal=False))
    out, _ = xattention(call.q, call.k, call.v, scale=call.scale, attn_mask=call.attn_mask, threshold=1.0)
    assert_close(out, call.dense())
    assert model.config._attn_implementation == before


def test_a_text_is_captured_through_the_tokenizer_given_or_beside_the_model(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "sparse": 5, "attention": 6}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", model_input_names=["input_ids", "attention_mask"]
    )
    model = tiny("llama")
    wanted = capture(model, {"input_ids": torch.tensor([[5, 6]])})
    with pytest.raises(ValueError, match="no tokenizer where LlamaForCausalLM was loaded from; pass tokenizer"):
        capture(model, "sparse attention")
    given = capture(model, "sparse attention", tokenizer=tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    beside = capture(transformers.AutoModelForCausalLM.from_pretrained(tmp_path), "sparse attention")
    for found in (given, beside):
        assert len(found) == len(wanted) == 2
        assert all(torch.equal(a.call.q, b.call.q) for a, b in zip(found, wanted, strict=True))


def test_training_with_dropout_is_refused_and_without_it_gives_gradients():
    model = tiny("llama", attention_dropout=0.1).train()
    use_sparse_attention(model, "xattention", threshold=0.5, **SPARSE["xattention"])
    assert model.training
    with pytest.raises(ValueError, match="drops weights out while it trains"):
        model(**batch())
    model = use_sparse_attention(tiny("llama"), "pbs_attn", threshold=0.5, **SPARSE["pbs_attn"]).train()
    model(**batch(), labels=batch()["input_ids"]).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_refusals():
    with pytest.raises(ValueError, match="method must be one of xattention, pbs_attn, dense or a function; got"):
        sparse_attention("best")
    with pytest.raises(ValueError, match="must be a transformers PreTrainedModel, got Linear"):
        capture(torch.nn.Linear(2, 2), {})
    vision = transformers.ViTModel(transformers.ViTConfig(**{k: SIZES[k] for k in list(SIZES)[:4]}, image_size=32))
    with pytest.raises(ValueError, match=r"ViTModel takes pixel_values; pass a small input for the check"):
        use_sparse_attention(vision, "xattention")
    pixels = torch.rand(1, 3, 32, 32)
    use_sparse_attention(vision, "xattention", check={"pixel_values": pixels}, threshold=1.0, **SPARSE["xattention"])
    assert vision(pixels).last_hidden_state.isfinite().all()
