"""PoNet's pre-training: lines, masks and labels; the shipped encoder is its file, and knows more than frequencies."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from workbench.models.attention import ponet_corpus, ponet_training
from workbench.models.attention.ponet import PoNetMixing, token_segment_index
from workbench.models.attention.ponet_corpus import CLS, MASK, SEP, Corpus
from workbench.models.attention.ponet_training import WINDOWS, Pretraining, Recipe, batch_of, encode, pretrain

SMALL = Recipe(length=40, room=20, batch=4)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shipped():
    return ponet_training.shipped()


@pytest.fixture
def chunks():
    """Three topics of sentences; a word says its topic, its sentence and its place."""
    return [[[1000 * c + 10 * s + w for w in range(3 + (c + s) % 4)] for s in range(1, 9)] for c in range(1, 4)]


def test_lines_are_laid_out_and_masked_as_described(shipped):
    corpus = ponet_corpus.topics(shipped.pieces, 30)
    one_sentence_each = Recipe(length=2 * ponet_corpus.LONGEST + 3, room=0, batch=4)
    batch = batch_of(corpus.train, np.random.default_rng(0), 200, corpus.vocabulary, one_sentence_each)
    assert (batch.ids[:, 0] == CLS).all() and ((batch.ids == SEP).sum(1) == 2).all()
    assert (batch.special == ((batch.ids == CLS) | (batch.ids == SEP))).all()
    chosen = batch.targets >= 0
    assert not (chosen & (batch.special | ~batch.keep)).any() and batch.targets.max() < corpus.vocabulary
    of_words = chosen.sum() / (batch.keep & ~batch.special).sum()
    assert 0.12 < of_words < 0.18
    assert 0.72 < (batch.ids[chosen] == MASK).float().mean() < 0.88
    assert 0.04 < (batch.ids[chosen] == batch.targets[chosen]).float().mean() < 0.17
    assert set(batch.labels.tolist()) == {0, 1, 2}
    wanted = token_segment_index(batch.ids, CLS, SEP)
    assert (batch.segments == wanted)[batch.keep].all()


def test_runs_of_sentences_meet_in_the_text_and_share_the_line(chunks):
    batch = batch_of(chunks, np.random.default_rng(0), 200, 5000, SMALL)
    words = torch.where(batch.targets >= 0, batch.targets, batch.ids)
    sizes = set()
    for line, segments, label in zip(words, batch.segments, batch.labels, strict=True):
        first, second = (int(at) for at in (line == SEP).nonzero()[:, 0])
        a, b = line[1:first], line[first + 1 : second]
        sizes.add((len(a), len(b)))
        for run, at in ((a, 1), (b, first + 1)):
            sentences = run // 10
            assert (sentences.diff() >= 0).all() and (sentences.diff() <= 1).all()
            numbers = segments[at : at + len(run)]
            assert torch.equal(numbers.diff(), sentences.diff())
        assert segments[0] == 0 and segments[1] == 1
        assert segments[first] == segments[first - 1] + 1 and segments[first + 1] == segments[first] + 1
        meets = {0: b[0] // 10 == a[-1] // 10 + 1, 1: a[0] // 10 == b[-1] // 10 + 1, 2: a[0] // 1000 != b[0] // 1000}
        assert meets[int(label)]
    longest = max(len(sentence) for chunk in chunks for sentence in chunk)
    assert len(sizes) > 20 and SMALL.room - longest < max(a + b for a, b in sizes) <= SMALL.room + longest


def test_training_learns_and_equal_seeds_give_equal_models(chunks):
    corpus = Corpus(chunks, chunks, 3100)
    fractions = []
    first, again, other = (
        pretrain(corpus, PoNetMixing, 3, seed, recipe=SMALL, report=lambda f, loss: fractions.append((f, loss)))
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.order.weight, other.order.weight)
    assert [f for f, _ in fractions[:3]] == [0, 1 / 3, 2 / 3]
    before = ponet_training.measure(pretrain(corpus, PoNetMixing, 0, 1, recipe=SMALL), corpus, 16, 0, SMALL)
    after = ponet_training.measure(pretrain(corpus, PoNetMixing, 40, 1, recipe=SMALL), corpus, 16, 0, SMALL)
    assert after["loss per masked word"] < before["loss per masked word"] - 0.5


def test_words_are_read_at_their_place_and_the_order_at_the_first_token(chunks):
    """Word logits: the encoder's feature, mapped, through GELU and a norm, times the word table; order: [CLS]'s."""
    torch.manual_seed(0)
    model, seen = Pretraining(3100, recipe=SMALL).double().eval(), []
    for parameter in (*model.norm.parameters(), model.bias, model.order.bias):
        torch.nn.init.normal_(parameter)
    model.encoder.register_forward_hook(lambda module, args, out: seen.append(out))
    batch = batch_of(chunks, np.random.default_rng(0), 3, 3100, SMALL)
    words, orders = model(batch)
    places = [(b, t) for b in range(3) for t in range(SMALL.length) if batch.targets[b, t] >= 0]
    assert len(words) == len(places) > 3
    for logits, place in zip(words, places, strict=True):
        mapped = model.word.weight @ seen[0][place] + model.word.bias
        bent = torch.stack([z / 2 * (1 + torch.erf(z / 2**0.5)) for z in mapped])
        bent = (bent - bent.mean()) / (bent.var(unbiased=False) + 1e-5).sqrt() * model.norm.weight + model.norm.bias
        for word in (0, 1234, 3099):
            wanted = bent @ model.encoder.tokens.weight[word] + model.bias[word]
            torch.testing.assert_close(logits[word], wanted)
    for b in range(3):
        torch.testing.assert_close(orders[b], model.order.weight @ seen[0][b, 0] + model.order.bias)


def test_the_order_is_learnt_unless_it_is_left_out(chunks):
    corpus = Corpus(chunks, chunks, 3100)
    start, both, words_only = (
        pretrain(corpus, PoNetMixing, steps, 1, recipe=SMALL, order=order)
        for steps, order in ((0, True), (2, True), (2, False))
    )
    assert torch.equal(start.order.weight, words_only.order.weight)
    assert not torch.equal(start.order.weight, both.order.weight)
    for trained in (both, words_only):
        assert not torch.equal(start.word.weight, trained.word.weight)


def test_frequencies_cost_what_they_say():
    corpus = Corpus([[[5, 5], [5, 6]]] * 2, [[[5, 5, 5], [5, 5]]] * 2, 7)
    found = ponet_training.unigram(corpus, 0, 50, SMALL)
    assert found["entropy of the words"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert found["loss per masked word"] == pytest.approx(-np.log(6.5 / (8 + 7 / 2)))
    assert found["masked words guessed"] == 1


def test_the_shipped_encoder_is_its_file(shipped):
    assert ponet_training.WEIGHTS.stat().st_size <= 4e6
    with safe_open(str(ponet_training.WEIGHTS), framework="pt") as stored:
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    ours = shipped.model.state_dict()
    assert ours.keys() == weights.keys()
    for name, value in weights.items():
        assert value.dtype == torch.float16 and torch.equal(ours[name], value.float()), name
    assert shipped.record["parameters"] == sum(p.numel() for p in shipped.model.parameters())
    assert not shipped.model.training and ponet_training.shipped() is shipped


def test_card_is_made_from_the_record(shipped):
    assert ponet_training.CARD.read_text("utf-8") == ponet_training.card(shipped.record, len(shipped.pieces))


def test_held_out_words_cost_less_than_their_entropy(shipped):
    corpus = ponet_corpus.topics(shipped.pieces)
    found = ponet_training.measure(shipped.model, corpus, 48, 1)
    words = ponet_training.unigram(corpus, 1, 48, WINDOWS)
    assert found["loss per masked word"] < min(words["entropy of the words"], words["loss per masked word"]) - 1
    assert found["orders guessed"] > 1 / 3
    assert found["loss per masked word"] == pytest.approx(shipped.record["PoNet"]["loss per masked word"], abs=0.4)


def test_a_text_is_encoded_between_special_tokens_and_cut_into_sentences(shipped):
    words = "A list is returned. The first one\n\nNext: it is 3.11"
    found = encode(shipped, words)
    assert found.ids[0, 0] == CLS and found.ids[0, -1] == SEP and found.tokens[0] == "[CLS]"
    assert found.special[0].tolist() == [True, *[False] * (len(found.tokens) - 2), True]
    sentences = {}
    for text, segment in zip(found.tokens, found.segments.tolist(), strict=True):
        sentences.setdefault(segment, []).append(text)
    assert list(sentences) == list(range(6)) and sentences[1] == ["A", "list", "is", "returned", "."]
    assert sentences[2] == ["The", "first", "one"] and sentences[3] == ["Next", ":"]
    assert "".join(sentences[4]) == "itis3.11"
    for number in (1, 5):
        at = found.segments == number
        assert [shipped.pieces[i].removeprefix("##") for i in found.ids[0, at]] == [
            text.lower() if number == 1 else text for text in sentences[number]
        ]


def test_long_texts_are_cut_and_empty_ones_are_two_tokens(shipped):
    long = encode(shipped, "one two three. " * 200)
    assert long.ids.shape == (1, WINDOWS.length) and long.ids[0, -1] == SEP
    assert encode(shipped, "one two three. " * 200, 64).ids.shape == (1, 64)
    assert encode(shipped, "").segments.tolist() == [0, 1]
