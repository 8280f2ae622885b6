"""Kernel features and linear attention against numbers worked out by hand and plain loops."""

from math import exp, sqrt

import numpy as np
import pytest
import torch

from workbench.models.attention.performer import prefix_attention, relu_kernel, softmax_kernel


def one_head(rows):
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def test_query_features_by_hand(assert_close):
    """Width 16 halves x, x' = x / 2: u = x' P^T = (1, 3), |x'|^2 / 2 = 1/2, and the largest of u is taken away."""
    projection = torch.zeros(2, 16)
    projection[:, 0] = torch.tensor([1.0, 3.0])
    x = torch.zeros(1, 1, 2, 16)
    x[0, 0, 0, 0] = 2
    found = softmax_kernel(x, projection, is_query=True)
    assert_close(found[0, 0, 0], np.array([exp(-2.5) + 1e-4, exp(-0.5) + 1e-4]) / sqrt(2))
    assert_close(found[0, 0, 1], np.array([1 + 1e-4, 1 + 1e-4]) / sqrt(2))  # a query of zeros, by its own largest


def test_key_features_by_hand(assert_close):
    """Keys are measured against the largest u of all keys of their head, here 6 of the second key."""
    projection = torch.tensor([[1.0], [3.0]])
    keys = torch.tensor([[[[1.0], [2.0], [9.0]], [[0.0], [0.0], [0.0]]]])  # two heads, the third key is padding
    keep = torch.tensor([[True, True, False]])
    first = np.array([[exp(1 - 0.5 - 6), exp(3 - 0.5 - 6)], [exp(2 - 2 - 6), exp(6 - 2 - 6)]])
    found = softmax_kernel(keys, projection, is_query=False, keep=keep)
    assert_close(found[0, 0, :2], (first + 1e-4) / sqrt(2))
    assert_close(found[0, 1, :2], np.full((2, 2), 1 + 1e-4) / sqrt(2))
    assert (found[:, :, 2] == 0).all()
    with_padding = softmax_kernel(keys, projection, is_query=False)
    assert_close(with_padding[0, 0, 1, 1], (exp(6 - 2 - 27) + 1e-4) / sqrt(2))


def test_causal_features_by_hand(assert_close):
    projection = torch.zeros(2, 16)
    projection[:, 0] = torch.tensor([3.0, -3.0])
    x = torch.zeros(1, 1, 1, 16)
    x[..., 0] = 2
    assert_close(relu_kernel(x, projection)[0, 0, 0], np.array([3.001, 0.001]))


@pytest.mark.parametrize("t", [1, 3, 4, 9])
def test_prefix_attention_is_a_loop_over_the_past(t, rng, assert_close):
    fq, fk = (rng.random((2, 2, t, 3)).astype(np.float32) for _ in range(2))
    v = rng.standard_normal((2, 2, t, 5)).astype(np.float32)
    found = prefix_attention(*map(torch.from_numpy, (fq, fk, v)), chunk=4)
    wanted = np.empty_like(v)
    for n, h, i in np.ndindex(2, 2, t):
        weights = [float(fq[n, h, i] @ fk[n, h, j]) for j in range(i + 1)]
        wanted[n, h, i] = sum(w * v[n, h, j] for j, w in enumerate(weights)) / sum(weights)
    assert_close(found, wanted)


def test_small_weights_meet_the_small_constant_of_the_divisor(assert_close):
    found = prefix_attention(one_head([[1.0]]), one_head([[1e-6]]), one_head([[8.0]]))
    assert_close(found, np.full((1, 1, 1, 1), 4.0))  # 8e-6 / (1e-6 + 1e-6)
    nothing = prefix_attention(one_head([[0.0]]), one_head([[0.0]]), one_head([[8.0]]))
    assert (nothing == 0).all()
