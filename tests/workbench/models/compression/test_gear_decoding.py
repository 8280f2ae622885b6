"""Models that decode over a compressed cache."""

import pytest
import torch

from workbench.models.compression.gear import WHOLE, GearConfig
from workbench.models.compression.gear_decoding import GearAttention, decoded_logits, generate_compressed
from workbench.models.language.tiny_lm import TinyConfig, TinyLM, load

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small():
    config = TinyConfig(vocabulary=50, layers=2, heads=2, width=64, hidden=48)
    return TinyLM(config).eval().requires_grad_(False)


def test_without_compression_a_text_costs_what_it_costs_at_once(small):
    tokens = torch.randint(0, 50, (2, 90), generator=torch.Generator().manual_seed(0))
    found, attention = decoded_logits(small, tokens, 40, GearConfig(bits=WHOLE))
    assert found.shape == (2, 51, 50) and attention.length == 90
    assert (found - small(tokens)[:, 39:]).abs().max() < 2e-3  # keys and values are halves
    with pytest.raises(ValueError, match="prompt must be from 1 to the 90 tokens, got 0"):
        decoded_logits(small, tokens, 0)


def test_compression_changes_what_follows_the_first_block_only(small):
    tokens = torch.randint(0, 50, (1, 150), generator=torch.Generator().manual_seed(1))
    exact, _ = decoded_logits(small, tokens, 10, GearConfig(bits=WHOLE))
    found, attention = decoded_logits(small, tokens, 10, GearConfig(bits=1, rank_gen=0, sparsity=0.0))
    gap = (found - exact).abs().amax((0, 2))
    assert not gap[: 63 - 9].any() and (gap[64:] > 0).all()  # the 64th token fills the first block
    assert [cache.compressed for cache in attention.caches.values()] == [128, 128]
    assert attention.nbytes() == sum(attention.nbytes(breakdown=True).values()) > 0


def test_tokens_that_come_together_equal_tokens_one_by_one(small):
    tokens = torch.randint(0, 50, (1, 80), generator=torch.Generator().manual_seed(2))
    wanted, _ = decoded_logits(small, tokens, 20)
    attention = GearAttention()
    small(tokens[:, :20], attention=attention)
    torch.testing.assert_close(small(tokens[:, 20:], attention=attention, start=20)[:, -1], wanted[:, -1])


def test_the_shipped_model_writes_over_a_compressed_cache():
    model = load()
    text = "The value of a variable is looked up"
    written, attention = generate_compressed(model, text, 6, GearConfig(bits=WHOLE))
    assert written == model.generate(text, 6, temperature=0) and attention.length > 6


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")
def test_a_transformers_model_generates_over_it():
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    from workbench.models.pretrained_cache import gear_cache

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=100, max_position_embeddings=256,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.randint(3, 100, (1, 70))
    how = {"max_new_tokens": 80, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    exact = model.generate(tokens, **how)
    cache = gear_cache(GearConfig(bits=WHOLE))
    assert torch.equal(model.generate(tokens, past_key_values=cache, **how), exact)
    cache = gear_cache(GearConfig(bits=2, group=16))
    model.generate(tokens, past_key_values=cache, **how)
    assert cache.layers[0].gear.compressed == 128 and cache.get_seq_length() == 149
