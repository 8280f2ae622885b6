"""Python's documentation as sentences of word pieces: lengths, the split, and a tokenizer of few pieces."""

import pytest

from workbench.models.attention import ponet_corpus
from workbench.models.attention.ponet_corpus import LONGEST, SHORTEST, SPECIAL, UNKNOWN


@pytest.fixture(scope="module")
def pieces():
    return ponet_corpus.vocabulary()


def test_sentences_are_short_and_their_pieces_known(pieces):
    found = ponet_corpus.topics(pieces, 20)
    assert found.vocabulary == len(pieces) and 10 < len(found.train) <= 20
    for chunk in found.train + found.test:
        assert len(chunk) >= 2
        assert all(SHORTEST <= len(sentence) <= LONGEST for sentence in chunk)
    used = {i for chunk in found.train for sentence in chunk for i in sentence}
    assert min(used) == UNKNOWN and max(used) < found.vocabulary


def test_the_vocabulary_leaves_out_what_occurs_once(pieces):
    assert pieces[: len(SPECIAL)] == SPECIAL and len(set(pieces)) == len(pieces)
    known, rare = ponet_corpus.topics(pieces), 0
    for chunk in known.train:
        rare += sum(sentence.count(UNKNOWN) for sentence in chunk)
    assert rare > 0 and len(known.train) > 10 * len(known.test) / 3


def test_pieces_are_cut_as_minilm_cuts_them(pieces):
    from workbench.models.language import minilm

    theirs = minilm.load()._tokens()
    line = "The returned object is a list of strings, never None."
    ours = ponet_corpus.tokenizer(pieces).encode(line)
    assert ours.tokens == theirs.encode(line, add_special_tokens=False).tokens
    assert [line[a:b].lower() for a, b in ours.offsets] == [piece.removeprefix("##") for piece in ours.tokens]
    assert ponet_corpus.tokenizer(pieces).encode("[CLS]").ids.count(ponet_corpus.CLS) == 0
