"""Text comes in a fixed order, the split hangs on names alone, and nothing held out is trained on."""

import subprocess
import sys

import pytest

from workbench.data import text


def test_documents_are_named_sorted_and_bounded():
    for corpus in ("documentation", "library"):
        found = text.documents(corpus)
        assert len(found) > 50
        assert [d.name for d in found] == sorted(d.name for d in found)
        assert all(d.corpus == corpus and 0 < len(d.text) <= text.MOST_FILE_BYTES for d in found)
        assert sum(len(d.text) for d in found) < text.MOST_CORPUS_BYTES
    names = {d.name for d in text.documents()}
    assert {"topics/while", "lib/argparse.py", "lib/json/decoder.py"} <= names
    assert not any("/test/" in name or name.startswith(("lib/pydoc_data", "lib/encodings")) for name in names)


def test_split_hangs_on_the_name_alone():
    assert text.split_of("topics/while") == "held_out"
    assert text.split_of("lib/tarfile.py") == "held_out"
    assert text.split_of("lib/argparse.py") == "train"
    names = [f"document {i}" for i in range(4000)]
    share = sum(text.split_of(name) == "held_out" for name in names) / len(names)
    assert share == pytest.approx(1 / 16, abs=0.015)


def test_splits_are_disjoint_and_complete():
    train, held_out = (text.documents(split=split) for split in text.SPLITS)
    assert {d.name for d in train}.isdisjoint(d.name for d in held_out)
    assert len(train) + len(held_out) == len(text.documents())


def test_no_long_paragraph_of_a_held_out_document_is_trained_on():
    held_out = [p for d in text.documents(split="held_out") for p in text._long_paragraphs(d.text)]
    train = {p for d in text.documents(text.CORPORA, "train") for p in text._long_paragraphs(d.text)}
    assert len(held_out) > 1000
    assert not train.intersection(held_out)
    whole = {p for d in text.documents() if text.split_of(d.name) == "train" for p in text._long_paragraphs(d.text)}
    assert whole.intersection(held_out), "no document quotes another, so the test shows nothing"


def test_cutting_paragraphs_keeps_the_rest():
    long = "x" * 90
    body = f"first\n\n{long}\n\n  last line\n"
    assert text._without(body, {long}) == "first\n\n  last line\n"
    assert text._without(body, set()) == body


def test_sample_says_where_it_comes_from():
    found, source = text.sample(500)
    assert len(found) == 500
    assert source.startswith("topics/")
    assert found == text.documents("documentation", "held_out")[0].text[:500]
    assert "CPython" in text.provenance() or "PyPy" in text.provenance()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: text.documents("novels"), "novels"),
        (lambda: text.documents(split="test"), "split"),
        (lambda: text.sample(10**9), "characters"),
    ],
)
def test_refusals(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.slow
def test_text_is_equal_in_another_process():
    code = "from workbench.data.text import documents as d; from hashlib import sha256 as s;" + (
        "print(s(repr([(x.name, x.text) for x in d(split='held_out')]).encode()).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
