"""Bytes of training against hand counts, and the methods that every comparison has."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.memory import bytes_of, peak_bytes, saved_bytes, training_memory


def test_views_and_repeats_count_once():
    x = torch.zeros(10, 4)
    assert bytes_of([x, x[:3], x.view(-1)]) == 160 and bytes_of([]) == 0


def test_saved_bytes_of_a_chain_and_of_its_checkpointed_form():
    x, w = torch.ones(6, 4, requires_grad=True), torch.ones(4, 4, requires_grad=True)

    def chain(x):
        return torch.sigmoid(x @ w) * 3.0  # keeps x, w, and the sigmoid's result

    assert saved_bytes(lambda: chain(x)) == 4 * (6 * 4 + 4 * 4 + 6 * 4)
    assert saved_bytes(lambda: chain(x), exclude=[w, x]) == 4 * 6 * 4
    kept = saved_bytes(lambda: checkpoint(chain, x * 1.0, use_reentrant=False), exclude=[w])
    assert kept == 4 * 6 * 4  # its input, and nothing that it computes again


def test_peak_counts_what_lives_at_once():
    x = torch.zeros(1000)

    def one_after_the_other():
        for _ in range(3):
            y = x + 1
            del y

    def together():
        return [x + i for i in range(3)]

    assert peak_bytes(one_after_the_other, [x]) == 4000 and peak_bytes(together, [x]) == 12000
    assert peak_bytes(lambda: x[10:].add_(1), [x]) == 0  # in place, on what was there


def test_lora_holds_what_its_formula_says():
    m, n, t, r = 24, 16, 10, 3
    tuning = adapt(nn.Sequential(nn.Linear(n, m, bias=False)), "lora", r=r)
    x = torch.randn(t, n)
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-3)
    found = training_memory(tuning.model, lambda: tuning.model(x).sum(), optimizer)
    assert found.weights == 4 * (m * n + r * (m + n)) and found.indices == 0
    assert found.gradients == 4 * r * (m + n) and found.optimizer == 8 * r * (m + n)
    assert found.saved == 4 * t * (n + r)  # the input, and what lies between both matrices
    assert found.peak >= found.weights + found.optimizer + found.gradients


def test_full_tuning_holds_four_times_the_weights_and_its_input():
    m, n, t = 24, 16, 10
    tuning = adapt(nn.Sequential(nn.Linear(n, m)), "full")
    x, optimizer = torch.randn(t, n), torch.optim.AdamW(tuning.parameters(), lr=1e-3)
    found = training_memory(tuning.model, lambda: F.mse_loss(tuning.model(x), torch.zeros(t, m)), optimizer)
    numbers = 4 * (m * n + m)
    assert (found.weights, found.gradients, found.optimizer) == (numbers, numbers, 2 * numbers)
    assert found.saved == 4 * (t * n + 2 * t * m)  # the input, the outputs, and what they are compared with
