"""The yardstick is a probability model, and a good one."""

import numpy as np
import pytest

from workbench.models.language import byte_ngram

TEXT = b"the cat sat on the mat, the rat sat on the cat; " * 20


@pytest.mark.parametrize("order", [1, 2, 5, 8])
@pytest.mark.parametrize("context", [b"", b"t", b"the cat", b"zzzzzzzzzz", b"sat on th"])
def test_chances_of_all_next_bytes_sum_to_one(order, context):
    model = byte_ngram.fit([TEXT[:300], TEXT[100:400]], order)
    chances = [byte_ngram.probabilities(model, context + bytes([byte]))[-1] for byte in range(256)]
    assert min(chances) > 0
    assert sum(chances) == pytest.approx(1, abs=1e-12)


def test_bigram_by_hand():
    # "aab": grams after their context: 0a, aa, ab; too little text, so every discount is 1/2
    model = byte_ngram.fit([b"aab"], 2)
    unigram = {b: (n - 0.5) / 3 + (1 / 3) / 256 for b, n in ((ord("a"), 2), (ord("b"), 1))}
    wanted = [0.5 + 0.5 * unigram[ord("a")], 0.5 / 2 + 0.5 * unigram[ord("b")]]
    got = byte_ngram.probabilities(model, b"ab")
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_longer_context_costs_less_on_like_text():
    train, held_out = [TEXT[:500]], [TEXT[500:]]
    costs = [byte_ngram.bits(byte_ngram.fit(train, order), held_out) for order in (1, 2, 3, 5)]
    assert costs == sorted(costs, reverse=True)


def test_documents_do_not_touch():
    together = byte_ngram.fit([b"ab", b"cd"], 2)
    assert byte_ngram.probabilities(together, b"bc")[1] < byte_ngram.probabilities(together, b"ab")[1]


@pytest.mark.parametrize(("texts", "order", "named"), [([b"a"], 0, "order"), ([b"a"], 9, "order"), ([], 3, "no byte")])
def test_refusals(texts, order, named):
    with pytest.raises(ValueError, match=named):
        byte_ngram.fit(texts, order)
