"""The shipped model is the one that its record and card describe."""

import pytest

from workbench.data import text
from workbench.folders import WEIGHTS
from workbench.models.language import model_card, tiny_lm


@pytest.fixture(scope="module")
def record():
    return model_card.read()


@pytest.fixture(scope="module")
def model():
    return tiny_lm.load()


def test_card_is_made_from_the_record(record):
    assert model_card.CARD.read_text("utf-8") == model_card.card(record)


def test_checkpoint_is_small_and_of_the_recorded_size(record, model):
    file = WEIGHTS / "tiny_lm.safetensors"
    assert file.stat().st_size <= 20e6
    assert record["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["model"]["heads"] >= 8 and record["model"]["context"] >= 2048
    assert file.stat().st_size == pytest.approx(2 * record["model"]["parameters"], rel=0.01)


def test_bits_per_byte_of_held_out_documents_are_those_recorded(record, model):
    here = {document.name: document for document in text.documents(split="held_out")}
    known = [p for p in record["probes"] if p["name"] in here and model_card.digest([here[p["name"]]]) == p["sha256"]]
    if not known:
        pytest.skip(f"this Python has other text than {record['held_out']['text']}")
    for probe in known:
        found = model_card.probe(model, here[probe["name"]])
        assert found["bytes"] == probe["bytes"]
        assert found["bits_per_byte"] == pytest.approx(probe["bits_per_byte"], rel=1e-3), probe["name"]


def test_recorded_cost_is_clearly_below_the_five_gram(record):
    ours = record["bits_per_byte"]["tiny_lm, context 512"]
    theirs = record["yardstick"]["bits_per_byte"]["byte 5-gram"]
    assert set(ours) >= set(theirs)
    assert ours["all"] < 0.9 * theirs["all"]


@pytest.mark.slow
def test_one_held_out_document_costs_less_than_under_a_five_gram_model_trained_here(model):
    from workbench.models.language import byte_ngram

    document = max(text.documents("library", "held_out"), key=lambda d: len(d.text) * (len(d.text) < 20000))
    ngram = byte_ngram.fit((d.text.encode() for d in text.documents("library", "train")), 5)
    theirs = byte_ngram.bits(ngram, [document.text.encode()]) / len(document.text.encode())
    assert model.bits_per_byte(document.text, context=512) < theirs
