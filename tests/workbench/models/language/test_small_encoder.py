"""The encoder that ships: its shapes, its tokens, its file, and that it has learnt something of its teacher."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy import stats

from workbench.models.language import minilm, small_encoder
from workbench.models.language import train_small_encoder as training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return small_encoder.load()


@pytest.fixture(scope="module")
def record():
    return json.loads(training.RECORD.read_text("utf-8"))


def test_vectors_have_length_one_and_are_the_same_each_time(model):
    texts = ["Return the absolute value of a number.", "x = [1, 2, 3]"]
    found = model.embed(texts)
    assert found.shape == (2, 128) and found.dtype == torch.float32
    assert torch.linalg.norm(found, dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert torch.equal(found, model.embed(texts)) and model is small_encoder.load()
    assert model(model.encode(texts[0])).shape == (1, model.encode(texts[0]).shape[1], 128)
    assert model.config == small_encoder.CONFIG and not model.training


def test_padding_changes_nothing(model, assert_close):
    texts = ["Short.", "This one is rather longer than the other, by several words."]
    assert_close(model.embed(texts), torch.cat([model.embed([text]) for text in texts]))


def test_long_texts_are_cut_at_the_context(model):
    long = "a longer text of words " * 200
    assert model.encode(long).shape[1] > 256
    assert torch.equal(model.embed([long]), model.embed([long + " and more"]))
    with pytest.raises(ValueError, match="at most 256"):
        model(model.encode(long))


def test_end_marks_stand_around_a_text_and_nowhere_else(model):
    text = "Hello <|end|> wörld"
    ids, spans = model.encode(text)[0], model.spans(text)
    assert ids[0] == ids[-1] == 0 and (ids[1:-1] != 0).all()
    assert spans[[0, -1]].tolist() == [[0, 0], [0, 0]]
    assert spans[1, 0] == 0 and spans[-2, 1] == len(text)
    windows = model.windows("The quick brown fox jumps over the lazy dog. " * 30, 64)
    assert windows.shape[1] == 64 and (windows[:, [0, -1]] == 0).all() and len(windows) > 3


def test_the_pretrained_encoder_comes_first_where_it_is_installed(model, monkeypatch):
    monkeypatch.setattr(minilm, "load", lambda: "the pretrained one")
    monkeypatch.setattr(small_encoder, "find_spec", lambda name: None)
    assert small_encoder.encoder() is model
    monkeypatch.setattr(small_encoder, "find_spec", lambda name: name == minilm.PACKAGE)
    assert small_encoder.encoder() == "the pretrained one"


def test_absent_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_small_encoder"):
        small_encoder.load(tmp_path / "absent.safetensors")


def test_the_file_is_the_recorded_one_and_the_card_is_made_from_the_record(model, record):
    assert small_encoder.FILE.stat().st_size <= 3e6
    assert hashlib.sha256(small_encoder.FILE.read_bytes()).hexdigest() == record["weights_sha256"]
    assert record["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert training.CARD.read_text("utf-8") == training.card(record)


def test_recorded_quality_is_above_that_of_untrained_encoders(record):
    found = record["quality"]
    for corpus in training.CORPORA:
        for quantity, ours in found["small encoder"][corpus].items():
            assert ours > found["small encoder, weights drawn at random"][corpus][quantity], (corpus, quantity)
            assert ours > found["small encoder before training"][corpus][quantity], (corpus, quantity)


def test_it_ranks_held_out_texts_as_its_teacher_does_and_a_random_encoder_does_not(model, record):
    if training.held_out_digest() != record["held_out"]["sha256"]:
        pytest.skip(f"this Python has other text than {record['training']['text']}")
    ours, drawn = (
        stats.spearmanr(training.probe_cosines(each.embed), record["teacher_cosines"])[0]
        for each in (model, training.new_pupil(1).eval())
    )
    assert ours > 0.6 > 0.5 > drawn


def test_the_record_keeps_the_teachers_cosines(record):
    found = np.array(record["teacher_cosines"])
    assert found.shape == (training.PROBES * (training.PROBES - 1) // 2,) and found.std() > 0.05
