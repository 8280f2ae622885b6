"""Any text encodes and comes back unchanged."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.tokenizer import END, Tokenizer

LINES = ["def add(a, b):\n    return a + b\n", "The quick brown fox.\n"] * 30


@cache
def trained():
    return Tokenizer.train(LINES, 300)


@pytest.fixture
def tokenizer():
    return trained()


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_comes_back(text):
    tokenizer = trained()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.dtype == np.int64 and (ids < tokenizer.size).all()
    assert tokenizer.end not in ids


@pytest.mark.parametrize("text", ["", "\0", "\r\n\t  ", END, f"a{END}b", "né 漢字 🙂", "    indented", "x" * 5000])
def test_awkward_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end not in tokenizer.encode(text)


def test_known_words_are_few_pieces(tokenizer):
    assert len(tokenizer.encode(LINES[0])) < len(LINES[0]) / 2


def test_documents_are_set_apart(tokenizer):
    ids = tokenizer.encode_documents(["a", "b"])
    assert list(ids) == [tokenizer.end, *tokenizer.encode("a"), tokenizer.end, *tokenizer.encode("b"), tokenizer.end]


def test_spans_point_into_the_text(tokenizer):
    text = "def add(né):\n    return 漢\n"
    spans = tokenizer.spans(text)
    assert len(spans) == len(tokenizer.encode(text))
    assert spans[0, 0] == 0 and spans[-1, 1] == len(text)
    assert (np.diff(spans[:, 0]) >= 0).all()


def test_reads_what_it_wrote(tokenizer, tmp_path):
    tokenizer.write(tmp_path / "tokenizer.json")
    again = Tokenizer.read(tmp_path / "tokenizer.json")
    assert list(again.encode(LINES[0])) == list(tokenizer.encode(LINES[0]))
    assert (again.size, again.end) == (tokenizer.size, tokenizer.end)


def test_refusals(tokenizer):
    with pytest.raises(TypeError, match="decode bytes first"):
        tokenizer.encode(b"bytes")
    with pytest.raises(ValueError, match="257"):
        Tokenizer.train(LINES, 256)
