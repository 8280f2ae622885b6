"""The shipped estimators of SEA are those of their file, record and card, and find what they were taught."""

import json

import pytest
import torch
from safetensors.torch import load_file

from workbench.models.attention import sea_training
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.sea import expand_cells, grouped_topk
from workbench.models.attention.sea_training import (
    FILE,
    HELD_OUT_WINDOWS,
    KEYS,
    SEED,
    STEPS,
    TOKENS,
    WIDTH,
    cached_qkv,
    coverage,
    measure,
    new_estimator,
    shipped,
    windows,
    without_linear_pass,
)


@pytest.fixture(scope="module")
def record():
    return json.loads(sea_training.RECORD.read_text("utf-8"))


@pytest.fixture(scope="module")
def held():
    """q, k, v of held-out windows, and their attention."""
    qkv = cached_qkv("held_out", TOKENS, HELD_OUT_WINDOWS)
    return qkv, attention_weights(*qkv[:2], causal=False)


@pytest.fixture(scope="module")
def measured():
    return sea_training.record(0)["checkpoints"]


@pytest.fixture
def same_text(record):
    if sea_training.held_out_digest() != record["held_out_sha256"]:
        pytest.skip(f"this Python has other text than {record['training']['text']}")


def test_the_card_is_made_from_the_record(record):
    assert sea_training.CARD.read_text("utf-8") == sea_training.card(record)
    assert list(record["checkpoints"]) == [str(steps) for steps in STEPS]


def test_the_file_is_small_and_holds_every_checkpoint_in_half_precision():
    stored = load_file(FILE)
    assert FILE.stat().st_size < 1e6 and {value.dtype for value in stored.values()} == {torch.float16}
    for steps in STEPS:
        for name, value in shipped(steps).state_dict().items():
            assert value.dtype == torch.float32 and torch.equal(value, stored.pop(f"{steps}/{name}").float())
    assert not stored


def test_training_starts_from_the_seed():
    fresh = new_estimator(384, 12, SEED, width=WIDTH, k=KEYS).state_dict()
    for name, value in shipped(0).state_dict().items():
        torch.testing.assert_close(value, fresh[name], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_figures_on_record_are_measured_again(record, measured, same_text):
    for steps, found in measured.items():
        assert found == pytest.approx(record["checkpoints"][steps], rel=2e-3, abs=1e-5)


@pytest.mark.slow
def test_training_finds_the_attention(held, measured):
    weights = held[1]
    covered, errors = ([row[name] for row in measured.values()] for name in ("coverage", "context error"))
    chance = torch.rand(*weights.shape[:3], WIDTH, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((HELD_OUT_WINDOWS,), TOKENS)
    random = coverage(weights, expand_cells(grouped_topk(chance, KEYS, lengths), lengths))
    assert covered == sorted(covered) and errors == sorted(errors, reverse=True)
    assert covered[-1] >= 4 * random and covered[-1] > 3 * covered[0]
    assert all(row["keys per query and head"] == pytest.approx(KEYS, abs=0.2) for row in measured.values())


def test_without_the_linear_pass_the_decoder_sees_the_values_alone():
    sea = shipped(60)
    blind = without_linear_pass(sea)
    q, k, v = (x[:1] for x in cached_qkv("held_out", TOKENS, HELD_OUT_WINDOWS))
    with torch.no_grad():
        first, second = (blind(a, b, v).scores for a, b in ((q, k), (k, q.flip(2))))
        whole = sea(q, k, v).scores
    assert torch.equal(first, second) and not torch.equal(first, whole)
    assert not torch.equal(blind(q, k, v.flip(2)).scores, first) and torch.equal(sea(q, k, v).scores, whole)


@pytest.mark.slow
def test_the_recipe_leads_to_what_ships(record, held, same_text, monkeypatch):
    monkeypatch.setattr(sea_training, "STEPS", STEPS[:2])
    again = sea_training.checkpoints()
    sea = new_estimator(384, 12, SEED, width=WIDTH, k=KEYS)
    sea.load_state_dict({name: again[f"{STEPS[1]}/{name}"].float() for name in sea.state_dict()})
    recorded = record["checkpoints"][str(STEPS[1])]["coverage"]
    assert measure(sea, *held)["coverage"] == pytest.approx(recorded, abs=0.02)
    assert recorded > record["checkpoints"]["0"]["coverage"] + 0.1


def test_what_is_not_there_is_named(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"0, 20, 60, 120, 180; got 30"):
        shipped(30)
    monkeypatch.setattr(sea_training, "FILE", tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=f"python -m {sea_training.__name__}"):
        shipped.__wrapped__(0)
    with pytest.raises(ValueError, match=r"held_out text gives \d+ windows of 128 tokens, 100000 asked for"):
        windows("held_out", 128, 100_000)
