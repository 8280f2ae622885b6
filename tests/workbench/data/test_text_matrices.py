import platform

import numpy as np
import pytest

from workbench.data import text_matrices
from workbench.data.matrices import GRAPHS, MATRICES, graph
from workbench.data.text_matrices import import_graph, modules, provenance, term_document, word_cooccurrence, words

SLOW = ("source_documents", "source_cooccurrence", "import_graph")
TEXTS = ["the cat saw the other cat", "a dog and the cat"]


@pytest.fixture
def small_corpus(monkeypatch):
    monkeypatch.setattr(text_matrices, "_texts", lambda corpus: TEXTS)
    text_matrices._tokens.cache_clear()
    yield
    text_matrices._tokens.cache_clear()


def test_term_document_counts_words(small_corpus):
    vocabulary = words()
    assert vocabulary == ("and", "cat", "dog", "other", "saw", "the")
    want = [[text.split().count(word) for word in vocabulary] for text in TEXTS]
    np.testing.assert_array_equal(term_document().toarray(), want)


@pytest.mark.parametrize("window", [1, 2, 50])
def test_cooccurrence_counts_pairs_within_the_window_and_the_document(small_corpus, window):
    vocabulary = words()
    want = np.zeros((len(vocabulary),) * 2)
    for text in TEXTS:
        ids = [vocabulary.index(word) for word in text.split() if word in vocabulary]
        for p, i in enumerate(ids):
            for j in ids[p + 1 : p + 1 + window]:
                want[i, j] += 1
                want[j, i] += 1
    np.testing.assert_array_equal(word_cooccurrence(window=window).toarray(), want)


def test_the_documentation_gives_a_power_law_and_is_equal_every_time():
    first = word_cooccurrence()
    text_matrices._tokens.cache_clear()
    again = word_cooccurrence()
    assert (first != again).nnz == 0
    lengths = np.diff(first.indptr)
    assert lengths.max() > 50 * np.median(lengths)
    assert first.shape[0] == len(words()) > 2000
    assert platform.python_version() in provenance()


@pytest.mark.slow
def test_import_graph_knows_who_imports_whom():
    names, matrix = modules(), import_graph()
    assert matrix.shape == (len(names), len(names))
    entry = matrix[names.index("json"), names.index("json.decoder")]
    assert entry == 1 and matrix[names.index("random"), names.index("bisect")] == 1
    assert matrix[names.index("json.decoder"), names.index("json.scanner")] == 1
    assert matrix[names.index("bisect"), names.index("random")] == 0
    assert matrix.trace() == 0


@pytest.mark.parametrize("window", [0, 51, 1.5, True])
def test_window_out_of_range(window):
    with pytest.raises((ValueError, TypeError), match="window"):
        word_cooccurrence(window=window)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="documentation, sources"):
        term_document("news")
    with pytest.raises(ValueError, match="karate"):
        graph("kárate")


def test_real_graphs_have_their_published_sizes():
    sizes = {name: (graph(name).shape[0], graph(name).nnz) for name in GRAPHS}
    assert sizes["karate"] == (34, 156)
    assert sizes["les_miserables"] == (77, 508)
    assert sizes["southern_women"] == (32, 178)
    assert sizes["florentine_families"] == (15, 40)


@pytest.mark.parametrize("key", [key for key in MATRICES if key not in SLOW])
def test_every_entry_of_the_catalogue_loads(key):
    source = MATRICES[key]
    matrix = source.load()
    assert matrix.format == "csr" and matrix.dtype == np.float64 and matrix.has_canonical_format
    assert matrix.nnz > 0 and source.title and source.description


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in MATRICES if key in SLOW])
def test_every_matrix_of_the_sources_loads(key):
    matrix = MATRICES[key].load()
    assert matrix.has_canonical_format and matrix.nnz > 2_000
