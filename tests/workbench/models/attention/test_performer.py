"""Kernel features and linear attention against numbers worked out by hand and plain loops."""

from math import exp, sqrt

import numpy as np
import pytest
import torch

from workbench.models.attention.performer import PerformerAttention, prefix_attention, relu_kernel, softmax_kernel
from workbench.models.attention.sea import distill_layer


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


def layer(causal, dim=8, heads=2):
    draw = torch.Generator().manual_seed(2)
    projection = torch.randn(5, dim // heads, generator=draw)
    qkv = [torch.randn(3, heads, 7, dim // heads, generator=draw) for _ in "qkv"]
    return PerformerAttention(dim, heads, projection, causal=causal), qkv


@pytest.mark.parametrize("causal", [False, True])
def test_an_untrained_layer_is_linear_attention_on_its_features(causal):
    untrained, (q, k, v) = layer(causal)
    kernels = (
        (relu_kernel(q, untrained.projection), relu_kernel(k, untrained.projection))
        if causal
        else (
            softmax_kernel(q, untrained.projection, is_query=True),
            softmax_kernel(k, untrained.projection, is_query=False),
        )
    )
    weights = kernels[0] @ kernels[1].mT
    weights = weights.tril() if causal else weights
    found = untrained(q, k, v)
    wanted = weights / weights.sum(-1, keepdim=True) @ v
    torch.testing.assert_close(found.context, wanted, atol=1e-4, rtol=1e-3)  # the divisor has a small constant
    assert found.loss is None and found.losses == {}


def test_maps_run_over_all_heads():
    trained, (q, k, v) = layer(causal=False)
    values = trained.maps[2]
    with torch.no_grad():
        values.weight.copy_(torch.roll(torch.eye(8), 4, dims=0))  # the two heads change places
    plain, _ = layer(causal=False)
    assert torch.allclose(trained(q, k, v).context, plain(q, k, v.flip(1)).context, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_a_layer_learns_from_a_teacher_and_keeps_its_features(causal):
    student, qkv = layer(causal)
    features = student.projection.clone()
    history = distill_layer([(*qkv, None)], student, steps=40)
    assert set(history[0]) == {"context MSE"} and history[-1]["context MSE"] < 0.7 * history[0]["context MSE"]
    assert torch.equal(student.projection, features) and not student.training
    k, v = (x.clone() for x in qkv[1:])
    k[:, :, 5:], v[:, :, 5:] = 3.0, -2.0
    with torch.no_grad():
        before, after = student(*qkv).context, student(qkv[0], k, v).context
    assert torch.allclose(before[:, :, :5], after[:, :, :5], atol=1e-6) == causal
