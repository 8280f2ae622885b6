"""The starting weights predict what the pairs say."""

import numpy as np
import pytest
import torch

from workbench.models.language import pair_statistics
from workbench.models.language.tiny_lm import TinyConfig, TinyLM


@pytest.fixture
def stream(rng):
    """Tokens of a Markov chain over 40 tokens with few successors each."""
    chances = rng.dirichlet(np.full(40, 0.1), size=40)
    tokens = [0]
    for _ in range(6000):
        tokens.append(rng.choice(40, p=chances[tokens[-1]]))
    return np.array(tokens)


def test_counts(stream):
    pairs, single = pair_statistics.count([np.array([0, 1, 1, 2]), np.array([0, 1])], 3)
    np.testing.assert_array_equal(pairs, [[0, 2, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(single, [1, 4, 2])


def test_chances_sum_to_one(stream):
    pairs, single = pair_statistics.count([stream], 40)
    chance = np.exp(pair_statistics.information(pairs, single)) * (single / single.sum())
    seen = pairs.sum(1) > 50
    np.testing.assert_allclose(chance[seen].sum(1), 1, atol=0.02)


def test_full_rank_factors_give_the_information_back(stream, assert_close):
    pairs, single = pair_statistics.count([stream], 40)
    a, b = pair_statistics.factors(pairs, single, 40)
    assert_close(np.float32(a @ b.T), pair_statistics.information(pairs, single))


def test_model_without_layers_predicts_like_a_bigram_model(stream):
    model = TinyLM(TinyConfig(vocabulary=40, layers=1, heads=1, width=42, hidden=8))
    untrained = model.cost(model.embedding.weight[None], torch.arange(40)[None]).item()
    pair_statistics.start(model, {"chain": stream})
    tokens = torch.tensor(stream[None, :2000])
    found = model.cost(model.embedding(tokens[:, :-1]), tokens[:, 1:]).item()
    pairs, single = pair_statistics.count([stream], 40)
    log_chance = pair_statistics.information(pairs, single) + np.log(single / single.sum())
    wanted = -log_chance[stream[:1999], stream[1:2000]].mean()
    assert found < wanted + 0.15 < untrained - 1
    lengths = model.embedding.weight.norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, 42**0.5), rtol=1e-4)
