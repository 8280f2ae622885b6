r"""Starting weights that make an untrained language model predict as a bigram model does.

.. math:: \log P(j \mid i) \approx \log P(j) + a_i \cdot b_j

a and b come from a truncated singular value decomposition of the pointwise mutual information of neighbouring tokens
(Levy and Goldberg 2014), weighted by how often the tokens occur. P(j | i) is smoothed by absolute discounting.
"""

import numpy as np
import torch

DISCOUNT = 0.75


def start(model, corpora):
    """Set the embeddings of a `TinyLM` from the pairs in corpora (name -> token ids); its layers stay as they are.

    Each embedding row holds a constant, the factor a and a filler that gives all rows the same length, so that the
    final normalisation only scales. Unembedding rows hold log P(j), the factor b and zero.
    """
    size, width = model.config.vocabulary, model.config.width
    pairs, single = count(corpora.values(), size)
    a, b = factors(pairs, single, width - 2)
    chance = np.log(single / single.sum())
    length = np.linalg.norm(a, axis=1)
    longest = np.quantile(length, 0.99)
    a *= np.minimum(1, longest / np.maximum(length, 1e-9))[:, None]
    filler = np.sqrt(np.maximum(longest**2 - (a**2).sum(1), 0))
    constant = np.full(size, longest / 4)
    rows = np.column_stack([constant, a, filler])
    scale = np.sqrt(width) / np.linalg.norm(rows[0])
    with torch.no_grad():
        model.embedding.weight.copy_(torch.from_numpy(rows * scale))
        columns = np.column_stack([chance / constant, b, np.zeros(size)]) / scale
        model.unembedding.weight.copy_(torch.from_numpy(columns))


def count(streams, size):
    """Return how often token j follows token i, float32 (size, size), and how often each occurs (plus one)."""
    pairs = np.zeros(size * size, np.float32)
    for ids in streams:
        pairs += np.bincount(ids[:-1] * size + ids[1:], minlength=size * size)
    pairs = pairs.reshape(size, size)
    return pairs, pairs.sum(0, dtype=np.float64) + 1


def information(pairs, single):
    """Return log P(j | i) - log P(j) with absolute discounting, float32 (size, size)."""
    total = np.maximum(pairs.sum(1, keepdims=True), 1)
    freed = np.maximum(DISCOUNT * (pairs > 0).sum(1, keepdims=True), 1) / total
    chance = (single / single.sum()).astype(np.float32)
    return np.log(np.maximum(pairs - DISCOUNT, 0) / total / chance + np.minimum(freed, 1))


def factors(pairs, single, rank, seed=0):
    """Return a and b, each (size, rank), of the mutual information, by subspace iteration (Halko et al. 2011)."""
    weight = np.sqrt(single / single.sum()).astype(np.float32)[:, None]
    matrix = weight * information(pairs, single) * weight.T
    basis = np.random.default_rng(seed).standard_normal((len(matrix), rank + 16)).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    left, root = basis @ left, np.sqrt(values[:rank])
    return left[:, :rank] * root / weight, right[:rank].T * root / weight
