"""The model is causal, equals its formulas, and lets its attention be replaced."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from workbench.folders import WEIGHTS
from workbench.models.language import text_cost, tiny_lm
from workbench.models.language.tiny_lm import TinyConfig, TinyLM

SMALL = TinyConfig(layers=3, heads=8, width=64, hidden=96, context=64)
SHIPPED = WEIGHTS / "tiny_lm.safetensors"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    model = TinyLM(SMALL, tiny_lm.tokenizer())
    with torch.no_grad():
        for weight in model.parameters():  # larger than at the start of training, so that attention is not flat
            weight.mul_(6 if weight.ndim == 2 else 1)
    return model.eval().requires_grad_(False)


@pytest.fixture
def tokens(rng):
    return torch.tensor(rng.integers(0, SMALL.vocabulary, (2, 40)))


def plain_attention(q, k, v, layer):
    t = q.shape[2]
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    return torch.softmax((q @ k.mT * q.shape[3] ** -0.5).masked_fill(future, -torch.inf), -1) @ v


def test_no_token_sees_a_later_one(model, tokens):
    changed = tokens.clone()
    changed[:, 25:] = (changed[:, 25:] + 1) % SMALL.vocabulary
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :25], after[:, :25])
    assert (before[:, 25:] != after[:, 25:]).any()


def test_attention_is_replaced_in_all_layers_or_one(model, tokens, assert_close):
    assert_close(model(tokens, attention=plain_attention), model(tokens))
    assert_close(model(tokens, attention={1: plain_attention}), model(tokens))
    silent = model(tokens, attention={1: lambda q, k, v, layer: torch.zeros_like(v)})
    assert not torch.allclose(silent, model(tokens), atol=1e-3)


def test_qkv_is_what_attention_sees(model, tokens):
    seen = {}

    def record(q, k, v, layer):
        seen[layer] = (q, k, v)
        return tiny_lm.dense_attention(q, k, v)

    model(tokens, attention=record)
    assert sorted(seen) == [0, 1, 2]
    for layer in seen:
        for mine, theirs in zip(model.qkv(tokens, layer), seen[layer], strict=True):
            assert mine.shape == (2, 8, 40, 8)
            assert torch.equal(mine, theirs)


def test_rotation_depends_on_distance_only(assert_close):
    rotary = tiny_lm.Rotary(16, 10000.0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def score(i, j):
        return (tiny_lm.rotate(q, *rotary.angles(i, 1)) * tiny_lm.rotate(k, *rotary.angles(j, 1))).sum()

    assert_close(score(9, 4), score(105, 100))
    assert_close(score(7, 7), (q * k).sum())
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_rotation_by_hand():
    x = torch.tensor([[[[1.0, 0.0, 0.0, 2.0]]]])  # pairs (1, 0) and (0, 2), frequencies 1 and 1/100
    cos, sin = tiny_lm.Rotary(4, 10000.0).angles(3, 1)
    found = tiny_lm.rotate(x, cos, sin)[0, 0, 0]
    wanted = [np.cos(3), -2 * np.sin(0.03), np.sin(3), 2 * np.cos(0.03)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_cached_steps_equal_one_pass(model, tokens, assert_close):
    whole, cache = model(tokens), []
    parts = [model(part, cache=cache) for part in tokens.split([20, 1, 19], dim=1)]
    assert_close(torch.cat(parts, dim=1), whole)
    assert cache[0][0].shape == (2, 8, 40, 8)


def test_loss_is_the_mean_cost_of_the_next_token(model, tokens):
    chance = torch.log_softmax(model(tokens)[:, :-1], -1)
    wanted = -chance.gather(2, tokens[:, 1:, None]).mean()
    assert model.loss(tokens).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("context", [8, 32, 1000])
def test_bits_per_byte_counts_each_token_once_with_enough_context(model, context):
    text = "".join(f"value_{i} = {i * i}\n" for i in range(6))
    ids = model.encode(text)
    half, total = context // 2, 0.0
    for at in range(1, ids.shape[1]):
        start = max(0, (at - 1) // half - 1) * half  # the window in whose second half this token lies
        chance = torch.log_softmax(model(ids[:, start:at])[0, -1], 0)
        total -= chance[ids[0, at]].item()
    assert text_cost.nats(model, text, context=context) == pytest.approx(total, rel=1e-4)
    assert model.bits_per_byte(text, context=context) == pytest.approx(total / np.log(2) / len(text.encode()), rel=1e-4)


def test_generation_is_repeatable_and_greedy_follows_the_logits(model):
    assert model.generate("import", 5, seed=3) == model.generate("import", 5, seed=3)
    first = model(model.encode("import"))[0, -1].argmax()
    assert model.generate("import", 1, temperature=0) == model.tokenizer.decode([first])


def test_spans_match_tokens(model):
    text = "for x in y:\n    pass\n"
    spans = model.spans(text)
    assert len(spans) == model.encode(text).shape[1]
    assert "".join(text[a:b] for a, b in spans) == text


def test_saved_model_is_the_same_in_half_precision(model, tokens, tmp_path):
    tiny_lm.save(model, tmp_path / "model.safetensors")
    again = tiny_lm.load(tmp_path / "model.safetensors")
    assert again.config == SMALL
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name].half().float())


def test_refusals(model, tmp_path):
    with pytest.raises(ValueError, match="layer must be from 0 to 2"):
        model.qkv(model.encode("a"), 3)
    with pytest.raises(ValueError, match="text is empty"):
        model.bits_per_byte("")
    with pytest.raises(ValueError, match="even"):
        model.bits_per_byte("a", context=3)
    with pytest.raises(ValueError, match="multiple of 2"):
        TinyLM(TinyConfig(width=100))
    with pytest.raises(ValueError, match="no tokenizer"):
        TinyLM(SMALL).encode("a")
    with pytest.raises(FileNotFoundError, match="train_tiny_lm"):
        tiny_lm.load(tmp_path / "absent.safetensors")


def test_gradients_reach_every_weight():
    model = TinyLM(SMALL)
    model.loss(torch.randint(0, 4096, (1, 20), generator=torch.Generator().manual_seed(0))).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_importing_the_workbench_brings_no_torch():
    code = "import workbench, workbench.data.text, workbench.data.tokenizer, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_step_of_training_lowers_the_loss():
    from workbench.models.language import train_tiny_lm

    model = TinyLM(SMALL)
    tokens = torch.randint(0, 50, (4, 33), generator=torch.Generator().manual_seed(0))
    optimizers = train_tiny_lm.optimizers(model)
    assert sum(len(g["params"]) for o in optimizers for g in o.param_groups) == len(list(model.parameters()))
    losses = []
    for _ in range(4):
        loss = model.loss(tokens, attention=train_tiny_lm.attention)
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.5


def test_batches_are_equal_for_equal_seed_and_step():
    from workbench.models.language import train_tiny_lm

    corpora = {"documentation": np.arange(5000), "library": np.arange(10000, 20000)}
    first, second = (train_tiny_lm.batch(corpora, 3, 512, seed=1) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (train_tiny_lm.TOKENS_PER_STEP // 512, 513)
    assert not torch.equal(first, train_tiny_lm.batch(corpora, 4, 512, seed=1))
    assert (first[:, 1:] - first[:, :-1] == 1).all()
