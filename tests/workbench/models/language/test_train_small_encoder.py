"""How the small encoder is trained and measured: which text, which loss, which figures; all but the long run."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workbench.data import text
from workbench.explorers.pruning import sentence_encoder
from workbench.models.language import small_encoder
from workbench.models.language import train_small_encoder as training
from workbench.models.language.minilm import MiniConfig, MiniLM

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def judged():
    return training.judged_span([training.new_pupil()])


@pytest.fixture(scope="module")
def documents(judged):
    return training.training_documents(judged)


def test_a_text_is_cut_between_words():
    words = "one two three four five six seven"  # "one two" has less than 8 characters, "one two three" more than 12
    assert training.cut(words, 12) == ["two three", "four five", "six seven"]
    assert training.cut("a" * 50 + " and then more", 12) == ["and then"]
    assert training.cut("x\ny  z\nabcdefgh", 6) == ["x\ny  z"]
    assert training.cut(words, 1000) == []


def test_the_judged_span_is_the_text_of_the_judged_windows(judged):
    model = training.new_pupil()
    whole = " ".join(document.text for document in text.documents("documentation"))
    ids = model.windows(whole)[training.JUDGED, 1:-1].flatten()
    assert model.tokenizer.decode(ids.tolist()).strip() == whole[slice(*judged)].strip()
    for part in (sentence_encoder.EVALUATION, sentence_encoder.NEIGHBOURS):
        assert training.JUDGED.start <= part.start and part.stop <= training.JUDGED.stop


def test_the_judged_span_holds_the_windows_of_every_encoder():
    class Encoder:
        def __init__(self, tokens, characters):
            self.ends = characters * np.arange(tokens + 1)

        def spans(self, words):
            inner = np.stack([self.ends[:-1], self.ends[1:]], 1)
            return np.concatenate([[[0, 0]], inner, [[0, 0]]])

    first, last = 126 * 160, 126 * 360
    assert training.judged_span([Encoder(50_000, 3), Encoder(50_000, 4)]) == (3 * first, 4 * last)


def test_no_line_of_judged_or_held_out_text_is_trained_on(judged, documents):
    whole = " ".join(document.text for document in text.documents("documentation"))
    kept_back = [whole[slice(*judged)], *(d.text for d in text.documents(training.CORPORA, "held_out"))]
    lines = {line.strip() for words in kept_back for line in words.splitlines()[1:-1]}
    trained = {line.strip() for corpus in documents.values() for words in corpus for line in words.splitlines()}
    assert not {line for line in lines & trained if len(line) >= training.LINE}
    assert len(trained) > 50_000 and len(documents["documentation"]) > 40
    assert not any(words in whole[slice(*judged)] for words in documents["documentation"] if len(words) > 200)


def test_all_of_the_documentation_is_taken_and_the_rest_drawn():
    documents = {"documentation": ["aaa bbb ccc ddd", "eee fff"], "library": [f"w{i} " * 9 for i in range(8)]}
    counts = {7: 6, 11: 2}
    found = training.training_texts(documents, counts, seed=3)
    assert found[:3] == ["aaa bbb", "ccc ddd", "eee fff"] and found[6:] == ["aaa bbb ccc", "eee fff"]
    assert all(piece[0] == "w" for piece in found[3:6])
    assert found == training.training_texts(documents, counts, seed=3)
    assert found != training.training_texts(documents, counts, seed=4)
    with pytest.raises(ValueError, match="more than there are"):
        training.training_texts(documents, {7: 600})


def test_the_loss_by_hand():
    vectors, wanted = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    cosines = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    # cosines to what is wanted 0 and 1; the pair has 0.6 in place of 0.5, twice among four
    assert training.loss(vectors, wanted, cosines).item() == pytest.approx(1 - 0.5 + 10 * 2 * 0.01 / 4)


def test_main_directions_are_those_of_the_singular_vectors(rng, assert_close):
    vectors = rng.standard_normal((50, 6)).astype(np.float32) * [5, 1, 4, 1, 3, 1]
    found = training.main_directions(torch.from_numpy(vectors).float(), 3)
    right = np.linalg.svd(vectors.astype(np.float32))[2][:3].T
    assert_close(found @ found.T, (right @ right.T).astype(np.float32))


def test_words_start_from_ridge_regression(rng, assert_close):
    model = MiniLM(MiniConfig(vocabulary=9, layers=1, heads=1, width=4, hidden=4, context=8))
    before = model.words.weight[8].clone()
    rows = [rng.integers(0, 8, size) for size in (3, 5, 4, 6, 7, 8, 3, 5, 5, 6)]
    wanted = rng.standard_normal((10, 4)).astype(np.float32)
    means = np.array([np.bincount(row, minlength=8) / len(row) for row in rows])
    table = np.linalg.inv(means.T @ means + training.RIDGE * np.eye(8)) @ means.T @ wanted
    training.set_words(model, rows, torch.from_numpy(wanted))
    table *= training.WORD_SIZE / np.sqrt((table**2).mean())
    assert_close(model.words.weight[:8], table.astype(np.float32))
    assert torch.equal(model.words.weight[8], before)


def test_training_is_repeatable_and_brings_vectors_nearer_to_the_teachers(documents, monkeypatch):
    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(
        small_encoder, "CONFIG", MiniConfig(vocabulary=4096, layers=2, heads=2, width=16, hidden=32, context=64)
    )
    some = {"documentation": documents["documentation"][:5], "library": []}
    monkeypatch.setattr(training, "ALIKE", 16)
    texts = training.training_texts(some, {60: 24, 90: 12})
    taught = F.normalize(torch.randn(len(texts), 24, generator=torch.Generator().manual_seed(0)), dim=1)
    told = []
    found = training.train(texts, taught, 24, report=lambda step, value: told.append(value))
    again = training.train(texts, taught, 24)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in found.state_dict().items())
    assert len(told) == 24 and np.mean(told[-6:]) < np.mean(told[:6]) - 0.1
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_the_teachers_vectors_are_kept_and_taken_again_only_for_other_text(tmp_path, monkeypatch):
    asked = []

    class Teacher:
        config = MiniConfig(width=2)

        def encode(self, words):
            return torch.zeros(1, len(words))

        def embed(self, texts):
            asked.extend(texts)
            return torch.tensor([[len(words), 1.0] for words in texts])

    monkeypatch.setattr(training.minilm, "load", Teacher)
    path = tmp_path / "kept" / "teacher.npz"
    first = training.teacher_vectors(["ccc", "a", "bb"], path)
    assert first.tolist() == [[3, 1], [1, 1], [2, 1]] and asked == ["a", "bb", "ccc"]
    assert torch.equal(training.teacher_vectors(["ccc", "a", "bb"], path), first) and len(asked) == 3
    assert training.teacher_vectors(["ccc", "a", "b"], path).tolist() == [[3, 1], [1, 1], [1, 1]]
    assert len(asked) == 6


def test_halves_follow_each_other_in_held_out_text():
    pairs = training.pairs_of("library")
    assert len(pairs) == training.HELD_OUT and len(set(pairs)) == len(pairs)
    texts = [document.text for document in text.documents("library", "held_out")]
    for first, second in pairs[::20]:
        assert 160 <= len(first) <= 240 and 160 <= len(second) <= 240
        assert any(0 < words.find(second) - words.find(first) <= 2 * 240 for words in texts if first in words)


def test_ranks_and_found_halves_by_hand(monkeypatch):
    monkeypatch.setattr(training, "pairs_of", lambda corpus: [("a", "b"), ("c", "d")])
    turn = {"a": 0, "b": 10, "c": 90, "d": 95}  # degrees
    mixed = {"a": 0, "b": 60, "c": 50, "d": 95}  # d is nearer to c than b, and b is nearer to c than to a

    def vectors(angles):
        return lambda texts: np.array([[np.cos(np.radians(angles[t])), np.sin(np.radians(angles[t]))] for t in texts])

    found = training.measure({"same": vectors(turn), "mixed": vectors(mixed)}, vectors(turn))
    same, other = (found[name]["library"] for name in ("same", "mixed"))
    assert same == {"rank correlation with the teacher": 1.0, "second halves found": 1.0}
    # pairs ab ac ad bc bd cd: angles 10 90 95 80 85 5 and 60 50 95 10 35 45; ranks 2 5 6 3 4 1 and 5 4 6 1 2 3
    squares = (2 - 5) ** 2 + (5 - 4) ** 2 + (3 - 1) ** 2 + (4 - 2) ** 2 + (1 - 3) ** 2
    assert other["rank correlation with the teacher"] == pytest.approx(1 - 6 * squares / (6 * 35), abs=1e-4)
    assert other["second halves found"] == 0.5


def test_tf_idf_is_that_of_scikit_learn(assert_close):
    learn = pytest.importorskip("sklearn.feature_extraction.text")
    texts, some = ["a b b c", "b c d", "D e f. a"], ["b b d", "f a", "unknown"]
    theirs = learn.TfidfVectorizer(token_pattern=r"\w+").fit(texts).transform(some).toarray()
    assert_close(training.tf_idf(texts)(some), theirs.astype(np.float32))
